/* ring.c - one io_uring: set-up, the worker it is bound to, and the two ways to enter the kernel.
 *
 * Flags: SINGLE_ISSUER | DEFER_TASKRUN, so completions are made when the owner enters the kernel
 * and not by interrupting it; TASKRUN_FLAG says in the mapped memory that there are some;
 * SUBMIT_ALL goes on after an entry that fails. R_DISABLED: rings are made by the thread that
 * starts the runtime, where running out of descriptors or memory is still an answer and not an
 * accident, and bound to their worker when that enables them. Price: their memory lies near the
 * thread that started. Their descriptors are not registered: that would hold them for as long as
 * their thread lives.
 *
 * liburing 2.3 or newer does the work: it maps the ring, keeps the four indices and orders them
 * against the kernel. One thing it cannot do: sleep without being counted as waiting for a disk,
 * which monitors show as a busy machine (NO_IOWAIT, Linux 6.15; io_uring_set_iowait came with
 * liburing 2.10, and distributions still carry 2.3 to 2.9). So rt_ring_wait shows the kernel the
 * tail of the submissions, as each submitting call of liburing does first, and makes the one
 * system call by io_uring_enter2 with the flags of io_uring_submit_and_wait_timeout and this one.
 * Submitting first and waiting then would take two calls for each sleep.
 *
 * An error of io_uring_enter(2) that does not pass by itself (those that may: refusal.c) would
 * leave all who wait on the ring waiting, and its M spinning: somebody has closed the ring's
 * descriptor, or a seccomp filter came late. So would a completion that the kernel had no memory
 * for (EBADR, once). That is the end of the program, with a line that says so.
 *
 * A ring that was closed for a close (uring_owner.c) is made again, for the same thread. Who rings
 * its bell may be late: so the number of the eventfd is given back at the end only. But the read in
 * flight on the freed ring may still be there, and must not answer for the next one's: so it is
 * another eventfd behind the number each time (dup3). Nor is the number of a freed ring given back,
 * or where all descriptors are used up the next could not be made.
 *
 * errno: on x86-64 and aarch64 liburing makes its system calls by itself and does not touch errno;
 * a build of it that goes through libc does. */
#include "netpoll/ring.h"

#include "base/chaos.h"
#include "base/fault.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/sys_io.h"

#include <errno.h>
#include <string.h>

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

/* What an older kernel says to these flags, and what it can. */
static int as_older_kernel(unsigned flags) {
    static const struct {
        unsigned flag;
        uint32_t since;
    } known[] = {
        {IORING_SETUP_CQSIZE, RT_KERNEL(5, 5)},
        {IORING_SETUP_CLAMP, RT_KERNEL(5, 6)},
        {IORING_SETUP_R_DISABLED, RT_KERNEL(5, 10)},
        {IORING_SETUP_SUBMIT_ALL, RT_KERNEL(5, 18)},
        {IORING_SETUP_TASKRUN_FLAG, RT_KERNEL(5, 19)},
        {IORING_SETUP_SINGLE_ISSUER, RT_KERNEL(6, 0)},
        {IORING_SETUP_DEFER_TASKRUN, RT_KERNEL(6, 1)},
    };
    if (rt_fault_before(RT_KERNEL(5, 1)))
        return -ENOSYS;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if ((flags & known[i].flag) && rt_fault_before(known[i].since))
            return -EINVAL;
    return 0;
}

static int set_up(struct io_uring *u, unsigned entries, struct io_uring_params *p) {
    const unsigned needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
    int err = as_older_kernel(p->flags);
    if (err == 0)
        err = io_uring_queue_init_params(entries, u, p);
    if (err)
        return err;
    if (rt_fault_before(RT_KERNEL(6, 15)))
        u->features &= ~RT_FEAT_NO_IOWAIT;
    err = rt_fault(RT_FAULT_MMAP);
    if (err == 0 && (p->features & needed) != needed)
        err = -EOPNOTSUPP;
    if (err == 0)
        err = io_uring_ring_dontfork(u); /* a forked child does not get it */
    if (err)
        io_uring_queue_exit(u);
    return err;
}

static int make(struct rt_ring *r, unsigned entries, unsigned completions) {
    unsigned tiny = (unsigned)-rt_fault(RT_FAULT_TINY);
    if (tiny) {
        entries = tiny;
        completions = 2 * tiny;
    }
    struct io_uring_params p = {
        .flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_SUBMIT_ALL |
                 IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
        .cq_entries = completions,
    };
    if (RT_RING_DEFERRED)
        p.flags |= IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
    int err = rt_fault(RT_FAULT_RING);
    if (err == 0)
        err = KEEP_ERRNO(set_up(&r->u, entries, &p));
    r->made = err == 0;
    return err;
}

/* ---- a ring after the other ------------------------------------------------------------------ */

