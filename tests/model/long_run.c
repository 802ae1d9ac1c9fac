/* long_run.c - sched/long_run.c: the hook runs on a green thread, one call at a time, and has a
 * whole record of one hog until it returns: sysmon writes no other one meanwhile, and the hog's own
 * may be gone. What was not told is counted.
 *
 * The hog computes on P 1, as M 1; the green thread of the hook runs on P 0. */
#include "machine.h"

#include "sched/g.h"
#include "sched/long_run.h"
#include "sched/retake.h"

#include <gort/task.h>

enum { BETWEEN_NS = 200 * 1000 * 1000, HOGS = 2 };

static char names[HOGS][8] = {"first", "second"};
static unsigned noticed; /* sysmon's: hogs that were noted, or missed */
static unsigned calls;   /* plain: of the hook */
static unsigned told;    /* the same, with those that were missed before */
static bool hog_is_gone;

static void a_hog(unsigned i) {
    struct rt_g *g = &gs[1 + i];
    g->id = 1 + i;
    g->fn = names[i];
    rt_store_relaxed(&g->name, names[i]);
}

/* ---- hooks ----------------------------------------------------------------------------------- */

static void check(const struct go_long_run *r) {
    const struct rt_g *self = rt_self();
    model_assert(rt_m() == &ms[0] && !(self->flags & RT_G_THREAD));
    model_assert(r->size == sizeof *r && (r->id == 1 || r->id == 2));
    const char *name = names[r->id - 1];
    model_assert(r->fn == name && (uint64_t)r->ns == r->id && r->blocked == (r->id == 2));
    static const char *const whole[HOGS] = {"first", "second"}; /* the hog's own may be gone */
    for (unsigned i = 0; i == 0 || r->name[i - 1]; i++)
        model_assert(r->name[i] == whole[r->id - 1][i]);
    calls++;
    told += 1 + (unsigned)r->missed;
}
static int mine, another;
static void hook(const struct go_long_run *r, void *arg) {
    model_assert(arg == &mine);
    check(r);
}
static void another_hook(const struct go_long_run *r, void *arg) {
    model_assert(arg == &another);
    check(r);
}

/* ---- sysmon ---------------------------------------------------------------------------------- */

static bool note(uint64_t progress) {
    bool missed = false, noted = rt_long_run_note(&ps[1], progress, &missed);
    model_assert(!noted || !missed);
    noticed += noted || missed;
    return noted;
}
static void tell(unsigned hog) {
    rt_long_run_tell((int64_t)hog, hog == 2, false);
    model_clock += BETWEEN_NS;
}
/* Two hogs, the second until the hook is free for it. */
static void tell_two(void) {
    if (note(0))
        tell(1);
    a_hog(1);
    ms[1].g = &gs[2]; /* nobody is there */
    while (!note(0))
        model_wait_for_change();
    tell(2);
}
/* Too early: it is but counted. */
static void tell_two_at_once(void) {
    model_assert(note(0));
    rt_long_run_tell(1, false, false);
    while (!note(0))
        model_wait_for_change();
    rt_long_run_tell(1, false, false);
    model_clock += BETWEEN_NS;
    model_assert(note(0));
    tell(1);
}
static void tell_if_it_is_so(void) {
    if (note(0))
        tell(1);
}

/* ---- others ---------------------------------------------------------------------------------- */

static void prepare(void) {
    machine_with_stacks(1);
    ps[1].m = &ms[1];
    model_clock = 1;
    model_clock_moves();
    a_hog(0);
    ms[1].g = &gs[1];
    model_assert(go_on_long_run(hook, &mine) == 0);
}

/* One in whose spawn there is no record for a green thread. */
static struct rt_g fresh[3];
static unsigned taken, refused = 3;

struct rt_g *rt_g_get(int *err) {
    unsigned i = taken++;
    *err = i == refused ? -EAGAIN : 0;
    if (i == refused)
        return NULL;
    struct rt_g *g = &fresh[i];
    g->limit = g->timer_when = g->wait_deadline = INT64_MAX;
    g->wait = RT_WAIT_WORD(1, RT_DEAD);
    return g;
}
static void first_spawn_fails(void) {
    prepare();
    refused = 0;
}

static void m0(void) {
    machine_run(0);
}
/* It makes progress: its G ends, and another one is there, whose record is perhaps the same. */
static void hog(void) {
    model_be(&ms[1]);
    struct rt_m *m = rt_gate_enter(&ms[1]);
    rt_bump(&m->p->ticks);
    gs[1].id = 7;
    gs[1].fn = &another;
    rt_store_relaxed(&gs[1].name, names[1]);
    model_gone(names[0], sizeof names[0]);
    m->g = &gs[2];
    hog_is_gone = true;
    rt_gate_leave(m);
}
static void change_hook(void) {
    model_assert(go_on_long_run(another_hook, &another) == 0);
}

static void all_counted(void) {
    model_assert(told == noticed);
}
static void two_calls_of_three(void) {
    model_assert(told == noticed && calls == 2);
}
static void at_most_one(void) {
    model_assert(told == noticed && told <= 1 && hog_is_gone);
}

#define CASE(n, start, check_end, b, s, ...) \
    MODEL_CASE("long_run." n, start, NULL, check_end, b, s, __VA_ARGS__)

const struct model_case model_cases[] = {
    CASE("two", prepare, all_counted, 2, 2, tell_two, m0),
    CASE("at_once", prepare, two_calls_of_three, 2, 2, tell_two_at_once, m0),
    CASE("no_green_thread", first_spawn_fails, all_counted, 2, 2, tell_two, m0),
    CASE("hog_ends", prepare, at_most_one, 2, 2, tell_if_it_is_so, m0, hog),
    CASE("hook_changes", prepare, all_counted, 2, 1, tell_if_it_is_so, m0, change_hook),
    {0},
};
