/* join.c, the rest of it: reap, detach, gather. */
#include "t_unit.h"

#include "base/lock.h"
#include "sched/sched.h"

static uint32_t ran;

static void *same(void *arg) {
    rt_fetch_add(&ran, 1);
    return arg;
}

static void *same_later(void *arg) {
    T_EQ(go_sleep((t_int(arg) % 7) * 30 * GO_MICROSECOND), 0);
    return same(arg);
}

static void *until_cancelled(void *arg) {
    T_EQ(go_sleep(GO_FOREVER), -ECANCELED);
    return same(arg);
}

static void *await_flag(void *flag) {
    while (!rt_load_acquire((uint32_t *)flag))
        go_yield(); /* heeds no cancel */
    return same(flag);
}

static void *after_clean_up(void *arg) {
    go_scope s;
    int r = go_sleep(GO_FOREVER);
    go_scope_enter_shielded(&s, GO_FOREVER);
    T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
    T_EQ(go_scope_leave(&s), 0);
    T_EQ(r, -ECANCELED);
    return same(arg);
}

static void *(*const bodies[])(void *) = {same, same_later, until_cancelled, after_clean_up};

static go_task *spawn(void *(*fn)(void *), intptr_t arg) {
    go_task *t = go_task_spawn(fn, t_ptr(arg));
    T_ASSERT(t);
    return t;
}

/* ---- reap ------------------------------------------------------------------------------------ */

static void reap_all(void) {
    for (int i = 0; i < (int)T_SCALE(400); i++) {
        void *result = NULL;
        go_task *t = spawn(bodies[i % 4 < 2 ? i % 4 : i % 2 + 2], 0);
        if (i % 4 < 2) /* those do not expect a cancel: let them end first */
            T_AWAIT(rt_load_acquire(&ran) == (uint32_t)i + 1);
        T_EQ(go_task_reap(t, i % 8 ? &result : NULL), 0);
        T_EQ(result, NULL);
        T_EQ(rt_load_acquire(&ran), i + 1);
    }
}

GTest(reap, cancels_and_waits_whatever_the_task_is_at) {
    reap_all();
    T_EQ(t_stats().tasks_live, 1);
    go_task *t = spawn(until_cancelled, 5);
    void *result;
    T_EQ(go_task_reap(t, &result), 0);
    T_EQ(t_int(result), 5);
}

Test(reap, works_on_a_foreign_thread) {
    T_EQ(go_start(NULL), 0);
    reap_all();
    t_stop();
}

GTest(reap, nothing_refuses_it) {
    go_scope late, cancelled;
    go_scope_enter(&late, go_now());
    T_EQ(go_task_reap(spawn(until_cancelled, 0), NULL), 0);
    T_EQ(go_task_reap(spawn(after_clean_up, 0), NULL), 0);
    go_scope_enter(&cancelled, GO_FOREVER);
    go_scope_cancel(&cancelled);
    T_EQ(go_task_reap(spawn(until_cancelled, 0), NULL), 0);
    T_EQ(go_task_reap(spawn(after_clean_up, 0), NULL), 0);
    T_EQ(go_scope_leave(&cancelled), -ECANCELED);
    T_EQ(go_scope_leave(&late), 0); /* it has refused nothing */
    T_EQ(ran, 4);
}

static uint32_t flag, reaped;

static void *reap_stubborn(void *arg) {
    go_scope s;
    go_scope_enter(&s, go_now());
    T_EQ(go_task_reap(arg, NULL), 0);
    T_EQ(rt_load_acquire(&flag), 1);
    T_EQ(go_scope_leave(&s), 0);
    rt_store_release(&reaped, 1);
    return NULL;
}

GTest(reap, a_cancel_while_it_waits_does_not_end_it) {
    for (int i = 0; i < (int)T_SCALE(200); i++) {
        flag = reaped = 0;
        go_task *stubborn = go_task_spawn(await_flag, &flag),
                *t = go_task_spawn(reap_stubborn, stubborn);
        for (int k = 0; k < i % 5; k++)
            go_yield();
        T_EQ(go_task_cancel(t), 0);
        for (int k = 0; k < 5; k++)
            go_yield();
        T_EQ(rt_load_acquire(&reaped), 0);
        rt_store_release(&flag, 1);
        T_JOIN(t);
    }
}

static go_task *self_task;

static void *end_self(void *arg) {
    T_AWAIT(rt_load_acquire(&self_task));
    T_EQ(go_task_reap(self_task, NULL), -EDEADLK);
    T_EQ(go_canceled(), 0);
    return arg;
}

static bool is_joined(go_task *t) {
    struct rt_g *g = (struct rt_g *)t;
    rt_lock(&g->task_lock);
    bool joined = g->joiner != NULL;
    rt_unlock(&g->task_lock);
    return joined;
}

