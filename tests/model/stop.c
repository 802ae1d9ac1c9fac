/* stop.c - the stop of sched/start.c: when go_stop has returned 0, each green thread has run to its
 * end or was never made, the workers have ended, and nobody touches the Ps and Ms any more, which
 * are freed: no foreign thread that spawns or wakes somebody meanwhile, either. And the start: who
 * finds the runtime running finds all of it.
 *
 * In most cases the runtime runs already. The Ps and Ms are allocated, as start.c has them, so that
 * it can free them. */
#include "event.h"
#include "polls.h"
#include "threads.h"

#include "base/chaos.h"
#include "sched/env.h"
#include "sched/g.h"
#include "sched/retake.h"
#include "sched/spawn.h"
#include "sched/stack.h"
#include "sched/start.h"
#include "sched/sysmon.h"

#include <gort/scope.h>
#include <string.h>

static struct event event;
static uint32_t ran, refused; /* Gs that have come to their end; spawns that were refused */
static uint32_t stopped;
static uint32_t stacks_made;
static int reason; /* plain: what was done before the stop */
static bool engine_is_there = true; /* plain */

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
        rt.ms[i].thread = nthreads++;
    }
    event_init(&event);
}

static void worker(unsigned i) {
    model_be(&rt.ms[i]);
    rt_proc_run(&rt.ms[i]);
    model_be(NULL);
    thread_has_ended(i);
}
static void m0(void) {
    worker(0);
}
static void m1(void) {
    worker(1);
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

static struct rt_g *later; /* it waits for its first run */
static uint64_t later_seq;

static void spawn_later(void) {
    model_assert(rt_spawn_at(end, NULL, GO_FOREVER, NULL, &later, &later_seq) == 0);
}
static void for_later(void) {
    machine(1);
    spawn_later();
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
static const struct rt_poller engine = {.pending = polls_pending,
                                        .poll = polls_poll,
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
    while (rt_load_relaxed(&rt.foreign) == 0 && rt_load_acquire(&joined) == 0)
        model_wait_for_change();
    stop();
}
static void join(void) {
    void *result = NULL;
    model_assert(go_task_join(task, &result) == 0 && result == &ran);
    rt_store_release(&joined, 1);
}
/* The one who comes when the task is counted as over, and before its end has been told. */
static bool joiner_comes_late;
static uint32_t task_is_over;
void __real_rt_task_ended(struct rt_m *m, struct rt_g *g);
void __wrap_rt_task_ended(struct rt_m *m, struct rt_g *g);
void __wrap_rt_task_ended(struct rt_m *m, struct rt_g *g) {
    rt_store_relaxed(&task_is_over, joiner_comes_late);
    while (joiner_comes_late && rt_load_relaxed(&rt.foreign) == 0)
        model_wait_for_change();
    __real_rt_task_ended(m, g);
}
static void task_runs_late_joiner(void) {
    task_runs();
    joiner_comes_late = true;
}
static void join_when_over(void) {
    while (rt_load_relaxed(&task_is_over) == 0)
        model_wait_for_change();
    join();
}
static void set(void) {
    event_set(&event);
}
static void spawn(void) {
    int err = go_spawn(end, NULL);
    model_assert(err == 0 || err == -ESHUTDOWN || err == -ENXIO);
    rt_fetch_add_relaxed(&refused, err != 0);
}

/* Before it begins, unless the stop was quicker. */
static void take_back(void) {
    if (rt_foreign_enter() != 0)
        return;
    rt_fetch_add_relaxed(&refused, rt_spawn_undo(later, later_seq));
    rt_foreign_leave();
}
/* The same by two threads. */
static uint32_t spawned_later;

static void spawn_and_tell(void) {
    spawn_later();
    rt_store_release(&spawned_later, 1);
}
static void take_back_when_told(void) {
    while (rt_load_acquire(&spawned_later) == 0)
        model_wait_for_change();
    take_back();
}
/* One lives, who was there before. */
static void count(void) {
    uint64_t spawned, ended, n = rt_live(&spawned, &ended);
    model_assert(n >= 1 && n <= 2 && n == spawned - ended);
}

/* As a close does beside the stop: it waits for nothing, and touches what the stop takes down. */
static void close_one(void) {
    if (rt_foreign_enter_to_close() != 0)
        return;
    model_assert(engine_is_there && rt_load_relaxed(&rt.ps[0].m) == &rt.ms[0]);
    rt_foreign_leave();
}
/* Two stops at once: one of them does it. */
static void try_to_stop(void) {
    int err = go_stop(GO_FOREVER);
    model_assert(err == 0 || err == -EALREADY || err == -ENXIO);
    if (err == 0)
        stopped++;
}

/* Each M makes its part, which others may touch when they wake it. */
static int m_start(struct rt_m *m) {
    if (m->poller) /* a spare asks once more */
        return 0;
    m->poller = m;
    return 0;
}
static bool pending(struct rt_m *m) {
    for (uint32_t i = 0; i < rt.nms; i++)
        model_assert(rt.ms[i].poller == &rt.ms[i]);
    return polls_pending(m);
}
static const struct rt_poller engine_of_parts = {
    .m_start = m_start, .pending = pending, .poll = polls_poll, .sleep_mode = polls_sleep_mode};

static uint32_t procs_to_start = 1;
static int start_one(void) {
    struct go_options o = GO_OPTIONS_INIT;
    o.procs = procs_to_start;
    o.max_threads = procs_to_start + 1;
    o.max_tasks = 1;
    return go_start(&o);
}
static void start(void) {
    model_assert(start_one() == 0);
}
static void t0(void) {
    run_thread(0);
}
static void t1(void) {
    run_thread(1);
}
static void ask_how_many(void) {
    unsigned n = go_procs();
    model_assert(n == 0 || n == 1);
}

/* Another start, and a close that may be of either. */
static void stop_and_start(void) {
    stop();
    start();
}

/* It makes new ones where the stop has freed. */
static void start_again(void) {
    int err;
    while ((err = start_one()) == -EALREADY)
        model_wait_for_change();
    model_assert(err == 0);
}

/* The last user of the first start, and who stops that, too, and starts another. */
static void first_has_nobody(void) {
    nobody();
    rt_starts = 1;
}
static void stop_first(void) {
    int err = rt_stop_begin(1);
    if (err == 0)
        err = rt_stop_end(GO_FOREVER);
    model_assert(err == 0 || err == -EALREADY || err == -ENXIO);
}
static void stop_and_start_second(void) {
    int err;
    while ((err = go_stop(GO_FOREVER)) == -EALREADY)
        model_wait_for_change();
    model_assert(err == 0 || err == -ENXIO);
    start();
    stopped = 1;
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
static void not_started(void) {
    machine_with_stacks(1);
    rt = (struct rt_sched){.procs = 2}; /* of an earlier one */
    engine_is_there = false;
    procs_to_start = 1;
    rt_spare_keep_ns = -1; /* a time-out here and there is more than can be explored */
    model_ignore(&rt_tls_m, sizeof rt_tls_m); /* each thread has its own */
}
/* By an environment that asks for one P: that makes two threads, of which one is a spare. */
static void run_one(void *arg) {
    model_assert(arg == &ran);
    reason = 1;
    end(arg);
}
static void run_to_its_end(void) {
    model_assert(go_run(run_one, &ran) == 0 && reason == 1);
    stopped = 1;
}
static uint32_t some_lock;
static struct rt_g *parker;
static uint32_t sysmon_is_there;
static void park_for_ever(void *arg) {
    rt_store_relaxed(&parker, rt_self());
    rt_lock(&some_lock);
    int r = rt_park(rt_self(), &some_lock, RT_WAITING, GO_FOREVER, RT_WHY_MUTEX);
    model_assert(r == -ECANCELED);
    end(arg);
}
static void run_into_deadlock(void) {
    model_assert(go_run(park_for_ever, NULL) == -EDEADLK);
    stopped = 1;
}
/* As sysmon, which finds that nobody will wake it. */
static void find_deadlock(void) {
    struct rt_g *g;
    while (rt_load_acquire(&sysmon_is_there) == 0)
        model_wait_for_change();
    while ((g = rt_load_relaxed(&parker)) == NULL)
        model_wait_for_change();
    while (RT_WAIT_STATE(rt_load_relaxed(&g->wait)) != RT_WAITING)
        model_wait_for_change();
    do
        rt_start_deadlock(); /* as at each tick: the first may not see the spawn yet */
    while (rt_load_relaxed(&rt.deadlocked) == 0);
}

/* Libraries that share one, with who started it or did not come first. */
static void start_or_late(void) {
    int err = go_start(NULL);
    model_assert(err == 0 || err == -EALREADY);
}
static void join_in(void) {
    model_assert(go_acquire() == 0 && rt.ps && rt.ms && engine_is_there);
}
static uint32_t has_joined;
static void join_in_and_leave(void) {
    join_in();
    rt_store_relaxed(&has_joined, 1);
    model_assert(go_release(GO_FOREVER) == 0);
    stopped = 1;
}
static void spawn_when_joined(void) {
    while (rt_load_relaxed(&has_joined) == 0)
        model_wait_for_change();
    spawn();
}

/* One start fails, and leaves what the next one finds. */
static void start_with_bad_options(void) {
    struct go_options o = GO_OPTIONS_INIT;
    o.max_threads = o.procs = 1;
    int err = go_start(&o);
    model_assert(err == -EINVAL || err == -EALREADY);
}
static void start_at_last(void) {
    while (start_one() == -EALREADY)
        model_wait_for_change();
}

static void not_started_two(void) {
    not_started();
    procs_to_start = 2;
}
static void started(void) {
    model_assert(rt.state == RT_RUNNING && rt.ms[0].p == &rt.ps[0] && rt.foreign == 0);
}
/* Or late, when threads run already. */
static bool sysmon_is_refused;
static uint32_t nfailed;
static void start_one_of_two(void) {
    int err;
    while ((err = start_one()) == -EALREADY)
        model_wait_for_change();
    model_assert(err == 0 || err == -EAGAIN);
    rt_fetch_add_relaxed(&nfailed, err != 0);
}
static void sysmon_is_refused_once(void) {
    not_started();
    sysmon_is_refused = true;
}
static void second_has_started(void) {
    model_assert(nfailed == 1);
    started();
}

static void started_again(void) {
    model_assert(stopped == 1);
    started();
}
static void one_lives(void) {
    uint64_t spawned, ended;
    model_assert(rt_live(&spawned, &ended) == 1 && refused == 1);
}
static void none_ended(void) {
    ended(0);
}

#define RESTING(n, start, check, at_rest, b, s, ...) \
    MODEL_CASE("stop." n, start, check, at_rest, b, s, __VA_ARGS__)
#define CASE(n, start, check, b, s, ...) RESTING(n, start, check, NULL, b, s, __VA_ARGS__)

const struct model_case model_cases[] = {
    CASE("idle", nobody, none_ended, 3, 2, stop, m0),
    CASE("waiter", waiter, one_ended, 2, 2, stop, m0),
    CASE("waiter_woken", waiter, one_ended, 1, 2, stop, m0, set),
    CASE("woken_in_engine", waiter_and_engine, one_ended, 1, 2, stop, m0, set),
    CASE("spawner", spawner, two_ended, 2, 2, stop, m0),
    CASE("foreign_spawn", nobody, one_ended, 1, 2, stop, m0, spawn),
    CASE("foreign_join", task_runs, one_ended, 1, 2, stop_during_join, m0, join),
    CASE("foreign_join_at_its_end", task_runs_late_joiner, one_ended, 1, 1, stop, m0,
         join_when_over),
    CASE("taken_back", for_later, one_ended, 1, 2, stop, m0, take_back),
    CASE("count", waiter, one_lives, 2, 2, count, spawn_and_tell, take_back_when_told),
    CASE("close", nobody, none_ended, 2, 2, stop, m0, close_one),
    CASE("two_stops", nobody, none_ended, 2, 2, try_to_stop, m0, try_to_stop),
    RESTING("start_again", nobody, started_again, started_again, 1, 2, stop, m0, start_again, t1),
    RESTING("restarted_beside_close", nobody, started_again, started_again, 1, 2, stop_and_start,
            m0, t1, close_one),
    RESTING("released_beside_restart", first_has_nobody, started_again, started_again, 1, 2,
            stop_first, m0, t1, stop_and_start_second),
    RESTING("start", not_started, started, started, 2, 2, start, t0, ask_how_many),
    RESTING("start_two", not_started_two, started, started, 1, 1, start, t0, t1),
    CASE("run", not_started, one_ended, MODEL_NO_PREEMPTION, 1, run_to_its_end, t0, t1),
    CASE("run_into_deadlock", not_started, one_ended, MODEL_NO_PREEMPTION, 1, run_into_deadlock, t0,
         t1, find_deadlock),
    RESTING("joined", not_started, started, started, MODEL_NO_PREEMPTION, 1, start_or_late, t0,
            join_in, t1),
    CASE("joined_and_left", not_started, one_ended, MODEL_NO_PREEMPTION, 1, join_in_and_leave, t0,
         t1, spawn_when_joined),
    RESTING("started_after_another", not_started, started, started, 1, 1, start_at_last, t0,
            start_with_bad_options),
    RESTING("started_after_refusal", sysmon_is_refused_once, second_has_started, second_has_started,
            MODEL_NO_PREEMPTION, 1, start_one_of_two, t0, start_one_of_two, t1),
    RESTING("start_and_close", not_started, started, started, 2, 2, start, t0, close_one),
    CASE("two_ps", two_ps, none_ended, 1, 1, stop, m0, m1),
    {0},
};

/* ---- what start.c knows besides -------------------------------------------------------------- */

void rt_log(const char *fmt, ...) {
    (void)fmt;
}
void rt_env_read(struct rt_env *env) {
    *env = (struct rt_env){.procs = 1, .grace_ns = GO_FOREVER};
}
void rt_chaos_start(double probability, uint64_t seed, const char *at) {
    (void)probability, (void)seed, (void)at;
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
    static char mapped[64];
    (void)bytes;
    return mapped;
}
void rt_sys_unmap(void *p, size_t bytes) {
    (void)p, (void)bytes;
}
bool rt_sys_membarrier_register(void) {
    return true;
}
int rt_poller_start(const char *name, unsigned procs) {
    (void)name;
    engine_is_there = true;
    rt_poller = procs > 1 ? &engine_of_parts : NULL;
    return 0;
}
void rt_poller_stop(void) {
    engine_is_there = false;
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
/* For the Ps that go_start makes, which have none of machine.c's. */
struct rt_stack *rt_stack_get_owner(struct rt_p *p) {
    enum { FIRST = 6, BYTES = 16 * 1024 };
    (void)p;
    char *low = model_stack(FIRST + rt_fetch_add_relaxed(&stacks_made, 1), BYTES);
    struct rt_stack *s = (struct rt_stack *)(void *)(low + BYTES) - 1;
    *s = (struct rt_stack){.low = low};
    return s;
}
int rt_sysmon_start(void) {
    if (sysmon_is_refused) {
        sysmon_is_refused = false;
        return -EAGAIN;
    }
    rt_store_release(&sysmon_is_there, 1);
    return 0;
}
void rt_sysmon_stop(void) {
}
void rt_lot_fork_child(void) {
}
