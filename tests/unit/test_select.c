/* select.c: exactly one case happens, each that could with the same chance, and nothing is left. */
#include "t_unit.h"

#include "base/fault.h"
#include "sched/park.h"

#include <limits.h>
#include <math.h>

static go_chan *new_chan(size_t capacity) {
    go_chan *c = go_chan_new(sizeof(int), capacity);
    T_ASSERT(c);
    return c;
}

static go_chan *full_chan(size_t capacity, int value) {
    go_chan *c = new_chan(capacity);
    for (size_t i = 0; i < capacity; i++)
        T_EQ(go_chan_try_send(c, &value), 0);
    return c;
}

/* Nobody waits on c, in neither direction: go_chan_free aborts otherwise. */
static void free_all(go_chan **c, int n) {
    for (int i = 0; i < n; i++)
        go_chan_free(c[i]);
}

static bool is_parked(struct rt_g **g) {
    struct rt_g *who = rt_load_acquire(g);
    return who && RT_WAIT_STATE(rt_load_acquire(&who->wait)) == RT_WAITING &&
           who->waiting_for == RT_WHY_SELECT;
}

/* ---- one thread is enough, and no runtime ---------------------------------------------------- */

Test(select, polls) {
    go_chan *c[] = {new_chan(1), full_chan(1, 5), new_chan(0)};
    int v = -1;
    struct go_case k[] = {GO_CASE_RECV(c[0], &v), GO_CASE_SEND(c[1], &v), GO_CASE_RECV(c[2], &v),
                          GO_CASE_SEND(c[2], &v), GO_CASE_RECV(NULL, &v)};
    for (size_t i = 0; i < T_COUNT(k); i++)
        k[i].result = 77;
    for (size_t n = 0; n <= T_COUNT(k); n++)
        T_EQ(go_select(k, n, GO_NOW), -EAGAIN);
    T_EQ(go_select(NULL, 0, GO_NOW), -EAGAIN);
    T_EQ(v, -1);
    for (size_t i = 0; i < T_COUNT(k); i++)
        T_EQ(k[i].result, 77);
    T_EQ(go_chan_try_send(c[0], &(int){3}), 0);
    T_EQ(go_select(k, T_COUNT(k), GO_NOW), 0);
    T_EQ(k[0].result, 0);
    T_EQ(k[1].result, 77);
    T_EQ(v, 3);
    k[1] = (struct go_case)GO_CASE_RECV(c[1], &v);
    T_EQ(go_select(k, T_COUNT(k), GO_NOW), 1);
    T_EQ(v, 5);
    free_all(c, 3);
}

Test(select, sends_what_stands_there_when_it_happens) {
    go_chan *c = new_chan(1);
    int value = 4, got = 0;
    struct go_case k[] = {GO_CASE_RECV(NULL, NULL), GO_CASE_SEND(c, &value)};
    value = 6;
    T_EQ(go_select(k, 2, GO_FOREVER), 1);
    T_EQ(k[1].result, 0);
    T_EQ(go_chan_try_recv(c, &got), 0);
    T_EQ(got, 6);
    go_chan_free(c);
}

Test(select, elements_of_no_size_and_dropped_values) {
    go_chan *signal = go_chan_new(0, 2), *c = full_chan(2, 3);
    struct go_case k[] = {GO_CASE_SEND(signal, NULL), GO_CASE_RECV(c, NULL)};
    for (int i = 0; i < 4; i++)
        T_ASSERT(go_select(k, 2, GO_FOREVER) >= 0);
    T_EQ(go_select(k, 2, GO_NOW), -EAGAIN);
    T_EQ(go_chan_len(signal), 2);
    T_EQ(go_chan_len(c), 0);
    go_chan_free(signal);
    go_chan_free(c);
}

