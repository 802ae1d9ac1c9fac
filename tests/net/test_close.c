/* The end of a descriptor: who waits on it learns of it, and the next user of the number
 * nothing. */
#include "net.h"

#include "base/atomic.h"
#include "base/fault.h"

#include <pthread.h>
#include <sys/stat.h>

static go_waitgroup wg;
static char address[64];

static void read_ebadf(void *arg) {
    char c;
    T_EQ(go_read(net_int(arg), &c, 1), -EBADF);
}

static void poll_ebadf(void *arg) {
    T_EQ(go_poll(net_int(arg), POLLIN | POLLPRI), -EBADF);
}

static void write_ebadf(void *arg) {
    static char junk[1 << 16];
    ssize_t n;
    while ((n = go_write(net_int(arg), junk, sizeof junk)) > 0)
        ;
    T_EQ(n, -EBADF);
}

static void accept_ebadf(void *arg) {
    T_EQ(go_accept(net_int(arg), NULL, NULL), -EBADF);
}

static void wakes_all(void *arg) {
    (void)arg;
    int fd[2], listener = net_listen(address);
    net_pair(fd);
    fd[0] = net_raise(fd[0], true);
    T_EQ(go_waitgroup_spawn(&wg, read_ebadf, net_ptr(fd[0])), 0);
    T_EQ(go_waitgroup_spawn(&wg, read_ebadf, net_ptr(fd[0])), 0);
    T_EQ(go_waitgroup_spawn(&wg, poll_ebadf, net_ptr(fd[0])), 0);
    T_EQ(go_waitgroup_spawn(&wg, write_ebadf, net_ptr(fd[0])), 0);
    T_EQ(go_waitgroup_spawn(&wg, accept_ebadf, net_ptr(listener)), 0);
    T_EQ(go_waitgroup_spawn(&wg, accept_ebadf, net_ptr(listener)), 0);
    net_wait_parked(6);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(listener), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_close(fd[0]), -EBADF);
    T_EQ(go_close(fd[1]), 0);
}
Test(close, wakes_readers_writers_pollers_and_acceptors) {
    RUN(wakes_all);
}

static void forgets(void *arg) {
    (void)arg;
    int fd[2];
    char c;
    net_pair(fd);
    fd[0] = net_raise(fd[0], true);
    T_EQ(go_waitgroup_spawn(&wg, read_ebadf, net_ptr(fd[0])), 0);
    net_wait_parked(1);
    T_EQ(go_forget(fd[0]), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(write(fd[1], "x", 1), 1); /* it is open, and works on as one that gort did not make */
    T_EQ(go_read(fd[0], &c, 1), 1);
    T_EQ(go_waitgroup_spawn(&wg, read_ebadf, net_ptr(fd[0])), 0);
    net_wait_parked(1);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_forget(fd[0]), -EBADF);
    T_EQ(go_close(fd[1]), 0);
}
Test(close, forget_wakes_and_leaves_it_open) {
    RUN(forgets);
}

/* The number is handed out again at once; the reader of the old file is told, the new file
 * works. */
static void take_number(int number, int fresh[2]) {
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fresh), 0);
    int low = fresh[0];
    fresh[0] = fcntl(low, F_DUPFD_CLOEXEC, number);
    T_EQ(fresh[0], number);
    T_EQ(close(low), 0);
}

static void reuse(void *arg) {
    (void)arg;
    for (long i = 0, n = T_SCALE(300); i < n; i++) {
        int old[2], fresh[2];
        char c = 0;
        net_pair(old);
        old[0] = net_raise(old[0], true);
        T_EQ(go_waitgroup_spawn(&wg, read_ebadf, net_ptr(old[0])), 0);
        net_wait_parked(1); /* else it may begin on the next file of that number */
        T_EQ(go_close(old[0]), 0);
        take_number(old[0], fresh);
        T_EQ(go_waitgroup_wait(&wg), 0);
        T_EQ(write(fresh[1], "y", 1), 1);
        T_EQ(go_read(fresh[0], &c, 1), 1);
        T_EQ(c, 'y');
        T_EQ(go_close(fresh[0]), 0);
        T_EQ(go_close(fresh[1]), 0);
        T_EQ(go_close(old[1]), 0);
    }
}
Test(close, number_is_reused_at_once) {
    RUN(reuse);
}

/* A reader that could not be parked (epoll: "always ready") goes round by yields instead, and is as
 * safe as one that waits: from its first round on. */
