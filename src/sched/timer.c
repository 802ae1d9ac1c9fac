/* timer.c - a 4-ary heap of deadlines for each P, and one live entry for each G.
 *
 * Promise: a G that parks with a deadline is claimed with -ETIMEDOUT no earlier than it, and soon
 * after it unless somebody else claims the G first. A deadline that is only ever pushed into the
 * future (time-outs of I/O that do not fire) costs no heap operation.
 *
 * g->timer_when says when the live entry fires. A park with a later deadline relies on it: when it
 * fires too early, it is set again for the deadline of that moment. A park with an earlier one
 * makes a new entry and bumps g->timer_gen, which kills the old. Dead entries are dropped when they
 * come up, and swept when they may be more than a quarter of the heap.
 *
 * An entry may fire in any P, on another core than the one where its G is just about to park:
 *   fire: timer_when = none (exchange);      park: ATT_TIMER: clear it and arm, else
 *                                                  read timer_when: enough, or arm
 *         word WAITING? claim, or set again        ... word = WAITING; full fence; read attention:
 *         else set ATT_TIMER, look once more           ATT_TIMER -> rt_timer_missed
 * Either the park sees that the entry is gone and arms a new one, or the fire sees it parked, or
 * the commit sees the bit. A fire that sets its own entry again moves timer_when by CAS, from none
 * or from a later time, so it cannot overwrite an earlier one that the G armed meanwhile; then two
 * entries may be live, and the later one does nothing. */
#include "sched/timer.h"

#include "base/chaos.h"
#include "base/sys.h"
#include "sched/gate.h"
#include "sched/idle.h"
#include "sched/park.h"

#include <stdlib.h>
#include <string.h>

enum { MIN_CAP = 64, SWEEP_MIN = 256, DUE_BATCH = 32, VISIT_TRIES = 10 };
static const int64_t VISIT_NAP_NS = 20 * 1000;

/* ---- the heap; owner or behind the gate ------------------------------------------------------ */

static void publish(struct rt_p *p) {
    rt_store_relaxed(&p->timer_when, p->ntimers ? p->timers[0].when : INT64_MAX);
}

static void sift_up(struct rt_timer *h, uint32_t i, struct rt_timer t) {
    for (; i > 0 && h[(i - 1) / 4].when > t.when; i = (i - 1) / 4)
        h[i] = h[(i - 1) / 4];
    h[i] = t;
}

static void sift_down(struct rt_timer *h, uint32_t n, uint32_t i, struct rt_timer t) {
    for (;;) {
        uint32_t child = 4 * i + 1, best = child;
        if (child >= n)
            break;
        for (uint32_t c = child + 1; c < child + 4 && c < n; c++)
            if (h[c].when < h[best].when)
                best = c;
        if (h[best].when >= t.when)
            break;
        h[i] = h[best];
        i = best;
    }
    h[i] = t;
}

static bool dead(const struct rt_timer *t) {
    return rt_load_relaxed(&t->g->timer_gen) != t->gen;
}

static void sweep(struct rt_p *p) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->ntimers; i++)
        if (!dead(&p->timers[i]))
            p->timers[n++] = p->timers[i];
    p->ntimers = n;
    for (uint32_t i = n / 4 + 1; i-- > 0;)
        if (i < n)
            sift_down(p->timers, n, i, p->timers[i]);
    rt_store_relaxed(&p->timers_dead, 0);
}

/* Room for one more entry. */
static int reserve(struct rt_p *p) {
    if (p->ntimers == p->cap_timers) {
        if (rt_load_relaxed(&p->timers_dead) > p->ntimers / 4 && p->ntimers >= SWEEP_MIN)
            sweep(p);
    }
    if (p->ntimers == p->cap_timers) {
        uint32_t cap = p->cap_timers ? p->cap_timers * 2 : MIN_CAP;
        struct rt_timer *h = cap > p->cap_timers ? rt_sys_alloc(cap * sizeof *h) : NULL;
        if (!h)
            return -ENOMEM;
        if (p->ntimers)
            memcpy(h, p->timers, p->ntimers * sizeof *h);
        rt_sys_free(p->timers);
        p->timers = h;
        p->cap_timers = cap;
    }
    return 0;
}

static void insert(struct rt_p *p, struct rt_g *g, int64_t when) {
    struct rt_timer t = {when, g, rt_load_relaxed(&g->timer_gen)};
    rt_store_relaxed(&g->timer_p, p->index);
    sift_up(p->timers, p->ntimers++, t);
    publish(p);
}

