/* retake: a green thread that computes or sleeps in the kernel does not hold up what waits.
 *
 * Where it does the test hangs, and its time limit ends it. A hog here spins or sleeps until
 * somebody who waits behind it has run, so without a retake there is no end. */
#include "t_unit.h"

#include "base/sys.h"
#include "sched/retake.h"
#include "sched/sched.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

static void spin_until(uint32_t *flag) {
    while (!rt_load_acquire(flag))
        rt_cpu_relax();
}

static void hog(void *flag) {
    spin_until(flag);
}

static void set(void *flag) {
    rt_store_release((uint32_t *)flag, 1);
}

/* Spins outside the runtime until its own P was taken. */
static void lose_p(void) {
    struct rt_m *m = rt_m();
    while (!rt_gate_is_shut(m)) {
        rt_cpu_relax();
        rt_retake(rt_load_relaxed(&m->p), rt_progress_any(rt_load_relaxed(&m->p)));
    }
}

/* ---- what waits is done ---------------------------------------------------------------------- */

GTest(retake, who_is_queued_behind_hogs_runs) {
    static uint32_t flag;
    for (unsigned i = 0; i < go_procs(); i++)
        T_SPAWN(hog, &flag);
    T_SPAWN(set, &flag);
    spin_until(&flag);
}

GTest(retake, who_runs_next_does_not_wait_for_his_maker) {
    static uint32_t flag;
    T_SPAWN(set, &flag);
    spin_until(&flag);
}

static void sleep_and_set(void *flag) {
    T_EQ(go_sleep(GO_MILLISECOND), 0);
    set(flag);
}

GTest(retake, timers_behind_hogs_fire) {
    enum { SLEEPERS = 4 };
    static uint32_t flags[SLEEPERS];
    for (int i = 0; i < SLEEPERS; i++)
        T_SPAWN(sleep_and_set, &flags[i]);
    go_sleep(100 * GO_MICROSECOND); /* they have begun to */
    for (unsigned i = 1; i < go_procs(); i++)
        T_SPAWN(hog, &flags[i % SLEEPERS]);
    for (int i = 0; i < SLEEPERS; i++)
        spin_until(&flags[i]);
}

static int ends[2];

static void read_and_set(void *flag) {
    char c;
    T_EQ(go_read(ends[0], &c, 1), 1);
    set(flag);
}

static void *write_later(void *arg T_UNUSED) {
    t_relax();
    T_EQ(write(ends[1], "x", 1), 1);
    return NULL;
}

/* The reader's poll is on the ring of the very thread that spins. */
static void readers_behind_hogs(void *arg T_UNUSED) {
    static uint32_t flag;
    pthread_t t;
    rt_store_relaxed(&flag, 0);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    T_SPAWN(read_and_set, &flag);
    go_yield(); /* it waits */
    for (unsigned i = 1; i < go_procs(); i++)
        T_SPAWN(hog, &flag);
    t_start_threads(&t, 1, write_later);
    spin_until(&flag);
    t_join_threads(&t, 1);
    T_EQ(go_close(ends[0]), 0);
    T_EQ(go_close(ends[1]), 0);
}

Test(retake, readers_behind_hogs_are_woken) {
    for (int i = 0; i < 3; i++)
        T_EQ(go_run(readers_behind_hogs, NULL), 0);
}

static void sleep_in_kernel(void *flag) {
    char c;
    T_EQ(read(ends[0], &c, 1), 1); /* not gort's: it blocks the thread */
    set(flag);
}

static void write_one(void *arg T_UNUSED) {
    T_EQ(write(ends[1], "x", 1), 1);
}

GTest(retake, who_sleeps_in_the_kernel_holds_up_nobody) {
    enum { MANY = 40 };
    static uint32_t flags[MANY];
    T_EQ(pipe(ends), 0);
    for (int i = 0; i < MANY; i++)
        T_SPAWN(sleep_in_kernel, &flags[i]);
    for (int i = 0; i < MANY; i++)
        T_SPAWN(write_one, NULL);
    for (int i = 0; i < MANY; i++)
        T_AWAIT(rt_load_acquire(&flags[i]));
    close(ends[0]);
    close(ends[1]);
}

/* ---- what a G without a P may do ------------------------------------------------------------- */

