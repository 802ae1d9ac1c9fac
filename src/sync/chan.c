/* chan.c - channels. The inside is in chan.h, because select.c needs it, too.
 *
 * One lock for each channel, held for a few dozen instructions. Invariants, under the lock:
 *   - senders wait only while the buffer is full (or there is none), receivers only while it is
 *     empty, so at most one of the two queues has waiters that can be had (or both have nodes of
 *     one select, which cannot meet itself);
 *   - a waiter's node stands on its own stack: {G, sequence, where its element is}. Whoever takes
 *     it off the queue claims the G, copies straight from or into that element, and makes the G
 *     ready after the unlock. A node whose claim fails belongs to a wait that was cancelled or is
 *     late, or to a select that does another case: it is just dropped;
 *   - values are received in the order in which they were sent: with a full buffer and waiting
 *     senders a receive takes the head of the buffer and puts the first sender's value at its end.
 * After the unlock, and for the let-go G after its claim, the channel is not touched: who receives
 * the last value may free it. A waiter carries the lock across its context switch; the commit
 * releases it.
 *
 * Where nobody waits there is one locked instruction, the CAS of the lock; a hand-over has a second
 * one, the claim. The unlock is a plain store. What few channels need (they are closed, they have a
 * descriptor) is behind one look at the flags. */
#include "sync/chan.h"

#include "base/check.h"
#include "base/log.h"
#include "base/sys.h"

/* Wait on q with the lock held; it is released. 0 handed over, or -errno. */
static int wait_on(go_chan *c, struct rt_g *g, struct rt_chan_queue *q, void *elem,
                   enum rt_why why) {
    struct rt_chan_waiter w;
    w.g = g;
    w.seq = rt_park_seq(g);
    w.elem = elem;
    rt_chan_enqueue(q, &w);
    rt_chan_changed(c);
    int r = rt_park(g, &c->lock, RT_WAITING, g->limit, why);
    if (rt_likely(r == 0 || r == -EPIPE))
        return r;
    rt_lock(&c->lock);
    rt_chan_dequeue(q, &w);
    rt_chan_changed(c);
    rt_unlock(&c->lock);
    return rt_cancel_result(g, r, GO_FOREVER);
}

int go_chan_send(go_chan *c, const void *elem) {
    if (rt_unlikely(!c))
        rt_fatal("go_chan_send: NULL channel");
    struct rt_g *g = rt_self();
    int r = rt_cancel_check(g);
    if (rt_unlikely(r))
        return r;
    rt_lock(&c->lock);
    r = rt_chan_send_now(c, elem);
    if (r == -EAGAIN)
        r = wait_on(c, g, &c->sendq, (void *)(uintptr_t)elem, RT_WHY_CHAN_SEND);
    return r;
}

int go_chan_recv(go_chan *c, void *elem) {
    if (rt_unlikely(!c))
        rt_fatal("go_chan_recv: NULL channel");
    struct rt_g *g = rt_self();
    int r = rt_cancel_check(g);
    if (rt_unlikely(r))
        return r;
    rt_lock(&c->lock);
    r = rt_chan_recv_now(c, elem);
    if (r == -EAGAIN)
        r = wait_on(c, g, &c->recvq, elem, RT_WHY_CHAN_RECV);
    return r;
}

int go_chan_try_send(go_chan *c, const void *elem) {
    if (rt_unlikely(!c))
        rt_fatal("go_chan_try_send: NULL channel");
    rt_lock(&c->lock);
    int r = rt_chan_send_now(c, elem);
    if (r == -EAGAIN)
        rt_unlock(&c->lock);
    return r;
}

int go_chan_try_recv(go_chan *c, void *elem) {
    if (rt_unlikely(!c))
        rt_fatal("go_chan_try_recv: NULL channel");
    rt_lock(&c->lock);
    int r = rt_chan_recv_now(c, elem);
    if (r == -EAGAIN)
        rt_unlock(&c->lock);
    return r;
}

