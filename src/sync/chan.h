/* chan.h - the inside of a channel, shared by chan.c, select.c and chan_fd.c. The rules stand on
 * top of chan.c. Every function here wants the lock of its channel held, but rt_chan_*_ready. */
#ifndef RT_CHAN_H
#define RT_CHAN_H

#include "base/lock.h"
#include "sched/park.h"

#include <gort/chan.h>
#include <string.h>

/* Who waits, on its own stack. */
struct rt_chan_waiter {
    struct rt_chan_waiter *next, *prev; /* next == itself: off the queue */
    struct rt_g *g;
    uint64_t seq; /* of the park; with RT_CHAN_SELECT it is one case of several */
    void *elem;
};

/* No sequence number has this bit, so rt_claim fails, and where it fails the bit is looked at: who
 * waits for one channel alone pays nothing for selects. */
static const uint64_t RT_CHAN_SELECT = UINT64_C(1) << 63;

struct rt_chan_queue {
    struct rt_chan_waiter *first; /* written under lock, read anywhere */
    struct rt_chan_waiter *last;  /* unless first is NULL */
};

enum { RT_CHAN_CLOSED = 1, RT_CHAN_FD = 2 };

/* What a select looks at before it takes a lock is all in the first cache line. */
struct go_chan {
    uint32_t lock;
    uint32_t flags; /* written under lock, read anywhere; 0 on the hot path */
    size_t count;   /* written under lock, read anywhere */
    size_t capacity;
    size_t head; /* index of the oldest value */
    size_t elem_size;
    struct rt_chan_queue recvq;
    struct rt_chan_queue sendq;
    int fd; /* of go_chan_fd, once RT_CHAN_FD is set */
    bool fd_readable;
    void *owner; /* a ticker, which alone may free it; constant */
    void *block; /* what was allocated */
    char buffer[] __attribute__((aligned(16)));
};

/* ---- queues ---------------------------------------------------------------------------------- */

static inline void rt_chan_enqueue(struct rt_chan_queue *q, struct rt_chan_waiter *w) {
    w->next = w->prev = NULL;
    if (q->first) {
        w->prev = q->last;
        q->last->next = w;
    } else {
        rt_store_relaxed(&q->first, w);
    }
    q->last = w;
}

/* Take w off q, if nobody has done so yet. */
static inline void rt_chan_dequeue(struct rt_chan_queue *q, struct rt_chan_waiter *w) {
    if (w->next == w)
        return;
    if (w->next)
        w->next->prev = w->prev;
    else
        q->last = w->prev;
    if (w->prev)
        w->prev->next = w->next;
    else
        rt_store_relaxed(&q->first, w->next);
    w->next = w;
}

/* rt_claim for a node of a select: also tells which case won, and takes what else that select has
 * on this channel off its queue. In select.c. */
bool rt_chan_claim_case(struct rt_chan_waiter *w, int result);

/* The first waiter of q that can still be had, claimed with `result` (0 or -EPIPE); NULL when there
 * is none. A node whose claim fails is of a wait that is over: it is dropped. */
static inline struct rt_chan_waiter *rt_chan_claim_first(struct rt_chan_queue *q, int result) {
    for (struct rt_chan_waiter *w; (w = q->first) != NULL;) {
        struct rt_chan_waiter *next = w->next;
        rt_store_relaxed(&q->first, next);
        w->next = w;
        if (next)
            next->prev = NULL;
        if (rt_likely(rt_claim(w->g, w->seq, result)) ||
            ((w->seq & RT_CHAN_SELECT) && rt_chan_claim_case(w, result)))
            return w;
    }
    return NULL;
}

/* ---- values ---------------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) void rt_chan_copy(const go_chan *c, void *to,
                                                               const void *from) {
    if (rt_likely(c->elem_size == sizeof(uint64_t)))
        memcpy(to, from, sizeof(uint64_t));
    else if (c->elem_size == sizeof(int))
        memcpy(to, from, sizeof(int));
    else if (c->elem_size)
        memcpy(to, from, c->elem_size);
}

static inline __attribute__((always_inline)) void rt_chan_put(go_chan *c, const void *elem) {
    size_t i = c->head + c->count;
    if (i >= c->capacity)
        i -= c->capacity;
    rt_chan_copy(c, c->buffer + i * c->elem_size, elem);
    rt_store_relaxed(&c->count, c->count + 1);
}

static inline __attribute__((always_inline)) void rt_chan_take(go_chan *c, void *elem) {
    if (elem)
        rt_chan_copy(c, elem, c->buffer + c->head * c->elem_size);
    if (++c->head == c->capacity)
        c->head = 0;
    rt_store_relaxed(&c->count, c->count - 1);
}

/* A send on a channel that is not closed, if it need not wait: 0, and *wake, unless it is NULL, is
 * to be made ready after the unlock. Else -EAGAIN. */