static void *join_stubborn(void *t) {
    return t_ptr(go_task_join(t, NULL));
}

GTest(reap, refuses_itself_and_what_another_one_joins) {
    rt_store_release(&self_task, spawn(end_self, 2));
    T_EQ(t_int(T_JOIN(self_task)), 2);
    T_EQ(go_task_reap(NULL, NULL), -EINVAL);

    go_task *t = go_task_spawn(await_flag, &flag), *joiner = go_task_spawn(join_stubborn, t);
    T_AWAIT(is_joined(t));
    T_EQ(go_task_reap(t, NULL), -EBUSY);
    T_EQ(go_task_detach(t), -EBUSY);
    T_EQ(rt_load_relaxed(&((struct rt_g *)t)->attention) & RT_ATT_TASK, 0);
    rt_store_release(&flag, 1);
    T_EQ(t_int(T_JOIN(joiner)), 0);
}

/* ---- detach ---------------------------------------------------------------------------------- */

static void *tiny(void *arg) {
    rt_fetch_add(&ran, 1);
    if (arg)
        go_yield();
    return arg;
}

static void detach_many(int n) {
    for (int i = 0; i < n; i++) {
        go_task *t = spawn(tiny, i % 2);
        for (int k = 0; k < i % 4; k++)
            go_yield(); /* it may run, or have ended */
        T_EQ(go_task_detach(t), 0);
    }
}

/* With room for a few tasks the spawns fail unless those that were detached are freed. */
static void detach_at_the_limit(void *arg T_UNUSED) {
    for (int i = 0; i < (int)T_SCALE(3000); i++) {
        go_task *t;
        while (!(t = go_task_spawn(tiny, t_ptr(i % 2))))
            go_yield();
        for (int k = 0; k < i % 4; k++)
            go_yield();
        T_EQ(go_task_detach(t), 0);
    }
    rt_store_release(&flag, 1);
}

Test(detach, frees_the_task_whoever_is_first) {
    struct go_options o = GO_OPTIONS_INIT;
    o.max_tasks = 4;
    T_EQ(go_start(&o), 0);
    T_SPAWN(detach_at_the_limit, NULL);
    T_AWAIT(rt_load_acquire(&flag));
    t_stop();
    T_EQ(ran, T_SCALE(3000));
}

GTest(detach, the_task_lives_on) {
    flag = 0;
    go_task *t = go_task_spawn(await_flag, &flag);
    go_yield();
    T_EQ(go_task_detach(t), 0);
    T_EQ(t_stats().tasks_live, 2);
    rt_store_release(&flag, 1);
    T_AWAIT(t_stats().tasks_live == 1);
    T_EQ(ran, 1);
    T_EQ(go_task_detach(NULL), -EINVAL);
}

static void *detach_self(void *arg) {
    T_AWAIT(rt_load_acquire(&self_task));
    T_EQ(go_task_detach(self_task), 0);
    return same(arg);
}

GTest(detach, a_task_may_detach_itself) {
    rt_store_release(&self_task, spawn(detach_self, 0));
    T_AWAIT(t_stats().tasks_live == 1);
    T_EQ(ran, 1);
}

static void *detach_from_thread(void *arg) {
    detach_many((int)T_SCALE(1000));
    return arg;
}

Test(detach, works_on_foreign_threads) {
    T_EQ(go_start(NULL), 0);
    t_threads(4, detach_from_thread);
    T_AWAIT(t_stats().tasks_live == 0);
    T_EQ(ran, 4 * T_SCALE(1000));
    T_EQ(go_task_detach(spawn(until_cancelled, 0)), 0); /* ended by the stop */
    t_stop();
    T_EQ(ran, 4 * T_SCALE(1000) + 1);
}

/* Run in place of its joiner, or beside it in sanitizer builds: the handle is the joiner's. */
static void *detach_joined(void *arg) {
    return go_task_detach(self_task) == -EBUSY ? arg : NULL;
}

static void join_detacher(void *arg T_UNUSED) {
    self_task = spawn(detach_joined, 6);
    T_EQ(t_int(T_JOIN(self_task)), 6);
    rt_store_release(&flag, 1);
}

Test(detach, a_task_that_is_being_joined_cannot_detach_itself) {
    t_start_strict(1); /* so nobody runs it before the join */
    T_SPAWN(join_detacher, NULL);
    T_AWAIT(rt_load_acquire(&flag));
    t_stop();
}

static void twice(void *how) {
    flag = 0;
    go_task *t = go_task_spawn(await_flag, &flag);
    go_yield();
    go_task_detach(t);
    if (how)
        go_task_join(t, NULL);
    else
        go_task_detach(t);
}

