/* retake: what hangs on a thread whose P was taken. */
#include "net.h"

#include "base/atomic.h"
#include "base/lock.h"
#include "netpoll/fd.h"
#include "sched/retake.h"

#include <pthread.h>
#include <sys/resource.h>

/* Spins outside the runtime until its own P was taken. */
static void lose_p(void) {
    struct rt_m *m = rt_m();
    while (!rt_gate_is_shut(m)) {
        struct rt_p *p = rt_load_relaxed(&m->p);
        rt_cpu_relax();
        rt_retake(p, rt_progress_any(p));
    }
}

static int ends[2];

static void *read_until_q(void *arg) {
    for (char c = 0; c != 'q';)
        T_EQ(go_read(ends[0], &c, 1), 1);
    return arg;
}

static void lose_and_yield(void *arg) {
    lose_p();
    go_yield();
    rt_fetch_add((uint32_t *)arg, 1);
}

/* Its poll hangs on a worker's ring, which drops it when the worker becomes a spare. */
Test(retake, a_foreign_thread_waits_on) {
    uint32_t over = 0;
    pthread_t t;
    T_EQ(go_start(NULL), 0);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    T_EQ(pthread_create(&t, NULL, read_until_q, NULL), 0);
    for (uint32_t i = 0; i < T_SCALE(100); i++) {
        T_EQ(go_spawn(lose_and_yield, &over), 0);
        while (rt_load_acquire(&over) == i)
            usleep(50);
    }
    T_EQ(write(ends[1], "xq", 2), 2);
    T_EQ(pthread_join(t, NULL), 0);
    T_EQ(go_stop(GO_FOREVER), 0);
}

static bool uses_rings(void) {
    struct go_stats st = GO_STATS_INIT;
    T_EQ(go_stats(&st), 0);
    return !strcmp(st.netpoll, "uring");
}

/* ---- closed descriptors are let go ----------------------------------------------------------- */

enum { MANY = 2000 };
static int pairs[MANY][2], npairs;
static go_waitgroup readers;
static uint32_t reading;

static void read_one(void *arg) {
    char c;
    rt_fetch_add(&reading, 1);
    T_EQ(go_read(*(int *)arg, &c, 1), -EBADF);
    go_waitgroup_done(&readers);
}

/* once: what the thread loses its P by. */
static void close_all_once(void (*once)(void)) {
    for (npairs = 0; npairs < T_SCALE(MANY); npairs++) {
        T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[npairs]), 0);
        go_waitgroup_add(&readers, 1);
        T_EQ(go_spawn(read_one, &pairs[npairs][0]), 0);
    }
    net_wait_parked(npairs);
    once(); /* they were polled by this thread as by any other */
    for (int i = 0; i < npairs; i++)
        T_EQ(go_close(pairs[i][0]), 0);
    T_EQ(go_waitgroup_wait(&readers), 0);
    for (int i = 0; i < npairs; i++) {
        char c;
        T_EQ(go_read(pairs[i][1], &c, 1), 0); /* the end, or the test hangs */
        T_EQ(go_close(pairs[i][1]), 0);
    }
}