Test(select, a_closed_channel_is_always_ready) {
    go_chan *c = full_chan(2, 8), *open = new_chan(0);
    int v = -1;
    T_EQ(go_chan_close(c), 0);
    struct go_case k[] = {GO_CASE_RECV(open, &v), GO_CASE_RECV(c, &v)};
    for (int i = 0; i < 2; i++) { /* drained first */
        T_EQ(go_select(k, 2, GO_FOREVER), 1);
        T_EQ(k[1].result, 0);
        T_EQ(v, 8);
    }
    for (int i = 0; i < 2; i++) {
        v = -1;
        T_EQ(go_select(k, 2, i ? GO_NOW : GO_FOREVER), 1);
        T_EQ(k[1].result, -EPIPE);
        T_EQ(v, 0);
    }
    k[1] = (struct go_case)GO_CASE_RECV(c, NULL);
    T_EQ(go_select(k, 2, GO_FOREVER), 1);
    T_EQ(k[1].result, -EPIPE);
    k[0] = (struct go_case)GO_CASE_SEND(c, &v);
    T_EQ(go_select(k, 1, GO_FOREVER), 0);
    T_EQ(k[0].result, -EPIPE);
    go_chan_free(c);
    go_chan_free(open);
}

Test(select, more_cases_than_an_int_can_count_are_refused) {
    T_EQ(go_select(NULL, (size_t)INT_MAX + 1, GO_NOW), -EINVAL);
    T_EQ(go_select(NULL, SIZE_MAX, GO_FOREVER), -EINVAL);
}

Test(select, deadlines_that_are_over_wait_for_nothing) {
    go_chan *c = new_chan(0);
    struct go_case k[] = {GO_CASE_SEND(c, &(int){1}), GO_CASE_RECV(c, NULL)};
    T_EQ(go_select(k, 2, go_now() - 1), -ETIMEDOUT);
    T_EQ(go_select(k, 2, 1), -ETIMEDOUT);
    T_EQ(go_select(k, 2, -5), -ETIMEDOUT);
    T_EQ(go_select(NULL, 0, 1), -ETIMEDOUT);
    T_EQ(go_chan_close(c), 0);
    T_ASSERT(go_select(k, 2, 1) >= 0); /* what can be done is done */
    go_chan_free(c);
}

/* ---- the choice ------------------------------------------------------------------------------ */

/* counts[i] of n, `draws` in all, each with chance 1/n: within six standard deviations. */
static void check_even(const int *counts, int n, int draws) {
    double mean = (double)draws / n, sigma = sqrt(mean * (1 - 1.0 / n));
    for (int i = 0; i < n; i++)
        T_ASSERT(fabs(counts[i] - mean) <= 6 * sigma + 1, "case %d of %d: %d times in %d", i, n,
                 counts[i], draws);
}

/* n cases, of which each of the first `ready` can always be done: a full buffer that is filled
 * again, an empty one that is emptied again, a closed channel. The others never can. */
static void choose_evenly(int n, int ready, bool slow) {
    enum { MOST = 64 };
    go_chan *c[MOST];
    struct go_case k[MOST];
    int counts[MOST] = {0}, v = 1;
    int draws = (int)T_SCALE(500) * ready;
    for (int i = 0; i < n; i++) {
        int kind = i < ready ? i % 3 : 3;
        c[i] = kind == 0 ? full_chan(1, 1) : new_chan(kind == 1);
        if (kind == 1)
            k[i] = (struct go_case)GO_CASE_SEND(c[i], &v);
        else
            k[i] = (struct go_case)GO_CASE_RECV(c[i], &v);
        if (kind == 2)
            go_chan_close(c[i]);
    }
    for (int i = 0; i < draws; i++) {
        int r = go_select(k, (size_t)n, slow ? GO_FOREVER : GO_NOW);
        T_ASSERT(r >= 0 && r < ready, "%d", r);
        counts[r]++;
        if (r % 3 == 0)
            T_EQ(go_chan_try_send(c[r], &v), 0);
        else if (r % 3 == 1)
            T_EQ(go_chan_try_recv(c[r], &v), 0);
    }
    check_even(counts, ready, draws);
    free_all(c, n);
}

Test(select, each_ready_case_has_the_same_chance) {
    choose_evenly(1, 1, true);
    choose_evenly(2, 2, true);
    choose_evenly(3, 3, false);
    choose_evenly(4, 4, true);
    choose_evenly(9, 3, false);
    choose_evenly(64, 64, true);
    choose_evenly(64, 10, true);
}

