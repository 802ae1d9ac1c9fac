/* idle.c: no G lies in a queue while an M sleeps for ever. A lost wake-up shows as a test that
 * hangs, where sysmon does not tick: it would see the G before long, and wake somebody. */
#include "t_unit.h"

#include "base/lock.h"
#include "sched/idle.h"
#include "sched/sysmon.h"

#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

static bool all_idle(void) {
    return rt_idle_count(rt_load_seq_cst(&rt_idle.word)) == rt.procs;
}

/* The word of a moment at which all slept. One of them may get up again after it, to look whether
 * somebody is still busy with what it saw there. */
static uint32_t word_at_rest(void) {
    uint32_t word;
    T_AWAIT(rt_idle_count(word = rt_load_seq_cst(&rt_idle.word)) == rt.procs);
    return word;
}

static void set_flag(void *flag) {
    rt_store_release((int *)flag, 1);
}

static int laps(int n) {
    return (int)T_SCALE(t_procs() <= 8 ? n : n / 4);
}

/* One G at a time from a foreign thread, at any moment of the Ms' way to sleep. */
static void spawn_and_wait(int n, int naps) {
    uint64_t seed = 7;
    for (int i = 0; i < n; i++) {
        int flag = 0;
        T_SPAWN(set_flag, &flag);
        while (!rt_load_acquire(&flag))
            sched_yield();
        if (naps)
            for (uint64_t spin = t_random(&seed) % (unsigned)naps; spin > 0; spin--)
                rt_cpu_relax();
    }
}

static void start_without_ticks(void) {
    rt_store_relaxed(&rt_sysmon_tick_ns, T_NEVER);
    T_EQ(go_start(NULL), 0);
}

Test(idle, no_foreign_spawn_is_forgotten, .timeout = 120) {
    start_without_ticks();
    spawn_and_wait(laps(5000), 0);
    spawn_and_wait(laps(5000), 5000);
    t_stop();
}

static int quit_fd[2], poll_ended;

static void wait_on_descriptor(void *arg) {
    (void)arg;
    T_ASSERT(go_poll(quit_fd[0], POLLIN) > 0);
    rt_fetch_add(&poll_ended, 1);
}

Test(idle, no_foreign_spawn_is_forgotten_by_who_sleeps_in_the_poller, .timeout = 120) {
    enum { WAITERS = 4 };
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, quit_fd), 0);
    start_without_ticks();
    for (int i = 0; i < WAITERS; i++)
        T_SPAWN(wait_on_descriptor, NULL);
    T_AWAIT(t_stats().fd_waits == WAITERS);
    spawn_and_wait(laps(5000), 0);
    spawn_and_wait(laps(5000), 5000);
    T_EQ(rt_load_acquire(&poll_ended), 0);
    T_AWAIT(t_stats().fd_waits == WAITERS); /* one may be trying again: see netpoll/fd.c */
    T_EQ(write(quit_fd[1], "x", 1), 1);
    T_AWAIT(rt_load_acquire(&poll_ended) == WAITERS);
    t_stop();
}

/* Several foreign threads, each waiting for its own. */
static void *spawn_and_wait_thread(void *arg) {
    spawn_and_wait(laps(2000), t_int(arg) ? 3000 : 0);
    return arg;
}

Test(idle, no_spawn_of_several_threads_is_forgotten, .timeout = 120) {
    start_without_ticks();
    t_threads(4, spawn_and_wait_thread);
    t_stop();
}

/* A G made ready by a foreign thread: parked for sure, and perhaps just on its way. */
static go_chan *ping, *pong;

static void echo(void *arg) {
    uint64_t v;
    (void)arg;
    while (go_chan_recv(ping, &v) == 0)
        T_EQ(go_chan_send(pong, &v), 0);
}

