/* go_blocking: the pool of threads, its queue, and how it ends. */
#include "t_unit.h"

#include "base/fault.h"
#include "sched/pool.h"

#include <semaphore.h>

static sem_t gate, begun; /* what fn blocks on, as foreign code would */
static uint32_t calls;

static void *wait_at_gate(void *arg) {
    rt_fetch_add(&calls, 1);
    sem_post(&begun);
    while (sem_wait(&gate) != 0)
        ;
    return arg;
}
static void *count_call(void *arg) {
    rt_fetch_add(&calls, 1);
    return arg;
}
static void set_up(void) {
    T_EQ(sem_init(&gate, 0, 0), 0);
    T_EQ(sem_init(&begun, 0, 0), 0);
    rt_store_seq_cst(&calls, 0);
}
static void open_gate(int n) {
    while (n-- > 0)
        sem_post(&gate);
}

/* The runtime with at most n threads in the pool. */
static void start_with(unsigned n) {
    struct go_options o = GO_OPTIONS_INIT;
    o.max_threads = (unsigned)t_procs() + 1 + n;
    set_up();
    T_EQ(go_start(&o), 0);
}

/* A task that is in wait_at_gate, and returns arg; *r what go_blocking said. */
struct blocker {
    go_task *task;
    int r;
};
static void *block(void *arg) {
    struct blocker *b = arg;
    void *result = NULL;
    b->r = go_blocking(wait_at_gate, b, &result);
    T_ASSERT(b->r != 0 || result == b);
    T_ASSERT(b->r == 0 || result == NULL);
    return NULL;
}
static void hold_up(struct blocker *b, int n) {
    uint32_t before = rt_load_seq_cst(&calls);
    for (int i = 0; i < n; i++)
        T_ASSERT((b[i].task = go_task_spawn(block, &b[i])) != NULL);
    T_AWAIT(rt_load_seq_cst(&calls) == before + (uint32_t)n);
}
static void let_go(struct blocker *b, int n) {
    open_gate(n);
    for (int i = 0; i < n; i++) {
        T_JOIN(b[i].task);
        T_EQ(b[i].r, 0);
    }
}

/* ---- what fn sees ---------------------------------------------------------------------------- */

static int use_stack(size_t bytes) {
    volatile char *p = __builtin_alloca(bytes);
    for (size_t i = 0; i < bytes; i += 4096)
        p[i] = 1;
    return p[0];
}

