/* spawn.c and g.c: each runs once, knows who it is, and a limit or an empty memory is only an
 * error. */
#include "t_unit.h"

#include "base/fault.h"
#include "sched/g.h"
#include "sched/stack.h"

static int ran;

static void count_up(void *arg) {
    (void)arg;
    rt_fetch_add(&ran, 1);
}

static void *do_nothing(void *arg) {
    return arg;
}

/* ---- each runs once -------------------------------------------------------------------------- */

enum { MANY = 20000 };
static uint8_t times[MANY];

static void mark(void *arg) {
    rt_fetch_add(&times[t_int(arg)], 1);
}

static void spawn_range(void *arg) {
    int from = (int)t_int(arg);
    for (int i = from; i < from + MANY / 8; i++)
        T_SPAWN(mark, t_ptr(i));
}

static void *spawn_range_thread(void *arg) {
    spawn_range(t_ptr(t_int(arg) * (MANY / 8)));
    return NULL;
}

Test(spawn, each_runs_once_whoever_spawned_it) {
    T_EQ(go_start(NULL), 0);
    for (int i = 4; i < 8; i++)
        T_SPAWN(spawn_range, t_ptr(i * (MANY / 8)));
    t_threads(4, spawn_range_thread);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    for (int i = 0; i < MANY; i++)
        T_EQ(times[i], 1);
}

static void tree(void *arg) {
    intptr_t depth = t_int(arg);
    count_up(NULL);
    for (int i = 0; depth > 0 && i < 10; i++)
        T_SPAWN(tree, t_ptr(depth - 1));
}

Test(spawn, a_tree_of_spawns_is_counted_whole) {
    int depth = T_SCALE(100) > 50 && t_procs() <= 8 ? 5 : 4;
    T_EQ(go_start(NULL), 0);
    T_SPAWN(tree, t_ptr(depth));
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    T_EQ(ran, depth == 5 ? 111111 : 11111);
}

/* ---- identities ------------------------------------------------------------------------------ */

static uint64_t ids[4000];
static uint32_t n_ids;