static bool may_have_many(void) {
    struct rlimit limit = {2 * MANY + 1000, 2 * MANY + 1000};
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

static void close_all(void *arg) {
    (void)arg;
    close_all_once(lose_p);
}
Test(retake, what_is_closed_is_let_go) {
    if (!may_have_many())
        T_SKIP("no %d descriptors here", 2 * MANY);
    RUN(close_all);
}

/* It does not come back as others do: nothing may be left on its ring. */
static void close_all_locked(void *arg) {
    (void)arg;
    close_all_once(go_lock_thread);
    go_unlock_thread();
}
Test(retake, what_is_closed_by_a_locked_thread_is_let_go) {
    if (!may_have_many())
        T_SKIP("no %d descriptors here", 2 * MANY);
    RUN(close_all_locked);
}

/* The ring of a thread that lost its P goes, whatever that does then: no close waits for it, and
 * the end of what it has polled is seen while it still computes, or sleeps in the kernel. */
enum { LEFT = 8 };
static int left_fd[LEFT][2], left_there;
static uint32_t left_step;
static int left_pipe[2];
static bool left_sleeps;

static bool polled_here(int fd) {
    const struct rt_fd *s = rt_fd_at(fd);
    return rt_load_relaxed(&s->poll[RT_IN].owner) != 0; /* nobody else has */
}

static void computes_until_told(void) {
    while (rt_load_acquire(&left_step) != 2)
        rt_cpu_relax();
}
static void sleeps_until_told(void) {
    char c;
    T_EQ(read(left_pipe[0], &c, 1), 1); /* not gort's */
}

static void leave_polls(void *arg) {
    (void)arg;
    for (int i = 0; i < LEFT; i++)
        T_EQ(go_poll_until(left_fd[i][0], POLLIN, go_now() + 100 * GO_MICROSECOND), -ETIMEDOUT);
    left_there = 0;
    for (int i = 0; i < LEFT; i++) /* under epoll none is */
        left_there += polled_here(left_fd[i][0]);
    lose_p();
    rt_store_release(&left_step, 1);
    if (left_sleeps)
        sleeps_until_told();
    else
        computes_until_told();
    go_waitgroup_done(&readers);
}

static void close_what_is_left(bool sleeps) {
    left_sleeps = sleeps;
    T_EQ(pipe(left_pipe), 0);
    for (int round = 0, seen = 0; round < T_SCALE(20) || seen == 0; round++) {
        for (int i = 0; i < LEFT; i++) {
            T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, left_fd[i]), 0);
            if (i % 2) /* what others have polled is asked no more, but is in flight perhaps */
                T_EQ(rt_fd_adopt(left_fd[i][0], RT_FD_OURS), 0);
        }
        rt_store_relaxed(&left_step, 0);
        go_waitgroup_add(&readers, 1);
        T_EQ(go_spawn(leave_polls, NULL), 0);
        while (rt_load_acquire(&left_step) == 0)
            go_sleep(100 * GO_MICROSECOND);
        seen += uses_rings() ? left_there : 1;
        for (int i = 0; i < LEFT; i++)
            T_EQ(go_close(left_fd[i][0]), 0);
        for (int i = 0; i < LEFT; i++) {
            char c;
            T_EQ(go_read(left_fd[i][1], &c, 1), 0); /* the end, or the test hangs */
            T_EQ(go_close(left_fd[i][1]), 0);
        }
        rt_store_release(&left_step, 2);
        if (sleeps)
            T_EQ(write(left_pipe[1], "x", 1), 1);
        T_EQ(go_waitgroup_wait(&readers), 0);
    }
    close(left_pipe[0]);
    close(left_pipe[1]);
}
static void close_beside_a_hog(void *arg) {
    (void)arg;
    close_what_is_left(false);
}
Test(retake, the_end_is_seen_beside_a_hog_that_has_polled) {
    RUN(close_beside_a_hog);
}
static void close_beside_a_sleeper(void *arg) {
    (void)arg;
    close_what_is_left(true);
}
Test(retake, the_end_is_seen_beside_a_sleeper_that_has_polled) {
    RUN(close_beside_a_sleeper);
}

/* Who is parked there goes on: by what comes, by a deadline, by a cancel. */
static go_scope canceled;
static uint32_t may_be_canceled;
static go_waitgroup hogs;
static void gets_a_byte(void *arg) {
    char c;
    (void)arg;
    T_EQ(go_read(left_fd[0][0], &c, 1), 1);
    go_waitgroup_done(&readers);
}
static void is_late(void *arg) {
    char c;
    go_scope s;
    (void)arg;
    go_scope_enter(&s, go_now() + 3 * GO_MILLISECOND);
    T_EQ(go_read(left_fd[1][0], &c, 1), -ETIMEDOUT);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    go_waitgroup_done(&readers);
}
static void is_canceled(void *arg) {
    char c;
    (void)arg;
    go_scope_enter(&canceled, GO_FOREVER);
    rt_store_release(&may_be_canceled, 1);
    T_EQ(go_read(left_fd[2][0], &c, 1), -ECANCELED);
    T_EQ(go_scope_leave(&canceled), -ECANCELED);
    go_waitgroup_done(&readers);
}
static void three_park(void *arg) {
    (void)arg;
    T_EQ(go_spawn(gets_a_byte, NULL), 0);
    T_EQ(go_spawn(is_late, NULL), 0);
    T_EQ(go_spawn(is_canceled, NULL), 0);
    while (net_parked() < 2 || !rt_load_acquire(&may_be_canceled)) /* one may be late by now */
        go_yield();
    go_sleep(GO_MILLISECOND); /* so that they are submitted, or not */
    rt_store_release(&left_step, 1);
    if (left_sleeps)
        sleeps_until_told();
    else
        computes_until_told();
}
static void goes_on(bool sleeps) {
    char c = 0;
    left_sleeps = sleeps;
    T_EQ(pipe(left_pipe), 0);
    for (int round = 0; round < T_SCALE(20); round++) {
        for (int i = 0; i < 3; i++)
            T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, left_fd[i]), 0);
        rt_store_relaxed(&left_step, 0);
        rt_store_relaxed(&may_be_canceled, 0);
        go_waitgroup_add(&readers, 3);
        T_EQ(go_waitgroup_spawn(&hogs, three_park, NULL), 0);
        while (rt_load_acquire(&left_step) == 0)
            go_sleep(100 * GO_MICROSECOND);
        T_EQ(go_write(left_fd[0][1], &c, 1), 1);
        go_scope_cancel(&canceled);
        T_EQ(go_waitgroup_wait(&readers), 0); /* or the test hangs: nobody is told before */
        rt_store_release(&left_step, 2);
        if (sleeps)
            T_EQ(write(left_pipe[1], "x", 1), 1);
        T_EQ(go_waitgroup_wait(&hogs), 0);
        for (int i = 0; i < 3; i++) {
            T_EQ(go_close(left_fd[i][0]), 0);
            T_EQ(go_close(left_fd[i][1]), 0);
        }
    }
    close(left_pipe[0]);
    close(left_pipe[1]);
}
static void beside_a_hog(void *arg) {
    (void)arg;
    goes_on(false);
}
Test(retake, who_is_parked_beside_a_hog_goes_on) {
    RUN(beside_a_hog);
}
static void beside_a_sleeper(void *arg) {
    (void)arg;
    goes_on(true);
}
Test(retake, who_is_parked_beside_a_sleeper_goes_on) {
    RUN(beside_a_sleeper);
}