Test(idle, no_foreign_ready_is_forgotten, .timeout = 120) {
    ping = go_chan_new(8, 0);
    pong = go_chan_new(8, 1);
    start_without_ticks();
    T_SPAWN(echo, NULL);
    for (uint64_t i = 0; i < (uint64_t)laps(5000); i++) {
        uint64_t v = 0;
        T_EQ(go_chan_send(ping, &i), 0);
        while (go_chan_try_recv(pong, &v) != 0)
            sched_yield();
        T_EQ(v, i);
    }
    go_chan_close(ping);
    t_stop();
    go_chan_free(ping);
    go_chan_free(pong);
}

/* A burst by one G must spread: the G blocks its P without a park until the others have run, so
 * other Ms must come and steal. */
static int spread_ran;

static void spread_one(void *arg) {
    (void)arg;
    rt_fetch_add(&spread_ran, 1);
}

static void burst_and_hog(void *arg) {
    int n = (int)t_int(arg);
    for (int round = 1; round <= 20; round++) {
        for (int i = 0; i < n; i++)
            T_SPAWN(spread_one, NULL);
        while (rt_load_acquire(&spread_ran) < round * n)
            rt_cpu_relax();
    }
    rt_store_release(&spread_ran, 1 << 30);
}

static void check_burst(int n) {
    spread_ran = 0;
    t_start(t_procs() > 1 ? (unsigned)t_procs() : 2);
    T_SPAWN(burst_and_hog, t_ptr(n));
    T_AWAIT(rt_load_acquire(&spread_ran) == 1 << 30);
    t_stop();
}

Test(idle, a_hog_does_not_keep_what_it_spawned_to_itself) {
    check_burst(1); /* alone in runnext */
    check_burst(2);
    check_burst(RT_RING + 10);
    check_burst(1000);
}

static void hog_until(void *flag) {
    while (!rt_load_acquire((int *)flag))
        rt_cpu_relax();
}

Test(idle, one_free_p_is_enough_beside_hogs) {
    enum { PROCS = 3 };
    int flag = 0;
    t_start(PROCS);
    for (int i = 0; i < PROCS - 1; i++)
        T_SPAWN(hog_until, &flag);
    spawn_and_wait(laps(500), 0);
    rt_store_release(&flag, 1);
    t_stop();
}

static void sleep_and_count(void *arg) {
    T_EQ(go_sleep(2 * GO_MILLISECOND), 0);
    rt_fetch_add((int *)arg, 1);
}

Test(idle, timers_of_hogs_and_sleepers_fire) {
    enum { PROCS = 3 };
    int flag = 0, slept = 0;
    t_start(PROCS);
    for (int i = 0; i < PROCS - 1; i++)
        T_SPAWN(hog_until, &flag);
    for (int i = 1; i <= 20; i++) { /* each parks on some P; hogs may come on top of it */
        T_SPAWN(sleep_and_count, &slept);
        T_AWAIT(rt_load_acquire(&slept) == i);
    }
    rt_store_release(&flag, 1);
    t_stop();
}

/* An earlier deadline that appears while the timekeeper sleeps until a later one. */
static void sleep_long(void *arg) {
    T_EQ(go_sleep(GO_FOREVER - go_now() - 1), -ECANCELED);
    rt_fetch_add((int *)arg, 1);
}

Test(idle, an_earlier_timer_wakes_before_a_later_one) {
    int late = 0, early = 0;
    T_EQ(go_start(NULL), 0);
    T_SPAWN(sleep_long, &late);
    T_AWAIT(all_idle());
    for (int i = 1; i <= 20; i++) {
        T_SPAWN(sleep_and_count, &early);
        T_AWAIT(rt_load_acquire(&early) == i);
    }
    T_EQ(late, 0);
    t_stop();
    T_EQ(late, 1);
}

/* ---- what the counts promise ----------------------------------------------------------------- */

