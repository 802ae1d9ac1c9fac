/* barrier.c: n come together, one of them is told so, and who gives up has never come. */
#include "t_sync.h"

#include "base/fault.h"

static go_barrier b;

/* ---- generations ----------------------------------------------------------------------------- */

enum { MOST_ROUNDS = 4000 };
static struct {
    int parties, rounds;
    uint32_t came[MOST_ROUNDS], last[MOST_ROUNDS];
    int plain[MOST_ROUNDS]; /* written by one before it comes, read by all after */
} gen;

static void go_through(int me) {
    uint64_t seed = (uint64_t)me + 1;
    for (int round = 0; round < gen.rounds; round++) {
        t_spin(t_random(&seed) % 100);
        if (t_random(&seed) % 8 == 0)
            go_yield();
        if (round % gen.parties == me)
            gen.plain[round] = round;
        rt_fetch_add(&gen.came[round], 1);
        int r = go_barrier_wait(&b);
        T_ASSERT(r == 0 || r == 1, "%d", r);
        rt_fetch_add(&gen.last[round], (uint32_t)r);
        T_EQ(rt_load_acquire(&gen.came[round]), gen.parties);
        T_EQ(gen.plain[round], round);
        if (round > 0)
            T_EQ(rt_load_acquire(&gen.last[round - 1]), 1);
    }
}

static void generations(int green, int threads, int rounds) {
    memset(&gen, 0, sizeof gen);
    gen.parties = green + threads;
    gen.rounds = rounds < MOST_ROUNDS ? rounds : MOST_ROUNDS;
    go_barrier_init(&b, (unsigned)gen.parties);
    t_crowd(green, threads, go_through);
    T_EQ(gen.last[gen.rounds - 1], 1);
    T_EQ(b.rt_arrived, 0);
    T_ASSERT(!b.rt_waiters);
}

Test(barrier, all_come_together_and_one_is_told, .timeout = 120) {
    generations(0, 4, t_count(500));
    T_EQ(go_start(NULL), 0);
    generations(2, 0, t_count(4000));
    generations(7, 0, t_count(2000));
    generations(300, 0, t_count(50));
    generations(2, 2, t_count(500));
    t_stop();
    generations(0, 2, t_count(500));
}

Test(barrier, for_one_it_never_waits) {
    go_barrier_init(&b, 1);
    for (int i = 0; i < 100; i++)
        T_EQ(go_barrier_wait(&b), 1);
}

Test(barrier, misuse_is_told_and_aborts) {
    T_DIES(SIGABRT, "gort: go_barrier_init: for 0 parties", go_barrier_init(&b, 0));
    T_DIES(SIGABRT, "gort: go_barrier_wait: go_barrier_init was not called", go_barrier_wait(&b));
}

/* ---- who gives up ---------------------------------------------------------------------------- */

static int results[8];
static go_scope scopes[8];
static uint32_t returned, cancelled[8]; /* its canceller is through with the scope */

static void waits(void *arg) {
    go_scope *s = &scopes[t_int(arg)];
    go_scope_enter(s, GO_FOREVER);
    results[t_int(arg)] = go_barrier_wait(&b);
    T_AWAIT(results[t_int(arg)] != -ECANCELED || rt_load_acquire(&cancelled[t_int(arg)]));
    go_scope_leave(s);
    rt_fetch_add(&returned, 1);
}

GTest(barrier, who_is_cancelled_is_taken_out_again) {
    enum { N = 5 };
    go_barrier_init(&b, N);
    for (int i = 0; i < N - 1; i++) {
        T_SPAWN(waits, t_ptr(i));
        T_AWAIT(t_waiting(&b, &b.rt_waiters) == i + 1);
    }
    for (int k = 0; k < 3; k++) { /* the first, one in the middle, the last */
        go_scope_cancel(&scopes[k * 3 / 2]);
        rt_store_release(&cancelled[k * 3 / 2], 1);
        T_AWAIT(rt_load_acquire(&returned) == (uint32_t)k + 1);
        T_EQ(results[k * 3 / 2], -ECANCELED);
        T_EQ(b.rt_arrived, N - 2 - k);
        T_EQ(t_waiting(&b, &b.rt_waiters), N - 2 - k);
    }
    for (int i = 0; i < 3; i++) {
        T_EQ(go_sleep(50 * GO_MICROSECOND), 0);
        T_EQ(rt_load_acquire(&returned), 3);
        T_SPAWN(waits, t_ptr(5 + i));
        T_AWAIT(t_waiting(&b, &b.rt_waiters) == 2 + i);
    }
    T_EQ(go_barrier_wait(&b), 1);
    T_AWAIT(rt_load_acquire(&returned) == 7);
    for (int i = 5; i < 8; i++)
        T_EQ(results[i], 0);
}

/* With one P the cancelled one has not run yet when the last one comes: too late to be taken
 * out. */
static void who_comes_too_late_to_be_cancelled(void *arg T_UNUSED) {
    go_barrier_init(&b, 2);
    for (int i = 0; i < t_count(200); i++) {
        rt_store_relaxed(&returned, 0);
        T_SPAWN(waits, t_ptr(0));
        T_AWAIT(t_waiting(&b, &b.rt_waiters) == 1);
        go_scope_cancel(&scopes[0]);
        T_EQ(go_barrier_wait(&b), 1);
        T_AWAIT(rt_load_acquire(&returned) == 1);
        T_EQ(results[0], 0);
    }
}

