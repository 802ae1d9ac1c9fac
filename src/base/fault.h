/* fault.h - points at which a test can make the world fail.
 *
 * rt_fault(site) is asked right before a system call or an allocation. Off, it is one load of a
 * cold word beside something that costs a microsecond. A test arms it: the nth call of a site, and
 * with `forever` every one after it, reports the error instead of doing its work. tests/fault has
 * the table of what is promised then. */
#ifndef RT_FAULT_H
#define RT_FAULT_H

#include "base/atomic.h"

enum rt_fault_site {
    RT_FAULT_ALLOC, RT_FAULT_MMAP, RT_FAULT_GUARD, RT_FAULT_THREAD, RT_FAULT_RING, RT_FAULT_EPOLL,
    RT_FAULT_EVENTFD, RT_FAULT_SOCKET, RT_FAULT_LOOKUP, RT_FAULT_FILE,
    RT_FAULT_NOWAIT, RT_FAULT_PIDFD, RT_FAULT_SIGNALFD,
    RT_FAULT_ENABLE,    /* binding a ring to its worker */
    RT_FAULT_REGISTER,  /* what only makes a ring cheaper */
    RT_FAULT_SUBMIT, RT_FAULT_WAIT,  /* io_uring_enter(2), without and with waiting */
    RT_FAULT_SHORT,     /* no error: a submission takes one entry and leaves the rest */
    RT_FAULT_TINY,      /* no error: a ring has that many entries, and twice as many completions */
    RT_FAULT_EPOLL_ADD, RT_FAULT_EPOLL_MOD, RT_FAULT_EPOLL_DEL, RT_FAULT_EPOLL_WAIT,
    RT_FAULT_PWAIT2,    /* epoll_pwait2(2) */
    RT_FAULT_SITES
};

enum { RT_FAULT_FOREVER = 1 << 30 };

struct rt_fault_point {
    uint32_t countdown; /* 0: off; 1: the next call fails; RT_FAULT_FOREVER: and all after it */
    int error;          /* positive errno */
    uint32_t hits;      /* calls that were told the error since it was armed */
};

extern struct rt_fault_point rt_fault_points[RT_FAULT_SITES];
extern bool rt_faults_armed;

int rt_fault_slow(enum rt_fault_site site);

/* 0, or the -errno to report. */
static inline int rt_fault(enum rt_fault_site site) {
    return rt_unlikely(rt_load_relaxed(&rt_faults_armed)) ? rt_fault_slow(site) : 0;
}

/* nth < RT_FAULT_FOREVER. */
void rt_fault_arm(enum rt_fault_site site, uint32_t nth, bool forever, int error);
void rt_fault_disarm(void);

/* As if the kernel was older: 0, the one that runs, or RT_KERNEL(6, 1). What came later is refused
 * by the call that asks for it, with the error that it would say. Set before the runtime starts. */
#define RT_KERNEL(major, minor) ((uint32_t)(major) << 8 | (uint32_t)(minor))
extern uint32_t rt_fault_kernel;

static inline bool rt_fault_before(uint32_t kernel) {
    return rt_unlikely(rt_load_relaxed(&rt_fault_kernel) != 0) && rt_fault_kernel < kernel;
}

#endif
