/* host.c - a host for scripts/guest.py to look at with strace: each part begins with a write of its
 * name to no descriptor, which the trace shows. Prints the id of its second thread. */
#include <errno.h>
#include <gort.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(cond) \
    do { \
        if (!(cond)) { \
            fprintf(stderr, "host.c:%d: not so: %s\n", __LINE__, #cond); \
            exit(1); \
        } \
    } while (0)

static void part(const char *name) {
    if (write(-1, name, strlen(name)) >= 0)
        abort();
}

static void *nothing(void *arg) {
    return arg;
}

static int stop, rounds;

static void count(void *n) {
    __atomic_add_fetch((int *)n, 1, __ATOMIC_SEQ_CST);
}

/* A thread of the host that uses what is there, before, during and after. */
static void *user(void *arg) {
    printf("%d\n", gettid());
    fflush(stdout);
    while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
        int r = go_spawn(count, &rounds);
        CHECK(r == 0 || r == -ENXIO || r == -ESHUTDOWN);
        go_mutex_lock(arg);
        go_mutex_unlock(arg);
        usleep(100);
    }
    return NULL;
}

static void work(void *arg) {
    int fd[2];
    char c;
    (void)arg;
    CHECK(pipe(fd) == 0);
    CHECK(go_write(fd[1], "x", 1) == 1);
    CHECK(go_read(fd[0], &c, 1) == 1);
    go_close(fd[0]);
    go_close(fd[1]);
    CHECK(go_blocking(nothing, NULL, NULL) == 0);
    CHECK(go_sleep(GO_MILLISECOND) == 0);
}

static void start_and_stop(void) {
    go_waitgroup wg = {0};
    CHECK(go_start(NULL) == 0);
    for (int i = 0; i < 10; i++)
        CHECK(go_waitgroup_spawn(&wg, work, NULL) == 0);
    CHECK(go_waitgroup_wait(&wg) == 0);
    CHECK(go_stop(GO_FOREVER) == 0);
}

int main(void) {
    static go_mutex mutex;
    pthread_t t, plain;
    CHECK(pthread_create(&t, NULL, user, &mutex) == 0); /* libc prepares itself for threads */
    start_and_stop();                                   /* and registers a fork handler, ... */
    part("plain");
    for (int i = 0; i < 10; i++) {
        CHECK(pthread_create(&plain, NULL, nothing, NULL) == 0);
        CHECK(pthread_join(plain, NULL) == 0);
    }
    part("gort");
    for (int i = 0; i < 3; i++)
        start_and_stop();
    part("end");
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    CHECK(pthread_join(t, NULL) == 0);
    return 0;
}
