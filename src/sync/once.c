/* once.c - run a function once, while the others wait for its end.
 *
 * rt_state: 0, DONE, or while fn runs the address of the runner's node, on its stack. That node is
 * the first of a queue (base/queue.h), the waiters are behind it. So eight bytes are enough, and
 * whoever comes sees who runs: if it is itself, fn has called its own once, and the wait would
 * never end. All but DONE is looked at under the lot's lock (lot.h). */
#include "base/log.h"
#include "sync/lot.h"

#include <gort/sync.h>

static const uint64_t DONE = 1;

_Static_assert(sizeof(go_once) == 8, "the public contract");

static void finish(go_once *o, struct rt_lot *lot, struct rt_waiter *runner) {
    struct rt_glist gone = {0};
    void *queue = &runner->node;
    rt_lock(&lot->lock);
    rt_queue_remove(&queue, &runner->node);
    for (struct rt_waiter *w; (w = rt_waiter_pop(&queue)) != NULL;) {
        struct rt_g *g = w->g;
        if (rt_unlikely(!rt_claim(g, w->seq, 0))) /* HARD, no deadline: nobody else could */
            rt_throw("once: a waiter has vanished");
        rt_glist_push(&gone, g);
    }
    rt_store_release(&o->rt_state, DONE); /* the last touch; pairs with the acquire in do */
    rt_unlock(&lot->lock);
    rt_ready_all(&gone);
}

static __attribute__((noinline)) void do_slow(go_once *o, void (*fn)(void)) {
    struct rt_g *g = rt_self();
    struct rt_lot *lot = rt_lot_of(o);
    struct rt_waiter self = {.g = g, .seq = rt_park_seq(g)};
    rt_lock(&lot->lock);
    uint64_t state = rt_load_relaxed(&o->rt_state);
    if (state == DONE) {
        rt_unlock(&lot->lock);
        return;
    }
    void *queue = (void *)(uintptr_t)state;
    if (queue && rt_waiter_first(queue)->g == g)
        rt_fatal("go_once_do: fn calls it for its own go_once: that would wait for ever");
    rt_queue_push(&queue, &self.node);
    if (state != 0) {
        rt_park(g, &lot->lock, RT_HARD, GO_FOREVER, RT_WHY_ONCE);
        return;
    }
    rt_store_relaxed(&o->rt_state, (uint64_t)(uintptr_t)&self.node);
    rt_unlock(&lot->lock);
    fn();
    finish(o, lot, &self);
}

void go_once_do(go_once *o, void (*fn)(void)) {
    if (rt_unlikely(rt_load_acquire(&o->rt_state) != DONE)) /* pairs with finish */
        do_slow(o, fn);
}
