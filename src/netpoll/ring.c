/* ring.c - one io_uring: set-up, the worker it is bound to, and the two ways to enter the kernel.
 *
 * Flags: SINGLE_ISSUER | DEFER_TASKRUN, so completions are made when the owner enters the kernel
 * and not by interrupting it; TASKRUN_FLAG says in the mapped memory that there are some;
 * SUBMIT_ALL goes on after an entry that fails. R_DISABLED: rings are made by the thread that
 * starts the runtime, where running out of descriptors or memory is still an answer and not an
 * accident, and bound to their worker when that enables them. Price: their memory lies near the
 * thread that started.
 *
 * liburing 2.3 or newer does the work: it maps the ring, keeps the four indices and orders them
 * against the kernel. One thing it cannot do: sleep without being counted as waiting for a disk,
 * which monitors show as a busy machine (NO_IOWAIT, Linux 6.15; io_uring_set_iowait came with
 * liburing 2.10, and distributions still carry 2.3 to 2.9). So rt_ring_wait shows the kernel the
 * tail of the submissions, as each submitting call of liburing does first, and makes the one
 * system call by io_uring_enter2 with the flags of io_uring_submit_and_wait_timeout and this one.
 * Submitting first and waiting then would take two calls for each sleep.
 *
 * errno: on x86-64 and aarch64 liburing makes its system calls by itself and does not touch errno;
 * a build of it that goes through libc does. */
#include "netpoll/ring.h"

#include "base/fault.h"

#include <errno.h>

/* Newer than the headers of liburing 2.3. */
#define RT_FEAT_NO_IOWAIT  (1U << 17)
#define RT_ENTER_NO_IOWAIT (1U << 7)

#define KEEP_ERRNO(call) \
    ({ \
        int saved_ = errno; \
        int r_ = (call); \
        errno = saved_; \
        r_; \
    })

static int set_up(struct io_uring *u, unsigned entries, struct io_uring_params *p) {
    const unsigned needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
    int err = io_uring_queue_init_params(entries, u, p);
    if (err)
        return err;
    err = rt_fault(RT_FAULT_MMAP);
    if (err == 0 && (p->features & needed) != needed)
        err = -EOPNOTSUPP;
    if (err == 0)
        err = io_uring_ring_dontfork(u); /* a forked child does not get it */
    if (err)
        io_uring_queue_exit(u);
    return err;
}

int rt_ring_setup(struct rt_ring *r, unsigned entries, unsigned completions) {
    struct io_uring_params p = {
        .flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP |
                 IORING_SETUP_CQSIZE,
        .cq_entries = completions,
    };
    *r = (struct rt_ring){0};
    int err = rt_fault(RT_FAULT_RING);
    if (err == 0)
        err = KEEP_ERRNO(set_up(&r->u, entries, &p));
    r->made = err == 0;
    return err;
}

void rt_ring_free(struct rt_ring *r) {
    if (!r->made)
        return;
    r->made = false;
    (void)KEEP_ERRNO((io_uring_queue_exit(&r->u), 0));
}

int rt_ring_enable(struct rt_ring *r) {
    /* io_uring_enable_rings is in the headers of liburing 2.3, but not in its shared library. */
    unsigned fd = (unsigned)r->u.ring_fd;
    int err = KEEP_ERRNO(io_uring_register(fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0));
    if (err < 0)
        return err;
    r->wait_flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
    if (r->u.features & RT_FEAT_NO_IOWAIT)
        r->wait_flags |= RT_ENTER_NO_IOWAIT;
    /* Both of these only make things cheaper. */
    if (KEEP_ERRNO(io_uring_register_ring_fd(&r->u)) == 1)
        r->wait_flags |= IORING_ENTER_REGISTERED_RING;
    unsigned workers[2] = {1, 1};
    (void)KEEP_ERRNO(io_uring_register_iowq_max_workers(&r->u, workers));
    return 0;
}

void rt_ring_disable(struct rt_ring *r) {
    if (!(r->wait_flags & IORING_ENTER_REGISTERED_RING))
        return;
    (void)KEEP_ERRNO(io_uring_unregister_ring_fd(&r->u));
    r->wait_flags &= ~IORING_ENTER_REGISTERED_RING;
}

int rt_ring_submit(struct rt_ring *r) {
    int n = KEEP_ERRNO(io_uring_submit_and_get_events(&r->u));
    return n < 0 ? n : 0;
}

/* The prepared entries become the kernel's: their number. */
static unsigned show_entries(struct io_uring *u) {
    u->sq.sqe_head = u->sq.sqe_tail;
    io_uring_smp_store_release(u->sq.ktail, u->sq.sqe_tail); /* the entries before the tail */
    return io_uring_sq_ready(u);
}

int rt_ring_wait(struct rt_ring *r, int64_t timeout_ns) {
    struct __kernel_timespec ts = {.tv_sec = timeout_ns / 1000000000,
                                   .tv_nsec = timeout_ns % 1000000000};
    struct io_uring_getevents_arg arg = {.ts = timeout_ns < 0 ? 0 : (uint64_t)(uintptr_t)&ts};
    unsigned submit = show_entries(&r->u);
    int n = KEEP_ERRNO(io_uring_enter2((unsigned)r->u.enter_ring_fd, submit, 1, r->wait_flags,
                                       (void *)&arg, sizeof arg));
    return n < 0 ? n : 0;
}
