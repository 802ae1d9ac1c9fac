/* group.c: nothing outlives its group, and what befalls the group befalls its children. */
#include "t_unit.h"

#include "sched/sched.h"
#include "sched/start.h"

static uint32_t ran;

static int count(void *arg) {
    rt_fetch_add(&ran, 1);
    return (int)t_int(arg);
}

static int until_refused(void *arg) {
    int r = go_sleep(GO_FOREVER);
    T_EQ(go_sleep(GO_SECOND), r); /* and so it stays */
    T_EQ(go_canceled(), r);
    rt_fetch_add(&ran, 1);
    return arg ? r : 0;
}

static void spawn(go_group *g, int n, int (*fn)(void *), void *arg) {
    for (int i = 0; i < n; i++)
        T_EQ(go_group_spawn(g, fn, arg), 0);
}

/* ---- results --------------------------------------------------------------------------------- */

GTest(group, waits_for_every_child) {
    go_group g;
    for (int n = 0; n < 100; n++) {
        ran = 0;
        go_group_enter(&g, GO_FOREVER);
        spawn(&g, n, count, NULL);
        T_EQ(go_group_wait(&g), 0);
        T_EQ(ran, n);
        T_EQ(t_stats().tasks_live, 1); /* they have ended in every respect */
    }
}

static int slow_zero(void *arg T_UNUSED) {
    T_EQ(go_sleep(300 * GO_MICROSECOND), 0);
    rt_fetch_add(&ran, 1);
    return 0;
}

GTest(group, waits_for_children_that_wait) {
    go_group g;
    go_group_enter(&g, GO_FOREVER);
    spawn(&g, 50, slow_zero, NULL);
    T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
    spawn(&g, 50, slow_zero, NULL);
    T_EQ(go_group_wait(&g), 0);
    T_EQ(ran, 100);
}

GTest(group, the_first_error_cancels_the_others_and_is_the_result) {
    static const int errors[] = {7, -5, INT32_MAX, INT32_MIN, -ECANCELED};
    for (size_t i = 0; i < T_COUNT(errors); i++) {
        go_group g;
        ran = 0;
        go_group_enter(&g, GO_FOREVER);
        spawn(&g, 20, until_refused, t_ptr(1)); /* these return -ECANCELED, but later */
        spawn(&g, 1, count, t_ptr(errors[i]));
        spawn(&g, 20, until_refused, t_ptr(1));
        T_EQ(go_sleep(GO_FOREVER), -ECANCELED); /* the owner is inside, too */
        T_EQ(go_group_wait(&g), errors[i]);
        T_EQ(ran, 41);
        T_EQ(go_canceled(), 0);
    }
}

GTest(group, children_that_are_refused_and_return_0_leave_what_befell_the_group) {
    go_group g;
    go_group_enter(&g, GO_FOREVER);
    spawn(&g, 10, until_refused, NULL);
    go_group_cancel(&g);
    T_EQ(go_group_wait(&g), -ECANCELED);
    go_group_enter(&g, go_now() + GO_MILLISECOND);
    spawn(&g, 10, until_refused, NULL);
    T_EQ(go_group_wait(&g), -ETIMEDOUT);
    T_EQ(ran, 20);
    T_EQ(go_canceled(), 0);
}

GTest(group, a_deadline_that_refused_nobody_is_not_reported) {
    go_group g;
    go_group_enter(&g, go_now() + 200 * GO_MICROSECOND);
    spawn(&g, 5, count, NULL);
    while (go_now() < g.rt_scope.rt_deadline)
        rt_cpu_relax();
    T_EQ(go_group_wait(&g), 0);
    go_group_enter(&g, go_now()); /* nor are the children: they do not ask */
    spawn(&g, 5, count, NULL);
    T_EQ(go_group_wait(&g), 0);
    T_EQ(ran, 10);
}

static int see(void *arg) {
    T_EQ(go_canceled(), t_int(arg));
    return count(NULL);
}

