/* liburing.h - in its place, for netpoll/uring.c in a model: the two queues of a ring, by the names
 * of liburing that uring.c uses. What enters the kernel is in the model. */
#ifndef MODEL_LIBURING_H
#define MODEL_LIBURING_H

#include "base/atomic.h"

#include <stddef.h>

enum { MODEL_SQES = 8, MODEL_CQES = 16 };
enum { IORING_SQ_CQ_OVERFLOW = 2, IORING_SQ_TASKRUN = 4 };
enum { IORING_ASYNC_CANCEL_ALL = 1, IORING_ASYNC_CANCEL_ANY = 4 };
enum { IOSQE_CQE_SKIP_SUCCESS = 64 };
enum model_op { MODEL_POLL_ADD, MODEL_CANCEL, MODEL_CANCEL_ALL, MODEL_READ };

struct io_uring_sqe {
    enum model_op op;
    int flags, fd;
    uint64_t target; /* what it removes */
    uint64_t user_data;
};
struct io_uring_cqe {
    uint64_t user_data;
};

struct io_uring {
    struct {
        unsigned *kflags;
        unsigned n; /* prepared */
        struct io_uring_sqe entries[MODEL_SQES];
    } sq;
    struct {
        unsigned *khead, *ktail;
        struct io_uring_cqe entries[MODEL_CQES];
    } cq;
    unsigned flags, head, tail; /* what the pointers point to */
};

#define io_uring_smp_load_acquire(p) rt_load_acquire(p)

static inline unsigned io_uring_sq_ready(const struct io_uring *u) {
    return u->sq.n;
}
static inline struct io_uring_sqe *io_uring_get_sqe(struct io_uring *u) {
    return u->sq.n < MODEL_SQES ? &u->sq.entries[u->sq.n++] : NULL;
}
static inline unsigned io_uring_cq_ready(const struct io_uring *u) {
    return rt_load_acquire(u->cq.ktail) - *u->cq.khead;
}
static inline void io_uring_cq_advance(struct io_uring *u, unsigned n) {
    rt_store_release(u->cq.khead, *u->cq.khead + n);
}
static inline struct io_uring_cqe *model_cqe(struct io_uring *u, unsigned at) {
    return at != rt_load_acquire(u->cq.ktail) ? &u->cq.entries[at % MODEL_CQES] : NULL;
}
#define io_uring_for_each_cqe(u, at, cqe) \
    for ((at) = *(u)->cq.khead; ((cqe) = model_cqe((u), (at))) != NULL; (at)++)

static inline void model_prepare(struct io_uring_sqe *e, enum model_op op, int fd,
                                 uint64_t target) {
    *e = (struct io_uring_sqe){.op = op, .fd = fd, .target = target};
}
static inline void io_uring_prep_poll_add(struct io_uring_sqe *e, int fd, unsigned mask) {
    (void)mask;
    model_prepare(e, MODEL_POLL_ADD, fd, 0);
}
static inline void io_uring_prep_cancel64(struct io_uring_sqe *e, uint64_t target, int flags) {
    model_prepare(e, flags ? MODEL_CANCEL_ALL : MODEL_CANCEL, -1, target);
}
static inline void io_uring_prep_read(struct io_uring_sqe *e, int fd, void *to, size_t n,
                                      uint64_t offset) {
    (void)to, (void)n, (void)offset;
    model_prepare(e, MODEL_READ, fd, 0);
}

#endif
