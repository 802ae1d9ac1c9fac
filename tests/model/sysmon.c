/* sysmon.c - sched/sysmon.c: it does not sleep for ever while an M is awake. */
#include "machine.h"

#include "base/sys.h"
#include "sched/poller.h"
#include "sched/sysmon.h"

#include <gort/time.h>

/* It is started here, and run by a thread of the model. */
static void *(*sysmon_main)(void *);
static void *sysmon_arg;

int rt_sys_thread(pthread_t *t, void *(*fn)(void *), void *arg, const char *name) {
    (void)t, (void)name;
    sysmon_main = fn;
    sysmon_arg = arg;
    return 0;
}
int rt_sys_thread_count(void) {
    return 0;
}
void rt_start_deadlock(void) {
}

/* A poller that does nothing. sysmon asks it once for each tick, and ends after a few. */
enum { TICKS = 3 };
static int ticks;

static bool pending(struct rt_m *m) {
    (void)m;
    return false;
}
static void poll(struct rt_m *m, bool hungry, struct rt_glist *ready) {
    (void)hungry, (void)ready;
    if (!m && ++ticks > TICKS)
        model_exit();
}
static enum rt_sleep_mode sleep_mode(struct rt_m *m) {
    (void)m;
    return RT_SLEEP_FUTEX;
}
static const struct rt_poller poller = {.pending = pending, .poll = poll, .sleep_mode = sleep_mode};

static void hog(void *arg) {
    (void)arg;
    model_exit(); /* and is awake for ever */
}

static void one_p(void) {
    machine_with_stacks(1);
    rt_poller = &poller;
    model_assert(rt_sysmon_start() == 0);
}
/* The M wakes up by itself, for a timer. */
static void sleep_then_hog(void *arg) {
    model_assert(go_sleep(1000) == 0);
    hog(arg);
}
static void sleeper_is_queued(void) {
    one_p();
    model_clock_moves();
    machine_be(0, &gs[0]);
    model_assert(go_spawn(sleep_then_hog, NULL) == 0);
    model_be(NULL);
}

static void sysmon(void) {
    sysmon_main(sysmon_arg);
}
static void m0(void) {
    machine_run(0);
}
static void foreign_spawn(void) {
    model_assert(go_spawn(hog, NULL) == 0);
}

const struct model_case model_cases[] = {
    {.name = "sysmon.awake",
     .init = one_p,
     .thread = {sysmon, m0, foreign_spawn},
     .bound = 1,
     .stale = 1},
    {.name = "sysmon.timer", .init = sleeper_is_queued, .thread = {sysmon, m0}, .bound = 1},
    {0},
};
