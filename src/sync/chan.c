/* chan.c - channels.
 *
 * One lock for each channel, held for a few dozen instructions. Invariants, under the lock:
 *   - senders wait only while the buffer is full (or there is none), receivers only while it is
 *       empty, so
 *     at most one of the two queues has claimable waiters;
 *   - a waiter's node stands on its own stack: {G, sequence, where its element is}. Whoever takes
 *       it off the
 *     queue claims the G, copies straight from or into that element, and makes the G ready after
 *         the unlock.
 *     A node whose claim fails belongs to a wait that was cancelled or is late: it is just dropped.
 *   - values are received in the order in which they were sent: with a full buffer and waiting
 *       senders a
 *     receive takes the head of the buffer and puts the first sender's value at its end.
 * After the unlock, and for the let-go G after its claim, the channel is not touched: who receives
 * the last value may free it. A waiter carries the lock across its context switch; the commit
 * releases it.
 *
 * Where nobody waits there is one locked instruction, the CAS of the lock; a hand-over has a second
 * one, the claim. The unlock is a plain store. */
#include "base/check.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/sys.h"
#include "sched/park.h"

#include <gort/chan.h>
#include <string.h>

struct waiter {
    struct rt_list link; /* next == NULL: off the queue */
    struct rt_g *g;
    uint64_t seq;
    void *elem;
};

struct go_chan {
    uint32_t lock;
    uint32_t closed;
    size_t elem_size;
    size_t capacity;
    size_t count;          /* written under lock, read anywhere */
    size_t head;           /* index of the oldest value */
    struct rt_list recvq;
    struct rt_list sendq;
    char buffer[] __attribute__((aligned(16)));
};

static inline __attribute__((always_inline)) void copy(const go_chan *c, void *to,
                                                       const void *from) {
    if (rt_likely(c->elem_size == sizeof(uint64_t)))
        memcpy(to, from, sizeof(uint64_t));
    else if (c->elem_size)
        memcpy(to, from, c->elem_size);
}

static inline char *slot(go_chan *c, size_t i) {
    return c->buffer + i * c->elem_size;
}

static inline void put(go_chan *c, const void *elem) {
    size_t i = c->head + c->count;
    if (i >= c->capacity)
        i -= c->capacity;
    copy(c, slot(c, i), elem);
    rt_store_relaxed(&c->count, c->count + 1);
}

static inline void take(go_chan *c, void *elem) {
    if (elem)
        copy(c, elem, slot(c, c->head));
    if (++c->head == c->capacity)
        c->head = 0;
    rt_store_relaxed(&c->count, c->count - 1);
}

/* The first waiter of q that can still be had, claimed with `result`; NULL when there is none. */
static inline struct waiter *claim_first(struct rt_list *q, int result) {
    for (struct rt_list *n; (n = rt_list_pop_front(q)) != NULL;) {
        struct waiter *w = rt_container_of(n, struct waiter, link);
        if (rt_likely(rt_claim(w->g, w->seq, result)))
            return w;
    }
    return NULL;
}

go_chan *go_chan_new(size_t elem_size, size_t capacity) {
    size_t bytes;
    if (!rt_size_mul(elem_size, capacity, &bytes) || !rt_size_add(bytes, sizeof(go_chan), &bytes) ||
        bytes > PTRDIFF_MAX)
        return NULL;
    go_chan *c = rt_sys_alloc_aligned(bytes, RT_CACHE_LINE);
    if (!c)
        return NULL;
    c->elem_size = elem_size;
    c->capacity = capacity;
    rt_list_init(&c->recvq);
    rt_list_init(&c->sendq);
    return c;
}

void go_chan_free(go_chan *c) {
    if (!c)
        return;
    rt_lock(&c->lock); /* whoever let us go has left by now */
    if (!rt_list_empty(&c->recvq) || !rt_list_empty(&c->sendq))
        rt_fatal("go_chan_free: somebody waits on the channel");
    rt_sys_free(c);
}

/* Wait on q with the lock held; it is released. 0 handed over, or -errno. */
static int wait_on(go_chan *c, struct rt_g *g, struct rt_list *q, void *elem, enum rt_why why) {
    struct waiter w = {.g = g, .seq = rt_park_seq(g), .elem = elem};
    rt_list_push_back(q, &w.link);
    int r = rt_park(g, &c->lock, RT_WAITING, g->limit, why);
    if (rt_likely(r == 0 || r == -EPIPE))
        return r;
    rt_lock(&c->lock);
    if (w.link.next)
        rt_list_remove(&w.link);
    rt_unlock(&c->lock);
    return rt_cancel_result(g, r, GO_FOREVER);
}

