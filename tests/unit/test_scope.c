/* scope.c: cancels and deadlines reach every call that parks, and nothing else. */
#include "t_unit.h"

#include "sched/sched.h"

#include <poll.h>
#include <sys/socket.h>

/* ---- one body for each call that waits for ever without a scope ------------------------------ */

static struct {
    go_chan *empty, *full;
    go_waitgroup never;
    go_mutex held;
    int fd[2];
} world;

static void make_world(void) {
    memset(&world, 0, sizeof world);
    world.empty = go_chan_new(sizeof(int), 0);
    world.full = go_chan_new(sizeof(int), 1);
    T_EQ(go_chan_try_send(world.full, &(int){9}), 0);
    go_waitgroup_add(&world.never, 1);
    go_mutex_lock(&world.held);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, world.fd), 0);
}

static void free_world(void) {
    T_EQ(go_chan_len(world.full), 1); /* nothing slipped in or out */
    T_EQ(go_chan_len(world.empty), 0);
    go_chan_free(world.empty); /* aborts when somebody is left on it */
    go_chan_free(world.full);
    T_ASSERT(!world.never.rt_waiters);
    close(world.fd[0]);
    close(world.fd[1]);
}

static int way_sleep(void) {
    return go_sleep(GO_FOREVER);
}
static int way_long_sleep(void) {
    return go_sleep(60 * GO_MINUTE);
}
static int way_recv(void) {
    int v;
    return go_chan_recv(world.empty, &v);
}
static int way_send(void) {
    return go_chan_send(world.full, &(int){1});
}
static int way_rendezvous(void) {
    return go_chan_send(world.empty, &(int){1});
}
static int way_waitgroup(void) {
    return go_waitgroup_wait(&world.never);
}
static int way_poll(void) {
    return go_poll(world.fd[0], POLLIN);
}
static int way_read(void) {
    char byte;
    return (int)go_read(world.fd[1], &byte, 1);
}
static int way_recv_socket(void) {
    char byte;
    return (int)go_recv(world.fd[0], &byte, 1, 0);
}
static int stop_endless;
static void *endless(void *arg) {
    while (!rt_load_acquire(&stop_endless))
        go_sleep(100 * GO_MICROSECOND);
    return arg;
}
static int way_join(void) {
    rt_store_release(&stop_endless, 0);
    go_task *t = go_task_spawn(endless, NULL);
    int r = go_task_join(t, NULL);
    rt_store_release(&stop_endless, 1);
    return r; /* the task ends, and is freed by the stop */
}
static int way_gather(void) {
    go_task *tasks[2];
    rt_store_release(&stop_endless, 0);
    for (int i = 0; i < 2; i++)
        tasks[i] = go_task_spawn(endless, NULL);
    int r = go_gather(tasks, 2, NULL);
    T_ASSERT(tasks[0] && tasks[1]);
    rt_store_release(&stop_endless, 1);
    return r;
}
static int way_cond(void) {
    go_cond c = {0};
    go_mutex m = {0};
    go_mutex_lock(&m);
    int r = go_cond_wait(&c, &m);
    T_EQ(go_mutex_trylock(&m), -EBUSY);
    go_mutex_unlock(&m);
    T_ASSERT(!c.rt_waiters);
    return r;
}
static int way_sem(void) {
    go_sem s;
    go_sem_init(&s, 0);
    int r = go_sem_acquire(&s);
    T_EQ(go_sem_try_acquire(&s), -EAGAIN);
    return r;
}
static int way_barrier(void) {
    go_barrier b;
    go_barrier_init(&b, 2);
    int r = go_barrier_wait(&b);
    T_EQ(b.rt_arrived, 0);
    return r;
}

static int (*const ways[])(void) = {way_sleep,       way_long_sleep, way_recv,   way_send,
                                    way_rendezvous,  way_waitgroup,  way_poll,   way_read,
                                    way_recv_socket, way_join,       way_gather, way_cond,
                                    way_sem,         way_barrier};
#define N_WAYS ((int)T_COUNT(ways))

/* ---- cancels --------------------------------------------------------------------------------- */

struct victim {
    int way, done;
    uint32_t entered;
    go_scope scope;
    struct rt_g *g;
};

