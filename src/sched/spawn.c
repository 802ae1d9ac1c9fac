/* spawn.c - making green threads.
 *
 * A spawn takes a struct rt_g off its P's free list, fills in what to run, and puts it into
 * runnext: no stack, no locked instruction, nothing cold. See stack.h for why it cannot fail
 * later.
 *
 * One for a later time (rt_spawn_at) is put into no queue but made WAITING with a timer, as if it
 * had parked: so fires, claims and the stop find nothing new. A foreign thread has no heap to put
 * the timer into; it takes that of some P, behind its gate, as thieves do. */
#include "sched/spawn.h"

#include "base/check.h"
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
    if (rt_unlikely(!m || !fn || rt_running() != 0))
        return rt_spawn(NULL, (void *)fn, arg, 0, &g);
    rt_gate_enter(m);
    int err = spawn_owner(m, (void *)fn, arg, 0, rt.stack_class, NULL, NULL, NULL, &g);
    rt_gate_leave(m);
    return err;
}

int go_spawn_with(const struct go_spawn_options *o, void (*fn)(void *), void *arg) {
    struct rt_g *g;
    return rt_spawn(o, (void *)fn, arg, 0, &g);
}

/* ---- later ----------------------------------------------------------------------------------- */

struct later {
    void *fn, *arg;
    int64_t when;
    const char *name;
    struct rt_g **out;
    uint64_t *seq;
};

/* g is off its free list, with a timer in a heap that nobody else can look into now. */
static void wait_for_start(struct rt_g *g, const struct later *l, uint64_t id) {
    fill(g, l->fn, l->arg, id, RT_G_TIMED, rt.stack_class);
    set_name(g, l->name);
    rt_store_relaxed(&g->waiting_for, RT_WHY_SLEEP);
    rt_store_relaxed(&g->wait_deadline, l->when);
    uint64_t seq = rt_park_seq(g);
    *l->out = g;
    *l->seq = seq;
    rt_store_release(&g->wait, RT_WAIT_WORD(seq, RT_WAITING)); /* pairs with the CAS in rt_claim */
}

static int spawn_at_owner(struct rt_p *p, const struct later *l) {
    int err = p->gfree ? 0 : rt_g_refill_owner(p);
    struct rt_g *g = p->gfree;
    if (err == 0)
        err = rt_timer_arm_owner(p, g, l->when);
    if (err)
        return err;
    p->gfree = g->next;
    p->ngfree--;
    rt_bump(&p->spawned); /* before anybody can end it */
    wait_for_start(g, l, new_id_owner(p));
    return 0;
}

/* A foreign thread is nobody's victim, so unlike a thief it may insist. */
static struct rt_p *visit_some_p(uint64_t first) {
    for (uint64_t i = first;; i++) {
        struct rt_m *m = &rt.ms[i % rt.procs];
        if (rt_gate_try(m))
            return m->p;
        if ((i - first) % rt.procs == rt.procs - 1)
            rt_sys_yield();
    }
}

static int spawn_at_foreign(const struct later *l) {
    int err;
    struct rt_g *g = rt_g_get(&err);
    if (!g)
        return err;
    uint64_t id = rt_g_one_id();
    struct rt_p *p = visit_some_p(id); /* each in turn */
    err = rt_timer_arm_owner(p, g, l->when);
    if (err == 0) {
        rt_fetch_add_relaxed(&rt.foreign_spawned, 1);
        wait_for_start(g, l, id);
    }
    rt_gate_open(p->m);
    if (err)
        rt_g_put(g);
    else
        rt_idle_wake_for_timer(l->when);
    return err;
}

int rt_spawn_at(void (*fn)(void *), void *arg, int64_t when, const char *name, struct rt_g **out,
                uint64_t *seq) {
    struct later l = {(void *)fn, arg, when, name, out, seq};
    struct rt_m *m = rt_enter();
    int err = m ? rt_running() : rt_foreign_enter();
    if (m) {
        if (err == 0)
            err = spawn_at_owner(m->p, &l);
        rt_gate_leave(m);
    } else if (err == 0) {
        err = spawn_at_foreign(&l);
        rt_foreign_leave();
    }
    return err;
}

/* g was claimed: it has not started, and nobody else knows it. */
static void undo_foreign(struct rt_g *g) {
    rt_timer_forget(g);
    rt_store_relaxed(&g->name, NULL);
    g->touched = 0;
    rt_store_relaxed(&g->wait, RT_WAIT_WORD(rt_park_seq(g) + 1, RT_DEAD)); /* as rt_g_end */
    rt_g_put(g);
    rt_fetch_add(&rt.foreign_ended, 1);
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
    return state == RT_RUNNING || state == RT_STOPPING ? rt.procs : 0;
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
