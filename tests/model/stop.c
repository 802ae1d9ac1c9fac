/* stop.c - the stop of sched/start.c: when go_stop has returned 0, each green thread has run to its
 * end or was never made, the workers have ended, and nobody touches the Ps and Ms any more, which
 * are freed: no foreign thread that spawns or wakes somebody meanwhile, either.
 *
 * The boot is not here: the runtime runs when a case begins. The Ps and Ms are allocated, as
 * start.c has them, so that it can free them. */
#include "event.h"

#include "base/chaos.h"
#include "base/sys.h"
#include "sched/env.h"
#include "sched/g.h"
#include "sched/poller.h"
#include "sched/spawn.h"
#include "sched/stack.h"
#include "sched/start.h"
#include "sched/sysmon.h"

#include <gort/scope.h>
#include <string.h>

static struct event event;
static uint32_t ran, refused; /* Gs that have come to their end; spawns that were refused */
static uint32_t worker_ended[PROCS];
static uint32_t stopped;
static int reason; /* plain: what was done before the stop */

/* ---- a runtime that runs --------------------------------------------------------------------- */

static void machine(uint32_t procs) {
    machine_with_stacks(procs);
    rt.ps = rt_sys_alloc_aligned((procs + 1) * sizeof *rt.ps, RT_CACHE_LINE);
    rt.ms = rt_sys_alloc_aligned((procs + 1) * sizeof *rt.ms, RT_CACHE_LINE);
    memcpy(rt.ps, ps, (procs + 1) * sizeof *rt.ps);
    memcpy(rt.ms, ms, procs * sizeof *rt.ms);
    rt.nobody = &rt.ps[procs];
    rt.nobody->m = &rt.ms[procs];
    rt.ms[procs].p = rt.nobody;
    for (uint32_t i = 0; i < procs; i++) {
        rt.ps[i].m = &rt.ms[i];
        rt.ms[i].p = &rt.ps[i];
        rt.ms[i].thread = i + 1;
    }
    event_init(&event);
}

static void worker(unsigned i) {
    model_be(&rt.ms[i]);
    rt_proc_run(&rt.ms[i]);
    model_be(NULL);
    rt_store_release(&worker_ended[i], 1);
}
static void m0(void) {
    worker(0);
}
static void m1(void) {
    worker(1);
}

/* By --wrap: the threads are the model's. */
int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_join(pthread_t thread, void **result) {
    (void)result;
    while (rt_load_acquire(&worker_ended[thread - 1]) == 0)
        model_wait_for_change();
    return 0;
}

/* ---- green threads --------------------------------------------------------------------------- */

static void end(void *arg) {
    (void)arg;
    rt_fetch_add_relaxed(&ran, 1);
}
static void wait_and_end(void *arg) {
    int r = event_wait(&event, RT_WAITING, GO_FOREVER);
    model_assert(r == 0 || (r == -ECANCELED && reason == 1));
    end(arg);
}
static void spawn_and_end(void *arg) {
    int err = go_spawn(end, NULL);
    model_assert(err == 0 || err == -ESHUTDOWN);
    rt_fetch_add_relaxed(&refused, err != 0);
    end(arg);
}

static go_task *task;
static void *work(void *arg) {
    end(arg);
    return &ran;
}

static void prepare(uint32_t procs, void (*fn)(void *)) {
    machine(procs);
    if (!fn)
        return;
    model_be(&rt.ms[0]);
    rt.ms[0].g = &gs[0];
    model_assert(go_spawn(fn, NULL) == 0);
    rt.ms[0].g = NULL;
    model_be(NULL);
}
static void task_runs(void) {
    machine(1);
    model_be(&rt.ms[0]);
    rt.ms[0].g = &gs[0];
    task = go_task_spawn(work, NULL);
    rt.ms[0].g = NULL;
    model_be(NULL);
}
static void nobody(void) {
    prepare(1, NULL);
}
static void waiter(void) {
    prepare(1, wait_and_end);
}
/* Its M sleeps in an engine, as far as C11 knows: a system call ends that, which orders nothing. */
static uint32_t bell;
static void engine_wake(struct rt_m *m) {
    model_assert(m->poller == NULL);
    rt_store_relaxed(&bell, 1);
}
static void engine_sleep(struct rt_m *m, int64_t timeout_ns, struct rt_glist *ready) {
    (void)m, (void)timeout_ns, (void)ready;
    while (rt_load_relaxed(&bell) == 0)
        model_wait_for_change();
    rt_store_relaxed(&bell, 0);
}
static void engine_sleep_undo(struct rt_m *m) {
    (void)m;
}
static enum rt_sleep_mode engine_sleep_mode(struct rt_m *m) {
    (void)m;
    return RT_SLEEP_POLLER;
}
static bool engine_pending(struct rt_m *m) {
    (void)m;
    return false;
}
static void engine_poll(struct rt_m *m, bool hungry, struct rt_glist *ready) {
    (void)m, (void)hungry, (void)ready;
}
static const struct rt_poller engine = {.pending = engine_pending,
                                        .poll = engine_poll,
                                        .sleep_mode = engine_sleep_mode,
                                        .sleep_undo = engine_sleep_undo,
                                        .sleep = engine_sleep,
                                        .wake = engine_wake};
static void waiter_and_engine(void) {
    waiter();
    rt_poller = &engine;
}
static void spawner(void) {
    prepare(1, spawn_and_end);
}
static void two_ps(void) {
    prepare(2, NULL);
}

