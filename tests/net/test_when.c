/* go_spawn_when: fn runs once when the descriptor is ready, and there is no stack before that. */
#include "when.h"

#include "base/fault.h"

#include <sys/eventfd.h>
#include <sys/resource.h>

enum { MANY = 2000 };

static char junk[1 << 16];

static void fill(int fd) {
    while (go_send(fd, junk, sizeof junk, MSG_DONTWAIT) > 0)
        ;
}

/* ---- ready ----------------------------------------------------------------------------------- */

static void ready(void *arg) {
    (void)arg;
    for (int i = 0; i < 200; i++) {
        int fd[2];
        make_pair(i % 2, fd);
        runs = 0;
        when(fd[0], POLLIN, POLLIN);
        if (i % 3)
            net_wait_parked(1);
        T_EQ(runs_now(), 0);
        T_EQ(go_write(fd[1], "x", 1), 1);
        await_runs(1);
        when(fd[0], POLLIN, POLLIN); /* it is ready already */
        await_runs(2);
        when(fd[0], POLLOUT, POLLOUT);
        await_runs(3);
        when(fd[0], POLLIN | POLLOUT, POLLIN | POLLOUT);
        await_runs(4);
        drain(fd[0], 1);
        when(fd[0], POLLIN, POLLIN);
        T_EQ(go_write(fd[1], "y", 1), 1);
        await_runs(5);
        when(fd[0], POLLRDHUP, POLLRDHUP | (i % 2 ? POLLHUP : 0));
        T_EQ(go_close(fd[1]), 0);
        await_runs(6);
        T_EQ(go_close(fd[0]), 0);
    }
}
Test(when, runs_once_when_ready) {
    RUN(ready);
}

static void writable(void *arg) {
    (void)arg;
    for (int i = 0; i < 10; i++) {
        int fd[2];
        T_EQ(socketpair(AF_UNIX, SOCK_STREAM | (i % 2 ? SOCK_NONBLOCK : 0), 0, fd), 0);
        runs = 0;
        fill(fd[0]);
        when(fd[0], POLLOUT, POLLOUT);
        net_wait_parked(1);
        T_EQ(runs_now(), 0);
        while (go_recv(fd[1], junk, sizeof junk, MSG_DONTWAIT) > 0)
            ;
        await_runs(1);
        close_pair(fd);
    }
}
Test(when, runs_once_when_writable) {
    RUN(writable);
}

/* The commit, the edge and the poll(2) before race for the same byte. */
static void write_one(void *arg) {
    T_EQ(go_write(net_int(arg), "x", 1), 1);
}

static void races_with_data(void *arg) {
    (void)arg;
    int fd[2][2];
    make_pair(0, fd[0]);
    make_pair(1, fd[1]);
    for (long i = 0, n = T_SCALE(2000); i < n; i++) {
        int *pair = fd[i % 2];
        runs = 0;
        SPAWN(write_one, net_ptr(pair[1]));
        if (i % 4 > 1)
            go_yield();
        when(pair[0], POLLIN, POLLIN);
        await_runs(1);
        drain(pair[0], 1);
    }
    close_pair(fd[0]);
    close_pair(fd[1]);
}
Test(when, no_event_is_lost) {
    RUN(races_with_data);
}

/* Somebody who is parked there takes the byte. Either fn sees it before that, or it waits for the
 * next: it is not called in vain. */
static int readers_done;

static void read_byte(void *arg) {
    char c;
    T_EQ(go_read(net_int(arg), &c, 1), 1);
    T_EQ(c, 'r');
    __atomic_store_n(&readers_done, 1, __ATOMIC_RELEASE);
}

static void shared_with_readers(void *arg) {
    (void)arg;
    for (int i = 0; i < 50; i++) {
        int fd[2];
        make_pair(i % 2, fd);
        runs = readers_done = 0;
        SPAWN(read_byte, net_ptr(fd[0]));
        net_wait_parked(1);
        when(fd[0], POLLIN, POLLIN);
        net_wait_parked(2);
        T_EQ(go_write(fd[1], "r", 1), 1);
        while (!__atomic_load_n(&readers_done, __ATOMIC_ACQUIRE))
            T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
        for (struct go_stats st = GO_STATS_INIT; runs_now() == 0;) {
            T_EQ(go_stats(&st), 0);
            if (st.fd_waits == 1) { /* it waits again */
                T_EQ(go_write(fd[1], "n", 1), 1);
                break;
            }
            T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
        }
        await_runs(1);
        close_pair(fd);
    }
}
Test(when, not_in_vain) {
    RUN(shared_with_readers);
}

