/* join.c: each task is joined once, by whoever comes, and gives its result. */
#include "t_unit.h"

#include "base/lock.h"
#include "sched/sched.h"

static void *same(void *arg) {
    return arg;
}

static void *same_later(void *arg) {
    T_EQ(go_sleep((t_int(arg) % 7) * 30 * GO_MICROSECOND), 0);
    return arg;
}

/* ---- results --------------------------------------------------------------------------------- */

static void join_many(void *(*fn)(void *), int n) {
    go_task *t[1000];
    for (int i = 0; i < n; i++)
        T_ASSERT(t[i] = go_task_spawn(fn, t_ptr(i)));
    for (int i = 0; i < n; i++) /* last, first, last but one, ... */
        T_EQ(t_int(T_JOIN(t[i % 2 ? i / 2 : n - 1 - i / 2])), i % 2 ? i / 2 : n - 1 - i / 2);
}

GTest(join, gives_the_result_of_each) {
    join_many(same, 1000);
    join_many(same_later, 1000);
    T_EQ(go_task_join(go_task_spawn(same, NULL), NULL), 0); /* no place for the result */
    T_EQ(t_stats().tasks_live, 1);
}

/* The tasks run in place, one after the other, and never pass the scheduler. */
static void set_flag(void *flag) {
    rt_store_release((uint32_t *)flag, 1);
}

GTest(join, in_place_lets_others_have_their_turn) {
    for (int i = 0; i < 20; i++) {
        uint32_t flag = 0;
        for (int k = 0; k < 1000; k++) /* short ones, not worth a steal */
            T_EQ(go_task_join(go_task_spawn(same, NULL), NULL), 0);
        T_SPAWN(set_flag, &flag);
        while (!rt_load_acquire(&flag))
            T_EQ(go_task_join(go_task_spawn(same, NULL), NULL), 0);
    }
}

Test(join, gives_a_foreign_thread_the_result_of_each) {
    T_EQ(go_start(NULL), 0);
    join_many(same, 1000);
    join_many(same_later, 200);
    t_stop();
}

static void *await_flag(void *flag) {
    while (!rt_load_acquire((int *)flag))
        go_sleep(50 * GO_MICROSECOND);
    return flag;
}

/* In every state of the task: not started, running, parked, ended. */
GTest(join, finds_the_task_in_any_state) {
    for (int i = 0; i < 100; i++) {
        int flag = i % 2;
        go_task *t = go_task_spawn(await_flag, &flag);
        for (int k = 0; k < i % 5; k++)
            go_yield();
        if (i % 3 == 0)
            T_EQ(go_sleep(20 * GO_MICROSECOND), 0);
        if (!flag) {
            go_scope s; /* a joiner that is refused leaves the task whole */
            void *result = &s;
            go_scope_enter(&s, go_now() + 10 * GO_MICROSECOND);
            T_EQ(go_task_join(t, &result), -ETIMEDOUT);
            T_ASSERT(result == &s);
            T_EQ(go_scope_leave(&s), -ETIMEDOUT);
            rt_store_release(&flag, 1);
        }
        T_ASSERT(T_JOIN(t) == &flag);
    }
}

/* ---- in place -------------------------------------------------------------------------------- */

static void *own_identity(void *arg) {
    uint64_t id = go_id();
    go_scope s;
    T_ASSERT(id != 0 && id != *(uint64_t *)arg);
    T_EQ(go_canceled(), 0);
    go_scope_enter(&s, GO_FOREVER);
    go_yield();
    T_EQ(go_sleep(GO_MICROSECOND), 0);
    T_EQ(go_id(), id);
    T_EQ(go_scope_leave(&s), 0);
    return t_ptr((intptr_t)id);
}

GTest(join, a_task_has_an_id_of_its_own_also_on_its_joiners_stack) {
    uint64_t last = 0;
    for (int i = 0; i < 100; i++) {
        uint64_t me = go_id();
        uint64_t id = (uint64_t)t_int(T_JOIN(go_task_spawn(own_identity, &me)));
        T_ASSERT(id != last && id > 0);
        last = id;
        T_EQ(go_id(), me);
    }
}

static uint64_t fib_number(int n) {
    uint64_t a = 0, b = 1;
    for (; n > 0; n--) {
        uint64_t c = a + b;
        a = b;
        b = c;
    }
    return a;
}

static void *fib(void *arg) {
    intptr_t n = t_int(arg);
    if (n < 2)
        return arg;
    go_task *t = go_task_spawn(fib, t_ptr(n - 1));
    T_ASSERT(t);
    intptr_t b = t_int(fib(t_ptr(n - 2)));
    return t_ptr(t_int(T_JOIN(t)) + b);
}

