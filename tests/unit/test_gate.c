/* ctest: once */
/* gate.c: between owner and visitors one at a time, and nobody waits for ever. */
#include "t_unit.h"

#include "base/sys.h"
#include "sched/gate.h"

static struct rt_m m;

static struct {
    uint64_t count;     /* plain: written only behind the gate */
    int inside;
    uint64_t by_owner, by_visitors;
    uint32_t quit;
} room;

static void use_room(void) {
    T_EQ(room.inside++, 0);
    room.count++;
    T_EQ(--room.inside, 0);
}

static void *visit(void *arg) {
    uint64_t seed = (uint64_t)t_int(arg) + 1;
    while (!rt_load_acquire(&room.quit)) {
        if (rt_gate_try(&m)) {
            use_room();
            rt_gate_open(&m);
            rt_fetch_add(&room.by_visitors, 1);
        }
        sched_yield();
        for (uint64_t spin = t_random(&seed) % 2000; spin > 0; spin--)
            rt_cpu_relax();
    }
    return NULL;
}

static void hammer(bool asymmetric, int visitors) {
    pthread_t t[4];
    int rounds = (int)T_SCALE(300000);
    uint64_t seed = 3;
    memset(&room, 0, sizeof room);
    rt_asymmetric = asymmetric;
    t_start_threads(t, visitors, visit);
    for (int i = 0; i < rounds || rt_load_relaxed(&room.by_visitors) < 100; i++) {
        rt_gate_enter(&m);
        room.by_owner++;
        use_room();
        rt_gate_leave(&m);
        if (t_random(&seed) % 64 == 0)
            sched_yield(); /* outside: here they get in */
    }
    rt_store_release(&room.quit, 1);
    t_join_threads(t, visitors);
    T_EQ(room.count, room.by_owner + room.by_visitors);
    T_EQ(m.gate, 0);
    T_EQ(m.in_rt, 0);
}

Test(gate, lets_one_in_by_membarrier) {
    if (!rt_sys_membarrier_register())
        T_SKIP("the kernel refuses membarrier");
    hammer(true, 1);
    hammer(true, 3);
}

Test(gate, lets_one_in_by_full_fences) {
    hammer(false, 1);
    hammer(false, 3);
}

Test(gate, a_visitor_gives_up_when_the_owner_stays_inside) {
    rt_gate_enter(&m);
    for (int i = 0; i < 10; i++)
        T_ASSERT(!rt_gate_try(&m));
    T_EQ(m.gate, 0);
    rt_gate_leave(&m);
    T_ASSERT(rt_gate_try(&m));
    T_ASSERT(!rt_gate_try(&m)); /* one visitor at a time */
    rt_gate_open(&m);
    T_ASSERT(rt_gate_try(&m));
    rt_gate_open(&m);
}

static int entered;

static void *enter(void *arg) {
    rt_gate_enter(&m);
    rt_store_release(&entered, 1);
    rt_gate_leave(&m);
    return arg;
}

Test(gate, an_owner_waits_until_the_visitor_is_gone) {
    pthread_t t;
    T_ASSERT(rt_gate_try(&m));
    t_start_threads(&t, 1, enter);
    nanosleep(&(struct timespec){.tv_nsec = 20 * 1000000}, NULL);
    T_EQ(rt_load_acquire(&entered), 0);
        rt_gate_open(&m);
    t_join_threads(&t, 1);
    T_EQ(entered, 1);
}
