/* join.c - task/join.c: whoever joins a task gets its result, and has seen what it did; the record
 * of the task is freed once, by whoever comes second, and nobody touches it after that, be it the
 * task's end, a joiner that gave up, or a canceller that met it in its joiner's place.
 *
 * A record that a foreign thread frees is written to at once, as the next spawn would; one that a
 * P frees is taken by the next spawn there. */
#include "event.h"

#include "sched/g.h"

#include <gort/scope.h>
#include <gort/task.h>

static go_task *task;     /* made by `init` */
static go_task *joiner;   /* the same; its handle is for who cancels it */
static struct rt_g *next; /* the task that comes into the place of one that was joined */
static struct event event;
static go_scope scope, shield;
static int done[2];   /* plain: what the tasks did */
static int reason;    /* plain: what the canceller left */
static uint32_t put;  /* records freed by foreign threads */
static uint32_t ends; /* joins, reaps and detaches that have returned */

void rt_g_put(struct rt_g *g) {
    rt_fetch_add_relaxed(&put, 1);
    g->fn = g->arg = g->result = NULL;
    g->joiner_seq = 0;
    g->flags = g->touched = 0;
    g->stack = NULL;
    g->next = NULL;
    rt_store_relaxed(&g->attention, 0);
}

/* ---- tasks ----------------------------------------------------------------------------------- */

static void *work(void *arg) {
    int i = (int)(intptr_t)arg;
    done[i] = 1;
    return &done[i];
}
static void *wait_for_event(void *arg) {
    (void)arg;
    int r = event_wait(&event, RT_WAITING, GO_FOREVER);
    model_assert(r == 0 || (r == -ECANCELED && reason == 1));
    done[0] = 1;
    return r == 0 ? &done[0] : NULL;
}

static void check(go_task *t, int i) {
    void *result = NULL;
    model_assert(go_task_join(t, &result) == 0);
    model_assert(result == &done[i] && done[i] == 1);
    rt_fetch_add_relaxed(&ends, 1);
}

/* ---- joined by a thread ---------------------------------------------------------------------- */

static void machine(uint32_t procs) {
    machine_with_stacks(2); /* a P that is not used has Gs, too */
    rt.procs = procs;
    event_init(&event);
}
static void one_task_on(unsigned p, void *(*fn)(void *)) {
    machine_be(p, &gs[p]);
    task = go_task_spawn(fn, NULL);
    model_be(NULL);
}
static void working(void) {
    machine(1);
    one_task_on(0, work);
}
static void waiting(void) {
    machine(1);
    one_task_on(0, wait_for_event);
}
static void working_in_scope(void) {
    working();
    go_scope_enter(&scope, GO_FOREVER); /* of thread 0 */
}

static void m0(void) {
    machine_run(0);
}
static void m1(void) {
    machine_run(1);
}
static void thread_joins(void) {
    check(task, 0);
}
static void thread_detaches(void) {
    model_assert(go_task_detach(task) == 0);
    rt_fetch_add_relaxed(&ends, 1);
}
static void thread_reaps(void) {
    void *result = NULL;
    reason = 1;
    model_assert(go_task_reap(task, &result) == 0);
    model_assert(done[0] == 1);
    rt_fetch_add_relaxed(&ends, 1);
}
/* A join that was cancelled has left the task as it was. */
static void thread_joins_again(void) {
    void *result = NULL;
    int r = go_task_join(task, &result);
    if (r != 0) {
        model_assert(r == -ECANCELED && reason == 1);
        go_scope_enter_shielded(&shield, GO_FOREVER);
        r = go_task_join(task, &result);
    }
    model_assert(r == 0 && result == &done[0] && done[0] == 1);
    rt_fetch_add_relaxed(&ends, 1);
}
static void cancel_scope(void) {
    reason = 1;
    go_scope_cancel(&scope);
}
static void set(void) {
    event_set(&event);
}

/* ---- joined by a green thread ---------------------------------------------------------------- */

static void on_p0(void *(*fn)(void *)) {
    machine_be(0, &gs[0]);
    joiner = go_task_spawn(fn, NULL);
    model_be(NULL);
}

