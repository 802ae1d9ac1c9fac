/* chaos.h - delays and odd decisions at the points where a protocol is most tender.
 *
 * GORT_CHAOS=p makes each rt_chaos_delay() wait for up to 50 us, and each rt_chaos_flip() say yes,
 * with probability p; GORT_SEED makes the dice of each thread repeatable (not the schedule, which
 * is the kernel's). Compiled into Debug and sanitizer builds alone: a Release build has nothing at
 * these points. */
#ifndef RT_CHAOS_H
#define RT_CHAOS_H

#include "base/atomic.h"

#ifdef GORT_DEBUG
#define RT_CHAOS 1
extern uint32_t rt_chaos_limit; /* p * 2^32; 0 = off; set before the workers start */
void rt_chaos_delay_slow(void);
bool rt_chaos_flip_slow(void);
static inline void rt_chaos_delay(void) {
    if (rt_unlikely(rt_load_relaxed(&rt_chaos_limit)))
        rt_chaos_delay_slow();
}
static inline bool rt_chaos_flip(void) {
    return rt_unlikely(rt_load_relaxed(&rt_chaos_limit)) && rt_chaos_flip_slow();
}
#else
#define RT_CHAOS 0
static inline void rt_chaos_delay(void) {
}
static inline bool rt_chaos_flip(void) {
    return false;
}
#endif

/* probability: 0..1 */
void rt_chaos_start(double probability, uint64_t seed);

#endif
