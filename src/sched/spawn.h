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

#endif
