/* spin.h - is it worth while to spin before a park? */
#ifndef RT_SPIN_H
#define RT_SPIN_H

#include "sched/runq.h"

/* About a microsecond: what a park and a wake cost. */
enum { RT_SPINS = 40 };

/* Not when the holder cannot be running now, and not when this P has something better to do: then
 * the switch to it costs less than the spin. Go's rule (sync_runtime_canSpin). */
static inline bool rt_spin_pays(void) {
    if (rt_load_relaxed(&rt.procs) < 2)
        return false;
    struct rt_m *m = rt_m();
    if (!m)
        return true;
    const struct rt_p *p = rt_load_relaxed(&m->p);
    return !rt_load_relaxed(&p->runnext) && rt_runq_len_any(p) == 0;
}

/* The caller is about to park for a lock: so much for running it beside others. A hint. */
static inline void rt_contended(void) {
    struct rt_m *m = rt_m();
    if (m)
        rt_bump(&rt_load_relaxed(&m->p)->contended);
}

#endif