/* ---- one for each direction ------------------------------------------------------------------ */

static void busy(void *arg) {
    (void)arg;
    for (int kind = 0; kind < 2; kind++) {
        int fd[2];
        make_pair(kind, fd);
        runs = 0;
        fill(fd[0]);
        when(fd[0], POLLIN, ANY);
        T_EQ(go_spawn_when(fd[0], POLLIN, note, NULL), -EBUSY);
        T_EQ(go_spawn_when(fd[0], POLLPRI, note, NULL), -EBUSY);
        T_EQ(go_spawn_when(fd[0], 0, note, NULL), -EBUSY);
        T_EQ(go_spawn_when_until(fd[0], POLLIN, go_now() + GO_MINUTE, note, NULL), -EBUSY);
        when(fd[1], POLLIN | POLLPRI, POLLIN); /* the other end; ready at once */
        await_runs(1);
        T_EQ(go_write(fd[1], "x", 1), 1);
        await_runs(2);
        drain(fd[0], 1);
        when(fd[0], POLLIN, -EBADF); /* its turn again */
        T_EQ(go_close(fd[0]), 0);
        await_runs(3);
        T_EQ(go_close(fd[1]), 0);
    }
}
Test(when, second_in_a_direction_is_ebusy) {
    RUN(busy);
}

/* ---- what it costs --------------------------------------------------------------------------- */

#if !defined(T_ASAN) && !defined(T_TSAN) /* which keep accounts of their own */
static void no_stacks(void *arg) {
    (void)arg;
    static int fd[MANY];
    for (int i = 0; i < MANY; i++) {
        fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        T_ASSERT(fd[i] >= 0);
    }
    long before = t_resident();
    runs = 0;
    for (int i = 0; i < MANY; i++)
        when(fd[i], POLLIN, POLLIN);
    net_wait_parked(MANY);
    long grown = t_resident() - before;
    T_ASSERT(grown < MANY / 2 * sysconf(_SC_PAGESIZE), /* stacks: a page each, and more */
             "%ld bytes for %d that wait", grown, MANY);
    for (int i = 0; i < MANY; i++)
        T_EQ(go_write(fd[i], &(uint64_t){1}, 8), 8);
    await_runs(MANY);
    for (int i = 0; i < MANY; i++)
        T_EQ(go_close(fd[i]), 0);
}
Test(when, has_no_stack_while_it_waits) {
    struct rlimit l;
    T_EQ(getrlimit(RLIMIT_NOFILE, &l), 0);
    l.rlim_cur = l.rlim_max;
    T_EQ(setrlimit(RLIMIT_NOFILE, &l), 0);
    if (l.rlim_cur < MANY + 100)
        T_SKIP("%d descriptors are not to be had", MANY);
    RUN(no_stacks);
}
#endif

/* An echo server without a stack for an idle connection. */
static go_waitgroup wg;
static int served;

static void serve(void *arg) {
    char buf[256];
    int fd = net_int(arg), r = go_when_result();
    T_ASSERT(r > 0, "%d", r);
    ssize_t n = go_read(fd, buf, sizeof buf);
    T_ASSERT(n >= 0, "%zd", n);
    if (n == 0) {
        T_EQ(go_close(fd), 0);
        __atomic_fetch_add(&served, 1, __ATOMIC_RELEASE);
        return;
    }
    T_EQ(go_write_all(fd, buf, (size_t)n), n);
    T_EQ(go_spawn_when_until(fd, POLLIN, go_now() + GO_MINUTE, serve, arg), 0);
}

static void ask(void *arg) {
    int fd = net_int(arg);
    char buf[256];
    for (int i = 1; i <= 50; i++) {
        memset(buf, 'a' + i % 26, sizeof buf);
        T_EQ(go_write_all(fd, buf, (size_t)i), i);
        T_EQ(go_recv(fd, buf, (size_t)i, MSG_WAITALL), i);
        T_EQ(buf[i - 1], 'a' + i % 26);
    }
    T_EQ(go_close(fd), 0);
}

