/* lot.c - see lot.h. */
#include "sync/lot.h"

#include "sched/start.h"

#include <string.h>

struct rt_lot rt_lots[RT_LOTS];

void rt_lot_ready(struct rt_glist *gone) {
    struct rt_m *m = gone->n > 1 ? rt_enter() : NULL;
    if (m) {
        rt_ready_batch(m, gone);
        rt_gate_leave(m);
        return;
    }
    for (struct rt_g *g; (g = rt_glist_pop(gone)) != NULL;)
        rt_ready(g);
}

/* In the only thread of the child: whoever held a lot, or waited, is not there any more. */
void rt_lot_fork_child(void) {
    memset(rt_lots, 0, sizeof rt_lots);
}