GTest(group, in_a_cancelled_or_late_group_children_start_and_are_refused) {
    go_group g;
    go_group_enter(&g, GO_FOREVER);
    go_group_cancel(&g);
    go_group_cancel(&g);
    spawn(&g, 100, see, t_ptr(-ECANCELED));
    T_EQ(go_group_wait(&g), -ECANCELED);
    go_group_enter(&g, go_now());
    spawn(&g, 100, see, t_ptr(-ETIMEDOUT));
    T_EQ(go_group_wait(&g), -ETIMEDOUT);
    T_EQ(ran, 200);
}

/* ---- what comes from outside ----------------------------------------------------------------- */

GTest(group, an_outer_deadline_reaches_children_and_is_the_outer_ones) {
    go_scope outer;
    go_group g, inner;
    go_scope_enter(&outer, go_now() + GO_MILLISECOND);
    go_group_enter(&g, GO_FOREVER);
    go_group_enter(&inner, go_now() + T_NEVER);
    spawn(&inner, 10, until_refused, NULL);
    T_EQ(go_group_wait(&inner), 0); /* not late itself */
    T_EQ(go_group_wait(&g), 0);
    T_EQ(go_scope_leave(&outer), -ETIMEDOUT); /* the children's calls were inside it, too */
    T_EQ(ran, 10);
}

GTest(group, an_outer_cancel_reaches_children_through_the_wait) {
    go_scope outer;
    go_group g;
    go_scope_enter(&outer, GO_FOREVER);
    go_group_enter(&g, GO_FOREVER);
    spawn(&g, 10, until_refused, NULL);
    T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
    go_scope_cancel(&outer);
    T_EQ(go_group_wait(&g), 0); /* the group itself was not cancelled */
    T_EQ(go_canceled(), -ECANCELED);
    go_group_enter(&g, GO_FOREVER); /* born inside a cancelled scope */
    spawn(&g, 10, see, t_ptr(-ECANCELED));
    T_EQ(go_group_wait(&g), 0);
    T_EQ(go_scope_leave(&outer), -ECANCELED);
    T_EQ(go_canceled(), 0);
    T_EQ(ran, 20);
}

GTest(group, a_shield_around_it_shields_its_children) {
    go_scope outer, shield;
    go_group g;
    go_scope_enter(&outer, go_now());
    go_scope_cancel(&outer);
    go_scope_enter_shielded(&shield, GO_FOREVER);
    go_group_enter(&g, GO_FOREVER);
    spawn(&g, 10, slow_zero, NULL);
    T_EQ(go_group_wait(&g), 0);
    go_group_enter(&g, go_now() + GO_MILLISECOND);
    spawn(&g, 10, until_refused, NULL);
    T_EQ(go_group_wait(&g), -ETIMEDOUT);
    go_group_enter(&g, GO_FOREVER);
    spawn(&g, 10, until_refused, NULL);
    go_group_cancel(&g); /* inside the shield */
    spawn(&g, 10, until_refused, NULL);
    T_EQ(go_group_wait(&g), -ECANCELED);
    T_EQ(go_scope_leave(&shield), 0);
    T_EQ(go_scope_leave(&outer), -ECANCELED);
    T_EQ(ran, 40);
}

static int shielded_child(void *arg) {
    go_scope own, shield;
    go_scope_enter(&own, GO_FOREVER);
    go_scope_enter_shielded(&shield, GO_FOREVER);
    T_EQ(go_chan_recv(arg, NULL), 0); /* cancelled already, perhaps */
    T_EQ(go_scope_leave(&shield), 0);
    T_EQ(go_sleep(GO_FOREVER), -ECANCELED);
    go_scope_cancel(&own);
    T_EQ(go_scope_leave(&own), -ECANCELED);
    T_EQ(go_canceled(), -ECANCELED); /* for the group's sake */
    return count(NULL);
}

