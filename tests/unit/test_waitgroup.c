/* waitgroup.c: waiters go on at 0, each time, and then it may be freed. */
#include "t_unit.h"

#include "base/fault.h"

#include <sys/mman.h>

static int count(int n) {
    return (int)T_SCALE(t_procs() <= 8 ? n : n / 4);
}

static void done(void *arg) {
    go_waitgroup_done(arg);
}

static void count_up(void *counter) {
    rt_fetch_add((int *)counter, 1);
}

Test(waitgroup, at_zero_nobody_waits) {
    go_waitgroup wg = {0};
    T_EQ(go_waitgroup_wait(&wg), 0);
    go_waitgroup_add(&wg, 5);
    go_waitgroup_add(&wg, -4);
    go_waitgroup_add(&wg, 0);
    go_waitgroup_done(&wg);
    T_EQ(go_waitgroup_wait(&wg), 0);
    go_waitgroup_add(&wg, INT32_MAX);
    go_waitgroup_add(&wg, -INT32_MAX);
    T_EQ(go_waitgroup_wait(&wg), 0);
}

GTest(waitgroup, waits_for_all_and_can_be_used_again) {
    go_waitgroup wg = {0};
    int ran = 0;
    for (int round = 1; round <= count(400); round++) {
        for (int i = 0; i < 10; i++)
            T_EQ(go_waitgroup_spawn(&wg, count_up, &ran), 0);
        T_EQ(go_waitgroup_wait(&wg), 0);
        T_EQ(rt_load_acquire(&ran), 10 * round);
    }
}

/* ---- many waiters -----------------------------------------------------------------------------
 * */

static struct {
    go_waitgroup wg;
    int open, passed, begun;
} gate;

static void wait_at_gate(void *arg) {
    (void)arg;
    rt_fetch_add(&gate.begun, 1);
    T_EQ(go_waitgroup_wait(&gate.wg), 0);
    T_EQ(rt_load_acquire(&gate.open), 1);
    rt_fetch_add(&gate.passed, 1);
}
static void *wait_at_gate_thread(void *arg) {
    wait_at_gate(arg);
    return NULL;
}

Test(waitgroup, releases_all_waiters_of_all_kinds) {
    enum { GREEN = 50, THREADS = 4 };
    T_EQ(go_start(NULL), 0);
    for (int round = 0; round < 20; round++) {
        pthread_t t[THREADS];
        memset(&gate, 0, sizeof gate);
        go_waitgroup_add(&gate.wg, 2);
        for (int i = 0; i < GREEN; i++)
            T_SPAWN(wait_at_gate, NULL);
        t_start_threads(t, THREADS, wait_at_gate_thread);
        T_AWAIT(rt_load_acquire(&gate.begun) >= (round % 2 ? GREEN + THREADS : 5));
        go_waitgroup_done(&gate.wg);
        T_EQ(rt_load_acquire(&gate.passed), 0);
        rt_store_release(&gate.open, 1);
        go_waitgroup_done(&gate.wg);
        t_join_threads(t, THREADS);
        T_AWAIT(rt_load_acquire(&gate.passed) == GREEN + THREADS);
        T_EQ(gate.wg.rt_count, 0);
        T_ASSERT(!gate.wg.rt_waiters);
    }
    t_stop();
}

/* ---- misuse -----------------------------------------------------------------------------------
 * */

static void below_zero(void) {
    go_waitgroup wg = {0};
    go_waitgroup_add(&wg, 1);
    go_waitgroup_done(&wg);
    go_waitgroup_done(&wg);
}
static void too_many(void) {
    go_waitgroup wg = {0};
    go_waitgroup_add(&wg, INT32_MAX);
    go_waitgroup_add(&wg, 1);
}

Test(waitgroup, a_count_out_of_range_is_told_and_aborts) {
    T_DIES(SIGABRT, "gort: go_waitgroup_add: the count is below 0", below_zero());
    T_DIES(SIGABRT, "below 0", go_waitgroup_add(&(go_waitgroup){0}, -1));
    T_DIES(SIGABRT, "below 0", go_waitgroup_add(&(go_waitgroup){0}, INT32_MIN));
    T_DIES(SIGABRT, "above 2^31 - 1", too_many());
}

static void nothing(void *arg) {
    (void)arg;
}

Test(waitgroup, a_failed_spawn_leaves_the_count_as_it_was) {
    go_waitgroup wg = {0};
    T_EQ(go_waitgroup_spawn(&wg, nothing, NULL), -ENXIO);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_start(NULL), 0);
    T_EQ(go_waitgroup_spawn(&wg, NULL, NULL), -EINVAL);
    T_EQ(go_waitgroup_wait(&wg), 0);
    rt_fault_arm(RT_FAULT_ALLOC, 1, false, ENOMEM);
    T_EQ(go_waitgroup_spawn(&wg, nothing, NULL), -ENOMEM);
    rt_fault_disarm();
    T_EQ(wg.rt_count, 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    t_stop();
}

/* ---- whose memory -----------------------------------------------------------------------------
 * */

static go_waitgroup *map_one(void) {
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    T_ASSERT(p != MAP_FAILED);
    return p;
}

static void wait_and_unmap(int rounds) {
    for (int i = 0; i < rounds; i++) {
        go_waitgroup *wg = map_one();
        int n = 1 + i % 3;
        go_waitgroup_add(wg, n);
        for (int k = 0; k < n; k++)
            T_SPAWN(done, wg);
        if (i % 4 == 0)
            go_yield();
        T_EQ(go_waitgroup_wait(wg), 0);
        T_EQ(munmap(wg, 4096), 0);
    }
}

static void wait_and_unmap_green(void *arg) {
    wait_and_unmap(count(2000));
    go_waitgroup_done(arg);
}

Test(waitgroup, may_be_unmapped_when_wait_has_returned, .timeout = 120) {
    go_waitgroup all = {0};
    T_EQ(go_start(NULL), 0);
    go_waitgroup_add(&all, 4);
    for (int i = 0; i < 4; i++)
        T_SPAWN(wait_and_unmap_green, &all);
    wait_and_unmap(count(1000)); /* a foreign thread, meanwhile */
    T_EQ(go_waitgroup_wait(&all), 0);
    t_stop();
}

/* The waiter's deadline strikes at about the moment of the last done: it waits again, and frees. */
static void wait_impatiently(int rounds) {
    uint64_t seed = 11;
    int late = 0;
    for (int i = 0; i < rounds; i++) {
        go_waitgroup *wg = map_one();
        go_waitgroup_add(wg, 1);
        T_SPAWN(done, wg);
        for (int r = -1; r != 0;) {
            go_scope s;
            go_scope_enter(&s, go_now() + (int64_t)(t_random(&seed) % 20000));
            r = go_waitgroup_wait(wg);
            T_ASSERT(r == 0 || r == -ETIMEDOUT, "%d", r);
            T_EQ(go_scope_leave(&s), r);
            late += r != 0;
        }
        T_EQ(munmap(wg, 4096), 0);
    }
    (void)late;
}

static void wait_impatiently_green(void *arg) {
    wait_impatiently(count(2000));
    go_waitgroup_done(arg);
}

Test(waitgroup, may_be_unmapped_after_a_wait_that_was_late_and_one_that_was_not, .timeout = 120) {
    go_waitgroup all = {0};
    T_EQ(go_start(NULL), 0);
    go_waitgroup_add(&all, 4);
    for (int i = 0; i < 4; i++)
        T_SPAWN(wait_impatiently_green, &all);
    wait_impatiently(count(1000));
    T_EQ(go_waitgroup_wait(&all), 0);
    t_stop();
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
