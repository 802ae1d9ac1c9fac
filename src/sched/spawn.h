/* spawn.h - making green threads, for the other parts of the runtime. */
#ifndef RT_SPAWN_H
#define RT_SPAWN_H

#include "sched/sched.h"

/* As go_spawn_with; flags: RT_G_TASK or 0. *out is the new G, which may have ended already unless
 * it is a task. */
int rt_spawn(const struct go_spawn_options *o, void *fn, void *arg, uint32_t flags,
             struct rt_g **out);

#endif
