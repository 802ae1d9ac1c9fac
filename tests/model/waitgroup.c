/* waitgroup.c - sync/waitgroup.c, with foreign threads: a wait returns when the count is 0, having
 * seen what came before each done; and whoever was let go may free the waitgroup at once. */
#include "machine.h"

#include <gort/scope.h>
#include <gort/sync.h>

static go_waitgroup wg;
static int work[4];  /* plain: done by the thread of that number */
static int returned; /* by atomics */
static go_scope scope;
static int reason;

static void count_of(int n) {
    machine_init(1);
    go_waitgroup_add(&wg, n);
}
static void one(void) {
    count_of(1);
}
static void two(void) {
    count_of(2);
}
static void one_in_scope(void) {
    count_of(1);
    go_scope_enter(&scope, GO_FOREVER); /* of thread 0 */
}
static void two_in_scope(void) {
    count_of(2);
    go_scope_enter(&scope, GO_FOREVER); /* of thread 0 */
}

static void work_and_done(void) {
    work[model_self()] = 1;
    go_waitgroup_done(&wg);
}
static void add_and_done(void) { /* while the own count of 1 keeps it above 0 */
    go_waitgroup_add(&wg, 1);
    work[model_self()] = 1;
    go_waitgroup_done(&wg);
    go_waitgroup_done(&wg);
}

static void wait_for(unsigned first, unsigned last) {
    model_assert(go_waitgroup_wait(&wg) == 0);
    for (unsigned i = first; i <= last; i++)
        model_assert(work[i] == 1);
    rt_fetch_add_relaxed(&returned, 1);
}
static void wait_for_one_and_free(void) {
    wait_for(1, 1);
    model_gone(&wg, sizeof wg);
}
static void wait_for_two_and_free(void) {
    wait_for(1, 2);
    model_gone(&wg, sizeof wg);
}
static void wait_for_thread_2(void) {
    wait_for(2, 2);
}
/* A second round: all waits of the first have returned. */
static void twice(void) {
    wait_for(1, 1);
    go_waitgroup_add(&wg, 1);
    go_waitgroup_done(&wg);
    model_assert(go_waitgroup_wait(&wg) == 0);
    model_gone(&wg, sizeof wg);
}

static void wait_in_scope(void) {
    int r = go_waitgroup_wait(&wg);
    if (r == 0)
        model_assert(work[1] == 1 && work[2] == 1);
    else
        model_assert(r == -ECANCELED && reason == 1);
    rt_fetch_add_relaxed(&returned, 1);
}
static void cancel(void) {
    reason = 1;
    go_scope_cancel(&scope);
}

/* Thread 0 waits, is cancelled, and on its way back when another finds 0 and frees. */
static uint32_t queued; /* it is; or was */

static void cancel_a_waiter(void) {
    while (rt_load_relaxed(&wg.rt_count) >> 31 == 0)
        model_wait_for_change();
    rt_store_release(&queued, 1);
    cancel();
}
static void work_and_done_beside_a_waiter(void) {
    while (rt_load_acquire(&queued) == 0)
        model_wait_for_change();
    work_and_done();
}
static void find_zero_and_free(void) {
    while (rt_load_acquire(&queued) == 0)
        model_wait_for_change();
    while (rt_load_relaxed(&wg.rt_count) != 0)
        model_wait_for_change();
    wait_for(2, 2);
    model_gone(&wg, sizeof wg);
}
static void wait_in_scope_for_thread_2(void) {
    int r = go_waitgroup_wait(&wg);
    model_assert(r == 0 || (r == -ECANCELED && reason == 1));
}

static void one_returned(void) {
    model_assert(returned == 1);
}
static void two_returned(void) {
    model_assert(returned == 2 && wg.rt_count == 0);
}

#define CASE(n, start, check, b, ...) \
    MODEL_CASE("waitgroup." n, start, check, NULL, b, 0, __VA_ARGS__)

const struct model_case model_cases[] = {
    CASE("freed", one, one_returned, 3, wait_for_one_and_free, work_and_done),
    CASE("freed_by_two", two, one_returned, 3, wait_for_two_and_free, work_and_done, work_and_done),
    CASE("two_waiters", one, two_returned, 2, wait_for_thread_2, wait_for_thread_2, work_and_done),
    CASE("add_meanwhile", one, one_returned, 3, wait_for_one_and_free, add_and_done),
    CASE("again", one, one_returned, 3, twice, work_and_done),
    CASE("canceled", two_in_scope, one_returned, 1, wait_in_scope, work_and_done, work_and_done,
         cancel),
    CASE("freed_beside_canceled", one_in_scope, one_returned, 1, wait_in_scope_for_thread_2,
         cancel_a_waiter, work_and_done_beside_a_waiter, find_zero_and_free),
    {0},
};