Test(select, the_same_channel_in_several_cases_has_several_chances) {
    go_chan *c[2] = {full_chan(1, 1), full_chan(1, 1)};
    int v = 1, counts[4] = {0}, draws = (int)T_SCALE(3000);
    struct go_case k[] = {GO_CASE_RECV(c[0], &v), GO_CASE_RECV(c[1], &v), GO_CASE_RECV(c[0], &v),
                          GO_CASE_RECV(c[0], &v)};
    for (int i = 0; i < draws; i++) {
        int r = go_select(k, 4, GO_FOREVER);
        counts[r]++;
        T_EQ(go_chan_try_send(k[r].chan, &v), 0);
    }
    check_even(counts, 4, draws);
    free_all(c, 2);
}

/* ---- parked ---------------------------------------------------------------------------------- */

/* Selects over n channels, receiving from the even and sending on the odd ones, again and again;
 * somebody else makes one case after the other happen, in a shuffled order. */
struct many {
    int n, rounds;
    go_chan **c;
    struct rt_g *g;
    int now;    /* the round that is being waited for */
    int target; /* the case that shall happen in it */
    int closed; /* all cases from here on were closed */
};

static void select_many(void *arg) {
    struct many *m = arg;
    struct go_case *k = calloc((size_t)m->n, sizeof *k);
    int *v = calloc((size_t)m->n, sizeof *v);
    T_ASSERT(k && v);
    for (int i = 0; i < m->n; i++)
        if (i % 2)
            k[i] = (struct go_case)GO_CASE_SEND(m->c[i], &v[i]);
        else
            k[i] = (struct go_case)GO_CASE_RECV(m->c[i], &v[i]);
    for (int round = 0; round < m->rounds; round++) {
        for (int i = 0; i < m->n; i++) {
            k[i].result = 77;
            v[i] = i % 2 ? i + round : -1;
        }
        rt_store_release(&m->g, rt_self());
        int r = go_select(k, (size_t)m->n, GO_FOREVER);
        rt_store_release(&m->g, NULL);
        T_EQ(r, rt_load_acquire(&m->target));
        for (int i = 0; i < m->n; i++)
            T_EQ(k[i].result, i == r ? 0 : 77);
        for (int i = 0; i < m->n; i += 2)
            T_EQ(v[i], i == r ? r + round : -1);
        rt_store_release(&m->now, round + 1);
    }
    free(k);
    free(v);
}

/* In no order of addresses. */
static go_chan **new_chans(int n, uint64_t *seed) {
    go_chan **c = calloc((size_t)n, sizeof(go_chan *));
    T_ASSERT(c);
    for (int i = 0; i < n; i++) {
        int j = (int)(t_random(seed) % (uint64_t)(i + 1));
        c[i] = c[j];
        c[j] = new_chan(0);
    }
    return c;
}

static void *select_many_thread(void *arg) {
    select_many(arg);
    return NULL;
}

static void drive_many(int n, int rounds, bool wait_for_park, bool thread) {
    uint64_t seed = 5;
    struct many m = {.n = n, .rounds = rounds, .c = new_chans(n, &seed)};
    pthread_t t;
    if (thread)
        T_EQ(pthread_create(&t, NULL, select_many_thread, &m), 0);
    else
        T_SPAWN(select_many, &m);
    for (int round = 0; round < rounds; round++) {
        int i = (int)(t_random(&seed) % (uint64_t)n), v = i + round;
        rt_store_release(&m.target, i);
        if (wait_for_park)
            T_AWAIT(is_parked(&m.g));
        T_EQ(i % 2 ? go_chan_recv(m.c[i], &v) : go_chan_send(m.c[i], &v), 0);
        T_EQ(v, i + round);
        T_AWAIT(rt_load_acquire(&m.now) == round + 1);
    }
    if (thread)
        T_EQ(pthread_join(t, NULL), 0);
    else
        T_AWAIT(t_stats().tasks_live == 0);
    free_all(m.c, n);
    free(m.c);
}

