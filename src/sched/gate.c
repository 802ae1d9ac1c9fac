/* gate.c - the rare sides of the gate. */
#include "sched/gate.h"

#include "base/chaos.h"
#include "base/log.h"
#include "base/san.h"
#include "base/sys.h"

enum { OWNER_SPINS = 200, THIEF_SPINS = 60 };

struct rt_m *rt_gate_wait(struct rt_m *m) {
    for (;;) {
        rt_store_release(&m->in_rt, 0); /* step back, or both would wait */
        for (int i = 0; rt_load_relaxed(&m->gate) == RT_GATE_VISITED; i++) {
            if (i < OWNER_SPINS)
                rt_cpu_relax();
            else
                rt_sys_yield(); /* the visitor has lost its CPU */
        }
        if (rt_gate_is_shut(m))
            return NULL;
        rt_store_relaxed(&m->in_rt, 1);
        rt_fence_light();
        if (rt_load_acquire(&m->gate) == RT_GATE_OPEN) /* pairs with the release in rt_gate_open */
            return m;
    }
}

bool rt_gate_try(struct rt_m *m) {
    uint32_t open = RT_GATE_OPEN;
    /* An owner who is inside now may have lost his CPU there, and if not he is about to run what he
     * has himself: not worth the fence. */
    if (rt_load_relaxed(&m->in_rt) != 0 || rt_load_relaxed(&m->gate) != 0 ||
        !rt_cas_relaxed(&m->gate, &open, RT_GATE_VISITED))
        return false;
    rt_fence_heavy(); /* pairs with the light fence in rt_gate_enter, and with rt_gate_open */
    rt_san_acquired(&m->gate);
    rt_chaos_delay("gate: asked, not looked whether it is inside");
    for (int i = 0; i < THIEF_SPINS; i++) {
        if (rt_load_acquire(&m->in_rt) == 0) /* pairs with the release in rt_gate_leave */
            return true;
        rt_cpu_relax();
    }
    rt_gate_open(m);
    return false;
}

void rt_gate_open(struct rt_m *m) {
    /* Pairs with the acquire in rt_gate_enter, and the fence in rt_gate_try. */
    rt_store_release(&m->gate, RT_GATE_OPEN);
}

void rt_gate_shut(struct rt_m *m) {
    rt_store_release(&m->gate, RT_GATE_SHUT); /* pairs with the acquire in rt_gate_is_shut */
}

struct rt_m *rt_gate_try_p(struct rt_p *p) {
    struct rt_m *m = rt_m_of(p);
    if (!rt_gate_try(m))
        return NULL;
    if (rt_likely(rt_load_relaxed(&p->m) == m)) /* it changes behind this very gate */
        return m;
    rt_gate_open(m);
    return NULL;
}
