/* ring.h - one io_uring and its bell: made, bound to a worker, entered, and made again.
 *
 * The two queues are used through liburing itself: io_uring_get_sqe and io_uring_prep_*, then
 * io_uring_sq_ready, io_uring_cq_ready, io_uring_for_each_cqe and io_uring_cq_advance on `u`. All
 * of it is the owner's alone, after rt_ring_enable. An entry of io_uring_get_sqe holds what was
 * there before: io_uring_prep_* sets all but user_data. */
#ifndef RT_RING_H
#define RT_RING_H

#include "base/atomic.h"

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

/* tools/bench --only ring builds the other, too: completions that interrupt the owner. */
#ifndef RT_RING_DEFERRED
#define RT_RING_DEFERRED 1
#endif

struct rt_ring {
    struct io_uring u;
    uint32_t wait_flags; /* for io_uring_enter2 in rt_ring_wait */
    bool made;           /* and not freed */
    int bell;            /* an eventfd; -1: none yet; the number stays the same until the end */
    int kept;            /* a descriptor, so that the next ring can be made; -1: none */
    bool on_trial;       /* of the self-test: any error is an answer */
};

void rt_ring_init(struct rt_ring *r);
/* Made disabled: the thread that calls rt_ring_enable is the one that may use it. 0 or -errno. */
int rt_ring_make(struct rt_ring *r, unsigned entries, unsigned completions);
int rt_ring_enable(struct rt_ring *r);
/* Any thread, once nobody uses it; it may be made again. Nothing when it is not made. */
void rt_ring_free(struct rt_ring *r);
/* And its descriptors are given back; nobody rings any more. */
void rt_ring_end(struct rt_ring *r);

/* Each is one system call that submits all that is prepared and runs the deferred work. 0, or
 * -errno when the kernel took nothing or the wait ended without completions. These pass: -EINTR,
 * -EAGAIN, -EBUSY, -ENOMEM, -ETIME; any other is fatal unless the ring is on trial. */
int rt_ring_submit(struct rt_ring *r);
/* Waits, too, until a completion is there, timeout_ns has passed (< 0: never) or a signal comes. */
int rt_ring_wait(struct rt_ring *r, int64_t timeout_ns);

/* Does the kernel want to be entered for completions? */
static inline bool rt_ring_wants(const struct rt_ring *r) {
    return (rt_load_relaxed(r->u.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

/* probe.c: 0 when io_uring does here what the engine needs, or -errno. */
int rt_ring_self_test(void);

#endif