Test(barrier, who_is_cancelled_when_all_have_come_has_come) {
    t_start_strict(1);
    T_SPAWN(who_comes_too_late_to_be_cancelled, NULL);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

GTest(barrier, a_deadline_takes_out_and_a_cancelled_scope_does_not_come_at_all) {
    go_scope s;
    go_barrier_init(&b, 2);
    for (int i = 0; i < 5; i++) {
        int64_t deadline = go_now() + i * 100 * GO_MICROSECOND;
        go_scope_enter(&s, deadline);
        T_EQ(go_barrier_wait(&b), -ETIMEDOUT);
        T_ASSERT(go_now() >= deadline);
        T_EQ(go_scope_leave(&s), -ETIMEDOUT);
        T_EQ(b.rt_arrived, 0);
    }
    go_scope_enter(&s, GO_FOREVER);
    go_scope_cancel(&s);
    T_EQ(go_barrier_wait(&b), -ECANCELED);
    go_barrier_init(&b, 1);
    T_EQ(go_barrier_wait(&b), -ECANCELED); /* although it would not wait */
    T_EQ(go_scope_leave(&s), -ECANCELED);
}

GTest(barrier, without_room_for_a_timer_nobody_has_come) {
    go_scope s;
    go_barrier_init(&b, 2);
    go_scope_enter(&s, go_now() + T_NEVER);
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM);
    T_EQ(go_barrier_wait(&b), -ENOMEM);
    rt_fault_disarm();
    T_EQ(b.rt_arrived, 0);
    T_ASSERT(!b.rt_waiters);
    T_EQ(go_scope_leave(&s), 0);
}

/* Deadlines that pass at the very moment: each generation has exactly n that return 0 or 1, however
 * many gave up. */
static struct {
    int parties, tries;
    uint32_t zeros, ones, gave_up, through;
} race;

static void comes_and_goes(int me) {
    uint64_t seed = (uint64_t)me * 7 + 1;
    for (int i = 0; i < race.tries; i++) {
        go_scope s;
        go_scope_enter(&s, go_now() + (int64_t)(t_random(&seed) % 60) * GO_MICROSECOND);
        int r = go_barrier_wait(&b);
        go_scope_leave(&s);
        if (r == -ETIMEDOUT)
            rt_fetch_add(&race.gave_up, 1);
        else
            rt_fetch_add(r == 1 ? &race.ones : &race.zeros, 1);
        T_ASSERT(r == 0 || r == 1 || r == -ETIMEDOUT, "%d", r);
    }
    rt_fetch_add(&race.through, 1);
}

static void race_of(int green, int threads, int n, int tries) {
    memset(&race, 0, sizeof race);
    race.tries = tries;
    go_barrier_init(&b, (unsigned)n);
    t_crowd(green, threads, comes_and_goes);
    T_EQ(race.zeros, race.ones * ((uint32_t)n - 1));
    T_EQ(race.zeros + race.ones + race.gave_up, (green + threads) * tries);
    T_EQ(b.rt_arrived, 0);
    T_ASSERT(!b.rt_waiters);
}

Test(barrier, a_generation_is_complete_or_it_is_not, .timeout = 120) {
    T_EQ(go_start(NULL), 0);
    race_of(5, 0, 3, t_count(1000));
    race_of(40, 0, 3, t_count(100));
    race_of(3, 2, 2, t_count(500));
    t_stop();
    race_of(0, 4, 2, t_count(500));
}

/* ---- whose memory ---------------------------------------------------------------------------- */

/* The one that is told takes the page away at once, and with deadlines the others may have been on
 * their way out. */
static struct {
    go_barrier *b;
    uint32_t round, left;
    int rounds, parties;
    bool deadlines;
} page;

static void come_to_page(int me) {
    uint64_t seed = (uint64_t)me + 11;
    for (uint32_t round = 1; round <= (uint32_t)page.rounds; round++) {
        if (me == 0) {
            go_barrier *fresh = t_page();
            go_barrier_init(fresh, (unsigned)page.parties);
            rt_store_relaxed(&page.b, fresh);
            rt_store_relaxed(&page.left, 0);
            rt_store_release(&page.round, round);
        } else {
            T_AWAIT(rt_load_acquire(&page.round) == round);
        }
        go_barrier *at = rt_load_relaxed(&page.b);
        uint64_t most = 50; /* and more each time: all must be there at once, however slow */
        int r;
        do {
            go_scope s;
            int64_t patience = (int64_t)(t_random(&seed) % most++) * GO_MICROSECOND;
            go_scope_enter(&s, page.deadlines ? go_now() + patience : GO_FOREVER);
            r = go_barrier_wait(at);
            go_scope_leave(&s);
        } while (r == -ETIMEDOUT);
        if (r == 1)
            t_page_gone(at);
        rt_fetch_add(&page.left, 1);
        if (me == 0)
            T_AWAIT(rt_load_acquire(&page.left) == (uint32_t)page.parties);
    }
}

static void pages(int green, int threads, bool deadlines) {
    memset(&page, 0, sizeof page);
    page.parties = green + threads;
    page.rounds = t_count(200);
    page.deadlines = deadlines;
    t_crowd(green, threads, come_to_page);
}

Test(barrier, whoever_is_through_may_free_it, .timeout = 120) {
    T_EQ(go_start(NULL), 0);
    for (int deadlines = 0; deadlines < 2; deadlines++) {
        pages(3, 0, deadlines);
        pages(2, 2, deadlines);
    }
    t_stop();
    pages(0, 2, false);
    pages(0, 2, true);
}
