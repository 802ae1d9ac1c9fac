/* libraries.c - gort as part of libraries that a program opens and closes: MODULE_A and MODULE_B
 * are two copies of module.c. This program is not linked with gort, so that opening a module brings
 * it in, with its thread-local variables, and the threads of gort outlive what started them. */
#include "gotest.h"

#include "module.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

struct library {
    void *handle;
    const struct module *m;
};

static struct library open_library(const char *path) {
    struct library l = {dlopen(path, RTLD_NOW | RTLD_LOCAL), NULL};
    T_ASSERT(l.handle, "%s", dlerror());
    l.m = dlsym(l.handle, "module");
    T_ASSERT(l.m);
    return l;
}

static void close_library(struct library l, const char *path) {
    T_EQ(dlclose(l.handle), 0);
    void *still = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    T_ASSERT(!still, "%s is still there", path);
}

/* A start of 64 workers takes its time. */
static int cycles(int n) {
    return (int)T_SCALE(t_procs() > 8 ? n / 5 : n);
}

Test(libraries, one_is_opened_used_and_closed_again_and_again) {
    struct t_usage before = {0};
    mallopt(M_ARENA_MAX, 1);
    for (int i = 0; i < cycles(100) + 3; i++) {
        struct library l = open_library(MODULE_A);
        if (i == 3)
            before = t_usage();
        int64_t id;
        T_EQ(l.m->own(&id), 1); /* a new one each time */
        T_EQ(l.m->start(), 0);
        T_EQ(l.m->sum(100), 5050);
        T_EQ(l.m->stop(), 0);
        T_EQ(l.m->sum(1), -1);
        if (i == cycles(100) + 2)
            T_SAME_USAGE(before);
        close_library(l, MODULE_A);
    }
}

Test(libraries, the_runtime_outlives_the_one_that_started_it) {
    for (int i = 0; i < 3; i++) {
        struct library l = open_library(MODULE_A);
        T_EQ(i % 2 ? l.m->start() : l.m->acquire(), 0);
        T_EQ(l.m->sum(100), 5050);
        close_library(l, MODULE_A);
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL); /* its threads live on */
        l = open_library(i == 0 ? MODULE_B : MODULE_A);
        T_EQ(l.m->procs(), t_procs());
        T_EQ(l.m->start(), -EALREADY);
        T_EQ(l.m->sum(200), 20100);
        T_EQ(i % 2 ? l.m->stop() : l.m->release(), 0);
        T_EQ(l.m->procs(), 0);
        close_library(l, i == 0 ? MODULE_B : MODULE_A);
    }
}

Test(libraries, two_share_one_runtime) {
    struct library a = open_library(MODULE_A), b = open_library(MODULE_B);
    int64_t id_a, id_b;
    a.m->own(&id_a);
    b.m->own(&id_b);
    T_ASSERT(id_a != id_b); /* two modules indeed */
    T_EQ(a.m->acquire(), 0);
    T_EQ(b.m->acquire(), 0);
    T_EQ(b.m->start(), -EALREADY);
    T_EQ(a.m->release(), 0);
    T_EQ(b.m->sum(100), 5050);
    T_EQ(a.m->acquire(), 0);
    T_EQ(b.m->release(), 0);
    close_library(b, MODULE_B);
    T_EQ(a.m->sum(100), 5050);
    T_EQ(a.m->release(), 0);
    T_EQ(a.m->procs(), 0);
    close_library(a, MODULE_A);
}

/* A user of its own in each of two threads: it comes and goes without looking at the other one.
 * TSan does not see the lock of the dynamic linker. */
static pthread_mutex_t linker = PTHREAD_MUTEX_INITIALIZER;

static void *come_and_go(void *arg) {
    const char *path = arg;
    for (int i = 0; i < cycles(50); i++) {
        pthread_mutex_lock(&linker);
        struct library l = open_library(path);
        pthread_mutex_unlock(&linker);
        int r;
        while ((r = l.m->acquire()) == -EALREADY) /* the other one's release stops it just now */
            sched_yield();
        T_EQ(r, 0);
        T_EQ(l.m->sum(50), 1275);
        while ((r = l.m->release()) == -EALREADY)
            sched_yield();
        T_EQ(r, 0);
        pthread_mutex_lock(&linker);
        T_EQ(dlclose(l.handle), 0);
        pthread_mutex_unlock(&linker);
    }
    return NULL;
}

Test(libraries, two_come_and_go_at_once) {
    pthread_t a, b;
    T_EQ(pthread_create(&a, NULL, come_and_go, MODULE_A), 0);
    T_EQ(pthread_create(&b, NULL, come_and_go, MODULE_B), 0);
    T_EQ(pthread_join(a, NULL), 0);
    T_EQ(pthread_join(b, NULL), 0);
    struct library l = open_library(MODULE_A);
    T_EQ(l.m->procs(), 0);
    close_library(l, MODULE_A);
}
