/* ticker.c: the time comes again and again, on time or not at all, until the ticker is freed. */
#include "t_unit.h"

#include "base/fault.h"
#include "sched/g.h"
#include "sched/sched.h"

static int count(int n) {
    return (int)T_SCALE(t_procs() <= 8 ? n : n / 4);
}

static go_chan *ticker(int64_t period) {
    go_chan *c = go_ticker_new(period);
    T_ASSERT(c);
    return c;
}

static int64_t next_tick(go_chan *c) {
    int64_t at = 0;
    T_EQ(go_chan_recv(c, &at), 0);
    return at;
}

/* ---- ticks ------------------------------------------------------------------------------------
 */

static void receive_some(int64_t period, int n) {
    int64_t begin = go_now(), last = begin;
    go_chan *c = ticker(period);
    T_EQ(go_chan_cap(c), 1);
    for (int i = 1; i <= n; i++) {
        int64_t at = next_tick(c);
        T_ASSERT(at >= begin + i * period, "tick %d is %lld ns early", i,
                 (long long)(begin + i * period - at));
        T_ASSERT(at > last && at <= go_now());
        last = at;
    }
    go_ticker_free(c);
}

static void receive_some_green(void *arg) {
    receive_some((1 + t_int(arg) % 5) * 100 * GO_MICROSECOND, count(50));
}

static void *receive_some_foreign(void *arg) {
    receive_some_green(arg);
    return NULL;
}

