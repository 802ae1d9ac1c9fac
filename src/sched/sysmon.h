/* sysmon.h - the thread that looks after the Ps. See sysmon.c. */
#ifndef RT_SYSMON_H
#define RT_SYSMON_H

#include "base/atomic.h"

int rt_sysmon_start(void);
void rt_sysmon_stop(void);

/* An M is awake: sysmon must not sleep for ever. */
extern uint32_t rt_sysmon_asleep;
void rt_sysmon_wake_slow(void);
static inline void rt_sysmon_awake(void) {
    if (rt_unlikely(rt_load_relaxed(&rt_sysmon_asleep)))
        rt_sysmon_wake_slow();
}

#endif
