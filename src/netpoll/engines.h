/* engines.h - the netpoll engines, for select.c, and what they share. */
#ifndef RT_ENGINES_H
#define RT_ENGINES_H

#include "sched/poller.h"

extern uint32_t rt_uring_closed; /* rings that had to be closed for a close; tests ask */
extern const struct rt_poller rt_uring_poller, rt_epoll_poller;

/* A sleep in an engine has ended, with 0 or -errno; *refused, which is the sleeper's, counts. Where
 * it is refused again and again this naps (refusal.c). Outside. */
void rt_wait_ended(uint32_t *refused, const char *call, int err);

#endif
