/* runq.h - the run queues of a P: a slot for the G that runs next, a ring of Gs that have started,
 * and a deque of fresh ones that have not.
 *
 * Promise: no G is lost or doubled, whatever thieves do, and none waits for ever:
 *   - runnext: the newest G that was made ready goes there, kicks the one before it to its queue,
 *     and runs next within the slice of its maker (Go does the same: a pair that talks stays on one
 *     core, hot).
 *   - ring: first in, first out.
 *   - fresh: the owner takes the newest, thieves the oldest (the order of Cilk, R. Blumofe and C.
 *     Leiserson 1999). A tree of spawns is then walked depth first: it needs as many stacks as it
 *     is deep, not as it is wide, each G runs on the hot stack of the one before it, and thieves
 *     get those with the most work below them. Every AGE_NS the oldest sixteenth moves to the
 *     ring.
 *   - While both have some they take turns by rounds: as many picks as there are Gs of that kind
 *     when the round begins. So a G that yields or is made ready waits no longer than it would in
 *     one queue, and whoever spawns and yields does not outrun his children.
 * A full ring sends its newest half to the global queue, a full deque its oldest.
 *
 * Everything here is done by the owner of the P inside the runtime, or by a thief that passed the
 * gate (gate.h): plain code, no locked instruction. The indices are stored as relaxed atomics just
 * because searchers peek at them to see whether a visit may pay. */
#ifndef RT_RUNQ_H
#define RT_RUNQ_H

#include "base/touch.h"
#include "sched/sched.h"

/* A steal pays when there is so much work in the victim's queue, doubled by each doubt. */
static const uint64_t RT_STEAL_MIN_NS = 15 * 1000;

void rt_runq_spill_owner(struct rt_p *p);
void rt_runq_spill_fresh_owner(struct rt_p *p);

static inline uint32_t rt_runq_fresh_any(const struct rt_p *p) {
    uint32_t head = rt_load_relaxed(&p->fresh_head);
    return rt_load_relaxed(&p->fresh_tail) - head;
}

/* How many wait, apart from runnext. */
static inline uint32_t rt_runq_len_any(const struct rt_p *p) {
    uint32_t head = rt_load_relaxed(&p->head);
    return rt_load_relaxed(&p->tail) - head + rt_runq_fresh_any(p);
}

/* Of whatever kind they are, so many more fit. */
static inline uint32_t rt_runq_room_owner(const struct rt_p *p) {
    uint32_t ring = RT_RING - (p->tail - p->head);
    uint32_t fresh = RT_FRESH - (p->fresh_tail - p->fresh_head);
    return ring < fresh ? ring : fresh;
}

/* To the end of the ring. When it is full its newest half goes to the global queue first, never g
 * itself, which may be the G that is running (yield) and must not be seen elsewhere yet. */
static inline void rt_runq_push_ring_owner(struct rt_p *p, struct rt_g *g) {
    if (rt_unlikely(p->tail - p->head == RT_RING))
        rt_runq_spill_owner(p);
    p->ring[p->tail % RT_RING] = g;
    rt_store_relaxed(&p->tail, p->tail + 1);
}

/* To the end of its queue. */
static inline void rt_runq_push_owner(struct rt_p *p, struct rt_g *g) {
    if (g->flags & (RT_G_STARTED | RT_G_WAITED)) {
        rt_runq_push_ring_owner(p, g);
        return;
    }
    if (rt_unlikely(p->fresh_tail - p->fresh_head == RT_FRESH))
        rt_runq_spill_fresh_owner(p);
    p->fresh[p->fresh_tail % RT_FRESH] = g;
    rt_store_relaxed(&p->fresh_tail, p->fresh_tail + 1);
}

/* The next of a batch that came from elsewhere, oldest first; there is room. Its first fresh one is
 * the first that is taken, once what is newer here has run. */
static inline void rt_runq_push_batch_owner(struct rt_p *p, struct rt_g *g) {
    if (g->flags & (RT_G_STARTED | RT_G_WAITED)) {
        rt_runq_push_ring_owner(p, g);
        return;
    }
    p->fresh[(p->fresh_head - 1) % RT_FRESH] = g;
    rt_store_relaxed(&p->fresh_head, p->fresh_head - 1);
}

/* g yields, and is the running one: whoever waits comes first. */
static inline void rt_runq_push_yielder_owner(struct rt_p *p, struct rt_g *g) {
    if (p->tail == p->head) { /* a round of the ring would be his */
        p->round = 0;
        p->fresh_round = false;
    }
    rt_runq_push_ring_owner(p, g);
}

/* To runnext. True when there was one before: a second G waits now, so a wake may be due. */
static inline bool rt_runq_put_next_owner(struct rt_p *p, struct rt_g *g) {
    struct rt_g *before = p->runnext;
    rt_store_relaxed(&p->runnext, g);
    if (!before) {
        if (p->tail != p->head || p->fresh_tail != p->fresh_head)
            return true;
        p->was_empty = true;
        return false;
    }
    rt_runq_push_owner(p, before);
    return true;
}