Test(idle, all_ms_sleep_when_there_is_nothing_to_do) {
    T_EQ(go_start(NULL), 0);
    spawn_and_wait(100, 0);
    T_EQ(rt_idle_searching(word_at_rest()), 0);
    uint32_t bits = 0;
    rt_lock(&rt_idle.lock);
    for (size_t i = 0; i < T_COUNT(rt_idle.mask); i++)
        bits += (uint32_t)__builtin_popcountll(rt_idle.mask[i]);
    uint32_t word = rt_idle.word;
    rt_unlock(&rt_idle.lock);
    T_EQ(bits, rt_idle_count(word));
    t_stop();
}

/* ---- a slice that never ends ----------------------------------------------------------------- */

static struct {
    go_chan *there, *back;
    const struct rt_p *p;   /* of who spawned the third */
    uint32_t ticks;         /* of that P, then */
    uint32_t ran, shared;   /* the third; on the other P, while the slice lasted */
} talk;

static const struct rt_p *own_p(void) {
    return rt_load_relaxed(&rt_m()->p);
}

static void third(void *arg T_UNUSED) {
    bool shared = own_p() != talk.p && rt_load_relaxed(&talk.p->ticks) == talk.ticks;
    rt_fetch_add(&talk.shared, shared);
    rt_store_release(&talk.ran, 1);
}

static void answer(void *arg T_UNUSED) {
    int v;
    while (go_chan_recv(talk.there, &v) == 0)
        T_EQ(go_chan_send(talk.back, &v), 0);
}

static void ask_for_ever(void *arg T_UNUSED) {
    for (int v = 0; rt_load_relaxed(&talk.shared) == 0;) {
        talk.p = own_p();
        talk.ticks = rt_load_relaxed(&talk.p->ticks);
        rt_store_relaxed(&talk.ran, 0);
        T_SPAWN(third, NULL);
        while (!rt_load_acquire(&talk.ran)) {
            T_EQ(go_chan_send(talk.there, &v), 0);
            T_EQ(go_chan_recv(talk.back, &v), 0);
        }
    }
    T_EQ(go_chan_close(talk.there), 0);
}

/* Two hand each other the slice, for 10 ms. Picks take 100 ns there, which says nothing about the
 * queue behind them. */
Test(idle, who_waits_behind_a_pair_that_talks_is_run_elsewhere) {
    talk.there = go_chan_new(sizeof(int), 0);
    talk.back = go_chan_new(sizeof(int), 0);
    t_start(2);
    T_SPAWN(answer, NULL);
    T_SPAWN(ask_for_ever, NULL);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    go_chan_free(talk.there);
    go_chan_free(talk.back);
}

static void burst_of_yields(void *arg) {
    for (int i = 0; i < 50; i++)
        go_yield();
    rt_fetch_add((int *)arg, 1);
}

Test(idle, counts_are_right_after_a_storm) {
    int done = 0, n = laps(2000);
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < n; i++)
        T_SPAWN(burst_of_yields, &done);
    T_AWAIT(rt_load_acquire(&done) == n);
    T_EQ(rt_idle_searching(word_at_rest()), 0);
    t_stop();
}

/* Voluntary context switches tell it on a busy machine, too: a tick of sysmon is one. */
static long switches(void) {
    struct rusage u;
    T_EQ(getrusage(RUSAGE_SELF, &u), 0);
    return u.ru_nvcsw;
}

Test(idle, an_idle_runtime_does_not_tick) {
    T_EQ(go_start(NULL), 0);
    spawn_and_wait(100, 0);
    T_AWAIT(all_idle() && rt_load_seq_cst(&rt_sysmon_asleep));
    nanosleep(&(struct timespec){.tv_nsec = 50 * 1000000}, NULL); /* the last have gone to bed */
    long before = switches();
    nanosleep(&(struct timespec){.tv_nsec = 300 * 1000000}, NULL);
    long ticks = switches() - before;
    T_ASSERT(ticks < 100, "%ld", ticks);
    spawn_and_wait(10, 0); /* and it wakes up again */
    t_stop();
}
