/* go_lock_thread: a green thread with an OS thread for itself. */
#include "t_unit.h"

#include "base/sys.h"
#include "sched/retake.h"

#include <sys/socket.h>

static __thread int mine; /* what a library would keep */

static void nothing(void *arg T_UNUSED) {
}

/* ---- it stays -------------------------------------------------------------------------------- */

static go_chan *to[8], *from[8];

static void locked_echo(void *arg) {
    intptr_t me = t_int(arg), v;
    go_lock_thread();
    int tid = rt_sys_tid();
    mine = (int)me;
    while (go_chan_recv(to[me], &v) == 0) {
        T_EQ(mine, me);
        T_EQ(rt_sys_tid(), tid);
        if (v % 3 == 0)
            go_yield();
        if (v % 5 == 0)
            T_EQ(go_sleep(10 * GO_MICROSECOND), 0);
        go_checkpoint();
        v++;
        T_EQ(go_chan_send(from[me], &v), 0);
    }
    T_EQ(mine, me);
    T_EQ(rt_sys_tid(), tid);
    go_unlock_thread();
    T_EQ(go_chan_close(from[me]), 0);
}

GTest(lock_thread, it_stays_on_its_thread_whatever_it_waits_for) {
    enum { N = T_COUNT(to) };
    for (intptr_t i = 0; i < N; i++) {
        to[i] = go_chan_new(sizeof(intptr_t), 0);
        from[i] = go_chan_new(sizeof(intptr_t), 0);
        T_SPAWN(locked_echo, t_ptr(i));
    }
    for (intptr_t round = 0; round < T_SCALE(200); round++)
        for (intptr_t i = 0, v, back; i < N; i++) {
            v = round;
            T_EQ(go_chan_send(to[i], &v), 0);
            T_EQ(go_chan_recv(from[i], &back), 0);
            T_EQ(back, v + 1);
        }
    for (intptr_t i = 0, v; i < N; i++) {
        T_EQ(go_chan_close(to[i]), 0);
        T_EQ(go_chan_recv(from[i], &v), -EPIPE);
        go_chan_free(to[i]);
        go_chan_free(from[i]);
    }
}

GTest(lock_thread, locks_nest) {
    go_lock_thread();
    int tid = rt_sys_tid();
    go_lock_thread();
    go_unlock_thread();
    for (int i = 0; i < 10; i++) {
        T_EQ(go_sleep(10 * GO_MICROSECOND), 0);
        T_EQ(rt_sys_tid(), tid);
    }
    T_EQ(rt_load_relaxed(&rt_m()->away), RT_AWAY_LOCKED);
    T_ASSERT(rt_gate_is_shut(rt_m()));
    go_unlock_thread();
    /* It has a P again; one that it hogs, too, may be gone by now. */
    T_ASSERT(rt_load_relaxed(&rt_m()->away) != RT_AWAY_LOCKED);
}

/* ---- the others go on ------------------------------------------------------------------------ */

static void set(void *flag) {
    rt_store_release((uint32_t *)flag, 1);
}

GTest(lock_thread, it_holds_up_nobody) {
    static uint32_t flag;
    go_lock_thread();
    T_SPAWN(set, &flag);
    while (!rt_load_acquire(&flag)) /* outside all the time, and not even a hog */
        rt_cpu_relax();
    go_unlock_thread();
}

static void *twice(void *arg) {
    return t_ptr(2 * t_int(arg));
}

GTest(lock_thread, it_joins_and_blocks_and_reads) {
    int end[2];
    char c;
    void *result;
    go_lock_thread();
    int tid = rt_sys_tid();
    T_EQ(t_int(T_JOIN(go_task_spawn(twice, t_ptr(21)))), 42);
    T_EQ(go_blocking(twice, t_ptr(4), &result), 0);
    T_EQ(t_int(result), 8);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, end), 0);
    T_EQ(go_write(end[0], "x", 1), 1);
    T_EQ(go_read(end[1], &c, 1), 1);
    go_scope s;
    go_scope_enter(&s, go_now() + GO_MILLISECOND);
    T_EQ(go_read(end[1], &c, 1), -ETIMEDOUT);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    T_EQ(rt_sys_tid(), tid);
    T_EQ(go_close(end[0]), 0);
    T_EQ(go_close(end[1]), 0);
    go_unlock_thread();
}