static uint32_t refused(void) {
    return rt_load_acquire(&rt_fault_points[RT_FAULT_EPOLL_ADD].hits);
}

static void reuse_between_yields(void *arg) {
    (void)arg;
    for (long i = 0, n = T_SCALE(20); i < n; i++) {
        int old[2], fresh[2];
        T_EQ(pipe(old), 0);
        old[0] = net_raise(old[0], false);
        T_EQ(pipe(fresh), 0);
        T_EQ(write(fresh[1], "y", 1), 1);
        uint32_t before = refused();
        T_EQ(go_waitgroup_spawn(&wg, read_ebadf, net_ptr(old[0])), 0);
        while (refused() == before && net_parked() == 0)
            T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
        T_EQ(go_close(old[0]), 0);
        T_EQ(dup2(fresh[0], old[0]), old[0]);
        T_EQ(go_waitgroup_wait(&wg), 0);
        T_EQ(go_close(old[0]), 0);
        T_EQ(go_close(old[1]), 0);
        T_EQ(go_close(fresh[0]), 0);
        T_EQ(go_close(fresh[1]), 0);
    }
}
Test(close, number_is_reused_while_a_reader_yields) {
    rt_fault_arm(RT_FAULT_EPOLL_ADD, 2, true, EPERM); /* the first is the bell */
    RUN(reuse_between_yields);
    rt_fault_disarm();
}

/* close(2) gives the number away, then waits for the peer to take what was sent. */
static uint32_t closed;

static void close_and_linger(void *arg) {
    T_EQ(go_close(net_int(arg)), 0);
    rt_store_release(&closed, 1);
}

static bool is_file(int fd, const struct stat *file) {
    struct stat now;
    return fstat(fd, &now) == 0 && now.st_dev == file->st_dev && now.st_ino == file->st_ino;
}

static void reuse_while_it_lingers(void *arg) {
    (void)arg;
    struct stat old;
    static char junk[1 << 16];
    int fd[2], end[2];
    struct linger linger = {1, 60};
    rt_store_relaxed(&closed, 0);
    net_pair(fd);
    fd[0] = net_raise(fd[0], true);
    while (send(fd[0], junk, sizeof junk, MSG_DONTWAIT) > 0)
        ;
    T_EQ(setsockopt(fd[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    T_EQ(pipe(end), 0);
    T_EQ(fstat(fd[0], &old), 0);
    T_EQ(go_waitgroup_spawn(&wg, close_and_linger, net_ptr(fd[0])), 0);
    while (is_file(fd[0], &old))
        go_sleep(GO_MILLISECOND);
    int fresh = fcntl(end[0], F_DUPFD, fd[0]);
    T_EQ(fresh, fd[0]);
    char c;
    go_scope s;
    go_scope_enter(&s, go_now() + 2 * GO_MILLISECOND);
    T_EQ(go_read(fresh, &c, 1), -ETIMEDOUT); /* of the pipe; not when the other is closed */
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    T_EQ(rt_load_acquire(&closed), 0);
    T_EQ(go_close(fd[1]), 0); /* with unread data: a reset ends it */
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_close(fresh), 0);
    T_EQ(go_close(end[0]), 0);
    T_EQ(go_close(end[1]), 0);
}
Test(close, number_is_reused_while_the_close_lingers) {
    RUN(reuse_while_it_lingers);
}

/* A descriptor of somebody else, closed by plain close(2) behind our back: its number heals. */
static void read_one(void *arg) {
    char c;
    T_EQ(go_read(net_int(arg), &c, 1), 1);
}

static void heals(void *arg) {
    (void)arg;
    for (int i = 0; i < 50; i++) {
        int fd[2];
        T_EQ(i % 2 ? socketpair(AF_UNIX, SOCK_STREAM, 0, fd) : pipe(fd), 0);
        T_EQ(go_waitgroup_spawn(&wg, read_one, net_ptr(fd[0])), 0);
        net_wait_parked(1);
        T_EQ(write(fd[1], "z", 1), 1);
        T_EQ(go_waitgroup_wait(&wg), 0);
        close(fd[0]);
        close(fd[1]);
    }
}
Test(close, plain_close_of_a_foreign_descriptor_heals) {
    RUN(heals);
}

/* A question that was left behind, because its waiter was late or was told of the other direction,
 * would hold the old file, and be taken for one about the next of that number. */
static void heals_when_asked_before(void *arg) {
    int fd[2], next[2];
    (void)arg;
    for (int i = 0; i < 50; i++) {
        T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
        T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, next), 0);
        if (i % 2)
            T_EQ(go_poll(fd[0], POLLIN | POLLOUT), POLLOUT);
        else
            T_EQ(go_poll_until(fd[0], POLLIN, go_now() + GO_MILLISECOND), -ETIMEDOUT);
        T_EQ(dup2(next[0], fd[0]), fd[0]); /* a close(2), and nobody else takes the number */
        T_EQ(go_waitgroup_spawn(&wg, read_one, net_ptr(fd[0])), 0);
        net_wait_parked(1);
        T_EQ(write(next[1], "z", 1), 1);
        T_EQ(go_waitgroup_wait(&wg), 0);
        char c;
        T_EQ(go_read(fd[1], &c, 1), 0); /* its file has gone */
        close(fd[0]);
        close(fd[1]);
        close(next[0]);
        close(next[1]);
    }
}
Test(close, plain_close_heals_what_was_asked_before) {
    RUN(heals_when_asked_before);
}

