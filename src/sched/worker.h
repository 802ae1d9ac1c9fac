/* worker.h - the threads of the Ms. See worker.c. */
#ifndef RT_WORKER_H
#define RT_WORKER_H

#include "sched/sched.h"

/* An M that has no P, in zeroed memory. */
void rt_m_init(struct rt_m *m, uint32_t index);

/* Start rt.nms threads, which set up their netpollers and then wait. 0, or -errno, and none is
 * left. */
int rt_workers_start(void);
/* Let them run, or end at once. */
void rt_workers_release(bool run);
/* The first n have been told to end: wait for them. */
void rt_workers_join(uint32_t n);

/* One more M, which will be a spare, since that change of procs.c has begun; sysmon. 0;
 * RT_WORKER_AGAIN: in the place of one that is gone; or -errno. */
enum { RT_WORKER_AGAIN = 1 };
int rt_worker_start_spare(uint32_t change);

/* One more thread than procs and sysmon, of all that max_threads allows; and back when it has
 * ended. */
bool rt_thread_take(void);
void rt_thread_give(void);

#endif
