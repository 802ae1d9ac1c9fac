/* chaos.h - delays and odd decisions at the points where a protocol is most tender.
 *
 * GORT_CHAOS=p makes each rt_chaos_delay(point) wait for up to 50 us, and each rt_chaos_flip(point)
 * say yes, with probability p: a sleep ends for no reason, a P leaves its thread where a G parks or
 * sysmon looks, a wake goes through the global queue, runnext is dropped. GORT_SEED makes the dice
 * of each thread repeatable (not the schedule, which is the kernel's; what replays one would take
 * the place of roll() in chaos.c). A point is "file: what is true there"; GORT_CHAOS_AT=text leaves
 * those alone whose name has no such text in it, to find out which one it takes. Compiled into
 * Debug and sanitizer builds alone: a Release build has nothing at these points. */
#ifndef RT_CHAOS_H
#define RT_CHAOS_H

#include "base/atomic.h"

#ifdef GORT_DEBUG
#define RT_CHAOS 1
extern uint32_t rt_chaos_limit; /* p * 2^32; 0 = off; set before the workers start */
void rt_chaos_delay_slow(const char *point);
bool rt_chaos_flip_slow(const char *point);
static inline void rt_chaos_delay(const char *point) {
    if (rt_unlikely(rt_load_relaxed(&rt_chaos_limit)))
        rt_chaos_delay_slow(point);
}
static inline bool rt_chaos_flip(const char *point) {
    return rt_unlikely(rt_load_relaxed(&rt_chaos_limit)) && rt_chaos_flip_slow(point);
}
#else
#define RT_CHAOS 0
static inline void rt_chaos_delay(const char *point) {
    (void)point;
}
static inline bool rt_chaos_flip(const char *point) {
    (void)point;
    return false;
}
#endif

/* probability: 0..1; at: NULL, or part of the names of the points that are meant */
void rt_chaos_start(double probability, uint64_t seed, const char *at);

#endif
