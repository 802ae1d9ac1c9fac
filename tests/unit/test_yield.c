/* yield, checkpoint, nopreempt: whoever can run does, whatever the others do.
 *
 * Where one starves the test hangs, and its time limit ends it. */
#include "t_unit.h"

#include "sched/sched.h"

#include <sys/socket.h>
#include <sys/syscall.h>

static go_waitgroup home;

/* On one P nobody runs but by leave of who runs now. */
static void on_one_p(void (*fn)(void *), void *arg) {
    t_start_strict(1);
    go_waitgroup_add(&home, 1);
    T_SPAWN(fn, arg);
    T_EQ(go_waitgroup_wait(&home), 0);
    t_stop();
}

/* ---- go_yield -------------------------------------------------------------------------------- */

Test(yield, on_other_threads_it_is_a_yield_of_theirs) {
    go_yield();
    go_checkpoint();
    go_nopreempt_begin();
    go_nopreempt_end();
    go_nopreempt_end();
}

static void yield_alone(void *arg T_UNUSED) {
    for (long i = 0; i < T_SCALE(100000); i++)
        go_yield();
    go_waitgroup_done(&home);
}

Test(yield, alone_it_comes_back) {
    on_one_p(yield_alone, NULL);
}

static bool neighbour_ran;

static void neighbour(void *arg T_UNUSED) {
    neighbour_ran = true;
    go_waitgroup_done(&home);
}

static void yield_until_neighbour_ran(void) {
    neighbour_ran = false;
    go_waitgroup_add(&home, 1);
    T_SPAWN(neighbour, NULL);
    while (!neighbour_ran)
        go_yield();
}

static void yield_refused(void *arg T_UNUSED) {
    go_scope late, s;
    go_scope_enter(&late, 1); /* long past */
    T_EQ(go_canceled(), -ETIMEDOUT);
    yield_until_neighbour_ran();
    go_scope_enter(&s, GO_FOREVER);
    go_scope_cancel(&s);
    yield_until_neighbour_ran();
    T_EQ(go_canceled(), -ECANCELED); /* it is still there for the next call */
    T_EQ(go_scope_leave(&s), -ECANCELED);
    T_EQ(go_scope_leave(&late), -ETIMEDOUT);
    go_waitgroup_done(&home);
}

Test(yield, in_a_cancelled_or_late_scope_it_yields) {
    on_one_p(yield_refused, NULL);
}

enum { ROUND = 5, TURNS = 200 };
static int turns[ROUND * TURNS], turn, started;

static void take_turns(void *arg) {
    for (started++; started < ROUND;) /* the order of the first steps is another matter */
        go_yield();
    for (int i = 0; i < TURNS; i++) {
        turns[turn++] = (int)t_int(arg);
        go_yield();
    }
    go_waitgroup_done(&home);
}

static void spawn_round(void *arg T_UNUSED) {
    for (int i = 0; i < ROUND; i++) {
        go_waitgroup_add(&home, 1);
        T_SPAWN(take_turns, t_ptr(i));
    }
    go_waitgroup_done(&home);
}

Test(yield, who_yields_goes_to_the_end_of_the_queue) {
    on_one_p(spawn_round, NULL);
    T_EQ(turn, ROUND * TURNS);
    for (int i = 0; i < ROUND * TURNS; i++)
        T_EQ(turns[i], turns[i % ROUND]);
}

/* More of them than a ring has slots: the overflow goes through the global queue. */
enum { CROWD = T_CROWD(1000) };
static int taken[CROWD];

static void count_turns(void *arg) {
    for (int i = 0; i < 100; i++) {
        rt_fetch_add(&taken[t_int(arg)], 1);
        go_yield();
    }
    go_waitgroup_done(&home);
}

GTest(yield, nobody_is_lost_in_a_crowd) {
    go_waitgroup_add(&home, CROWD);
    for (int i = 0; i < CROWD; i++)
        T_SPAWN(count_turns, t_ptr(i));
    T_EQ(go_waitgroup_wait(&home), 0);
    for (int i = 0; i < CROWD; i++)
        T_EQ(taken[i], 100);
}

