/* pool.c - sched/pool.c: each job is called once, by a thread, or taken off by a cancel and never
 * called; none is left behind, whatever thread falls asleep, ends or cannot be started meanwhile;
 * and after the stop each thread has been joined, with nobody at its record.
 *
 * The callers are foreign threads, but for one case. A job is gone as soon as rt_pool_run has
 * returned, or when it was dropped; a record when it is unmapped. Where the clock moves an idle
 * thread may find its time over at any moment. */
#include "event.h"
#include "threads.h"

#include "sched/pool.h"
#include "sched/spawn.h"
#include "sched/worker.h"

#include <gort/scope.h>
#include <gort/task.h>

enum { JOBS = 3, RECORD_BYTES = 128, PAGE = 4096 };

static struct work {
    int asked, begun, done, dropped; /* plain: by the caller, by fn, by drop */
    int result;
    bool over;  /* the call has returned */
    bool drops; /* it has a `drop` */
} works[JOBS];
static struct rt_job jobs[JOBS];
static uint32_t ndropped;
static uint32_t callers; /* that have not finished */
static go_scope scope;   /* of thread 0 */

/* ---- what pool.c knows besides --------------------------------------------------------------- */

/* These are as atomic as what they stand for: nothing comes between the parts of one line. */
static unsigned places, all_places, starts, refused_start, records_made, records_gone;
static bool only_thread_1_gets_one;

bool rt_thread_take(void) {
    return places != 0 && places--;
}
void rt_thread_give(void) {
    places++;
}
void rt_sys_thread_name(const char *name) {
    (void)name;
}
int rt_sys_thread_sized(void *(*fn)(void *), void *arg, size_t stack_bytes) {
    pthread_t t;
    (void)stack_bytes;
    bool one_too_many = only_thread_1_gets_one && (model_self() != 1 || nthreads != 0);
    if (++starts == refused_start || one_too_many)
        return -EAGAIN;
    return rt_sys_thread(&t, fn, arg, "");
}

/* Of a mapping the record is there, where its last page begins. */
static struct {
    char bytes[RECORD_BYTES];
} records[NTHREADS] __attribute__((aligned(64)));

void *rt_sys_map(size_t bytes) {
    model_assert(records_made < NTHREADS);
    return (void *)((uintptr_t)&records[records_made++] - (bytes - PAGE));
}
void rt_sys_unmap(void *p, size_t bytes) {
    records_gone++;
    model_gone((void *)((uintptr_t)p + (bytes - PAGE)), RECORD_BYTES);
}

/* ---- jobs ------------------------------------------------------------------------------------ */

static void *work(void *arg) {
    struct work *w = arg;
    model_assert(w->asked == 1 && w->begun == 0);
    w->begun = 1;
    w->done = 1;
    return w;
}
static void drop(struct rt_job *job) {
    struct work *w = job->arg;
    model_assert(w->begun == w->done);
    w->dropped++;
    model_gone(job, sizeof *job);
    rt_store_release(&ndropped, 1);
}

static int call(unsigned i, void *(*fn)(void *), void (*dropper)(struct rt_job *)) {
    struct work *w = &works[i];
    w->asked = 1;
    w->drops = dropper != NULL;
    jobs[i] = (struct rt_job){.fn = fn, .arg = w, .drop = dropper};
    w->result = rt_pool_run(&jobs[i]);
    w->over = true;
    if (w->result == 0)
        model_assert(w->done == 1 && jobs[i].result == w);
    if (w->result == 0 || !dropper)
        model_gone(&jobs[i], sizeof jobs[i]);
    return w->result;
}

/* As when the last green thread has ended. */
static void leave(void) {
    if (rt_fetch_sub(&callers, 1) != 1)
        return;
    rt_pool_stop();
    no_more_threads();
}

static void all_idle(void) {
    for (struct work *w = works; w < works + JOBS; w++) {
        model_assert(w->asked == w->over);
        if (w->result == 0)
            model_assert(w->done == w->asked && w->dropped == 0);
        else
            model_assert(w->drops ? w->dropped == 1 : w->begun == 0);
    }
    struct rt_pool_counts c = rt_pool_counts();
    model_assert(c.threads == 0 && c.queued == 0 && c.waits == 0 && c.orphans == 0);
    model_assert(places == all_places);
}
static void all_over(void) {
    all_idle();
    model_assert(records_made == records_gone);
}

