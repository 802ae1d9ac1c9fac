/* local.c: each green thread and each thread has its own values, and they end with it. */
#include "t_unit.h"

#include "base/fault.h"
#include "sched/sched.h"

static go_local plain, counted, again, chained, parking;
static uint32_t destroyed, rounds, chain, parked;

static void destroy(void *value) {
    T_ASSERT(go_local_get(counted) == NULL); /* it is NULL by the time */
    rt_fetch_add(&destroyed, (uint32_t)t_int(value));
}

static void set_again(void *value) {
    rt_fetch_add(&rounds, 1);
    T_EQ(go_local_set(again, value), 0);
}

static void set_counted(void *value) {
    rt_fetch_add(&chain, 1);
    T_EQ(go_local_set(counted, value), 0);
}

/* Whose end it is may be asked; and it may wait. */
static void park(void *value) {
    uint64_t id = go_id();
    T_EQ(t_int(value), (intptr_t)id);
    go_sleep(50 * GO_MICROSECOND);
    go_yield();
    T_EQ(go_id(), id);
    rt_fetch_add(&parked, 1);
}

static void make_locals(void) {
    T_ASSERT(plain = go_local_new(NULL));
    T_ASSERT(counted = go_local_new(destroy));
    T_ASSERT(again = go_local_new(set_again));
    T_ASSERT(chained = go_local_new(set_counted));
    T_ASSERT(parking = go_local_new(park));
    destroyed = rounds = chain = parked = 0;
}

static void *own_values(void *arg) {
    T_EQ(go_local_get(plain), NULL);
    T_EQ(go_local_get(counted), NULL);
    T_EQ(go_local_set(counted, NULL), 0); /* needs no room */
    T_EQ(go_local_set(plain, arg), 0);
    T_EQ(go_local_set(counted, t_ptr(1)), 0);
    for (int i = 0; i < 10; i++) {
        go_sleep((t_int(arg) % 5) * 10 * GO_MICROSECOND); /* and so to other threads */
        T_ASSERT(go_local_get(plain) == arg);
        T_EQ(go_local_get(counted), t_ptr(1));
    }
    T_EQ(go_local_set(plain, &destroyed), 0);
    T_ASSERT(go_local_get(plain) == &destroyed);
    return arg;
}

static void own_values_green(void *arg) {
    own_values(arg);
}

static int own_values_child(void *arg) {
    own_values(arg);
    return 0;
}

/* ---- values ---------------------------------------------------------------------------------- */

GTest(local, each_green_thread_has_its_own) {
    enum { MANY = 300 };
    make_locals();
    T_EQ(go_local_set(plain, &chain), 0);
    T_EQ(go_local_set(counted, &rounds), 0);
    for (intptr_t i = 1; i <= MANY; i++)
        T_SPAWN(own_values_green, t_ptr(i));
    T_AWAIT(t_stats().tasks_live == 1);
    T_EQ(destroyed, MANY);
    T_ASSERT(go_local_get(plain) == &chain);
    T_ASSERT(go_local_get(counted) == &rounds);
    T_EQ(go_local_set(counted, NULL), 0);
}

GTest(local, the_next_green_thread_finds_nothing_left) {
    make_locals();
    for (intptr_t i = 1; i <= 2000; i++)
        T_EQ(t_int(T_JOIN(go_task_spawn(own_values, t_ptr(5 * i)))), 5 * i);
    T_EQ(destroyed, 2000);
}

GTest(local, whatever_was_not_made_has_no_value) {
    T_EQ(go_local_get(NULL), NULL);
    T_EQ(go_local_get((go_local)t_ptr(1)), NULL);
    T_EQ(go_local_get((go_local)t_ptr(-1)), NULL);
    T_EQ(go_local_set(NULL, &chain), -EINVAL);
    T_EQ(go_local_set((go_local)t_ptr(1), &chain), -EINVAL);
    T_EQ(go_local_set((go_local)t_ptr(-1), &chain), -EINVAL);
    make_locals();
    T_EQ(go_local_set((go_local)t_ptr(GO_LOCAL_MAX), &chain), -EINVAL);
    T_EQ(go_local_set(plain, &chain), 0);
    T_EQ(go_local_set(NULL, &chain), -EINVAL); /* also with room for it */
    T_EQ(go_local_get(NULL), NULL);
}

GTest(local, there_are_so_many_and_no_more) {
    static go_local all[GO_LOCAL_MAX];
    for (int i = 0; i < GO_LOCAL_MAX; i++)
        T_ASSERT(all[i] = go_local_new(i % 3 ? NULL : destroy));
    T_EQ(go_local_new(NULL), NULL);
    T_EQ(go_local_new(destroy), NULL);
    counted = all[0];
    for (int i = GO_LOCAL_MAX; i-- > 0;)
        T_EQ(go_local_set(all[i], &all[i]), 0);
    for (int i = 0; i < GO_LOCAL_MAX; i++) {
        T_ASSERT(go_local_get(all[i]) == &all[i]);
        T_EQ(go_local_set(all[i], NULL), 0);
    }
}

/* ---- the end --------------------------------------------------------------------------------- */

