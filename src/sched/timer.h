/* timer.h - the deadlines of parked Gs. See timer.c. */
#ifndef RT_TIMER_H
#define RT_TIMER_H

#include "sched/sched.h"

/* Make sure that an entry which fires no later than `when` is live for g; own G, inside, before it
 * parks. 0, -ENOMEM. */
int rt_timer_arm_owner(struct rt_p *p, struct rt_g *g, int64_t when);

/* The same for a G that shall wait before its first run; g is off its free list. Always makes an
 * entry of its own, which comes up at `when` and no earlier. 0, -ENOMEM. */
int rt_timer_start_owner(struct rt_p *p, struct rt_g *g, int64_t when);

/* The same two for who has no P: in the heap of rt.nobody, and somebody is woken who minds it.
 * Outside. */
int rt_timer_arm_any(struct rt_g *g, int64_t when);
int rt_timer_start_any(struct rt_g *g, int64_t when);

/* g parked, or tried to, with RT_ATT_TIMER set: an entry fired too early. Look again; inside with
 * p, or outside with NULL. True: g is late and was claimed with -ETIMEDOUT. */
bool rt_timer_missed(struct rt_p *p, struct rt_g *g, uint64_t seq);

/* g ends: its entry is dead. */
void rt_timer_forget(struct rt_g *g);

/* Fire what is due in victim's heap, the earliest first, until about `most` claimed Gs are in
 * ready.
 * Owner of p, inside; victim may be p. */
void rt_timer_run(struct rt_p *p, struct rt_p *victim, int64_t now, struct rt_glist *ready,
                  size_t most);

/* All entries of p, which nobody else can touch, go to the heap of rt.nobody. Outside, any thread.
 * Where there is no memory for one its G is told so, if it waits. */
void rt_timer_hand_on(struct rt_p *p);

/* The earliest entry of all Ps. */
int64_t rt_timer_earliest_any(void);

/* Does any green thread wait with a deadline? An entry may be of a wait that is long over. True,
 * too, when somebody is at work on a heap. Any thread, outside. */
bool rt_timer_awaited_any(void);

#endif
