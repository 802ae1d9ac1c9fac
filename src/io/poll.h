/* poll.h - waiting for readiness, for poll.c and when.c. */
#ifndef RT_POLL_H
#define RT_POLL_H

#include "netpoll/fd.h"

/* What of the caller's events can be waited for; POLLERR and POLLHUP always can. */
static inline unsigned rt_poll_mask(short events) {
    return (unsigned short)events & (unsigned)(RT_IN_EVENTS | RT_OUT_EVENTS);
}

static inline enum rt_why rt_poll_why(unsigned mask) {
    return rt_fd_dirs(mask) & 1u << RT_IN ? RT_WHY_IO_READ : RT_WHY_IO_WRITE;
}

/* The revents; as rt_fd_wait; -ETIMEDOUT also when the deadline is over before. */
int rt_poll_until(struct rt_fd_op *op, unsigned mask, int64_t deadline);

#endif