static void *fib_both(void *arg) {
    intptr_t n = t_int(arg);
    if (n < 2)
        return arg;
    go_task *t = go_task_spawn(fib_both, t_ptr(n - 1)), *u = go_task_spawn(fib_both, t_ptr(n - 2));
    T_ASSERT(t && u);
    if (n % 3 == 0)
        go_yield(); /* so that not all are run in place */
    return t_ptr(t_int(T_JOIN(t)) + t_int(T_JOIN(u)));
}

GTest(join, forks_and_joins_count_fibonacci, .timeout = 120) {
    int n = T_SCALE(100) > 50 ? 20 : 15;
    T_EQ(t_int(fib(t_ptr(n))), fib_number(n));
    T_EQ(t_int(fib_both(t_ptr(n - 2))), fib_number(n - 2));
}

/* Each level joins the next: far deeper than one stack holds. */
static void *chain(void *arg) {
    intptr_t left = t_int(arg);
    return left == 0 ? NULL : t_ptr(1 + t_int(T_JOIN(go_task_spawn(chain, t_ptr(left - 1)))));
}

GTest(join, a_chain_of_joins_deeper_than_a_stack_ends) {
    intptr_t n = T_CROWD(T_SCALE(20000));
    T_EQ(t_int(T_JOIN(go_task_spawn(chain, t_ptr(n)))), n);
}

static void *big_frame(void *arg) {
    volatile char frame[40 * 1024];
    frame[0] = 1;
    frame[sizeof frame - 1] = 2;
    intptr_t left = t_int(arg), below = 0;
    if (left > 0)
        below = t_int(T_JOIN(go_task_spawn(big_frame, t_ptr(left - 1))));
    T_EQ(frame[0] + frame[sizeof frame - 1], 3);
    return t_ptr(below + 1);
}

GTest(join, big_frames_in_a_chain_of_joins_fit) {
    T_EQ(t_int(T_JOIN(go_task_spawn(big_frame, t_ptr(100)))), 101);
}

static void *big_frame_below(void *arg) {
    return T_JOIN(go_task_spawn(big_frame, arg));
}