static void begin(uint32_t ncallers, unsigned nplaces) {
    machine_with_stacks(1);
    model_ignore(&nthreads, sizeof nthreads);
    model_ignore(&places, sizeof places);
    model_ignore(&starts, sizeof starts);
    model_ignore(&records_made, sizeof records_made);
    model_ignore(&records_gone, sizeof records_gone);
    callers = ncallers;
    places = all_places = nplaces;
    rt_pool_keep_ns = INT64_MAX; /* it is 0 now, so they sleep for ever */
    rt_pool_start();
}
static void time_goes_on(void) {
    rt_pool_keep_ns = 1000;
    model_clock_moves();
}
static void one_caller(void) {
    begin(1, 3);
}
static void one_caller_while_time_goes_on(void) {
    one_caller();
    time_goes_on();
}
static void one_in_scope(void) {
    one_caller();
    go_scope_enter(&scope, GO_FOREVER);
}
static void one_in_scope_while_time_goes_on(void) {
    one_in_scope();
    time_goes_on();
}
static void two_callers(void) {
    begin(2, 3);
}
static void one_place(void) {
    begin(2, 1);
}
static void two_callers_while_time_goes_on(void) {
    two_callers();
    time_goes_on();
}

static void t0(void) {
    run_thread(0);
}
static void t1(void) {
    run_thread(1);
}

/* ---- called ---------------------------------------------------------------------------------- */

static void call_first(void) {
    model_assert(call(0, work, NULL) == 0);
    leave();
}
static void call_second(void) {
    model_assert(call(1, work, NULL) == 0);
    leave();
}
static void call_twice(void) {
    model_assert(call(0, work, NULL) == 0);
    model_assert(call(1, work, NULL) == 0);
    leave();
}
/* The second call finds the thread that is on its way back. */
static void one_thread_was_enough(void) {
    all_over();
    model_assert(nthreads == 1);
}
/* And the pool starts again. */
static void call_stop_and_call(void) {
    model_assert(call(0, work, NULL) == 0);
    rt_pool_stop();
    rt_pool_start();
    call_second();
}

/* ---- cancelled ------------------------------------------------------------------------------- */

static void cancel_scope(void) {
    go_scope_cancel(&scope);
}
static void call_or_be_canceled(void) {
    int err = call(0, work, NULL);
    model_assert(err == 0 || err == -ECANCELED);
    leave();
}
static void wait_for_orphans(void) {
    while (rt_pool_counts().orphans != 0) /* as the stop does */
        model_wait_for_change();
}
static void call_or_drop(void) {
    int err = call(0, work, drop);
    model_assert(err == 0 || err == -ECANCELED);
    wait_for_orphans();
    leave();
}

/* The job that was given up runs on until the next one is done, which needs a second thread. */
static uint32_t second_is_done;

static void *work_until_then(void *arg) {
    go_scope_cancel(&scope);
    while (rt_load_acquire(&second_is_done) == 0)
        model_wait_for_change();
    return work(arg);
}
static void give_up_and_call(void) {
    model_assert(call(0, work_until_then, drop) == -ECANCELED);
    model_assert(go_scope_leave(&scope) == -ECANCELED);
    model_assert(call(1, work, NULL) == 0);
    rt_store_release(&second_is_done, 1);
    while (rt_load_acquire(&ndropped) == 0) /* no orphan any more */
        model_wait_for_change();
    leave();
}

/* ---- refused a thread ------------------------------------------------------------------------ */

static void only_place_is_refused(void) {
    one_place();
    refused_start = 1;
}
static void first_is_refused(void) {
    two_callers();
    refused_start = 1;
}
static void call_first_or_fail(void) {
    int err = call(0, work, NULL);
    model_assert(err == 0 || err == -EAGAIN);
    leave();
}
static void call_second_or_fail(void) {
    int err = call(1, work, NULL);
    model_assert(err == 0 || err == -EAGAIN);
    leave();
}
static void somebody_was_told(void) {
    all_over();
    model_assert(works[0].result == -EAGAIN || works[1].result == -EAGAIN);
}
/* Thread 0 is served by the thread of the other, or is told; the other may count for its second job
 * on a thread that will not begin, while its own falls asleep. */