static void wait_cancelled(void *arg) {
    struct victim *v = arg;
    go_scope_enter(&v->scope, GO_FOREVER);
    rt_store_release(&v->g, rt_self());
    rt_store_release(&v->entered, 1);
    int r = ways[v->way]();
    T_ASSERT(r == -ECANCELED, "way %d: %d", v->way, r);
    T_EQ(go_canceled(), -ECANCELED);
    T_EQ(go_sleep(0), -ECANCELED);
    while (rt_load_acquire(&v->entered) != 2) /* the canceller is through with the scope */
        go_yield();
    T_EQ(go_scope_leave(&v->scope), -ECANCELED);
    T_EQ(go_canceled(), 0);
    T_EQ(go_sleep(1), 0);
    rt_store_release(&v->done, 1);
}

static void cancel(struct victim *v, bool parked) {
    T_AWAIT(rt_load_acquire(&v->entered));
    if (parked)
        T_AWAIT(RT_WAIT_STATE(rt_load_acquire(&v->g->wait)) == RT_WAITING);
    go_scope_cancel(&v->scope);
    rt_store_release(&v->entered, 2);
    T_AWAIT(rt_load_acquire(&v->done));
}

static void each_way_cancelled(int rounds, bool parked) {
    make_world();
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < rounds * N_WAYS; i++) {
        struct victim v = {.way = i % N_WAYS};
        T_SPAWN(wait_cancelled, &v);
        cancel(&v, parked);
    }
    t_stop();
    free_world();
}

Test(scope, a_cancel_ends_every_wait) {
    each_way_cancelled(3, true);
}

Test(scope, a_cancel_at_any_moment_ends_every_wait, .timeout = 120) {
    each_way_cancelled((int)T_SCALE(200), false);
}

static void *thread_cancelled(void *arg) {
    wait_cancelled(arg);
    return NULL;
}

Test(scope, a_cancel_ends_every_wait_of_a_foreign_thread, .timeout = 120) {
    make_world();
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < (int)T_SCALE(40) * N_WAYS; i++) {
        struct victim v = {.way = i % N_WAYS};
        pthread_t t;
        T_EQ(pthread_create(&t, NULL, thread_cancelled, &v), 0);
        cancel(&v, i % 2);
        T_EQ(pthread_join(t, NULL), 0);
    }
    t_stop();
    free_world();
}

static void canceler_itself(void *arg) {
    (void)arg;
    make_world();
    for (int w = 0; w < N_WAYS; w++) {
        go_scope s;
        go_scope_enter(&s, GO_FOREVER);
        go_scope_cancel(&s); /* before the park */
        T_ASSERT(ways[w]() == -ECANCELED, "way %d", w);
        T_ASSERT(ways[w]() == -ECANCELED, "way %d again", w);
        T_EQ(go_scope_leave(&s), -ECANCELED);
        T_EQ(go_canceled(), 0);
    }
    free_world();
}

Test(scope, a_cancel_before_the_call_refuses_it) {
    T_EQ(go_run(canceler_itself, NULL), 0);
}

GTest(scope, what_needs_no_wait_is_refused_too) {
    make_world();
    go_chan *room = go_chan_new(sizeof(int), 2);
    go_waitgroup zero = {0};
    go_scope s;
    int v = 3;
    T_EQ(go_chan_send(room, &v), 0);
    go_scope_enter(&s, GO_FOREVER);
    go_scope_cancel(&s);
    T_EQ(go_chan_send(room, &v), -ECANCELED);
    T_EQ(go_chan_recv(room, &v), -ECANCELED);
    T_EQ(go_waitgroup_wait(&zero), -ECANCELED);
    T_EQ(go_chan_len(room), 1);
    T_EQ(go_chan_try_send(room, &v), 0); /* those never park, so they are not cancellable */
    T_EQ(go_chan_try_recv(room, &v), 0);
    T_EQ(go_chan_close(room), 0);
    T_EQ(go_scope_leave(&s), -ECANCELED);
    go_chan_free(room);
    free_world();
}

static void unlock_later(void *arg) {
    T_EQ(go_sleep(2 * GO_MILLISECOND), 0);
    go_mutex_unlock(arg);
}

GTest(scope, locks_are_not_cancelled) {
    make_world();
    go_scope s;
    go_scope_enter(&s, GO_FOREVER);
    go_scope_cancel(&s);
    T_EQ(go_mutex_lock_until(&world.held, go_now() + GO_MILLISECOND), -ETIMEDOUT);
    T_SPAWN(unlock_later, &world.held);
    go_mutex_lock(&world.held);
    T_EQ(go_mutex_trylock(&world.held), -EBUSY);
    T_EQ(go_scope_leave(&s), -ECANCELED);
    free_world();
}

