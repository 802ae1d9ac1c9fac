/* procs.h - Ps come and go while the runtime runs. The protocol is in procs.c. */
#ifndef RT_PROCS_H
#define RT_PROCS_H

#include "sched/sched.h"

/* Threads beside procs, unless the program says how many it wants in all. */
enum { RT_MORE_THREADS = 64 };

/* A P that nobody has held, in zeroed memory. */
void rt_p_init(struct rt_p *p, uint32_t index);

/* Before sysmon runs. */
void rt_procs_start(void);

/* sysmon, each time before it sleeps: go on with a change, or begin one. In how many ns it wants
 * to be called again; < 0: not before it is called. */
int64_t rt_procs_look(int64_t now);
extern int64_t rt_procs_follow_ns; /* how often the machine is looked at; tests make it less */
/* Is a change under way, or wanted? */
bool rt_procs_changes(void);
/* A spare is there, or could not begin; any thread. */
void rt_procs_spare_came(void);

/* The P of m shall be put away, and m has nothing else to do: it has none from here on. Its own
 * thread, scheduler stack, inside; comes back outside. */
void rt_procs_leave(struct rt_m *m);

#endif
