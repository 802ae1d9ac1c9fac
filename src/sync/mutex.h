/* mutex.h - what a condition variable must know of a mutex. The protocol is in mutex.c. */
#ifndef RT_MUTEX_H
#define RT_MUTEX_H

#include "sched/sched.h"

#include <gort/sync.h>

enum { RT_MUTEX_LOCKED = 1, RT_MUTEX_QUEUED = 2, RT_MUTEX_OWNER_SHIFT = 2 };

static inline bool rt_mutex_locked(const go_mutex *m) {
    return rt_load_relaxed(&m->rt_state) & RT_MUTEX_LOCKED;
}

/* The unlock when nobody is queued, which wakes nobody: may be called under another lock. */
static inline bool rt_mutex_unlock_alone(go_mutex *m) {
    uint32_t state = rt_load_relaxed(&m->rt_state);
    return (state & (RT_MUTEX_LOCKED | RT_MUTEX_QUEUED)) == RT_MUTEX_LOCKED &&
           rt_cas_release(&m->rt_state, &state, 0); /* pairs with lock's acquire */
}

#endif