/* ---- go_checkpoint --------------------------------------------------------------------------- */

static uint64_t laps[2];
static uint32_t content;

/* Until both have seen the other one go on ten times. */
static void compute(void *arg) {
    int me = (int)t_int(arg);
    uint64_t seen = 0;
    for (int changes = 0; rt_load_relaxed(&content) < 2;) {
        rt_bump(&laps[me]);
        go_checkpoint();
        uint64_t now = rt_load_relaxed(&laps[1 - me]);
        if (now != seen && ++changes == 10)
            rt_fetch_add(&content, 1);
        seen = now;
    }
    go_waitgroup_done(&home);
}

static void spawn_two_computers(void *arg T_UNUSED) {
    go_waitgroup_add(&home, 2);
    for (int i = 0; i < 2; i++)
        T_SPAWN(compute, t_ptr(i));
    go_waitgroup_done(&home);
}

Test(yield, two_that_compute_share_one_p) {
    on_one_p(spawn_two_computers, NULL);
}

static uint32_t stop;

static void hog(void *arg T_UNUSED) {
    while (!rt_load_relaxed(&stop))
        go_checkpoint();
    go_waitgroup_done(&home);
}

static void sleep_often(void *arg T_UNUSED) {
    for (int i = 0; i < 10; i++)
        T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
    rt_store_relaxed(&stop, 1);
    go_waitgroup_done(&home);
}

GTest(yield, hogs_with_checkpoints_do_not_starve_a_sleeper) {
    int n = t_procs() + 2;
    go_waitgroup_add(&home, n + 1);
    T_SPAWN(sleep_often, NULL);
    for (int i = 0; i < n; i++)
        T_SPAWN(hog, NULL);
    T_EQ(go_waitgroup_wait(&home), 0);
}

/* ---- nopreempt ------------------------------------------------------------------------------- */

static uint32_t others;

static void other(void *arg T_UNUSED) {
    rt_fetch_add(&others, 1);
}

static void await_end_of_slice(void) {
    while (!(rt_load_acquire(&rt_m()->p->attention) & RT_P_PREEMPT))
        rt_cpu_relax();
}

static void hold_the_p(void *arg T_UNUSED) {
    for (uint32_t i = 0; i < 3; i++) {
        go_nopreempt_begin();
        go_nopreempt_begin();
        T_SPAWN(other, NULL);
        await_end_of_slice();
        for (int k = 0; k < 1000; k++)
            go_checkpoint();
        go_nopreempt_end();
        go_checkpoint(); /* still inside */
        T_EQ(rt_load_relaxed(&others), i);
        go_nopreempt_end();
        go_checkpoint();
        T_EQ(rt_load_relaxed(&others), i + 1);
    }
    go_waitgroup_done(&home);
}

Test(yield, nopreempt_holds_the_p_over_the_end_of_the_slice_and_nests) {
    on_one_p(hold_the_p, NULL);
}

static void park_inside(void *arg T_UNUSED) {
    go_nopreempt_begin();
    T_SPAWN(other, NULL);
    go_yield(); /* asked for, so it yields */
    T_EQ(rt_load_relaxed(&others), 1);
    T_EQ(go_sleep(GO_MICROSECOND), 0);
    go_nopreempt_end();
    go_waitgroup_done(&home);
}

Test(yield, nopreempt_forbids_no_call_that_parks) {
    on_one_p(park_inside, NULL);
}

static void leave_it_begun(void *arg T_UNUSED) {
    go_nopreempt_begin();
    go_waitgroup_done(&home);
}

static void spawn_after_one_that_left_it_begun(void *arg T_UNUSED) {
    for (int i = 0; i < 300; i++) { /* the records of green threads are used again */
        go_waitgroup_add(&home, 1);
        T_SPAWN(leave_it_begun, NULL);
        go_yield();
    }
    go_waitgroup_add(&home, 1);
    T_SPAWN(spawn_two_computers, NULL);
    go_waitgroup_done(&home);
}