static uint32_t take_due(struct rt_p *p, int64_t now, struct rt_timer *out, uint32_t max) {
    uint32_t n = 0;
    while (n < max && p->ntimers && p->timers[0].when <= now) {
        out[n++] = p->timers[0];
        struct rt_timer last = p->timers[--p->ntimers];
        if (p->ntimers)
            sift_down(p->timers, p->ntimers, 0, last);
    }
    publish(p);
    return n;
}

/* The live entry of g dies. It may have been another one that was set last: this is a hint. */
static void count_dead(struct rt_g *g) {
    rt_fetch_add_relaxed(&rt.ps[rt_load_relaxed(&g->timer_p)].timers_dead, 1);
}

/* ---- arming and firing ----------------------------------------------------------------------- */

/* First the generation, then timer_when, which hands it on: whoever sets an entry again that comes
 * after this one makes a live one. */
static void start(struct rt_p *p, struct rt_g *g, int64_t when) {
    rt_store_relaxed(&g->timer_gen, g->timer_gen + 1);
    if (rt_exchange_release(&g->timer_when, when) != INT64_MAX) /* pairs with the CAS in expire */
        count_dead(g);
    g->touched |= RT_TOUCHED_TIMER;
    insert(p, g, when);
}

/* With the bit it relies on no entry that is there: one is gone. The exchange behind the clearing
 * comes after that fire's. Nor does a first park: what there is belongs to the G before, and its
 * fire may have set the bit just before the spawn's store to the attention word came. */
int rt_timer_arm_owner(struct rt_p *p, struct rt_g *g, int64_t when) {
    bool missed = rt_load_relaxed(&g->attention) & RT_ATT_TIMER;
    bool own = (g->touched & RT_TOUCHED_TIMER) && !missed;
    if (own && rt_load_seq_cst(&g->timer_when) <= when)
        return 0;
    int err = reserve(p);
    if (err)
        return err;
    if (missed)
        rt_fetch_and_relaxed(&g->attention, ~(uint32_t)RT_ATT_TIMER);
    start(p, g, when);
    return 0;
}

/* It does not rely on an entry that is there: a record off the free list may have one, in any heap,
 * when a thief has set it again while the G before was ending. It dies. A thief that is still at it
 * may set timer_when once more, and insert a second live one; the first is here all the same. */
int rt_timer_start_owner(struct rt_p *p, struct rt_g *g, int64_t when) {
    int err = reserve(p);
    if (err == 0)
        start(p, g, when);
    return err;
}

/* The gate of nobody's P is a plain lock: its M is always outside. Those who hold it wait for
 * nothing. */
static struct rt_p *visit_nobody(void) {
    for (int i = 0; !rt_gate_try_p(rt.nobody); i++)
        if (i < VISIT_TRIES)
            rt_sys_yield();
        else
            rt_sys_nap(VISIT_NAP_NS); /* its holder has lost its CPU */
    return rt.nobody;
}

static void leave_nobody(void) {
    rt_gate_open(rt.nobody->m);
}

static int started_any(int err, int64_t when) {
    leave_nobody();
    if (err == 0)
        rt_idle_wake_for_timer(when);
    return err;
}

int rt_timer_arm_any(struct rt_g *g, int64_t when) {
    return started_any(rt_timer_arm_owner(visit_nobody(), g, when), when);
}

int rt_timer_start_any(struct rt_g *g, int64_t when) {
    return started_any(rt_timer_start_owner(visit_nobody(), g, when), when);
}

/* g waits with seq; is it late? Claim it, or set the entry again. Another fire may have done so for
 * a wait of before, whose deadline was a later one: then an earlier entry comes beside it. */
static bool expire(struct rt_p *p, struct rt_g *g, uint64_t seq, int64_t now) {
    int64_t deadline = rt_load_relaxed(&g->wait_deadline);
    if (deadline <= now)
        return rt_claim(g, seq, -ETIMEDOUT);
    if (deadline == INT64_MAX)
        return false;
    if (reserve(p) != 0)
        return rt_claim(g, seq, -ENOMEM); /* better an error than a wait for ever */
    int64_t seen = INT64_MAX;
    while (!rt_cas_acquire(&g->timer_when, &seen, deadline)) /* pairs with who made a generation */
        if (seen <= deadline)
            return false;
    insert(p, g, deadline);
    return false;
}

