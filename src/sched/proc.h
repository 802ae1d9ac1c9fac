/* proc.h - the scheduler loop of an M. See proc.c. */
#ifndef RT_PROC_H
#define RT_PROC_H

#include "sched/sched.h"

/* Run Gs on m until the runtime stops; on m's own thread and stack, inside. */
void rt_proc_run(struct rt_m *m);

/* g's function has returned: what is to be done but for its stack. Inside. */
void rt_g_end(struct rt_m *m, struct rt_g *g);
/* The part of it that every G needs. */
void rt_g_over(struct rt_m *m, struct rt_g *g);

/* Hand the result of an ended task to who joins it; src/task/join.c. */
void rt_task_ended(struct rt_m *m, struct rt_g *g);

#endif
