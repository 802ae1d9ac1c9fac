/* lot.h - locks that outlive what they protect, and how a waiter is queued.
 *
 * Condition variables, semaphores, barriers, rwmutexes, onces and waitgroups have no lock of their
 * own. Their slow paths take that of the lot which their address hashes to: 256, static. So nobody
 * ever touches freed memory to take or to release a lock:
 *   - a waiter that was cancelled must look whether it is still queued, and at that moment another
 *     waiter of the same object may have been let go, and may free it. It locks the lot, looks at
 *     its own node, and touches the object only when the node is still on a queue;
 *   - a release gives the object up under the lock, and unlocks what is always there;
 *   - who cannot lock at all (a signal handler) can still name the lot, see sem.c;
 *   - a go_once of 8 bytes needs no room for a lock.
 * The price is that two objects may share a lock, which is held for a few dozen instructions. What
 * has a hot slow path of its own, mutex and channel, keeps its own lock.
 *
 * As WebKit's ParkingLot (F. Pizlo, "Locking in WebKit", 2016), the semaphore table of Go and the
 * kernel's futex hash; but the queues stay in the objects, so to find the first waiter is one load
 * however many objects share a lot. */
#ifndef RT_LOT_H
#define RT_LOT_H

#include "base/lock.h"
#include "base/queue.h"
#include "sched/park.h"

enum { RT_LOT_BITS = 8, RT_LOTS = 1 << RT_LOT_BITS };

struct rt_lot {
    uint32_t lock;
    uint32_t bell; /* rung for the threads that wait for a semaphore of this lot, see sem.c */
    void *sems;    /* under lock: of each semaphore of this lot that is waited for, the first
                      waiter */
} __attribute__((aligned(RT_CACHE_LINE)));

extern struct rt_lot rt_lots[RT_LOTS];

static inline struct rt_lot *rt_lot_of(const void *object) {
    /* Fibonacci hashing, D. Knuth, The Art of Computer Programming 3, 6.4. */
    uint64_t key = (uint64_t)(uintptr_t)object / 8 * UINT64_C(0x9E3779B97F4A7C15);
    return &rt_lots[key >> (64 - RT_LOT_BITS)];
}

/* On the stack of the G that waits. */
struct rt_waiter {
    struct rt_node node;
    struct rt_g *g;
    uint64_t seq;
};

static inline bool rt_waiter_queued(const struct rt_waiter *w) {
    return w->node.next != NULL;
}

static inline struct rt_waiter *rt_waiter_first(void *head) {
    return head ? rt_container_of(head, struct rt_waiter, node) : NULL;
}

/* The first waiter of the queue, taken off; NULL when there is none. */
static inline struct rt_waiter *rt_waiter_pop(void **head) {
    return rt_waiter_first(rt_queue_pop(head));
}

#endif