GTest(local, destructors_run_before_a_join_a_reap_or_a_wait_returns) {
    make_locals();
    for (uint32_t i = 1; i <= 50; i++) {
        go_group g;
        T_JOIN(go_task_spawn(own_values, t_ptr(i)));
        T_EQ(rt_load_relaxed(&destroyed), 5 * i - 4);
        go_scope s; /* the join does not run it in place */
        go_scope_enter(&s, GO_FOREVER);
        T_JOIN(go_task_spawn(own_values, t_ptr(i)));
        T_EQ(go_scope_leave(&s), 0);
        T_EQ(rt_load_relaxed(&destroyed), 5 * i - 3);
        T_EQ(go_task_reap(go_task_spawn(own_values, t_ptr(i)), NULL), 0);
        T_EQ(rt_load_relaxed(&destroyed), 5 * i - 2);
        go_group_enter(&g, GO_FOREVER);
        T_EQ(go_group_spawn(&g, own_values_child, t_ptr(i)), 0);
        T_EQ(go_group_spawn(&g, own_values_child, t_ptr(i)), 0);
        T_EQ(go_group_wait(&g), 0);
        T_EQ(rt_load_relaxed(&destroyed), 5 * i);
    }
}

static void *set_all(void *arg) {
    T_EQ(go_local_set(again, arg), 0);
    T_EQ(go_local_set(chained, t_ptr(7)), 0);
    T_EQ(go_local_set(parking, t_ptr((intptr_t)go_id())), 0);
    return arg;
}

GTest(local, destructors_may_park_and_set_in_four_rounds) {
    make_locals();
    for (uint32_t i = 1; i <= 100; i++) {
        T_JOIN(go_task_spawn(set_all, t_ptr(3)));
        T_EQ(rounds, 4 * i); /* which sets itself again each time */
        T_EQ(chain, i);
        T_EQ(destroyed, 7 * i); /* by the second round */
        T_EQ(parked, i);
    }
}

static void sleep_refused(void *result) {
    *(int *)result = go_sleep(GO_FOREVER);
}

static go_local refused;

static int fail(void *arg) {
    int r = go_sleep(GO_FOREVER);
    T_EQ(go_local_set(refused, arg), 0);
    return r;
}

/* They run inside the group, as the child did. */
GTest(local, destructors_of_a_child_are_cancelled_with_its_group) {
    go_group g;
    int r = 0;
    T_ASSERT(refused = go_local_new(sleep_refused));
    go_group_enter(&g, GO_FOREVER);
    T_EQ(go_group_spawn(&g, fail, &r), 0);
    go_group_cancel(&g);
    T_EQ(go_group_wait(&g), -ECANCELED);
    T_EQ(r, -ECANCELED);
}

static void end_late(void *arg) {
    T_EQ(go_sleep(GO_FOREVER), -ECANCELED);
    T_EQ(go_local_set(parking, t_ptr((intptr_t)go_id())), 0);
    T_EQ(go_local_set(counted, arg), 0);
}

Test(local, destructors_run_during_a_stop) {
    make_locals();
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < 50; i++)
        T_SPAWN(end_late, t_ptr(1));
    t_stop();
    T_EQ(destroyed, 50);
    T_EQ(parked, 50);
}

/* ---- foreign threads ------------------------------------------------------------------------- */

static void *thread(void *arg) {
    own_values(t_ptr(t_int(arg) + 1));
    T_EQ(go_local_set(chained, t_ptr(1)), 0);
    T_EQ(go_local_set(parking, NULL), 0);
    T_EQ(go_local_set(again, t_ptr(1)), 0);
    return NULL;
}

static void threads_end(void) {
    uint32_t before = destroyed;
    t_threads(4, thread);
    T_EQ(destroyed, before + 8); /* once by itself, once through the chain */
}

Test(local, threads_have_them_too_with_and_without_a_runtime) {
    make_locals();
    threads_end();
    T_EQ(go_start(NULL), 0);
    threads_end();
    t_stop();
    threads_end();
    T_ASSERT(rounds >= 12 * 4);
    T_EQ(go_local_set(plain, &chain), 0);
    T_ASSERT(go_local_get(plain) == &chain);
}

/* ---- out of memory --------------------------------------------------------------------------- */

static void without_memory(void) {
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM);
    int r = go_local_set(plain, &chain);
    int nothing = go_local_set(plain, NULL);
    rt_fault_disarm();
    T_EQ(r, -ENOMEM);
    T_EQ(nothing, 0);
    T_EQ(go_local_get(plain), NULL);
    T_EQ(go_local_set(plain, &chain), 0);
    T_ASSERT(go_local_get(plain) == &chain);
    go_local far = NULL;
    for (int i = 0; i < 40; i++)
        T_ASSERT(far = go_local_new(destroy));
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM);
    r = go_local_set(far, &chain); /* it has to grow */
    rt_fault_disarm();
    T_EQ(r, -ENOMEM);
    T_EQ(go_local_get(far), NULL);
    T_ASSERT(go_local_get(plain) == &chain);
    T_EQ(go_local_set(plain, NULL), 0);
}

static void *without_memory_task(void *arg) {
    without_memory();
    return arg;
}

Test(local, a_set_without_memory_changes_nothing) {
    make_locals();
    t_start(2);
    T_JOIN(go_task_spawn(without_memory_task, NULL));
    t_stop();
    without_memory();
    T_EQ(destroyed, 0);
}