GTest(join, a_task_does_not_run_on_a_joiners_smaller_stack) {
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    o.stack_size = 32 * 1024;
    T_EQ(t_int(T_JOIN(go_task_spawn_with(&o, big_frame_below, t_ptr(2)))), 3);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static go_task *self_task;

static void *join_self(void *arg) {
    T_EQ(go_task_join(self_task, NULL), -EDEADLK);
    return arg;
}

GTest(join, a_task_cannot_join_itself) {
    self_task = go_task_spawn(join_self, t_ptr(1));
    T_EQ(t_int(T_JOIN(self_task)), 1);
    T_EQ(go_task_join(NULL, NULL), -EINVAL);
    T_EQ(go_task_cancel(NULL), -EINVAL);
    T_ASSERT(!go_task_spawn(NULL, NULL));
}

static struct {
    go_task *task;
    int begun, flag, joined;
} busy;

static void *busy_task(void *arg) {
    rt_store_release(&busy.begun, 1);
    await_flag(&busy.flag);
    return arg;
}

static void first_joiner(void *arg) {
    (void)arg;
    T_EQ(t_int(T_JOIN(busy.task)), 3);
    rt_store_release(&busy.joined, 1);
}

static bool somebody_joins(struct rt_g *t) {
    rt_lock(&t->task_lock);
    bool yes = t->joiner != NULL;
    rt_unlock(&t->task_lock);
    return yes;
}

static void check_second_joiner(bool in_place) {
    memset(&busy, 0, sizeof busy);
    busy.task = go_task_spawn(busy_task, t_ptr(3));
    if (!in_place)
        T_AWAIT(rt_load_acquire(&busy.begun));
    T_SPAWN(first_joiner, NULL);
    T_AWAIT(rt_load_acquire(&busy.begun));
    struct rt_g *t = (struct rt_g *)busy.task;
    T_AWAIT(somebody_joins(t)); /* or it hangs: nobody is known to join */
    T_EQ(go_task_join(busy.task, NULL), -EBUSY);
    T_EQ(go_task_join(busy.task, NULL), -EBUSY);
    rt_store_release(&busy.flag, 1);
    T_AWAIT(rt_load_acquire(&busy.joined));
}

GTest(join, a_second_joiner_is_told_so) {
    check_second_joiner(false);
}

static void spawn_and_join_busy(void *arg) {
    rt_store_release(&busy.task, go_task_spawn(busy_task, t_ptr(3)));
    first_joiner(arg);
}

GTest(join, a_second_joiner_is_told_so_beside_a_join_in_place) {
    memset(&busy, 0, sizeof busy);
    T_SPAWN(spawn_and_join_busy, NULL);
    T_AWAIT(rt_load_acquire(&busy.begun) && rt_load_acquire(&busy.task));
    T_AWAIT(somebody_joins((struct rt_g *)busy.task));
    T_EQ(go_task_join(busy.task, NULL), -EBUSY);
    rt_store_release(&busy.flag, 1);
    T_AWAIT(rt_load_acquire(&busy.joined));
}

/* ---- cancels --------------------------------------------------------------------------------- */

static void *until_cancelled(void *arg) {
    T_EQ(go_sleep(GO_FOREVER), -ECANCELED);
    T_EQ(go_canceled(), -ECANCELED);
    T_EQ(go_chan_recv((go_chan *)arg, NULL), -ECANCELED);
    return t_ptr(-ECANCELED);
}

GTest(join, a_cancelled_task_is_refused_everything_until_it_ends) {
    go_chan *c = go_chan_new(1, 0);
    for (int i = 0; i < (int)T_SCALE(1000); i++) {
        go_task *t = go_task_spawn(until_cancelled, c);
        for (int k = 0; k < i % 4; k++)
            go_yield();
        T_EQ(go_task_cancel(t), 0);
        T_EQ(go_task_cancel(t), 0);
        T_EQ(t_int(T_JOIN(t)), -ECANCELED);
        T_EQ(go_canceled(), 0);
    }
    go_task *ended = go_task_spawn(same, t_ptr(4));
    T_EQ(go_sleep(GO_MILLISECOND), 0);
    T_EQ(go_task_cancel(ended), 0); /* too late, which is no error */
    T_EQ(t_int(T_JOIN(ended)), 4);
    T_EQ(t_int(T_JOIN(go_task_spawn(same, t_ptr(5)))), 5); /* nor the next of its kind */
    go_chan_free(c);
}

static int inner_ended;

static void *inner_task(void *arg) {
    T_EQ(go_sleep(GO_FOREVER), -ECANCELED);
    rt_fetch_add(&inner_ended, 1);
    return arg;
}

static void *join_inner(void *arg) {
    (void)arg;
    go_task *inner = go_task_spawn(inner_task, NULL);
    int r = go_task_join(inner, NULL);
    if (r == -ECANCELED)
        go_task_cancel(inner); /* it is left to the stop */
    return t_ptr(r);
}

/* The join may be in place: then the inner task is cancelled with its joiner. */
GTest(join, a_cancelled_joiner_need_not_wait) {
    for (int i = 0; i < 20; i++) {
        inner_ended = 0;
        go_task *t = go_task_spawn(join_inner, NULL);
        T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
        T_EQ(go_task_cancel(t), 0);
        int r = (int)t_int(T_JOIN(t));
        T_ASSERT(r == -ECANCELED || r == 0, "%d", r);
        T_AWAIT(rt_load_acquire(&inner_ended) == 1);
    }
}

/* ---- foreign threads ------------------------------------------------------------------------- */

static void *join_foreign(void *arg) {
    uint64_t seed = (uint64_t)t_int(arg) + 1;
    for (int i = 0; i < (int)T_SCALE(500); i++) {
        go_task *t = go_task_spawn(same_later, t_ptr(i));
        void *result = NULL;
        int r;
        do {
            go_scope s;
            go_scope_enter(&s, go_now() + (int64_t)(t_random(&seed) % 100) * GO_MICROSECOND);
            r = go_task_join(t, &result);
            T_ASSERT(r == 0 || r == -ETIMEDOUT, "%d", r);
            T_EQ(go_scope_leave(&s), r);
        } while (r != 0);
        T_EQ(t_int(result), i);
    }
    return NULL;
}

Test(join, threads_join_with_and_without_success) {
    T_EQ(go_start(NULL), 0);
    t_threads(4, join_foreign);
    t_stop();
}

/* A thread that gives up and is gone, with its stack, when its task ends. */
static void *join_and_vanish(void *arg) {
    go_scope s;
    go_scope_enter(&s, go_now() + 20 * GO_MICROSECOND);
    int r = go_task_join(arg, NULL);
    T_ASSERT(r == 0 || r == -ETIMEDOUT, "%d", r);
    T_EQ(go_scope_leave(&s), r);
    return t_ptr(r);
}

Test(join, a_thread_that_gave_up_may_vanish) {
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < (int)T_SCALE(300); i++) {
        pthread_t thread;
        void *r;
        go_task *t = go_task_spawn(same_later, t_ptr(i));
        T_EQ(pthread_create(&thread, NULL, join_and_vanish, t), 0);
        T_EQ(pthread_join(thread, &r), 0);
        if (r)
            T_EQ(t_int(T_JOIN(t)), i);
    }
    t_stop();
}

/* ---- errors of a spawn ----------------------------------------------------------------------- */

GTest(join, spawn_with_takes_options) {
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    o.name = "worker";
    o.stack_size = 1 << 20;
    T_EQ(t_int(T_JOIN(go_task_spawn_with(&o, same, t_ptr(6)))), 6);
    o.stack_size = 1;
    T_ASSERT(!go_task_spawn_with(&o, same, NULL));
    T_EQ(t_int(T_JOIN(go_task_spawn_with(NULL, same, t_ptr(7)))), 7);
}
