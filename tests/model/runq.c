/* runq.c - sched/runq.{h,c}, sched/globq.c: each G is run once, whatever thieves do, with four
 * slots in the ring and four in the deque of fresh ones; the indices wrap. */
#include "machine.h"

void rt_idle_backlog(struct rt_p *p, int64_t now) { /* runq.c calls it; idle.c has a model */
    (void)p, (void)now;
}

static void start_before_wrap(void) {
    machine_init(PROCS);
    for (int i = 0; i < PROCS; i++)
        ps[i].head = ps[i].tail = ps[i].fresh_head = ps[i].fresh_tail = UINT32_MAX - 1;
    for (int i = 0; i < GS; i++)
        gs[i].flags = RT_G_STARTED;
}

static void start_with_fresh_ones(void) {
    start_before_wrap();
    for (int i = 0; i < GS; i++)
        gs[i].flags = 0;
}

static void push(struct rt_p *p, struct rt_g *g) {
    make(g);
    rt_gate_enter(p->m);
    rt_runq_push_owner(p, g);
    rt_gate_leave(p->m);
}

static void put_next(struct rt_p *p, struct rt_g *g) {
    make(g);
    rt_gate_enter(p->m);
    rt_runq_put_next_owner(p, g);
    rt_gate_leave(p->m);
}

static void pop(struct rt_p *p) {
    rt_gate_enter(p->m);
    struct rt_g *g = rt_runq_pop_owner(p);
    rt_gate_leave(p->m);
    if (g)
        run(g);
}

static void pop_all(struct rt_p *p) {
    rt_gate_enter(p->m);
    for (struct rt_g *g; (g = rt_runq_pop_owner(p)) != NULL;)
        run(g);
    rt_gate_leave(p->m);
}

/* What was made and not run is in one queue, once. */
static void none_lost_none_doubled(void) {
    for (int i = 0; i < PROCS; i++) {
        model_assert(ps[i].tail - ps[i].head <= RT_RING);
        for (uint32_t k = ps[i].head; k != ps[i].tail; k++)
            run(ps[i].ring[k % RT_RING]);
        model_assert(ps[i].fresh_tail - ps[i].fresh_head <= RT_FRESH);
        for (uint32_t k = ps[i].fresh_head; k != ps[i].fresh_tail; k++)
            run(ps[i].fresh[k % RT_FRESH]);
        if (ps[i].runnext)
            run(ps[i].runnext);
    }
    for (struct rt_g *g; (g = rt_glist_pop(&rt_globq.list)) != NULL;)
        run(g);
    for (int i = 0; i < GS; i++)
        model_assert(gs[i].id == (gs[i].arg != NULL));
}

/* Threads 1 and 2 have Ps of their own. */
static void thief(void) {
    struct rt_p *p = &ps[model_self()];
    rt_gate_enter(p->m);
    struct rt_g *g = rt_runq_worth_stealing_any(&ps[0]) ? rt_runq_steal(p, &ps[0]) : NULL;
    rt_gate_leave(p->m);
    if (g)
        run(g);
}

/* ---- the last one: owner and thief both want it ---------------------------------------------- */

static void push_two_pop_two(void) {
    push(&ps[0], &gs[0]);
    push(&ps[0], &gs[1]);
    pop(&ps[0]);
    pop(&ps[0]);
}

static void pop_one(void) {
    pop(&ps[0]);
}
static void one_is_there(void) {
    start_before_wrap();
    push(&ps[0], &gs[0]);
}

/* ---- half of the ring, over the wrap of the index, into a ring that wraps, too --------------- */

static void four_are_there(void) {
    start_before_wrap();
    for (int i = 0; i < RT_RING; i++)
        push(&ps[0], &gs[i]);
}
static void pop_push_pop(void) {
    pop(&ps[0]);
    push(&ps[0], &gs[4]);
    pop(&ps[0]);
}
static void thief_then_owner(void) {
    thief();
    pop_all(&ps[model_self()]);
}

/* ---- fresh ones: the owner takes the newest, thieves the oldest half ------------------------- */

static void four_fresh_ones_are_there(void) {
    start_with_fresh_ones();
    for (int i = 0; i < RT_FRESH; i++)
        push(&ps[0], &gs[i]);
}
static void two_of_each_kind_are_there(void) {
    start_with_fresh_ones();
    gs[1].flags = gs[3].flags = RT_G_STARTED;
    for (int i = 0; i < 4; i++)
        push(&ps[0], &gs[i]);
}
static void age_and_pop(void) {
    rt_gate_enter(&ms[0]);
    rt_runq_age_owner(&ps[0], 1000 * 1000 * 1000);
    rt_gate_leave(&ms[0]);
    pop(&ps[0]);
    pop(&ps[0]);
}

