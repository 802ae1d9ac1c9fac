/* g.h - where struct rt_g comes from.
 *
 * Gs live in slabs that are unmapped by the stop alone, so a stale pointer to one is always a
 * pointer to a struct rt_g, and the wait word tells that it is stale. Each P keeps a free list; a
 * depot under a lock evens them out. Each G in a free list has the address space of a stack of the
 * default class behind it (stack.h), so a spawn that finds a G cannot fail later. */
#ifndef RT_G_H
#define RT_G_H

#include "sched/sched.h"

/* Free Gs that one P may keep: 1,280, but all Ps together no more than 1/64 of the limit on tasks,
 * so that a limit is reached within 2 %, a small one exactly. */
extern uint32_t rt_g_cache;

void rt_g_start(size_t max_tasks);
void rt_g_stop(void);

/* Refill the free list of p: 0, -EAGAIN, -ENOMEM. Owner, inside. */
int rt_g_refill_owner(struct rt_p *p);
void rt_g_trim_owner(struct rt_p *p);
/* Give back all of p's, which nobody else can touch. */
void rt_g_flush(struct rt_p *p);
/* So many Ps share from now on: rt_g_cache follows. */
void rt_g_share(uint32_t procs);
/* For foreign threads: one G, or NULL and *err. */
struct rt_g *rt_g_get(int *err);
void rt_g_put(struct rt_g *g);

/* Call fn for each G that ever was, dead ones too, until it returns false. Slabs are only added
 * meanwhile, never freed. */
void rt_g_each(bool (*fn)(struct rt_g *g, void *arg), void *arg);

/* Identities: a batch for a P, or one. */
void rt_g_ids(uint64_t *first, uint64_t *end);
uint64_t rt_g_one_id(void);

static inline void rt_g_free_owner(struct rt_p *p, struct rt_g *g) {
    g->next = p->gfree;
    p->gfree = g;
    if (rt_unlikely(++p->ngfree > rt_load_relaxed(&rt_g_cache)))
        rt_g_trim_owner(p);
}

#endif
