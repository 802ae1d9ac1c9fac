/* event.h - something to wait for: the event of HACKING.md ("Adding a call that parks"), but it
 * lets one waiter go. */
#ifndef MODEL_EVENT_H
#define MODEL_EVENT_H

#include "machine.h"

#include "base/lock.h"
#include "base/queue.h"

struct waiter {
    struct rt_node node;
    struct rt_g *g;
    uint64_t seq;
};

struct event {
    uint32_t lock;
    bool set;
    void *waiters;
    int message; /* plain: what the setter leaves */
};

static inline void event_init(struct event *e) {
    e->waiters = NULL;
}
static inline bool event_waited_for(const struct event *e) {
    return e->waiters != NULL;
}

static inline int event_wait(struct event *e, enum rt_g_state state, int64_t deadline) {
    struct rt_g *g = rt_self();
    int r = state == RT_HARD ? 0 : rt_cancel_check(g);
    if (r)
        return r;
    rt_lock(&e->lock);
    if (e->set) {
        e->set = false;
        rt_unlock(&e->lock);
        return 0;
    }
    struct waiter w = {.g = g, .seq = rt_park_seq(g)};
    rt_queue_push(&e->waiters, &w.node);
    r = rt_park(g, &e->lock, state, deadline < g->limit ? deadline : g->limit, RT_WHY_OTHER);
    if (r == 0)
        return 0;
    rt_lock(&e->lock);
    if (w.node.next)
        rt_queue_remove(&e->waiters, &w.node);
    rt_unlock(&e->lock);
    return rt_cancel_result(g, r, deadline);
}

/* One is let go, or the next one that comes. */
static inline void event_set(struct event *e) {
    struct rt_g *g = NULL;
    rt_lock(&e->lock);
    e->message = 1;
    for (struct rt_node *n; !g && (n = rt_queue_pop(&e->waiters)) != NULL;) {
        struct waiter *w = rt_container_of(n, struct waiter, node);
        g = rt_claim(w->g, w->seq, 0) ? w->g : NULL;
    }
    e->set = !g;
    rt_unlock(&e->lock);
    if (g)
        rt_ready(g);
}

#endif