/* Who comes back from these has a P, which may be taken again in that very moment. */
static bool has_p_after_a_sleep(void) {
    lose_p();
    int64_t before = go_now();
    T_EQ(go_sleep(GO_MILLISECOND), 0);
    T_ASSERT(go_now() - before >= GO_MILLISECOND);
    return !rt_gate_is_shut(rt_m());
}

static bool has_p_after_a_yield(void) {
    lose_p();
    go_yield();
    return rt_m() && !rt_gate_is_shut(rt_m());
}

static bool has_p_after_a_checkpoint(void) {
    lose_p();
    while (rt_load_relaxed(&go_checkpoint_due) == 0) /* sysmon has not taken it, but sees it */
        rt_cpu_relax();
    go_checkpoint(); /* always wants to */
    return !rt_gate_is_shut(rt_m());
}

static void *forty_two(void *arg T_UNUSED) {
    return t_ptr(42);
}

GTest(retake, without_a_p_it_spawns_and_joins) {
    static uint32_t flag;
    lose_p();
    T_SPAWN(set, &flag);
    spin_until(&flag);
    go_task *t = go_task_spawn(forty_two, NULL);
    T_ASSERT(t != NULL);
    T_EQ(t_int(T_JOIN(t)), 42);
}

GTest(retake, without_a_p_it_sleeps) {
    for (int i = 0; i < 3; i++)
        while (!has_p_after_a_sleep())
            ;
}

GTest(retake, without_a_p_it_yields_and_gets_one) {
    while (!has_p_after_a_yield())
        ;
    while (!has_p_after_a_checkpoint())
        ;
}

static void *echo(void *arg) {
    go_chan **c = arg;
    for (void *v; go_chan_recv(c[0], &v) == 0;)
        T_EQ(go_chan_send(c[1], &v), 0);
    return NULL;
}

GTest(retake, without_a_p_it_talks_by_channels) {
    go_chan *c[2] = {go_chan_new(sizeof(void *), 0), go_chan_new(sizeof(void *), 0)};
    go_task *t = go_task_spawn(echo, c);
    for (intptr_t i = 0; i < 20; i++) {
        void *v = t_ptr(i), *back;
        lose_p();
        T_EQ(go_chan_send(c[0], &v), 0);
        lose_p();
        T_EQ(go_chan_recv(c[1], &back), 0);
        T_EQ(t_int(back), i);
    }
    go_chan_close(c[0]);
    T_JOIN(t);
    go_chan_free(c[1]);
    go_chan_free(c[0]);
}

static uint32_t ended;

static void lose_p_and_end(void *arg T_UNUSED) {
    lose_p();
    rt_fetch_add(&ended, 1);
}

static void *lose_p_and_return(void *arg) {
    lose_p();
    return arg;
}

GTest(retake, without_a_p_it_ends) {
    rt_store_relaxed(&ended, 0);
    for (int i = 0; i < 10; i++)
        T_SPAWN(lose_p_and_end, NULL);
    for (intptr_t i = 0; i < 10; i++) {
        go_task *t = go_task_spawn(lose_p_and_return, t_ptr(i)); /* in place, on our stack */
        T_EQ(t_int(T_JOIN(t)), i);
    }
    T_AWAIT(rt_load_acquire(&ended) == 10);
}

static void read_without_p(void *arg T_UNUSED) {
    char c;
    lose_p();
    T_EQ(go_read(ends[0], &c, 1), 1);
    rt_fetch_add(&ended, 1);
}

static void io_without_p(void *arg T_UNUSED) {
    rt_store_relaxed(&ended, 0);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    T_SPAWN(read_without_p, NULL);
    T_SPAWN(read_without_p, NULL);
    t_relax();
    for (unsigned i = 0; i < 2; i++) {
        lose_p();
        T_EQ(go_write_all(ends[1], "x", 1), 1);
        T_AWAIT(rt_load_acquire(&ended) > i);
    }
    go_scope s;
    char c;
    go_scope_enter(&s, go_now() + GO_MILLISECOND);
    lose_p();
    T_ASSERT(go_read(ends[0], &c, 1) < 0);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    T_EQ(go_close(ends[0]), 0);
    T_EQ(go_close(ends[1]), 0);
}

