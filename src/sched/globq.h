/* globq.h - the run queue of everybody: a list under a lock, and its size, which may be read
 * without.
 *
 * What lands here: overflow of a P's ring, Gs made ready by foreign threads, Gs whose stack could
 * not be bound. A P takes from it every RT_PICKS picks, and when its own queue is empty. */
#ifndef RT_GLOBQ_H
#define RT_GLOBQ_H

#include "sched/sched.h"

extern struct rt_globq {
    uint32_t lock;
    size_t size; /* written under lock, read anywhere */
    struct rt_glist list;
} rt_globq;

/* Any thread. Append all of l, which is emptied. */
void rt_globq_push(struct rt_glist *l);

/* Owner of p, inside the runtime: move up to `max` Gs, and a fair share at most, to p's ring but
 * the first, which is returned. NULL when empty. */
struct rt_g *rt_globq_take(struct rt_p *p, size_t max);

static inline size_t rt_globq_size(void) {
    return rt_load_acquire(&rt_globq.size); /* pairs with the release in rt_globq_take */
}

#endif
