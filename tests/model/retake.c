/* retake.c - sched/retake.c, in the scheduler loop as shipped: a P is taken from its M at any
 * moment at which that is outside, and no G is lost, run twice, or left lying.
 *
 * M 0 has the P, M 1 is a spare. A thread in the place of sysmon takes, once or until it has. What
 * the Gs do stands beside the cases; at the end all Ms sleep. */
#include "event.h"
#include "polls.h"

#include "base/sys.h"
#include "sched/retake.h"

#include <gort/time.h>

static struct event event;
static uint32_t ran; /* four bits for each G */

static void count(unsigned i) {
    rt_fetch_add_relaxed(&ran, 1u << 4 * i);
}

/* ---- the machine ----------------------------------------------------------------------------- */

static void one_p_and_a_spare(void) {
    machine_with_stacks(1);
    rt.nms = rt.max_ms = 2;
    ms[1].gate = RT_GATE_SHUT;
    ms[1].p = rt.nobody;
    rt_spares_start();
    rt_spare_keep_ns = -1; /* a time-out here and there is more than can be explored */
    event_init(&event);
}

static void m0(void) {
    machine_run(0);
}
/* Its own thread makes it what it is. */
static void m1(void) {
    ms[1].tid = 1;
    machine_run(1);
}
static void take_once(void) {
    rt_retake(&ps[0], rt_progress_any(&ps[0]));
}
static void take(void) {
    while (!rt_retake(&ps[0], rt_progress_any(&ps[0])))
        model_wait_for_change();
}

static void queue(void (*fn)(void *)) {
    machine_be(0, &gs[0]);
    model_assert(go_spawn(fn, NULL) == 0);
    ms[0].g = NULL;
    model_be(NULL);
}

static void nothing_is_left(void) {
    model_assert(ps[0].ring[0] == NULL || ps[0].head == ps[0].tail);
    model_assert(ps[0].runnext == NULL && ps[0].fresh_head == ps[0].fresh_tail);
    model_assert(rt_globq_size() == 0 && rt_retake_away() == 0);
}

/* ---- what waits behind a hog runs ------------------------------------------------------------ */

static void second(void *arg) {
    (void)arg;
    count(1);
}
static void spawn_and_hog(void *arg) {
    (void)arg;
    count(0);
    model_assert(go_spawn(second, NULL) == 0);
    model_exit(); /* computes for ever */
}
static void hog_is_queued(void) {
    one_p_and_a_spare();
    queue(spawn_and_hog);
}
static void both_ran(void) {
    model_assert(ran == 0x11);
}

/* ---- it comes back --------------------------------------------------------------------------- */

static void spawn_and_end(void *arg) {
    (void)arg;
    model_assert(go_spawn(second, NULL) == 0);
    count(0);
}
static void ender_is_queued(void) {
    one_p_and_a_spare();
    queue(spawn_and_end);
}

static void yield(void *arg) {
    (void)arg;
    go_yield();
    count(0);
}
static void yielder_is_queued(void) {
    one_p_and_a_spare();
    queue(yield);
}
static void first_ran(void) {
    nothing_is_left();
    model_assert(ran == 0x1);
}
static void both_ran_and_ended(void) {
    nothing_is_left();
    both_ran();
}

/* ---- it parks, and is woken by a foreign thread ---------------------------------------------- */

static void wait(void *arg) {
    (void)arg;
    model_assert(event_wait(&event, RT_WAITING, GO_FOREVER) == 0);
    model_assert(event.message == 1);
    count(0);
}
static void waiter_is_queued(void) {
    one_p_and_a_spare();
    queue(wait);
}
static void foreign_set(void) {
    event_set(&event);
}

/* ---- it wakes another ------------------------------------------------------------------------ */

static void set(void *arg) {
    (void)arg;
    event_set(&event);
    count(1);
}
static void waiter_and_setter_are_queued(void) {
    one_p_and_a_spare();
    queue(set); /* the newest runs first */
    queue(wait);
}

/* ---- it sleeps ------------------------------------------------------------------------------- */

static void sleep_a_little(void *arg) {
    (void)arg;
    model_assert(go_sleep(1000) == 0);
    count(0);
}
static void sleeper_is_queued(void) {
    one_p_and_a_spare();
    model_clock_moves();
    queue(sleep_a_little);
}

/* ---- it has armed a poll: the heir finds it, or it has seen that its P was gone -------------- */

static void arm_and_hog(void *arg) {
    (void)arg;
    polls_arm();
    count(0);
    model_exit();
}
static void armer_is_queued(void) {
    one_p_and_a_spare();
    polls_on_all();
    queue(arm_and_hog);
}
static void taken_with_its_poll(void) {
    model_assert(ps[0].m == &ms[1]);
    polls_are_not_lost();
}

/* ---- it is locked to its thread, while sysmon looks at whoever has the P --------------------- */

static void locked(void *arg) {
    (void)arg;
    go_lock_thread();
    count(0);
    go_unlock_thread();
}
static void locked_and_another_are_queued(void) {
    one_p_and_a_spare();
    model_clock_moves(); /* it comes again when there is no spare yet */
    queue(second);       /* the newest runs first */
    queue(locked);
}
/* A first look, a warning, the taking. */
static void look(void) {
    struct rt_hog hog = {0};
    for (int i = 1; i <= 3; i++)
        rt_retake_look(&ps[0], &hog, i * INT64_C(1000) * 1000);
}

#define ENDS(how) .end = (how), .rest = (how)

const struct model_case model_cases[] = {
    {.name = "retake.hog", .init = hog_is_queued, .thread = {m0, m1, take}, ENDS(both_ran),
     .bound = 2, .stale = 1},
    {.name = "retake.end",
     .init = ender_is_queued,
     .thread = {m0, m1, take_once},
     ENDS(both_ran_and_ended),
     .bound = 2,
     .stale = 1},
    {.name = "retake.yield",
     .init = yielder_is_queued,
     .thread = {m0, m1, take_once},
     ENDS(first_ran),
     .bound = 2,
     .stale = 1},
    {.name = "retake.park",
     .init = waiter_is_queued,
     .thread = {m0, m1, take_once, foreign_set},
     ENDS(first_ran),
     .bound = 1,
     .stale = 1},
    {.name = "retake.wake",
     .init = waiter_and_setter_are_queued,
     .thread = {m0, m1, take_once},
     ENDS(both_ran_and_ended),
     .bound = 2,
     .stale = 1},
    {.name = "retake.sleep",
     .init = sleeper_is_queued,
     .thread = {m0, m1, take_once},
     ENDS(first_ran),
     .bound = 1,
     .stale = 1},
    {.name = "retake.polls",
     .init = armer_is_queued,
     .thread = {m0, m1, take},
     ENDS(taken_with_its_poll),
     .bound = 2,
     .stale = 1},
    {.name = "retake.locked",
     .init = locked_and_another_are_queued,
     .thread = {m0, m1, look},
     ENDS(both_ran_and_ended),
     .bound = 1,
     .stale = 1},
    {0},
};