GTest(group, children_may_shield_themselves_from_it) {
    enum { MANY = 50 };
    go_chan *c = go_chan_new(0, 0);
    go_group g;
    for (int round = 0; round < 2; round++) {
        go_group_enter(&g, GO_FOREVER);
        if (round)
            go_group_cancel(&g);
        spawn(&g, MANY, shielded_child, c);
        go_yield();
        go_group_cancel(&g);
        go_scope shield;
        go_scope_enter_shielded(&shield, GO_FOREVER);
        for (int i = 0; i < MANY; i++)
            T_EQ(go_chan_send(c, NULL), 0);
        T_EQ(go_scope_leave(&shield), 0);
        T_EQ(go_group_wait(&g), -ECANCELED);
    }
    T_EQ(ran, 2 * MANY);
    go_chan_free(c);
}

/* A child in which an own scope was cancelled forgets that one, and only that one. */
static int own_cancel(void *arg) {
    go_scope own;
    go_scope_enter(&own, GO_FOREVER);
    go_scope_cancel(&own);
    T_EQ(go_sleep(1), -ECANCELED);
    T_EQ(go_scope_leave(&own), -ECANCELED);
    T_EQ(go_canceled(), t_int(arg));
    return count(NULL);
}

GTest(group, a_childs_own_cancel_is_its_own) {
    go_scope outer;
    go_group g;
    go_group_enter(&g, GO_FOREVER);
    spawn(&g, 10, own_cancel, t_ptr(0));
    T_EQ(go_group_wait(&g), 0);
    go_scope_enter(&outer, GO_FOREVER);
    go_scope_cancel(&outer);
    go_group_enter(&g, GO_FOREVER);
    spawn(&g, 10, own_cancel, t_ptr(-ECANCELED));
    T_EQ(go_group_wait(&g), 0);
    T_EQ(go_scope_leave(&outer), -ECANCELED);
    T_EQ(ran, 20);
}

/* ---- who waits, who spawns ------------------------------------------------------------------- */

static struct {
    go_group *group;
    go_chan *gate;
    uint32_t stop;
} shared;

static int stubborn(void *arg T_UNUSED) {
    while (!rt_load_acquire(&shared.stop)) /* heeds no cancel */
        go_yield();
    return count(NULL);
}

static void *cancelled_owner(void *arg T_UNUSED) {
    go_group g;
    go_group_enter(&g, GO_FOREVER);
    spawn(&g, 5, stubborn, NULL);
    spawn(&g, 5, until_refused, NULL);
    int r = go_group_wait(&g);
    T_EQ(rt_load_acquire(&ran), 10);
    T_EQ(go_canceled(), -ECANCELED);
    return t_ptr(r);
}

GTest(group, a_cancelled_owner_waits_all_the_same) {
    for (int i = 0; i < (int)T_SCALE(200); i++) {
        ran = shared.stop = 0;
        go_task *t = go_task_spawn(cancelled_owner, NULL);
        for (int k = 0; k < i % 4; k++)
            go_yield();
        T_EQ(go_task_cancel(t), 0);
        T_AWAIT(rt_load_acquire(&ran) == 5); /* it has been passed on */
        rt_store_release(&shared.stop, 1);
        T_EQ(t_int(T_JOIN(t)), 0);
    }
}

static int spawn_two(void *left) {
    rt_fetch_add(&ran, 1);
    if (left)
        for (int i = 0; i < 2; i++)
            T_EQ(go_group_spawn(shared.group, spawn_two, t_ptr(t_int(left) - 1)), 0);
    if (t_int(left) % 3 == 1)
        go_yield();
    return 0;
}

GTest(group, children_spawn_into_their_own_group) {
    enum { DEPTH = 8 };
    go_group g;
    shared.group = &g;
    for (int i = 0; i < (int)T_SCALE(100); i++) {
        ran = 0;
        go_group_enter(&g, GO_FOREVER);
        spawn(&g, 1, spawn_two, t_ptr(DEPTH));
        T_EQ(go_group_wait(&g), 0);
        T_EQ(ran, (2 << DEPTH) - 1);
    }
}

