/* fault.c - see fault.h. */
#include "base/fault.h"

struct rt_fault_point rt_fault_points[RT_FAULT_SITES];
bool rt_faults_armed;
uint32_t rt_fault_kernel;

int rt_fault_slow(enum rt_fault_site site) {
    struct rt_fault_point *f = &rt_fault_points[site];
    uint32_t n = rt_load_relaxed(&f->countdown);
    while (n != 0) {
        bool fails = (n & ~(uint32_t)RT_FAULT_FOREVER) == 1;
        uint32_t next = !fails ? n - 1 : n & RT_FAULT_FOREVER ? n : 0;
        if (!rt_cas_acquire(&f->countdown, &n, next)) /* pairs with rt_fault_arm: the rest of *f */
            continue;
        if (fails)
            rt_fetch_add_relaxed(&f->hits, 1);
        return fails ? -rt_load_relaxed(&f->error) : 0;
    }
    return 0;
}

void rt_fault_arm(enum rt_fault_site site, uint32_t nth, bool forever, int error) {
    struct rt_fault_point *f = &rt_fault_points[site];
    rt_store_relaxed(&f->error, error);
    rt_store_relaxed(&f->hits, 0);
    rt_store_release(&f->countdown, nth | (forever && nth ? RT_FAULT_FOREVER : 0));
    rt_store_relaxed(&rt_faults_armed, true);
}

void rt_fault_disarm(void) {
    rt_store_relaxed(&rt_faults_armed, false);
    for (int i = 0; i < RT_FAULT_SITES; i++)
        rt_store_relaxed(&rt_fault_points[i].countdown, 0);
}
