/* spawn.c - making green threads.
 *
 * A spawn takes a struct rt_g off its P's free list, fills in what to run, and puts it into
 * runnext: no stack, no locked instruction, nothing cold. See stack.h for why it cannot fail
 * later.
 *
 * One for later is put into no queue but made WAITING before it ever ran, as if it had parked: for
 * a time (rt_spawn_at), or under the lock of an object that has it in a list (rt_park_unstarted).
 * So fires, claims and the stop find nothing new. Its timer is armed first, while it does not wait
 * yet; the fire and the wait meet as they do in a park (timer.c). A foreign thread has no heap to
 * put the timer into; it takes that of some P, behind its gate, as thieves do. For that it must
 * hold no lock that the P's owner may want inside. */
#include "sched/spawn.h"

#include "base/chaos.h"
#include "base/check.h"
#include "base/lock.h"
#include "base/sys.h"
#include "sched/g.h"
#include "sched/gate.h"
#include "sched/globq.h"
#include "sched/idle.h"
#include "sched/park.h"
#include "sched/proc.h"
#include "sched/runq.h"
#include "sched/stack.h"
#include "sched/start.h"
#include "sched/timer.h"

#include <gort/time.h>

#include <errno.h>

static int options_check(const struct go_spawn_options *o, uint8_t *size_class) {
    *size_class = rt.stack_class;
    if (!o)
        return 0;
    if (o->size < sizeof *o)
        return -EINVAL;
    if (o->stack_size) {
        int c = rt_stack_class(o->stack_size);
        if (c < 0)
            return c;
        *size_class = (uint8_t)c;
    }
    return 0;
}

static inline __attribute__((always_inline)) void fill(struct rt_g *g, void *fn, void *arg,
                                                       uint64_t id, uint32_t flags,
                                                       uint8_t size_class) {
    g->fn = fn;
    g->arg = arg;
    rt_store_relaxed(&g->id, id);
    g->flags = flags;
    g->stack = NULL;
    g->stack_class = size_class;
    g->nopreempt = 0;
    rt_store_relaxed(&g->attention, 0);
    rt_store_relaxed(&g->wait, RT_WAIT_WORD(rt_park_seq(g), RT_LIVE));
}

static inline void set_name(struct rt_g *g, const char *name) {
    if (name) {
        rt_store_relaxed(&g->name, name);
        g->touched |= RT_TOUCHED_NAME;
    }
}

static inline uint64_t new_id_owner(struct rt_p *p) {
    if (rt_unlikely(p->id_next == p->id_end))
        rt_g_ids(&p->id_next, &p->id_end);
    return p->id_next++;
}

static __attribute__((noinline)) int spawn_foreign(void *fn, void *arg, uint32_t flags,
                                                   uint8_t size_class, struct rt_stack *stack,
                                                   const char *name, go_group *group,
                                                   struct rt_g **out) {
    int err;
    struct rt_g *g = rt_g_get(&err);
    if (!g)
        return err;
    fill(g, fn, arg, rt_g_one_id(), flags, size_class);
    g->stack = stack;
    set_name(g, name);
    if (group)
        rt_group_adopt(group, g);
    *out = g;
    rt_fetch_add_relaxed(&rt.foreign_spawned, 1);
    struct rt_glist one = {0};
    rt_glist_push(&one, g);
    rt_globq_push(&one);
    rt_idle_wake_foreign();
    return 0;
}

static inline __attribute__((always_inline)) int spawn_owner(struct rt_m *m, void *fn, void *arg,
                                                             uint32_t flags, uint8_t size_class,
                                                             struct rt_stack *stack,
                                                             const char *name, go_group *group,
                                                             struct rt_g **out) {
    struct rt_p *p = m->p;
    struct rt_g *g = p->gfree;
    if (rt_unlikely(!g)) {
        int err = rt_g_refill_owner(p);
        if (err)
            return err;
        g = p->gfree;
    }
    p->gfree = g->next;
    p->ngfree--;
    fill(g, fn, arg, new_id_owner(p), flags, size_class);
    g->stack = stack;
    set_name(g, name);
    if (group)
        rt_group_adopt(group, g);
    *out = g;
    rt_bump(&p->spawned);
    if (rt_runq_put_next_owner(p, g))
        rt_idle_wake_for(p);
    return 0;
}

