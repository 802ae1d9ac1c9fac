/* Code of a user compiled with -fsanitize-coverage=trace-pc gives way in each of its loops, where
 * it may, and code compiled without it does not. GO_STRICT everywhere: no P is taken from a hog. */
#include "unit/t_unit.h"

#include "embed/loops.h"
#include "sched/gate.h"

static go_waitgroup home;
static uint32_t stop, others;

static void on_procs(unsigned procs, void (*fn)(void *), void *arg) {
    t_start_strict(procs);
    T_EQ(go_waitgroup_spawn(&home, fn, arg), 0);
    T_EQ(go_waitgroup_wait(&home), 0);
    t_stop();
}

static void other(void *arg T_UNUSED) {
    rt_fetch_add(&others, 1);
    rt_store_release(&stop, 1);
}

/* The end of its slice, seen by the caller's P. */
static const uint32_t *attention(void) {
    return &rt_load_relaxed(&rt_m()->p)->attention;
}

/* ---- it gives way ---------------------------------------------------------------------------- */

static uint32_t laps[2];

static void take_turns(void *arg) {
    int me = (int)t_int(arg);
    for (int turns = 0; turns < 5; turns++) {
        uint32_t bit = 1u << turns;
        rt_fetch_or(&laps[me], bit);
        checked_until(&laps[1 - me], bit);
    }
}

static void two_hogs(void *arg T_UNUSED) {
    for (int i = 0; i < 2; i++)
        T_EQ(go_waitgroup_spawn(&home, take_turns, t_ptr(i)), 0);
}

Test(checkpoints, two_that_compute_take_turns_on_one_p) {
    on_procs(1, two_hogs, NULL);
}

static void each_kind(void *arg T_UNUSED) {
    for (unsigned kind = 0; kind < CHECKED_KINDS; kind++) {
        rt_store_relaxed(&stop, 0);
        T_SPAWN(other, NULL);
        checked_kind(kind, &stop);
    }
}

Test(checkpoints, each_kind_of_loop_gives_way) {
    on_procs(1, each_kind, NULL);
    T_EQ(others, CHECKED_KINDS);
}

static void plain_hog(void *arg T_UNUSED) {
    T_SPAWN(other, NULL);
    plain_until(attention(), RT_P_PREEMPT);
    plain_spin(1000);
    T_EQ(rt_load_relaxed(&others), 0);
    checked_spin(1);
    T_EQ(rt_load_relaxed(&others), 1);
}

Test(checkpoints, without_the_flag_it_does_not) {
    on_procs(1, plain_hog, NULL);
}

/* ---- errno ----------------------------------------------------------------------------------- */

static __attribute__((noinline)) void set_errno(int value) {
    __asm__ __volatile__("");
    errno = value;
}
static __attribute__((noinline)) int get_errno(void) {
    __asm__ __volatile__("");
    return errno;
}

static uint32_t here;

static void has_an_errno(void *arg) {
    int mine = (int)t_int(arg) + 1000;
    rt_fetch_or(&here, 1u << t_int(arg));
    for (int i = 0; i < 3; i++) {
        set_errno(mine);
        for (uint32_t n = 0; n < 6; n++)
            checked_until(&here, 1u << n);
        plain_until(attention(), RT_P_PREEMPT);
        checked_spin(100);
        T_EQ(get_errno(), mine);
    }
}

static void six(void *arg T_UNUSED) {
    for (int i = 0; i < 6; i++)
        T_EQ(go_waitgroup_spawn(&home, has_an_errno, t_ptr(i)), 0);
}

Test(checkpoints, errno_goes_along) {
    on_procs(2, six, NULL);
}

/* ---- where it must not ----------------------------------------------------------------------- */

/* Over the end of the slice. The other one must not run meanwhile, but after it. */
static void does_not(void (*fn)(void)) {
    T_SPAWN(other, NULL);
    uint32_t before = rt_load_relaxed(&others);
    fn();
    T_EQ(rt_load_relaxed(&others), before);
    checked_until(attention(), RT_P_PREEMPT);
    checked_spin(100);
    T_EQ(rt_load_relaxed(&others), before + 1);
}

static void over_the_end_of_the_slice(void) {
    checked_until(attention(), RT_P_PREEMPT);
    checked_spin(1000);
}

static void in_nopreempt(void) {
    go_nopreempt_begin();
    over_the_end_of_the_slice();
    go_nopreempt_end();
}

/* As in a malloc of the user's that gort calls. */
static void inside(void) {
    T_ASSERT(rt_gate_enter(rt_m()));
    over_the_end_of_the_slice();
    rt_gate_leave(rt_m());
}

static void handler(int sig T_UNUSED) {
    over_the_end_of_the_slice();
}

static void in_a_handler(void) {
    struct sigaction act = {.sa_handler = handler, .sa_flags = SA_ONSTACK}, old;
    T_EQ(sigaction(SIGTRAP, &act, &old), 0);
    T_EQ(raise(SIGTRAP), 0);
    T_EQ(sigaction(SIGTRAP, &old, NULL), 0);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
static T_UNUSED void after_vfork(void) {
    int status;
    pid_t pid = vfork();
    if (pid == 0) {
        over_the_end_of_the_slice();
        _exit(0);
    }
    T_EQ(waitpid(pid, &status, 0), pid);
    T_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
}
#pragma GCC diagnostic pop

static void (*const must_not[])(void) = {
    in_nopreempt,
    inside,
    in_a_handler,
#ifndef T_TSAN /* which makes a fork of it */
    after_vfork,
#endif
};

static void try_one(void *arg) {
    does_not(must_not[t_int(arg)]);
}

static void try_all(void) {
    for (size_t i = 0; i < T_COUNT(must_not); i++)
        on_procs(1, try_one, t_ptr((intptr_t)i));
}

Test(checkpoints, none_in_nopreempt_inside_the_runtime_in_handlers_and_after_vfork) {
    try_all();
}

/* ---- other threads, other times -------------------------------------------------------------- */

static void *on_a_thread(void *arg) {
    checked_until(&go_checkpoint_due, 1); /* others have to give way */
    checked_spin(1000);
    return arg;
}

static void hog(void *arg T_UNUSED) {
    plain_until(&stop, 1);
}

Test(checkpoints, do_nothing_on_other_threads_and_without_a_runtime) {
    pthread_t thread;
    checked_spin(1000);
    t_start_strict(1);
    T_EQ(go_waitgroup_spawn(&home, hog, NULL), 0);
    T_EQ(pthread_create(&thread, NULL, on_a_thread, NULL), 0);
    T_EQ(pthread_join(thread, NULL), 0);
    rt_store_release(&stop, 1);
    T_EQ(go_waitgroup_wait(&home), 0);
    t_stop();
    T_EQ(go_checkpoint_due, 0);
    checked_spin(1000);
}