Test(retake, without_a_p_it_reads_and_writes) {
    T_EQ(go_run(io_without_p, NULL), 0);
}

/* ---- how many -------------------------------------------------------------------------------- */

/* Beyond the bound they keep their P, in turn; all come to their end. */
GTest(retake, hogs_by_the_hundred_end) {
    enum { MANY = 100 };
    static uint32_t flags[MANY];
    for (int i = 0; i < MANY; i++)
        T_SPAWN(set, &flags[i]);
    for (int i = 0; i < MANY; i++)
        spin_until(&flags[i]);
}

static uint32_t begun;

static void begin_and_hog(void *flag) {
    set(&begun);
    spin_until(flag);
}

Test(retake, a_strict_runtime_takes_none) {
    static uint32_t flag, other;
    t_start_strict(1);
    T_EQ(t_stats().threads, 2);
    T_SPAWN(begin_and_hog, &flag);
    T_AWAIT(rt_load_acquire(&begun));
    T_SPAWN(set, &other);
    nanosleep(&(struct timespec){.tv_nsec = 20 * 1000000}, NULL); /* time enough for a taking */
    T_EQ(rt_load_acquire(&other), 0);
    set(&flag);
    t_stop();
    T_EQ(rt_load_acquire(&other), 1);
}

static uint32_t gone_by;

static void sleep_briefly(void *arg T_UNUSED) {
    nanosleep(&(struct timespec){.tv_nsec = 20 * 1000000}, NULL);
    rt_fetch_add(&gone_by, 1);
}

/* And their places are used again. */
GTest(retake, spares_end_when_nobody_needs_them) {
    rt_store_relaxed(&rt_spare_keep_ns, GO_MILLISECOND);
    for (uint32_t round = 1; round <= 3; round++) {
        for (int i = 0; i < 20; i++)
            T_SPAWN(sleep_briefly, NULL);
        T_AWAIT(rt_load_acquire(&gone_by) == round * 20);
        T_AWAIT(rt_retake_threads() <= go_procs() + 2); /* the last stays; its like may just come */
    }
}

/* ---- found by a reader ----------------------------------------------------------------------- */

static uint32_t fired;

static void fire(void *arg T_UNUSED) {
    rt_store_release(&fired, 1);
}

/* It is armed by a foreign thread. Who sleeps until then is called away, to hog. */
Test(retake, timers_of_foreign_threads_fire_beside_a_hog) {
    T_EQ(go_start(NULL), 0);
    go_timer *t = go_timer_after(20 * GO_MILLISECOND, fire, NULL);
    T_ASSERT(t != NULL);
    t_relax();
    T_SPAWN(hog, &fired);
    T_AWAIT(rt_load_acquire(&fired));
    T_EQ(go_timer_stop(t), -EALREADY);
    t_stop();
}

static void park_for_ever_without_p(void *arg T_UNUSED) {
    lose_p();
    nanosleep(&(struct timespec){.tv_nsec = 100 * 1000000}, NULL); /* sysmon sleeps by then */
    go_chan *c = go_chan_new(0, 0);
    go_chan_recv(c, NULL);
    go_chan_free(c);
}

static void deadlock(void) {
    int null = open("/dev/null", O_WRONLY);
    dup2(null, 2);
    _exit(go_run(park_for_ever_without_p, NULL) == -EDEADLK ? 0 : 1);
}

Test(retake, a_deadlock_is_told_all_the_same) {
    T_IN_CHILD_ALONE(deadlock);
}

static uint32_t stopping;

static void generator(go_gen *gen, void *arg T_UNUSED) {
    go_gen_yield(gen, gen);
}

static void generate_while_stopping(void *arg T_UNUSED) {
    void *value;
    lose_p();
    set(&stopping);
    while (rt_load_relaxed(&rt.state) != RT_STOPPING)
        rt_cpu_relax();
    go_gen *gen = go_gen_new(generator, NULL);
    T_ASSERT(gen != NULL);
    T_EQ(go_gen_next(gen, &value), 0);
    T_EQ(value, gen);
    T_EQ(go_gen_close(gen), 0);
}

Test(retake, without_a_p_generators_work_to_the_end) {
    T_EQ(go_start(NULL), 0);
    T_SPAWN(generate_while_stopping, NULL);
    T_AWAIT(rt_load_acquire(&stopping));
    t_stop();
}

