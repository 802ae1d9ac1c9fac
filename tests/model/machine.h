/* machine.h - a runtime of up to three Ps for the models: what start.c makes, without threads.
 *
 * What the models have in place of stack.c, g.c and start.c stands in machine.c, all of it weak: a
 * model that is linked with the shipped file has the shipped function. */
#ifndef MODEL_MACHINE_H
#define MODEL_MACHINE_H

#include "model.h"

#include "sched/gate.h"
#include "sched/globq.h"
#include "sched/idle.h"
#include "sched/park.h"
#include "sched/proc.h"
#include "sched/runq.h"
#include "sched/sched.h"
#include "sched/timer.h"

enum { PROCS = 3, MS = 4, GS = 8 };

extern struct rt_p ps[PROCS + 1]; /* the last is nobody's */
extern struct rt_m ms[MS + 1];
extern struct rt_g gs[GS]; /* for models that make their Gs themselves */

/* procs Ps; gs[i] is LIVE, with sequence number 1. */
void machine_init(uint32_t procs);
/* The same, and each P has stacks and struct rt_gs, so that go_spawn and rt_proc_run work. */
void machine_with_stacks(uint32_t procs);

/* This thread is M i from now on; it runs g, which may be NULL, on its own stack. */
void machine_be(unsigned i, struct rt_g *g);
/* The same, in its scheduler loop. */
void machine_run(unsigned i);

/* A G is made, and run once: whoever has it, has it alone, and sees what its maker wrote. */
void make(struct rt_g *g);
void run(struct rt_g *g);

#endif