Test(select, parks_and_is_woken_by_the_one_case_that_happens) {
    static const int sizes[] = {1, 2, 3, 8, 9, 64, 1000};
    T_EQ(go_start(NULL), 0);
    for (size_t i = 0; i < T_COUNT(sizes); i++)
        for (int parked = 0; parked < 2; parked++)
            drive_many(sizes[i], (int)T_SCALE(sizes[i] > 100 ? 20 : 100), parked, false);
    t_stop();
}

Test(select, works_on_threads_before_during_and_after_the_runtime) {
    drive_many(2, (int)T_SCALE(100), true, true);
    drive_many(20, (int)T_SCALE(100), false, true);
    T_EQ(go_start(NULL), 0);
    drive_many(3, (int)T_SCALE(100), true, true);
    drive_many(9, (int)T_SCALE(100), false, true);
    t_stop();
    drive_many(8, (int)T_SCALE(100), true, true);
    drive_many(9, (int)T_SCALE(20), true, true);
}

static void poll_in_child(void) {
    go_chan *c[] = {new_chan(1), new_chan(0)};
    int v = 3;
    struct go_case k[] = {GO_CASE_RECV(c[0], &v), GO_CASE_SEND(c[1], &v)};
    T_EQ(go_select(k, 2, GO_NOW), -EAGAIN);
    T_EQ(go_chan_send(c[0], &(int){9}), 0);
    T_EQ(go_select(k, 2, GO_FOREVER), 0);
    T_EQ(v, 9);
    T_EQ(go_select(k, 2, go_now() + GO_MILLISECOND), -ETIMEDOUT);
    free_all(c, 2);
}

Test(select, works_in_a_forked_child) {
    t_in_child(poll_in_child);
}

/* Parked on the same channels several times, in both directions. */
struct same {
    go_chan *c[2];
    struct rt_g *g;
    int rounds, done;
    int counts[6];
};

static void select_same(void *arg) {
    struct same *s = arg;
    for (int i = 0; i < s->rounds; i++) {
        int in = -1, out = i;
        struct go_case k[] = {GO_CASE_RECV(s->c[0], &in), GO_CASE_SEND(s->c[1], &out),
                              GO_CASE_RECV(s->c[0], &in), GO_CASE_RECV(s->c[1], &in),
                              GO_CASE_RECV(s->c[0], &in), GO_CASE_SEND(s->c[1], &out)};
        rt_store_release(&s->g, rt_self());
        int r = go_select(k, 6, GO_FOREVER);
        rt_store_release(&s->g, NULL);
        T_ASSERT(r >= 0, "%d", r);
        T_EQ(in, k[r].send ? -1 : i);
        s->counts[r]++;
        rt_store_release(&s->done, i + 1);
    }
}

Test(select, parked_on_one_channel_in_several_cases_it_does_one_of_them) {
    struct same s = {.c = {new_chan(0), new_chan(0)}, .rounds = (int)T_SCALE(1200)};
    int draws[3] = {0};
    T_EQ(go_start(NULL), 0);
    T_SPAWN(select_same, &s);
    for (int i = 0; i < s.rounds; i++) {
        int v = i, way = i % 3;
        T_AWAIT(is_parked(&s.g));
        int r = way == 0   ? go_chan_try_send(s.c[0], &v)
                : way == 1 ? go_chan_try_send(s.c[1], &v)
                           : go_chan_try_recv(s.c[1], &v);
        T_EQ(r, 0);
        T_EQ(v, i);
        draws[way]++;
        T_AWAIT(rt_load_acquire(&s.done) == i + 1);
    }
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    check_even((int[]){s.counts[0], s.counts[2], s.counts[4]}, 3, draws[0]);
    T_EQ(s.counts[3], draws[1]);
    check_even((int[]){s.counts[1], s.counts[5]}, 2, draws[2]);
    free_all(s.c, 2);
}

/* ---- the scope, the deadline ----------------------------------------------------------------- */

/* Selects that nothing ever ends but time or a cancel. */
enum how { NO_CASES, NULL_CASES, TWO, TWENTY, HOWS };