static void close_fd(int *fd) {
    if (*fd >= 0)
        rt_sys_close(*fd);
    *fd = -1;
}

static int new_bell(struct rt_ring *r) {
    int fd = rt_sys_eventfd(false); /* blocking: reads in flight of a non-blocking one fail */
    if (fd < 0)
        return fd;
    if (r->bell < 0) {
        r->bell = fd;
        return 0;
    }
    int err = rt_sys_replace(fd, r->bell);
    rt_sys_close(fd);
    return err;
}

void rt_ring_init(struct rt_ring *r) {
    *r = (struct rt_ring){.bell = -1, .kept = -1};
}

int rt_ring_make(struct rt_ring *r, unsigned entries, unsigned completions) {
    static uint32_t lock; /* or two that need two descriptors would each take one */
    bool first = r->bell < 0;
    rt_futex_lock(&lock);
    close_fd(&r->kept);
    int err = new_bell(r);
    if (err == 0)
        err = make(r, entries, completions);
    if (err && first)
        close_fd(&r->bell); /* nobody knows it */
    rt_futex_unlock(&lock);
    return err;
}

void rt_ring_free(struct rt_ring *r) {
    if (!r->made)
        return;
    r->made = false;
    if (rt_sys_replace(r->bell, r->u.ring_fd) == 0) {
        r->kept = r->u.ring_fd;
        r->u.ring_fd = -1; /* not for liburing to close */
    }
    (void)KEEP_ERRNO((io_uring_queue_exit(&r->u), 0));
}

void rt_ring_end(struct rt_ring *r) {
    rt_ring_free(r);
    close_fd(&r->kept);
    close_fd(&r->bell);
}

int rt_ring_enable(struct rt_ring *r) {
    /* io_uring_enable_rings is in the headers of liburing 2.3, but not in its shared library. */
    unsigned fd = (unsigned)r->u.ring_fd;
    int err = rt_fault(RT_FAULT_ENABLE);
    if (err == 0)
        err = KEEP_ERRNO(io_uring_register(fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0));
    if (err < 0)
        return err;
    r->wait_flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
    if (r->u.features & RT_FEAT_NO_IOWAIT)
        r->wait_flags |= RT_ENTER_NO_IOWAIT;
    unsigned workers[2] = {1, 1}; /* this only makes things cheaper */
    if (rt_fault(RT_FAULT_REGISTER) == 0)
        (void)KEEP_ERRNO(io_uring_register_iowq_max_workers(&r->u, workers));
    return 0;
}

/* The prepared entries become the kernel's: their number. */
static unsigned show_entries(struct io_uring *u) {
    u->sq.sqe_head = u->sq.sqe_tail;
    io_uring_smp_store_release(u->sq.ktail, u->sq.sqe_tail); /* the entries before the tail */
    return io_uring_sq_ready(u);
}

/* What io_uring_enter said, n, as the two calls below report it. */
static int entered(const struct rt_ring *r, int n) {
    if (rt_likely(n >= 0))
        return 0;
    bool passes = n == -EINTR || n == -EAGAIN || n == -EBUSY || n == -ENOMEM || n == -ETIME;
    if (passes || r->on_trial)
        return n;
    if (n == -EBADR)
        rt_fatal("io_uring had no memory for a completion and has lost it: somebody would wait for "
                 "ever");
    rt_fatal("io_uring_enter(2) worked at the start and fails now: %s (was the descriptor of the "
             "ring closed by somebody else, or is there a late seccomp filter?)",
             strerror(-n));
}

int rt_ring_submit(struct rt_ring *r) {
    int n = rt_fault(RT_FAULT_SUBMIT);
    if (n == 0 && rt_fault(RT_FAULT_SHORT))
        n = KEEP_ERRNO(io_uring_enter((unsigned)r->u.ring_fd, show_entries(&r->u) ? 1 : 0, 0,
                                      IORING_ENTER_GETEVENTS, NULL));
    else if (n == 0)
        n = KEEP_ERRNO(io_uring_submit_and_get_events(&r->u));
    return entered(r, n);
}

int rt_ring_wait(struct rt_ring *r, int64_t timeout_ns) {
    struct __kernel_timespec ts = {.tv_sec = timeout_ns / 1000000000,
                                   .tv_nsec = timeout_ns % 1000000000};
    struct io_uring_getevents_arg arg = {.ts = timeout_ns < 0 ? 0 : (uint64_t)(uintptr_t)&ts};
    int n = rt_fault(RT_FAULT_WAIT);
    if (n == 0 && !r->on_trial && rt_chaos_flip("ring: a wait is interrupted"))
        n = -EINTR;
    if (n == 0) {
        unsigned submit = show_entries(&r->u);
        n = KEEP_ERRNO(io_uring_enter2((unsigned)r->u.ring_fd, submit, 1, r->wait_flags,
                                       (void *)&arg, sizeof arg));
    }
    return entered(r, n);
}