/* ---- go_on_long_run -------------------------------------------------------------------------- */

/* Each P wants a hog: with more of them than CPUs it would only be slower. */
static void run_on_few(void (*fn)(void *)) {
    if (t_procs() > 4)
        setenv("GORT_PROCS", "4", 1);
    T_EQ(go_run(fn, NULL), 0);
}

static struct go_long_run told;
static char told_name[32];
static uint32_t reports;
static int wanted_kind; /* blocked, or not */

static void remember(const struct go_long_run *what, void *arg) {
    T_EQ(arg, &told);
    T_ASSERT(go_id() != what->id);
    if (!what->name || strncmp(what->name, "hog", 3) != 0 || rt_load_acquire(&reports) != 0 ||
        what->blocked != wanted_kind)
        return; /* the first green thread is one, too */
    told = *what;
    strcpy(told_name, what->name);
    rt_store_release(&reports, 1);
}

static uint64_t hog_ids[256];

static void hog_until_reported(void *arg) {
    rt_store_relaxed(&hog_ids[t_int(arg)], go_id());
    while (!rt_load_acquire(&reports)) {
        int64_t until = go_now() + 500 * GO_MILLISECOND; /* of which it may run little */
        while (!rt_load_acquire(&reports) && go_now() < until)
            rt_cpu_relax();
        go_yield(); /* it is told once of each stretch */
    }
}

static void nap_until_reported(void *arg) {
    rt_store_relaxed(&hog_ids[t_int(arg)], go_id());
    while (!rt_load_acquire(&reports)) { /* a system call that gort does not know */
        nanosleep(&(struct timespec){.tv_nsec = 20 * 1000000}, NULL);
        go_yield();
    }
}

/* More of them than Ps, so that somebody waits. */
static void first_report_of(void (*fn)(void *), const char *name, int blocked) {
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    unsigned n = 2 * go_procs(), found = 0;
    T_ASSERT(n <= T_COUNT(hog_ids));
    o.name = name;
    wanted_kind = blocked;
    rt_store_relaxed(&reports, 0);
    T_EQ(go_on_long_run(remember, &told), 0);
    for (unsigned i = 0; i < n; i++)
        T_EQ(go_spawn_with(&o, fn, t_ptr(i)), 0);
    T_AWAIT(rt_load_acquire(&reports) != 0);
    T_EQ(go_on_long_run(NULL, NULL), 0);
    for (unsigned i = 0; i < n; i++)
        found += rt_load_relaxed(&hog_ids[i]) == told.id;
    T_EQ(found, 1);
    T_EQ(told.size, sizeof told);
    T_EQ(told.fn, (void *)fn);
    T_ASSERT(told.ns >= 500 * GO_MICROSECOND);
}

static void hear_who_computes(void *arg T_UNUSED) {
    first_report_of(hog_until_reported, "hog with a name that is longer than there is room for", 0);
    T_STR_EQ(told_name, "hog with a name that is longer ");
}

Test(retake, the_hook_hears_who_computes) {
    run_on_few(hear_who_computes);
}

static void hear_who_sleeps(void *arg T_UNUSED) {
    first_report_of(nap_until_reported, "hog", 1);
}

Test(retake, the_hook_hears_who_sleeps_in_the_kernel) {
    run_on_few(hear_who_sleeps);
}

static uint32_t hooks_inside, hooks_over;

static void be_slow(const struct go_long_run *what T_UNUSED, void *arg T_UNUSED) {
    int64_t until = go_now() + 150 * GO_MILLISECOND; /* the next one may come after 100 */
    T_EQ(rt_fetch_add(&hooks_inside, 1), 0);
    while (go_now() < until)
        rt_cpu_relax();
    rt_fetch_sub(&hooks_inside, 1);
    rt_fetch_add(&hooks_over, 1);
}

static void hog_in_stretches(void *arg T_UNUSED) {
    while (rt_load_acquire(&hooks_over) < 2) {
        int64_t until = go_now() + 20 * GO_MILLISECOND;
        while (go_now() < until)
            rt_cpu_relax();
        go_yield();
    }
}

