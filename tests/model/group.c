/* group.c - task/group.c: a wait for a group returns when every child has ended, having seen what
 * they did, and nobody touches the group any more; a cancel reaches every child, also one that is
 * born meanwhile, and is seen with what came before it. The owner is a foreign thread. */
#include "event.h"

#include <gort/scope.h>
#include <gort/task.h>

static go_group group;
static go_scope scope; /* around the group, of thread 0 */
static struct event event;
static int work[2];  /* plain: done by the children */
static int reason;   /* plain: what the canceller left */
static int returned; /* by relaxed atomics */

static void begin(uint32_t procs) {
    machine_with_stacks(2);
    rt.procs = procs;
    event_init(&event);
}
static void one_p(void) {
    begin(1);
}
static void in_scope(void) {
    begin(1);
    go_scope_enter(&scope, GO_FOREVER);
}

/* ---- children -------------------------------------------------------------------------------- */

static int works(void *arg) {
    work[(intptr_t)arg] = 1;
    return 0;
}
/* In a scope of its own, whose cancel does not hide that of the group. */
static int leaves_a_scope(void *arg) {
    go_scope inner;
    go_scope_enter(&inner, GO_FOREVER);
    go_scope_cancel(&inner);
    model_assert(go_scope_leave(&inner) == -ECANCELED);
    if (go_canceled() == -ECANCELED)
        model_assert(reason == 1);
    return works(arg);
}
static int fails(void *arg) {
    works(arg);
    reason = 1;
    return -7;
}
static int waits(void *arg) {
    int r = event_wait(&event, RT_WAITING, GO_FOREVER);
    model_assert(r == -ECANCELED && reason == 1);
    return works(arg);
}

/* ---- the owner ------------------------------------------------------------------------------- */

static void spawn(int i, int (*fn)(void *)) {
    model_assert(go_group_spawn(&group, fn, (void *)(intptr_t)i) == 0);
}
static void wait_for(int children, int result) {
    model_assert(go_group_wait(&group) == result);
    for (int i = 0; i < children; i++)
        model_assert(work[i] == 1);
    model_gone(&group, sizeof group);
    rt_fetch_add_relaxed(&returned, 1);
}
static void owns_one(void) {
    go_group_enter(&group, GO_FOREVER);
    spawn(0, works);
    wait_for(1, 0);
}
static void owns_two(void) {
    go_group_enter(&group, GO_FOREVER);
    spawn(0, works);
    spawn(1, works);
    wait_for(2, 0);
}
static void owns_one_that_fails(void) {
    go_group_enter(&group, GO_FOREVER);
    spawn(0, fails);
    spawn(1, waits);
    wait_for(2, -7);
}
static void owns_one_that_waits(void) {
    go_group_enter(&group, GO_FOREVER);
    spawn(0, waits);
    wait_for(1, 0); /* it was not the group that was cancelled */
}
static void owns_and_cancels(void) {
    go_group_enter(&group, GO_FOREVER);
    spawn(0, waits);
    reason = 1;
    go_group_cancel(&group);
    wait_for(1, -ECANCELED);
}

static void owns_one_in_a_scope(void) {
    go_group_enter(&group, GO_FOREVER);
    spawn(0, leaves_a_scope);
    reason = 1;
    go_group_cancel(&group);
    wait_for(1, -ECANCELED);
}

static void owns_a_late_one(void) {
    go_group_enter(&group, GO_FOREVER);
    reason = 1;
    go_group_cancel(&group);
    spawn(0, waits);
    wait_for(1, -ECANCELED);
}

/* ---- others ---------------------------------------------------------------------------------- */

static void m0(void) {
    machine_run(0);
}
static void cancel_scope(void) {
    reason = 1;
    go_scope_cancel(&scope);
}

static void owner_returned(void) {
    model_assert(returned == 1);
}

#define CASE(n, start, b, s, ...) \
    MODEL_CASE("group." n, start, owner_returned, owner_returned, b, s, __VA_ARGS__)

const struct model_case model_cases[] = {
    CASE("one", one_p, 2, 2, owns_one, m0),
    CASE("two", one_p, 1, 1, owns_two, m0),
    CASE("fails", one_p, 1, 1, owns_one_that_fails, m0),
    CASE("canceled", one_p, 1, 1, owns_and_cancels, m0),
    CASE("leaves_a_scope", one_p, 1, 1, owns_one_in_a_scope, m0),
    CASE("born_canceled", one_p, 1, 1, owns_a_late_one, m0),
    CASE("outer_canceled", in_scope, 1, 1, owns_one_that_waits, m0, cancel_scope),
    {0},
};
