/* park.c - sched/park.c, task/scope.c: a wait ends once, by a wake, a cancel or its deadline; no
 * wake is lost, and nobody runs a G whose registers are not saved.
 *
 * The waits are those of the event in HACKING.md ("Adding a call that parks"). The waiter is a G in
 * the shipped scheduler loop, or a foreign thread; wakers and cancellers are foreign threads, or a
 * G of another M. A wait that never ends shows at the end, when all Ms sleep. */
#include "machine.h"

#include "event.h"

#include <gort/scope.h>

/* ---- who waits ------------------------------------------------------------------------------- */

static struct {
    int64_t deadline;
    enum rt_g_state state;
    int times;
    bool scoped;
} how;
static struct event event;
static go_scope outer, inner;
static int reason;  /* plain: what the canceller leaves */
static int waited;  /* calls that have returned */
static int results; /* how many of them said 0 */

static void wait_for_it(void *arg) {
    (void)arg;
    int before = 0;
    for (int i = 0; i < how.times; i++) {
        int r = event_wait(&event, how.state, how.deadline);
        if (r == 0)
            model_assert(event.message == 1);
        else if (how.state == RT_HARD || !how.scoped)
            model_assert(r == -ETIMEDOUT && how.deadline != GO_FOREVER);
        else
            model_assert(r == -ECANCELED || how.deadline != GO_FOREVER);
        if (r == -ECANCELED)
            model_assert(reason == 1);
        model_assert(before != -ECANCELED || r == -ECANCELED); /* a cancel stays */
        before = r;
        waited++;
        results += r == 0;
    }
    model_exit(); /* busy, outside; still in its scope, as go_scope_cancel demands */
}

static void leave_and_wait(void *arg) {
    model_assert(go_scope_leave(&inner) == 0);
    wait_for_it(arg);
}

static void prepare(int64_t deadline, enum rt_g_state state, int times, bool scoped) {
    machine_with_stacks(2);
    rt.procs = 1;
    event.waiters = NULL;
    how.deadline = deadline;
    how.state = state;
    how.times = times;
    how.scoped = scoped;
    if (deadline != GO_FOREVER)
        model_clock_moves();
}
static void g_waits(void (*fn)(void *)) {
    machine_be(0, &gs[0]);
    model_assert(go_spawn(fn, NULL) == 0);
    machine_be(0, ps[0].runnext);
    if (how.scoped)
        go_scope_enter(&outer, GO_FOREVER);
    model_be(NULL);
}
/* Thread 0 waits itself. */
static void thread_waits(void) {
    if (how.scoped)
        go_scope_enter(&outer, GO_FOREVER);
}

static void plain(void) {
    prepare(GO_FOREVER, RT_WAITING, 1, false);
    g_waits(wait_for_it);
}
static void in_scope(void) {
    prepare(GO_FOREVER, RT_WAITING, 1, true);
    g_waits(wait_for_it);
}
static void in_scope_twice(void) {
    prepare(GO_FOREVER, RT_WAITING, 2, true);
    g_waits(wait_for_it);
}
static void late(void) {
    prepare(1000, RT_WAITING, 1, false);
    g_waits(wait_for_it);
}
static void late_twice(void) {
    prepare(1000, RT_WAITING, 2, false);
    g_waits(wait_for_it);
}
static void late_in_scope(void) {
    prepare(1000, RT_WAITING, 1, true);
    g_waits(wait_for_it);
}
static void hard_in_scope(void) {
    prepare(GO_FOREVER, RT_HARD, 1, true);
    g_waits(wait_for_it);
}
static void leaving(void) {
    prepare(GO_FOREVER, RT_WAITING, 1, true);
    g_waits(leave_and_wait);
    machine_be(0, ps[0].runnext);
    go_scope_enter(&inner, GO_FOREVER);
    model_be(NULL);
}

static void thread_plain(void) {
    prepare(GO_FOREVER, RT_WAITING, 1, false);
    thread_waits();
}
static void thread_in_scope(void) {
    prepare(GO_FOREVER, RT_WAITING, 1, true);
    thread_waits();
}
static void thread_in_scope_twice(void) {
    prepare(GO_FOREVER, RT_WAITING, 2, true);
    thread_waits();
}
static void thread_late(void) {
    prepare(1000, RT_WAITING, 1, false);
    thread_waits();
}
static void thread_late_in_scope(void) {
    prepare(1000, RT_WAITING, 1, true);
    thread_waits();
}

/* Before the first start, which finds out meanwhile that membarrier works. */
static void thread_before_start(void) {
    thread_in_scope();
    rt_asymmetric = false;
}
static void start(void) {
    rt_store_relaxed(&rt_asymmetric, true);
}

static void m0(void) {
    machine_run(0);
}
static void set(void) {
    event_set(&event);
}
static void cancel(void) {
    reason = 1;
    go_scope_cancel(&outer);
}
static void foreign(void) {
    wait_for_it(NULL);
}

/* The setter is a G of another M, which goes on with what it has made ready. */
static void m1(void) {
    machine_run(1);
}
static void set_and_end(void *arg) {
    (void)arg;
    event_set(&event);
}
static void two_ms(void) {
    plain();
    rt.procs = 2;
    machine_be(1, &gs[0]);
    model_assert(go_spawn(set_and_end, NULL) == 0);
    model_be(NULL);
}

static void all_returned(void) {
    model_assert(waited == how.times);
    model_assert(event.waiters == NULL);
}
static void all_woken(void) {
    all_returned();
    model_assert(results == how.times);
}

#define CASE(n, start, check, b, ...) MODEL_CASE("park." n, start, check, check, b, 0, __VA_ARGS__)

const struct model_case model_cases[] = {
    CASE("wake", plain, all_woken, 3, m0, set),
    CASE("cancel", in_scope, all_returned, 3, m0, cancel),
    CASE("wake_or_cancel", in_scope, all_returned, 2, m0, set, cancel),
    CASE("cancel_stays", in_scope_twice, all_returned, 1, m0, set, cancel),
    CASE("hard", hard_in_scope, all_woken, 2, m0, set, cancel),
    CASE("late", late, all_returned, 2, m0, set),
    CASE("late_twice", late_twice, all_returned, 2, m0, set),
    CASE("late_or_cancel", late_in_scope, all_returned, 1, m0, set, cancel),
    CASE("cancel_around_a_leave", leaving, all_returned, 3, m0, cancel),
    CASE("thread_wake", thread_plain, all_woken, 3, foreign, set),
    CASE("thread_cancel", thread_in_scope, all_returned, 3, foreign, cancel),
    CASE("thread_wake_or_cancel", thread_in_scope, all_returned, 3, foreign, set, cancel),
    CASE("thread_cancel_stays", thread_in_scope_twice, all_returned, 2, foreign, set, cancel),
    CASE("thread_late", thread_late, all_returned, 3, foreign, set),
    CASE("thread_late_or_cancel", thread_late_in_scope, all_returned, 2, foreign, set, cancel),
    CASE("thread_cancel_at_start", thread_before_start, all_returned, 2, foreign, cancel, start),
    CASE("two_ms", two_ms, all_woken, 3, m0, m1),
    {0},
};
