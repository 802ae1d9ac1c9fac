/* idle.c - sched/idle.c, in the scheduler loop as shipped (proc.c): no G is forgotten while an M
 * sleeps.
 *
 * The Ms run rt_proc_run. A G here is a hog: it computes for ever, outside, so what is queued
 * behind it must be found by somebody else. A lost wake-up shows at the end, when all Ms that have
 * no hog sleep: then nothing may be queued. One G may lie in runnext: its maker is taken to park
 * soon (sysmon looks at the others). */
#include "machine.h"

#include "base/lock.h"
#include "base/sys.h"
#include "sched/poller.h"

#include <gort/time.h>

static uint32_t ran; /* one bit for each G */

static void hog(void *arg) {
    rt_fetch_add_relaxed(&ran, (uint32_t)(uintptr_t)arg);
    model_exit();
}

static void spawn_hog(unsigned i) {
    model_assert(go_spawn(hog, (void *)(uintptr_t)(1u << 4 * i)) == 0);
}

static void one_p(void) {
    machine_with_stacks(1);
}
static void two_ps(void) {
    machine_with_stacks(2);
}
static void three_ps(void) {
    machine_with_stacks(3);
}

static void m0(void) {
    machine_run(0);
}
static void m1(void) {
    machine_run(1);
}
static void m2(void) {
    machine_run(2);
}

/* ---- a G of the own P, pushed to the ring by the next one ------------------------------------ */

static void spawn_two(void) {
    machine_be(0, &gs[0]);
    spawn_hog(0);
    spawn_hog(1);
}
static void first_ran(void) {
    model_assert(ran == 0x1);
}

/* Two for two: who finds the first wakes the other. */
static void spawn_three(void) {
    machine_be(0, &gs[0]);
    spawn_hog(0);
    spawn_hog(1);
    spawn_hog(2);
}
static void first_two_ran(void) {
    model_assert(ran == 0x11);
}

/* ---- a G from outside ------------------------------------------------------------------------ */

static void foreign_spawn(void) {
    spawn_hog(0);
}

/* Who is woken for the first is searching still: he looks for the second. */
static void foreign_spawns_two(void) {
    spawn_hog(0);
    spawn_hog(1);
}

/* ---- who finds something wakes the next, although nobody submits any more -------------------- */

static void two_are_queued(void) {
    machine_with_stacks(3);
    spawn_two();
    spawn_hog(2);
    model_be(NULL);
}

/* ---- a timer: one of the sleepers keeps the time --------------------------------------------- */

static void sleep_then_hog(void *arg) {
    model_assert(go_sleep(1000) == 0);
    hog(arg);
}
static void sleeper_is_queued(void) {
    machine_with_stacks(2);
    model_clock_moves();
    machine_be(0, &gs[0]);
    model_assert(go_spawn(sleep_then_hog, (void *)1) == 0);
    model_be(NULL);
}

/* ---- the stop, as end_workers does it -------------------------------------------------------- */

static uint32_t ended;

static void run_to_the_end(void) {
    machine_run(model_self() - 1);
    rt_fetch_add_relaxed(&ended, 1);
}
static void stop(void) {
    for (uint32_t i = 0; i < rt.procs; i++)
        rt_fetch_or(&ps[i].attention, RT_P_STOP);
    rt_fence_heavy();
    rt_idle_wake_all();
}
static void both_ended(void) {
    model_assert(ended == 2);
}

/* ---- a kick: m looks before it sleeps, or is woken to look ---------------------------------- */

/* As of epoll's set: asked by anybody, seen by who goes to sleep; the kernel's, so never stale. */
static uint32_t asked;
static bool looked;

static bool pending(struct rt_m *m) {
    (void)m;
    return false;
}
static void poll(struct rt_m *m, bool hungry, struct rt_glist *ready) {
    (void)m, (void)hungry, (void)ready;
}
static enum rt_sleep_mode look_and_sleep(struct rt_m *m) {
    (void)m;
    looked = rt_fetch_add_relaxed(&asked, 0) != 0;
    return RT_SLEEP_FUTEX;
}
static const struct rt_poller poller = {
    .pending = pending, .poll = poll, .sleep_mode = look_and_sleep};

static void one_p_that_looks(void) {
    one_p();
    rt_poller = &poller;
}
/* Another M that is awake: then the fence of the sleeper is the heavy one. */
static void two_ps_of_which_one_looks(void) {
    two_ps();
    rt_poller = &poller;
}
static void ask_and_kick(void) {
    rt_fetch_add_relaxed(&asked, 1);
    rt_idle_kick(&ps[0], rt_m_of(&ps[0]));
}
static void has_looked(void) {
    model_assert(looked);
}