/* ---- overflow: the newest half goes to the global queue -------------------------------------- */

static void push_one_too_many(void) {
    push(&ps[0], &gs[4]);
    model_assert(gs[4].id == 0);
    pop(&ps[0]);
}
static void take_from_global(void) {
    struct rt_p *p = &ps[model_self()];
    rt_gate_enter(p->m);
    struct rt_g *g = rt_globq_take(p, 32);
    rt_gate_leave(p->m);
    if (g)
        run(g);
    pop_all(p);
}

/* ---- runnext: newest first, the one before it to the ring; a thief takes it when it is stale - */

static void put_two_next(void) {
    put_next(&ps[0], &gs[0]);
    put_next(&ps[0], &gs[1]);
    pop(&ps[0]);
}
static void sysmon(void) {
    uint32_t ticks = rt_load_relaxed(&ps[0].ticks);
    if (rt_load_relaxed(&ps[0].runnext))
        rt_store_relaxed(&ps[0].stale, ticks + 1);
}
static void next_is_there(void) {
    start_before_wrap();
    put_next(&ps[0], &gs[0]);
}

/* ---- its maker takes it back ----------------------------------------------------------------- */

static void take_back(void) {
    rt_gate_enter(&ms[0]);
    bool mine = rt_runq_take_back_owner(&ps[0], &gs[1]);
    rt_gate_leave(&ms[0]);
    if (mine)
        run(&gs[1]);
}
static void fresh_one_is_there(void) {
    start_with_fresh_ones();
    push(&ps[0], &gs[0]);
}
static void push_and_take_back(void) {
    push(&ps[0], &gs[1]);
    take_back();
}

/* ---- the global queue, and its size which is read without the lock --------------------------- */

static void push_global(void) {
    struct rt_glist l = {0};
    unsigned first = 2 * model_self();
    for (unsigned i = 0; i < 2; i++) {
        make(&gs[first + i]);
        rt_glist_push(&l, &gs[first + i]);
    }
    rt_globq_push(&l);
}

/* Who sees the global queue shrunk sees the ring that was filled from it: or a sleeper that scans
 * both would miss what lies between. */
static void two_are_global(void) {
    machine_init(PROCS);
    rt.procs = 1; /* the share of one P is all */
    struct rt_glist l = {0};
    for (int i = 0; i < 2; i++) {
        make(&gs[i]);
        rt_glist_push(&l, &gs[i]);
    }
    rt_globq_push(&l);
}
static void take_two(void) {
    rt_gate_enter(&ms[1]);
    struct rt_g *g = rt_globq_take(&ps[1], 32);
    rt_gate_leave(&ms[1]);
    run(g);
}
static void look_at_both(void) {
    model_assert(rt_globq_size() != 0 || rt_runq_len_any(&ps[1]) != 0);
}

#define CASE(n, start, ...) \
    { \
        .name = "runq." n, .init = (start), .end = none_lost_none_doubled, .thread = { \
            __VA_ARGS__ \
        } \
    }

const struct model_case model_cases[] = {
    CASE("steal_against_push_and_pop", start_before_wrap, push_two_pop_two, thief),
    CASE("steal_the_last", one_is_there, pop_one, thief),
    CASE("steal_half", four_are_there, pop_push_pop, thief_then_owner),
    CASE("two_thieves", four_are_there, pop_one, thief, thief),
    CASE("overflow", four_are_there, push_one_too_many, take_from_global),
    {.name = "runq.overflow_and_steal",
     .init = four_are_there,
     .end = none_lost_none_doubled,
     .thread = {push_one_too_many, thief, take_from_global},
     .bound = 2},
    CASE("runnext", start_before_wrap, put_two_next, thief, sysmon),
    CASE("stale_runnext", next_is_there, pop_one, thief, sysmon),
    CASE("take_back", fresh_one_is_there, push_and_take_back, thief),
    CASE("fresh", start_with_fresh_ones, push_two_pop_two, thief),
    CASE("fresh_half", four_fresh_ones_are_there, pop_push_pop, thief_then_owner),
    CASE("fresh_overflow", four_fresh_ones_are_there, push_one_too_many, take_from_global),
    CASE("both_kinds", two_of_each_kind_are_there, pop_push_pop, thief_then_owner),
    CASE("ageing", two_of_each_kind_are_there, age_and_pop, thief),
    CASE("global_queue", start_before_wrap, push_global, push_global, take_from_global),
    CASE("global_size", two_are_global, take_two, look_at_both),
    {0},
};
