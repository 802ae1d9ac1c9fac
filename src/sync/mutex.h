/* mutex.h - what a condition variable must know of a mutex. The protocol is in mutex.c. */
#ifndef RT_MUTEX_H
#define RT_MUTEX_H

#include "sched/sched.h"

#include <gort/sync.h>

enum {
    RT_MUTEX_LOCKED = 1,
    RT_MUTEX_QUEUED = 2,
    RT_MUTEX_WOKEN = 4,
    RT_MUTEX_FLAGS = 7,
    RT_MUTEX_OWNER_SHIFT = 3
};

static inline bool rt_mutex_locked(const go_mutex *m) {
    return rt_load_relaxed(&m->rt_state) & RT_MUTEX_LOCKED;
}

/* The unlock, if nobody is to be woken: may be called under another lock. */
static inline bool rt_mutex_unlock_alone(go_mutex *m) {
    uint32_t state = rt_load_relaxed(&m->rt_state);
    do {
        uint32_t flags = state & RT_MUTEX_FLAGS;
        if (rt_unlikely(flags != RT_MUTEX_LOCKED) &&
            (flags & (RT_MUTEX_LOCKED | RT_MUTEX_WOKEN)) != (RT_MUTEX_LOCKED | RT_MUTEX_WOKEN))
            return false;
    } while (rt_unlikely(!rt_cas_release(&m->rt_state, &state, /* pairs with lock's acquire */
                                         state & (RT_MUTEX_QUEUED | RT_MUTEX_WOKEN))));
    return true;
}

#endif