/* ---- FIN ------------------------------------------------------------------------------------- */

/* While another green thread is parked reading on it, or was and timed out: the peer must see the
 * end when go_close has returned, also when a poll was left in flight, which holds the file. */
static void sees_end(int fd) {
    char c;
    T_EQ(go_poll(fd, POLLIN) & POLLIN, POLLIN);
    T_EQ(go_read(fd, &c, 1), 0);
}

static void fin_is_prompt(void *arg) {
    (void)arg;
    for (int i = 0; i < 100; i++) {
        int fd[2];
        net_pair(fd);
        if (i % 2) {
            T_EQ(go_waitgroup_spawn(&wg, read_ebadf, net_ptr(fd[0])), 0);
            net_wait_parked(1);
        } else {
            T_EQ(go_poll_until(fd[0], POLLIN, go_now() + GO_MILLISECOND), -ETIMEDOUT);
        }
        T_EQ(go_close(fd[0]), 0);
        sees_end(fd[1]);
        T_EQ(go_waitgroup_wait(&wg), 0);
        T_EQ(go_close(fd[1]), 0);
    }
}
Test(close, fin_is_sent_at_once) {
    RUN(fin_is_prompt);
}

/* A poll that was left in flight has been woken by a byte which has been read before its turn came:
 * it goes on, and a close takes it back all the same. One worker, so that nobody's turn is waited
 * for. */
static void woken_for_nothing(void *arg) {
    int asserted = 0;
    for (int i = 0; i < 50; i++) {
        int fd[2];
        char c;
        if (i % 2)
            net_pair(fd);
        else
            T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
        T_EQ(go_poll_until(fd[0], POLLIN, go_now() + GO_MILLISECOND), -ETIMEDOUT);
        const struct rt_m *first = rt_m();
        T_EQ(write(fd[1], "x", 1), 1);
        T_EQ(go_read(fd[0], &c, 1), 1);
        uint32_t rings = rt_load_relaxed(&rt_uring_closed);
        T_EQ(go_close(fd[0]), 0);
        if (rt_m() == first) { /* chaos may take the P all the same */
            T_EQ(rt_load_relaxed(&rt_uring_closed), rings);
            asserted++;
        }
        sees_end(fd[1]);
        T_EQ(go_close(fd[1]), 0);
    }
    *(bool *)arg = asserted != 0;
}
Test(close, a_poll_that_was_woken_for_nothing_is_taken_back) {
    struct go_options o = GO_OPTIONS_INIT;
    bool done = false;
    o.procs = 1;
    o.flags = GO_STRICT;
    T_EQ(go_start(&o), 0);
    T_EQ(go_waitgroup_spawn(&wg, woken_for_nothing, &done), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_stop(GO_FOREVER), 0);
    T_ASSERT(done);
}

/* A poll that was left on the ring of a worker who sleeps holds the file, too, when the next wait
 * was on another ring and the close knows only of that. */