/* Its context is not saved when it sleeps on its thread: who fires an entry from before the lock,
 * and he most often looks for work just then, must not run it. The entry and the thread's own sleep
 * are for the same moment, so whoever comes first is chance. */
static void *sleep_on_an_old_timer(void *arg) {
    for (uint32_t i = 0; i < T_SCALE(20); i++) {
        int64_t when = go_now() + 2 * GO_MILLISECOND;
        go_sem never = {0};
        go_scope s;
        go_scope_enter(&s, when);
        go_task *t = go_task_spawn(twice, arg);
        if (go_task_join(t, NULL) != 0) /* else its end came first, and the entry stays */
            T_EQ(go_task_reap(t, NULL), 0);
        go_lock_thread();
        int tid = rt_sys_tid();
        T_EQ(go_sem_acquire(&never), -ETIMEDOUT);
        T_EQ(rt_sys_tid(), tid);
        T_EQ(go_scope_leave(&s), -ETIMEDOUT);
        go_unlock_thread();
    }
    return arg;
}

GTest(lock_thread, an_entry_from_before_wakes_it_and_no_more) {
    go_task *t[8];
    for (size_t i = 0; i < T_COUNT(t); i++)
        T_ASSERT((t[i] = go_task_spawn(sleep_on_an_old_timer, t_ptr((intptr_t)i))) != NULL);
    for (size_t i = 0; i < T_COUNT(t); i++)
        T_EQ(t_int(T_JOIN(t[i])), (intptr_t)i);
}

/* ---- ends ------------------------------------------------------------------------------------ */

static void *lock_and_end(void *arg) {
    go_lock_thread();
    return arg;
}

GTest(lock_thread, who_ends_is_unlocked) {
    for (intptr_t i = 0; i < 20; i++)
        T_EQ(t_int(T_JOIN(go_task_spawn(lock_and_end, t_ptr(i)))), i);
    T_SPAWN(nothing, NULL);
}

static uint32_t waiting;

static void wait_locked(void *arg) {
    go_lock_thread();
    rt_fetch_add(&waiting, 1);
    T_EQ(go_chan_recv(arg, NULL), -ECANCELED);
}

Test(lock_thread, a_stop_reaches_it) {
    enum { N = 5 };
    for (int i = 0; i < 5; i++) {
        go_chan *c = go_chan_new(0, 0);
        rt_store_relaxed(&waiting, 0);
        T_EQ(go_start(NULL), 0);
        for (int k = 0; k < N; k++)
            T_SPAWN(wait_locked, c);
        T_AWAIT(rt_load_acquire(&waiting) == N);
        t_stop();
        go_chan_free(c);
    }
}

/* ---- limits and misuse ----------------------------------------------------------------------- */

static uint32_t done;

static void lock_briefly(void *arg T_UNUSED) {
    go_lock_thread();
    go_yield();
    go_unlock_thread();
    rt_fetch_add(&done, 1);
}

/* There is one thread more, and they take turns. */
Test(lock_thread, without_a_thread_it_waits_for_one) {
    struct go_options o = GO_OPTIONS_INIT;
    o.procs = 2;
    o.max_threads = 4;
    T_EQ(go_start(&o), 0);
    for (int i = 0; i < 10; i++)
        T_SPAWN(lock_briefly, NULL);
    T_AWAIT(rt_load_acquire(&done) == 10);
    T_ASSERT(t_stats().threads <= 4);
    t_stop();
}

Test(lock_thread, a_strict_runtime_has_it_too) {
    t_start_strict(2);
    rt_store_relaxed(&done, 0);
    for (int i = 0; i < 4; i++)
        T_SPAWN(lock_briefly, NULL);
    T_AWAIT(rt_load_acquire(&done) == 4);
    t_stop();
}

Test(lock_thread, on_other_threads_it_does_nothing) {
    go_lock_thread();
    go_unlock_thread();
    go_unlock_thread();
}

static void unlock(void *arg T_UNUSED) {
    go_unlock_thread();
}

Test(lock_thread, an_unlock_without_a_lock_aborts) {
    T_DIES(SIGABRT, "go_unlock_thread", go_run(unlock, NULL));
}