Test(ticker, the_nth_tick_comes_after_n_periods, .timeout = 120) {
    t_start((unsigned)t_procs());
    for (int i = 0; i < 20; i++)
        T_SPAWN(receive_some_green, t_ptr(i));
    t_threads(3, receive_some_foreign);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

/* ... while nothing else keeps the runtime awake. */
Test(ticker, wakes_an_idle_runtime) {
    t_start((unsigned)t_procs());
    receive_some(2 * GO_MILLISECOND, 20);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

/* A tick in flight may have read the clock long ago; whatever comes after it is on time. */
GTest(ticker, ticks_that_nobody_takes_are_dropped) {
    int64_t period = 200 * GO_MICROSECOND;
    go_chan *c = ticker(period);
    T_AWAIT(go_chan_len(c) == 1);
    T_EQ(go_sleep(20 * period), 0);
    T_EQ(go_chan_len(c), 1);
    int64_t slept = go_now(), old = 0, k = 0;
    T_ASSERT(next_tick(c) <= slept - 20 * period); /* the oldest has stayed */
    while (k < 20) {
        int64_t at = next_tick(c);
        old += at < slept;
        k += at >= slept;
        T_ASSERT(k < 2 || at > slept + (k - 2) * period);
    }
    T_ASSERT(old <= 1);
    go_ticker_free(c);
}

/* When the next tick is due, as its G says. */
static bool find_tick(struct rt_g *g, void *arg) {
    if (RT_WAIT_STATE(rt_load_acquire(&g->wait)) == RT_WAITING && !(g->flags & RT_G_STARTED))
        *(int64_t *)arg = rt_load_relaxed(&g->wait_deadline);
    return true;
}

Test(ticker, its_times_do_not_drift) {
#ifdef T_TSAN
    T_SKIP("looks at green threads that run");
#endif
    int64_t period = 777777, first = 0;
    t_start((unsigned)t_procs());
    go_chan *c = ticker(period);
    T_AWAIT((rt_g_each(find_tick, &first), first) != 0);
    for (int i = 0; i < count(30); i++) {
        int64_t at = next_tick(c), due = 0;
        T_AWAIT((rt_g_each(find_tick, &due), due) != 0);
        T_EQ((due - first) % period, 0);
        T_ASSERT(due >= at);
    }
    go_ticker_free(c);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

/* ---- the end ----------------------------------------------------------------------------------
 */

static void make_and_free(uint64_t seed, int n) {
    for (int i = 0; i < n; i++) {
        go_chan *c = ticker((int64_t)(1 + t_random(&seed) % 20) * GO_MICROSECOND);
        int64_t until = go_now() + (int64_t)(t_random(&seed) % 50) * GO_MICROSECOND;
        switch (t_random(&seed) % 4) {
        case 0:
            next_tick(c);
            break;
        case 1:
            if (go_id() != 0)
                go_sleep(until - go_now());
            break;
        case 2:
            go_chan_close(c);
            break;
        default:
            while (go_now() < until)
                ;
        }
        go_ticker_free(c);
    }
}

static void make_and_free_green(void *arg) {
    make_and_free((uint64_t)t_int(arg), count(1000));
}

static void *make_and_free_foreign(void *arg) {
    make_and_free((uint64_t)t_int(arg) + 100, count(300));
    return NULL;
}

Test(ticker, may_be_freed_at_any_moment, .timeout = 120) {
    t_start((unsigned)t_procs());
    for (int i = 1; i <= 4; i++)
        T_SPAWN(make_and_free_green, t_ptr(i));
    t_threads(2, make_and_free_foreign);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

GTest(ticker, ends_when_its_channel_is_closed) {
    uint64_t live = t_stats().tasks_live;
    go_chan *c = ticker(100 * GO_MICROSECOND);
    next_tick(c);
    T_ASSERT(t_stats().tasks_live > live);
    T_EQ(go_chan_close(c), 0);
    T_AWAIT(t_stats().tasks_live == live);
    T_EQ(go_chan_close(c), -EALREADY);
    go_ticker_free(c);
}

static void *receive_to_the_end(void *arg) {
    int64_t at;
    int n = 0, r;
    while ((r = go_chan_recv(arg, &at)) == 0)
        n++;
    T_EQ(r, -EPIPE);
    return t_ptr(n);
}

Test(ticker, its_channel_is_closed_when_the_runtime_stops) {
    pthread_t t;
    void *n;
    for (int i = 0; i < 10; i++) {
        t_start((unsigned)t_procs());
        go_chan *late = ticker(GO_MINUTE), *early = ticker(GO_MICROSECOND);
        T_EQ(pthread_create(&t, NULL, receive_to_the_end, i % 2 ? late : early), 0);
        if (i % 3 == 0)
            T_AWAIT(go_chan_len(late) == 0 && t_stats().ended > 3);
        t_stop();
        T_EQ(pthread_join(t, &n), 0);
        T_ASSERT(i % 2 == 0 || n == NULL);
        T_EQ(receive_to_the_end(late), NULL);
        if (i % 4 == 0)
            t_start(2); /* another one, which knows nothing of them */
        go_ticker_free(late);
        go_ticker_free(early);
        if (i % 4 == 0)
            t_stop();
    }
}

static int ended;

static void tick_in_a_stop(void *arg) {
    int r;
    while ((r = go_chan_recv(arg, NULL)) == 0)
        ;
    T_ASSERT(r == -ECANCELED || r == -EPIPE, "%d", r);
    T_ASSERT(!go_ticker_new(GO_SECOND));
    go_ticker_free(arg);
    rt_fetch_add(&ended, 1);
}

Test(ticker, may_be_freed_while_the_runtime_stops) {
    for (int round = 1; round <= 5; round++) {
        t_start((unsigned)t_procs());
        for (int i = 0; i < 20; i++)
            T_SPAWN(tick_in_a_stop, ticker(50 * GO_MICROSECOND));
        T_AWAIT(t_stats().ended > 100);
        t_stop();
        T_EQ(ended, 20 * round);
    }
}

/* ---- limits -----------------------------------------------------------------------------------
 */

Test(ticker, there_is_none_without_a_runtime_or_a_period) {
    T_ASSERT(!go_ticker_new(GO_SECOND));
    t_start_strict(1);
    T_ASSERT(!go_ticker_new(0));
    T_ASSERT(!go_ticker_new(-1));
    go_ticker_free(ticker(GO_FOREVER));
    t_stop();
    T_ASSERT(!go_ticker_new(GO_SECOND));
    go_ticker_free(NULL);
}

static void fail_to_make(void *arg) {
    (void)arg;
    for (uint32_t nth = 1; nth < 4; nth++) {
        rt_fault_arm(RT_FAULT_ALLOC, nth, true, ENOMEM);
        go_chan *c = go_ticker_new(GO_MINUTE);
        rt_fault_disarm();
        T_ASSERT(nth > 2 || !c); /* the ticker, its channel, records, the heap of timers */
        go_ticker_free(c);
    }
    receive_some(100 * GO_MICROSECOND, 3);
}

Test(ticker, without_memory_there_is_none) {
    T_EQ(go_run(fail_to_make, NULL), 0);
    t_start_strict(1);
    fail_to_make(NULL);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

static void hold_a_record(void *arg) {
    T_EQ(go_chan_recv(arg, NULL), -EPIPE);
}

/* All records are taken, so there is none for the next tick: the tick itself goes on. */
Test(ticker, goes_on_when_there_is_no_room_for_the_next_tick) {
    struct go_options o = GO_OPTIONS_INIT;
    int64_t begin = go_now(), period = 500 * GO_MICROSECOND;
    o.procs = 1;
    o.max_tasks = 20;
    T_EQ(go_start(&o), 0);
    go_chan *c = ticker(period), *hold = go_chan_new(0, 0);
    for (int i = 1; i <= 20; i++) {
        while (go_spawn(hold_a_record, hold) == 0) /* a tick that ends leaves one, for a moment */
            ;
        T_ASSERT(next_tick(c) >= begin + i * period);
    }
    T_EQ(go_chan_close(hold), 0);
    T_AWAIT(t_stats().tasks_live <= 2);
    receive_some(period, 3);
    next_tick(c);
    go_ticker_free(c);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    go_chan_free(hold);
}

/* ---- misuse -----------------------------------------------------------------------------------
 */

static void free_as_a_channel(void *arg) {
    (void)arg;
    go_chan_free(go_ticker_new(GO_SECOND));
}

Test(ticker, misuse_aborts) {
    T_DIES(SIGABRT, "gort: go_chan_free: the channel of a ticker", go_run(free_as_a_channel, NULL));
    T_DIES(SIGABRT, "gort: go_ticker_free: not the channel of a ticker",
           go_ticker_free(go_chan_new(sizeof(int64_t), 1)));
}
