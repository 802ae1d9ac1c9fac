/* procs: go_set_procs, up and down, with everything that may hang on a P when it goes.
 *
 * Whatever is lost makes somebody wait for ever, and the time limit of the test ends it. */
#include "t_unit.h"

#include "base/fault.h"
#include "sched/idle.h"
#include "sched/procs.h"
#include "sched/retake.h"
#include "sched/sched.h"
#include "sched/sysmon.h"

#include <sys/socket.h>

#define T_SET(n) \
    do { \
        T_EQ(go_set_procs(n), 0); \
        T_EQ(go_procs(), n); \
    } while (0)

static void spin_until(uint32_t *flag) {
    while (!rt_load_acquire(flag))
        rt_cpu_relax();
}

static void set(void *flag) {
    rt_store_release((uint32_t *)flag, 1);
}

/* Each P that is in use has an M; the others have none, and nothing else. */
static void check_ps(void) {
    uint32_t procs = go_procs();
    for (uint32_t i = 0; i < rt.procs_ever; i++) {
        const struct rt_p *p = &rt.ps[i];
        T_ASSERT((rt_m_of(p) != rt.absent) == (i < procs), "P %u of %u", i, procs);
        if (i < procs)
            continue;
        T_ASSERT(!p->runnext && p->head == p->tail && p->fresh_head == p->fresh_tail);
        T_ASSERT(!p->gfree && !p->stacks && !p->timers && p->timer_when == INT64_MAX);
    }
    T_EQ(rt_load_relaxed(&rt_idle.held), procs);
}

/* ---- the call -------------------------------------------------------------------------------- */

GTest(procs, it_is_what_was_set) {
    static const unsigned n[] = {1, 2, 3, 1, 7, 64, 65, 5, 1};
    for (size_t i = 0; i < T_COUNT(n); i++) {
        T_SET(n[i]);
        T_EQ(t_stats().procs, n[i]);
        check_ps();
    }
}

Test(procs, a_foreign_thread_sets_it) {
    t_start(2);
    T_SET(3);
    T_SET(3);
    T_SET(1);
    check_ps();
    T_SET(2);
    t_stop();
}

static void in_child(void) {
    T_EQ(go_set_procs(1), -ENXIO);
}

Test(procs, nonsense_is_refused) {
    T_EQ(go_set_procs(1), -ENXIO);
    t_start(2);
    T_EQ(go_set_procs(0), -EINVAL);
    T_EQ(go_set_procs(RT_MAX_PROCS + 1), -EINVAL);
    T_EQ(go_set_procs(~0u), -EINVAL);
    T_EQ(go_procs(), 2);
    t_in_child(in_child);
    t_stop();
    T_EQ(go_set_procs(1), -ENXIO);
}

static void start_with_threads(unsigned procs, unsigned max_threads) {
    struct go_options o = GO_OPTIONS_INIT;
    o.procs = procs;
    o.max_threads = max_threads;
    T_EQ(go_start(&o), 0);
}

Test(procs, max_threads_bounds_it) {
    rt_store_relaxed(&rt_spare_keep_ns, T_NEVER); /* none is just leaving */
    start_with_threads(2, 6);
    T_EQ(go_set_procs(6), -EINVAL);
    T_SET(5);
    T_EQ(t_stats().threads, 6);
    T_SET(1);
    T_SET(5);
    T_EQ(t_stats().threads, 6);
    t_stop();
}

/* They are counted as gone before they have given back what they have. */
Test(procs, spares_that_are_just_ending_are_waited_for) {
    rt_store_relaxed(&rt_spare_keep_ns, 1);
    start_with_threads(2, 6);
    for (unsigned i = 0; i < T_SCALE(100); i++) {
        T_SET(5);
        T_SET(1);
        while (rt_retake_threads() != 2) /* the last stays */
            rt_cpu_relax();
    }
    t_stop();
}

static void *set_in_turn(void *arg) {
    for (unsigned i = 0; i < T_SCALE(30); i++)
        T_EQ(go_set_procs(1 + (unsigned)(t_int(arg) * 3 + i * 7) % 9), 0);
    return NULL;
}

