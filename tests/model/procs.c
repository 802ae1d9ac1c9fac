/* procs.c - sched/procs.c, in the scheduler loop as shipped: a P is put away, or comes, at any
 * moment, and no G is lost, run twice, or left lying.
 *
 * There are two Ps, or one and a spare. A thread in the place of sysmon follows the machine, which
 * has another number of CPUs all at once: so no caller is there who would double the states. What
 * the Gs do stands beside the cases; at the end all Ms sleep. */
#include "polls.h"

#include "base/sys.h"
#include "sched/g.h"
#include "sched/poller.h"
#include "sched/procs.h"
#include "sched/retake.h"
#include "sched/stack.h"
#include "sched/sysmon.h"

static struct rt_m absent;
static uint32_t ran; /* four bits for each G */

static void count(unsigned i) {
    rt_fetch_add_relaxed(&ran, 1u << 4 * i);
}

void rt_g_flush(struct rt_p *p) {
    (void)p;
}
/* The shipped one takes them. */
void rt_stack_flush(struct rt_p *p) {
    uint32_t n = 0;
    for (struct rt_stack *s = p->stacks; s; s = s->next)
        n++;
    p->nstacks = n;
}
void rt_g_share(uint32_t procs) {
    (void)procs;
}
int rt_stack_reserve(size_t n) {
    (void)n;
    return 0;
}
static unsigned cpus;
unsigned rt_sys_cpus_now(void) {
    return cpus;
}
void rt_sysmon_call_sig(void) {
}

/* ---- the machine ----------------------------------------------------------------------------- */

static void two_ps(void) {
    machine_with_stacks(2);
    rt.absent = &absent;
    absent.gate = RT_GATE_SHUT;
    absent.sleep = RT_SLEEP_FUTEX;
    absent.p = rt.nobody;
    cpus = 2;
    rt_spares_start();
    rt_procs_start();
    rt_procs_follow_ns = 0;
    cpus = 1;
    rt_spare_keep_ns = -1; /* a time-out here and there is more than can be explored */
}

static void one_p_and_a_spare(void) {
    two_ps();
    cpus = 1;
    rt_procs_start();
    cpus = 2;
    rt.procs = 1;
    rt_idle.held = 1;
    ps[1].m = &absent;
    ms[1].p = rt.nobody;
    ms[1].gate = RT_GATE_SHUT;
}

static void m0(void) {
    machine_run(0);
}
static void m1(void) {
    machine_run(1);
}

/* From the second look on a slice is over. */
static void sysmon(void) {
    static int64_t now;
    for (unsigned i = 0; rt_procs_look(now) >= 0; now += 2 * RT_SLICE_NS)
        if (i++ != 0)
            model_wait_for_change();
    model_assert(go_procs() == cpus);
}

static void queue(unsigned p, void (*fn)(void *)) {
    machine_be(p, &gs[p]);
    model_assert(go_spawn(fn, NULL) == 0);
    ms[p].g = NULL;
    model_be(NULL);
}

static void nothing_is_left(uint32_t procs) {
    for (uint32_t i = 0; i < 2; i++) {
        model_assert(ps[i].head == ps[i].tail && ps[i].fresh_head == ps[i].fresh_tail);
        model_assert(ps[i].runnext == NULL && (i < procs) == (ps[i].m != &absent));
    }
    model_assert(rt_globq_size() == 0 && rt_idle.held == procs && rt_retake_away() == 0);
}

/* ---- what is queued there runs --------------------------------------------------------------- */

static void first(void *arg) {
    (void)arg;
    count(0);
}
static void queued_on_p1(void) {
    two_ps();
    queue(1, first);
}
static void first_ran(void) {
    nothing_is_left(1);
    model_assert(ran == 0x1);
}

/* ---- what is queued elsewhere, while the M that was woken for it leaves ---------------------- */

static void second(void *arg) {
    (void)arg;
    count(1);
}
static void spawn_two(void *arg) {
    (void)arg;
    model_assert(go_spawn(first, NULL) == 0);
    model_assert(go_spawn(second, NULL) == 0);
}
static void maker_is_on_p0(void) {
    two_ps();
    queue(0, spawn_two);
}
static void both_ran(void) {
    nothing_is_left(1);
    model_assert(ran == 0x11);
}

/* ---- a hog is on it -------------------------------------------------------------------------- */

static void spawn_and_hog(void *arg) {
    (void)arg;
    model_assert(go_spawn(first, NULL) == 0);
    model_exit(); /* computes for ever */
}
static void hog_on_p1(void) {
    two_ps();
    queue(1, spawn_and_hog);
}
/* Wherever the hog came to run, perhaps on P 0: then first was stolen, or is in its queue. */
static void first_ran_or_waits(void) {
    model_assert(ran == 0x1 || ps[0].runnext || rt_globq_size() != 0);
}

