/* group.c - scopes that own green threads.
 *
 * A group is a scope and a list of children, linked through their struct rt_g: a child costs no
 * memory of its own. It is born with g->scope = the group, as if it had entered it, on the level
 * and with the limit that hold inside. So the deadline needs no timer here: each child's own parks
 * are armed with it.
 *
 * Promises: when go_group_wait returns, every child has ended, its destructors too, its record is
 * free again, and nobody touches the group any more. A cancel reaches every child, also those that
 * are born while it goes round, in time that is linear in their number.
 *
 * Under rt_lock: the list, rt_members, rt_cursor, rt_flags, rt_error. Members are the children and
 * whoever tells the children that they are cancelled: it may be any thread, and the children it has
 * told may all have ended before it is through. The one that brings rt_members to 0 claims the
 * owner, if that waits, and unlocks; that is its last access. The owner takes the lock before it
 * believes in a 0, so it comes after that unlock.
 *
 *   the end of a child:  off the list; record freed, counted as ended; rt_members - 1
 *
 * in two sections of the lock, because freeing may take a lock of its own. A group that has just
 * been waited for can be filled again up to the limit on tasks.
 *
 * Telling the children happens once in the life of a group: after that TOLD says that a child is
 * born with its level raised. It goes over the list twice, with one heavy fence in between for all:
 * raise the level in each one's attention; fence; claim those that wait. Each round holds the lock
 * for BATCH children at a time, and rt_cursor is where it goes on: whoever leaves the list moves it
 * on. New children are put before it, and are told by their birth.
 *
 * The wait. The owner waits for a cancel from outside (of a scope around the group, of itself by
 * go_task_cancel, of everything) as well as for the children. When it comes, or was there before,
 * the owner passes it on to the children; they stay cancelled, so there is nothing more to look for
 * and it waits HARD. PASSED is not CANCELED: the group itself was not cancelled, and its result
 * says so, as that of a scope inside a cancelled one does. */
#include "base/chaos.h"
#include "base/lock.h"
#include "base/log.h"
#include "sched/g.h"
#include "sched/park.h"
#include "sched/proc.h"
#include "sched/spawn.h"
#include "task/scope.h"

#include <gort/scope.h>

enum { TOLD = 1, OWNER_WAITS = 2 }; /* rt_flags */
enum { BATCH = 16 };

_Static_assert(sizeof(go_group) == 128, "the public contract");

static void must_be_entered(const go_group *group, const char *call) {
    if (group->rt_scope.rt_entered != RT_SCOPE_GROUP)
        rt_fatal("%s: the group is not entered", call);
}

void go_group_enter(go_group *group, int64_t deadline) {
    struct rt_g *g = rt_self();
    go_scope *s = &group->rt_scope;
    rt_scope_push(g, s, RT_SCOPE_GROUP, deadline);
    if (deadline < g->limit)
        g->limit = deadline;
    group->rt_lock = group->rt_members = group->rt_flags = 0;
    group->rt_children = group->rt_cursor = NULL;
    group->rt_error = 0;
    /* Acquire, as in rt_cancel_slow: it is by this look that the children are told. */
    if (rt_unlikely(rt_cancel_reaches(rt_load_acquire(&g->attention), g->shields))) {
        rt_store_relaxed(&s->rt_state, RT_SCOPE_PASSED); /* nobody else knows the group yet */
        group->rt_flags = TOLD;
    }
}

/* ---- the list of children -------------------------------------------------------------------- */

void rt_group_adopt(go_group *group, struct rt_g *g) {
    const go_scope *s = &group->rt_scope;
    g->group = group;
    g->scope = &group->rt_scope;
    g->limit = s->rt_deadline < s->rt_outer_limit ? s->rt_deadline : s->rt_outer_limit;
    rt_store_relaxed(&g->shields, s->rt_level);
    g->elder_sibling = NULL;
    rt_lock(&group->rt_lock);
    struct rt_g *next = group->rt_children;
    g->sibling = next;
    if (next)
        next->elder_sibling = g;
    group->rt_children = g;
    group->rt_members++;
    if (rt_unlikely(group->rt_flags & TOLD))
        rt_scope_raise(g, s->rt_level);
    rt_unlock(&group->rt_lock);
}

go_group *rt_group_unlink(struct rt_g *g) {
    go_group *group = g->group;
    rt_lock(&group->rt_lock);
    struct rt_g *next = g->sibling, *elder = g->elder_sibling;
    if (elder)
        elder->sibling = next;
    else
        group->rt_children = next;
    if (next)
        next->elder_sibling = elder;
    if (rt_unlikely(group->rt_cursor == g))
        group->rt_cursor = next;
    rt_unlock(&group->rt_lock);
    return group;
}

/* One member less. The owner, when it is to be made ready; group may be gone. */
static struct rt_g *leave(go_group *group) {
    rt_lock(&group->rt_lock);
    struct rt_g *owner = NULL;
    if (--group->rt_members == 0 && (group->rt_flags & OWNER_WAITS)) {
        owner = group->rt_scope.rt_owner;
        if (!rt_claim(owner, group->rt_owner_seq, 0))
            owner = NULL; /* it was cancelled just now, and will look at rt_members */
    }
    rt_unlock(&group->rt_lock);
    rt_chaos_delay("group: the group may be gone; its owner does not know");
    return owner;
}