static void set_in_turn_green(void *done) {
    set_in_turn(t_ptr(5));
    set(done);
}

Test(procs, several_at_once_take_turns) {
    static uint32_t done;
    t_start(4);
    T_SPAWN(set_in_turn_green, &done);
    t_threads(3, set_in_turn);
    T_AWAIT(rt_load_acquire(&done));
    T_SET(2);
    check_ps();
    t_stop();
}

/* Where its P is the caller does not know, and P 0 alone stays. */
static void set_and_count(void *left) {
    T_EQ(go_set_procs(1), 0);
    rt_fetch_sub((uint32_t *)left, 1);
}

GTest(procs, the_caller_may_be_where_it_goes) {
    for (unsigned i = 0; i < T_SCALE(20); i++) {
        uint32_t left = 8;
        T_SET(8);
        for (int k = 0; k < 8; k++)
            T_SPAWN(set_and_count, &left);
        T_AWAIT(rt_load_acquire(&left) == 0);
        T_EQ(go_procs(), 1);
    }
}

GTest(procs, a_locked_thread_sets_it) {
    go_lock_thread();
    T_SET(3);
    T_SET(1);
    T_SET(2);
    go_unlock_thread();
    T_SET(1);
}

/* Its own P was taken, by an heir or for nobody. */
GTest(procs, without_a_p_it_is_set) {
    struct rt_m *m = rt_m();
    while (!rt_gate_is_shut(m))
        rt_retake(rt_load_relaxed(&m->p), rt_progress_any(rt_load_relaxed(&m->p)));
    T_SET(3);
    T_SET(1);
}

static void set_canceled(void *done) {
    go_scope s;
    go_scope_enter(&s, GO_FOREVER);
    go_scope_cancel(&s);
    T_EQ(go_set_procs(3), -ECANCELED);
    T_EQ(go_scope_leave(&s), -ECANCELED);
    go_scope_enter(&s, go_now() - 1);
    T_EQ(go_set_procs(3), -ETIMEDOUT);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    set(done);
}

Test(procs, a_canceled_caller_sets_nothing) {
    static uint32_t done;
    t_start(2);
    T_SPAWN(set_canceled, &done);
    T_AWAIT(rt_load_acquire(&done));
    T_EQ(go_procs(), 2);
    t_stop();
}

/* ---- hogs ------------------------------------------------------------------------------------ */

static uint32_t begun;

static void hog_and_yield(void *flag) {
    rt_fetch_add(&begun, 1);
    spin_until(flag);
    for (int i = 0; i < 10; i++)
        go_yield();
    rt_fetch_sub(&begun, 1);
}

Test(procs, hogs_do_not_hold_it_up) {
    enum { HOGS = 6 };
    static uint32_t flag;
    t_start(HOGS);
    for (int i = 0; i < HOGS; i++)
        T_SPAWN(hog_and_yield, &flag);
    T_AWAIT(rt_load_acquire(&begun) == HOGS); /* so each P has one */
    T_SET(1);
    check_ps();
    T_SET(4);
    T_SET(2);
    set(&flag);
    t_stop();
}

static void *set_one(void *arg) {
    T_EQ(go_set_procs(1), 0);
    set(arg);
    return NULL;
}

/* What it gives up to is its end. */
Test(procs, a_strict_runtime_waits_for_hogs) {
    static uint32_t flag, done;
    pthread_t t;
    t_start_strict(3);
    for (int i = 0; i < 3; i++)
        T_SPAWN(hog_and_yield, &flag);
    T_AWAIT(rt_load_acquire(&begun) == 3);
    T_EQ(pthread_create(&t, NULL, set_one, &done), 0);
    nanosleep(&(struct timespec){.tv_nsec = 30 * 1000000}, NULL); /* time enough for a taking */
    T_EQ(rt_load_acquire(&done), 0);
    T_EQ(rt_retake_away(), 0);
    set(&flag);
    t_join_threads(&t, 1);
    T_EQ(rt_load_acquire(&done), 1);
    T_EQ(go_procs(), 1);
    T_AWAIT(rt_load_acquire(&begun) == 0);
    check_ps();
    t_stop();
}