/* The part of a send that needs no waiting; lock held and released unless it says -EAGAIN. */
static inline __attribute__((always_inline)) int send_now(go_chan *c, const void *elem) {
    if (rt_unlikely(c->closed)) {
        rt_unlock(&c->lock);
        return -EPIPE;
    }
    struct waiter *w = claim_first(&c->recvq, 0);
    if (w) {
        struct rt_g *g = w->g;
        if (w->elem)
            copy(c, w->elem, elem);
        rt_unlock(&c->lock);
        rt_ready(g);
        return 0;
    }
    if (c->count < c->capacity) {
        put(c, elem);
        rt_unlock(&c->lock);
        return 0;
    }
    return -EAGAIN;
}

static inline __attribute__((always_inline)) int recv_now(go_chan *c, void *elem) {
    if (c->count > 0) {
        take(c, elem);
        struct waiter *w = claim_first(&c->sendq, 0);
        struct rt_g *g = w ? w->g : NULL;
        if (w)
            put(c, w->elem);
        rt_unlock(&c->lock);
        if (g)
            rt_ready(g);
        return 0;
    }
    struct waiter *w = claim_first(&c->sendq, 0);
    if (w) { /* rendezvous */
        struct rt_g *g = w->g;
        if (elem)
            copy(c, elem, w->elem);
        rt_unlock(&c->lock);
        rt_ready(g);
        return 0;
    }
    if (rt_unlikely(c->closed)) {
        size_t n = c->elem_size;
        rt_unlock(&c->lock);
        if (elem && n)
            memset(elem, 0, n);
        return -EPIPE;
    }
    return -EAGAIN;
}

int go_chan_send(go_chan *c, const void *elem) {
    if (rt_unlikely(!c))
        rt_fatal("go_chan_send: NULL channel");
    struct rt_g *g = rt_self();
    int r = rt_cancel_check(g);
    if (rt_unlikely(r))
        return r;
    rt_lock(&c->lock);
    r = send_now(c, elem);
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
    r = recv_now(c, elem);
    if (r == -EAGAIN) {
        size_t n = c->elem_size; /* after -EPIPE the channel may be gone */
        r = wait_on(c, g, &c->recvq, elem, RT_WHY_CHAN_RECV);
        if (r == -EPIPE && elem && n)
            memset(elem, 0, n);
    }
    return r;
}

int go_chan_try_send(go_chan *c, const void *elem) {
    if (rt_unlikely(!c))
        rt_fatal("go_chan_try_send: NULL channel");
    rt_lock(&c->lock);
    int r = send_now(c, elem);
    if (r == -EAGAIN)
        rt_unlock(&c->lock);
    return r;
}

int go_chan_try_recv(go_chan *c, void *elem) {
    if (rt_unlikely(!c))
        rt_fatal("go_chan_try_recv: NULL channel");
    rt_lock(&c->lock);
    int r = recv_now(c, elem);
    if (r == -EAGAIN)
        rt_unlock(&c->lock);
    return r;
}

/* All are claimed under the lock, and made ready after it: the first may free the channel. */
int go_chan_close(go_chan *c) {
    if (rt_unlikely(!c))
        rt_fatal("go_chan_close: NULL channel");
    struct rt_glist gone = {0};
    rt_lock(&c->lock);
    if (c->closed) {
        rt_unlock(&c->lock);
        return -EALREADY;
    }
    rt_store_relaxed(&c->closed, 1);
    struct waiter *w;
    while ((w = claim_first(&c->recvq, -EPIPE)) != NULL)
        rt_glist_push(&gone, w->g);
    while ((w = claim_first(&c->sendq, -EPIPE)) != NULL)
        rt_glist_push(&gone, w->g);
    rt_unlock(&c->lock);
    for (struct rt_g *g; (g = rt_glist_pop(&gone)) != NULL;)
        rt_ready(g);
    return 0;
}

size_t go_chan_len(const go_chan *c) {
    return c ? rt_load_relaxed(&c->count) : 0;
}

size_t go_chan_cap(const go_chan *c) {
    return c ? c->capacity : 0;
}