static int select_nothing(enum how how, go_chan **c, int64_t deadline) {
    struct go_case k[20];
    int v = 1;
    for (int i = 0; i < 20; i++)
        if (how == NULL_CASES)
            k[i] = (struct go_case)GO_CASE_RECV(NULL, &v);
        else if (i % 2)
            k[i] = (struct go_case)GO_CASE_SEND(c[i % 7], &v);
        else
            k[i] = (struct go_case)GO_CASE_RECV(c[i % 7], &v);
    size_t n[HOWS] = {0, 20, 2, 20};
    int r = go_select(k, n[how], deadline);
    T_EQ(v, 1);
    return r;
}

static void run_out_of_time(void *arg) {
    go_chan *c[7];
    (void)arg;
    for (int i = 0; i < 7; i++)
        c[i] = new_chan(0);
    for (int i = 0; i < HOWS * 4; i++) {
        enum how how = (enum how)(i % HOWS);
        go_scope s;
        int64_t own = go_now() + GO_MILLISECOND;
        T_EQ(select_nothing(how, c, own), -ETIMEDOUT);
        T_ASSERT(go_now() >= own);
        /* The scope's deadline, while it waits and on entry: with a deadline of its own, without
         * one, and a poll. */
        go_scope_enter(&s, go_now() + GO_MILLISECOND);
        T_EQ(select_nothing(how, c, i % 2 ? GO_FOREVER : go_now() + GO_MINUTE), -ECANCELED);
        T_EQ(select_nothing(how, c, GO_FOREVER), -ECANCELED);
        T_EQ(select_nothing(how, c, GO_NOW), -ECANCELED);
        T_EQ(go_canceled(), -ETIMEDOUT);
        T_EQ(go_scope_leave(&s), -ETIMEDOUT);
        /* A scope that has time. */
        go_scope_enter(&s, go_now() + GO_MINUTE);
        T_EQ(select_nothing(how, c, go_now() + 100 * GO_MICROSECOND), -ETIMEDOUT);
        T_EQ(select_nothing(how, c, GO_NOW), -EAGAIN);
        T_EQ(go_scope_leave(&s), 0);
        /* A cancelled one. */
        go_scope_enter(&s, GO_FOREVER);
        go_scope_cancel(&s);
        T_EQ(select_nothing(how, c, GO_FOREVER), -ECANCELED);
        T_EQ(select_nothing(how, c, 1), -ECANCELED);
        T_EQ(go_scope_leave(&s), -ECANCELED);
    }
    free_all(c, 7);
}

static void *run_out_of_time_thread(void *arg) {
    run_out_of_time(arg);
    return arg;
}

GTest(select, its_own_deadline_is_etimedout_the_scopes_is_ecanceled) {
    run_out_of_time(NULL);
}

Test(select, deadlines_on_a_thread) {
    t_threads(2, run_out_of_time_thread);
}

struct cancelled {
    go_chan *c[7];
    go_scope scope;
    struct rt_g *g;
    int how, done;
};

static void *select_until_cancelled(void *arg) {
    struct cancelled *k = arg;
    go_scope_enter(&k->scope, GO_FOREVER);
    rt_store_release(&k->g, rt_self());
    T_EQ(select_nothing((enum how)k->how, k->c, k->how % 2 ? GO_FOREVER : go_now() + GO_MINUTE),
         -ECANCELED);
    T_AWAIT(rt_load_acquire(&k->done));
    T_EQ(go_scope_leave(&k->scope), -ECANCELED);
    return NULL;
}

static void cancel_selects(bool thread) {
    for (int i = 0; i < (int)T_SCALE(100); i++) {
        struct cancelled k = {.how = i % HOWS};
        pthread_t t;
        for (int j = 0; j < 7; j++)
            k.c[j] = new_chan(0);
        go_task *task = thread ? NULL : go_task_spawn(select_until_cancelled, &k);
        if (thread)
            T_EQ(pthread_create(&t, NULL, select_until_cancelled, &k), 0);
        T_AWAIT(rt_load_acquire(&k.g));
        if (i % 8 < 4)
            T_AWAIT(is_parked(&k.g));
        go_scope_cancel(&k.scope);
        rt_store_release(&k.done, 1);
        if (thread)
            T_EQ(pthread_join(t, NULL), 0);
        else
            T_JOIN(task);
        free_all(k.c, 7);
    }
}