static void fin_after_waits_on_two_rings(void *arg) {
    (void)arg;
    for (int i = 0; i < 20; i++) {
        int fd[2];
        net_pair(fd);
        T_EQ(go_poll_until(fd[0], POLLIN, go_now() + GO_MILLISECOND), -ETIMEDOUT);
        const struct rt_m *first = rt_m();
        for (int n = 0; n < 20 && rt_m() == first; n++)
            T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
        T_EQ(go_poll_until(fd[0], POLLIN, go_now() + GO_MILLISECOND), -ETIMEDOUT);
        T_EQ(go_close(fd[0]), 0);
        sees_end(fd[1]);
        T_EQ(go_close(fd[1]), 0);
    }
}
Test(close, fin_is_sent_when_two_rings_were_asked) {
    RUN(fin_after_waits_on_two_rings);
}

/* The same where the closer and everybody else go on without parking: nobody will tidy up later. */
static void close_and_compute(void *arg) {
    int *fd = arg;
    struct pollfd p = {.fd = fd[1], .events = POLLIN};
    T_EQ(go_close(fd[0]), 0);
    T_EQ(poll(&p, 1, -1), 1); /* blocks this M on purpose */
}

static void fin_without_the_scheduler(void *arg) {
    (void)arg;
    int fd[2];
    net_pair(fd);
    T_EQ(go_poll_until(fd[0], POLLIN, go_now() + GO_MILLISECOND), -ETIMEDOUT);
    T_EQ(go_waitgroup_spawn(&wg, close_and_compute, fd), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_close(fd[1]), 0);
}
Test(close, fin_needs_no_later_pass_of_the_scheduler) {
    RUN(fin_without_the_scheduler);
}

/* A poll that another worker has asked for holds the file, too: when go_close has returned its
 * ring has let it go, and the port is free. */
static struct rt_m *acceptor;

static void accept_on_m(void *arg) {
    rt_store_release(&acceptor, rt_m());
    accept_ebadf(arg);
}

static void spin_until_parked(void) {
    while (net_parked() != 1)
        if (rt_procs() == 1)
            go_yield();
}

static void listens_again(void *arg) {
    (void)arg;
    long apart = 0, n = T_SCALE(300);
    int listener = net_listen(address);
    for (long i = 0; i < n; i++) {
        T_EQ(go_waitgroup_spawn(&wg, accept_on_m, net_ptr(listener)), 0);
        spin_until_parked(); /* without letting go of this worker: another must take it */
        apart += rt_load_acquire(&acceptor) != rt_m();
        bool over = net_close_is_over(listener);
        T_EQ(go_waitgroup_wait(&wg), 0);
        listener = go_listen("tcp", address);
        while (listener == -EADDRINUSE && !over)
            listener = go_listen("tcp", address);
        T_ASSERT(listener >= 0, "round %ld: %d", i, listener);
    }
    T_EQ(go_close(listener), 0);
    T_ASSERT(rt_procs() == 1 || apart > n / 2, "%ld of %ld", apart, n);
}
Test(close, a_listener_is_gone_when_the_close_returns) {
    RUN(listens_again);
}

/* Two workers that close what the other has asked for wait for each other, and serve each other. */
static int crossed[2][2];
static uint32_t crossed_met;

static void close_of_other(void *arg) {
    int me = net_int(arg);
    T_EQ(go_poll_until(crossed[me][0], POLLIN, go_now() + GO_MILLISECOND), -ETIMEDOUT);
    rt_fetch_add(&crossed_met, 1);
    while (rt_load_acquire(&crossed_met) % 2 != 0)
        if (rt_procs() == 1)
            go_yield();
    T_EQ(go_close(crossed[!me][0]), 0);
    sees_end(crossed[!me][1]);
}

static void close_crosswise(void *arg) {
    (void)arg;
    for (long i = 0, n = T_SCALE(200); i < n; i++) {
        for (int k = 0; k < 2; k++)
            net_pair(crossed[k]);
        for (int k = 0; k < 2; k++)
            T_EQ(go_waitgroup_spawn(&wg, close_of_other, net_ptr(k)), 0);
        T_EQ(go_waitgroup_wait(&wg), 0);
        for (int k = 0; k < 2; k++)
            T_EQ(go_close(crossed[k][1]), 0);
    }
}
Test(close, two_workers_that_close_crosswise_go_on) {
    rt_store_relaxed(&crossed_met, 0);
    RUN(close_crosswise);
}