/* ---- deadlines ------------------------------------------------------------------------------- */

static void every_way_late(void) {
    for (int w = 0; w < N_WAYS; w++) {
        go_scope s;
        int64_t deadline = go_now() + GO_MILLISECOND;
        go_scope_enter(&s, deadline);
        int r = ways[w]();
        T_ASSERT(r == -ETIMEDOUT, "way %d: %d", w, r);
        T_ASSERT(go_now() >= deadline, "way %d: early", w);
        T_EQ(go_canceled(), -ETIMEDOUT);
        r = ways[w]();
        T_ASSERT(r == -ETIMEDOUT, "way %d again: %d", w, r);
        T_EQ(go_scope_leave(&s), -ETIMEDOUT);
        T_EQ(go_canceled(), 0);
    }
}

GTest(scope, a_deadline_ends_every_wait) {
    make_world();
    every_way_late();
    free_world();
}

Test(scope, a_deadline_ends_every_wait_of_a_foreign_thread) {
    make_world();
    T_EQ(go_start(NULL), 0);
    every_way_late();
    t_stop();
    free_world();
}

GTest(scope, a_deadline_in_the_past_refuses_at_once) {
    static const int64_t past[] = {0, 1, INT64_MIN, -1};
    make_world();
    for (size_t i = 0; i < T_COUNT(past); i++)
        for (int w = 0; w < N_WAYS; w++) {
            go_scope s;
            go_scope_enter(&s, past[i]);
            T_EQ(ways[w](), -ETIMEDOUT);
            T_EQ(go_scope_leave(&s), -ETIMEDOUT);
        }
    free_world();
}

GTest(scope, a_deadline_that_refused_nothing_is_not_reported) {
    go_scope s;
    go_scope_enter(&s, go_now() + GO_MILLISECOND);
    while (go_now() < s.rt_deadline)
        rt_cpu_relax();
    T_EQ(go_scope_leave(&s), 0);
    go_scope_enter(&s, go_now() + GO_MINUTE);
    T_EQ(go_sleep(GO_MICROSECOND), 0);
    T_EQ(go_scope_leave(&s), 0);
    go_scope_enter(&s, GO_FOREVER);
    T_EQ(go_scope_leave(&s), 0);
}

/* The deadlines of many scopes, all through one timer entry of the green thread: earlier ones after
 * later ones, and later ones after earlier ones. */
GTest(scope, each_deadline_of_a_chain_holds) {
    uint64_t seed = 3;
    for (int i = 0; i < (int)T_SCALE(200); i++) {
        go_scope outer, inner;
        int64_t a = go_now() + (int64_t)(t_random(&seed) % 400) * GO_MICROSECOND;
        int64_t b = go_now() + (int64_t)(t_random(&seed) % 400) * GO_MICROSECOND;
        go_scope_enter(&outer, a);
        go_scope_enter(&inner, b);
        T_EQ(go_sleep(GO_FOREVER), -ETIMEDOUT);
        int64_t now = go_now();
        T_ASSERT(now >= a || now >= b); /* not before the earliest */
        T_EQ(go_canceled(), -ETIMEDOUT);
        int r = go_scope_leave(&inner);
        if (b < a)
            T_EQ(r, -ETIMEDOUT);
        if (a <= now) {
            T_EQ(go_sleep(1), -ETIMEDOUT);
        } else {
            T_EQ(go_sleep(GO_FOREVER), -ETIMEDOUT);
            T_ASSERT(go_now() >= a);
        }
        T_EQ(go_scope_leave(&outer), -ETIMEDOUT);
    }
}

GTest(scope, an_inner_deadline_is_never_later_than_the_outer) {
    go_scope outer, inner;
    int64_t deadline = go_now() + GO_MILLISECOND;
    go_scope_enter(&outer, deadline);
    go_scope_enter(&inner, deadline + GO_MINUTE);
    T_EQ(go_sleep(GO_FOREVER), -ETIMEDOUT);
    T_ASSERT(go_now() >= deadline && go_now() < deadline + GO_MINUTE);
    T_EQ(go_scope_leave(&inner), 0); /* the inner one was not late */
    T_EQ(go_scope_leave(&outer), -ETIMEDOUT);
}