static void note_id(void *arg) {
    (void)arg;
    uint64_t id = go_id();
    T_ASSERT(id > 0);
    go_yield();
    T_EQ(go_id(), id);
    ids[rt_fetch_add(&n_ids, 1)] = id;
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void spawn_note_ids(void *arg) {
    for (int i = 0; i < 499; i++)
        T_SPAWN(note_id, NULL);
    note_id(arg);
}

Test(spawn, ids_are_unique_also_over_a_restart) {
    for (int round = 0; round < 2; round++) {
        T_EQ(go_start(NULL), 0);
        T_EQ(go_id(), 0);
        for (int i = 0; i < 500; i++)
            T_SPAWN(note_id, NULL);
        for (int i = 0; i < 3; i++)
            T_SPAWN(spawn_note_ids, NULL);
        T_AWAIT(t_stats().tasks_live == 0);
        t_stop();
    }
    T_EQ(n_ids, T_COUNT(ids));
    qsort(ids, n_ids, sizeof ids[0], by_value);
    for (uint32_t i = 1; i < n_ids; i++)
        T_ASSERT(ids[i] != ids[i - 1], "%llu twice", (unsigned long long)ids[i]);
}

/* ---- arguments ------------------------------------------------------------------------------- */

static void check_refusals(void) {
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    T_EQ(go_spawn(NULL, NULL), -EINVAL);
    T_EQ(go_spawn_with(&o, NULL, NULL), -EINVAL);
    T_EQ(go_spawn_with(NULL, NULL, NULL), -EINVAL);
    T_ASSERT(!go_task_spawn(NULL, NULL));
    o.size = 0;
    T_EQ(go_spawn_with(&o, count_up, NULL), -EINVAL);
    o.size = sizeof o - 1;
    T_EQ(go_spawn_with(&o, count_up, NULL), -EINVAL);
    o.size = sizeof o;
    o.stack_size = 1;
    T_EQ(go_spawn_with(&o, count_up, NULL), -EINVAL);
}

static void check_refusals_inside(void *arg) {
    (void)arg;
    check_refusals();
}

Test(spawn, bad_arguments_are_refused_and_run_nothing) {
    T_EQ(go_start(NULL), 0);
    check_refusals();
    T_SPAWN(check_refusals_inside, NULL);
    T_AWAIT(t_stats().tasks_live == 0);
    T_EQ(t_stats().spawned, 1);
    T_EQ(ran, 0);
    t_stop();
}

Test(spawn, options_null_are_the_defaults) {
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    T_EQ(go_start(NULL), 0);
    T_EQ(go_spawn_with(NULL, count_up, NULL), 0);
    T_EQ(go_spawn_with(&o, count_up, NULL), 0);
    T_AWAIT(rt_load_acquire(&ran) == 2);
    t_stop();
}

/* ---- limits ---------------------------------------------------------------------------------- */

static go_chan *gate;

static void wait_at_gate(void *arg) {
    (void)arg;
    T_EQ(go_chan_recv(gate, NULL), -EPIPE);
    rt_fetch_add(&ran, 1);
}

static int spawn_until_refused(int most) {
    int n = 0, r = 0;
    while (n < most && (r = go_spawn(wait_at_gate, NULL)) == 0)
        n++;
    T_ASSERT(n == most || r == -EAGAIN, "%d", r);
    return n;
}

static void spawn_until_refused_inside(void *arg) {
    rt_store_release((int *)arg, spawn_until_refused(1 << 20) + 1); /* itself, too */
    T_EQ(go_chan_recv(gate, NULL), -EPIPE);
}

/* Fill up to the limit, from outside or inside; let all end; again: nothing may have been lost. The
 * caches of the Ps may hold some few back. */
static void check_limit(int limit) {
    struct go_options o = GO_OPTIONS_INIT;
    o.max_tasks = (size_t)limit;
    T_EQ(go_start(&o), 0);
    for (int round = 0; round < 10; round++) {
        gate = go_chan_new(0, 0);
        int n = 0;
        if (round % 2) {
            T_SPAWN(spawn_until_refused_inside, &n);
            T_AWAIT(rt_load_acquire(&n) != 0);
        } else {
            n = spawn_until_refused(1 << 20);
        }
        T_ASSERT(n <= limit && n >= limit - limit / 20, "%d of %d in round %d", n, limit, round);
        T_EQ(go_spawn(count_up, NULL), -EAGAIN);
        T_ASSERT(!go_task_spawn(do_nothing, NULL));
        T_EQ(go_chan_close(gate), 0);
        T_AWAIT(t_stats().tasks_live == 0);
        go_chan_free(gate);
    }
    t_stop();
}

Test(spawn, beyond_max_tasks_is_refused_until_some_have_ended) {
    check_limit(1);
    check_limit(2);
    check_limit(19);
    check_limit(1000);
    check_limit(5000);
}

static int canceled;

static void sleep_until_cancelled(void *arg) {
    (void)arg;
    T_EQ(go_sleep(GO_FOREVER), -ECANCELED);
    rt_fetch_add(&canceled, 1);
}

Test(spawn, a_hundred_thousand_may_be_parked, .timeout = 120) {
    int n = (int)t_parked(T_CROWD(T_SCALE(t_procs() <= 8 ? 100000 : 20000)));
    struct go_options o = GO_OPTIONS_INIT;
    o.stack_size = 16 << 10;
    T_EQ(go_start(&o), 0);
    for (int i = 0; i < n; i++)
        T_SPAWN(sleep_until_cancelled, NULL);
    T_AWAIT(t_stats().parks == (uint64_t)n);
    T_EQ(t_stats().tasks_live, n);
    T_EQ(go_stop(GO_FOREVER), 0);
    T_EQ(canceled, n);
}

/* ---- out of memory --------------------------------------------------------------------------- */

/* Spawn while a site fails: sooner or later an error, and who was spawned lives on; afterwards
 * everything is as before. */
static void fail_while_spawning(enum rt_fault_site site, int expected) {
    enum { MOST = 20000 };
    int n = 0, r = 0;
    ran = 0;
    gate = go_chan_new(0, 0);
    T_EQ(go_start(NULL), 0);
    rt_fault_arm(site, 1, true, ENOMEM);
    while (n < MOST && (r = go_spawn(wait_at_gate, NULL)) == 0)
        n++;
    T_EQ(r, expected);
    T_ASSERT(!go_task_spawn(do_nothing, NULL));
    rt_fault_disarm();
    for (int i = 0; i < 1000; i++, n++)
        T_SPAWN(wait_at_gate, NULL);
    T_EQ(go_chan_close(gate), 0);
    T_AWAIT(rt_load_acquire(&ran) == n);
    t_stop();
    go_chan_free(gate);
}

Test(spawn, out_of_memory_is_an_error_and_the_program_goes_on) {
    fail_while_spawning(RT_FAULT_ALLOC, -ENOMEM);
    fail_while_spawning(RT_FAULT_MMAP, -ENOMEM);
}

static int64_t steps;
static uint32_t quit;

static void step(void *arg) {
    (void)arg;
    while (!rt_load_acquire(&quit)) {
        rt_fetch_add(&steps, 1);
        go_yield();
    }
}

/* A spawn that returned 0 is sure of a stack, later at worst; meanwhile the others run. */
Test(spawn, without_memory_for_guards_others_run_and_it_runs_later) {
    enum { N = 50 };
    T_EQ(go_start(NULL), 0);
    T_SPAWN(step, NULL);
    T_AWAIT(rt_load_acquire(&steps) > 0);
    rt_fault_arm(RT_FAULT_GUARD, 1, true, ENOMEM);
    int ran_before = rt_load_acquire(&ran);
    for (int i = 0; i < N + RT_RING; i++)
        T_SPAWN(count_up, NULL);
    int64_t before = rt_load_acquire(&steps);
    T_AWAIT(rt_load_acquire(&steps) > before + 1000);
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    o.stack_size = 1 << 20; /* another class is bound at the spawn */
    T_EQ(go_spawn_with(&o, count_up, NULL), -EAGAIN);
    rt_fault_disarm();
    T_AWAIT(rt_load_acquire(&ran) == ran_before + N + RT_RING);
    rt_store_release(&quit, 1);
    t_stop();
}

Test(spawn, failed_spawns_do_not_pile_up_address_space) {
    gate = go_chan_new(0, 0);
    t_start(2);
    spawn_until_refused(T_CROWD(2000));
    T_AWAIT(t_stats().parks == T_CROWD(2000));
    size_t mapped = t_stats().stacks_mapped;
    size_t spawned = 0;
    for (int i = 0, failed = 0; failed < 60; i++) { /* the slab of stacks fails, or that of Gs */
        rt_fault_arm(RT_FAULT_ALLOC, 1 + i % 2, false, ENOMEM);
        int r = go_spawn(wait_at_gate, NULL);
        T_ASSERT(r == 0 || r == -ENOMEM, "%d", r);
        failed += r != 0;
        spawned += r == 0;
    }
    rt_fault_disarm();
    size_t more = t_stats().stacks_mapped - mapped, each = rt_stack_slot_bytes(rt.stack_class);
    T_ASSERT(more <= spawned * each + ((size_t)256 << 20), "%d MiB", (int)(more >> 20));
    T_EQ(go_chan_close(gate), 0);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    go_chan_free(gate);
}

/* ---- foreign threads ------------------------------------------------------------------------- */

static uint32_t hammered;

static void done(void *wg) {
    rt_fetch_add(&hammered, 1);
    go_waitgroup_done(wg);
}

/* Not all at once: where guards are mappings there is no room for so many stacks. */
static void *hammer(void *arg) {
    go_waitgroup wg = {0};
    for (long i = 0; i < T_SCALE(20); i++) {
        go_waitgroup_add(&wg, 1000);
        for (int k = 0; k < 1000; k++)
            T_SPAWN(done, &wg);
        T_EQ(go_waitgroup_wait(&wg), 0);
    }
    return arg;
}

Test(spawn, foreign_threads_spawn_at_once) {
    T_EQ(go_start(NULL), 0);
    t_threads(4, hammer);
    T_EQ(rt_load_relaxed(&hammered), 4 * 1000 * T_SCALE(20));
    t_stop();
}

/* ---- rt_g_each ------------------------------------------------------------------------------- */

static bool count_live(struct rt_g *g, void *arg) {
    *(int *)arg += RT_WAIT_STATE(rt_load_acquire(&g->wait)) == RT_WAITING;
    return true;
}
static bool stop_at_third(struct rt_g *g, void *arg) {
    (void)g;
    return ++*(int *)arg < 3;
}

Test(g, each_sees_all_that_are_parked_and_stops_when_told) {
    int n = 0, seen = 0;
    gate = go_chan_new(0, 0);
    T_EQ(go_start(NULL), 0);
    spawn_until_refused(1000);
    T_AWAIT(t_stats().parks == 1000);
    T_AWAIT((n = 0, rt_g_each(count_live, &n), n == 1000)); /* counted a little before they wait */
    rt_g_each(stop_at_third, &seen);
    T_EQ(seen, 3);
    T_EQ(go_chan_close(gate), 0);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    go_chan_free(gate);
}