/* ---- not so hot ------------------------------------------------------------------------------ */

int rt_chan_send_locked(go_chan *c, const void *elem, struct rt_g **wake) {
    *wake = NULL;
    if (c->flags & RT_CHAN_CLOSED)
        return -EPIPE;
    int r = rt_chan_give(c, elem, wake);
    rt_chan_changed(c);
    return r;
}

int rt_chan_recv_locked(go_chan *c, void *elem, struct rt_g **wake) {
    int r = rt_chan_get(c, elem, wake);
    if (r == -EAGAIN && (c->flags & RT_CHAN_CLOSED)) {
        if (elem)
            memset(elem, 0, c->elem_size);
        r = -EPIPE;
    }
    rt_chan_changed(c); /* with -EAGAIN, too: waiters that had given up may have been dropped */
    return r;
}

static int leave(go_chan *c, int r, struct rt_g *wake) {
    if (r == -EAGAIN)
        return r;
    rt_unlock(&c->lock);
    if (wake)
        rt_ready(wake);
    return r;
}

int rt_chan_send_odd(go_chan *c, const void *elem) {
    struct rt_g *wake;
    int r = rt_chan_send_locked(c, elem, &wake);
    return leave(c, r, wake);
}

int rt_chan_recv_odd(go_chan *c, void *elem) {
    struct rt_g *wake;
    int r = rt_chan_recv_locked(c, elem, &wake);
    return leave(c, r, wake);
}

/* By malloc, which has blocks of such sizes at hand in each thread: with posix_memalign, which has
 * not, skynet used a sixth more CPU. */
go_chan *go_chan_new(size_t elem_size, size_t capacity) {
    size_t bytes;
    if (!rt_size_mul(elem_size, capacity, &bytes) ||
        !rt_size_add(bytes, sizeof(go_chan) + RT_CACHE_LINE, &bytes) || bytes > PTRDIFF_MAX)
        return NULL;
    char *block = rt_sys_alloc_raw(bytes);
    if (!block)
        return NULL;
    go_chan *c = (void *)(block + -(uintptr_t)block % RT_CACHE_LINE);
    *c = (go_chan){.elem_size = elem_size, .capacity = capacity, .block = block};
    return c;
}

void go_chan_free(go_chan *c) {
    if (!c)
        return;
    if (c->owner)
        rt_fatal("go_chan_free: the channel of a ticker, which go_ticker_free frees");
    rt_lock(&c->lock); /* whoever let us go has left by now */
    if (c->recvq.first || c->sendq.first)
        rt_fatal("go_chan_free: somebody waits on the channel");
    if (c->flags & RT_CHAN_FD)
        rt_chan_fd_close(c);
    rt_sys_free(c->block);
}

/* All are claimed under the lock, and made ready after it: the first may free the channel. */
int go_chan_close(go_chan *c) {
    if (rt_unlikely(!c))
        rt_fatal("go_chan_close: NULL channel");
    struct rt_glist gone = {0};
    rt_lock(&c->lock);
    if (c->flags & RT_CHAN_CLOSED) {
        rt_unlock(&c->lock);
        return -EALREADY;
    }
    rt_store_relaxed(&c->flags, c->flags | RT_CHAN_CLOSED);
    struct rt_chan_waiter *w;
    while ((w = rt_chan_claim_first(&c->recvq, -EPIPE)) != NULL) {
        if (w->elem)
            memset(w->elem, 0, c->elem_size);
        rt_glist_push(&gone, w->g);
    }
    while ((w = rt_chan_claim_first(&c->sendq, -EPIPE)) != NULL)
        rt_glist_push(&gone, w->g);
    rt_chan_changed(c);
    rt_unlock(&c->lock);
    rt_ready_all(&gone);
    return 0;
}

size_t go_chan_len(const go_chan *c) {
    return c ? rt_load_relaxed(&c->count) : 0;
}

size_t go_chan_cap(const go_chan *c) {
    return c ? c->capacity : 0;
}