/* What is polled again is polled by a healthy ring, and a close waits for that. */
static void park_and_lose_p(void *arg) {
    (void)arg;
    T_EQ(go_spawn(read_one, &left_fd[0][0]), 0);
    while (net_parked() != 1)
        go_yield();
    lose_p();
    go_waitgroup_done(&readers);
}

static void close_later(void *arg) {
    (void)arg;
    for (int round = 0; round < 20; round++) {
        char c;
        T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, left_fd[0]), 0);
        go_waitgroup_add(&readers, 1);
        T_EQ(go_spawn(park_and_lose_p, NULL), 0);
        T_EQ(go_waitgroup_wait(&readers), 0);
        go_waitgroup_add(&readers, 1); /* for the reader */
        T_EQ(go_close(left_fd[0][0]), 0);
        T_EQ(go_read(left_fd[0][1], &c, 1), 0); /* the end, or the test hangs */
        T_EQ(go_waitgroup_wait(&readers), 0);
        struct rt_fd *s = rt_fd_at(left_fd[0][0]);
        while (rt_load_acquire(&s->polls) != 0) /* the close may have given up; else it hangs */
            go_yield();
        T_EQ(go_close(left_fd[0][1]), 0);
    }
}
Test(retake, polls_that_go_with_a_ring_are_counted) {
    RUN(close_later);
}

/* ---- descriptors used up --------------------------------------------------------------------- */

static void sleep_in_kernel(void *arg) {
    char c;
    T_EQ(read(*(int *)arg, &c, 1), 1); /* not gort's: it blocks the thread */
    go_waitgroup_done(&readers);
}

static void *identity(void *arg) {
    return arg;
}

/* No spare gets a ring, so none begins; that takes no thread from anybody. */
static void without_descriptors(void *arg) {
    (void)arg;
    int end[2];
    void *result = NULL;
    struct rlimit old;
    T_EQ(pipe(end), 0);
    T_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    T_EQ(setrlimit(RLIMIT_NOFILE, &(struct rlimit){1, old.rlim_max}), 0);
    go_waitgroup_add(&readers, 2);
    for (int i = 0; i < 2; i++)
        T_EQ(go_spawn(sleep_in_kernel, &end[0]), 0);
    usleep(50000); /* many ticks; in the kernel, too */
    uint32_t left = rt_load_relaxed(&rt.threads_left);
    T_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    T_EQ(write(end[1], "xx", 2), 2);
    T_ASSERT(left + 4 >= 64 - 1, "%u threads left", left);
    T_EQ(go_blocking(identity, &result, &result), 0);
    T_EQ(result, &result);
    T_EQ(go_waitgroup_wait(&readers), 0);
    close(end[0]);
    close(end[1]);
}

/* Nor is one lost that had a ring, and lost it with its P. */
static void without_a_number_left(void *arg) {
    (void)arg;
    enum { LIMIT = 400 };
    struct rlimit old;
    uint32_t over = 0;
    int fds[LIMIT], n = 0;
    T_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    T_EQ(setrlimit(RLIMIT_NOFILE, &(struct rlimit){LIMIT, old.rlim_max}), 0);
    while ((fds[n] = dup(0)) >= 0)
        n++;
    T_EQ(errno, EMFILE);
    for (uint32_t i = 0; i < 50; i++) { /* more than there are threads to be lost */
        T_EQ(go_spawn(lose_and_yield, &over), 0);
        while (rt_load_acquire(&over) == i)
            go_yield();
    }
    while (n > 0)
        close(fds[--n]);
    T_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
}

Test(retake, without_descriptors_ps_are_taken) {
    RUN(without_a_number_left);
}

Test(retake, without_descriptors_no_thread_is_lost) {
    RUN(without_descriptors);
}