Test(yield, the_next_green_thread_can_be_preempted_again) {
    on_one_p(spawn_after_one_that_left_it_begun, NULL);
}

static void end_without_begin(void *arg) {
    for (int i = 0; i < (int)t_int(arg); i++) {
        go_nopreempt_begin();
        go_nopreempt_end();
    }
    go_nopreempt_end();
}

static void begin_without_end(void *arg T_UNUSED) {
    for (int i = 0; i < 256; i++)
        go_nopreempt_begin();
}

Test(yield, nopreempt_that_does_not_match_aborts) {
    T_DIES(SIGABRT, "gort: go_nopreempt_end: no go_nopreempt_begin before it",
           go_run(end_without_begin, t_ptr(0)));
    T_DIES(SIGABRT, "gort: go_nopreempt_end: no go_nopreempt_begin before it",
           go_run(end_without_begin, t_ptr(3)));
    T_DIES(SIGABRT, "gort: go_nopreempt_begin: nested too deeply", go_run(begin_without_end, NULL));
}

/* ---- who must not starve --------------------------------------------------------------------- */

static go_chan *ball;

static void play(void *arg T_UNUSED) {
    int n = 0;
    while (go_chan_recv(ball, &n) == 0 && go_chan_send(ball, &n) == 0)
        ;
    go_waitgroup_done(&home);
}

static void yield_and_end_the_game(void *arg T_UNUSED) {
    for (int i = 0; i < 20; i++)
        go_yield();
    T_EQ(go_chan_close(ball), 0);
    go_waitgroup_done(&home);
}

/* Each of the two makes the other ready and parks: a pair that lives in runnext. */
static void serve(void *arg T_UNUSED) {
    int n = 1;
    T_ASSERT(ball = go_chan_new(sizeof n, 0));
    go_waitgroup_add(&home, 3);
    T_SPAWN(yield_and_end_the_game, NULL);
    T_SPAWN(play, NULL);
    T_SPAWN(play, NULL);
    int r = go_chan_send(ball, &n);
    T_ASSERT(r == 0 || r == -EPIPE, "%d", r); /* with several Ps the game may be over by now */
    go_waitgroup_done(&home);
}

Test(yield, a_pair_that_plays_does_not_starve_a_third) {
    on_one_p(serve, NULL);
    go_chan_free(ball);
    ball = NULL;
    home = (go_waitgroup){0};
    T_EQ(go_start(NULL), 0);
    go_waitgroup_add(&home, 1);
    T_SPAWN(serve, NULL);
    T_EQ(go_waitgroup_wait(&home), 0);
    t_stop();
    go_chan_free(ball);
}

/* A crowd that yields without end, until all who came through it are done. */
static go_waitgroup through;

static void yield_in_crowd(void *arg T_UNUSED) {
    while (!rt_load_relaxed(&stop))
        go_yield();
    go_waitgroup_done(&home);
}

static void through_the_crowd(int crowd, void (*fn)(void)) {
    go_waitgroup_add(&home, crowd);
    for (int i = 0; i < crowd; i++)
        T_SPAWN(yield_in_crowd, NULL);
    fn();
    T_EQ(go_waitgroup_wait(&through), 0);
    rt_store_relaxed(&stop, 1);
    T_EQ(go_waitgroup_wait(&home), 0);
}

/* Fits into the rings, and does not. */
enum { FEW = 100, MANY = T_CROWD(1500) };

static void pass(void *arg T_UNUSED) {
    go_waitgroup_done(&through);
}

static void pass_with_a_child(void *arg T_UNUSED) {
    T_SPAWN(pass, NULL);
}

static void spawn_some(void) {
    for (int i = 0; i < 10; i++) {
        go_waitgroup_add(&through, 1);
        T_SPAWN(pass_with_a_child, NULL);
        go_yield();
    }
}