/* The task is in another P's runnext: they meet, whoever comes first. */
static void *join_it(void *arg) {
    check(task, 0);
    return arg;
}
static void apart(void) {
    machine(2);
    one_task_on(1, work);
    on_p0(join_it);
}

/* The first one waits in fresh, where M 1 may find it; the second in runnext, as one that will soon
 * run. Each is run in place, or was stolen. */
static void *spawn_two_and_join(void *arg) {
    go_task *t[2];
    for (int i = 0; i < 2; i++) {
        t[i] = go_task_spawn(work, (void *)(intptr_t)i);
        model_assert(t[i]);
    }
    check(t[0], 0);
    check(t[1], 1);
    return arg;
}
static void two(void) {
    machine(2);
    on_p0(spawn_two_and_join);
}

/* Cancelled while it joins: so is what runs in its place, and nothing that comes after that. */
static void *nothing(void *arg) {
    return arg;
}
static void *join_in_place(void *arg) {
    go_task *t = go_task_spawn(wait_for_event, NULL);
    model_assert(t);
    void *result = &reason;
    int r = go_task_join(t, &result);
    if (r != 0) {
        model_assert(r == -ECANCELED && reason == 1);
        model_assert(go_task_reap(t, &result) == 0);
    }
    model_assert(done[0] == 1 && (result == NULL || result == &done[0]));
    next = (struct rt_g *)go_task_spawn(nothing, NULL);
    model_assert(next == (struct rt_g *)t);
    rt_fetch_add_relaxed(&ends, 1);
    return arg;
}
static void in_place(void) {
    machine(1);
    on_p0(join_in_place);
}
static void cancel_joiner(void) {
    reason = 1;
    model_assert(go_task_cancel(joiner) == 0);
}

/* ---- at the end ------------------------------------------------------------------------------ */

static unsigned free_on(const struct rt_p *p) {
    unsigned n = 0;
    for (const struct rt_g *g = p->gfree; g; g = g->next)
        n++;
    model_assert(n == p->ngfree);
    return n;
}
/* Those that two Ps were given are all back but for `held`. */
static void all_free_but(unsigned held) {
    model_assert(free_on(&ps[0]) + free_on(&ps[1]) + put + held == 8);
}
static void ended_by(uint32_t n) {
    model_assert(ends == n);
    model_assert(!event.set || done[0]);
}
static void one_end(void) {
    ended_by(1);
    all_free_but(0);
}
static void apart_end(void) {
    ended_by(1);
    all_free_but(1); /* the joiner, whom nobody joins */
}
static void two_end(void) {
    ended_by(2);
    all_free_but(1);
}
static void in_place_end(void) {
    ended_by(1);
    all_free_but(2);
    model_assert(!(next->attention & RT_ATT_TASK));
    model_assert(((struct rt_g *)joiner)->attention & RT_ATT_TASK);
}

#define CASE(n, start, check, b, s, ...) \
    MODEL_CASE("join." n, start, check, check, b, s, __VA_ARGS__)

const struct model_case model_cases[] = {
    CASE("thread", working, one_end, 3, 2, thread_joins, m0),
    CASE("detach", working, one_end, 3, 2, thread_detaches, m0),
    CASE("reap", working, one_end, 3, 2, thread_reaps, m0),
    CASE("reap_waiting", waiting, one_end, 2, 2, thread_reaps, m0),
    CASE("reap_or_set", waiting, one_end, 1, 1, thread_reaps, set, m0),
    CASE("cancel", working_in_scope, one_end, 2, 2, thread_joins_again, m0, cancel_scope),
    CASE("apart", apart, apart_end, 2, 2, m0, m1),
    CASE("in_place_or_stolen", two, two_end, 2, 1, m0, m1),
    CASE("in_place_cancel", in_place, in_place_end, 3, 2, m0, cancel_joiner),
    CASE("in_place_cancel_or_set", in_place, in_place_end, 2, 1, m0, cancel_joiner, set),
    {0},
};