/* ---- a P comes ------------------------------------------------------------------------------- */

static void maker_and_a_spare(void) {
    one_p_and_a_spare();
    queue(0, spawn_two);
}
static void both_ran_on_two(void) {
    nothing_is_left(2);
    model_assert(ran == 0x11);
}

/* ---- a hog on it has armed a poll: who puts it away finds that ------------------------------- */

static void arm_and_hog(void *arg) {
    (void)arg;
    polls_arm();
    model_exit();
}
static void armer_on_p1(void) {
    two_ps();
    polls_on_all();
    queue(1, arm_and_hog);
}
static void only_p1(void) {
    if (ps[1].m == &absent && ms[1].g) /* else P 0 has it */
        polls_are_not_lost();
}

/* ---- a P goes and comes again, with another M: the old one may just have counted ------------- */

/* On P 0 somebody computes. */
static void p1_and_a_spare(void) {
    two_ps();
    rt.nms = rt.max_ms = 3;
    ms[2].p = rt.nobody;
    ms[2].gate = RT_GATE_SHUT;
    ms[0].g = &gs[0];
    queue(1, first);
}
static void m2(void) {
    machine_run(2);
}
static void sysmon_twice(void) {
    sysmon();
    cpus = 2;
    sysmon();
}
static void first_ran_on_either(void) {
    nothing_is_left(2);
    model_assert(ran == 0x1);
}

/* ---- two come, of which one goes again; a thief looks at the one that stays ------------------ */

static void two_spares_sleep(void) {
    one_p_and_a_spare();
    rt.procs_ever = 1;
    rt.nms = rt.max_ms = 3;
    ms[0].g = &gs[0]; /* computes */
    for (unsigned i = 1; i <= 2; i++) {
        ps[i] = (struct rt_p){0}; /* was never there */
        ms[i].p = rt.nobody;
        ms[i].gate = RT_GATE_SHUT;
        ms[i].end = 1; /* or it would sleep here */
        rt_spare_wait(&ms[i]);
        ms[i].end = 0;
    }
    cpus = 3;
}
static void follow_up_and_down(void) {
    model_assert(rt_procs_look(0) < 0 && go_procs() == 3);
    cpus = 2;
    while (rt_procs_look(0) >= 0)
        model_wait_for_change();
}
static void who_has_p2_leaves(void) {
    while (!(rt_load_relaxed(&ps[2].attention) & RT_P_LEAVE))
        model_wait_for_change();
    model_be(&ms[1]);
    rt_gate_enter(&ms[1]);
    rt_procs_leave(&ms[1]);
}
static void thief(void) {
    for (uint32_t i = 1, procs = rt_procs(); i < procs; i++) {
        struct rt_m *m = rt_gate_try_p(&ps[i]);
        if (m)
            rt_gate_open(m);
    }
}
static void one_has_gone(void) {
    model_assert(rt.procs == 2 && ps[1].m == &ms[2] && ps[2].m == &absent);
}

#define ENDS(how) .end = (how), .rest = (how)

const struct model_case model_cases[] = {
    {.name = "procs.queued",
     .init = queued_on_p1,
     .thread = {m0, m1, sysmon},
     ENDS(first_ran),
     .bound = 1,
     .stale = 1},
    {.name = "procs.made",
     .init = maker_is_on_p0,
     .thread = {m0, m1, sysmon},
     ENDS(both_ran),
     .bound = 1,
     .stale = 1},
    {.name = "procs.hog",
     .init = hog_on_p1,
     .thread = {m0, m1, sysmon},
     ENDS(first_ran_or_waits),
     .bound = 1,
     .stale = 1},
    {.name = "procs.grow",
     .init = maker_and_a_spare,
     .thread = {m0, m1, sysmon},
     ENDS(both_ran_on_two),
     .bound = 1,
     .stale = 1},
    {.name = "procs.polls",
     .init = armer_on_p1,
     .thread = {m1, sysmon},
     ENDS(only_p1),
     .bound = 2,
     .stale = 1},
    {.name = "procs.again",
     .init = p1_and_a_spare,
     .thread = {m1, m2, sysmon_twice},
     ENDS(first_ran_on_either),
     .bound = 1,
     .stale = 1},
    {.name = "procs.up_and_down",
     .init = two_spares_sleep,
     .thread = {follow_up_and_down, who_has_p2_leaves, thief},
     ENDS(one_has_gone),
     .bound = 1,
     .stale = 1},
    {0},
};
