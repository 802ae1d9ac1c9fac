/* sem.c - sync/sem.c and the bells of park.c, with foreign threads: each unit is taken once, by one
 * who has seen what was done before its release, and nobody sleeps beside a free unit, whoever has
 * released it, a signal handler too. That one is a thread here: it takes no lock, so it may stand
 * between any two steps of another. */
#include "machine.h"

#include "sched/sysmon.h"

#include <gort/scope.h>
#include <gort/sync.h>

static struct {
    go_sem sem;
    int work[4]; /* plain: done by the thread of that number */
} object;
static int acquired; /* by relaxed atomics */
static int units, reason;
static go_scope scope;

static void with(unsigned n) {
    machine_init(1);
    units = (int)n;
    go_sem_init(&object.sem, n);
}
static void none(void) {
    with(0);
}
static void one(void) {
    with(1);
}
static void none_in_scope(void) {
    with(0);
    go_scope_enter(&scope, GO_FOREVER); /* of thread 0 */
}

/* ---- a unit as a message --------------------------------------------------------------------- */

static void release(void) {
    object.work[model_self()] = 1;
    go_sem_release(&object.sem);
}
static void release_twice(void) {
    release();
    go_sem_release(&object.sem);
}
static void release_sig(void) {
    object.work[model_self()] = 1;
    go_sem_release_sig(&object.sem);
}
/* In between those who were woken may begin to look. */
static void release_sig_twice(void) {
    release_sig();
    model_wait_for_change();
    go_sem_release_sig(&object.sem);
}
static void acquire(void) {
    model_assert(go_sem_acquire(&object.sem) == 0);
    rt_fetch_add_relaxed(&acquired, 1);
}
/* From thread `of`, which has touched it for the last time. */
static void acquire_and_free(void) {
    acquire();
    model_assert(object.work[1] == 1);
    model_gone(&object, sizeof object);
}
static void acquire_two_and_free(void) {
    acquire();
    acquire();
    model_assert(object.work[1] == 1 && object.work[2] == 1);
    model_gone(&object, sizeof object);
}
static void acquire_two(void) {
    acquire();
    acquire();
    model_assert(object.work[1] == 1);
}
static void try_acquire(void) {
    while (go_sem_try_acquire(&object.sem) != 0)
        model_wait_for_change();
    rt_fetch_add_relaxed(&acquired, 1);
}

/* Its tick, at any time; it comes too early, too late, or in the way of whom the bell has woken. */
static void sysmon(void) {
    rt_sem_answer_all();
}

/* What an earlier handler has asked still stands when the waiter comes, because a release was
 * quicker to hand that unit on. So the next one may be found before its handler has asked. */
static uint32_t asked;

static void asked_acquire_and_free(void) {
    rt_store_relaxed(&object.sem.rt_count, UINT32_C(1) << 31); /* somebody waits */
    go_sem_release_sig(&object.sem);
    rt_store_relaxed(&object.sem.rt_count, 0);
    rt_store_release(&asked, 1);
    acquire_and_free();
}
static void asked_release_sig(void) {
    while (rt_load_acquire(&asked) == 0)
        model_wait_for_change();
    release_sig();
}

/* ---- a unit as a lock ------------------------------------------------------------------------ */

static int inside; /* plain */

static void lock(void) {
    acquire();
    inside++;
    go_sem_release(&object.sem);
}
static void lock_sig(void) {
    acquire();
    inside++;
    go_sem_release_sig(&object.sem);
}

/* ---- cancel ---------------------------------------------------------------------------------- */

static void acquire_in_scope(void) {
    int r = go_sem_acquire(&object.sem);
    model_assert(r == 0 || (r == -ECANCELED && reason == 1));
    if (r == 0)
        rt_fetch_add_relaxed(&acquired, 1);
}
static void cancel_and_acquire(void) {
    reason = 1;
    go_scope_cancel(&scope);
    acquire();
}

/* Thread 0 waits, is cancelled, and on its way back when another has taken the unit and frees. */
static uint32_t queued; /* it is; or was */

static void cancel_and_release(void) {
    while (rt_load_relaxed(&object.sem.rt_count) >> 31 == 0)
        model_wait_for_change();
    rt_store_release(&queued, 1);
    reason = 1;
    go_scope_cancel(&scope);
    release();
}
static void try_acquire_and_free(void) {
    while (rt_load_acquire(&queued) == 0)
        model_wait_for_change();
    while (go_sem_try_acquire(&object.sem) != 0) {
        if (rt_load_relaxed(&acquired) != 0) /* the cancel was too late */
            return;
        model_wait_for_change();
    }
    rt_fetch_add_relaxed(&acquired, 1);
    model_gone(&object, sizeof object);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void taken(int n, int released) {
    model_assert(acquired == n);
    model_assert(object.sem.rt_count == (uint32_t)(units + released - n));
    model_assert(!object.sem.rt_waiters && !rt_sem_waited());
}
static void one_taken(void) {
    model_assert(acquired == 1);
}
static void two_taken(void) {
    model_assert(acquired == 2);
}
static void two_of_two(void) {
    taken(2, 2);
}
static void as_lock(void) {
    model_assert(inside == acquired);
    taken(acquired, acquired);
}
/* One unit was released for two who want it, and one of these may give up. */
static void one_unit(void) {
    taken(1, 1);
}
/* Somebody sleeps, and there is no unit. */
static void no_unit_left(void) {
    model_assert(acquired == 1 && (object.sem.rt_count & INT32_MAX) == 0);
}

#define RESTING(n, start, check, at_rest, b, s, ...) \
    MODEL_CASE("sem." n, start, check, at_rest, b, s, __VA_ARGS__)
#define CASE(n, start, check, b, s, ...) RESTING(n, start, check, NULL, b, s, __VA_ARGS__)

const struct model_case model_cases[] = {
    CASE("freed", none, one_taken, 3, 2, acquire_and_free, release),
    CASE("freed_by_two", none, two_taken, 1, 1, acquire_two_and_free, release, release),
    CASE("two", none, two_of_two, 1, 1, acquire, acquire, release_twice),
    CASE("lock", one, as_lock, 1, 1, lock, lock, lock),
    CASE("try", one, two_taken, 2, 1, try_acquire, acquire, release),
    CASE("sig_freed", none, one_taken, 3, 2, acquire_and_free, release_sig),
    CASE("sig_counted", none, one_taken, 2, 1, asked_acquire_and_free, asked_release_sig, sysmon),
    CASE("sig_twice", none, two_taken, 2, 1, acquire_two, release_sig_twice),
    CASE("sig_two", none, two_of_two, 1, 1, acquire, acquire, release_sig_twice),
    CASE("sig_lock", one, as_lock, 1, 1, lock_sig, lock, lock_sig),
    CASE("sysmon", none, one_taken, 1, 1, acquire, release_sig, sysmon),
    RESTING("canceled", none_in_scope, one_unit, no_unit_left, 1, 1, acquire_in_scope,
            cancel_and_acquire, release),
    RESTING("sig_canceled", none_in_scope, one_unit, no_unit_left, 1, 1, acquire_in_scope,
            cancel_and_acquire, release_sig),
    CASE("freed_beside_canceled", none_in_scope, one_taken, 2, 1, acquire_in_scope,
         cancel_and_release, try_acquire_and_free),
    {0},
};