/* One that has a hog to run: when it has taken the bit it has seen what it was kicked for. */
static uint32_t letter;
static bool letter_was_seen;
static bool look_for_letter(struct rt_m *m) {
    (void)m;
    letter_was_seen |= rt_load_relaxed(&letter) != 0;
    return false;
}
static const struct rt_poller letters = {
    .pending = look_for_letter, .poll = poll, .sleep_mode = look_and_sleep};

static void hog_is_queued(void) {
    one_p();
    rt_poller = &letters;
    machine_be(0, &gs[0]);
    spawn_hog(0);
    ms[0].g = NULL;
    model_be(NULL);
}
static void post_and_kick(void) {
    rt_store_relaxed(&letter, 1);
    rt_idle_kick(&ps[0], rt_m_of(&ps[0]));
}
static void seen_or_will_be(void) {
    model_assert(ran == 0x1 && (letter_was_seen || (ps[0].attention & RT_P_LOOK)));
}

/* Somebody waits in a close: that is served before a hog, although more is queued than a poll may
 * bring. */
static bool served;
static bool yes(struct rt_m *m) {
    (void)m;
    return true;
}
static void serve_letter(struct rt_m *m, bool hungry, struct rt_glist *ready) {
    (void)m, (void)hungry, (void)ready;
    served = true;
}
static const struct rt_poller closes = {
    .pending = yes, .urgent = yes, .poll = serve_letter, .sleep_mode = look_and_sleep};

static void crowd_is_queued(void) {
    one_p();
    rt_poller = &closes;
    spawn_hog(0); /* from outside: the global queue */
    spawn_hog(1);
}
static void served_first(void) {
    model_assert(served && ran == 0x1);
}

/* ---- a doze: no heavy fence, but a look after a while ---------------------------------------- */

static enum rt_sleep_mode in_the_poller(struct rt_m *m) {
    (void)m;
    return RT_SLEEP_POLLER;
}
static void undo(struct rt_m *m) {
    (void)m;
}
static void sleep_until_woken(struct rt_m *m, int64_t timeout, struct rt_glist *ready) {
    (void)ready;
    rt_note_wait(&m->note, timeout);
}
static void wake_sleeper(struct rt_m *m) {
    rt_note_wake(&m->note);
}
static const struct rt_poller sleeps = {.pending = pending,
                                        .poll = poll,
                                        .sleep_mode = in_the_poller,
                                        .sleep_undo = undo,
                                        .sleep = sleep_until_woken,
                                        .dozes = true,
                                        .wake = wake_sleeper};

static void one_dozes(void) {
    two_ps();
    model_clock_moves();
    rt_poller = &sleeps;
    ms[1].slept_short = true;
}

#define ENDS(how) .end = (how), .rest = (how)

const struct model_case model_cases[] = {
    {.name = "idle.spawn", .init = two_ps, .thread = {spawn_two, m1}, ENDS(first_ran)},
    {.name = "idle.foreign_one_m", .init = one_p, .thread = {foreign_spawn, m0}, ENDS(first_ran)},
    {.name = "idle.foreign",
     .init = two_ps,
     .thread = {foreign_spawn, m0, m1},
     ENDS(first_ran),
     .bound = 1,
     .stale = 1},
    {.name = "idle.foreign_two",
     .init = two_ps,
     .thread = {foreign_spawns_two, m0, m1},
     ENDS(first_two_ran),
     .bound = 1,
     .stale = 1},
    {.name = "idle.spawn_three",
     .init = three_ps,
     .thread = {spawn_three, m1, m2},
     ENDS(first_two_ran),
     .bound = 1,
     .stale = 1},
    {.name = "idle.who_finds_wakes",
     .init = two_are_queued,
     .thread = {m1, m2},
     ENDS(first_two_ran),
     .bound = 2},
    {.name = "idle.timer",
     .init = sleeper_is_queued,
     .thread = {m0, m1},
     ENDS(first_ran),
     .bound = 1,
     .stale = 1},
    {.name = "idle.stop",
     .init = two_ps,
     .thread = {stop, run_to_the_end, run_to_the_end},
     .end = both_ended,
     .bound = 1},
    {.name = "idle.kick", .init = one_p_that_looks, .thread = {ask_and_kick, m0}, ENDS(has_looked)},
    {.name = "idle.kick_busy",
     .init = hog_is_queued,
     .thread = {post_and_kick, m0},
     ENDS(seen_or_will_be)},
    {.name = "idle.kick_beside_another",
     .init = two_ps_of_which_one_looks,
     .thread = {ask_and_kick, m0},
     ENDS(has_looked)},
    {.name = "idle.urgent", .init = crowd_is_queued, .thread = {m0}, ENDS(served_first)},
    {.name = "idle.doze", .init = one_dozes, .thread = {spawn_two, m1}, ENDS(first_ran)},
    {0},
};
