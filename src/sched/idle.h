/* idle.h - who sleeps, who searches, who is woken. The protocol is in idle.c. */
#ifndef RT_IDLE_H
#define RT_IDLE_H

#include "sched/sched.h"

extern struct rt_idle {
    uint32_t word;           /* idle Ms << 16 | searching Ms; written under lock, read anywhere */
    uint32_t lock;           /* protects all below */
    uint32_t held;           /* Ps that an M holds; also read, relaxed, by sysmon */
    uint64_t mask[RT_MAX_PROCS / 64]; /* Ps whose M sleeps and was not picked to be woken */
    uint32_t keeper;         /* index + 1 of the P whose M sleeps until keeper_when; 0: none */
    int64_t keeper_when;     /* also read, relaxed, by sysmon */
} rt_idle;

#define RT_IDLE_ONE 0x10000u

static inline uint32_t rt_idle_count(uint32_t word) {
    return word >> 16;
}
static inline uint32_t rt_idle_searching(uint32_t word) {
    return word & 0xffff;
}

void rt_idle_start(void);

/* Would a wake help? After a G was published. */
static inline bool rt_idle_wanted(void) {
    rt_fence_light(); /* the G, then this load; pairs with the heavy one in rt_idle_sleep */
    uint32_t word = rt_load_relaxed(&rt_idle.word);
    return rt_unlikely(rt_idle_count(word) != 0 && rt_idle_searching(word) == 0);
}
/* Wake one sleeping M if that is called for. After a G was published; any thread. */
void rt_idle_wake_slow(void);
static inline void rt_idle_wake(void) {
    if (rt_idle_wanted())
        rt_idle_wake_slow();
}
/* The same after a G was queued at p that the caller will not run next: if it is worth a steal; for
 * fine-grained Gs the look around decides (idle.c). */
void rt_idle_wake_coarse(const struct rt_p *p);
static inline void rt_idle_wake_for(const struct rt_p *p) {
    if (rt_unlikely(p->slice_ns >= RT_COARSE_NS) && rt_idle_wanted())
        rt_idle_wake_coarse(p);
}
/* The same by a foreign thread or sysmon. */
void rt_idle_wake_foreign(void);
/* The same after a foreign thread armed a timer: unless somebody wakes early enough by himself. */
void rt_idle_wake_for_timer(int64_t when);
/* n more Ps are held, from before their Ms may run. */
void rt_idle_more(uint32_t n);
/* m gives its P up, and what it has queued was queued with it: m does not search any more. Its own
 * thread, or behind its gate. */
void rt_idle_less(struct rt_m *m);
/* m, which most likely holds p, looks around before it sleeps, and at once if it sleeps; or who
 * holds p by then. Any thread. */
void rt_idle_kick(struct rt_p *p, struct rt_m *m);
/* Wake everybody (stop). */
void rt_idle_wake_all(void);

/* The owner of p looks around: how long do its Gs run, and is help called for? */
void rt_idle_measure(struct rt_p *p, int64_t now);
/* Its ring is not empty: since when? */
void rt_idle_backlog(struct rt_p *p, int64_t now);

/* May m search? Counts it. Own thread. */
bool rt_idle_begin_search(struct rt_m *m);
/* m found work: not searching any more; if it was the last that searched and there is more to find,
 * wake another. */
void rt_idle_found(struct rt_m *m);

/* Sleep until work may be there, an event, or the earliest timer. Own thread, scheduler stack,
 * inside; comes back inside, searching. Gs made ready by events are in `ready`. */
void rt_idle_sleep(struct rt_m *m, struct rt_glist *ready);

#endif