static inline __attribute__((always_inline)) int rt_chan_give(go_chan *c, const void *elem,
                                                              struct rt_g **wake) {
    struct rt_chan_waiter *w = rt_chan_claim_first(&c->recvq, 0);
    *wake = NULL;
    if (w) {
        *wake = w->g;
        if (w->elem)
            rt_chan_copy(c, w->elem, elem);
    } else if (c->count < c->capacity) {
        rt_chan_put(c, elem);
    } else {
        return -EAGAIN;
    }
    return 0;
}

/* A receive of a value, likewise. -EAGAIN also when there will never be one. */
static inline __attribute__((always_inline)) int rt_chan_get(go_chan *c, void *elem,
                                                             struct rt_g **wake) {
    struct rt_chan_waiter *w;
    *wake = NULL;
    if (c->count > 0) {
        rt_chan_take(c, elem);
        w = rt_chan_claim_first(&c->sendq, 0);
        if (w) {
            *wake = w->g;
            rt_chan_put(c, w->elem);
        }
        return 0;
    }
    w = rt_chan_claim_first(&c->sendq, 0); /* a rendezvous */
    if (!w)
        return -EAGAIN;
    *wake = w->g;
    if (elem)
        rt_chan_copy(c, elem, w->elem);
    return 0;
}

/* ---- a send, a receive ----------------------------------------------------------------------- */

/* Whatever the flags say. 0, -EPIPE, -EAGAIN; *wake as above. */
int rt_chan_send_locked(go_chan *c, const void *elem, struct rt_g **wake);
int rt_chan_recv_locked(go_chan *c, void *elem, struct rt_g **wake);

/* For who holds no other lock: unless it is -EAGAIN, the lock was released and the channel may be
 * gone. The first two are for channels whose flags are not 0. */
int rt_chan_send_odd(go_chan *c, const void *elem);
int rt_chan_recv_odd(go_chan *c, void *elem);

static inline __attribute__((always_inline)) int rt_chan_send_now(go_chan *c, const void *elem) {
    struct rt_g *wake;
    if (rt_unlikely(c->flags))
        return rt_chan_send_odd(c, elem);
    if (rt_chan_give(c, elem, &wake) != 0)
        return -EAGAIN;
    rt_unlock(&c->lock);
    if (wake)
        rt_ready(wake);
    return 0;
}

static inline __attribute__((always_inline)) int rt_chan_recv_now(go_chan *c, void *elem) {
    struct rt_g *wake;
    if (rt_unlikely(c->flags))
        return rt_chan_recv_odd(c, elem);
    if (rt_chan_get(c, elem, &wake) != 0)
        return -EAGAIN;
    rt_unlock(&c->lock);
    if (wake)
        rt_ready(wake);
    return 0;
}

/* ---- the descriptor of go_chan_fd; chan_fd.c ------------------------------------------------- */

void rt_chan_fd_update(go_chan *c);
void rt_chan_fd_close(go_chan *c);

/* After whatever may have changed what rt_chan_recv_ready says, before the unlock. */
static inline void rt_chan_changed(go_chan *c) {
    if (rt_unlikely(c->flags & RT_CHAN_FD))
        rt_chan_fd_update(c);
}

/* ---- a look without the lock: may be wrong either way ---------------------------------------- */

static inline bool rt_chan_recv_ready(const go_chan *c) {
    return (rt_load_relaxed(&c->count) | (uintptr_t)rt_load_relaxed(&c->sendq.first) |
            (rt_load_relaxed(&c->flags) & RT_CHAN_CLOSED)) != 0;
}

static inline bool rt_chan_send_ready(const go_chan *c) {
    return rt_load_relaxed(&c->count) != c->capacity ||
           ((uintptr_t)rt_load_relaxed(&c->recvq.first) |
            (rt_load_relaxed(&c->flags) & RT_CHAN_CLOSED)) != 0;
}

#endif