static void fire(struct rt_p *p, const struct rt_timer *t, int64_t now, struct rt_glist *ready) {
    struct rt_g *g = t->g;
    if (dead(t))
        return;
    rt_exchange(&g->timer_when, INT64_MAX);
    rt_chaos_delay("timer: the entry is gone, its G not looked at");
    uint64_t word = rt_load_seq_cst(&g->wait);
    if (RT_WAIT_STATE(word) < RT_WAITING) {
        rt_fetch_or(&g->attention, RT_ATT_TIMER);
        word = rt_load_seq_cst(&g->wait);
        if (RT_WAIT_STATE(word) < RT_WAITING)
            return;
    }
    if (expire(p, g, RT_WAIT_SEQ(word), now)) {
        __builtin_prefetch(g->ctx.sp, 1); /* and so is the end of its stack */
        rt_glist_push(ready, g);
    }
}

bool rt_timer_missed(struct rt_p *p, struct rt_g *g, uint64_t seq) {
    /* The bit stays: g may have been claimed and be on its way into its next park, whose bit it is
     * then. It clears it itself. */
    int64_t now = rt_sys_now();
    if (p)
        return expire(p, g, seq, now);
    bool mine = expire(visit_nobody(), g, seq, now);
    leave_nobody();
    if (!mine) /* set again, and perhaps claimed by now: too early a look does no harm */
        rt_idle_wake_for_timer(rt_load_relaxed(&rt.nobody->timer_when));
    return mine;
}

void rt_timer_forget(struct rt_g *g) {
    if (rt_load_relaxed(&g->timer_when) == INT64_MAX)
        return;
    rt_store_relaxed(&g->timer_gen, g->timer_gen + 1);
    rt_store_release(&g->timer_when, INT64_MAX); /* pairs with the CAS in expire: then the insert
                                                    sees the new generation */
    count_dead(g);
}

void rt_timer_run(struct rt_p *p, struct rt_p *victim, int64_t now, struct rt_glist *ready,
                  size_t most) {
    struct rt_timer due[DUE_BATCH];
    uint32_t n;
    do {
        struct rt_m *m = p != victim ? rt_gate_try_p(victim) : NULL;
        if (p != victim && !m)
            return;
        n = take_due(victim, now, due, DUE_BATCH);
        if (m)
            rt_gate_open(m);
        for (uint32_t i = 0; i < n; i++) /* they have slept, and their records are cold */
            for (size_t line = 0; line < 3 * RT_CACHE_LINE; line += RT_CACHE_LINE)
                __builtin_prefetch((char *)due[i].g + line, 1);
        for (uint32_t i = 0; i < n; i++)
            fire(p, &due[i], now, ready);
    } while (n == DUE_BATCH && ready->n < most);
}

void rt_timer_hand_on(struct rt_p *p) {
    struct rt_glist ready = {0};
    if (p->ntimers) {
        struct rt_p *to = visit_nobody();
        for (uint32_t i = 0; i < p->ntimers; i++) {
            struct rt_timer t = p->timers[i];
            if (dead(&t))
                continue;
            if (reserve(to) != 0) {
                fire(to, &t, INT64_MIN, &ready); /* early, and it cannot be set again */
                continue;
            }
            rt_store_relaxed(&t.g->timer_p, to->index); /* a hint, see count_dead */
            sift_up(to->timers, to->ntimers++, t);
        }
        publish(to);
        leave_nobody();
    }
    p->ntimers = p->cap_timers = 0;
    rt_sys_free(p->timers);
    p->timers = NULL;
    publish(p);
    rt_store_relaxed(&p->timers_dead, 0);
    rt_ready_all(&ready);
    rt_idle_wake_for_timer(rt_timer_earliest_any());
}

int64_t rt_timer_earliest_any(void) {
    int64_t best = INT64_MAX;
    for (uint32_t i = 0, procs = rt_procs(); i <= procs; i++) {
        const struct rt_p *p = i < procs ? &rt.ps[i] : rt.nobody;
        int64_t when = rt_load_relaxed(&p->timer_when);
        if (when < best)
            best = when;
    }
    return best;
}

static bool awaited(struct rt_p *p) {
    if (rt_load_relaxed(&p->timer_when) == INT64_MAX)
        return false;
    struct rt_m *m = rt_gate_try_p(p);
    bool found = m == NULL;
    for (uint32_t i = 0; !found && i < p->ntimers; i++) {
        const struct rt_g *g = p->timers[i].g;
        found = !dead(&p->timers[i]) && RT_WAIT_STATE(rt_load_relaxed(&g->wait)) >= RT_WAITING &&
                rt_load_relaxed(&g->wait_deadline) != INT64_MAX;
    }
    if (m)
        rt_gate_open(m);
    return found;
}

bool rt_timer_awaited_any(void) {
    bool found = awaited(rt.nobody);
    for (uint32_t i = 0, procs = rt_procs(); !found && i < procs; i++)
        found = awaited(&rt.ps[i]);
    return found;
}
