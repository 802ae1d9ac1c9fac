/* park.c, sysmon.c: go_yield, go_checkpoint and go_nopreempt; who shares a P with whom. */
#include "t_unit.h"

#include "sched/sched.h"

/* ---- yields ----------------------------------------------------------------------------------- */

static struct {
    int turns[300];
    int n;
} turns;

static void take_turns(void *arg) {
    for (int i = 0; i < 100; i++) {
        turns.turns[turns.n++] = (int)t_int(arg); /* one P: plain */
        go_yield();
    }
}

Test(yield, goes_round) {
    t_start(1);
    for (int i = 0; i < 3; i++)
        T_SPAWN(take_turns, t_ptr(i));
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    T_EQ(turns.n, 300);
    for (int i = 10; i < 290; i++) /* begin and end depend on when each was spawned */
        T_EQ(turns.turns[i], turns.turns[i - 3]);
}

static void spin_for_flag(void *flag) {
    while (!rt_load_acquire((int *)flag))
        go_yield();
}

static void raise_flag(void *flag) {
    rt_store_release((int *)flag, 1);
}

GTest(yield, alone_it_returns) {
    for (int i = 0; i < 10000; i++)
        go_yield();
    uint64_t id = go_id();
    go_yield();
    T_EQ(go_id(), id);
}

