/* A host starts and stops the runtime as often as it likes, whatever happens inside just then.
 *
 * tests/unit/test_stop.c has the promises of go_stop one by one; here a runtime that is used in all
 * its ways is stopped, and what the host has afterwards is what it had before. T_STOPS=n: that many
 * stops under load. */
#include "unit/t_unit.h"

#include <limits.h>
#include <malloc.h>
#include <poll.h>
#include <sys/socket.h>

/* libc makes a heap for each thread that calls malloc, up to 8 times the CPUs, and keeps them:
 * which thread gets which is a matter of chance. What is gort's shows when there is one for all. */
static void one_heap(void) {
    mallopt(M_ARENA_MAX, 1);
}

static void *square(void *arg) {
    return t_ptr(t_int(arg) * t_int(arg));
}

/* ---- a thousand times ------------------------------------------------------------------------ */

static go_chan *values;

static void send_squares(void *arg) {
    for (intptr_t i = 0; i < t_int(arg); i++)
        if (go_chan_send(values, &i) != 0)
            return;
}

static void count_up(void *counter) {
    rt_fetch_add((int *)counter, 1);
}

/* A stack, a timer, the pool, a descriptor of the engine, one of a channel, a large stack. */
static void use_everything(void *arg) {
    struct go_spawn_options large = GO_SPAWN_OPTIONS_INIT;
    int ran = 0, fd[2];
    void *result;
    intptr_t v;
    (void)arg;
    values = go_chan_new(sizeof v, 1);
    T_ASSERT(values && go_chan_fd(values) >= 0);
    T_SPAWN(send_squares, t_ptr(20));
    for (intptr_t i = 0; i < 20; i++)
        T_EQ(go_chan_recv(values, &v), 0);
    T_EQ(go_blocking(square, t_ptr(7), &result), 0);
    T_EQ(t_int(result), 49);
    T_EQ(t_int(T_JOIN(go_task_spawn(square, t_ptr(3)))), 9);
    go_timer *timer = go_timer_after(GO_NANOSECOND, count_up, &ran);
    T_ASSERT(timer);
    large.stack_size = 1 << 20;
    T_EQ(go_spawn_with(&large, count_up, &ran), 0);
    T_AWAIT(rt_load_acquire(&ran) == 2);
    T_EQ(go_timer_stop_wait(timer), -EALREADY);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    T_EQ(go_write(fd[1], "x", 1), 1);
    T_EQ(go_poll(fd[0], POLLIN), POLLIN);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
    go_chan_free(values);
}

#if !__GLIBC_PREREQ(2, 33)
#define mallinfo2 mallinfo
#endif

struct memory {
    long resident, heap; /* bytes */
};

static struct memory memory(void) {
    return (struct memory){t_resident(), (long)mallinfo2().uordblks};
}

#if !defined(T_ASAN) && !defined(T_TSAN) /* which keep what was freed */
enum { ACCOUNTED = 1 };
#else
enum { ACCOUNTED = 0 };
#endif

static void cycle(int i) {
    T_EQ(go_start(NULL), 0);
    if (i % 2) {
        go_waitgroup wg = {0};
        T_EQ(go_waitgroup_spawn(&wg, use_everything, NULL), 0);
        T_EQ(go_waitgroup_wait(&wg), 0);
    }
    t_stop();
}

/* libc keeps the stacks of ended threads and takes another one when several are free, its heap
 * finds its size in some fifty cycles, and a loaded machine brings more workers: what is in use
 * grows, but not for ever, while what is lost in each cycle, be it a page or the least that malloc
 * gives, shows in each part of them. */