Test(detach, who_uses_the_handle_afterwards_is_told) {
    T_DIES(SIGABRT, "gort: go_task_detach: the task", go_run(twice, NULL));
    T_DIES(SIGABRT, "gort: go_task_join: the task", go_run(twice, t_ptr(1)));
}

/* ---- gather ---------------------------------------------------------------------------------- */

enum { MANY = 200 };

static void gather_all(void) {
    go_task *tasks[MANY];
    void *results[MANY];
    for (int round = 0; round < (int)T_SCALE(20); round++) {
        for (int i = 0; i < MANY; i++)
            tasks[i] = spawn(bodies[round % 2], i);
        T_EQ(go_gather(tasks, MANY, round % 3 ? results : NULL), 0);
        for (int i = 0; i < MANY; i++) {
            T_EQ(tasks[i], NULL);
            T_ASSERT(round % 3 == 0 || t_int(results[i]) == i);
        }
    }
}

GTest(gather, gives_the_results_in_order) {
    gather_all();
    T_EQ(go_gather(NULL, 0, NULL), 0);
    T_EQ(go_gather(NULL, 1, NULL), -EINVAL);
    T_EQ(t_stats().tasks_live, 1);
}

Test(gather, works_on_foreign_threads) {
    T_EQ(go_start(NULL), 0);
    gather_all();
    t_stop();
}

/* Each try gets some further; what was joined is not joined again. They become more patient: where
 * all is slow 5 us are over before a call has looked at its first task. */
GTest(gather, after_an_error_the_rest_is_still_there) {
    for (int round = 0; round < (int)T_SCALE(50); round++) {
        go_task *tasks[MANY];
        void *results[MANY];
        int joined = 0, r;
        for (int i = 0; i < MANY; i++) {
            tasks[i] = spawn(same_later, i);
            results[i] = &ran;
        }
        int64_t patience = 0;
        do {
            go_scope s;
            patience += 5 * GO_MICROSECOND;
            go_scope_enter(&s, go_now() + patience);
            r = go_gather(tasks, MANY, results);
            int left = go_scope_leave(&s);
            T_ASSERT(r == 0 || (r == -ETIMEDOUT && left == r), "%d %d", r, left);
            for (int i = 0; i < MANY; i++)
                T_EQ(results[i], tasks[i] ? (void *)&ran : t_ptr(i));
            for (; joined < MANY && !tasks[joined]; joined++)
                ;
            for (int i = joined; i < MANY; i++)
                T_ASSERT(tasks[i]);
            if (joined > MANY / 2 && r) { /* give up */
                for (int i = joined; i < MANY; i++)
                    T_EQ(go_task_detach(tasks[i]), 0);
                break;
            }
        } while (r != 0);
    }
    T_AWAIT(t_stats().tasks_live == 1);
}

GTest(gather, a_cancel_leaves_it) {
    go_task *tasks[3] = {spawn(same, 1), spawn(until_cancelled, 2), spawn(until_cancelled, 3)};
    void *results[3] = {0};
    go_scope s;
    T_AWAIT(rt_load_acquire(&ran) == 1);
    go_scope_enter(&s, go_now() + GO_MILLISECOND);
    T_EQ(go_gather(tasks, 3, results), -ETIMEDOUT);
    T_ASSERT(tasks[1] && tasks[2]);
    go_scope_cancel(&s);
    T_EQ(go_gather(tasks, 3, results), -ECANCELED);
    T_EQ(go_gather(NULL, 0, NULL), -ECANCELED);
    T_EQ(go_scope_leave(&s), -ECANCELED);
    for (int i = 0; i < 3; i++)
        if (tasks[i])
            T_EQ(go_task_reap(tasks[i], &results[i]), 0);
    for (int i = 0; i < 3; i++)
        T_EQ(t_int(results[i]), i + 1);
}

GTest(gather, stops_at_what_cannot_be_joined) {
    go_task *t = go_task_spawn(await_flag, &flag), *joiner = go_task_spawn(join_stubborn, t);
    go_task *tasks[3] = {spawn(same, 1), t, spawn(same, 3)};
    void *results[3];
    T_AWAIT(is_joined(t));
    T_EQ(go_gather(tasks, 3, results), -EBUSY);
    T_ASSERT(!tasks[0] && tasks[1] == t && tasks[2]);
    T_EQ(t_int(results[0]), 1);
    rt_store_release(&flag, 1);
    T_EQ(t_int(T_JOIN(joiner)), 0);
    tasks[1] = NULL;
    T_EQ(go_gather(tasks, 3, results), 0);
    T_EQ(t_int(results[2]), 3);
}