/* Of two hogs one at least is on a P that goes. At last the change comes about. */
Test(procs, a_late_caller_leaves_and_the_change_goes_on) {
    static uint32_t flag;
    go_scope s;
    t_start_strict(3);
    for (int i = 0; i < 2; i++)
        T_SPAWN(hog_and_yield, &flag);
    T_AWAIT(rt_load_acquire(&begun) == 2);
    do { /* so late that it was not begun it is taken back */
        go_scope_enter(&s, go_now() + 5 * GO_MILLISECOND);
        T_EQ(go_set_procs(1), -ETIMEDOUT);
        T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    } while (!rt_procs_changes());
    set(&flag);
    T_AWAIT(go_procs() == 1);
    check_ps();
    t_stop();
}

/* ---- what hangs on a P that goes ------------------------------------------------------------- */

static uint32_t woken;

static void sleep_a_while(void *arg) {
    int64_t until = go_now() + t_int(arg) * GO_MICROSECOND;
    T_EQ(go_sleep(t_int(arg) * GO_MICROSECOND), 0);
    T_ASSERT(go_now() >= until);
    rt_fetch_add(&woken, 1);
}

Test(procs, timers_fire_in_time) {
    unsigned n = T_SCALE(4000);
    t_start(8);
    rt_store_relaxed(&woken, 0);
    for (unsigned i = 0; i < n; i++)
        T_SPAWN(sleep_a_while, t_ptr(1000 + i % 97 * 500));
    for (unsigned i = 0; i < 4; i++) {
        T_SET(1);
        T_SET(8);
    }
    T_SET(1);
    T_AWAIT(rt_load_acquire(&woken) == n);
    t_stop();
}

/* All Ms sleep; the one who keeps the time, and the one in the netpoller, are among those that
 * go. */
Test(procs, who_keeps_the_time_may_go) {
    for (unsigned i = 0; i < T_SCALE(20); i++) {
        t_start(8);
        rt_store_relaxed(&woken, 0);
        for (int k = 0; k < 4; k++)
            T_SPAWN(sleep_a_while, t_ptr(20 * 1000 + k));
        while (i % 2 && rt_idle_count(rt_load_seq_cst(&rt_idle.word)) != 8 &&
               rt_load_relaxed(&woken) == 0)
            t_relax();
        T_SET(1);
        T_AWAIT(rt_load_acquire(&woken) == 4);
        t_stop();
    }
}

enum { PAIRS = 64 };
static int pairs[PAIRS][2];

static void open_pairs(void) {
    for (int i = 0; i < PAIRS; i++)
        T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]), 0);
    rt_store_relaxed(&woken, 0);
}

static void close_pairs(void) {
    for (int i = 0; i < PAIRS; i++) {
        T_EQ(go_close(pairs[i][0]), 0);
        T_EQ(go_close(pairs[i][1]), 0);
    }
}

static void read_one(void *arg) {
    char c;
    T_EQ(go_read(pairs[t_int(arg)][0], &c, 1), 1);
    rt_fetch_add(&woken, 1);
}

static void write_all_pairs(void) {
    for (int i = 0; i < PAIRS; i++)
        T_EQ(write(pairs[i][1], "x", 1), 1); /* not gort's */
}

Test(procs, readers_are_woken_wherever_they_have_asked) {
    static const unsigned after[] = {1, 3, 16};
    for (size_t k = 0; k < T_COUNT(after); k++) {
        t_start(8);
        open_pairs();
        for (int i = 0; i < PAIRS; i++)
            T_SPAWN(read_one, t_ptr(i));
        T_AWAIT(t_stats().fd_waits == PAIRS);
        T_SET(after[k]);
        write_all_pairs();
        T_AWAIT(rt_load_acquire(&woken) == PAIRS);
        close_pairs();
        t_stop();
    }
}

static void *read_foreign(void *arg) {
    read_one(arg);
    return NULL;
}

