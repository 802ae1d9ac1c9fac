/* runq.c - overflow and stealing.
 *
 * Overflow moves the newest half, as tokio does since 1.52: Go moves the oldest, and a G that came
 * from the global queue may then bounce back before it ran. Stealing takes the oldest half, rounded
 * up. */
#include "sched/runq.h"

#include "base/sys.h"

#include "sched/gate.h"
#include "sched/globq.h"
#include "sched/idle.h"

void rt_runq_spill_owner(struct rt_p *p) {
    struct rt_glist batch = {0};
    uint32_t from = p->tail - RT_RING / 2;
    for (uint32_t i = from; i != p->tail; i++)
        rt_glist_push(&batch, p->ring[i % RT_RING]);
    rt_store_relaxed(&p->tail, from);
    rt_globq_push(&batch);
    rt_idle_backlog(p, rt_sys_now()); /* who only spawns does not look around */
}

struct rt_g *rt_runq_steal(struct rt_p *thief, struct rt_p *victim) {
    struct rt_m *m = victim->m;
    if (!rt_gate_try(m))
        return NULL;
    uint32_t n = victim->tail - victim->head;
    n -= n / 2;
    uint32_t room = rt_runq_room_owner(thief) + 1;
    if (n > room)
        n = room;
    struct rt_g *first = NULL;
    for (uint32_t i = 0; i < n; i++) {
        struct rt_g *g = victim->ring[(victim->head + i) % RT_RING];
        if (!first)
            first = g;
        else
            rt_runq_push_owner(thief, g);
    }
    rt_store_relaxed(&victim->head, victim->head + n);
    if (n == 0 && rt_load_relaxed(&victim->stale) == victim->ticks + 1 && victim->runnext) {
        first = victim->runnext;
        rt_store_relaxed(&victim->runnext, NULL);
        n = 1;
    }
    rt_gate_open(m);
    rt_store_relaxed(&thief->steals, thief->steals + n);
    return first;
}
