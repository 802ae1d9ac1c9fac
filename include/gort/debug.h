/* gort/debug.h - looking inside. */
#ifndef GORT_DEBUG_H
#define GORT_DEBUG_H

#include <gort/base.h>

GO_BEGIN_DECLS

/* Counters and facts; each number is right on its own, all together are no snapshot. */
struct go_stats {
    size_t size;             /* in: sizeof(struct go_stats); out: how much of it was filled */
    unsigned procs;          /* processors (P) */
    unsigned threads;        /* OS threads of the runtime */
    uint64_t tasks_live;     /* green threads that have not ended */
    uint64_t spawned;        /* green threads ever spawned */
    uint64_t ended;          /* ... and ended */
    uint64_t runnable;       /* waiting in the run queues */
    uint64_t parks;          /* times a green thread parked (yields not counted) */
    uint64_t steals;         /* green threads taken from another P */
    uint64_t wakes;          /* sleeping OS threads woken */
    uint64_t polls;          /* passes over the netpoller */
    uint64_t fd_waits;       /* green threads parked on descriptors now */
    size_t stacks_mapped;    /* bytes of address space for stacks */
    size_t stacks_cached;    /* stacks bound once and free now */
    const char *netpoll;     /* "uring" or "epoll" */
    const char *netpoll_why; /* why that engine, for a log line */
    unsigned blocking_threads; /* threads of the pool of go_blocking, busy or idle */
    unsigned blocking_queued;  /* calls that wait for one of them */
};
#define GO_STATS_INIT \
    {sizeof(struct go_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, 0, 0}

/* Fill *out. Never parks, any thread. 0; -EINVAL when out is NULL or its size unknown; -ENXIO when
 * the runtime is not running. */
GO_API int go_stats(struct go_stats *out);

/* "0.1.0". */
GO_API const char *go_version(void);

GO_END_DECLS

#endif