static void *spawn_from_thread(void *arg T_UNUSED) {
    for (int i = 0; i < 500; i++)
        T_EQ(go_group_spawn(shared.group, count, NULL), 0);
    T_EQ(go_chan_send(shared.gate, NULL), 0);
    return NULL;
}

static int keep_open(void *arg T_UNUSED) {
    for (int i = 0; i < 4; i++)
        T_EQ(go_chan_recv(shared.gate, NULL), 0);
    return 0;
}

/* The owner is a foreign thread as well. */
Test(group, any_thread_may_own_one_and_spawn_into_it) {
    pthread_t threads[4];
    go_group g;
    shared.group = &g;
    shared.gate = go_chan_new(0, 4);
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < 3; i++) {
        ran = 0;
        go_group_enter(&g, GO_FOREVER);
        spawn(&g, 1, keep_open, NULL);
        t_start_threads(threads, 4, spawn_from_thread);
        T_EQ(go_group_wait(&g), 0);
        T_EQ(ran, 2000);
        t_join_threads(threads, 4);
    }
    t_stop();
    go_chan_free(shared.gate);
}

Test(group, a_foreign_owner_is_cancelled_and_late_like_any) {
    go_scope outer;
    go_group g;
    T_EQ(go_start(NULL), 0);
    go_group_enter(&g, GO_FOREVER);
    spawn(&g, 10, until_refused, t_ptr(1));
    spawn(&g, 1, count, t_ptr(3));
    T_EQ(go_sleep(GO_FOREVER), -ECANCELED);
    T_EQ(go_group_wait(&g), 3);
    go_scope_enter(&outer, go_now() + GO_MILLISECOND);
    go_group_enter(&g, GO_FOREVER);
    spawn(&g, 10, until_refused, NULL);
    T_EQ(go_group_wait(&g), 0);
    T_EQ(go_scope_leave(&outer), -ETIMEDOUT);
    go_scope_enter(&outer, GO_FOREVER);
    go_group_enter(&g, GO_FOREVER);
    spawn(&g, 10, until_refused, t_ptr(1));
    go_scope_cancel(&outer);
    T_EQ(go_group_wait(&g), -ECANCELED);
    T_EQ(go_scope_leave(&outer), -ECANCELED);
    T_EQ(ran, 31);
    t_stop();
}

Test(group, without_a_runtime_it_has_no_children) {
    for (int i = 0; i < 2; i++) {
        go_group g;
        go_group_enter(&g, go_now());
        T_EQ(go_group_spawn(&g, count, NULL), -ENXIO);
        T_EQ(go_group_spawn_with(&g, NULL, NULL, NULL), -EINVAL);
        T_EQ(go_sleep(1), -ETIMEDOUT);
        go_group_cancel(&g);
        T_EQ(go_sleep(1), -ECANCELED);
        T_EQ(go_group_wait(&g), -ECANCELED);
        t_start_strict(1);
        t_stop();
    }
}

/* ---- spawns that fail ------------------------------------------------------------------------ */

static void at_the_limit(void *arg) {
    int max = (int)t_int(arg) - 1; /* one is the owner */
    for (int i = 0; i < (int)T_SCALE(300); i++) {
        go_group g;
        go_group_enter(&g, GO_FOREVER);
        for (int k = 0; k < max; k++) /* each round anew: the records are free by the wait */
            T_ASSERT(go_group_spawn(&g, count, NULL) == 0, "child %d of round %d", k, i);
        T_EQ(go_group_wait(&g), 0);
    }
    go_group g;
    go_group_enter(&g, GO_FOREVER);
    spawn(&g, max, until_refused, t_ptr(1));
    T_EQ(go_group_spawn(&g, count, NULL), -EAGAIN);
    T_EQ(go_group_spawn(&g, NULL, NULL), -EINVAL);
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    o.stack_size = 1;
    T_EQ(go_group_spawn_with(&g, &o, count, NULL), -EINVAL);
    go_group_cancel(&g);
    T_EQ(go_group_wait(&g), -ECANCELED);
    rt_store_release(&shared.stop, 1);
}

