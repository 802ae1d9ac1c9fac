/* Deadlines and cancels of I/O, and what they leave behind. */
#include "net.h"

static go_waitgroup wg;
static go_scope *shared;

static void deadline(void *arg) {
    (void)arg;
    int fd[2];
    char c;
    net_pair(fd);
    go_scope s;
    int64_t end = go_now() + 20 * GO_MILLISECOND;
    go_scope_enter(&s, end);
    T_EQ(go_read(fd[0], &c, 1), -ETIMEDOUT);
    T_ASSERT(go_now() >= end);
    T_EQ(go_write(fd[0], "x", 1), -ETIMEDOUT); /* it stays so */
    T_EQ(go_poll(fd[0], POLLOUT), -ETIMEDOUT);
    T_EQ(go_poll_until(fd[0], POLLOUT, GO_FOREVER), -ECANCELED);
    T_EQ(go_accept(fd[0], NULL, NULL), -ETIMEDOUT);
    T_EQ(go_dial("tcp", "127.0.0.1:1"), -ETIMEDOUT);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    T_EQ(go_write(fd[1], "x", 1), 1);
    T_EQ(go_read(fd[0], &c, 1), 1);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}
Test(late, scope_deadline) {
    RUN(deadline);
}

static void cancelled(void *arg) {
    char c;
    go_scope s;
    go_scope_enter(&s, GO_FOREVER);
    __atomic_store_n(&shared, &s, __ATOMIC_RELEASE);
    T_EQ(go_read(net_int(arg), &c, 1), -ECANCELED);
    T_EQ(go_read(net_int(arg), &c, 1), -ECANCELED);
    T_EQ(go_poll_until(net_int(arg), POLLIN, go_now() + GO_SECOND), -ECANCELED);
    T_EQ(go_scope_leave(&s), -ECANCELED);
}

static void cancel(void *arg) {
    (void)arg;
    int fd[2];
    net_pair(fd);
    for (int i = 0; i < 100; i++) {
        shared = NULL;
        T_EQ(go_waitgroup_spawn(&wg, cancelled, net_ptr(fd[0])), 0);
        if (i % 2)
            net_wait_parked(1);
        while (!__atomic_load_n(&shared, __ATOMIC_ACQUIRE))
            go_yield();
        go_scope_cancel(shared);
        T_EQ(go_waitgroup_wait(&wg), 0);
    }
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}
Test(late, cancel) {
    RUN(cancel);
}

static void own_deadline(void *arg) {
    (void)arg;
    int fd[2];
    net_pair(fd);
    T_EQ(go_poll_until(fd[0], POLLIN, GO_NOW), -ETIMEDOUT);
    T_EQ(go_poll_until(fd[0], POLLIN, go_now() + 5 * GO_MILLISECOND), -ETIMEDOUT);
    T_EQ(go_poll_until(fd[0], POLLOUT, GO_NOW), POLLOUT);
    T_EQ(go_poll(fd[0], POLLIN | POLLOUT), POLLOUT);
    go_scope s;
    go_scope_enter(&s, go_now() + 5 * GO_MILLISECOND);
    T_EQ(go_poll_until(fd[0], POLLIN, go_now() + GO_MINUTE), -ECANCELED);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    T_EQ(go_write(fd[1], "x", 1), 1);
    T_EQ(go_poll_until(fd[0], POLLIN, go_now() + GO_MINUTE), POLLIN);
    T_EQ(go_close(fd[1]), 0);
    T_EQ(go_poll(fd[0], POLLRDHUP), POLLRDHUP);
    T_EQ(go_close(fd[0]), 0);
}
Test(late, poll_until) {
    RUN(own_deadline);
}

/* A wait that timed out leaves its poll in flight, and the next one relies on it. */
enum { TIMEOUTS = 10000 };

static void times_out(void *arg) {
    char c;
    for (long i = 0, n = T_SCALE(TIMEOUTS) / 4; i < n; i++) {
        go_scope s;
        go_scope_enter(&s, go_now() + 50 * GO_MICROSECOND);
        T_EQ(go_read(net_int(arg), &c, 1), -ETIMEDOUT);
        T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    }
}

static void stale_polls(void *arg) {
    (void)arg;
    int fd[2];
    net_pair(fd);
    for (int i = 0; i < 4; i++)
        T_EQ(go_waitgroup_spawn(&wg, times_out, net_ptr(fd[0])), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    int rings, polls = net_polls_in_flight(&rings);
    T_ASSERT(polls <= 2 * rings + 2, "%d on %d rings", polls, rings);
    T_EQ(go_write(fd[1], "abcd", 4), 4);
    char buf[4];
    T_EQ(go_read(fd[0], buf, 4), 4);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}
Test(late, stale_polls_do_not_accumulate) {
    RUN(stale_polls);
}

/* Data, a deadline and a cancel at once: what arrived is reported or stays for the next reader. */
static long received;

static void racing_reader(void *arg) {
    char c;
    for (;;) {
        go_scope s;
        go_scope_enter(&s, go_now() + 100 * GO_MICROSECOND);
        ssize_t n = go_read(net_int(arg), &c, 1);
        int late = go_scope_leave(&s);
        if (n == 0)
            return;
        T_ASSERT(n == 1 || n == -ETIMEDOUT, "%zd", n);
        T_ASSERT(n == 1 || late == -ETIMEDOUT);
        if (n == 1)
            __atomic_fetch_add(&received, 1, __ATOMIC_RELAXED);
    }
}

static void racing(void *arg) {
    (void)arg;
    int fd[2];
    long n = T_SCALE(3000);
    net_pair(fd);
    received = 0;
    for (int i = 0; i < 3; i++)
        T_EQ(go_waitgroup_spawn(&wg, racing_reader, net_ptr(fd[0])), 0);
    for (long i = 0; i < n; i++) {
        T_EQ(go_write(fd[1], "x", 1), 1);
        if (i % 7 == 0)
            go_sleep(100 * GO_MICROSECOND);
    }
    T_EQ(go_close(fd[1]), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(received, n);
    T_EQ(go_close(fd[0]), 0);
}
Test(late, nothing_is_lost_when_data_and_deadline_race) {
    RUN(racing);
}

/* Whoever is parked when main returns is cancelled, and may still clean up. */
static void left_behind(void *arg) {
    int fd = net_int(arg);
    char c;
    ssize_t n = go_read(fd, &c, 1);
    T_ASSERT(n == -ECANCELED || n == 0, "%zd", n); /* 0: the other one was quicker */
    T_EQ(go_close(fd), 0);
}

static void leaves(void *arg) {
    (void)arg;
    for (int i = 0; i < 20; i++) {
        int fd[2];
        net_pair(fd);
        SPAWN(left_behind, net_ptr(fd[0]));
        SPAWN(left_behind, net_ptr(fd[1]));
    }
}
Test(late, stop_cancels_io) {
    NET_ONE_HEAP();
    RUN(leaves);
    struct t_usage before = t_usage();
    for (int i = 0; i < 5; i++)
        RUN(leaves);
    T_SAME_USAGE(before);
}