Test(cycles, the_last_of_a_thousand_has_no_more_than_the_first_hundred, .timeout = 120) {
    const int procs = t_procs(), n = (int)T_SCALE(procs == 2 ? 1000 : procs <= 8 ? 300 : 60);
    const int parts = n < 40 && procs <= 8 ? 12 : 4, part = n < 40 ? 10 : n / parts;
    long heap = LONG_MAX, resident = LONG_MAX;
    one_heap();
    for (int i = 0; i < part / 2; i++)
        cycle(i);
    struct t_usage before = t_usage();
    for (int k = 0; k < parts; k++) {
        struct memory then = memory();
        for (int i = 0; i < part; i++)
            cycle(i);
        struct memory now = memory();
        if (now.heap - then.heap < heap)
            heap = now.heap - then.heap;
        if (now.resident - then.resident < resident)
            resident = now.resident - then.resident;
    }
    T_SAME_USAGE(before);
    T_ASSERT(!ACCOUNTED || heap < 1024 + procs * 32 + part * 8, "%d cycles: %ld bytes", part, heap);
    T_ASSERT(!ACCOUNTED || resident < procs * 4096L + part * 1024, "%d cycles: %ld resident", part,
             resident);
}

/* ---- at any moment --------------------------------------------------------------------------- */

/* What runs when the stop comes. Each of them ends because it is refused or cancelled. */
static struct {
    go_chan *chan;
    go_mutex mutex;
    int pair[2];
    int over; /* to the threads of the host */
    int spawned, ran;
} load;

static void sleeper(void *arg) {
    int64_t ns = t_int(arg) * GO_MICROSECOND;
    while (go_sleep(ns) == 0)
        ;
}
static void sender(void *arg) {
    while (go_chan_send(load.chan, &arg) == 0)
        ;
}
static void receiver(void *arg) {
    void *v = arg;
    while (go_chan_recv(load.chan, &v) == 0)
        ;
}
static void selector(void *arg) {
    void *v = arg;
    struct go_case both[] = {GO_CASE_SEND(load.chan, &arg), GO_CASE_RECV(load.chan, &v)};
    int r;
    while ((r = go_select(both, 2, go_now() + 50 * GO_MICROSECOND)) >= 0 || r == -ETIMEDOUT)
        ;
}
static void locker(void *arg) {
    (void)arg;
    while (!go_canceled()) {
        go_mutex_lock(&load.mutex);
        go_yield();
        go_mutex_unlock(&load.mutex);
    }
}
static void writer(void *arg) {
    char text[512] = {0};
    (void)arg;
    while (go_write(load.pair[0], text, sizeof text) > 0)
        ;
}
static void reader(void *arg) {
    char text[700];
    (void)arg;
    while (go_read(load.pair[1], text, sizeof text) > 0)
        ;
}
static void caller(void *arg) {
    void *result;
    while (go_blocking(square, arg, &result) == 0)
        ;
}
static int child(void *arg) {
    return go_sleep(t_int(arg) * GO_MICROSECOND);
}
static void parent(void *arg) {
    int r;
    do {
        go_group g;
        go_group_enter(&g, GO_FOREVER);
        while ((r = go_group_spawn(&g, child, arg)) == 0 && go_canceled() == 0 && go_id() % 7 != 0)
            go_yield();
        int waited = go_group_wait(&g);
        r = r ? r : waited;
    } while (r == 0);
}
static void counted(void *arg) {
    (void)arg;
    rt_fetch_add(&load.ran, 1);
}
static void forker(void *arg) {
    int r;
    while ((r = go_spawn(counted, arg)) == 0 || r == -EAGAIN) {
        rt_fetch_add(&load.spawned, r == 0);
        go_yield();
    }
}
static void timer_keeper(void *arg) {
    int r = 0;
    while (r == 0) {
        int fired = 0;
        go_timer *t = go_timer_after(t_int(arg) % 20 * GO_MICROSECOND, count_up, &fired);
        r = go_sleep(10 * GO_MICROSECOND);
        if (t && go_timer_stop_wait(t) == -EALREADY)
            T_EQ(fired, 1);
    }
}