/* A listener that a child holds, too, goes on accepting there: no shutdown(2). */
static void shared_listener(void *arg) {
    (void)arg;
    int listener = net_listen(address);
    int other = dup(listener); /* the same open file, as a child would have it */
    T_EQ(go_waitgroup_spawn(&wg, accept_ebadf, net_ptr(listener)), 0);
    net_wait_parked(1);
    T_EQ(go_close(listener), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    int a = go_dial("tcp", address);
    T_ASSERT(a >= 0, "%d", a);
    int b = go_accept(other, NULL, NULL);
    T_ASSERT(b >= 0, "%d", b);
    T_EQ(go_close(a), 0);
    T_EQ(go_close(b), 0);
    T_EQ(go_close(other), 0);
}
/* Nor a connection. */
static void shared_connection(void *arg) {
    (void)arg;
    int fd[2];
    char c = 0;
    net_pair(fd);
    int other = dup(fd[0]);
    T_EQ(go_waitgroup_spawn(&wg, read_ebadf, net_ptr(fd[0])), 0);
    net_wait_parked(1);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_write(other, &c, 1), 1);
    T_EQ(go_read(fd[1], &c, 1), 1);
    T_EQ(go_write(fd[1], &c, 1), 1);
    T_EQ(go_read(other, &c, 1), 1);
    T_EQ(go_close(other), 0);
    T_EQ(go_close(fd[1]), 0);
}
Test(close, never_shuts_down_what_others_share) {
    RUN(shared_listener);
    RUN(shared_connection);
}

/* A reader that has waited and is just awake reads from its own file, or is told: never from the
 * next one of that number. */
static void read_own(void *arg) {
    char c = 0;
    ssize_t n = go_read(net_int(arg), &c, 1);
    T_ASSERT(n == -EBADF || (n == 1 && c == 'o'), "%zd, '%c'", n, c);
}

static void wake_and_reuse(void *arg) {
    (void)arg;
    for (long i = 0, n = T_SCALE(1000); i < n; i++) {
        int old[2], fresh[2];
        char c = 0;
        net_pair(old);
        old[0] = net_raise(old[0], true);
        for (int j = 0; j < 2; j++)
            T_EQ(go_waitgroup_spawn(&wg, read_own, net_ptr(old[0])), 0);
        net_wait_parked(2);
        T_EQ(go_write(old[1], "oo", 2), 2);
        for (int64_t end = go_now() + i % 100 * 2000; go_now() < end;)
            ; /* another worker wakes them meanwhile */
        T_EQ(go_close(old[0]), 0);
        take_number(old[0], fresh);
        T_EQ(write(fresh[1], "y", 1), 1);
        T_EQ(go_waitgroup_wait(&wg), 0);
        T_EQ(go_read(fresh[0], &c, 1), 1);
        T_EQ(c, 'y');
        T_EQ(go_close(fresh[0]), 0);
        T_EQ(go_close(fresh[1]), 0);
        T_EQ(go_close(old[1]), 0);
    }
}
Test(close, who_was_woken_does_not_read_from_the_next_file) {
    RUN(wake_and_reuse);
}

/* ---- storms ---------------------------------------------------------------------------------- */

static void storm_reader(void *arg) {
    char c;
    ssize_t n = go_read(net_int(arg), &c, 1);
    T_ASSERT(n == -EBADF || n == 1 || n == 0, "%zd", n);
}

static void storm_closer(void *arg) {
    int err = go_close(net_int(arg));
    T_ASSERT(err == 0 || err == -EBADF, "%d", err);
}

static void storm(void *arg) {
    (void)arg;
    for (long i = 0, n = T_SCALE(500); i < n; i++) {
        int fd[2];
        net_pair(fd);
        fd[0] = net_raise(fd[0], true); /* it is closed twice */
        for (int j = 0; j < 3; j++)
            T_EQ(go_waitgroup_spawn(&wg, storm_reader, net_ptr(fd[0])), 0);
        if (i % 3 == 0)
            go_yield();
        T_EQ(go_write(fd[1], "q", 1), 1);
        T_EQ(go_waitgroup_spawn(&wg, storm_closer, net_ptr(fd[0])), 0);
        T_EQ(go_waitgroup_spawn(&wg, storm_closer, net_ptr(fd[0])), 0);
        T_EQ(go_waitgroup_wait(&wg), 0);
        T_EQ(go_close(fd[1]), 0);
    }
}
Test(close, races_with_data_readers_and_closers) {
    NET_ONE_HEAP();
    RUN(storm);
    struct t_usage before = t_usage();
    RUN(storm);
    T_SAME_USAGE(before);
}
