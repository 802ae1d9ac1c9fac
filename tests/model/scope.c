/* scope.c - task/scope.c: the level in g->attention, while scopes and shields come and go beside a
 * canceller (the waits are in park.c). A cancel of a scope that is still entered is never undone by
 * the leave of another one, and never gets past a shield. */
#include "event.h"

#include <gort/scope.h>

static struct event event;
static go_scope outer, inner, shield;
static int reason; /* plain: what the canceller leaves */

/* Thread 0 is in both, and inner has been cancelled. */
static void inner_is_canceled(void) {
    machine_init(1);
    event_init(&event);
    go_scope_enter(&outer, GO_FOREVER);
    go_scope_enter(&inner, GO_FOREVER);
    go_scope_cancel(&inner);
}
static void in_outer(void) {
    machine_init(1);
    go_scope_enter(&outer, GO_FOREVER);
}

static void cancel_outer(void) {
    reason = 1;
    go_scope_cancel(&outer);
}
static void cancel_outer_too(void) {
    go_scope_cancel(&outer);
}
static void leave_inner(void) {
    model_assert(go_canceled() == -ECANCELED);
    model_assert(go_scope_leave(&inner) == -ECANCELED);
}
static void leave_inner_and_wait(void) {
    leave_inner();
    model_assert(event_wait(&event, RT_WAITING, GO_FOREVER) == -ECANCELED);
    model_assert(reason == 1);
}
static void shielded(void) {
    go_scope_enter_shielded(&shield, GO_FOREVER);
    model_assert(go_canceled() == 0);
    model_assert(go_scope_leave(&shield) == 0);
    if (go_canceled() == -ECANCELED)
        model_assert(reason == 1);
}
static void shielded_and_leave(void) {
    go_scope_leave(&inner);
    shielded();
}

/* Asked by thread 0's G, when all have returned. */
static void outer_counts(void) {
    model_assert(go_canceled() == -ECANCELED);
}

#define CASE(n, start, check, ...) \
    { .name = "scope." n, .init = (start), .thread = {__VA_ARGS__}, .end = (check), .bound = 4 }

const struct model_case model_cases[] = {
    CASE("leave_inner", inner_is_canceled, outer_counts, leave_inner, cancel_outer),
    CASE("leave_and_wait", inner_is_canceled, outer_counts, leave_inner_and_wait, cancel_outer),
    CASE("shield", in_outer, outer_counts, shielded, cancel_outer),
    CASE("leave_and_shield", inner_is_canceled, outer_counts, shielded_and_leave, cancel_outer),
    CASE("twice", inner_is_canceled, outer_counts, leave_inner, cancel_outer, cancel_outer_too),
    {0},
};
