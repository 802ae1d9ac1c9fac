/* gate.c - sched/gate.{h,c}: between owner and visitors one at a time, and what one leaves the next
 * one sees. */
#include "machine.h"

static struct { /* plain: what stands behind the gate */
    int inside;
    int entered;
} room;

static void use(void) {
    model_assert(room.inside++ == 0);
    room.entered++;
    model_assert(room.inside-- == 1);
}

static void three_ps(void) {
    machine_init(PROCS);
}

static void owner(void) {
    for (int i = 0; i < 2; i++) {
        rt_gate_enter(&ms[0]);
        use();
        rt_gate_leave(&ms[0]);
    }
}

static void thief(void) {
    if (rt_gate_try(&ms[0])) {
        use();
        rt_gate_open(&ms[0]);
    }
}

static void keen_thief(void) {
    while (!rt_gate_try(&ms[0]))
        model_wait_for_change();
    use();
    rt_gate_open(&ms[0]);
}

static void owner_entered_twice(void) {
    model_assert(room.entered >= 2 && room.entered <= 4 && room.inside == 0);
    model_assert(ms[0].gate == 0 && ms[0].in_rt == 0);
}

/* Each at the other's gate, while inside its own: the thieves must give up, or both hang. */
static void each_other(void) {
    struct rt_m *mine = &ms[model_self()], *theirs = &ms[1 - model_self()];
    rt_gate_enter(mine);
    if (rt_gate_try(theirs))
        rt_gate_open(theirs);
    rt_gate_leave(mine);
}

const struct model_case model_cases[] = {
    {.name = "gate.thief",
     .init = three_ps,
     .thread = {owner, thief},
     .end = owner_entered_twice,
     .bound = -1},
    {.name = "gate.two_thieves",
     .init = three_ps,
     .thread = {owner, thief, thief},
     .end = owner_entered_twice},
    {.name = "gate.who_wants_in_gets_in",
     .init = three_ps,
     .thread = {owner, keen_thief},
     .end = owner_entered_twice},
    {.name = "gate.each_other", .init = three_ps, .thread = {each_other, each_other}},
    {0},
};