GTest(scope, an_inner_deadline_ends_with_its_scope) {
    go_scope outer, inner;
    go_scope_enter(&outer, go_now() + GO_MINUTE);
    go_scope_enter(&inner, go_now());
    T_EQ(go_sleep(1), -ETIMEDOUT);
    T_EQ(go_scope_leave(&inner), -ETIMEDOUT);
    T_EQ(go_canceled(), 0);
    T_EQ(go_sleep(GO_MICROSECOND), 0);
    T_EQ(go_scope_leave(&outer), 0);
}

GTest(scope, a_sleep_that_was_over_in_time_is_not_late) {
    for (int i = 0; i < 20; i++) {
        go_scope s;
        go_scope_enter(&s, go_now() + 60 * GO_MINUTE);
        T_EQ(go_sleep(50 * GO_MICROSECOND), 0);
        T_EQ(go_scope_leave(&s), 0);
    }
}

/* ---- chains ---------------------------------------------------------------------------------- */

/* True: the wait ended for its own deadline, and not for the scope's one nanosecond later. */
static bool late_by_its_own(go_cond *c, go_mutex *m) {
    static int64_t patience = 100 * GO_MICROSECOND; /* grows until there is time for a wait */
    int64_t own = go_now() + (patience += patience / 4);
    go_scope s;
    go_scope_enter(&s, own + 1);
    int r = c ? go_cond_wait_until(c, m, own) : go_select(NULL, 0, own);
    int left = go_scope_leave(&s);
    T_ASSERT(r == -ETIMEDOUT || r == -ECANCELED);
    return r == -ETIMEDOUT && left == 0; /* else it came too late for a wait */
}

GTest(scope, a_wait_that_is_late_by_its_own_deadline_does_not_make_it_late) {
    go_mutex m = {0};
    go_cond c = {0};
    T_AWAIT(late_by_its_own(NULL, NULL));
    go_mutex_lock(&m);
    T_AWAIT(late_by_its_own(&c, &m));
    go_mutex_unlock(&m);
}

GTest(scope, an_outer_cancel_reaches_inside_and_an_inner_one_not_outside) {
    go_scope a, b, c;
    go_scope_enter(&a, GO_FOREVER);
    go_scope_enter(&b, GO_FOREVER);
    go_scope_enter(&c, GO_FOREVER);
    go_scope_cancel(&b);
    T_EQ(go_sleep(1), -ECANCELED);
    T_EQ(go_scope_leave(&c), 0); /* c itself was not cancelled */
    T_EQ(go_canceled(), -ECANCELED);
    T_EQ(go_scope_leave(&b), -ECANCELED);
    T_EQ(go_canceled(), 0);
    T_EQ(go_sleep(1), 0);
    T_EQ(go_scope_leave(&a), 0);
}

GTest(scope, a_cancelled_outer_scope_stays_when_a_cancelled_inner_one_is_left) {
    go_scope a, b;
    go_scope_enter(&a, GO_FOREVER);
    go_scope_enter(&b, GO_FOREVER);
    go_scope_cancel(&b);
    go_scope_cancel(&a);
    T_EQ(go_scope_leave(&b), -ECANCELED);
    T_EQ(go_canceled(), -ECANCELED);
    go_scope_enter(&b, GO_FOREVER); /* a scope entered inside a cancelled one is born refused */
    T_EQ(go_sleep(1), -ECANCELED);
    T_EQ(go_scope_leave(&b), 0);
    T_EQ(go_scope_leave(&a), -ECANCELED);
    T_EQ(go_canceled(), 0);
}

GTest(scope, a_cancel_wins_over_a_deadline) {
    go_scope s;
    go_scope_enter(&s, go_now());
    T_EQ(go_sleep(1), -ETIMEDOUT);
    go_scope_cancel(&s);
    T_EQ(go_sleep(1), -ECANCELED);
    T_EQ(go_scope_leave(&s), -ECANCELED);
}

GTest(scope, thousands_nest) {
    enum { DEEP = 2000 };
    go_scope *s = calloc(DEEP, sizeof *s);
    T_ASSERT(s);
    for (int i = 0; i < DEEP; i++)
        go_scope_enter(&s[i], GO_FOREVER);
    go_scope_cancel(&s[DEEP / 2]);
    for (int i = DEEP; i-- > 0;) {
        T_EQ(go_canceled(), i >= DEEP / 2 ? -ECANCELED : 0);
        T_EQ(go_scope_leave(&s[i]), i == DEEP / 2 ? -ECANCELED : 0);
    }
    free(s);
}