Test(yield, lets_those_run_who_come_later) {
    int flag = 0;
    t_start(1);
    T_SPAWN(spin_for_flag, &flag);
    T_SPAWN(raise_flag, &flag); /* through the global queue */
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

Test(yield, on_a_foreign_thread_it_does_no_harm) {
    go_yield();
    go_checkpoint();
    go_nopreempt_begin();
    go_nopreempt_end();
    go_nopreempt_end();
    T_EQ(go_id(), 0);
}

/* ---- checkpoints ------------------------------------------------------------------------------ */

static int turn;

/* Two that compute and never yield, on one P: each goes on only when the other has. */
static void compute(void *arg) {
    int me = (int)t_int(arg);
    for (int i = 0; i < 10; i++) {
        while (rt_load_acquire(&turn) != me)
            go_checkpoint();
        rt_store_release(&turn, 1 - me);
    }
}

Test(checkpoint, shares_a_p_between_two_that_compute) {
    t_start(1);
    T_SPAWN(compute, t_ptr(0));
    T_SPAWN(compute, t_ptr(1));
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

static void spin_at_checkpoints(void *flag) {
    while (!rt_load_acquire((int *)flag))
        go_checkpoint();
}

static void sleep_and_raise(void *flag) {
    T_EQ(go_sleep(GO_MILLISECOND), 0);
    raise_flag(flag);
}

Test(checkpoint, lets_a_timer_of_the_same_p_fire) {
    int flag = 0;
    t_start(1);
    T_SPAWN(spin_at_checkpoints, &flag);
    T_SPAWN(sleep_and_raise, &flag);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

/* A pair that talks passes runnext to and fro; who waits in the ring must have a turn. */
static go_chan *to, *fro;
static int enough;

static void talk(void *arg) {
    (void)arg;
    int v = 0;
    while (!rt_load_acquire(&enough)) {
        T_EQ(go_chan_send(to, &v), 0);
        T_EQ(go_chan_recv(fro, &v), 0);
    }
    T_EQ(go_chan_close(to), 0);
}

static void answer(void *arg) {
    (void)arg;
    int v;
    while (go_chan_recv(to, &v) == 0)
        T_EQ(go_chan_send(fro, &v), 0);
}

static void talk_beside_a_third(void *arg) {
    (void)arg;
    T_SPAWN(talk, NULL);
    T_SPAWN(answer, NULL);
    T_SPAWN(raise_flag, &enough);
    go_yield();
}

Test(checkpoint, a_pair_that_talks_does_not_starve_a_third) {
    to = go_chan_new(sizeof(int), 0);
    fro = go_chan_new(sizeof(int), 0);
    t_start(1);
    T_SPAWN(talk_beside_a_third, NULL);
    T_AWAIT(t_stats().tasks_live == 0);
    enough = 0; /* the third comes from outside, into the global queue */
    go_chan_free(to);
    to = go_chan_new(sizeof(int), 0);
    T_SPAWN(talk, NULL);
    T_SPAWN(answer, NULL);
    T_AWAIT(t_stats().parks > 1000);
    T_SPAWN(raise_flag, &enough);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    go_chan_free(to);
    go_chan_free(fro);
}

/* Those that spawn for ever, each child once: nobody in the ring is forgotten. */
static void spawn_next(void *arg) {
    if (!rt_load_acquire(&enough))
        T_SPAWN(spawn_next, arg);
}

static void spawn_chain_beside_a_third(void *arg) {
    T_SPAWN(raise_flag, &enough);
    spawn_next(arg);
}

Test(checkpoint, a_chain_of_spawns_does_not_starve_a_third) {
    t_start(1);
    T_SPAWN(spawn_chain_beside_a_third, NULL);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

/* ---- nopreempt -------------------------------------------------------------------------------- */

static int other_ran;

static void other(void *arg) {
    (void)arg;
    rt_fetch_add(&other_ran, 1);
}

static void await_end_of_slice(void) {
    while (!(rt_load_acquire(&rt_m()->p->attention) & RT_P_PREEMPT))
        rt_cpu_relax();
}

static void hold_the_p(void *arg) {
    (void)arg;
    for (int i = 0; i < 3; i++) {
        int before = other_ran;
        go_nopreempt_begin();
        go_nopreempt_begin();
        T_SPAWN(other, NULL);
        await_end_of_slice();
        for (int k = 0; k < 1000; k++)
            go_checkpoint();
        go_nopreempt_end();
        go_checkpoint(); /* still inside */
        T_EQ(other_ran, before);
        go_nopreempt_end();
        go_checkpoint();
        T_EQ(other_ran, before + 1);
    }
}

Test(nopreempt, holds_the_p_over_the_end_of_the_slice_and_nests) {
    t_start(1);
    T_SPAWN(hold_the_p, NULL);
    T_AWAIT(t_stats().tasks_live == 0);
    T_EQ(other_ran, 3);
    t_stop();
}

static void park_inside(void *arg) {
    (void)arg;
    go_nopreempt_begin();
    T_SPAWN(other, NULL);
    go_yield(); /* asked for, so it yields */
    T_EQ(rt_load_acquire(&other_ran), 1);
    T_EQ(go_sleep(GO_MICROSECOND), 0);
    go_nopreempt_end();
}

Test(nopreempt, forbids_no_call_that_parks) {
    t_start(1);
    T_SPAWN(park_inside, NULL);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

static void begin_only(void *arg) {
    (void)arg;
    go_nopreempt_begin();
}
static void end_only(void *arg) {
    (void)arg;
    go_nopreempt_end();
}
/* The first one forgot; the second one has done nothing wrong but its own end without a begin. */
static void begin_in_one_end_in_another(void) {
    t_start(1);
    T_SPAWN(begin_only, NULL);
    T_AWAIT(t_stats().tasks_live == 0);
    for (int i = 0; i < 1000; i++) /* one of them gets the struct of the first */
        T_SPAWN(end_only, NULL);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}
static void begin_256_times(void *arg) {
    (void)arg;
    for (int i = 0; i < 256; i++)
        go_nopreempt_begin();
}

Test(nopreempt, misuse_is_told_and_aborts) {
    T_DIES(SIGABRT, "gort: go_nopreempt_end", go_run(end_only, NULL));
    T_DIES(SIGABRT, "gort: go_nopreempt_end", begin_in_one_end_in_another());
    T_DIES(SIGABRT, "gort: go_nopreempt_begin", go_run(begin_256_times, NULL));
}

static void reuse_hold(void *arg) {
    (void)arg;
    int before = other_ran;
    T_EQ(rt_m()->g->nopreempt, 0);
    T_SPAWN(other, NULL);
    await_end_of_slice();
    go_checkpoint();
    T_EQ(other_ran, before + 1);
}

Test(nopreempt, ends_with_its_green_thread) {
    t_start(1);
    for (int i = 0; i < 3; i++) {
        T_SPAWN(begin_only, NULL);
        T_AWAIT(t_stats().tasks_live == 0);
        T_SPAWN(reuse_hold, NULL);
        T_AWAIT(t_stats().tasks_live == 0);
    }
    t_stop();
}