static void but_one_is_refused(void) {
    two_callers();
    only_thread_1_gets_one = true;
}
static void call_second_and_third(void) {
    model_assert(call(1, work, NULL) == 0);
    model_assert(call(2, work, NULL) == 0);
    leave();
}

/* ---- asked ----------------------------------------------------------------------------------- */

/* For sysmon somebody waits until he has been made ready. And a thread knows whose it is. */
static struct rt_g *caller;
static uint32_t working;

static void *work_and_ask(void *arg) {
    model_assert(rt_pool_is_ours());
    rt_store_release(&working, 1);
    return work(arg);
}
static void call_first_and_ask(void) {
    rt_store_relaxed(&caller, rt_self());
    model_assert(call(0, work_and_ask, NULL) == 0);
    leave();
}
static void ask(void) {
    model_assert(!rt_pool_is_ours());
    if (rt_load_acquire(&working) == 0 || rt_pool_counts().waits != 0)
        return;
    struct rt_g *g = rt_load_relaxed(&caller);
    bool claimed = rt_park_seq(g) == 1;
    model_assert(!claimed || rt_load_relaxed(&g->thread_note) == 1);
}

/* ---- on a green thread ----------------------------------------------------------------------- */

static void call_on_green(void *arg) {
    struct work *w = arg;
    void *result = NULL;
    w->asked = 1;
    model_assert(go_blocking(work, w, &result) == 0 && result == w && w->done == 1);
    w->over = true;
}
static void green(void) {
    begin(0, 3);
    time_goes_on();
    machine_be(0, &gs[0]);
    model_assert(go_spawn(call_on_green, &works[0]) == 0);
    model_be(NULL);
}
static void m0(void) {
    machine_run(0);
}
/* Its thread, whose time is over, has ended; the stop would join it. */
static void green_is_over(void) {
    all_idle();
    model_assert(works[0].over && records_made == 1 && records_gone == 0);
}

#define CASE(n, start, check, b, s, ...) \
    MODEL_CASE("pool." n, start, check, NULL, b, s, __VA_ARGS__)

const struct model_case model_cases[] = {
    CASE("twice", one_caller, one_thread_was_enough, 2, 1, call_twice, t0),
    CASE("late", one_caller_while_time_goes_on, all_over, 1, 1, call_twice, t0, t1),
    CASE("again", one_caller, all_over, 1, 1, call_stop_and_call, t0, t1),
    CASE("two", two_callers, all_over, MODEL_NO_PREEMPTION, 1, call_first, call_second, t0, t1),
    CASE("two_late", two_callers_while_time_goes_on, all_over, MODEL_NO_PREEMPTION, 1, call_first,
         call_second, t0, t1),
    CASE("one_place", one_place, all_over, 1, 1, call_first, call_second, t0),
    CASE("canceled", one_in_scope, all_over, 2, 1, call_or_be_canceled, t0, cancel_scope),
    CASE("dropped", one_in_scope, all_over, 2, 1, call_or_drop, t0, cancel_scope),
    CASE("given_up", one_in_scope_while_time_goes_on, all_over, 1, 1, give_up_and_call, t0, t1),
    CASE("no_thread", only_place_is_refused, somebody_was_told, 1, 1, call_first_or_fail,
         call_second_or_fail, t0),
    CASE("refused", first_is_refused, all_over, 1, 1, call_first_or_fail, call_second_or_fail, t0),
    CASE("counted_on", but_one_is_refused, all_over, 1, 1, call_first_or_fail,
         call_second_and_third, t0),
    CASE("asked", one_caller, all_over, 1, 1, call_first_and_ask, t0, ask),
    {.name = "pool.green", .init = green, .thread = {m0, t0}, .end = green_is_over,
     .rest = green_is_over, .bound = 2, .stale = 1},
    {0},
};