void rt_group_left(struct rt_m *m, go_group *group) {
    struct rt_g *owner = leave(group);
    if (owner)
        rt_ready_in(m, owner);
}

/* ---- telling them ---------------------------------------------------------------------------- */

/* A batch of children, from rt_cursor on. True: there are more. */
static bool go_on(go_group *group, bool claim) {
    struct rt_glist woken = {0};
    struct rt_g *g;
    rt_lock(&group->rt_lock);
    for (int i = 0; i < BATCH && (g = group->rt_cursor) != NULL; i++) {
        group->rt_cursor = g->sibling;
        if (!claim)
            rt_scope_raise(g, group->rt_scope.rt_level);
        else if (rt_cancel_claim(g))
            rt_glist_push(&woken, g);
    }
    bool more = group->rt_cursor != NULL;
    rt_unlock(&group->rt_lock);
    rt_chaos_delay("group: the child at the cursor may end");
    rt_ready_all(&woken);
    return more;
}

static void go_round(go_group *group, bool claim) {
    rt_lock(&group->rt_lock);
    group->rt_cursor = group->rt_children;
    rt_unlock(&group->rt_lock);
    while (go_on(group, claim))
        ;
}

/* The caller sees to it that the group is entered when this begins. */
static void tell(go_group *group, uint32_t why) {
    rt_lock(&group->rt_lock);
    rt_fetch_or_release(&group->rt_scope.rt_state, why); /* pairs with the acquires of it */
    bool first = !(group->rt_flags & TOLD);
    group->rt_flags |= TOLD;
    group->rt_members++; /* from here on we see to it */
    rt_unlock(&group->rt_lock);
    rt_chaos_delay("group: new children are told, the others are not");
    if (first) {
        struct rt_g *owner = group->rt_scope.rt_owner;
        go_round(group, false);
        if (why == RT_SCOPE_CANCELED)
            rt_scope_raise(owner, group->rt_scope.rt_level);
        rt_fence_heavy(); /* attention, then the words: pairs with the light fence in rt_commit */
        rt_chaos_delay("group: all are told, nobody is woken");
        go_round(group, true);
        if (why == RT_SCOPE_CANCELED && rt_cancel_claim(owner))
            rt_ready(owner);
    }
    struct rt_g *owner = leave(group);
    if (owner)
        rt_ready(owner);
}

void go_group_cancel(go_group *group) {
    must_be_entered(group, "go_group_cancel");
    tell(group, RT_SCOPE_CANCELED);
}

/* ---- children -------------------------------------------------------------------------------- */

int go_group_spawn(go_group *group, int (*fn)(void *), void *arg) {
    return go_group_spawn_with(group, NULL, fn, arg);
}

int go_group_spawn_with(go_group *group, const struct go_spawn_options *o, int (*fn)(void *),
                        void *arg) {
    must_be_entered(group, "go_group_spawn");
    return rt_spawn_child(group, o, fn, arg);
}

static __attribute__((noinline)) void failed(go_group *group, int error) {
    rt_lock(&group->rt_lock);
    if (group->rt_error == 0)
        group->rt_error = error;
    rt_unlock(&group->rt_lock);
    tell(group, RT_SCOPE_CANCELED);
}

void rt_group_child(struct rt_g *g) {
    go_group *group = g->group;
    int error = ((int (*)(void *))g->fn)(g->arg);
    if (rt_unlikely(g->touched & RT_TOUCHED_LOCALS))
        rt_local_end(g);
    if (g->scope != &group->rt_scope)
        rt_fatal("a child (id %llu) of a group ended inside a scope", (unsigned long long)g->id);
    g->scope = NULL;
    g->limit = INT64_MAX;
    rt_store_relaxed(&g->shields, 0);
    if (rt_unlikely(error != 0))
        failed(group, error);
}

/* ---- the wait -------------------------------------------------------------------------------- */

/* Lock held, and again after it. False: the owner was cancelled. */
static bool wait_for_members(go_group *group, struct rt_g *g, enum rt_g_state state) {
    while (group->rt_members != 0) {
        group->rt_owner_seq = rt_park_seq(g);
        group->rt_flags |= OWNER_WAITS;
        int r = rt_park(g, &group->rt_lock, state, GO_FOREVER, RT_WHY_GROUP);
        rt_lock(&group->rt_lock);
        group->rt_flags &= ~(uint32_t)OWNER_WAITS;
        if (r < 0)
            return false;
    }
    return true;
}

int go_group_wait(go_group *group) {
    struct rt_g *g = rt_self();
    must_be_entered(group, "go_group_wait");
    if (g->scope != &group->rt_scope || group->rt_scope.rt_owner != g)
        rt_fatal("go_group_wait: not the innermost scope of the one who has entered it");
    rt_lock(&group->rt_lock);
    bool refused = rt_cancel_reaches(rt_load_relaxed(&g->attention), g->shields);
    if (refused || !wait_for_members(group, g, RT_WAITING)) {
        rt_unlock(&group->rt_lock);
        /* Acquire, as in rt_cancel_slow: what came before the cancel the children see, too. */
        (void)rt_load_acquire(&g->attention);
        tell(group, RT_SCOPE_PASSED);
        rt_lock(&group->rt_lock);
        wait_for_members(group, g, RT_HARD);
    }
    int error = group->rt_error;
    rt_unlock(&group->rt_lock);
    uint32_t state = rt_scope_pop(g, &group->rt_scope);
    return error ? error : rt_scope_result(state);
}
