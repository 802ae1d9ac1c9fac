/* timer.c: never early, none forgotten, and the heap holds no more than those who wait. */
#include "t_unit.h"

#include "sched/sched.h"
#include "sched/timer.h"

static int count(int n) {
    return (int)T_SCALE(t_procs() <= 8 ? n : n / 4);
}

/* ---- never early ----------------------------------------------------------------------------- */

static void sleep_exactly(int64_t ns) {
    int64_t begin = go_now();
    T_EQ(go_sleep(ns), 0);
    int64_t slept = go_now() - begin;
    T_ASSERT(slept >= ns, "%lld of %lld ns", (long long)slept, (long long)ns);
}

static void sleep_many_lengths(void *arg) {
    uint64_t seed = (uint64_t)t_int(arg) * 31 + 1;
    for (int i = 0; i < 20; i++)
        sleep_exactly((int64_t)(t_random(&seed) % (uint64_t)(2 * GO_MILLISECOND)));
}

static void *sleep_many_lengths_thread(void *arg) {
    sleep_many_lengths(arg);
    return NULL;
}

Test(timer, no_sleep_is_shorter_than_asked_for) {
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < count(1000); i++)
        T_SPAWN(sleep_many_lengths, t_ptr(i));
    t_threads(4, sleep_many_lengths_thread);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

GTest(timer, zero_and_less_only_yield) {
    static const int64_t none[] = {0, -1, -GO_SECOND, INT64_MIN};
    for (size_t i = 0; i < T_COUNT(none); i++)
        for (int k = 0; k < 10; k++)
            T_EQ(go_sleep(none[i]), 0);
}

static void sleep_for_ever(void *arg) {
    T_EQ(go_sleep(t_int(arg) ? INT64_MAX : INT64_MAX - 1), -ECANCELED);
}

Test(timer, for_ever_does_not_overflow) {
    T_EQ(go_start(NULL), 0);
    T_SPAWN(sleep_for_ever, t_ptr(0));
    T_SPAWN(sleep_for_ever, t_ptr(1));
    struct timespec a_while = {.tv_nsec = 20 * 1000000};
    nanosleep(&a_while, NULL);
    T_EQ(t_stats().tasks_live, 2);
    t_stop();
}

/* ---- order --------------------------------------------------------------------------------- */

static struct {
    int64_t deadline[200]; /* fewer than a run queue holds, which keeps the order then */
    int n;
    int64_t base;
} log_;

static void sleep_and_log(void *arg) {
    int i = (int)t_int(arg);
    T_EQ(go_sleep(log_.base + i * 20 * GO_MICROSECOND - go_now()), 0);
    log_.deadline[log_.n++] = rt_self()->wait_deadline; /* what the sleep has made of it */
}

/* On one P, whose thread may lose its CPU: then many are due at once, and still in order. */
Test(timer, they_fire_in_the_order_of_their_deadlines) {
#ifdef T_TSAN
    T_SKIP("what lies 20 us apart is computed too slowly under TSan");
#endif
    int n = T_COUNT(log_.deadline);
    int64_t lead = 20 * GO_MILLISECOND;
    for (bool in_time = false; !in_time; lead *= 2) { /* asleep before the first */
        t_start_strict(1);
        log_.n = 0;
        log_.base = go_now() + lead;
        for (int i = 0; i < n; i++)
            T_SPAWN(sleep_and_log, t_ptr(i * 77 % n));
        T_AWAIT(t_stats().parks == (uint64_t)n || go_now() >= log_.base); /* late: no park at all */
        in_time = go_now() < log_.base;
        T_AWAIT(t_stats().tasks_live == 0);
        t_stop();
    }
    T_EQ(log_.n, n);
    for (int i = 1; i < n; i++)
        T_ASSERT(log_.deadline[i - 1] <= log_.deadline[i], "%d comes too early", i);
}