static void check_outside(void *arg) {
    T_EQ(go_canceled(), 0);
    T_EQ(go_sleep(1), 0);
    go_waitgroup_done(arg);
}

GTest(scope, a_scope_is_not_inherited_by_a_spawn) {
    go_scope s;
    go_waitgroup wg = {0};
    go_waitgroup_add(&wg, 1);
    go_scope_enter(&s, go_now());
    go_scope_cancel(&s);
    T_SPAWN(check_outside, &wg);
    T_EQ(go_scope_leave(&s), -ECANCELED);
    T_EQ(go_waitgroup_wait(&wg), 0);
}

/* ---- misuse ---------------------------------------------------------------------------------- */

static void leave_outer_first(void *arg) {
    go_scope a, b;
    (void)arg;
    go_scope_enter(&a, GO_FOREVER);
    go_scope_enter(&b, GO_FOREVER);
    go_scope_leave(&a);
}
static void leave_twice(void *arg) {
    go_scope a;
    (void)arg;
    go_scope_enter(&a, GO_FOREVER);
    go_scope_leave(&a);
    go_scope_leave(&a);
}
static void leave_unentered(void *arg) {
    go_scope a;
    (void)arg;
    memset(&a, 0, sizeof a);
    go_scope_leave(&a);
}
static go_scope forgotten;
static void end_inside(void *arg) {
    (void)arg;
    go_scope_enter(&forgotten, GO_FOREVER);
}

Test(scope, out_of_order_is_told_and_aborts) {
    T_DIES(SIGABRT, "gort: go_scope_leave", leave_outer_first(NULL));
    T_DIES(SIGABRT, "gort: go_scope_leave", leave_twice(NULL));
    T_DIES(SIGABRT, "gort: go_scope_leave", leave_unentered(NULL));
    T_DIES(SIGABRT, "gort: go_scope_leave", go_run(leave_outer_first, NULL));
    T_DIES(SIGABRT, "inside a scope", go_run(end_inside, NULL));
}

/* ---- what has happened has happened ---------------------------------------------------------- */

static struct {
    go_chan *c;
    go_scope *scope;
    uint64_t received, sent;
    uint32_t cancels;
} flow;

/* Receives with cancels raining down: each value is seen exactly once. */
static void recv_under_cancels(void *arg) {
    for (;;) {
        go_scope s;
        uint64_t v;
        uint32_t before = rt_load_acquire(&flow.cancels);
        go_scope_enter(&s, GO_FOREVER);
        rt_store_release(&flow.scope, &s);
        int r = go_chan_recv(flow.c, &v);
        if (rt_exchange(&flow.scope, NULL) == NULL) /* taken: wait until it has been cancelled */
            while (rt_load_acquire(&flow.cancels) == before)
                go_yield();
        go_scope_leave(&s);
        if (r == 0)
            T_EQ(v, ++flow.received);
        else if (r == -EPIPE)
            break;
        else
            T_EQ(r, -ECANCELED);
    }
    go_waitgroup_done(arg);
}

static void send_all(void *arg) {
    for (uint64_t v = 1; v <= flow.sent; v++)
        T_EQ(go_chan_send(flow.c, &v), 0);
    T_EQ(go_chan_close(flow.c), 0);
    go_waitgroup_done(arg);
}

static void no_value_is_lost(size_t capacity) {
    go_waitgroup wg = {0};
    flow.c = go_chan_new(sizeof(uint64_t), capacity);
    flow.sent = (uint64_t)T_SCALE(10000);
    flow.received = 0;
    go_waitgroup_add(&wg, 2);
    T_EQ(go_start(NULL), 0);
    T_SPAWN(recv_under_cancels, &wg);
    T_SPAWN(send_all, &wg);
    while ((rt_load_acquire(&wg.rt_count) & INT32_MAX) != 0) {
        go_scope *s = rt_exchange(&flow.scope, NULL);
        if (s) {
            go_scope_cancel(s);
            rt_fetch_add(&flow.cancels, 1);
        }
        sched_yield();
    }
    t_stop();
    T_EQ(flow.received, flow.sent);
    go_chan_free(flow.c);
}

Test(scope, a_cancelled_receive_has_lost_nothing, .timeout = 120) {
    no_value_is_lost(0);
    no_value_is_lost(4);
}
