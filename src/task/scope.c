/* scope.c - cancellation and deadlines.
 *
 * A scope is a node in a chain that its G alone walks and changes; what others may do is set
 * rt_state and RT_ATT_SCOPE, and claim the G if it is parked. Promise: a cancel that happens before
 * a cancellable call looks, or while it waits, ends it; the bit stays as long as a cancelled scope
 * is in the chain (level-triggered), and no longer.
 *   canceller: state = cancelled; attention |= SCOPE;  heavy fence;  word WAITING? claim, ready
 *   parker:    word = WAITING (in the commit);         light fence;  attention? claim itself, ready
 *   leaver:    attention &= ~SCOPE;  then walk the rest of the chain: a cancelled one? set it again
 * The earliest deadline of the chain is g->limit; a park is armed with it (timer.c). */
#include "base/log.h"
#include "base/sys.h"
#include "sched/park.h"

#include <gort/scope.h>

enum { CANCELED = 1, LATE = 2 }; /* rt_state; LATE: a call inside was refused for this deadline */
static const uint32_t ENTERED = 0x5c09e;

_Static_assert(sizeof(go_scope) == 64, "the public contract");

void go_scope_enter(go_scope *s, int64_t deadline) {
    struct rt_g *g = rt_self();
    s->rt_parent = g->scope;
    s->rt_owner = g;
    s->rt_deadline = deadline;
    s->rt_outer_limit = g->limit;
    rt_store_relaxed(&s->rt_state, 0);
    s->rt_entered = ENTERED;
    g->scope = s;
    g->touched |= RT_TOUCHED_SCOPE;
    if (deadline < g->limit)
        g->limit = deadline;
}

static bool canceled_in_chain(const struct rt_g *g) {
    for (const go_scope *s = g->scope; s; s = s->rt_parent)
        if (rt_load_relaxed(&s->rt_state) & CANCELED)
            return true;
    return false;
}

int go_scope_leave(go_scope *s) {
    struct rt_g *g = rt_self();
    if (s->rt_entered != ENTERED || g->scope != s)
        rt_fatal("go_scope_leave: not the innermost scope of its green thread");
    g->scope = s->rt_parent;
    g->limit = s->rt_outer_limit;
    s->rt_entered = 0;
    uint32_t state = rt_load_acquire(&s->rt_state);
    if (rt_unlikely(rt_load_relaxed(&g->attention) & RT_ATT_SCOPE)) {
        rt_fetch_and(&g->attention, ~(uint32_t)RT_ATT_SCOPE);
        if (canceled_in_chain(g))
            rt_fetch_or(&g->attention, RT_ATT_SCOPE);
    }
    return state & CANCELED ? -ECANCELED : state & LATE ? -ETIMEDOUT : 0;
}

void rt_cancel_g(struct rt_g *g, uint32_t bit) {
    rt_fetch_or(&g->attention, bit);
    rt_fence_heavy(); /* attention, then the word: pairs with the light fence in rt_commit */
    uint64_t word = rt_load_acquire(&g->wait);
    if (RT_WAIT_STATE(word) == RT_WAITING && rt_claim_soft(g, RT_WAIT_SEQ(word), -ECANCELED))
        rt_ready(g);
}

void go_scope_cancel(go_scope *s) {
    struct rt_g *g = s->rt_owner;
    rt_fetch_or(&s->rt_state, CANCELED);
    rt_cancel_g(g, RT_ATT_SCOPE);
}

int rt_cancel_slow(struct rt_g *g) {
    if (rt_load_relaxed(&g->attention) & RT_ATT_CANCEL)
        return -ECANCELED;
    if (g->limit == INT64_MAX)
        return 0;
    int64_t now = rt_sys_now();
    if (now < g->limit)
        return 0;
    for (go_scope *s = g->scope; s; s = s->rt_parent)
        if (s->rt_deadline <= now)
            rt_fetch_or(&s->rt_state, LATE);
    return -ETIMEDOUT;
}

int rt_cancel_result(struct rt_g *g, int park_result, int64_t own_deadline) {
    if (park_result != -ECANCELED && park_result != -ETIMEDOUT)
        return park_result;
    int err = rt_cancel_slow(g);
    if (err == 0) /* the call's own deadline, or a wake that is out of date by now */
        return park_result;
    if (err == -ETIMEDOUT && own_deadline != GO_FOREVER)
        return own_deadline <= g->limit ? -ETIMEDOUT : -ECANCELED;
    return err;
}

int go_canceled(void) {
    return rt_cancel_check(rt_self());
}
