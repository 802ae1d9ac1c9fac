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

static void prepare_poll(struct rt_ring *r, int fd, uint64_t data) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->u);
    io_uring_prep_poll_add(sqe, fd, POLLIN);
    sqe->user_data = data;
}

/* The next completion must be `data`; *res is its result. */
static bool next_is(struct rt_ring *r, uint64_t data, int *res) {
    struct io_uring_cqe *cqe;
    unsigned head;
    bool ok = false;
    io_uring_for_each_cqe(&r->u, head, cqe) {
        ok = cqe->user_data == data;
        *res = cqe->res;
        io_uring_cq_advance(&r->u, 1);
        break;
    }
    return ok;
}

static int run(struct rt_ring *r, int bell) {
    int res = 0;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->u);
    io_uring_prep_nop(sqe);
    sqe->user_data = NOP;
    prepare_poll(r, bell, POLL);
    int err = rt_ring_submit(r);
    if (err)
        return err;
    if (io_uring_sq_ready(&r->u) || !next_is(r, NOP, &res) || res != 0 || io_uring_cq_ready(&r->u))
        return -EOPNOTSUPP;

    /* The flag shows deferred work, and entering runs it. */
    rt_sys_eventfd_add(bell);
    if (RT_RING_DEFERRED && !rt_ring_wants(r))
        return -EOPNOTSUPP;
    rt_ring_submit(r);
    if (!next_is(r, POLL, &res) || !(res & POLLIN))
        return -EOPNOTSUPP;
    rt_sys_eventfd_drain(bell);

    /* A wait ends by its own time-out; a cancelled poll completes, its cancel does not. */
    prepare_poll(r, bell, POLL_AGAIN);
    err = rt_ring_wait(r, BRIEFLY_NS);
    bool waited = err == 0 || err == -ETIME || err == -EINTR; /* 0: the poll was submitted */
    if (!waited || io_uring_cq_ready(&r->u))
        return -EOPNOTSUPP;
    sqe = io_uring_get_sqe(&r->u);
    io_uring_prep_cancel64(sqe, POLL_AGAIN, 0);
    sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = REMOVE;
    rt_ring_submit(r);
    if (!next_is(r, POLL_AGAIN, &res) || res != -ECANCELED || io_uring_cq_ready(&r->u))
        return -EOPNOTSUPP;
    return 0;
}

int rt_ring_self_test(void) {
    struct rt_ring ring;
    rt_ring_init(&ring);
    ring.on_trial = true;
    int err = rt_ring_make(&ring, 8, 16);
    if (err)
        return err;
    int bell = rt_sys_eventfd(true);
    err = bell < 0 ? bell : rt_ring_enable(&ring);
    if (err == 0)
        err = run(&ring, bell);
    rt_ring_end(&ring);
    if (bell >= 0)
        rt_sys_close(bell);
    return err;
}