/* They have asked some M, and everybody sleeps. */
Test(procs, foreign_readers_are_woken) {
    enum { THREADS = 8 };
    pthread_t t[THREADS];
    t_start(4);
    open_pairs();
    t_start_threads(t, THREADS, read_foreign);
    T_AWAIT(t_stats().fd_waits == THREADS);
    T_SET(1);
    T_SET(3);
    T_SET(1);
    write_all_pairs();
    t_join_threads(t, THREADS);
    close_pairs();
    t_stop();
}

static uint32_t hogs[3][2];

static void read_then_hog(void *arg) {
    T_EQ(go_spawn(read_one, arg), 0);
    go_yield(); /* it has asked, on the ring of this very thread */
    set(&hogs[t_int(arg)][1]);
    spin_until(&hogs[t_int(arg)][0]);
}

/* The ring stays with the hog's thread. There is no spare, so no P is taken before. */
Test(procs, readers_on_the_ring_of_a_hog_are_woken) {
    start_with_threads(4, 5);
    open_pairs();
    for (int i = 0; i < 3; i++)
        T_SPAWN(read_then_hog, t_ptr(i));
    for (int i = 0; i < 3; i++)
        T_AWAIT(rt_load_acquire(&hogs[i][1]));
    T_SET(1);
    for (int i = 0; i < 3; i++)
        T_EQ(write(pairs[i][1], "x", 1), 1);
    T_AWAIT(rt_load_acquire(&woken) == 3);
    for (int i = 0; i < 3; i++)
        set(&hogs[i][0]);
    close_pairs();
    t_stop();
}

static void nothing(void *left) {
    rt_fetch_sub((uint32_t *)left, 1);
}

static void spawn_many(void *arg) {
    uint32_t *left = arg;
    for (unsigned i = 0; i < T_SCALE(3000); i++)
        T_EQ(go_spawn(nothing, left), 0); /* ring, deque and global queue are full */
}

Test(procs, queues_are_handed_on) {
    uint32_t left = 8 * T_SCALE(3000);
    t_start(8);
    for (int i = 0; i < 8; i++)
        T_SPAWN(spawn_many, &left);
    T_SET(1);
    T_AWAIT(rt_load_acquire(&left) == 0);
    struct go_stats s = t_stats();
    T_EQ(s.spawned, 8 + 8 * T_SCALE(3000));
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

static void use_a_little(void *left) {
    go_sleep(GO_MICROSECOND);
    rt_fetch_sub((uint32_t *)left, 1);
}

Test(procs, records_stacks_and_timers_do_not_stay_behind) {
    t_start(8);
    for (int round = 0; round < 4; round++) {
        uint32_t left = 800;
        for (int i = 0; i < 800; i++)
            T_SPAWN(use_a_little, &left);
        T_AWAIT(rt_load_acquire(&left) == 0 && t_stats().tasks_live == 0);
        T_SET(1 + (unsigned)round);
        check_ps();
        T_SET(8);
    }
    t_stop();
}

/* ---- threads that cannot be had -------------------------------------------------------------- */

Test(procs, without_threads_nothing_has_changed) {
    t_start(2);
    for (uint32_t nth = 1; nth <= 5; nth++) {
        rt_fault_arm(RT_FAULT_THREAD, nth, true, EAGAIN);
        T_EQ(go_set_procs(16), -EAGAIN);
        rt_fault_disarm();
        T_EQ(go_procs(), 2);
        check_ps();
    }
    T_SET(16);
    t_stop();
}

Test(procs, without_memory_nothing_has_changed) {
    t_start(2);
    rt_fault_arm(RT_FAULT_MMAP, 1, true, ENOMEM); /* alternate stacks, slabs */
    T_ASSERT(go_set_procs(64) < 0);
    rt_fault_disarm();
    T_EQ(go_procs(), 2);
    check_ps();
    T_SET(3);
    t_stop();
}

Test(procs, without_a_ring_nothing_has_changed) {
    t_start(2);
    if (strcmp(t_stats().netpoll, "uring") != 0) {
        t_stop();
        T_SKIP("epoll has nothing for each M");
    }
    rt_fault_arm(RT_FAULT_RING, 2, true, ENOMEM);
    T_EQ(go_set_procs(16), -ENOMEM);
    rt_fault_disarm();
    T_EQ(go_procs(), 2);
    check_ps();
    T_SET(8);
    t_stop();
}

/* Whose deadline finds no memory in the heap where it goes is told so, not forgotten. */
static void sleep_or_not(void *arg T_UNUSED) {
    int err = go_sleep(50 * GO_MILLISECOND);
    T_ASSERT(err == 0 || err == -ENOMEM, "%d", err);
    rt_fetch_add(&woken, 1);
}

Test(procs, without_memory_for_timers_nobody_sleeps_for_ever) {
    t_start(4);
    for (int i = 0; i < 400; i++)
        T_SPAWN(sleep_or_not, NULL);
    T_AWAIT(t_stats().parks >= 400);
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM);
    T_EQ(go_set_procs(1), 0);
    rt_fault_disarm();
    T_AWAIT(rt_load_acquire(&woken) == 400);
    t_stop();
}

