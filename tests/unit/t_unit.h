/* t_unit.h - what the tests of the runtime share: bodies on green threads, crowds of threads, child
 * processes, text on stderr. */
#ifndef T_UNIT_H
#define T_UNIT_H

#include "gotest.h"

#include "base/atomic.h"
#include "base/sys.h"

#include <errno.h>
#include <gort.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A time that does not come while a test runs: its own limit is before it. */
#define T_NEVER (60 * GO_MINUTE)

#define T_UNUSED __attribute__((unused))
#define T_COUNT(a) (sizeof(a) / sizeof *(a))

/* A test whose body is the first green thread of a go_run that must return 0. */
#define GTest(suite, name, ...) \
    static void g_##suite##_##name(void *arg); \
    Test(suite, name, ##__VA_ARGS__) { \
        T_RUN(g_##suite##_##name, NULL); \
    } \
    static void g_##suite##_##name(void *arg T_UNUSED)

#define T_RUN(fn, arg)   T_EQ(t_stopped(go_run((fn), (arg))), 0)
#define T_SPAWN(fn, arg) T_EQ(go_spawn((fn), (arg)), 0)
#define T_JOIN(task)   t_join((task), __FILE__, __LINE__)

/* A stop whose grace is over has named on stderr who has not ended. That is no error as yet, a
 * machine may be that slow: it goes on, until the time limit of the test ends it. */
static inline int t_stopped(int result) {
    while (result == -ETIMEDOUT)
        result = go_stop(10 * GO_SECOND);
    return result;
}

static inline void *t_join(go_task *task, const char *file, int line) {
    void *result = NULL;
    int r = go_task_join(task, &result);
    if (r != 0)
        t_fail(file, line, "the join", " of %p: %d", (void *)task, r);
    return result;
}

static inline void *t_ptr(intptr_t n) {
    return (void *)n;
}
static inline intptr_t t_int(const void *p) {
    return (intptr_t)p;
}

/* Wait for what another thread does; the time limit of the test ends it otherwise. A sleep that is
 * refused, by a cancel or a stop, is over at once, and who is awaited may need this very P. */
static inline void t_relax(void) {
    if (go_id() == 0)
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    else if (go_sleep(100 * GO_MICROSECOND) != 0)
        go_yield();
}
#define T_AWAIT(cond) \
    do { \
        while (!(cond)) \
            t_relax(); \
    } while (0)

/* n threads that are not gort's; the argument of each is t_ptr(0..n-1). */
static inline void t_start_threads(pthread_t *t, int n, void *(*fn)(void *)) {
    for (int i = 0; i < n; i++)
        T_EQ(pthread_create(&t[i], NULL, fn, t_ptr(i)), 0);
}
static inline void t_join_threads(pthread_t *t, int n) {
    for (int i = 0; i < n; i++)
        T_EQ(pthread_join(t[i], NULL), 0);
}
static inline void t_threads(int n, void *(*fn)(void *)) {
    pthread_t t[64];
    T_ASSERT(n <= 64);
    t_start_threads(t, n, fn);
    t_join_threads(t, n);
}

static inline void t_start(unsigned procs) {
    struct go_options o = GO_OPTIONS_INIT;
    o.procs = procs;
    T_EQ(go_start(&o), 0);
}
/* The same, and no P is taken from who hogs it: at most procs green threads run. */
static inline void t_start_strict(unsigned procs) {
    struct go_options o = GO_OPTIONS_INIT;
    o.procs = procs;
    o.flags = GO_STRICT;
    T_EQ(go_start(&o), 0);
}
static inline void t_stop(void) {
    T_EQ(t_stopped(go_stop(10 * GO_SECOND)), 0);
}

static inline struct go_stats t_stats(void) {
    struct go_stats s = GO_STATS_INIT;
    T_EQ(go_stats(&s), 0);
    return s;
}

/* n green threads with stacks at once, or fewer where each guard costs a mapping: before Linux
 * 6.13 vm.max_map_count bounds them. */
static inline long t_parked(long n) {
    size_t page = rt_sys_page_size(), most = rt_sys_max_maps() / 4;
    bool light = true;
    void *p = rt_sys_map(page);
    T_ASSERT(p && rt_sys_guard(p, page, &light) == 0);
    rt_sys_unmap(p, page);
    return light || (size_t)n < most ? n : (long)most;
}

/* A parked green thread is a fiber to TSan, made in milliseconds, and there is room for some 8,000
 * of them. */
#ifdef T_TSAN
#define T_CROWD(n) ((n) < 400 ? (n) : 400)
#else
#define T_CROWD(n) (n)
#endif

/* A small generator, so that a failure can be repeated (xorshift64). */
static inline uint64_t t_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

/* What the statements write to stderr goes to `buf`. Not for a child of T_DIES. */
struct t_stderr {
    int saved;
    FILE *file;
};
static inline struct t_stderr t_stderr_begin(void) {
    struct t_stderr s = {dup(2), tmpfile()};
    T_ASSERT(s.saved >= 0 && s.file);
    T_EQ(dup2(fileno(s.file), 2), 2);
    return s;
}
static inline void t_stderr_end(struct t_stderr s, char *buf, size_t size) {
    T_EQ(dup2(s.saved, 2), 2);
    close(s.saved);
    rewind(s.file);
    size_t n = fread(buf, 1, size - 1, s.file);
    buf[n] = 0;
    fclose(s.file);
}

/* fn() in a forked child; it must end by exit(0). Fork before the runtime runs. */
static inline void t_in_child(void (*fn)(void)) {
    pid_t pid = fork();
    T_ASSERT(pid >= 0);
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        fn();
        _exit(0);
    }
    int status;
    T_EQ(waitpid(pid, &status, 0), pid);
    T_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
}

/* fn() runs into a deadlock, which is told where there are no other threads: in a child of our own,
 * since Criterion has some beside the test. Only in the body of a test, as its last statement. */
#ifdef T_TSAN
#define T_IN_CHILD_ALONE(fn) \
    (void)(fn); \
    T_SKIP("TSan has a thread or two of its own, which look like foreign ones")
#else
#define T_IN_CHILD_ALONE(fn) t_in_child(fn)
#endif

#endif
