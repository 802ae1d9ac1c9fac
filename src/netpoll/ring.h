/* ring.h - one io_uring: set-up, submission entries, entering the kernel, completions.
 *
 * Owner only, but for the loads that say so. No liburing: it is four system calls and two arrays,
 * and its versions differ in just what is used here. */
#ifndef RT_RING_H
#define RT_RING_H

#include "base/atomic.h"

#include <linux/io_uring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Newer than the headers of the distributions we build on. */
#ifndef IORING_SETUP_SUBMIT_ALL
#define IORING_SETUP_SUBMIT_ALL (1U << 7)
#endif
#ifndef IORING_SETUP_TASKRUN_FLAG
#define IORING_SETUP_TASKRUN_FLAG (1U << 9)
#endif
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif
#ifndef IORING_SQ_TASKRUN
#define IORING_SQ_TASKRUN (1U << 2)
#endif
#ifndef IORING_ENTER_REGISTERED_RING
#define IORING_ENTER_REGISTERED_RING (1U << 4)
#endif
#ifndef IORING_ASYNC_CANCEL_ALL
#define IORING_ASYNC_CANCEL_ALL (1U << 0)
#define IORING_ASYNC_CANCEL_ANY (1U << 2)
#endif
#ifndef IOSQE_CQE_SKIP_SUCCESS
#define IOSQE_CQE_SKIP_SUCCESS (1U << 6)
#endif
#define RT_FEAT_NO_IOWAIT   (1U << 17) /* Linux 6.15 */
#define RT_ENTER_NO_IOWAIT  (1U << 7)
#define RT_REG_RING_FDS     20U
#define RT_UNREG_RING_FDS   21U
#define RT_REG_IOWQ_WORKERS 19U

struct rt_ring {
    /* Submission: entries between sq_tail of the kernel's word and ours are prepared, not
     * submitted. */
    uint32_t *sq_khead, *sq_ktail, *sq_kflags;
    uint32_t sq_mask, sq_tail;
    struct io_uring_sqe *sqes;
    uint32_t *cq_khead, *cq_ktail;
    uint32_t cq_mask;
    struct io_uring_cqe *cqes;
    int enter_fd;
    uint32_t enter_flags; /* IORING_ENTER_REGISTERED_RING, or 0 */
    int fd;               /* -1: not set up */
    uint32_t features;
    void *map, *sqe_map;
    size_t map_bytes, sqe_bytes;
};

/* Made disabled: the thread that calls rt_ring_enable is the one that may use it. 0 or -errno. */
int rt_ring_setup(struct rt_ring *r, unsigned entries, unsigned completions);
int rt_ring_enable(struct rt_ring *r);
/* Gives up what belongs to the thread; on the thread that enabled it. */
void rt_ring_disable(struct rt_ring *r);
/* Any thread, once nobody uses it. */
void rt_ring_free(struct rt_ring *r);

/* Submit all that is prepared. min > 0 waits until so many completions are there, timeout_ns passes
 * (< 0: never) or a signal comes; with get, or min > 0, deferred work is run. 0, or -errno when the
 * kernel took nothing or the wait ended without completions. */
int rt_ring_enter(struct rt_ring *r, bool get, unsigned min, int64_t timeout_ns);

/* Prepared, and not taken by the kernel yet. */
static inline uint32_t rt_ring_unsubmitted(const struct rt_ring *r) {
    return r->sq_tail - rt_load_acquire(r->sq_khead); /* pairs with the kernel's release */
}
static inline uint32_t rt_ring_ready(const struct rt_ring *r) {
    return rt_load_acquire(r->cq_ktail) - rt_load_relaxed(r->cq_khead);
}
/* Does the kernel want to be entered for completions? */
static inline bool rt_ring_wants(const struct rt_ring *r) {
    return (rt_load_relaxed(r->sq_kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

/* probe.c: 0 when io_uring does here what the engine needs, or -errno. */
int rt_ring_self_test(void);

/* The next entry, zeroed; NULL when the queue is full. It counts as prepared at once. */
struct io_uring_sqe *rt_ring_sqe(struct rt_ring *r);

#endif
