/* barrier.c - sync/barrier.c, with foreign threads: all go on when all have come, having seen what
 * each did before, one is told, and that one may free it; one that is cancelled either has come or
 * has not. */
#include "machine.h"

#include <gort/scope.h>
#include <gort/sync.h>

static go_barrier barrier;
static int work[4];                  /* plain: rounds done by the thread of that number */
static int told, returned, canceled; /* by relaxed atomics */
static int parties, reason;
static go_scope scope;

static void of(int n) {
    machine_init(1);
    parties = n;
    go_barrier_init(&barrier, (unsigned)n);
}
static void two(void) {
    of(2);
}
static void three(void) {
    of(3);
}
static void two_in_scope(void) {
    of(2);
    go_scope_enter(&scope, GO_FOREVER); /* of thread 0 */
}

/* True: this one was told. */
static bool come(int round) {
    work[model_self()] = round;
    int r = go_barrier_wait(&barrier);
    model_assert(r == 0 || r == 1);
    for (int i = 0; i < parties; i++)
        model_assert(work[i] == round);
    rt_fetch_add_relaxed(&told, r);
    rt_fetch_add_relaxed(&returned, 1);
    return r == 1;
}
static void once(void) {
    if (come(1))
        model_gone(&barrier, sizeof barrier);
}
/* Between two rounds all look at each other's work, so it takes two barriers a round. */
static void twice(void) {
    come(1);
    model_assert(go_barrier_wait(&barrier) >= 0);
    if (come(2))
        model_gone(&barrier, sizeof barrier);
}
static void come_in_scope(void) {
    work[0] = 1;
    int r = go_barrier_wait(&barrier);
    if (r >= 0) {
        model_assert(work[1] == 1);
        rt_fetch_add_relaxed(&told, r);
        if (r == 1)
            model_gone(&barrier, sizeof barrier);
    } else {
        model_assert(r == -ECANCELED && reason == 1);
        rt_store_relaxed(&canceled, 1);
    }
}
/* Cancelled or not, it comes; and then the next round is not disturbed by the end of the first. */
static void come_again(void) {
    int r = go_barrier_wait(&barrier);
    model_assert(r >= 0 || r == -ECANCELED);
    while (rt_load_acquire(&canceled) == 0) /* a scope is left when its cancels have returned */
        model_wait_for_change();
    go_scope_leave(&scope);
    if (r < 0)
        model_assert(go_barrier_wait(&barrier) >= 0);
    come(1);
}
static void other_comes_twice(void) {
    model_assert(go_barrier_wait(&barrier) >= 0);
    come(1);
}
static void cancel_and_say(void) {
    go_scope_cancel(&scope);
    rt_store_release(&canceled, 1);
}
static void other_comes(void) {
    work[1] = 1;
    int r = go_barrier_wait(&barrier);
    model_assert(r == 0 || r == 1);
    model_assert(work[0] == 1);
    rt_fetch_add_relaxed(&told, r);
    if (r == 1)
        model_gone(&barrier, sizeof barrier);
}
static void cancel(void) {
    reason = 1;
    go_scope_cancel(&scope);
}

static void one_told(void) {
    model_assert(told == 1 && returned == parties);
}
static void one_told_twice(void) {
    model_assert(told == 2 && returned == 2 * parties);
}
static void both_or_none(void) {
    model_assert(canceled == 0 && told == 1);
}
/* The other one sleeps for ever: as if the first had never come. */
static void not_come(void) {
    model_assert(canceled == 1 && told == 0 && barrier.rt_arrived == 1);
}

#define CASE(n, start, check, b, s, ...) \
    MODEL_CASE("barrier." n, start, check, NULL, b, s, __VA_ARGS__)

const struct model_case model_cases[] = {
    CASE("two", two, one_told, 4, 3, once, once),
    CASE("three", three, one_told, 1, 1, once, once, once),
    CASE("again", two, one_told_twice, 2, 1, twice, twice),
    CASE("canceled_again", two_in_scope, one_told, 1, 1, come_again, other_comes_twice,
         cancel_and_say),
    {.name = "barrier.canceled",
     .init = two_in_scope,
     .thread = {come_in_scope, other_comes, cancel},
     .end = both_or_none,
     .rest = not_come,
     .bound = 2,
     .stale = 1},
    {0},
};