/* The heap itself: whatever goes in comes out in order. */
Test(timer, the_heap_gives_them_back_in_order) {
    enum { N = 3000 };
    struct rt_m m = {0};
    struct rt_p p = {.timer_when = INT64_MAX, .m = &m};
    struct rt_g *g = calloc(N, sizeof *g);
    uint64_t seed = 12;
    T_ASSERT(g);
    for (int i = 0; i < N; i++) {
        g[i].wait = RT_WAIT_WORD(1, RT_WAITING);
        g[i].limit = g[i].timer_when = INT64_MAX;
        g[i].wait_deadline = 1 + (int64_t)(t_random(&seed) % 1000);
        T_EQ(rt_timer_arm_owner(&p, &g[i], g[i].wait_deadline), 0);
    }
    T_EQ(p.ntimers, N);
    int64_t last = 0;
    for (int64_t now = 0; now <= 1000; now += 50) {
        struct rt_glist ready = {0};
        rt_timer_run(&p, &p, now, &ready, SIZE_MAX);
        for (struct rt_g *r; (r = rt_glist_pop(&ready)) != NULL;) {
            T_ASSERT(r->wait_deadline >= last && r->wait_deadline <= now);
            T_EQ(r->wake_result, -ETIMEDOUT);
            last = r->wait_deadline;
        }
        T_ASSERT(p.timer_when > now);
    }
    T_EQ(p.ntimers, 0);
    T_EQ(p.timer_when, INT64_MAX);
    free(p.timers);
    free(g);
}

/* ---- many ------------------------------------------------------------------------------------ */

static int woken;

static void sleep_random(void *arg) {
    uint64_t seed = (uint64_t)t_int(arg) + 1;
    t_random(&seed);
    sleep_exactly((int64_t)(t_random(&seed) % (uint64_t)(50 * GO_MILLISECOND)));
    rt_fetch_add(&woken, 1);
}

Test(timer, of_ten_thousand_none_is_forgotten, .timeout = 120) {
    int n = count(10000);
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < n; i++)
        T_SPAWN(sleep_random, t_ptr(i));
    T_AWAIT(rt_load_acquire(&woken) == n);
    t_stop();
}

/* ---- what stays in the heap ------------------------------------------------------------------ */

static uint64_t heap_entries(void) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < rt.procs; i++)
        n += rt_load_relaxed(&rt.ps[i].ntimers);
    return n;
}

/* Waits with a deadline of an hour, and is woken at once by its partner. */
static go_chan *quick;

static void wait_with_deadline(void *arg) {
    go_scope s;
    (void)arg;
    go_scope_enter(&s, go_now() + 60 * GO_MINUTE);
    T_EQ(go_chan_recv(quick, NULL), 0);
    T_EQ(go_scope_leave(&s), 0);
}

Test(timer, entries_of_those_who_ended_are_swept, .timeout = 120) {
#ifdef T_TSAN
    T_SKIP("looks into the heap of a running P");
#endif
    enum { TOGETHER = 100 };
    int rounds = count(1000);
    uint64_t most = 0;
    quick = go_chan_new(0, 0);
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < rounds; i++) {
        for (int k = 0; k < TOGETHER; k++)
            T_SPAWN(wait_with_deadline, NULL);
        for (int k = 0; k < TOGETHER; k++)
            T_EQ(go_chan_send(quick, NULL), 0);
        uint64_t n = heap_entries();
        most = n > most ? n : most;
    }
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    go_chan_free(quick);
    uint64_t bound = 4096 + 1024 * (uint64_t)t_procs();
    T_ASSERT(most <= bound, "%d of %d", (int)most, rounds * TOGETHER);
}

/* Ends on another P than the one in whose heap its entry is: by chance, often enough. */
static void wait_and_wander(void *arg) {
    go_scope s;
    (void)arg;
    go_scope_enter(&s, go_now() + 60 * GO_MINUTE);
    T_EQ(go_chan_recv(quick, NULL), 0);
    go_yield();
    T_EQ(go_scope_leave(&s), 0);
    go_yield();
}

static void *feed(void *arg) {
    for (intptr_t i = 0; i < t_int(arg); i++)
        T_EQ(go_chan_send(quick, NULL), 0);
    return NULL;
}

Test(timer, entries_in_another_ps_heap_are_swept, .timeout = 120) {
#ifdef T_TSAN
    T_SKIP("looks into the heap of a running P");
#endif
    int n = count(30000);
    uint64_t most = 0;
    pthread_t t;
    quick = go_chan_new(0, 0);
    T_EQ(go_start(NULL), 0);
    T_EQ(pthread_create(&t, NULL, feed, t_ptr(n)), 0);
    for (int i = 0; i < n; i++) {
        T_SPAWN(wait_and_wander, NULL);
        if (i % 64 == 0) {
            T_AWAIT(t_stats().tasks_live < 200);
            uint64_t h = heap_entries();
            most = h > most ? h : most;
        }
    }
    T_EQ(pthread_join(t, NULL), 0);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    go_chan_free(quick);
    uint64_t bound = 4096 + 1024 * (uint64_t)t_procs();
    T_ASSERT(most <= bound, "%d of %d", (int)most, n);
}

