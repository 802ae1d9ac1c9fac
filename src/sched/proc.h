/* proc.h - the scheduler loop of an M. See proc.c. */
#ifndef RT_PROC_H
#define RT_PROC_H

#include "sched/sched.h"

/* Run Gs on m until the runtime stops, as long as it has a P; on m's own thread and stack.
 * True: it was a spare that is not needed any more. */
bool rt_proc_run(struct rt_m *m);

/* g's function has returned: what is to be done but for its stack. Inside. */
void rt_g_end(struct rt_m *m, struct rt_g *g);
/* The part of it that every G needs. */
void rt_g_over(struct rt_m *m, struct rt_g *g);

/* Hand the result of an ended task to who joins it; src/task/join.c. Inside. */
void rt_task_ended(struct rt_m *m, struct rt_g *g);

/* The whole of a group's child, outside; then, inside, it is taken off the list of its group, and
 * once its record is free it is not counted there any more; src/task/group.c. */
void rt_group_child(struct rt_g *g);
go_group *rt_group_unlink(struct rt_g *g);
void rt_group_left(struct rt_m *m, go_group *group);

/* Run the destructors of g's locals, on g itself, outside; src/task/local.c. */
void rt_local_end(struct rt_g *g);

/* Run g's function; outside. */
static inline void rt_g_call(struct rt_g *g) {
    if (rt_likely(!(g->flags & (RT_G_TASK | RT_G_CHILD))))
        ((void (*)(void *))g->fn)(g->arg);
    else if (g->flags & RT_G_TASK)
        g->result = ((void *(*)(void *))g->fn)(g->arg);
    else
        rt_group_child(g);
    if (rt_unlikely(g->touched & RT_TOUCHED_LOCALS))
        rt_local_end(g);
}

#endif
