/* spares.c - the threads of sched/worker.c, which sched/procs.c asks for and sched/retake.c counts:
 * a P comes, whose M is a new thread, and a thief looks at it meanwhile; or the thread cannot
 * begin, and another one is started in its place.
 *
 * On P 0 somebody computes, as M 0. What rt_sys_thread starts is a thread of the model, which waits
 * for that. */
#include "polls.h"
#include "threads.h"

#include "sched/g.h"
#include "sched/procs.h"
#include "sched/retake.h"
#include "sched/stack.h"
#include "sched/sysmon.h"
#include "sched/worker.h"

/* ---- threads --------------------------------------------------------------------------------- */

static void t0(void) {
    run_thread(0);
}
static void t1(void) {
    run_thread(1);
}

/* ---- what procs.c and worker.c know besides -------------------------------------------------- */

void rt_g_flush(struct rt_p *p) {
    (void)p;
}
void rt_stack_flush(struct rt_p *p) {
    (void)p;
}
void rt_g_share(uint32_t procs) {
    (void)procs;
}
int rt_stack_reserve(size_t n) {
    (void)n;
    return 0;
}
static unsigned cpus = 1;
unsigned rt_sys_cpus_now(void) {
    return cpus;
}
void rt_sysmon_call_sig(void) {
}
void *rt_sys_map(size_t bytes) {
    (void)bytes;
    return ms;
}
void rt_sys_unmap(void *p, size_t bytes) {
    (void)p, (void)bytes;
}

/* An engine of which some threads are refused a part. */
static struct rt_poller engine;
static unsigned refuses; /* so many */
static int m_start(struct rt_m *m) {
    (void)m;
    if (refuses == 0)
        return 0;
    refuses--;
    return -EMFILE;
}

/* ---- the machine ----------------------------------------------------------------------------- */

static struct rt_m absent;
static uint32_t done; /* the caller has its answer */

/* P 0 is in use; P 1 was, before. */
static void p1_was_there(void) {
    machine_with_stacks(2);
    engine = polls;
    engine.m_start = m_start;
    rt_poller = &engine;
    rt.absent = &absent;
    absent.gate = RT_GATE_SHUT;
    absent.sleep = RT_SLEEP_FUTEX;
    absent.p = rt.nobody;
    rt.procs = 1;
    rt_idle.held = 1;
    rt.nms = 1;
    rt.max_ms = 2;
    rt.threads_asked = true;
    rt.max_threads = 3;
    rt.threads_left = 1;
    rt.procs_asked = true;
    ms[0].g = &gs[0];
    ps[1].m = &absent;
    ms[1] = (struct rt_m){0};
    rt_spares_start();
    rt_procs_start();
    rt_spare_keep_ns = -1;
}
static void cpus_come(void) {
    p1_was_there();
    rt.procs_asked = false;
    rt_procs_start(); /* it has seen one */
    cpus = 2;
    rt_procs_follow_ns = 0;
}
static void p1_was_never_there(void) {
    cpus_come();
    rt.procs_ever = 1;
    ps[1] = (struct rt_p){0};
}
static void first_thread_is_refused(void) {
    p1_was_there();
    refuses = 1;
}

static void sysmon(void) {
    while (rt_load_acquire(&done) == 0)
        if (rt_procs_look(0) >= 0)
            model_let_others(); /* and look again */
        else
            model_wait_for_change();
}
/* Nobody asks for it. */
static void sysmon_that_follows(void) {
    while (rt_procs_look(0) >= 0)
        model_let_others();
}

static void ask(void) {
    model_assert(go_set_procs(2) == 0);
    rt_store_release(&done, 1);
}
static void there_are_two(void) {
    model_assert(rt.procs == 2 && ps[1].m == &ms[1] && rt_spares_there() == 0);
}

/* ---- a thief whose loop began when there were two; and one who asks -------------------------- */

static void visit(struct rt_p *p) {
    struct rt_m *m = rt_gate_try_p(p);
    if (m)
        rt_gate_open(m);
}
static void late_thief(void) {
    visit(&ps[1]);
}
static void thief(void) {
    for (uint32_t i = 1, procs = rt_procs(); i < procs; i++)
        visit(&ps[i]);
}

/* ---- one cannot begin; then another one is started in its place ------------------------------ */

static void ask_twice(void) {
    model_assert(go_set_procs(2) == -EMFILE);
    ask();
}

/* ---- two that could not begin, of which one is there yet, as one knows who asks -------------- */

static uint32_t told;

static void two_are_refused(void) {
    p1_was_there();
    rt.max_ms = 3;
    refuses = 1;
    model_assert(rt_spare_start() == 0);
    rt.nms = 3;
}
static void is_refused(void) {
    rt_spare_failed(&ms[2], -EMFILE);
    rt_store_release(&told, 1);
}
static void one_is_ending(void) {
    while (rt_load_acquire(&told) == 0)
        model_wait_for_change();
    model_assert(rt_spares_ending(rt_spares_given_back()));
}
static void both_are_counted(void) {
    model_assert(rt_spares_given_back() == 1 && rt_spares_ending(1) && !rt_spares_ending(2));
}

#define ENDS(how) .end = (how), .rest = (how)

const struct model_case model_cases[] = {
    {.name = "spares.late_thief",
     .init = cpus_come,
     .thread = {t0, sysmon_that_follows, late_thief},
     ENDS(there_are_two),
     .bound = 1,
     .stale = 1},
    {.name = "spares.first",
     .init = p1_was_never_there,
     .thread = {t0, sysmon_that_follows, thief},
     ENDS(there_are_two),
     .bound = 1,
     .stale = 1},
    {.name = "spares.again",
     .init = first_thread_is_refused,
     .thread = {t0, t1, sysmon, ask_twice},
     ENDS(there_are_two),
     .bound = 1,
     .stale = 1},
    {.name = "spares.two_are_refused",
     .init = two_are_refused,
     .thread = {t0, is_refused, one_is_ending},
     .end = both_are_counted},
    {0},
};