GTest(yield, a_yielding_crowd_does_not_starve_the_newly_spawned) {
    through_the_crowd(FEW, spawn_some);
    rt_store_relaxed(&stop, 0);
    through_the_crowd(MANY, spawn_some);
}

static void *spawn_some_from_thread(void *arg) {
    for (int i = 0; i < 5; i++)
        T_SPAWN(pass_with_a_child, NULL);
    return arg;
}

static pthread_t visitors[2];

static void start_visitors(void) {
    go_waitgroup_add(&through, 10);
    t_start_threads(visitors, 2, spawn_some_from_thread);
}

GTest(yield, a_yielding_crowd_does_not_starve_those_of_other_threads) {
    through_the_crowd(MANY, start_visitors);
    t_join_threads(visitors, 2);
}

static void sleep_through(void *arg T_UNUSED) {
    for (int i = 0; i < 10; i++)
        T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
    go_waitgroup_done(&through);
}

static void spawn_sleepers(void) {
    go_waitgroup_add(&through, 5);
    for (int i = 0; i < 5; i++)
        T_SPAWN(sleep_through, NULL);
}

static void yield_until_told(void *arg T_UNUSED) {
    while (!rt_load_relaxed(&stop))
        go_yield();
    go_waitgroup_done(&home);
}

static void tell(void *arg T_UNUSED) {
    rt_store_relaxed(&stop, 1);
}

static void *spawn_who_tells(void *arg) {
    T_SPAWN(tell, NULL);
    return arg;
}

static void yield_alone_beside_a_thread(void *arg) {
    pthread_t t;
    t_start_threads(&t, 1, spawn_who_tells);
    yield_until_told(arg);
    t_join_threads(&t, 1);
}

Test(yield, who_yields_alone_does_not_starve_one_of_another_thread) {
    on_one_p(yield_alone_beside_a_thread, NULL);
}

GTest(yield, a_yielding_crowd_does_not_starve_a_sleeper) {
    through_the_crowd(MANY, spawn_sleepers);
}

static int ends[2];

static void read_through(void *arg T_UNUSED) {
    char c;
    for (int i = 0; i < 10; i++) {
        T_EQ(go_read(ends[0], &c, 1), 1);
        T_EQ(c, i);
        T_EQ(go_write(ends[0], &c, 1), 1);
    }
    go_waitgroup_done(&through);
}

/* The other end is in the hands of a thread that knows nothing of green ones. */
static void *write_and_read(void *arg) {
    for (char i = 0, c; i < 10; i++) {
        T_EQ(write(ends[1], &i, 1), 1);
        T_EQ(read(ends[1], &c, 1), 1);
        T_EQ(c, i);
    }
    return arg;
}

static void spawn_reader(void) {
    go_waitgroup_add(&through, 1);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    T_SPAWN(read_through, NULL);
    t_start_threads(visitors, 1, write_and_read);
}

GTest(yield, a_yielding_crowd_does_not_starve_a_reader) {
    through_the_crowd(MANY, spawn_reader);
    t_join_threads(visitors, 1);
    T_EQ(go_close(ends[0]), 0);
    close(ends[1]);
}

/* ---- floods of spawns ------------------------------------------------------------------------ */

static void oldest(void *arg T_UNUSED) {
    rt_store_relaxed(&stop, 1);
    go_waitgroup_done(&home);
}

/* Each has one child and ends: the newest always comes first. */
static void have_a_child(void *arg) {
    if (rt_load_relaxed(&stop))
        go_waitgroup_done(&home);
    else
        T_SPAWN(have_a_child, arg);
}

static void begin_a_dynasty(void *arg T_UNUSED) {
    go_waitgroup_add(&home, 2);
    T_SPAWN(oldest, NULL);
    T_SPAWN(have_a_child, NULL);
    go_waitgroup_done(&home);
}

Test(yield, an_endless_line_of_children_does_not_starve_the_oldest) {
    on_one_p(begin_a_dynasty, NULL);
}

