/* sysmon.h - the thread that looks after the Ps. See sysmon.c. */
#ifndef RT_SYSMON_H
#define RT_SYSMON_H

#include "sched/sched.h"

/* Make sysmon look around at once. May run in a signal handler, and when there is no sysmon. */
void rt_sysmon_call_sig(void);
/* Semaphores that were released by a signal handler, and whether anybody waits for a semaphore;
 * src/sync/sem.c. */
void rt_sem_answer_all(void);
bool rt_sem_waited(void);

extern int64_t rt_sysmon_tick_ns; /* tests change it before the start */
int rt_sysmon_start(void);
void rt_sysmon_stop(void);

/* An M is awake: sysmon must not sleep for ever. */
extern uint32_t rt_sysmon_asleep;
void rt_sysmon_wake_slow(void);
static inline void rt_sysmon_awake(void) {
    rt_fence_light(); /* not idle any more, then this load; pairs with the heavy one in sysmon.c */
    if (rt_unlikely(rt_load_relaxed(&rt_sysmon_asleep)))
        rt_sysmon_wake_slow();
}

/* A foreign thread waits no more, or has taken back what would have woken somebody, and no M has
 * noticed: has go_run come to a deadlock by that? */
static inline void rt_sysmon_look(void) {
    if (rt_unlikely(rt_load_relaxed(&rt.watch_deadlock)))
        rt_sysmon_awake();
}

#endif
