/* after.c: a timer runs its function once and not early, or is stopped and never does. */
#include "t_unit.h"

#include "base/fault.h"
#include "sched/sched.h"
#include "sched/spawn.h"
#include "sched/sysmon.h"

static int count(int n) {
    return (int)T_SCALE(t_procs() <= 8 ? n : n / 4);
}

static int ran;

static void bump(void *arg) {
    (void)arg;
    rt_fetch_add(&ran, 1);
}

static go_timer *after(int64_t ns, void (*fn)(void *), void *arg) {
    go_timer *t = go_timer_after(ns, fn, arg);
    T_ASSERT(t);
    return t;
}

/* ---- it runs ----------------------------------------------------------------------------------
 */

struct job {
    go_timer *timer;
    int64_t due;
    uint64_t maker;
    int ran;
};

static void check_job(void *arg) {
    struct job *job = arg;
    T_ASSERT(go_now() >= job->due);
    T_ASSERT(go_id() != 0 && go_id() != job->maker);
    T_EQ(go_canceled(), 0);
    go_yield();
    rt_fetch_add(&job->ran, 1);
}

static void run_many(void) {
    struct job job[200];
    int n = count(200);
    uint64_t seed = 5;
    for (int i = 0; i < n; i++) {
        int64_t ns = (int64_t)(t_random(&seed) % (uint64_t)(3 * GO_MILLISECOND)) - GO_MILLISECOND;
        job[i] = (struct job){.due = go_now() + ns, .maker = go_id()};
        job[i].timer = after(ns, check_job, &job[i]);
    }
    for (int i = 0; i < n; i++) {
        T_AWAIT(rt_load_acquire(&job[i].ran) != 0);
        T_EQ(go_timer_stop_wait(job[i].timer), -EALREADY);
        T_EQ(job[i].ran, 1);
    }
}

static void run_many_green(void *arg) {
    (void)arg;
    run_many();
}

static void *run_many_foreign(void *arg) {
    (void)arg;
    run_many();
    return NULL;
}