static void serves(void *arg) {
    (void)arg;
    int n = (int)T_SCALE(100);
    served = 0;
    for (int i = 0; i < n; i++) {
        int fd[2];
        make_pair(i % 2, fd);
        T_EQ(go_spawn_when(fd[0], POLLIN, serve, net_ptr(fd[0])), 0);
        T_EQ(go_waitgroup_spawn(&wg, ask, net_ptr(fd[1])), 0);
    }
    T_EQ(go_waitgroup_wait(&wg), 0);
    while (__atomic_load_n(&served, __ATOMIC_ACQUIRE) < n)
        T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
}
Test(when, serves_connections) {
    RUN(serves);
}

/* Data, a close and a deadline in any order: fn runs once for each that was armed. */
static void closes(void *arg) {
    T_EQ(go_close(net_int(arg)), 0);
}

static void may_write(void *arg) {
    ssize_t n = go_write(net_int(arg), "x", 1);
    T_ASSERT(n == 1 || n == -EPIPE || n == -ECONNRESET, "%zd", n);
}

static void storm(void *arg) {
    (void)arg;
    int armed = 0;
    runs = 0;
    for (long i = 0, n = T_SCALE(600); i < n; i++) {
        int fd[2];
        make_pair((int)i % 2, fd);
        int64_t deadline = i % 3 ? GO_FOREVER : go_now() + 20 * GO_MICROSECOND;
        T_EQ(go_spawn_when_until(fd[0], POLLIN, deadline, note, net_ptr(ANY)), 0);
        armed++;
        T_EQ(go_waitgroup_spawn(&wg, may_write, net_ptr(fd[1])), 0);
        T_EQ(go_waitgroup_spawn(&wg, closes, net_ptr(fd[0])), 0);
        if (i % 5 == 0)
            go_yield();
        await_runs(armed);
        int r = last_result;
        T_ASSERT(r == POLLIN || r == -EBADF || (deadline != GO_FOREVER && r == -ETIMEDOUT), "%d",
                 r);
        T_EQ(go_waitgroup_wait(&wg), 0);
        T_EQ(go_close(fd[1]), 0);
    }
}
Test(when, storm) {
    RUN(storm);
}

/* ---- errors ---------------------------------------------------------------------------------- */

static void errors(void *arg) {
    (void)arg;
    int fd[2];
    make_high_pair(0, fd);
    runs = 0;
    T_EQ(go_when_result(), -EINVAL);
    T_EQ(go_spawn_when(fd[0], POLLIN, NULL, NULL), -EINVAL);
    T_EQ(go_spawn_when(-1, POLLIN, note, NULL), -EBADF);
    T_EQ(go_spawn_when(999, POLLIN, note, NULL), -EBADF);
    T_EQ(go_spawn_when(INT32_MAX, POLLIN, note, NULL), -EBADF);
    close_pair(fd);
    T_EQ(go_spawn_when(fd[0], POLLIN, note, NULL), -EBADF);
    FILE *f = tmpfile(); /* is always ready; epoll refuses it */
    T_ASSERT(f);
    when(fileno(f), POLLIN, POLLIN);
    await_runs(1);
    T_EQ(go_close(dup(fileno(f))), 0);
    fclose(f);
}
Test(when, errors) {
    RUN(errors);
}

Test(when, limit_and_lack_of_memory) {
    struct go_options o = GO_OPTIONS_INIT;
    int fd[2];
    o.max_tasks = 100;
    o.netpoll = getenv("GORT_NETPOLL");
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    T_EQ(go_start(&o), 0);
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM);
    T_EQ(go_spawn_when(fd[0], POLLIN, note, NULL), -ENOMEM);
    rt_fault_disarm();
    int n = 0, err = 0, numbers[200];
    for (; n < 200 && err == 0; n++) {
        numbers[n] = dup(fd[0]);
        err = go_spawn_when(numbers[n], POLLIN, note, net_ptr(-ECANCELED));
    }
    T_EQ(err, -EAGAIN);
    T_EQ(n, 101);
    T_EQ(go_stop(GO_FOREVER), 0);
    T_EQ(runs, 100);
    while (n-- > 0)
        T_EQ(close(numbers[n]), 0);
    T_EQ(close(fd[0]), 0);
    T_EQ(close(fd[1]), 0);
}