/* ---- the stop -------------------------------------------------------------------------------- */

static uint32_t stopping;

static void *set_until_refused(void *arg) {
    uint64_t seed = (uint64_t)t_int(arg) + 1;
    int err;
    do {
        err = go_set_procs((unsigned)(1 + t_random(&seed) % 12));
        T_ASSERT(err == 0 || err == -ESHUTDOWN || err == -ENXIO || err == -ECANCELED, "%d", err);
    } while (err == 0);
    return NULL;
}

static void set_until_refused_green(void *arg) {
    set_until_refused(arg);
}

static void sleep_long(void *arg T_UNUSED) {
    T_EQ(go_sleep(GO_MINUTE), -ECANCELED);
}

Test(procs, a_stop_may_come_in_between) {
    for (unsigned i = 0; i < T_SCALE(20); i++) {
        pthread_t t[2];
        t_start(3);
        rt_store_relaxed(&stopping, 0);
        t_start_threads(t, 2, set_until_refused);
        T_SPAWN(set_until_refused_green, t_ptr(i + 7));
        for (int k = 0; k < 20; k++)
            T_SPAWN(sleep_long, NULL);
        for (unsigned k = 0; k < i; k++)
            t_relax();
        t_stop();
        t_join_threads(t, 2);
        T_EQ(go_procs(), 0);
    }
}

/* ---- everything at once ---------------------------------------------------------------------- */

struct load {
    uint32_t running;
    uint32_t over; /* the changer is done */
    uint64_t sum;
};
static struct load load;
static go_chan *pipe_chan;

enum { STEPS = 40 };

static void did(uint64_t n) {
    rt_fetch_add(&load.sum, n);
    rt_fetch_sub(&load.running, 1);
}

static void yielder(void *arg T_UNUSED) {
    for (int i = 0; i < STEPS; i++)
        go_yield();
    did(STEPS);
}

static void sleeper(void *arg) {
    for (int i = 0; i < STEPS / 8; i++)
        T_EQ(go_sleep((t_int(arg) % 7 + 1) * 100 * GO_MICROSECOND), 0);
    did(STEPS / 8);
}

static void computer(void *arg) {
    int64_t until = go_now() + (1 + t_int(arg) % 3) * GO_MILLISECOND;
    while (go_now() < until)
        if (t_int(arg) % 2)
            go_checkpoint();
    did(1);
}

static void sender(void *arg T_UNUSED) {
    for (int i = 1; i <= STEPS; i++)
        T_EQ(go_chan_send(pipe_chan, &i), 0);
    did(0);
}

static void receiver(void *arg T_UNUSED) {
    uint64_t sum = 0;
    for (int i = 0, v; i < STEPS; i++) {
        T_EQ(go_chan_recv(pipe_chan, &v), 0);
        sum += (uint64_t)v;
    }
    did(sum);
}