Test(after, each_runs_once_and_not_early, .timeout = 120) {
    t_start((unsigned)t_procs());
    for (int i = 0; i < 4; i++)
        T_SPAWN(run_many_green, NULL);
    t_threads(3, run_many_foreign);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

/* Every M sleeps when it is armed, some of them until a later timer. */
Test(after, one_of_a_foreign_thread_wakes_an_idle_runtime) {
    t_start((unsigned)t_procs());
    go_timer *late = after(T_NEVER, bump, NULL);
    for (int i = 1; i <= 8; i++) {
        T_AWAIT(rt_load_acquire(&rt_sysmon_asleep));
        go_timer *t = after((i % 4) * GO_MILLISECOND, bump, NULL);
        T_AWAIT(rt_load_acquire(&ran) == i);
        T_EQ(go_timer_stop(t), -EALREADY);
    }
    T_EQ(go_timer_stop(late), 0);
    t_stop();
    T_EQ(ran, 8);
}

static void send_in_time(void *arg) {
    T_EQ(go_chan_send(arg, NULL), 0);
}

GTest(after, who_waits_for_one_is_in_no_deadlock) {
    go_chan *c = go_chan_new(0, 0);
    go_timer *t = after(150 * GO_MILLISECOND, send_in_time, c);
    T_EQ(go_chan_recv(c, NULL), 0);
    T_EQ(go_timer_stop_wait(t), -EALREADY);
    go_chan_free(c);
}

static void wait_without_timer(void *arg) {
    T_EQ(go_timer_stop(after(T_NEVER, send_in_time, arg)), 0);
    T_EQ(go_chan_recv(arg, NULL), -ECANCELED);
}

static void deadlock(void) {
    char text[1000];
    go_chan *c = go_chan_new(0, 0);
    struct t_stderr s = t_stderr_begin();
    int r = go_run(wait_without_timer, c);
    t_stderr_end(s, text, sizeof text);
    T_EQ(r, -EDEADLK);
    T_ASSERT(strstr(text, "channel receive"), "%s", text);
    go_chan_free(c);
}

Test(after, a_stopped_one_hides_no_deadlock) {
    T_IN_CHILD_ALONE(deadlock);
}

/* In the order of their times, whatever the order in which they were made: on one P. */
static int order[100], logged;

static void log_order(void *arg) {
    order[logged++] = (int)t_int(arg);
}

static void make_in_disorder(void *arg) {
    struct rt_g *g;
    uint64_t seq;
    int64_t base = go_now() + 2 * GO_MILLISECOND;
    (void)arg;
    for (int i = 0; i < 100; i++) {
        int k = i * 37 % 100;
        T_EQ(rt_spawn_at(log_order, t_ptr(k), base + k, NULL, &g, &seq), 0);
    }
    while (go_now() < base + 100) /* all are due when the first is looked at */
        ;
}

Test(after, those_that_are_due_run_in_the_order_of_their_times) {
    t_start_strict(1);
    T_SPAWN(make_in_disorder, NULL);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    T_EQ(logged, 100);
    for (int i = 0; i < 100; i++)
        T_EQ(order[i], i);
}

/* ---- it is stopped ----------------------------------------------------------------------------
 */

static void stop_all(void) {
    enum { N = 100 };
    go_timer *t[N];
    for (int i = 0; i < N; i++)
        t[i] = after(i % 2 ? GO_FOREVER : T_NEVER, bump, NULL);
    for (int i = 0; i < N; i++)
        T_EQ(i % 3 ? go_timer_stop(t[i]) : go_timer_stop_wait(t[i]), 0);
}

static void *stop_all_foreign(void *arg) {
    stop_all();
    return arg;
}

static void stop_all_green(void *arg) {
    uint64_t live = t_stats().tasks_live;
    (void)arg;
    stop_all();
    T_EQ(t_stats().tasks_live, live); /* at once */
}

Test(after, a_stopped_one_never_runs) {
    T_RUN(stop_all_green, NULL);
    t_start((unsigned)t_procs());
    t_threads(3, stop_all_foreign);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    T_EQ(ran, 0);
}

/* Stopped about when it is due: either it never runs, or it has. */
static void race(uint64_t seed, int n) {
    int refused = 0, mine = 0;
    for (int i = 0; i < n; i++) {
        go_timer *t = after((int64_t)(t_random(&seed) % 40) * GO_MICROSECOND, bump, NULL);
        T_ASSERT(t);
        int64_t until = go_now() + (int64_t)(t_random(&seed) % 40) * GO_MICROSECOND;
        if (t_random(&seed) % 4 == 0 && go_id() != 0)
            go_sleep(until - go_now());
        else
            while (go_now() < until)
                ;
        int r = t_random(&seed) % 2 ? go_timer_stop_wait(t) : go_timer_stop(t);
        T_ASSERT(r == 0 || r == -EALREADY, "%d", r);
        refused += r == -EALREADY;
        mine += r == 0;
    }
    T_EQ(refused + mine, n);
    rt_fetch_add(&ran, -refused);
}

static void race_green(void *arg) {
    race((uint64_t)t_int(arg), count(1500));
}

static void *race_foreign(void *arg) {
    race((uint64_t)t_int(arg) + 100, count(300));
    return NULL;
}

Test(after, a_stop_and_the_time_at_once_are_one_or_the_other, .timeout = 120) {
    t_start((unsigned)t_procs());
    for (int i = 1; i <= 4; i++)
        T_SPAWN(race_green, t_ptr(i));
    t_threads(2, race_foreign);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    T_EQ(ran, 0);
}

/* ---- stopped while it runs --------------------------------------------------------------------
 */

struct slow {
    go_chan *go_on;
    int begun, ended;
};

static void run_slowly(void *arg) {
    struct slow *s = arg;
    rt_store_release(&s->begun, 1);
    T_EQ(go_chan_recv(s->go_on, NULL), 0);
    go_sleep(GO_MILLISECOND);
    rt_store_release(&s->ended, 1);
}

static void stop_while_it_runs(bool wait) {
    struct slow s = {.go_on = go_chan_new(0, 1)};
    go_timer *t = after(0, run_slowly, &s);
    T_AWAIT(rt_load_acquire(&s.begun));
    if (!wait) {
        T_EQ(go_timer_stop(t), -EALREADY);
        T_EQ(rt_load_acquire(&s.ended), 0);
    }
    T_EQ(go_chan_send(s.go_on, NULL), 0);
    if (wait)
        T_EQ(go_timer_stop_wait(t), -EALREADY);
    else
        T_AWAIT(rt_load_acquire(&s.ended));
    T_EQ(rt_load_acquire(&s.ended), 1);
    go_chan_free(s.go_on);
}

Test(after, a_stop_may_wait_for_what_runs_or_leave_it) {
    t_start((unsigned)t_procs());
    for (int i = 0; i < 10; i++)
        stop_while_it_runs(i % 2);
    t_stop();
    T_RUN((void (*)(void *))(void *)stop_while_it_runs, t_ptr(0));
    T_RUN((void (*)(void *))(void *)stop_while_it_runs, t_ptr(1));
}

static go_timer *itself;

static void stop_itself(void *arg) {
    T_AWAIT(rt_load_acquire(&itself));
    T_EQ(go_timer_stop_wait(itself), -EDEADLK);
    if (arg)
        T_EQ(go_timer_stop(itself), -EALREADY);
    bump(NULL);
}

GTest(after, it_may_stop_itself_but_not_wait_for_itself) {
    for (int i = 0; i < 10; i++) {
        rt_store_release(&itself, NULL);
        go_timer *t = after(0, stop_itself, t_ptr(i % 2));
        rt_store_release(&itself, t);
        T_AWAIT(rt_load_acquire(&ran) == i + 1);
        if (i % 2 == 0)
            T_EQ(go_timer_stop_wait(t), -EALREADY);
    }
}

static void write_to(void *arg) {
    for (int i = 0; i < 1000; i++)
        ((volatile char *)arg)[i % 4096] = (char)i;
}

/* What fn uses may go as soon as the stop has returned. */
GTest(after, when_the_stop_returns_it_has_ended) {
    for (int i = 0; i < count(300); i++) {
        void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        T_ASSERT(page != MAP_FAILED);
        go_timer *t = after(i % 30 * GO_MICROSECOND, write_to, page);
        for (int k = 0; k < i % 3; k++)
            go_yield();
        go_timer_stop_wait(t);
        T_EQ(munmap(page, 4096), 0);
    }
}

/* A cancel does not end the wait for fn. */
static void wait_in_cancelled_scope(void) {
    struct slow s = {.go_on = go_chan_new(0, 1)};
    go_timer *t = after(0, run_slowly, &s);
    T_AWAIT(rt_load_acquire(&s.begun));
    T_EQ(go_chan_send(s.go_on, NULL), 0);
    go_scope scope;
    go_scope_enter(&scope, GO_FOREVER);
    go_scope_cancel(&scope);
    T_EQ(go_timer_stop_wait(t), -EALREADY);
    T_EQ(rt_load_acquire(&s.ended), 1);
    T_EQ(go_scope_leave(&scope), -ECANCELED);
    go_chan_free(s.go_on);
}

GTest(after, the_wait_cannot_be_cancelled) {
    for (int i = 0; i < 10; i++)
        wait_in_cancelled_scope();
}

/* ---- the runtime stops ------------------------------------------------------------------------
 */

static go_chan *never;

static void wait_for_ever(void *arg) {
    rt_store_release((int *)arg, 1);
    T_EQ(go_chan_recv(never, NULL), -ECANCELED);
}

Test(after, a_stop_of_the_runtime_voids_them) {
    enum { N = 50 };
    go_timer *t[N];
    int begun = 0;
    never = go_chan_new(0, 0);
    for (int round = 0; round < 3; round++) {
        t_start((unsigned)t_procs());
        for (int i = 0; i < N; i++)
            t[i] = after(i % 2 ? GO_FOREVER : T_NEVER, bump, NULL);
        rt_store_release(&begun, 0);
        go_timer *running = after(0, wait_for_ever, &begun);
        T_AWAIT(rt_load_acquire(&begun));
        T_EQ(t_stats().tasks_live, N + 1);
        t_stop();
        T_ASSERT(!go_timer_after(0, bump, NULL));
        if (round == 2) /* another one runs now, which knows nothing of them */
            t_start(2);
        for (int i = 0; i < N; i++)
            T_EQ(i % 3 ? go_timer_stop(t[i]) : go_timer_stop_wait(t[i]), 0);
        T_EQ(go_timer_stop(running), -EALREADY);
    }
    t_stop();
    T_EQ(ran, 0);
    go_chan_free(never);
}

static go_timer *of_a_cleaner[2];

static void clean_up(void *arg) {
    (void)arg;
    T_EQ(go_sleep(GO_FOREVER), -ECANCELED);
    T_ASSERT(!go_timer_after(0, bump, NULL));
    T_EQ(go_timer_stop(of_a_cleaner[0]), 0); /* before or after the stop has come to it */
    T_EQ(go_timer_stop_wait(of_a_cleaner[1]), 0);
    bump(NULL);
}

Test(after, who_cleans_up_in_a_stop_may_stop_them) {
    for (int i = 1; i <= 20; i++) {
        t_start((unsigned)t_procs());
        of_a_cleaner[0] = after(T_NEVER, bump, NULL);
        of_a_cleaner[1] = after(T_NEVER, bump, NULL);
        T_SPAWN(clean_up, NULL);
        if (i % 2)
            T_AWAIT(t_stats().parks > 0);
        t_stop();
        T_EQ(ran, i);
    }
}

/* Timers come due all the while: whoever has begun when the stop begins ends in it. */
Test(after, a_stop_in_a_shower_of_timers) {
    enum { N = 300 };
    static go_timer *t[N];
    for (int round = 0; round < count(20); round++) {
        t_start((unsigned)t_procs());
        for (int i = 0; i < N; i++)
            t[i] = after(i * 10 * GO_MICROSECOND, bump, NULL);
        t_stop();
        int refused = 0;
        for (int i = 0; i < N; i++)
            refused += go_timer_stop(t[i]) == -EALREADY;
        T_EQ(rt_exchange(&ran, 0), refused);
    }
}

Test(after, there_is_none_without_a_runtime) {
    T_ASSERT(!go_timer_after(0, bump, NULL));
    t_start_strict(1);
    T_ASSERT(!go_timer_after(0, NULL, NULL));
    t_stop();
    T_ASSERT(!go_timer_after(0, bump, NULL));
    T_EQ(go_timer_stop(NULL), -EINVAL);
    T_EQ(go_timer_stop_wait(NULL), -EINVAL);
}

Test(after, a_forked_child_gets_enxio) {
#ifdef T_TSAN
    T_SKIP("TSan cannot fork beside threads");
#endif
    t_start(2);
    go_timer *t = after(T_NEVER, bump, NULL);
    pid_t pid = fork();
    T_ASSERT(pid >= 0);
    if (pid == 0) {
        if (go_timer_stop(t) == -ENXIO && go_timer_stop_wait(t) == -ENXIO)
            raise(SIGKILL); /* an exit would have Valgrind look for leaks */
        _exit(1);
    }
    int status;
    T_EQ(waitpid(pid, &status, 0), pid);
    T_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %#x", (unsigned)status);
    T_EQ(go_timer_stop(t), 0);
    t_stop();
}

/* ---- memory -----------------------------------------------------------------------------------
 */

/* No stack can be had while they wait, and they run one after the other on the one that is here. */
static void arm_without_stacks(void *arg) {
    go_timer *t[200];
    (void)arg;
    rt_fault_arm(RT_FAULT_GUARD, 1, true, ENOMEM);
    for (int i = 0; i < 200; i++)
        t[i] = after(GO_MILLISECOND, bump, NULL);
    T_EQ(go_sleep(2 * GO_MILLISECOND), 0);
    while (rt_load_acquire(&ran) != 200)
        T_EQ(go_sleep(GO_MILLISECOND), 0);
    rt_fault_disarm();
    for (int i = 0; i < 200; i++)
        T_EQ(go_timer_stop_wait(t[i]), -EALREADY);
}

/* Both are there before either goes, so each has a stack of its own. */
static void meet(void *both) {
    T_ASSERT(go_barrier_wait(both) >= 0);
}

Test(after, they_wait_without_a_stack) {
    go_barrier both;
    go_barrier_init(&both, 2);
    t_start_strict(1);
    for (int i = 0; i < 2; i++) /* leave the two stacks that are needed */
        T_SPAWN(meet, &both);
    T_AWAIT(t_stats().tasks_live == 0);
    go_waitgroup wg = {0};
    T_EQ(go_waitgroup_spawn(&wg, arm_without_stacks, NULL), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    t_stop();
}

static void arm_out_of_memory(void *arg) {
    static go_timer *t[2000];
    uint64_t live = t_stats().tasks_live;
    int n = 0;
    (void)arg;
    for (int nth = 1; nth < 8; nth++) { /* the struct, a slab of records, the heap of timers */
        rt_fault_arm(RT_FAULT_ALLOC, (uint32_t)nth * 50, false, ENOMEM);
        for (int i = 0; i < 200; i++) {
            t[n] = go_timer_after(T_NEVER, bump, NULL);
            n += t[n] != NULL;
        }
        rt_fault_disarm();
    }
    T_ASSERT(n < 7 * 200 && n >= 7 * 199, "%d", n);
    T_EQ(t_stats().tasks_live, live + (uint64_t)n);
    while (n > 0)
        T_EQ(go_timer_stop(t[--n]), 0);
    T_AWAIT(t_stats().tasks_live == live);
}

/* What fails is the first allocation that is no timer's own struct. */
static void arm_without_a_heap(void *arg) {
    static go_timer *t[5000];
    int n = 0, failed = 0;
    (void)arg;
    for (int i = 0; i < 2500; i++) {
        rt_fault_arm(RT_FAULT_ALLOC, 2, true, ENOMEM);
        t[n] = go_timer_after(T_NEVER, bump, NULL);
        rt_fault_disarm();
        failed += t[n] == NULL;
        if (t[n] || (t[n] = go_timer_after(T_NEVER, bump, NULL)))
            n++;
    }
    T_EQ(n, 2500);
    T_ASSERT(failed >= 5, "%d", failed);
    while (n > 0)
        T_EQ(go_timer_stop(t[--n]), 0);
}

Test(after, without_memory_there_is_none) {
    T_RUN(arm_out_of_memory, NULL);
    T_RUN(arm_without_a_heap, NULL);
    t_start_strict(1);
    arm_out_of_memory(NULL);
    arm_without_a_heap(NULL);
    t_stop();
    T_EQ(ran, 0);
}

static void up_to_the_limit(void *arg) {
    static go_timer *t[200];
    for (int round = 0; round < 3; round++) {
        int n = 0;
        while (n < 200 && (t[n] = go_timer_after(T_NEVER, bump, NULL)) != NULL)
            n++;
        T_ASSERT(n >= 60 && n < 110, "%d", n);
        T_EQ(go_spawn(bump, NULL), -EAGAIN);
        while (n > 0)
            T_EQ(go_timer_stop(t[--n]), 0);
    }
    rt_store_release((int *)arg, 1);
}

Test(after, each_counts_for_the_limit_on_tasks) {
    struct go_options o = GO_OPTIONS_INIT;
    int done = 0;
    o.procs = 1;
    o.max_tasks = 100;
    T_EQ(go_start(&o), 0);
    T_SPAWN(up_to_the_limit, &done);
    T_AWAIT(rt_load_acquire(&done));
    t_stop();
}

/* Time-outs that never come are made and stopped for ever, by whomever: the heaps stay small. */
static void *make_and_stop(void *arg) {
    (void)arg;
    for (int i = 0; i < count(20000); i++)
        T_EQ(go_timer_stop(after(T_NEVER, bump, NULL)), 0);
    return NULL;
}

static void make_and_stop_green(void *arg) {
    make_and_stop(arg);
}

Test(after, stopped_ones_are_swept, .timeout = 120) {
#ifdef T_TSAN
    T_SKIP("looks into the heap of a running P");
#endif
    t_start((unsigned)t_procs());
    for (int i = 0; i < 4; i++)
        T_SPAWN(make_and_stop_green, NULL);
    t_threads(2, make_and_stop);
    T_AWAIT(t_stats().tasks_live == 0);
    uint64_t n = 0;
    for (uint32_t i = 0; i < rt.procs; i++)
        n += rt_load_relaxed(&rt.ps[i].ntimers);
    t_stop();
    T_ASSERT(n <= 4096 + 1024 * (uint64_t)t_procs(), "%d", (int)n);
}
