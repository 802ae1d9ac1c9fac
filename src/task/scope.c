/* scope.c - cancellation, deadlines, shields.
 *
 * A scope is a node in a chain that its G alone walks and changes; what others may do is set
 * rt_state, raise the level in g->attention, and claim the G if it is parked. Promise: a cancel
 * that happens before a cancellable call looks, or while it waits, ends it, unless a shield stands
 * between the cancelled scope and the call; so it stays as long as a cancelled scope is in the
 * chain (level-triggered), and no longer.
 *
 * Levels. g->shields counts the shields in the chain, s->rt_level those around s and s itself. They
 * only grow inwards, so a cancelled scope counts for g just when its level is g->shields: no shield
 * stands inside of it. And if any counts, the one of the highest level does. So one number says it
 * all, in O(1) and without the chain: g->attention holds 1 + the highest level of a cancelled scope
 * (rt_cancel_reaches). A canceller does not ask whether there is a shield, and a shield that comes
 * or goes changes g->shields alone, by a plain store: what it held off is there again.
 *
 *   canceller                 parker                       leaver of a cancelled scope
 *     state = cancelled         word = WAITING (commit)      clear the level in attention
 *     raise attention           light fence                  walk the rest of the chain: raise
 *     heavy fence               attention reaches it?          it to the first cancelled one
 *     word WAITING, and           claim itself, ready
 *     attention reaches it?
 *       claim, ready
 *
 * That raise and that clear are read-modify-writes of one word. So if a clear undoes the raise of a
 * canceller, it has read it, and the walk sees the state that was set before it. If not, the raise
 * comes later and stays. Who has not been cancelled has raised nothing: no walk.
 *
 * g->shields may change while a canceller looks at it, and then its claim fails: the sequence
 * number of the wait word is another one in each park. The cancel of a whole G (go_task_cancel,
 * go_stop) is a bit instead of a level, and counts where there is no shield.
 *
 * The earliest deadline of the chain is g->limit; a park is armed with it (timer.c). A shield hides
 * the limit from outside, until it is left. The chain of a group's child ends in its group and goes
 * on in that of the group's owner, which stays as it is for as long as there are children. */
#include "task/scope.h"

#include "base/log.h"
#include "base/sys.h"

#include <gort/scope.h>

static const uint32_t MAX_LEVEL = (UINT32_C(1) << (32 - RT_ATT_LEVEL_SHIFT)) - 2;

_Static_assert(sizeof(go_scope) == 64, "the public contract");

void rt_scope_push(struct rt_g *g, go_scope *s, enum rt_scope_kind kind, int64_t deadline) {
    s->rt_parent = g->scope;
    s->rt_owner = g;
    s->rt_deadline = deadline;
    s->rt_outer_limit = g->limit;
    s->rt_level = g->shields;
    rt_store_relaxed(&s->rt_state, 0);
    s->rt_entered = kind;
    g->scope = s;
    g->touched |= RT_TOUCHED_SCOPE;
}

void go_scope_enter(go_scope *s, int64_t deadline) {
    struct rt_g *g = rt_self();
    rt_scope_push(g, s, RT_SCOPE_PLAIN, deadline);
    if (deadline < g->limit)
        g->limit = deadline;
}

void go_scope_enter_shielded(go_scope *s, int64_t deadline) {
    struct rt_g *g = rt_self();
    if (g->shields == MAX_LEVEL)
        rt_fatal("go_scope_enter_shielded: nested too deeply");
    rt_store_relaxed(&g->shields, g->shields + 1); /* read by cancellers; the claim decides */
    rt_scope_push(g, s, RT_SCOPE_SHIELD, deadline);
    g->limit = deadline;
}

void rt_scope_raise(struct rt_g *g, uint32_t level) {
    uint32_t raised = (level + 1) << RT_ATT_LEVEL_SHIFT;
    uint32_t seen = rt_load_relaxed(&g->attention), after;
    do { /* written also when nothing changes: a clear must have read us, or come before us */
        uint32_t before = seen & ~(uint32_t)RT_ATT_BITS;
        after = (seen & RT_ATT_BITS) | (raised > before ? raised : before);
    } while (!rt_cas_release(&g->attention, &seen, after));
}