static void *look_around(void *arg) {
    char name[32] = "";
    sigset_t mask;
    stack_t alt;
    T_EQ(go_id(), 0);
    T_EQ(pthread_getname_np(pthread_self(), name, sizeof name), 0);
    T_STR_EQ(name, "gort-blk");
    T_EQ(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
    T_ASSERT(sigismember(&mask, SIGUSR1) && sigismember(&mask, SIGPIPE));
    static const int open[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    for (size_t i = 0; i < T_COUNT(open); i++)
        T_ASSERT(!sigismember(&mask, open[i]));
    T_EQ(sigaltstack(NULL, &alt), 0);
    T_ASSERT(!(alt.ss_flags & SS_DISABLE));
    T_EQ(use_stack(6 << 20), 1);
    return arg;
}
GTest(blocking, fn_runs_on_an_ordinary_thread_with_a_big_stack) {
    void *result = NULL;
    T_EQ(go_blocking(look_around, &result, &result), 0);
    T_ASSERT(result == &result);
    T_EQ(go_blocking(look_around, NULL, NULL), 0);
    T_EQ(go_blocking(NULL, NULL, NULL), -EINVAL);
}

static void small(void *arg) {
    T_EQ(go_blocking(count_call, NULL, NULL), 0);
    go_chan_close(arg);
}
GTest(blocking, the_smallest_stack_suffices) {
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    go_chan *done = go_chan_new(0, 0);
    o.stack_size = 16 << 10;
    T_EQ(go_spawn_with(&o, small, done), 0);
    T_EQ(go_chan_recv(done, NULL), -EPIPE);
    go_chan_free(done);
}

static go_chan *chan;
static void *send_and_receive(void *arg) {
    T_EQ(go_chan_send(chan, &(int){1}), 0);
    int got = 0;
    T_EQ(go_chan_recv(chan, &got), 0);
    T_EQ(got, 2);
    T_EQ(go_stop(GO_SECOND), -EDEADLK);
    T_EQ(go_start(NULL), -EALREADY);
    T_EQ(go_sleep(1), 0);
    go_scope s;
    go_scope_enter(&s, go_now() - 1);
    T_EQ(go_sleep(1), -ETIMEDOUT);
    T_EQ(go_blocking(count_call, NULL, NULL), -ETIMEDOUT);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    return arg;
}
static void answer(void *arg T_UNUSED) {
    int got = 0;
    T_EQ(go_chan_recv(chan, &got), 0);
    T_EQ(got, 1);
    T_EQ(go_chan_send(chan, &(int){2}), 0);
}
GTest(blocking, fn_may_use_gort_as_a_foreign_thread) {
    chan = go_chan_new(sizeof(int), 0);
    T_SPAWN(answer, NULL);
    T_EQ(go_blocking(send_and_receive, NULL, NULL), 0);
    go_chan_free(chan);
}

static void *whose(void *arg) {
    *(pthread_t *)arg = pthread_self();
    return NULL;
}
static void *nested(void *arg) {
    pthread_t outer = pthread_self(), inner;
    T_EQ(go_blocking(whose, &inner, NULL), 0);
    T_ASSERT(pthread_equal(outer, inner));
    return arg;
}
Test(blocking, on_a_foreign_thread_fn_is_called_right_there) {
    set_up();
    T_EQ(go_blocking(count_call, NULL, NULL), -ENXIO);
    T_EQ(go_start(NULL), 0);
    nested(NULL);
    go_scope s;
    go_scope_enter(&s, GO_FOREVER);
    go_scope_cancel(&s);
    T_EQ(go_blocking(count_call, NULL, NULL), -ECANCELED);
    T_EQ(go_scope_leave(&s), -ECANCELED);
    T_EQ(t_stats().blocking_threads, 0);
    t_stop();
    T_EQ(go_blocking(count_call, NULL, NULL), -ENXIO);
    T_EQ(calls, 0);
}

static void call_nested(void *arg T_UNUSED) {
    T_EQ(go_blocking(nested, NULL, NULL), 0);
}
/* A pool that is full of calls that call it would else wait for itself. */
Test(blocking, nested_calls_need_no_second_thread) {
    start_with(1);
    go_waitgroup wg = {0};
    for (int i = 0; i < 8; i++)
        T_EQ(go_waitgroup_spawn(&wg, call_nested, NULL), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    t_stop();
}

/* ---- workers go on --------------------------------------------------------------------------- */

GTest(blocking, more_calls_than_workers_block_at_once) {
    struct blocker b[20];
    set_up();
    hold_up(b, 20); /* at procs 1 this shows that the worker is not held up */
    T_EQ(t_stats().blocking_threads, 20);
    T_ASSERT(t_stats().threads >= (unsigned)t_procs() + 21); /* and perhaps spare Ms */
    let_go(b, 20);
}

static int order[8];
static uint32_t norder;
static void *note_order(void *arg) {
    order[rt_fetch_add(&norder, 1)] = (int)t_int(arg);
    return NULL;
}
static void queue_up(void *arg) {
    T_EQ(go_blocking(note_order, arg, NULL), 0);
}
static void first_come(void *arg T_UNUSED) {
    struct blocker b[2];
    go_waitgroup wg = {0};
    hold_up(b, 2);
    for (int i = 0; i < 8; i++) {
        T_EQ(go_waitgroup_spawn(&wg, queue_up, t_ptr(i)), 0);
        T_AWAIT(t_stats().blocking_queued == (unsigned)i + 1);
    }
    T_EQ(t_stats().blocking_threads, 2);
    T_EQ(rt_load_seq_cst(&norder), 0);
    open_gate(1); /* one of the two serves all */
    T_EQ(go_waitgroup_wait(&wg), 0);
    for (int i = 0; i < 8; i++)
        T_EQ(order[i], i);
    open_gate(1);
    T_JOIN(b[0].task);
    T_JOIN(b[1].task);
}
static void *in_task(void *arg) {
    ((void (*)(void *))arg)(NULL);
    return NULL;
}
static void on_g(void (*fn)(void *)) {
    go_task *t = go_task_spawn(in_task, (void *)fn);
    T_ASSERT(t);
    T_JOIN(t);
}
Test(blocking, beyond_the_bound_calls_wait_in_their_order) {
    start_with(2);
    on_g(first_come);
    t_stop();
}

/* ---- cancel ---------------------------------------------------------------------------------- */

static void cancel_queued(void *arg T_UNUSED) {
    struct blocker b, victim[3];
    hold_up(&b, 1);
    for (int i = 0; i < 3; i++) {
        T_ASSERT((victim[i].task = go_task_spawn(block, &victim[i])) != NULL);
        T_AWAIT(t_stats().blocking_queued == (unsigned)i + 1);
    }
    T_EQ(go_task_cancel(victim[1].task), 0); /* from the middle */
    T_JOIN(victim[1].task);
    T_EQ(victim[1].r, -ECANCELED);
    T_EQ(t_stats().blocking_queued, 2);
    go_scope s;
    go_scope_enter(&s, go_now() + GO_MILLISECOND);
    T_EQ(go_blocking(count_call, NULL, NULL), -ETIMEDOUT); /* while it is queued */
    T_EQ(go_blocking(count_call, NULL, NULL), -ETIMEDOUT); /* on entry */
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    T_EQ(go_task_cancel(victim[2].task), 0);
    T_JOIN(victim[2].task);
    T_EQ(victim[2].r, -ECANCELED);
    T_EQ(rt_load_seq_cst(&calls), 1);
    open_gate(1);
    T_JOIN(b.task);
    T_EQ(b.r, 0);
    let_go(victim, 1);
    T_EQ(rt_load_seq_cst(&calls), 2);
}
Test(blocking, a_call_that_waits_for_a_thread_can_be_cancelled) {
    start_with(1);
    on_g(cancel_queued);
    t_stop();
}

static void *outlast(void *arg) {
    while (go_now() <= *(int64_t *)arg + 3 * GO_MILLISECOND)
        t_relax();
    return arg;
}
GTest(blocking, what_has_begun_is_waited_for) {
    struct blocker b;
    set_up();
    hold_up(&b, 1);
    T_EQ(go_task_cancel(b.task), 0);
    T_EQ(go_sleep(3 * GO_MILLISECOND), 0); /* it has most likely noticed by now */
    let_go(&b, 1);

    int r = -ETIMEDOUT; /* it may be late before it has begun */
    for (int64_t ns = GO_MILLISECOND; r == -ETIMEDOUT; ns *= 2) {
        go_scope s;
        int64_t deadline = go_now() + ns;
        void *result = NULL;
        go_scope_enter(&s, deadline);
        r = go_blocking(outlast, &deadline, &result);
        T_ASSERT(r == -ETIMEDOUT || (r == 0 && result == &deadline), "%d", r);
        T_EQ(go_canceled(), -ETIMEDOUT);
        T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    }
}

GTest(blocking, in_a_cancelled_scope_fn_is_not_called) {
    go_scope s;
    set_up();
    T_EQ(go_blocking(count_call, NULL, NULL), 0); /* a thread is there */
    go_scope_enter(&s, GO_FOREVER);
    go_scope_cancel(&s);
    for (int i = 0; i < 1000; i++)
        T_EQ(go_blocking(count_call, NULL, NULL), -ECANCELED);
    T_EQ(go_scope_leave(&s), -ECANCELED);
    T_EQ(rt_load_seq_cst(&calls), 1);
}

/* ---- no threads, no memory ------------------------------------------------------------------- */

static void try_without(void *arg T_UNUSED) {
    T_EQ(go_blocking(count_call, NULL, NULL), -EAGAIN);
}
static void without_threads(void *arg T_UNUSED) {
    rt_store_seq_cst(&rt_pool_keep_ns, T_NEVER);
    rt_fault_arm(RT_FAULT_THREAD, 1, true, EAGAIN);
    go_waitgroup wg = {0};
    for (int i = 0; i < 50; i++)
        T_EQ(go_waitgroup_spawn(&wg, try_without, NULL), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(t_stats().blocking_threads, 0);
    rt_fault_disarm();
    rt_fault_arm(RT_FAULT_MMAP, 1, false, ENOMEM); /* the record of the thread */
    T_EQ(go_blocking(count_call, NULL, NULL), -EAGAIN);
    T_EQ(rt_load_seq_cst(&calls), 0);
    struct blocker b, second;
    hold_up(&b, 1);
    rt_fault_arm(RT_FAULT_THREAD, 1, true, EAGAIN);
    T_ASSERT((second.task = go_task_spawn(block, &second)) != NULL);
    T_AWAIT(t_stats().blocking_queued == 1);
    let_go(&b, 1);
    let_go(&second, 1);
    T_EQ(t_stats().blocking_threads, 1);
    rt_fault_disarm();
}
Test(blocking, without_a_thread_it_says_so_with_one_it_waits) {
    start_with(5);
    on_g(without_threads);
    t_stop();
}
/* One thread is there and always comes back, so no job may be left or refused: not even one that
 * has counted on a thread which then could not be started. Who calls has a thread of his own. */
enum { CALLERS = 3 };
static go_barrier each_round;
static void call_in_rounds(void *arg T_UNUSED) {
    go_lock_thread();
    go_barrier_wait(&each_round); /* all have their threads */
    go_barrier_wait(&each_round); /* no more are to be had */
    for (int i = 0; i < T_SCALE(3000); i++) {
        T_EQ(go_blocking(count_call, NULL, NULL), 0);
        go_barrier_wait(&each_round); /* nobody calls who could help */
    }
    go_unlock_thread();
}
static void beside_failing_starts(void *arg T_UNUSED) {
    go_waitgroup wg = {0};
    rt_store_seq_cst(&rt_pool_keep_ns, T_NEVER);
    go_barrier_init(&each_round, CALLERS + 1);
    for (int i = 0; i < CALLERS; i++)
        T_EQ(go_waitgroup_spawn(&wg, call_in_rounds, NULL), 0);
    go_barrier_wait(&each_round);
    T_EQ(go_blocking(count_call, NULL, NULL), 0);
    rt_fault_arm(RT_FAULT_THREAD, 1, true, EAGAIN);
    for (int i = 0; i <= T_SCALE(3000); i++)
        go_barrier_wait(&each_round);
    T_EQ(go_waitgroup_wait(&wg), 0);
    rt_fault_disarm();
    T_EQ(t_stats().blocking_threads, 1);
}
Test(blocking, a_start_that_fails_leaves_no_job_behind, .timeout = 120) {
    start_with(2 * CALLERS + 4);
    on_g(beside_failing_starts);
    t_stop();
}
Test(blocking, a_pool_of_no_threads_says_eagain) {
    start_with(0);
    on_g(try_without);
    t_stop();
}

static void in_scope_without_memory(void *arg) {
    go_scope s;
    go_scope_enter(&s, go_now() + T_NEVER);
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM);
    *(int *)arg = go_blocking(count_call, NULL, NULL);
    rt_fault_disarm();
    T_EQ(go_scope_leave(&s), 0);
    sem_post(&begun);
}
Test(blocking, without_memory_for_a_timer_nothing_is_lost) {
    struct go_options o = GO_OPTIONS_INIT;
    struct blocker b;
    o.procs = 1; /* whose heap is empty yet */
    o.max_threads = 3;
    set_up();
    T_EQ(go_start(&o), 0);
    hold_up(&b, 1);
    T_EQ(sem_wait(&begun), 0);
    int r = 1;
    T_SPAWN(in_scope_without_memory, &r);
    T_EQ(sem_wait(&begun), 0);
    T_EQ(r, -ENOMEM); /* it was queued */
    T_EQ(rt_load_seq_cst(&calls), 1);
    let_go(&b, 1);
    for (int i = 0; i < T_SCALE(200); i++) {
        uint32_t before = rt_load_seq_cst(&calls);
        T_SPAWN(in_scope_without_memory, &r);
        T_EQ(sem_wait(&begun), 0);
        T_ASSERT(r == 0 || r == -ENOMEM, "%d", r);
        T_EQ(rt_load_seq_cst(&calls), before + (r == 0));
    }
    t_stop();
}

/* ---- threads come and go --------------------------------------------------------------------- */

static void churn_one(void *arg) {
    uint64_t seed = (uint64_t)t_int(arg) * 77 + 1;
    for (long i = 0; i < T_SCALE(200); i++) {
        void *result = NULL;
        go_scope s;
        go_scope_enter(&s, t_random(&seed) % 2 ? GO_FOREVER : go_now() + 50 * GO_MICROSECOND);
        int r = go_blocking(count_call, &s, &result);
        T_ASSERT(r == 0 || r == -ETIMEDOUT, "%d", r);
        T_ASSERT(r != 0 || result == &s);
        go_scope_leave(&s);
        if (t_random(&seed) % 8 == 0)
            go_sleep(t_random(&seed) % 100000);
    }
}
static void churn(void *arg T_UNUSED) {
    go_waitgroup wg = {0};
    for (int i = 0; i < 16; i++)
        T_EQ(go_waitgroup_spawn(&wg, churn_one, t_ptr(i)), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(t_stats().blocking_queued, 0);
}
Test(blocking, threads_end_and_start_under_load) {
    static const int64_t keep[] = {0, 20 * GO_MICROSECOND, GO_SECOND};
    for (size_t i = 0; i < T_COUNT(keep); i++) {
        rt_store_seq_cst(&rt_pool_keep_ns, keep[i]);
        start_with(4);
        on_g(churn);
        t_stop();
    }
}

static void *call_often(void *arg) {
    for (long i = 0; i < T_SCALE(2000); i++)
        T_EQ(go_blocking(count_call, NULL, NULL), 0);
    return arg;
}
GTest(blocking, there_are_never_more_threads_than_calls_at_once) {
    go_task *t[12];
    set_up();
    rt_store_seq_cst(&rt_pool_keep_ns, T_NEVER);
    T_JOIN(go_task_spawn(call_often, NULL));
    T_EQ(t_stats().blocking_threads, 1);
    for (size_t i = 0; i < T_COUNT(t); i++)
        T_ASSERT((t[i] = go_task_spawn(call_often, NULL)) != NULL);
    for (size_t i = 0; i < T_COUNT(t); i++)
        T_JOIN(t[i]);
    T_ASSERT(t_stats().blocking_threads <= T_COUNT(t), "%u", t_stats().blocking_threads);
    T_EQ(rt_load_seq_cst(&calls), (T_COUNT(t) + 1) * (uint32_t)T_SCALE(2000));
}

GTest(blocking, idle_threads_end_after_a_while) {
    struct blocker b[10];
    set_up();
    rt_store_seq_cst(&rt_pool_keep_ns, GO_MILLISECOND);
    hold_up(b, 10);
    let_go(b, 10);
    T_AWAIT(t_stats().blocking_threads == 0);
    hold_up(b, 3);
    let_go(b, 3);
}

static void use_pool(void *arg T_UNUSED) {
    struct blocker b[6];
    hold_up(b, 6);
    let_go(b, 6);
}
Test(blocking, a_stop_leaves_no_thread) {
    start_with(8); /* warm */
    on_g(use_pool);
    t_stop();
    struct t_usage before = t_usage();
    for (long i = 0; i < T_SCALE(20); i++) {
        rt_store_seq_cst(&rt_pool_keep_ns, i % 2 ? 0 : T_NEVER);
        start_with(8);
        on_g(use_pool);
        t_stop();
        T_SAME_USAGE(before);
    }
}

/* ---- stop, deadlock, fork -------------------------------------------------------------------- */

static void block_long(void *arg) {
    block(arg);
}
Test(blocking, a_stop_waits_for_what_has_begun) {
    struct blocker b = {.r = 1};
    char text[4096] = "";
    start_with(3);
    T_SPAWN(block_long, &b);
    T_AWAIT(rt_load_seq_cst(&calls) == 1);
    while (!strstr(text, "blocking call")) { /* it may be just on its way back to the job */
        struct t_stderr err = t_stderr_begin();
        int r = go_stop(GO_MILLISECOND);
        t_stderr_end(err, text, sizeof text);
        T_EQ(r, -ETIMEDOUT);
        T_ASSERT(strstr(text, "green thread"), "%s", text);
    }
    T_EQ(go_blocking(count_call, NULL, NULL), -ENXIO);
    open_gate(1);
    t_stop();
    T_EQ(b.r, 0);
}

static int ends[2];
static void *read_nothing(void *arg) {
    sem_post(&begun);
    return t_ptr(go_read(ends[0], arg, 1));
}
static void read_in_fn(void *arg) {
    char c;
    void *result = NULL;
    T_EQ(go_blocking(read_nothing, &c, &result), 0);
    *(intptr_t *)arg = t_int(result);
}
Test(blocking, a_stop_ends_the_io_of_what_has_begun) {
    intptr_t r = 0;
    start_with(3);
    T_EQ(pipe(ends), 0);
    T_SPAWN(read_in_fn, &r);
    T_EQ(sem_wait(&begun), 0);
    t_stop();
    T_ASSERT(r == -ECANCELED || r == -ENXIO, "%d", (int)r); /* the latter: it came late */
    close(ends[0]);
    close(ends[1]);
}

static void *nap(void *arg) {
    nanosleep(&(struct timespec){.tv_nsec = 60 * 1000 * 1000}, NULL);
    return arg;
}
static void nap_blocking(void *arg T_UNUSED) {
    T_EQ(go_blocking(nap, NULL, NULL), 0);
}
static void run_nap(void) {
    T_RUN(nap_blocking, NULL);
}
Test(blocking, to_wait_for_a_thread_is_no_deadlock) {
    t_in_child(run_nap); /* Criterion has a thread beside the test, which could wake anybody */
}

static void park_for_ever(void *arg T_UNUSED) {
    T_EQ(go_blocking(count_call, NULL, NULL), 0);
    T_EQ(go_chan_recv(chan, NULL), -ECANCELED);
}
static void deadlock(void) {
    char text[4096];
    chan = go_chan_new(0, 0);
    struct t_stderr err = t_stderr_begin();
    int r = go_run(park_for_ever, NULL);
    t_stderr_end(err, text, sizeof text);
    T_EQ(r, -EDEADLK);
    go_chan_free(chan);
}
Test(blocking, an_idle_pool_does_not_hide_a_deadlock) {
    T_IN_CHILD_ALONE(deadlock);
}

static void *fork_here(void *arg) {
    pid_t pid = fork();
    T_ASSERT(pid >= 0);
    if (pid == 0)
        _exit(go_blocking(count_call, NULL, NULL) == -ENXIO && go_stop(0) == -ENXIO ? 0 : 1);
    int status = 1;
    T_EQ(waitpid(pid, &status, 0), pid);
    T_EQ(status, 0);
    return arg;
}
static void fork_on_g(void *arg T_UNUSED) {
    struct blocker b[3];
    hold_up(b, 3);
    fork_here(NULL);
    let_go(b, 3);
    T_EQ(go_blocking(fork_here, NULL, NULL), 0);
}
Test(blocking, a_forked_child_has_no_pool) {
    start_with(4);
    on_g(fork_on_g);
    fork_here(NULL);
    t_stop();
}

static void *leave_open(void *arg) {
    static go_scope s;
    go_scope_enter(&s, GO_FOREVER);
    return arg;
}
static void misuse(void *arg T_UNUSED) {
    go_blocking(leave_open, NULL, NULL);
}
Test(blocking, a_scope_left_open_aborts) {
    T_DIES(SIGABRT, "go_blocking: a scope was entered and not left", go_run(misuse, NULL));
}