static inline __attribute__((always_inline)) int spawn(const struct go_spawn_options *o, void *fn,
                                                       void *arg, uint32_t flags, go_group *group,
                                                       struct rt_g **out) {
    if (!fn)
        return -EINVAL;
    struct rt_m *m = rt_enter();
    int err = m ? rt_running() : rt_foreign_enter();
    if (err) {
        if (m)
            rt_gate_leave(m);
        return err;
    }
    uint8_t size_class;
    struct rt_stack *stack = NULL;
    err = options_check(o, &size_class);
    if (err == 0 && size_class != rt.stack_class && !(stack = rt_stack_get(size_class)))
        err = -EAGAIN;
    const char *name = o ? o->name : NULL;
    if (err == 0)
        err = m ? spawn_owner(m, fn, arg, flags, size_class, stack, name, group, out)
                : spawn_foreign(fn, arg, flags, size_class, stack, name, group, out);
    if (err && stack)
        rt_stack_put(stack);
    if (m)
        rt_gate_leave(m);
    else
        rt_foreign_leave();
    return err;
}

int rt_spawn(const struct go_spawn_options *o, void *fn, void *arg, uint32_t flags,
             struct rt_g **out) {
    return spawn(o, fn, arg, flags, NULL, out);
}

int rt_spawn_child(go_group *group, const struct go_spawn_options *o, int (*fn)(void *),
                   void *arg) {
    struct rt_g *g;
    return spawn(o, (void *)fn, arg, RT_G_CHILD, group, &g);
}

/* The hot one, apart: no options to look at. */
int go_spawn(void (*fn)(void *), void *arg) {
    struct rt_g *g;
    struct rt_m *m = rt_m();
    if (rt_unlikely(!m || !fn || rt_running() != 0 || !rt_gate_enter(m)))
        return rt_spawn(NULL, (void *)fn, arg, 0, &g);
    int err = spawn_owner(m, (void *)fn, arg, 0, rt.stack_class, NULL, NULL, NULL, &g);
    rt_gate_leave(m);
    return err;
}

int go_spawn_with(const struct go_spawn_options *o, void (*fn)(void *), void *arg) {
    struct rt_g *g;
    return rt_spawn(o, (void *)fn, arg, 0, &g);
}

/* ---- before the first run --------------------------------------------------------------------
 *
 * m: ours, inside; NULL: a foreign thread, which has entered. */

static struct rt_g *take(struct rt_m *m, void (*fn)(void *), void *arg, int64_t deadline,
                         int *err) {
    struct rt_g *g;
    uint64_t id;
    if (m) {
        struct rt_p *p = m->p;
        *err = p->gfree ? 0 : rt_g_refill_owner(p);
        if (*err)
            return NULL;
        g = p->gfree;
        p->gfree = g->next;
        p->ngfree--;
        id = new_id_owner(p);
    } else {
        g = rt_g_get(err);
        if (!g)
            return NULL;
        id = rt_g_one_id();
    }
    fill(g, (void *)fn, arg, id, RT_G_WAITED, rt.stack_class);
    rt_store_relaxed(&g->wait_deadline, deadline);
    return g;
}

static void give_back(struct rt_m *m, struct rt_g *g) {
    rt_timer_forget(g);
    rt_store_relaxed(&g->name, NULL);
    g->touched = 0;
    rt_store_relaxed(&g->wait, RT_WAIT_WORD(rt_park_seq(g) + 1, RT_DEAD)); /* as rt_g_end */
    if (m)
        rt_g_free_owner(m->p, g);
    else
        rt_g_put(g);
}

static int arm(struct rt_m *m, struct rt_g *g) {
    int64_t deadline = rt_load_relaxed(&g->wait_deadline);
    if (deadline == INT64_MAX)
        return 0;
    return m ? rt_timer_start_owner(m->p, g, deadline) : rt_timer_start_any(g, deadline);
}

static void count_spawned(struct rt_m *m) {
    if (m)
        rt_bump(&m->p->spawned);
    else
        rt_fetch_add_relaxed(&rt.foreign_spawned, 1);
}

static void ready(struct rt_m *m, struct rt_g *g) {
    if (m)
        rt_ready_in(m, g);
    else
        rt_ready(g);
}

/* The commit of a park (rt_commit) without a switch before it. Its own timer entry comes when the
 * deadline is over: if it came up before g waited, and left the bit, g is late. A bit without that
 * is of an entry from an earlier life of the record. */