static void pinger(void *arg) {
    int *ends = pairs[t_int(arg) % PAIRS];
    char c = 'x';
    for (int i = 0; i < STEPS / 4; i++)
        T_EQ(go_write_all(ends[1], &c, 1), 1);
    did(0);
}

static void ponger(void *arg) {
    int *ends = pairs[t_int(arg) % PAIRS];
    char c;
    for (int i = 0; i < STEPS / 4; i++)
        T_EQ(go_read(ends[0], &c, 1), 1);
    did(STEPS / 4);
}

/* What a round of it adds to the sum. */
enum { ROUND = STEPS + STEPS / 8 + 1 + STEPS * (STEPS + 1) / 2 + STEPS / 4 };

static void spawn_round(int i) {
    static void (*const kinds[])(void *) = {yielder,  sleeper, computer, sender,
                                            receiver, pinger,  ponger};
    rt_fetch_add(&load.running, T_COUNT(kinds));
    for (size_t k = 0; k < T_COUNT(kinds); k++)
        T_EQ(go_spawn(kinds[k], t_ptr(i)), 0);
}

static uint32_t rounds_left;

/* As many rounds at once as there are of these. */
static void *keep_busy(void *arg) {
    for (uint32_t i; (i = rt_fetch_sub(&rounds_left, 1)) - 1 < UINT32_MAX / 2;) {
        spawn_round((int)i);
        while (rt_load_acquire(&load.running) > 60 * 7)
            t_relax();
        (void)arg;
    }
    return NULL;
}

static void keep_busy_green(void *done) {
    keep_busy(NULL);
    set(done);
}

static void *change_at_random(void *arg) {
    uint64_t seed = (uint64_t)t_int(arg) * 77 + 5;
    while (!rt_load_acquire(&load.over))
        T_EQ(go_set_procs((unsigned)(1 + t_random(&seed) % (t_random(&seed) % 8 ? 9 : 64))), 0);
    return NULL;
}

static void under_load(void (*start)(unsigned procs)) {
    static uint32_t green_done;
    pthread_t busy, changers[2];
    start(0);
    open_pairs();
    pipe_chan = go_chan_new(sizeof(int), 3);
    uint32_t rounds = T_SCALE(300);
    load = (struct load){0};
    rt_store_relaxed(&green_done, 0);
    rt_store_relaxed(&rounds_left, rounds);
    t_start_threads(changers, 2, change_at_random);
    t_start_threads(&busy, 1, keep_busy);
    T_SPAWN(keep_busy_green, &green_done);
    t_join_threads(&busy, 1);
    T_AWAIT(rt_load_acquire(&green_done) && rt_load_acquire(&load.running) == 0);
    set(&load.over);
    t_join_threads(changers, 2);
    T_EQ(load.sum, (uint64_t)rounds * ROUND);
    T_AWAIT(t_stats().tasks_live == 0);
    T_EQ(t_stats().spawned, (uint64_t)rounds * 7 + 1);
    T_EQ(t_stats().runnable, 0);
    T_SET(2);
    check_ps();
    close_pairs();
    go_chan_free(pipe_chan);
    t_stop();
}

Test(procs, under_load_nothing_is_lost) {
    under_load(t_start);
}

Test(procs, under_load_a_strict_runtime_loses_nothing) {
    under_load(t_start_strict);
}

/* ---- afterwards ------------------------------------------------------------------------------ */

Test(procs, an_idle_runtime_still_falls_asleep) {
    t_start(4);
    T_SET(2);
    T_AWAIT(rt_load_seq_cst(&rt_sysmon_asleep));
    T_SET(6);
    T_AWAIT(rt_load_seq_cst(&rt_sysmon_asleep) &&
            rt_idle_count(rt_load_seq_cst(&rt_idle.word)) == 6);
    t_stop();
}

Test(procs, threads_that_went_end) {
    rt_store_relaxed(&rt_spare_keep_ns, GO_MILLISECOND);
    t_start(8);
    T_SET(1);
    T_AWAIT(t_stats().threads <= 3); /* a worker, a spare and sysmon */
    T_SET(8);
    T_ASSERT(t_stats().threads >= 9);
    t_stop();
}
