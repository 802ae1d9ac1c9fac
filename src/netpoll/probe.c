/* probe.c - does io_uring do here what the uring engine needs?
 *
 * Version numbers say little: distributions backport, sandboxes emulate and filters refuse single
 * calls. So each thing that the engine relies on is done once on a small ring, bound to the calling
 * thread. */
#include "base/sys_io.h"
#include "netpoll/ring.h"

#include <errno.h>
#include <poll.h>

enum { NOP = 1, POLL = 2, POLL_AGAIN = 3, REMOVE = 4 };
static const int64_t BRIEFLY_NS = 100 * 1000;

static void prepare(struct rt_ring *r, unsigned op, int fd, uint64_t data) {
    struct io_uring_sqe *sqe = rt_ring_sqe(r);
    sqe->opcode = (uint8_t)op;
    sqe->fd = fd;
    sqe->user_data = data;
    if (op == IORING_OP_POLL_ADD)
        sqe->poll32_events = POLLIN;
}

/* The next completion must be `data`; *res is its result. */
static bool next_is(struct rt_ring *r, uint64_t data, int *res) {
    if (rt_ring_ready(r) == 0)
        return false;
    uint32_t head = *r->cq_khead;
    struct io_uring_cqe *cqe = &r->cqes[head & r->cq_mask];
    bool ok = cqe->user_data == data;
    *res = cqe->res;
    rt_store_release(r->cq_khead, head + 1); /* read by the kernel */
    return ok;
}

static int run(struct rt_ring *r, int bell) {
    int res = 0;
    prepare(r, IORING_OP_NOP, -1, NOP);
    prepare(r, IORING_OP_POLL_ADD, bell, POLL);
    int err = rt_ring_enter(r, true, 0, -1);
    if (err)
        return err;
    if (rt_ring_unsubmitted(r) || !next_is(r, NOP, &res) || res != 0 || rt_ring_ready(r))
        return -EOPNOTSUPP;

    /* The flag shows deferred work, and entering runs it. */
    rt_sys_eventfd_add(bell);
    if (!rt_ring_wants(r))
        return -EOPNOTSUPP;
    rt_ring_enter(r, true, 0, -1);
    if (!next_is(r, POLL, &res) || !(res & POLLIN))
        return -EOPNOTSUPP;
    rt_sys_eventfd_drain(bell);

    /* A wait ends by its own time-out; a removed poll completes, its removal does not. */
    prepare(r, IORING_OP_POLL_ADD, bell, POLL_AGAIN);
    rt_ring_enter(r, true, 1, BRIEFLY_NS);
    if (rt_ring_ready(r))
        return -EOPNOTSUPP;
    struct io_uring_sqe *sqe = rt_ring_sqe(r);
    *sqe = (struct io_uring_sqe){.opcode = IORING_OP_POLL_REMOVE, .fd = -1, .addr = POLL_AGAIN,
                                 .flags = IOSQE_CQE_SKIP_SUCCESS, .user_data = REMOVE};
    rt_ring_enter(r, true, 0, -1);
    if (!next_is(r, POLL_AGAIN, &res) || res != -ECANCELED || rt_ring_ready(r))
        return -EOPNOTSUPP;
    return 0;
}

int rt_ring_self_test(void) {
    struct rt_ring ring;
    int err = rt_ring_setup(&ring, 8, 16);
    if (err)
        return err;
    int bell = rt_sys_eventfd(true);
    err = bell < 0 ? bell : rt_ring_enable(&ring);
    if (err == 0)
        err = run(&ring, bell);
    rt_ring_disable(&ring);
    rt_ring_free(&ring);
    if (bell >= 0)
        rt_sys_close(bell);
    return err;
}