/* ---- threads --------------------------------------------------------------------------------- */

static void stop(void) {
    reason = 1;
    model_assert(go_stop(GO_FOREVER) == 0);
    stopped = 1;
}
/* A join may be under way when the stop begins, but must not begin after it. */
static uint32_t joined;
static void stop_during_join(void) {
    while (rt_load_relaxed(&rt.foreign) == 0 && rt_load_relaxed(&joined) == 0)
        model_wait_for_change();
    stop();
}
static void join(void) {
    void *result = NULL;
    model_assert(go_task_join(task, &result) == 0 && result == &ran);
    rt_store_relaxed(&joined, 1);
}
static void set(void) {
    event_set(&event);
}
static void spawn(void) {
    int err = go_spawn(end, NULL);
    model_assert(err == 0 || err == -ESHUTDOWN || err == -ENXIO);
    rt_fetch_add_relaxed(&refused, err != 0);
}

/* As a close does beside the stop: it waits for nothing, and touches what the stop frees. */
static void close_one(void) {
    if (rt_foreign_enter_to_close() != 0)
        return;
    model_assert(rt_load_relaxed(&rt.ps[0].m) == &rt.ms[0]);
    rt_foreign_leave();
}
/* Two stops at once: one of them does it. */
static void try_to_stop(void) {
    int err = go_stop(GO_FOREVER);
    model_assert(err == 0 || err == -EALREADY || err == -ENXIO);
    if (err == 0)
        stopped++;
}

/* The next go_start begins like this, and makes new ones where the stop has freed. */
static void start_again(void) {
    uint32_t state = RT_STOPPED;
    while (!rt_cas(&rt.state, &state, RT_STARTING)) {
        state = RT_STOPPED;
        model_wait_for_change();
    }
    model_assert(!rt.ps && !rt.ms);
    rt.procs = rt.procs_ever = 0;
}

static void ended(uint32_t n) {
    model_assert(stopped == 1 && ran + refused == n);
    model_assert(rt.state == RT_STOPPED && rt.foreign == 0 && !rt.ps && !rt.ms);
}
static void one_ended(void) {
    ended(1);
}
static void two_ended(void) {
    ended(2);
}
static void started_again(void) {
    model_assert(stopped == 1 && rt.state == RT_STARTING);
}
static void none_ended(void) {
    ended(0);
}

#define CASE(n, start, check, b, s, ...) \
    { \
        .name = "stop." n, .init = (start), .thread = {__VA_ARGS__}, .end = (check), .bound = (b), \
        .stale = (s) \
    }

const struct model_case model_cases[] = {
    CASE("idle", nobody, none_ended, 3, 2, stop, m0),
    CASE("waiter", waiter, one_ended, 2, 2, stop, m0),
    CASE("waiter_woken", waiter, one_ended, 1, 2, stop, m0, set),
    CASE("woken_in_engine", waiter_and_engine, one_ended, 1, 2, stop, m0, set),
    CASE("spawner", spawner, two_ended, 2, 2, stop, m0),
    CASE("foreign_spawn", nobody, one_ended, 1, 2, stop, m0, spawn),
    CASE("foreign_join", task_runs, one_ended, 1, 2, stop_during_join, m0, join),
    CASE("close", nobody, none_ended, 2, 2, stop, m0, close_one),
    CASE("two_stops", nobody, none_ended, 2, 2, try_to_stop, m0, try_to_stop),
    CASE("start_again", nobody, started_again, 1, 2, stop, m0, start_again),
    CASE("two_ps", two_ps, none_ended, 1, 1, stop, m0, m1),
    {0},
};

/* ---- what start.c knows besides -------------------------------------------------------------- */

void rt_log(const char *fmt, ...) {
    (void)fmt;
}
void rt_env_read(struct rt_env *env) {
    (void)env;
}
void rt_chaos_start(double probability, uint64_t seed, const char *at) {
    (void)probability, (void)seed, (void)at;
}
int rt_sys_thread(pthread_t *t, void *(*fn)(void *), void *arg, const char *name) {
    (void)t, (void)fn, (void)arg, (void)name;
    return -EAGAIN;
}
unsigned rt_sys_cpus(void) {
    return 1;
}
uint64_t rt_sys_memory_limit(void) {
    return UINT64_MAX;
}
size_t rt_sys_page_size(void) {
    return 4096;
}
void *rt_sys_map(size_t bytes) {
    (void)bytes;
    return NULL;
}
void rt_sys_unmap(void *p, size_t bytes) {
    (void)p, (void)bytes;
}
bool rt_sys_membarrier_register(void) {
    return true;
}
int rt_poller_start(const char *name, unsigned procs) {
    (void)name, (void)procs;
    return 0;
}
void rt_poller_stop(void) {
}
void rt_poller_evict(void) {
}
void rt_g_start(size_t max_tasks) {
    (void)max_tasks;
}
void rt_g_stop(void) {
    if (task)
        model_gone(task, sizeof(struct rt_g));
}
void rt_g_put(struct rt_g *g) {
    g->next = NULL; /* the link of the free list */
}
int rt_stack_start(unsigned procs, unsigned default_class) {
    (void)procs, (void)default_class;
    return 0;
}
void rt_stack_stop(void) {
}
int rt_sysmon_start(void) {
    return 0;
}
void rt_sysmon_stop(void) {
}
void rt_lot_fork_child(void) {
}