static void hook_while_one_is_slow(void *arg T_UNUSED) {
    T_EQ(go_on_long_run(be_slow, NULL), 0);
    for (unsigned i = 0; i <= go_procs(); i++)
        T_SPAWN(hog_in_stretches, NULL);
    T_AWAIT(rt_load_acquire(&hooks_over) >= 2);
    T_EQ(go_on_long_run(NULL, NULL), 0);
}

Test(retake, the_hook_is_called_one_at_a_time) {
    run_on_few(hook_while_one_is_slow);
}

/* ---- stop ------------------------------------------------------------------------------------ */

static void lose_p_and_wait(void *flag) {
    lose_p();
    rt_fetch_add(&ended, 1);
    spin_until(flag);
}

Test(retake, a_stop_waits_for_who_has_no_p) {
    static uint32_t flag;
    rt_store_relaxed(&ended, 0);
    for (int i = 0; i < 3; i++) {
        rt_store_relaxed(&flag, 0);
        rt_store_relaxed(&ended, 0);
        t_start(2);
        T_SPAWN(lose_p_and_wait, &flag);
        T_SPAWN(lose_p_and_wait, &flag);
        T_AWAIT(rt_load_acquire(&ended) == 2);
        T_EQ(go_stop(GO_MILLISECOND), -ETIMEDOUT);
        set(&flag);
        t_stop();
    }
}

/* ---- all at once ----------------------------------------------------------------------------- */

enum { ACTORS = 16 };
static go_chan *ring[ACTORS];
static go_mutex shared;
static uint64_t under_lock, sum;
static uint32_t over, actors_left;

/* Takes from anybody, at any moment. */
static void *taker(void *arg) {
    uint64_t seed = (uint64_t)t_int(arg) + 77;
    while (!rt_load_acquire(&over)) {
        struct rt_p *p = &rt.ps[t_random(&seed) % rt.procs];
        rt_retake(p, rt_progress_any(p));
        if (t_random(&seed) % 8 == 0)
            t_relax();
    }
    return NULL;
}

static void child(void *arg) {
    rt_fetch_add((uint64_t *)arg, 1);
}

static void actor(void *arg) {
    intptr_t me = t_int(arg);
    uint64_t seed = (uint64_t)me + 1, spawned = 0, ran = 0;
    for (int i = 0; i < T_SCALE(500); i++) {
        uint64_t v = (uint64_t)i, n = t_random(&seed) % 2000;
        switch (t_random(&seed) % 8) {
        case 0:
            for (uint64_t k = 0; k < n; k++)
                rt_cpu_relax();
            break;
        case 1:
            go_yield();
            break;
        case 2:
            T_EQ(go_sleep((int64_t)n * 10), 0);
            break;
        case 3:
            T_SPAWN(child, &ran);
            spawned++;
            break;
        case 4: {
            go_scope s;
            go_scope_enter(&s, go_now() + (int64_t)n * 10);
            go_chan_recv(ring[me], &v);
            go_scope_leave(&s);
            break;
        }
        case 5:
            go_chan_try_send(ring[(me + 1) % ACTORS], &v);
            break;
        case 6:
            T_EQ(t_int(T_JOIN(go_task_spawn(forty_two, NULL))), 42);
            break;
        default:
            go_mutex_lock(&shared);
            under_lock++;
            if (n % 4 == 0)
                go_yield();
            go_mutex_unlock(&shared);
            rt_fetch_add(&sum, 1);
        }
    }
    T_AWAIT(rt_load_acquire(&ran) == spawned);
    if (rt_fetch_sub(&actors_left, 1) == 1)
        rt_store_release(&over, 1);
}

Test(retake, at_any_moment_nothing_is_lost) {
    pthread_t t[2];
    t_start(0);
    rt_store_relaxed(&actors_left, ACTORS);
    for (int i = 0; i < ACTORS; i++)
        ring[i] = go_chan_new(sizeof(uint64_t), 2);
    t_start_threads(t, 2, taker);
    for (int i = 0; i < ACTORS; i++)
        T_SPAWN(actor, t_ptr(i));
    t_join_threads(t, 2);
    T_EQ(under_lock, rt_load_acquire(&sum));
    t_stop();
    for (int i = 0; i < ACTORS; i++)
        go_chan_free(ring[i]);
}
