/* ring.c - one io_uring, by hand.
 *
 * Flags: SINGLE_ISSUER | DEFER_TASKRUN, so completions are made when the owner enters the kernel
 * and not by interrupting it; TASKRUN_FLAG says in the mapped memory that there are some;
 * SUBMIT_ALL goes on after an entry that fails. R_DISABLED: rings are made by the thread that
 * starts the runtime, where running out of descriptors or memory is still an answer and not an
 * accident, and bound to their worker when that enables them. Price: their memory lies near the
 * thread that started.
 *
 * The kernel writes the completions and its head of the submissions; both sides order by release
 * and acquire on the four indices. Without SQPOLL the kernel reads submissions in io_uring_enter
 * alone. */
#include "netpoll/ring.h"

#include "base/sys.h"
#include "base/sys_io.h"

#include <errno.h>
#include <linux/time_types.h>
#include <string.h>

static int map_ring(struct rt_ring *r, const struct io_uring_params *p) {
    size_t sq = p->sq_off.array + p->sq_entries * sizeof(uint32_t);
    size_t cq = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
    r->map_bytes = sq > cq ? sq : cq;
    r->sqe_bytes = p->sq_entries * sizeof(struct io_uring_sqe);
    r->map = rt_sys_ring_map(r->fd, IORING_OFF_SQ_RING, r->map_bytes);
    r->sqe_map = r->map ? rt_sys_ring_map(r->fd, IORING_OFF_SQES, r->sqe_bytes) : NULL;
    if (!r->sqe_map)
        return -ENOMEM;
    char *base = r->map;
    r->sq_khead = (uint32_t *)(void *)(base + p->sq_off.head);
    r->sq_ktail = (uint32_t *)(void *)(base + p->sq_off.tail);
    r->sq_kflags = (uint32_t *)(void *)(base + p->sq_off.flags);
    r->sq_mask = p->sq_entries - 1;
    r->sqes = r->sqe_map;
    r->cq_khead = (uint32_t *)(void *)(base + p->cq_off.head);
    r->cq_ktail = (uint32_t *)(void *)(base + p->cq_off.tail);
    r->cq_mask = p->cq_entries - 1;
    r->cqes = (struct io_uring_cqe *)(void *)(base + p->cq_off.cqes);
    uint32_t *array = (uint32_t *)(void *)(base + p->sq_off.array);
    for (uint32_t i = 0; i < p->sq_entries; i++)
        array[i] = i; /* entries go in order, so this never changes */
    return 0;
}

int rt_ring_setup(struct rt_ring *r, unsigned entries, unsigned completions) {
    struct io_uring_params p = {
        .flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP |
                 IORING_SETUP_CQSIZE,
        .cq_entries = completions,
    };
    *r = (struct rt_ring){.fd = -1};
    int fd = rt_sys_ring_setup(entries, &p);
    if (fd < 0)
        return fd;
    r->fd = r->enter_fd = fd;
    r->features = p.features;
    const unsigned needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
    int err = (p.features & needed) == needed ? map_ring(r, &p) : -EOPNOTSUPP;
    if (err)
        rt_ring_free(r);
    return err;
}

void rt_ring_free(struct rt_ring *r) {
    if (r->fd < 0)
        return;
    if (r->sqe_map)
        rt_sys_unmap(r->sqe_map, r->sqe_bytes);
    if (r->map)
        rt_sys_unmap(r->map, r->map_bytes);
    rt_sys_close(r->fd);
    *r = (struct rt_ring){.fd = -1};
}

int rt_ring_enable(struct rt_ring *r) {
    int err = rt_sys_ring_register(r->fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    if (err < 0)
        return err;
    /* Both of these only make things cheaper. */
    struct io_uring_rsrc_update up = {.offset = ~0U, .data = (unsigned)r->fd};
    if (rt_sys_ring_register(r->fd, RT_REG_RING_FDS, &up, 1) == 1) {
        r->enter_fd = (int)up.offset;
        r->enter_flags = IORING_ENTER_REGISTERED_RING;
    }
    unsigned workers[2] = {1, 1};
    rt_sys_ring_register(r->fd, RT_REG_IOWQ_WORKERS, workers, 2);
    return 0;
}

void rt_ring_disable(struct rt_ring *r) {
    if (!r->enter_flags)
        return;
    struct io_uring_rsrc_update up = {.offset = (unsigned)r->enter_fd};
    rt_sys_ring_register(r->fd, RT_UNREG_RING_FDS, &up, 1);
    r->enter_fd = r->fd;
    r->enter_flags = 0;
}

struct io_uring_sqe *rt_ring_sqe(struct rt_ring *r) {
    if (rt_ring_unsubmitted(r) > r->sq_mask)
        return NULL;
    struct io_uring_sqe *sqe = &r->sqes[r->sq_tail++ & r->sq_mask];
    memset(sqe, 0, sizeof *sqe);
    return sqe;
}

int rt_ring_enter(struct rt_ring *r, bool get, unsigned min, int64_t timeout_ns) {
    struct __kernel_timespec ts = {.tv_sec = timeout_ns / 1000000000,
                                   .tv_nsec = timeout_ns % 1000000000};
    struct io_uring_getevents_arg arg = {.ts = timeout_ns < 0 ? 0 : (uint64_t)(uintptr_t)&ts};
    unsigned flags = r->enter_flags | (get || min ? IORING_ENTER_GETEVENTS : 0);
    uint32_t submit = rt_ring_unsubmitted(r);
    rt_store_release(r->sq_ktail, r->sq_tail); /* the entries before the tail that shows them */
    if (min == 0) {
        int n = rt_sys_ring_enter(r->enter_fd, submit, 0, flags, NULL, 0);
        return n < 0 ? n : 0;
    }
    flags |= IORING_ENTER_EXT_ARG;
    if (r->features & RT_FEAT_NO_IOWAIT)
        flags |= RT_ENTER_NO_IOWAIT;
    int n = rt_sys_ring_enter(r->enter_fd, submit, min, flags, &arg, sizeof arg);
    return n < 0 ? n : 0;
}
