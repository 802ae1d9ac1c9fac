/* engines.h - the netpoll engines, for select.c. */
#ifndef RT_ENGINES_H
#define RT_ENGINES_H

#include "sched/poller.h"

extern const struct rt_poller rt_uring_poller, rt_epoll_poller;

#endif
