/* machine.h - a runtime of three Ps for the models: what start.c makes, without threads and memory.
 * Included by one model each. */
#ifndef MODEL_MACHINE_H
#define MODEL_MACHINE_H

#include "model.h"

#include "sched/gate.h"
#include "sched/globq.h"
#include "sched/idle.h"
#include "sched/runq.h"
#include "sched/sched.h"

enum { PROCS = 3, GS = 8 };

struct rt_sched rt;
static struct rt_p ps[PROCS];
static struct rt_m ms[PROCS];
static struct rt_g gs[GS];

extern __thread struct rt_m *rt_tls_m;

static void __attribute__((unused)) machine_init(void) {
    rt.procs = PROCS;
    rt.ps = ps;
    rt.ms = ms;
    rt.state = RT_RUNNING;
    for (unsigned i = 0; i < PROCS; i++) {
        ps[i].index = ms[i].index = i;
        ps[i].m = &ms[i];
        ms[i].p = &ps[i];
        ps[i].budget = RT_PICKS;
        ps[i].timer_when = INT64_MAX;
        ps[i].slice_ns = 1000 * RT_COARSE_NS; /* each G is worth a wake, and worth stealing */
        model_ignore(&ps[i].spawned, offsetof(struct rt_p, ring) - offsetof(struct rt_p, spawned));
    }
    for (unsigned i = 0; i < GS; i++) {
        gs[i].limit = gs[i].timer_when = gs[i].wait_deadline = INT64_MAX;
        gs[i].wait = RT_WAIT_WORD(1, RT_LIVE);
    }
    model_gives_up("rt_gate_try");
}

/* A G is made, and run once: whoever has it, has it alone, and sees what its maker wrote. */
static void __attribute__((unused)) make(struct rt_g *g) {
    model_assert(g->arg == NULL);
    g->arg = g;
}
static void __attribute__((unused)) run(struct rt_g *g) {
    model_assert(g->arg == g);
    g->id++;
}

#endif