static void mortal(void *arg T_UNUSED) {
}

/* More than the ring holds, again and again: the newest half overflows, not the oldest. */
static void flood(void *arg T_UNUSED) {
    go_waitgroup_add(&home, 1);
    T_SPAWN(oldest, NULL);
    while (!rt_load_relaxed(&stop)) {
        for (int i = 0; i < 700; i++)
            T_SPAWN(mortal, NULL);
        go_yield();
    }
    go_waitgroup_done(&home);
}

Test(yield, a_flood_of_spawns_does_not_starve_the_oldest) {
    on_one_p(flood, NULL);
}

static void *spawn_oldest(void *arg) {
    T_SPAWN(oldest, NULL);
    return arg;
}

static void flood_beside_a_visitor(void *arg T_UNUSED) {
    go_waitgroup_add(&home, 1);
    t_start_threads(visitors, 1, spawn_oldest);
    while (!rt_load_relaxed(&stop)) {
        for (int i = 0; i < 700; i++)
            T_SPAWN(mortal, NULL);
        go_yield();
    }
    go_waitgroup_done(&home);
}

Test(yield, a_flood_of_spawns_does_not_starve_one_of_another_thread) {
    on_one_p(flood_beside_a_visitor, NULL);
    t_join_threads(visitors, 1);
}

/* ---- migration ------------------------------------------------------------------------------- */

static uint32_t moves;

/* Not pthread_self() nor gettid(): the compiler or libc may keep what they say. */
static __attribute__((noinline)) long thread_id(void) {
    return syscall(SYS_gettid);
}

static uint64_t collatz(uint64_t n) {
    uint64_t steps = 0;
    for (; n != 1; steps++)
        n = n % 2 ? 3 * n + 1 : n / 2;
    return steps;
}

/* Whom another thread makes ready goes to the worker that comes first. */
static go_chan *tokens;

static void *send_tokens(void *arg) {
    while (!rt_load_acquire(&stop))
        if (go_chan_try_send(tokens, NULL) != 0) /* nobody is parked there now */
            sched_yield();
    return arg;
}

/* A computation whose state lives in registers and on the stack while it wanders. */
static void wander(void *arg) {
    uint64_t id = go_id(), sum = 0, expected = 0, n = (uint64_t)t_int(arg) * 1000 + 27;
    double product = 1, factor = 1.0 + (double)t_int(arg) / 1024;
    long last = thread_id();
    int done = 0;
    /* Till some have moved, which nobody can promise: with all Ps busy nobody takes one. */
    for (; done < 100 || (done < 4000 && t_procs() > 1 && rt_load_relaxed(&moves) < 10); done++) {
        sum += collatz(n + (uint64_t)done % 50);
        product = done % 50 == 0 ? factor : product * factor;
        if (done % 4 == 0)
            T_EQ(go_chan_recv(tokens, NULL), 0);
        else
            go_yield();
        T_EQ(go_id(), id);
        rt_fetch_add(&moves, last != thread_id());
        last = thread_id();
    }
    double again = factor;
    for (int i = 0; i < done; i++)
        expected += collatz(n + (uint64_t)i % 50);
    for (int i = 0; i < (done - 1) % 50; i++)
        again *= factor;
    T_EQ(sum, expected);
    T_ASSERT(product == again, "%g, %g", product, again);
    go_waitgroup_done(&home);
}

GTest(yield, who_is_moved_among_threads_computes_right, .timeout = 120) {
    enum { WANDERERS = 20 };
    T_ASSERT(tokens = go_chan_new(0, 0));
    go_waitgroup_add(&home, WANDERERS);
    t_start_threads(visitors, 1, send_tokens);
    for (int i = 0; i < WANDERERS; i++)
        T_SPAWN(wander, t_ptr(i));
    T_EQ(go_waitgroup_wait(&home), 0);
    rt_store_release(&stop, 1);
    t_join_threads(visitors, 1);
    go_chan_free(tokens);
}