/* A cancelled scope has been left: what of the others counts? */
static __attribute__((noinline)) void lower(struct rt_g *g) {
    rt_fetch_and_acquire(&g->attention, (uint32_t)RT_ATT_BITS); /* pairs with rt_scope_raise's */
    for (const go_scope *s = g->scope; s; s = s->rt_parent) {
        bool mine = s->rt_owner == g; /* or else our group, to which outer cancels are passed on */
        uint32_t counts = mine ? RT_SCOPE_CANCELED : RT_SCOPE_CANCELED | RT_SCOPE_PASSED;
        /* Acquire, from the or of its canceller, whose raise may not have come yet: then it is by
         * ours that a call is told. */
        if (rt_load_acquire(&s->rt_state) & counts)
            rt_scope_raise(g, s->rt_level);
        else if (mine)
            continue;
        return;
    }
}

uint32_t rt_scope_pop(struct rt_g *g, go_scope *s) {
    g->scope = s->rt_parent;
    g->limit = s->rt_outer_limit;
    if (s->rt_entered == RT_SCOPE_SHIELD)
        rt_store_relaxed(&g->shields, g->shields - 1);
    s->rt_entered = 0;
    uint32_t state = rt_load_relaxed(&s->rt_state); /* whoever cancels s has returned from that */
    if (rt_unlikely(state & RT_SCOPE_CANCELED))
        lower(g);
    return state;
}

int go_scope_leave(go_scope *s) {
    struct rt_g *g = rt_self();
    if ((s->rt_entered != RT_SCOPE_PLAIN && s->rt_entered != RT_SCOPE_SHIELD) || g->scope != s)
        rt_fatal("go_scope_leave: not the innermost scope of its green thread");
    return rt_scope_result(rt_scope_pop(g, s));
}

static void wake(struct rt_g *g) {
    rt_fence_heavy(); /* attention, then the word: pairs with the light fence in rt_commit */
    if (rt_cancel_claim(g))
        rt_ready(g);
}

void rt_cancel_g(struct rt_g *g, uint32_t bit) {
    rt_fetch_or_release(&g->attention, bit);
    wake(g);
}

void go_scope_cancel(go_scope *s) {
    struct rt_g *g = s->rt_owner;
    uint32_t level = s->rt_level;
    rt_fetch_or_release(&s->rt_state, RT_SCOPE_CANCELED); /* pairs with the acquires of it */
    rt_scope_raise(g, level); /* s is not touched after this: g may see it, and leave s */
    wake(g);
}

/* Each scope that is late learns that it has refused a call. */
static void mark_late(struct rt_g *g, int64_t now) {
    for (go_scope *s = g->scope; s; s = s->rt_parent) {
        if (s->rt_deadline <= now && !(rt_load_relaxed(&s->rt_state) & RT_SCOPE_LATE))
            rt_fetch_or_relaxed(&s->rt_state, RT_SCOPE_LATE); /* for us, or who waits for us */
        if (s->rt_entered == RT_SCOPE_SHIELD)
            return;
    }
}

int rt_cancel_slow(struct rt_g *g) {
    /* Acquire: who is told of the cancel sees what the canceller did before; rt_cancel_g. */
    if (rt_cancel_reaches(rt_load_acquire(&g->attention), g->shields))
        return -ECANCELED;
    if (g->limit == INT64_MAX)
        return 0;
    int64_t now = rt_sys_now();
    if (now < g->limit)
        return 0;
    mark_late(g, now);
    return -ETIMEDOUT;
}

int rt_cancel_result(struct rt_g *g, int park_result, int64_t own_deadline) {
    if (park_result != -ECANCELED && park_result != -ETIMEDOUT)
        return park_result;
    if (park_result == -ETIMEDOUT && own_deadline < g->limit) /* the scope's refused nothing */
        return rt_cancel_reaches(rt_load_acquire(&g->attention), g->shields) ? -ECANCELED
                                                                             : -ETIMEDOUT;
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
