/* barrier.c - n come together, then all go on.
 *
 * A count and a queue under the lot's lock (lot.h). The n-th to come takes all the others off the
 * queue: from then on that generation is complete, and the next one may begin. One that has just
 * been cancelled, or is late, cannot be claimed any more, but it has come, and the others go on
 * because of that. It finds its node off the queue and reports what has happened, 0. If its node is
 * still on, the generation is not complete: it is taken out again, as if it had never come.
 *
 * For this look it needs the lot's lock alone: the barrier may be gone, because the others of its
 * generation have gone on. */
#include "base/log.h"
#include "sync/lot.h"

#include <gort/sync.h>

_Static_assert(sizeof(go_barrier) == 32, "the public contract");

void go_barrier_init(go_barrier *b, unsigned n) {
    if (n == 0)
        rt_fatal("go_barrier_init: for 0 parties");
    *b = (go_barrier){.rt_n = n};
}

static void complete(go_barrier *b, struct rt_lot *lot) {
    struct rt_glist gone = {0};
    for (struct rt_waiter *w; (w = rt_waiter_pop(&b->rt_waiters)) != NULL;) {
        struct rt_g *g = w->g;
        if (rt_claim(g, w->seq, 0))
            rt_glist_push(&gone, g);
    }
    b->rt_arrived = 0;
    rt_unlock(&lot->lock);
    rt_ready_all(&gone);
}

int go_barrier_wait(go_barrier *b) {
    struct rt_g *g = rt_self();
    int r = rt_cancel_check(g);
    if (rt_unlikely(r))
        return r;
    struct rt_lot *lot = rt_lot_of(b);
    struct rt_waiter w = {.g = g, .seq = rt_park_seq(g)};
    rt_lock(&lot->lock);
    if (rt_unlikely(b->rt_n == 0))
        rt_fatal("go_barrier_wait: go_barrier_init was not called");
    if (b->rt_arrived + 1 == b->rt_n) {
        complete(b, lot);
        return 1;
    }
    b->rt_arrived++;
    rt_queue_push(&b->rt_waiters, &w.node);
    r = rt_park(g, &lot->lock, RT_WAITING, g->limit, RT_WHY_BARRIER);
    if (r == 0)
        return 0;
    rt_lock(&lot->lock);
    bool alone = rt_waiter_queued(&w);
    if (alone) {
        rt_queue_remove(&b->rt_waiters, &w.node);
        b->rt_arrived--;
    }
    rt_unlock(&lot->lock);
    return alone ? rt_cancel_result(g, r, GO_FOREVER) : 0;
}