GTest(select, a_cancel_ends_it_and_takes_it_off_everything) {
    cancel_selects(false);
}

Test(select, a_cancel_ends_it_on_a_thread) {
    T_EQ(go_start(NULL), 0);
    cancel_selects(true);
    t_stop();
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void send_one(void *arg) {
    T_EQ(go_chan_send(arg, &(int){4}), 0);
}

GTest(select, eight_cases_need_no_memory_and_more_only_to_wait) {
    go_chan *c[12];
    struct go_case k[12];
    int v;
    for (int i = 0; i < 12; i++) {
        c[i] = new_chan(0);
        k[i] = (struct go_case)GO_CASE_RECV(c[i], &v);
    }
    T_SPAWN(send_one, c[7]);
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM);
    T_EQ(go_select(k, 8, GO_FOREVER), 7);
    T_EQ(go_select(k, 8, GO_NOW), -EAGAIN);
    T_EQ(go_select(k, 12, GO_FOREVER), -ENOMEM);
    T_EQ(go_select(k, 12, GO_NOW), -ENOMEM);
    rt_fault_disarm();
    T_SPAWN(send_one, c[11]);
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM);
    while (go_select(k, 12, GO_FOREVER) == -ENOMEM) /* until the sender is there: that needs none */
        go_yield();
    rt_fault_disarm();
    T_EQ(v, 4);
    free_all(c, 12);
}

/* The first deadline on a P makes its heap of timers. */
GTest(select, no_memory_for_the_deadline_leaves_nothing_behind) {
    go_chan *c[2] = {new_chan(0), new_chan(0)};
    int v = 1, r;
    struct go_case k[] = {GO_CASE_RECV(c[0], &v), GO_CASE_SEND(c[1], &v)};
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM);
    r = go_select(k, 2, go_now() + GO_MINUTE);
    rt_fault_disarm();
    T_EQ(r, -ENOMEM);
    T_EQ(go_chan_try_send(c[0], &v), -EAGAIN);
    T_EQ(go_chan_try_recv(c[1], &v), -EAGAIN);
    free_all(c, 2);
}

/* ---- deadlock, misuse ------------------------------------------------------------------------ */

static void wait_for_nothing(void *arg) {
    int v;
    go_chan *c[] = {new_chan(0), new_chan(0)};
    struct go_case k[] = {GO_CASE_RECV(c[0], &v), GO_CASE_RECV(c[1], &v)};
    T_EQ(go_select(k, arg ? 2 : 0, GO_FOREVER), -ECANCELED);
    free_all(c, 2);
}

static void deadlocks(void) {
    char text[4096];
    for (intptr_t i = 0; i < 2; i++) {
        struct t_stderr s = t_stderr_begin();
        int r = go_run(wait_for_nothing, t_ptr(i));
        t_stderr_end(s, text, sizeof text);
        T_EQ(r, -EDEADLK);
        T_ASSERT(strstr(text, "go_run: select"), "%s", text);
    }
}

Test(select, a_deadlock_is_told) {
    T_IN_CHILD_ALONE(deadlocks);
}

static struct rt_g *waiting;

static void wait_on(void *arg) {
    go_chan *other = new_chan(0);
    struct go_case k[] = {GO_CASE_SEND(arg, &(int){1}), GO_CASE_RECV(other, NULL)};
    rt_store_release(&waiting, rt_self());
    go_select(k, 2, GO_FOREVER);
    go_chan_free(other);
}

static void free_in_use(void *arg) {
    (void)arg;
    go_chan *c = new_chan(0);
    T_SPAWN(wait_on, c);
    T_AWAIT(is_parked(&waiting));
    go_chan_free(c);
}

Test(select, a_channel_in_a_select_is_in_use) {
    T_DIES(SIGABRT, "gort: go_chan_free", go_run(free_in_use, NULL));
}