static void *host_thread(void *arg) {
    void *v = arg;
    while (!rt_load_acquire(&load.over)) {
        int r = go_spawn(counted, arg);
        T_ASSERT(r == 0 || r == -ENXIO || r == -ESHUTDOWN || r == -EAGAIN, "%d", r);
        rt_fetch_add(&load.spawned, r == 0);
        go_chan_try_send(load.chan, &v);
        go_chan_try_recv(load.chan, &v);
        if (go_mutex_trylock(&load.mutex) == 0)
            go_mutex_unlock(&load.mutex);
        if (r)
            sched_yield();
    }
    return NULL;
}

static void (*const ways[])(void *) = {sleeper, sender, receiver, selector, locker,      writer,
                                       reader,  caller, parent,   forker,   timer_keeper};

static void spin_for(int64_t ns) {
    for (int64_t end = go_now() + ns; go_now() < end;)
        ;
}

static int stops(void) {
    const char *text = getenv("T_STOPS");
    int procs = t_procs();
    return text ? atoi(text) : (int)T_SCALE(procs == 2 ? 200 : procs <= 8 ? 100 : 40);
}

Test(cycles, a_stop_may_come_at_any_moment, .timeout = 600) {
    enum { THREADS = 2, EACH = 3 };
    uint64_t random = 88172645463325252u;
    pthread_t t[THREADS];
    one_heap();
    load.chan = go_chan_new(sizeof(void *), 2);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, load.pair), 0);
    struct t_usage before = {0};
    int n = stops();
    t_start_threads(t, THREADS, host_thread);
    for (int i = 0; i < n + 2; i++) {
        if (i == 2)
            before = t_usage();
        T_EQ(go_start(NULL), 0);
        int64_t moment = (int64_t)(t_random(&random) % 4 == 0 ? 0 : t_random(&random) % 1500000);
        for (int k = 0; k < EACH; k++)
            for (size_t w = 0; w < T_COUNT(ways); w++)
                T_SPAWN(ways[w], t_ptr((intptr_t)(t_random(&random) % 100)));
        spin_for(moment);
        t_stop();
        T_EQ(go_procs(), 0);
    }
    rt_store_release(&load.over, 1);
    before.threads -= THREADS;
    t_join_threads(t, THREADS);
    T_EQ(load.ran, load.spawned);
    T_SAME_USAGE(before);
    close(load.pair[0]);
    close(load.pair[1]);
    go_chan_free(load.chan);
}

/* ---- who never ends -------------------------------------------------------------------------- */

static struct { int begun, end; } hog;

static void compute(void *arg) {
    (void)arg;
    rt_fetch_add(&hog.begun, 1);
    while (!rt_load_relaxed(&hog.end)) /* no call of gort's */
        ;
}

Test(cycles, who_computes_for_ever_is_named_and_a_later_stop_succeeds) {
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    struct t_usage before = {0};
    char text[4096];
    for (int i = 0; i < 3; i++) {
        hog.begun = hog.end = 0;
        T_EQ(go_start(NULL), 0);
        o.name = "ox";
        T_EQ(go_spawn_with(&o, compute, NULL), 0);
        T_AWAIT(rt_load_acquire(&hog.begun) == 1);
        o.name = "behind";
        T_EQ(go_spawn_with(&o, sleeper, t_ptr(1)), 0);

        struct t_stderr err = t_stderr_begin();
        int r = go_stop(5 * GO_MILLISECOND), again = go_stop(0);
        t_stderr_end(err, text, sizeof text);
        T_EQ(r, -ETIMEDOUT);
        T_EQ(again, -ETIMEDOUT);
        T_ASSERT(strstr(text, " ox: running"), "%s", text);
        T_EQ(go_start(NULL), -EALREADY);
        T_EQ(go_acquire(), -EALREADY);
        rt_store_release(&hog.end, 1);
        t_stop();
        if (i == 0)
            before = t_usage();
    }
    T_SAME_USAGE(before);
}