/* A deadline that is only ever pushed into the future costs one entry. */
static void push_deadline(void *arg) {
    (void)arg;
    for (int i = 0; i < count(5000); i++) {
        go_scope s;
        go_scope_enter(&s, go_now() + 60 * GO_MINUTE);
        T_EQ(go_chan_recv(quick, NULL), 0);
        T_EQ(go_scope_leave(&s), 0);
    }
}

Test(timer, a_deadline_that_moves_on_is_one_entry) {
#ifdef T_TSAN
    T_SKIP("looks into the heap of a running P");
#endif
    quick = go_chan_new(0, 0);
    T_EQ(go_start(NULL), 0);
    T_SPAWN(push_deadline, NULL);
    uint64_t most = 0;
    for (int i = 0; i < count(5000); i++) {
        T_EQ(go_chan_send(quick, NULL), 0);
        uint64_t n = heap_entries();
        most = n > most ? n : most;
    }
    T_ASSERT(most <= 2, "%d", (int)most);
    t_stop();
    go_chan_free(quick);
}

/* ... and holds when the entry fires too early and is set again. */
GTest(timer, a_deadline_that_moved_on_still_comes) {
    for (int i = 0; i < 20; i++) {
        go_scope s;
        go_scope_enter(&s, go_now() + 300 * GO_MICROSECOND);
        int r = go_sleep(10 * GO_MICROSECOND); /* leaves an entry */
        T_ASSERT(r == 0 || r == -ETIMEDOUT);
        T_EQ(go_scope_leave(&s), r);
        sleep_exactly(GO_MILLISECOND);
        int64_t deadline = go_now() + 700 * GO_MICROSECOND;
        go_scope_enter(&s, deadline);
        T_EQ(go_sleep(GO_FOREVER), -ETIMEDOUT);
        T_ASSERT(go_now() >= deadline);
        T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    }
}

/* An earlier deadline after a later one, on the same green thread. */
GTest(timer, an_earlier_deadline_after_a_later_one_comes_first) {
    for (int i = 0; i < 20; i++) {
        go_scope s;
        go_scope_enter(&s, go_now() + 60 * GO_MINUTE);
        sleep_exactly(100 * GO_MICROSECOND);
        go_mutex m = {0};
        go_mutex_lock(&m);
        T_EQ(go_mutex_lock_until(&m, go_now() + 100 * GO_MICROSECOND), -ETIMEDOUT);
        T_EQ(go_scope_leave(&s), 0);
        sleep_exactly(50 * GO_MICROSECOND);
    }
}

/* ---- races of the fire with the wake, the cancel and the next park --------------------------- */

static go_chan *tight;

static void recv_tight(void *arg) {
    uint64_t seed = (uint64_t)t_int(arg) + 5;
    int got = 0;
    for (;;) {
        go_scope s;
        int64_t deadline = go_now() + (int64_t)(t_random(&seed) % 30) * GO_MICROSECOND;
        go_scope_enter(&s, deadline);
        int r = go_chan_recv(tight, NULL);
        int64_t now = go_now();
        int left = go_scope_leave(&s);
        if (r == -EPIPE)
            break;
        T_ASSERT(r == 0 || r == -ETIMEDOUT, "%d", r);
        T_ASSERT(r == 0 || now >= deadline);
        T_EQ(left, r);
        got += r == 0;
    }
    rt_fetch_add(&woken, got);
}

static void send_tight(void *arg) {
    uint64_t seed = 9;
    int n = (int)t_int(arg);
    for (int i = 0; i < n; i++) {
        T_EQ(go_chan_send(tight, NULL), 0);
        for (uint64_t spin = t_random(&seed) % 200; spin > 0; spin--)
            rt_cpu_relax();
        go_yield();
    }
    T_EQ(go_chan_close(tight), 0);
}

Test(timer, a_wake_and_a_deadline_at_once_are_one_or_the_other, .timeout = 120) {
    int n = count(20000);
    tight = go_chan_new(0, 0);
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < 4; i++)
        T_SPAWN(recv_tight, t_ptr(i));
    T_SPAWN(send_tight, t_ptr(n));
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    T_EQ(woken, n);
    go_chan_free(tight);
}