Test(group, at_a_limit_it_refuses_and_a_finished_one_leaves_room) {
    for (unsigned max = 2; max <= 40; max += 19) {
        struct go_options o = GO_OPTIONS_INIT;
        o.max_tasks = max;
        T_EQ(go_start(&o), 0);
        shared.stop = 0;
        T_SPAWN(at_the_limit, t_ptr(max));
        T_AWAIT(rt_load_acquire(&shared.stop));
        t_stop();
    }
}

static int name_and_stack(void *arg T_UNUSED) {
    volatile char deep[600 * 1024];
    deep[0] = deep[sizeof deep - 1] = 1;
    T_STR_EQ(rt_self()->name, "child");
    return deep[0] + deep[sizeof deep - 1];
}

GTest(group, children_take_options) {
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    o.name = "child";
    o.stack_size = 1 << 20;
    go_group g;
    go_group_enter(&g, GO_FOREVER);
    T_EQ(go_group_spawn_with(&g, &o, name_and_stack, NULL), 0);
    T_EQ(go_group_wait(&g), 2);
}

/* ---- misuse ---------------------------------------------------------------------------------- */

static go_group misused;
static go_scope left_open;

static int child_waits(void *arg T_UNUSED) {
    return go_group_wait(&misused);
}
static int child_ends_inside(void *arg T_UNUSED) {
    go_scope_enter(&left_open, GO_FOREVER);
    return 0;
}
static void wait_as_child(void *arg T_UNUSED) {
    go_group_enter(&misused, GO_FOREVER);
    spawn(&misused, 1, child_waits, NULL);
    go_group_wait(&misused);
}
static void end_as_child(void *arg T_UNUSED) {
    go_group_enter(&misused, GO_FOREVER);
    spawn(&misused, 1, child_ends_inside, NULL);
    go_group_wait(&misused);
}
static void wait_inside_a_scope(void *arg T_UNUSED) {
    go_group_enter(&misused, GO_FOREVER);
    go_scope_enter(&left_open, GO_FOREVER);
    go_group_wait(&misused);
}
static void end_without_wait(void *arg T_UNUSED) {
    go_group_enter(&misused, GO_FOREVER);
}
static void leave_as_scope(void *arg T_UNUSED) {
    go_group_enter(&misused, GO_FOREVER);
    go_scope_leave(&misused.rt_scope);
}
static void wait_twice(void *arg T_UNUSED) {
    go_group_enter(&misused, GO_FOREVER);
    go_group_wait(&misused);
    go_group_wait(&misused);
}

Test(group, misuse_is_told_and_aborts) {
    T_DIES(SIGABRT, "gort: go_group_spawn: the group is not entered",
           go_group_spawn(&misused, count, NULL));
    T_DIES(SIGABRT, "gort: go_group_cancel: the group is not entered", go_group_cancel(&misused));
    T_DIES(SIGABRT, "gort: go_group_wait: the group is not entered", wait_twice(NULL));
    T_DIES(SIGABRT, "gort: go_group_wait: not the innermost scope", wait_inside_a_scope(NULL));
    T_DIES(SIGABRT, "gort: go_scope_leave", leave_as_scope(NULL));
    T_DIES(SIGABRT, "gort: go_group_wait: not the innermost", go_run(wait_as_child, NULL));
    T_DIES(SIGABRT, "a group ended inside a scope", go_run(end_as_child, NULL));
    T_DIES(SIGABRT, "ended inside a scope", go_run(end_without_wait, NULL));
}