/* Whose turn is it, while there are both? */
static inline bool rt_runq_fresh_turn_owner(struct rt_p *p) {
    if (p->round == 0) {
        p->fresh_round = !p->fresh_round;
        p->round = p->fresh_round ? p->fresh_tail - p->fresh_head : p->tail - p->head;
    }
    p->round--;
    return p->fresh_round;
}

static inline struct rt_g *rt_runq_pop_owner(struct rt_p *p) {
    struct rt_g *g = p->runnext;
    if (g) {
        rt_store_relaxed(&p->runnext, NULL);
        return g;
    }
    uint32_t head = p->head, newest = p->fresh_tail - 1;
    bool fresh = p->fresh_head != newest + 1;
    if (head != p->tail && (!fresh || !rt_runq_fresh_turn_owner(p))) {
        g = p->ring[head % RT_RING];
        rt_store_relaxed(&p->head, head + 1);
    } else if (fresh) {
        g = p->fresh[newest % RT_FRESH];
        rt_store_relaxed(&p->fresh_tail, newest);
    } else {
        return NULL;
    }
    rt_bump(&p->ticks); /* a slice begins; runnext goes on in its maker's */
    return g;
}

/* The next one is being switched to. Bring the stack of who comes after it, and the record of who
 * comes then. */
static inline void rt_runq_touch_owner(const struct rt_p *p) {
    uint32_t head = p->head, n = p->tail - head;
    if (n < 2)
        return;
    const struct rt_g *g = p->ring[head % RT_RING], *then = p->ring[(head + 1) % RT_RING];
    if (g->flags & RT_G_STARTED)
        rt_touch(g->ctx.sp);
    for (int line = 0; line < 3; line++)
        rt_touch((const char *)then + line * RT_CACHE_LINE);
}

/* The next G, unless somebody wants this P to look around first: then, or when there is none,
 * NULL. */
static inline struct rt_g *rt_runq_pick_owner(struct rt_p *p) {
    if (rt_unlikely(rt_load_relaxed(&p->attention) != 0 || --p->budget == 0))
        return NULL;
    return rt_runq_pop_owner(p);
}

/* Has g not started, and is it where its maker finds it again? Then take it. Its flags may be
 * looked at only once it is seen to be in the own queue: elsewhere it may just be starting. */
static inline bool rt_runq_take_back_owner(struct rt_p *p, const struct rt_g *g) {
    if (p->runnext == g) {
        if (g->flags & RT_G_STARTED)
            return false;
        rt_store_relaxed(&p->runnext, NULL);
        return true;
    }
    uint32_t newest = p->fresh_tail - 1;
    if (p->fresh_head != newest + 1 && p->fresh[newest % RT_FRESH] == g) {
        rt_store_relaxed(&p->fresh_tail, newest);
        return true;
    }
    return false;
}

/* Looking around: the oldest fresh ones have waited long enough. */
void rt_runq_age_owner(struct rt_p *p, int64_t now);

/* Thief with its own P, inside the runtime: steal the older half of the victim's ring and of its
 * fresh ones, rounded up, or its runnext when that was seen to be left lying. One G is returned,
 * the others are in the own queues. */
struct rt_g *rt_runq_steal(struct rt_p *thief, struct rt_p *victim);

/* The thief has nothing left to do: was the last steal worth what it cost? */
void rt_runq_judge_steal_owner(struct rt_p *thief);

/* The owner looks around: what was not worth it then may be by now. */
void rt_runq_ease_owner(struct rt_p *p, int64_t now);

/* Has sysmon seen that nothing moves here at all? Then runnext may be taken, too. */
static inline bool rt_runq_stale_any(const struct rt_p *p) {
    return rt_load_relaxed(&p->stale) == rt_load_relaxed(&p->ticks) + 1;
}

/* Or that a slice lasts, because Gs in runnext hand it to each other? Then the measure says nothing
 * about the queue behind them. */
static inline bool rt_runq_slow_any(const struct rt_p *p) {
    return rt_load_relaxed(&p->slow) == rt_load_relaxed(&p->ticks) + 1;
}

/* Worth a visit? Not when the owner will have run it all by the time. It is awake if it has any; a
 * ring whose owner goes to sleep is empty, so to pass by loses nothing. */
static inline bool rt_runq_worth_stealing_any(const struct rt_p *p) {
    uint32_t n = rt_runq_len_any(p), doubt = rt_load_relaxed(&p->doubt);
    if (rt_runq_stale_any(p))
        return n != 0 || rt_load_relaxed(&p->runnext) != NULL;
    if (doubt == 0 && rt_runq_slow_any(p))
        return n != 0;
    return (uint64_t)n * rt_load_relaxed(&p->slice_ns) >= RT_STEAL_MIN_NS << doubt;
}

#endif
