/* runq.h - the run queue of a P: a slot for the G that runs next, and a ring.
 *
 * Promise: first in, first out, but for runnext: the newest G that was made ready goes there, kicks
 * the one before it to the end of the ring, and runs next within the slice of its maker (Go does
 * the same: a pair that talks stays on one core, hot). No G is lost or doubled, whatever thieves
 * do.
 *
 * Everything here is done by the owner of the P inside the runtime, or by a thief that passed the
 * gate (gate.h): plain code, no locked instruction. head and tail are stored as relaxed atomics
 * just because searchers peek at them to see whether a visit may pay. */
#ifndef RT_RUNQ_H
#define RT_RUNQ_H

#include "sched/sched.h"

static const uint64_t RT_STEAL_MIN_NS = 15 * 1000;

void rt_runq_spill_owner(struct rt_p *p);

static inline uint32_t rt_runq_len_any(const struct rt_p *p) {
    uint32_t head = rt_load_relaxed(&p->head);
    return rt_load_relaxed(&p->tail) - head;
}

static inline uint32_t rt_runq_room_owner(const struct rt_p *p) {
    return RT_RING - (p->tail - p->head);
}

/* To the end of the ring. When it is full its newest half goes to the global queue first, never g
 * itself, which may be the G that is running (yield) and must not be seen elsewhere yet. */
static inline void rt_runq_push_owner(struct rt_p *p, struct rt_g *g) {
    if (rt_unlikely(p->tail - p->head == RT_RING))
        rt_runq_spill_owner(p);
    p->ring[p->tail % RT_RING] = g;
    rt_store_relaxed(&p->tail, p->tail + 1);
}

/* To runnext. True when there was one before: a second G waits now, so a wake may be due. */
static inline bool rt_runq_put_next_owner(struct rt_p *p, struct rt_g *g) {
    struct rt_g *before = p->runnext;
    rt_store_relaxed(&p->runnext, g);
    if (!before)
        return p->tail != p->head;
    rt_runq_push_owner(p, before);
    return true;
}

static inline struct rt_g *rt_runq_pop_owner(struct rt_p *p) {
    struct rt_g *g = p->runnext;
    if (g) {
        rt_store_relaxed(&p->runnext, NULL);
        return g;
    }
    uint32_t head = p->head;
    if (head == p->tail)
        return NULL;
    rt_store_relaxed(&p->head, head + 1);
    rt_bump(&p->ticks); /* a slice begins; runnext goes on in its maker's */
    return p->ring[head % RT_RING];
}

/* The next G, unless somebody wants this P to look around first: then, or when there is none,
 * NULL. */
static inline struct rt_g *rt_runq_pick_owner(struct rt_p *p) {
    if (rt_unlikely(rt_load_relaxed(&p->attention) != 0 || --p->budget == 0))
        return NULL;
    return rt_runq_pop_owner(p);
}

/* Is g at one of the two ends where its maker finds it again? Then take it. */
static inline bool rt_runq_take_back_owner(struct rt_p *p, const struct rt_g *g) {
    if (p->runnext == g) {
        rt_store_relaxed(&p->runnext, NULL);
        return true;
    }
    if (p->tail != p->head && p->ring[(p->tail - 1) % RT_RING] == g) {
        rt_store_relaxed(&p->tail, p->tail - 1);
        return true;
    }
    return false;
}

/* Thief with its own P, inside the runtime: steal half of the victim's ring, rounded up, or its
 * runnext when that was seen to be left lying. One G is returned, the others are in the own
 * ring. */
struct rt_g *rt_runq_steal(struct rt_p *thief, struct rt_p *victim);

/* Worth a visit? Not when the owner will have run it all by the time. It is awake if it has any; a
 * ring whose owner goes to sleep is empty, so to pass by loses nothing. */
static inline bool rt_runq_worth_stealing_any(struct rt_p *p) {
    uint32_t n = rt_runq_len_any(p);
    bool stale = rt_load_relaxed(&p->stale) == rt_load_relaxed(&p->ticks) + 1;
    if (stale)
        return n != 0 || rt_load_relaxed(&p->runnext) != NULL;
    return (uint64_t)n * rt_load_relaxed(&p->slice_ns) >= RT_STEAL_MIN_NS;
}

#endif