static void park_unstarted(struct rt_m *m, struct rt_g *g, uint32_t *lock, enum rt_why why) {
    uint64_t seq = rt_park_seq(g);
    int64_t deadline = rt_load_relaxed(&g->wait_deadline);
    rt_store_relaxed(&g->waiting_for, why);
    count_spawned(m); /* before anybody can end it */
    rt_chaos_delay("spawn: armed, does not wait yet");
    rt_store_release(&g->wait, RT_WAIT_WORD(seq, RT_WAITING)); /* pairs with the CAS in rt_claim */
    if (lock)
        rt_unlock(lock);
    rt_fence_full(); /* word, then attention: pairs with the stop's heavy fence, and with fires */
    uint32_t attention = rt_load_relaxed(&g->attention);
    if (rt_likely(attention == 0))
        return;
    bool mine = (attention & RT_ATT_CANCEL) && rt_claim_soft(g, seq, -ECANCELED);
    if (!mine && (attention & RT_ATT_TIMER) && deadline <= rt_sys_now())
        mine = rt_claim(g, seq, -ETIMEDOUT);
    if (mine)
        ready(m, g);
}

struct rt_g *rt_spawn_take(void (*fn)(void *), void *arg, int64_t deadline, int *err) {
    struct rt_m *m = rt_enter();
    struct rt_g *g = take(m, fn, arg, deadline, err);
    if (m)
        rt_gate_leave(m);
    return g;
}

void rt_spawn_give_back(struct rt_g *g) {
    struct rt_m *m = rt_enter();
    give_back(m, g);
    if (m)
        rt_gate_leave(m);
}

int rt_spawn_arm(struct rt_g *g) {
    struct rt_m *m = rt_enter();
    int err = arm(m, g);
    if (m)
        rt_gate_leave(m);
    return err;
}

void rt_park_unstarted(struct rt_g *g, uint32_t *lock, enum rt_why why) {
    struct rt_m *m = rt_enter();
    park_unstarted(m, g, lock, why);
    if (m)
        rt_gate_leave(m);
}

void rt_spawn_ready(struct rt_g *g) {
    struct rt_m *m = rt_enter();
    count_spawned(m);
    ready(m, g);
    if (m)
        rt_gate_leave(m);
}

static int spawn_at(struct rt_m *m, struct rt_g *g, const char *name, struct rt_g **out,
                    uint64_t *seq) {
    int err = arm(m, g);
    if (err) {
        give_back(m, g);
        return err;
    }
    set_name(g, name);
    *out = g;
    *seq = rt_park_seq(g);
    park_unstarted(m, g, NULL, RT_WHY_SLEEP);
    return 0;
}

int rt_spawn_at(void (*fn)(void *), void *arg, int64_t when, const char *name, struct rt_g **out,
                uint64_t *seq) {
    struct rt_m *m = rt_enter();
    int err = m ? rt_running() : rt_foreign_enter();
    bool entered = err == 0;
    struct rt_g *g = entered ? take(m, fn, arg, when, &err) : NULL;
    if (g)
        err = spawn_at(m, g, name, out, seq);
    if (m)
        rt_gate_leave(m);
    else if (entered)
        rt_foreign_leave();
    return err;
}

/* g was claimed: it has not started, and nobody else knows it. */
static void undo_foreign(struct rt_g *g) {
    give_back(NULL, g);
    rt_fetch_add_release(&rt.foreign_ended, 1); /* pairs with the acquire in rt_live */
}

bool rt_spawn_undo(struct rt_g *g, uint64_t seq) {
    struct rt_m *m = rt_enter();
    bool mine = rt_claim_soft(g, seq, -ECANCELED);
    if (mine && m)
        rt_g_end(m, g);
    else if (mine)
        undo_foreign(g);
    if (m)
        rt_gate_leave(m);
    return mine;
}

/* ---- itself ---------------------------------------------------------------------------------- */

uint64_t go_id(void) {
    struct rt_m *m = rt_m();
    return m ? m->g->id : 0;
}

unsigned go_procs(void) {
    uint32_t state = rt_load_acquire(&rt.state); /* pairs with the release in go_start */
    return state == RT_RUNNING || state == RT_STOPPING ? rt_procs() : 0;
}

int64_t go_now(void) {
    return rt_sys_now();
}

int go_sleep(int64_t ns) {
    struct rt_g *g = rt_self();
    int err = rt_cancel_check(g);
    if (err)
        return err;
    if (ns <= 0) {
        go_yield();
        return 0;
    }
    int64_t until = rt_time_add(rt_sys_now(), ns);
    int64_t deadline = until < g->limit ? until : g->limit;
    int r = rt_park(g, NULL, RT_WAITING, deadline, RT_WHY_SLEEP);
    if (r == -ETIMEDOUT && deadline == until)
        return 0;
    return rt_cancel_result(g, r, INT64_MAX);
}
