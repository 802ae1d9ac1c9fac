/* spawn.h - making green threads, for the other parts of the runtime. */
#ifndef RT_SPAWN_H
#define RT_SPAWN_H

#include "sched/sched.h"

/* As go_spawn_with; flags: RT_G_TASK or 0. *out is the new G, which may have ended already unless
 * it is a task. */
int rt_spawn(const struct go_spawn_options *o, void *fn, void *arg, uint32_t flags,
             struct rt_g **out);

/* The same for a child of group. rt_group_adopt (src/task/group.c) puts it among the others before
 * anybody can run it; inside, or on a foreign thread. */
int rt_spawn_child(go_group *group, const struct go_spawn_options *o, int (*fn)(void *), void *arg);
void rt_group_adopt(go_group *group, struct rt_g *g);

/* A G that runs fn(arg) at `when`, and waits until then as a sleeper does, but without a stack: it
 * has not started. Any thread. fn finds in rt_self()->wake_result why it runs: -ETIMEDOUT, it is
 * time; -ECANCELED, it is sooner, because the runtime stops. *out and *seq, for rt_spawn_undo, are
 * written before it can run. 0; as go_spawn; -ENOMEM when there is no room for the timer. */
int rt_spawn_at(void (*fn)(void *), void *arg, int64_t when, const char *name, struct rt_g **out,
                uint64_t *seq);

/* Take it back: true when it will never run. False: it has run, is running or will soon. Any
 * thread; a foreign one has entered (rt_foreign_enter), and g is of the runtime that runs. */
bool rt_spawn_undo(struct rt_g *g, uint64_t seq);

/* The parts of it, for a G that waits for something else before its first run (io/when.c). Any
 * thread; a foreign one has entered.
 *   take    a G that has not started and is in no queue; not counted before it waits or runs. NULL
 *           and *err: -EAGAIN, -ENOMEM
 *   arm     the timer of its deadline, if that is not GO_FOREVER; again is allowed. Not under a
 *           lock, see spawn.c. 0, -ENOMEM
 *   park    it waits, as in rt_park, but returns at once; g is out of our hands then, and whoever
 *           claims it lets it run for the first time, with the result in g->wake_result. `lock`
 *           (may be NULL) is held, and is released once g waits
 *   ready   or it runs now, and finds what the caller wrote into g->wake_result
 *   give_back   or never */
struct rt_g *rt_spawn_take(void (*fn)(void *), void *arg, int64_t deadline, int *err);
int rt_spawn_arm(struct rt_g *g);
void rt_park_unstarted(struct rt_g *g, uint32_t *lock, enum rt_why why);
void rt_spawn_ready(struct rt_g *g);
void rt_spawn_give_back(struct rt_g *g);

#endif
