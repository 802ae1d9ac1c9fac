/* waitgroup.c - the last done lets all waiters go, and has left the memory when they go on. */
#include "t_sync.h"

#include "base/fault.h"

static void done(void *wg) {
    go_waitgroup_done(wg);
}

static uint32_t ran;

static void run(void *arg T_UNUSED) {
    rt_fetch_add(&ran, 1);
}

static long rounds(long n) {
    return T_SCALE(t_procs() <= 8 ? n : n / 4);
}

/* ---- counting -------------------------------------------------------------------------------- */

Test(waitgroup, zero_is_not_waited_for_and_needs_no_runtime) {
    go_waitgroup wg = {0};
    T_EQ(go_waitgroup_wait(&wg), 0);
    go_waitgroup_add(&wg, 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    go_waitgroup_add(&wg, 5);
    go_waitgroup_add(&wg, -3);
    go_waitgroup_done(&wg);
    go_waitgroup_done(&wg);
    T_EQ(go_waitgroup_wait(&wg), 0);
    go_waitgroup_add(&wg, INT32_MAX);
    go_waitgroup_add(&wg, -INT32_MAX);
    T_EQ(go_waitgroup_wait(&wg), 0);
}

static void done_too_often(void) {
    go_waitgroup wg = {0};
    go_waitgroup_add(&wg, 2);
    for (int i = 0; i < 3; i++)
        go_waitgroup_done(&wg);
}

static void add_too_little(void) {
    go_waitgroup wg = {0};
    go_waitgroup_add(&wg, 3);
    go_waitgroup_add(&wg, -4);
}

static void add_too_much(void) {
    go_waitgroup wg = {0};
    go_waitgroup_add(&wg, INT32_MAX);
    go_waitgroup_add(&wg, 1);
}

static void wait_for_ever(void *wg) {
    go_waitgroup_wait(wg);
}

static void done_too_often_beside_a_waiter(void *arg T_UNUSED) {
    go_waitgroup wg = {0};
    go_waitgroup_add(&wg, 1);
    T_SPAWN(wait_for_ever, &wg);
    T_AWAIT(rt_load_acquire(&wg.rt_waiters));
    go_waitgroup_add(&wg, -2);
}

Test(waitgroup, a_count_out_of_range_aborts) {
#ifdef T_TSAN
    T_SKIP("TSan reports the misuse as a race before it aborts");
#endif
    T_DIES(SIGABRT, "gort: go_waitgroup_add: the count is below 0", done_too_often());
    T_DIES(SIGABRT, "gort: go_waitgroup_add: the count is below 0", add_too_little());
    T_DIES(SIGABRT, "gort: go_waitgroup_add: the count is above 2^31 - 1", add_too_much());
    T_DIES(SIGABRT, "gort: go_waitgroup_add: the count is below 0",
           go_run(done_too_often_beside_a_waiter, NULL));
}

GTest(waitgroup, it_may_be_used_again_and_again) {
    go_waitgroup wg = {0};
    for (long i = 0; i < rounds(5000); i++) {
        int n = (int)(i % 5);
        go_waitgroup_add(&wg, n);
        for (int j = 0; j < n; j++)
            T_SPAWN(done, &wg);
        T_EQ(go_waitgroup_wait(&wg), 0);
        T_EQ(wg.rt_count, 0);
    }
}

static void run_and_spawn(void *wg) {
    rt_fetch_add(&ran, 1);
    go_waitgroup_add(wg, 1); /* while it counts itself: the count is not 0 */
    T_SPAWN(done, wg);
    go_waitgroup_done(wg);
}

GTest(waitgroup, who_is_counted_may_add) {
    go_waitgroup wg = {0};
    int n = (int)rounds(2000);
    go_waitgroup_add(&wg, n);
    for (int i = 0; i < n; i++)
        T_SPAWN(run_and_spawn, &wg);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(rt_load_relaxed(&ran), n);
}

/* ---- waiters --------------------------------------------------------------------------------- */

static go_waitgroup shared, home;

static void wait_shared(void *arg T_UNUSED) {
    T_EQ(go_waitgroup_wait(&shared), 0);
    rt_fetch_add(&ran, 1);
    go_waitgroup_done(&home);
}

static void *wait_shared_thread(void *arg) {
    T_EQ(go_waitgroup_wait(&shared), 0);
    rt_fetch_add(&ran, 1);
    return arg;
}

GTest(waitgroup, all_waiters_go_on_at_zero_and_not_before) {
    enum { WAITERS = 200, THREADS = 8 };
    pthread_t t[THREADS];
    for (int round = 0; round < 3; round++) {
        rt_store_relaxed(&ran, 0);
        go_waitgroup_add(&shared, 3);
        go_waitgroup_add(&home, WAITERS);
        for (int i = 0; i < WAITERS; i++)
            T_SPAWN(wait_shared, NULL);
        t_start_threads(t, THREADS, wait_shared_thread);
        T_AWAIT(t_waiting(&shared, &shared.rt_waiters) == WAITERS + THREADS);
        T_EQ(rt_load_acquire(&ran), 0);
        go_waitgroup_add(&shared, -2);
        go_waitgroup_add(&shared, 1);
        go_waitgroup_done(&shared);
        for (int i = 0; i < 20; i++)
            go_yield();
        T_EQ(rt_load_acquire(&ran), 0);
        go_waitgroup_done(&shared);
        T_EQ(go_waitgroup_wait(&home), 0);
        t_join_threads(t, THREADS);
        T_EQ(rt_load_acquire(&ran), WAITERS + THREADS);
    }
}

static void cancel_scope(void *scope) {
    go_scope_cancel(scope);
    go_waitgroup_done(&home);
}

GTest(waitgroup, a_waiter_can_be_cancelled_and_the_count_stays) {
    go_waitgroup_add(&shared, 1);
    for (int i = 0; i < 100; i++) {
        go_scope s;
        go_scope_enter(&s, GO_FOREVER);
        go_waitgroup_add(&home, 1);
        T_SPAWN(cancel_scope, &s);
        T_EQ(go_waitgroup_wait(&shared), -ECANCELED);
        T_EQ(go_waitgroup_wait(&shared), -ECANCELED); /* it is a state */
        while ((rt_load_acquire(&home.rt_count) & INT32_MAX) != 0)
            go_yield(); /* until the canceller is through with the scope */
        T_EQ(go_scope_leave(&s), -ECANCELED);
        T_EQ(go_waitgroup_wait(&home), 0);
        T_EQ(shared.rt_count, 1); /* and nobody waits */
    }
    go_waitgroup_done(&shared);
    T_EQ(go_waitgroup_wait(&shared), 0);
}

GTest(waitgroup, one_waiter_that_gives_up_takes_no_other_with_it) {
    go_waitgroup_add(&shared, 1);
    go_waitgroup_add(&home, 20);
    for (int i = 0; i < 20; i++)
        T_SPAWN(wait_shared, NULL);
    for (int i = 0; i < 20; i++) { /* in the middle of them, and at the ends */
        go_scope s;
        go_scope_enter(&s, go_now() + i * 10 * GO_MICROSECOND);
        T_EQ(go_waitgroup_wait(&shared), -ETIMEDOUT);
        T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    }
    T_EQ(rt_load_acquire(&ran), 0);
    go_waitgroup_done(&shared);
    T_EQ(go_waitgroup_wait(&home), 0);
    T_EQ(rt_load_acquire(&ran), 20);
}

/* ---- memory that goes away ------------------------------------------------------------------- */

/* Each round has a waitgroup on a page of its own. Who has waited makes the page inaccessible at
 * once: the last done, or whoever lets the waiters go, must not touch it any more. */
static struct {
    char *pages;
    size_t page;
    uint32_t rounds;   /* begun; helpers follow */
    uint32_t last;
    uint32_t helpers;
    go_chan *begin[4]; /* a token for each helper and round */
} field;

static go_waitgroup *waitgroup_of(uint32_t round) {
    return (go_waitgroup *)(void *)(field.pages + (round - 1) * field.page);
}

static void begin_field(uint32_t last, uint32_t helpers) {
    field.page = (size_t)sysconf(_SC_PAGESIZE);
    field.last = last;
    field.helpers = helpers;
    field.pages = mmap(NULL, last * field.page, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    T_ASSERT(field.pages != MAP_FAILED);
    for (uint32_t i = 0; i < helpers; i++)
        T_ASSERT(field.begin[i] = go_chan_new(0, 1));
}

static void end_field(void) {
    for (uint32_t i = 0; i < field.helpers; i++)
        go_chan_free(field.begin[i]);
    munmap(field.pages, field.last * field.page);
    rt_store_relaxed(&field.rounds, 0);
}

static void begin_round(uint32_t round) {
    rt_store_release(&field.rounds, round);
    for (uint32_t i = 0; i < field.helpers; i++)
        T_EQ(go_chan_send(field.begin[i], NULL), 0);
}

static void spin(uint64_t n) {
    while (n-- > 0)
        rt_cpu_relax();
}

/* Awake already, when it comes soon. */
static void await_round(uint32_t round, int helper) {
    for (int i = 0; i < 1000 && rt_load_acquire(&field.rounds) < round; i++)
        rt_cpu_relax();
    T_EQ(go_chan_recv(field.begin[helper], NULL), 0);
}

/* Once in each round, some moment after its begin. */
static void help(int me) {
    uint64_t seed = (uint64_t)me * 31 + 1;
    for (uint32_t round = 1; round <= field.last; round++) {
        await_round(round, me);
        spin(t_random(&seed) % 400);
        if (t_random(&seed) % 8 == 0)
            go_yield();
        go_waitgroup_done(waitgroup_of(round));
    }
}

static void help_green(void *arg) {
    help((int)t_int(arg));
    go_waitgroup_done(&home);
}

static void *help_thread(void *arg) {
    help((int)t_int(arg));
    return NULL;
}

/* Wait, at times with deadlines that pass right now, and take the memory away. */
static void wait_rounds(bool timed) {
    uint64_t seed = 3;
    for (uint32_t round = 1; round <= field.last; round++) {
        go_waitgroup *wg = waitgroup_of(round);
        go_waitgroup_add(wg, (int)field.helpers);
        begin_round(round);
        int r = -ETIMEDOUT;
        for (int tries = 0; timed && r != 0 && tries < 5; tries++) {
            go_scope s;
            go_scope_enter(&s, go_now() + (int64_t)(t_random(&seed) % 20) * GO_MICROSECOND);
            r = go_waitgroup_wait(wg);
            T_ASSERT(r == 0 || r == -ETIMEDOUT, "%d", r);
            int left = go_scope_leave(&s);
            T_ASSERT(r == 0 || left == -ETIMEDOUT, "%d", left);
        }
        if (r != 0)
            T_EQ(go_waitgroup_wait(wg), 0);
        T_EQ(mprotect(wg, field.page, PROT_NONE), 0);
    }
}

static void field_of_green_helpers(bool timed, uint32_t n, uint32_t helpers) {
    begin_field(n, helpers);
    go_waitgroup_add(&home, (int)helpers);
    for (uint32_t i = 0; i < helpers; i++)
        T_SPAWN(help_green, t_ptr(i));
    wait_rounds(timed);
    T_EQ(go_waitgroup_wait(&home), 0);
    end_field();
}

static void field_of_threads(bool timed, uint32_t n, int helpers) {
    pthread_t t[4];
    begin_field(n, (uint32_t)helpers);
    t_start_threads(t, helpers, help_thread);
    wait_rounds(timed);
    t_join_threads(t, helpers);
    end_field();
}

GTest(waitgroup, memory_may_go_when_green_threads_are_done, .timeout = 120) {
    field_of_green_helpers(false, (uint32_t)rounds(5000), 3);
}

GTest(waitgroup, memory_may_go_when_other_threads_are_done, .timeout = 120) {
    field_of_threads(false, (uint32_t)rounds(5000), 2);
}

GTest(waitgroup, a_deadline_may_come_with_the_last_done, .timeout = 120) {
    field_of_green_helpers(true, (uint32_t)rounds(5000), 2);
}

GTest(waitgroup, a_deadline_may_come_with_the_last_done_of_a_thread, .timeout = 120) {
    field_of_threads(true, (uint32_t)rounds(5000), 1);
}

Test(waitgroup, a_thread_that_waits_may_free_it, .timeout = 120) {
    T_EQ(go_start(NULL), 0);
    field_of_green_helpers(false, (uint32_t)rounds(3000), 2);
    field_of_green_helpers(true, (uint32_t)rounds(3000), 2);
    t_stop();
    field_of_threads(true, (uint32_t)rounds(3000), 1);
}

/* The last of several waiters frees it. One that comes when the count is already 0 must wait, too,
 * until the others have been let go. */
static struct {
    uint32_t left;
    go_chan *page_gone;
} party;
enum { PARTY = 4 };

static void wait_in_party(int me) {
    uint64_t seed = (uint64_t)me * 11 + 2;
    for (uint32_t round = 1; round <= field.last; round++) {
        await_round(round, me);
        spin(t_random(&seed) % 300);
        T_EQ(go_waitgroup_wait(waitgroup_of(round)), 0);
        if (rt_fetch_add(&party.left, 1) + 1 == PARTY * round) {
            T_EQ(mprotect(waitgroup_of(round), field.page, PROT_NONE), 0);
            T_EQ(go_chan_send(party.page_gone, NULL), 0);
        }
    }
}

static void wait_in_party_green(void *arg) {
    wait_in_party((int)t_int(arg));
    go_waitgroup_done(&home);
}

static void *wait_in_party_thread(void *arg) {
    wait_in_party((int)t_int(arg) + PARTY / 2);
    return NULL;
}

GTest(waitgroup, the_last_of_many_waiters_may_free_it, .timeout = 120) {
    pthread_t t[PARTY / 2];
    uint64_t seed = 8;
    begin_field((uint32_t)rounds(3000), PARTY);
    T_ASSERT(party.page_gone = go_chan_new(0, 0));
    go_waitgroup_add(&home, PARTY / 2);
    for (int i = 0; i < PARTY / 2; i++)
        T_SPAWN(wait_in_party_green, t_ptr(i));
    t_start_threads(t, PARTY / 2, wait_in_party_thread);
    for (uint32_t round = 1; round <= field.last; round++) {
        go_waitgroup_add(waitgroup_of(round), 1);
        begin_round(round);
        spin(t_random(&seed) % 500);
        if (round % 2)
            go_yield();
        go_waitgroup_done(waitgroup_of(round));
        T_EQ(go_chan_recv(party.page_gone, NULL), 0);
    }
    T_EQ(go_waitgroup_wait(&home), 0);
    t_join_threads(t, PARTY / 2);
    go_chan_free(party.page_gone);
    end_field();
}

/* One waiter takes the memory away while another, whose deadline has passed, is on its way out. */
static struct {
    go_waitgroup *wg;
    uint32_t round, left, late_one_left;
    uint32_t rounds;
} exits;

static void takes_away_or_is_late(int me) {
    uint64_t seed = (uint64_t)me + 61;
    for (uint32_t round = 1; round <= exits.rounds; round++) {
        if (me == 0) {
            exits.wg = t_page();
            go_waitgroup_add(exits.wg, 1);
            rt_store_release(&exits.round, round);
            T_AWAIT(t_waiting(exits.wg, &exits.wg->rt_waiters) ==
                    (rt_load_acquire(&exits.late_one_left) == round ? 1 : 2));
            spin(t_random(&seed) % 200);
            go_waitgroup_done(exits.wg);
            T_AWAIT(rt_load_acquire(&exits.left) == 2 * round);
            continue;
        }
        T_AWAIT(rt_load_acquire(&exits.round) == round);
        go_scope s;
        int64_t patience = (int64_t)(t_random(&seed) % 200) * GO_MICROSECOND;
        go_scope_enter(&s, me == 1 ? GO_FOREVER : go_now() + patience);
        int r = go_waitgroup_wait(exits.wg);
        go_scope_leave(&s);
        if (me == 1)
            t_page_gone(exits.wg);
        else
            rt_store_release(&exits.late_one_left, round);
        T_ASSERT(r == 0 || (me != 1 && r == -ETIMEDOUT), "%d", r);
        rt_fetch_add(&exits.left, 1);
    }
}

Test(waitgroup, one_that_gives_up_may_find_it_gone, .timeout = 120) {
    exits.rounds = (uint32_t)rounds(400);
    T_EQ(go_start(NULL), 0);
    t_crowd(3, 0, takes_away_or_is_late);
    memset(&exits, 0, sizeof exits);
    exits.rounds = (uint32_t)rounds(200);
    t_crowd(1, 2, takes_away_or_is_late);
    t_stop();
}

/* ---- go_waitgroup_spawn ---------------------------------------------------------------------- */

static int results[2000];

static void put_result(void *arg) {
    results[t_int(arg)] = (int)t_int(arg) + 1; /* plain: the wait makes it visible */
}

GTest(waitgroup, spawn_counts_and_its_effects_are_seen) {
    go_waitgroup wg = {0};
    int n = (int)rounds(T_COUNT(results));
    for (int i = 0; i < n; i++)
        T_EQ(go_waitgroup_spawn(&wg, put_result, t_ptr(i)), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(wg.rt_count, 0);
    for (int i = 0; i < n; i++)
        T_EQ(results[i], i + 1);
}

static void *spawn_from_thread(void *arg) {
    for (int i = 0; i < 100; i++)
        T_EQ(go_waitgroup_spawn(&shared, run, NULL), 0);
    return arg;
}

Test(waitgroup, threads_may_spawn_and_wait) {
    T_EQ(go_start(NULL), 0);
    go_waitgroup_add(&shared, 1);
    t_threads(4, spawn_from_thread);
    go_waitgroup_done(&shared);
    T_EQ(go_waitgroup_wait(&shared), 0);
    T_EQ(rt_load_relaxed(&ran), 400);
    t_stop();
}

static void count_is_as_it_was(go_waitgroup *wg, uint32_t before) {
    T_EQ(rt_load_relaxed(&wg->rt_count), before);
}

Test(waitgroup, a_spawn_that_fails_leaves_the_count) {
    go_waitgroup wg = {0};
    T_EQ(go_waitgroup_spawn(&wg, run, NULL), -ENXIO);
    T_EQ(go_waitgroup_spawn(&wg, NULL, NULL), -EINVAL);
    count_is_as_it_was(&wg, 0);
    T_EQ(go_start(NULL), 0);
    go_waitgroup_add(&wg, 7);
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM);
    T_EQ(go_waitgroup_spawn(&wg, run, NULL), -ENOMEM);
    rt_fault_disarm();
    count_is_as_it_was(&wg, 7);
    T_EQ(go_waitgroup_spawn(&wg, NULL, NULL), -EINVAL);
    count_is_as_it_was(&wg, 7);
    t_stop();
    T_EQ(go_waitgroup_spawn(&wg, run, NULL), -ENXIO);
    count_is_as_it_was(&wg, 7);
    T_EQ(rt_load_relaxed(&ran), 0);
}

/* The spawn itself fails, not the memory for its arguments. */
Test(waitgroup, a_spawn_at_the_limit_leaves_the_count_and_wakes_no_waiter) {
    struct go_options o = GO_OPTIONS_INIT;
    go_waitgroup wg = {0};
    o.max_tasks = 50;
    T_EQ(go_start(&o), 0);
    go_waitgroup_add(&shared, 1);
    int err, n = 0;
    while ((err = go_spawn(wait_for_ever, &shared)) == 0)
        n++;
    T_EQ(err, -EAGAIN);
    for (int i = 0; i < 100; i++) {
        err = go_waitgroup_spawn(&wg, run, NULL);
        T_EQ(err, -EAGAIN);
        count_is_as_it_was(&wg, 0);
    }
    T_EQ(go_waitgroup_wait(&wg), 0);
    go_waitgroup_done(&shared);
    T_AWAIT(t_stats().tasks_live == 0);
    T_EQ(go_waitgroup_spawn(&wg, run, NULL), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(rt_load_relaxed(&ran), 1);
    t_stop();
    T_ASSERT(n >= 49 && n <= 51, "%d", n);
}

/* On a stack frame that is gone at once. */
static void nested(void *arg) {
    intptr_t depth = t_int(arg);
    go_waitgroup wg = {0};
    for (int i = 0; depth > 0 && i < 3; i++)
        T_EQ(go_waitgroup_spawn(&wg, nested, t_ptr(depth - 1)), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
}

GTest(waitgroup, trees_of_them_on_stacks_end) {
    for (int i = 0; i < 10; i++)
        nested(t_ptr(T_SCALE(100) > 20 ? 7 : 5));
}
