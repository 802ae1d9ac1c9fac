/* gen.c: a generator hands out its values in order, runs as whoever asks, and leaves nothing. */
#include "t_gen.h"

/* ---- values ---------------------------------------------------------------------------------- */

static void take_all(void *arg) {
    intptr_t n = t_int(arg);
    go_gen *g = new_gen(count_to, arg);
    for (intptr_t i = 1; i <= n; i++)
        T_EQ(t_int(next_of(g)), i);
    for (int i = 0; i < 3; i++)
        must_be_over(g);
    T_EQ(go_gen_next(g, NULL), -EPIPE);
    T_EQ(go_gen_send(g, g, NULL), -EPIPE);
    T_EQ(go_gen_close(g), 0);
}

GTest(gen, values_come_in_order_and_then_epipe) {
    take_all(t_ptr(0));
    take_all(t_ptr(1));
    take_all(t_ptr(1000));
}

static void *take_all_thread(void *arg) {
    (void)arg;
    take_all(t_ptr(1000));
    return NULL;
}

Test(gen, foreign_threads_may_use_them, .timeout = 120) {
    t_start((unsigned)t_procs());
    t_threads(4, take_all_thread);
    take_all(t_ptr(100));
    t_stop();
}

GTest(gen, a_consumer_may_have_no_place_for_the_value) {
    go_gen *g = new_gen(count_to, t_ptr(3));
    T_EQ(go_gen_next(g, NULL), 0);
    T_EQ(t_int(next_of(g)), 2);
    T_EQ(go_gen_send(g, NULL, NULL), 0);
    T_EQ(go_gen_next(g, NULL), -EPIPE);
    T_EQ(go_gen_close(g), 0);
}

GTest(gen, seen_from_outside_it_is_not_closed) {
    go_gen *g = new_gen(count_to, t_ptr(1));
    for (int i = 0; i < 3; i++) { /* fresh, waiting, over */
        T_EQ(go_gen_closed(g), 0);
        go_gen_next(g, NULL);
    }
    T_EQ(go_gen_closed(g), 0);
    T_EQ(go_gen_close(g), 0);
}

Test(gen, null_is_no_generator) {
    void *v;
    T_EQ(go_gen_next(NULL, &v), -EINVAL);
    T_EQ(go_gen_send(NULL, NULL, &v), -EINVAL);
    T_EQ(go_gen_close(NULL), 0);
    T_ASSERT(!go_gen_new(NULL, NULL));
}

/* Answers each number with the sum so far. */
static void add_up(go_gen *g, void *arg) {
    intptr_t sum = t_int(arg);
    while (!go_gen_closed(g))
        sum += t_int(go_gen_yield(g, t_ptr(sum)));
}

GTest(gen, a_yield_returns_what_is_sent) {
    intptr_t sum = 100;
    void *v;
    go_gen *g = new_gen(add_up, t_ptr(sum));
    T_EQ(go_gen_send(g, t_ptr(7), &v), 0); /* it has no yield yet that could return it */
    T_EQ(t_int(v), sum);
    for (intptr_t i = 0; i < 1000; i++) {
        sum += i;
        T_EQ(go_gen_send(g, t_ptr(i), &v), 0);
        T_EQ(t_int(v), sum);
    }
    T_EQ(t_int(next_of(g)), sum); /* next sends NULL */
    T_EQ(go_gen_close(g), 0);
}

/* More values than registers, alive on both sides. */
static double mix(double *v, int round) {
    double a = v[0], b = v[1], c = v[2], d = v[3], e = v[4], f = v[5], g = v[6], h = v[7];
    a = a * 0.5 + b, b = b * 0.5 + c, c = c * 0.5 + d, d = d * 0.5 + e + round;
    e = e * 0.5 + f, f = f * 0.5 + g, g = g * 0.5 + h, h = h * 0.5 + a;
    v[0] = a, v[1] = b, v[2] = c, v[3] = d, v[4] = e, v[5] = f, v[6] = g, v[7] = h;
    return a + b + c + d + e + f + g + h;
}

static void mix_inside(go_gen *g, void *arg) {
    double v[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    for (int i = 0; i < t_int(arg); i++) {
        double sum = mix(v, i);
        go_gen_yield(g, &sum);
    }
}

GTest(gen, live_values_of_both_sides_survive) {
    double v[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    go_gen *g = new_gen(mix_inside, t_ptr(1000));
    for (int i = 0; i < 1000; i++) {
        double *theirs = next_of(g), ours = mix(v, i);
        T_ASSERT(*theirs == ours);
    }
    must_be_over(g);
    T_EQ(go_gen_close(g), 0);
}

static void use_much_stack(go_gen *g, void *arg) {
    volatile char big[160 * 1024];
    memset((void *)(uintptr_t)big, (int)t_int(arg), sizeof big);
    go_gen_yield(g, NULL);
    for (size_t i = 0; i < sizeof big; i += 1024)
        T_EQ(big[i], t_int(arg));
}

GTest(gen, each_has_a_whole_stack) {
    go_gen *g[8];
    for (int i = 0; i < 8; i++)
        next_of(g[i] = new_gen(use_much_stack, t_ptr(i)));
    for (int i = 0; i < 8; i++) {
        must_be_over(g[i]);
        T_EQ(go_gen_close(g[i]), 0);
    }
}

/* ---- nested ---------------------------------------------------------------------------------- */

/* Each stage drops the multiples of the first number that it gets: Eratosthenes. */
static void not_multiples(go_gen *g, void *arg) {
    void *v;
    intptr_t prime = t_int(next_of(arg));
    go_gen_yield(g, t_ptr(prime));
    while (!go_gen_closed(g) && go_gen_next(arg, &v) == 0)
        if (t_int(v) % prime != 0)
            go_gen_yield(g, v);
}

static void numbers_from_two(go_gen *g, void *arg) {
    (void)arg;
    for (intptr_t i = 2; !go_gen_closed(g); i++)
        go_gen_yield(g, t_ptr(i));
}

GTest(gen, a_generator_may_ask_another) {
    static const int primes[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53};
    go_gen *stage[T_COUNT(primes) + 1];
    stage[0] = new_gen(numbers_from_two, NULL);
    for (size_t i = 0; i < T_COUNT(primes); i++) {
        stage[i + 1] = new_gen(not_multiples, stage[i]);
        T_EQ(t_int(next_of(stage[i + 1])), primes[i]);
    }
    for (size_t i = T_COUNT(primes) + 1; i-- > 0;)
        T_EQ(go_gen_close(stage[i]), 0);
}

struct tree {
    int from, to;
};

/* In order: a generator on each level, each made and closed by the one above. */
static void walk(go_gen *g, void *arg) {
    struct tree *t = arg;
    if (t->from == t->to)
        return;
    int middle = (t->from + t->to) / 2;
    struct tree half[2] = {{t->from, middle}, {middle + 1, t->to}};
    for (int i = 0; i < 2; i++) {
        go_gen *below = new_gen(walk, &half[i]);
        for (void *v; go_gen_next(below, &v) == 0;)
            go_gen_yield(g, v);
        T_EQ(go_gen_close(below), 0);
        if (i == 0)
            go_gen_yield(g, t_ptr(middle));
    }
}

GTest(gen, a_tree_is_walked_by_generators_of_generators) {
    int n = crowd(500);
    struct tree all = {0, n};
    go_gen *g = new_gen(walk, &all);
    for (int i = 0; i < n; i++)
        T_EQ(t_int(next_of(g)), i);
    must_be_over(g);
    T_EQ(go_gen_close(g), 0);
}

/* ---- close ----------------------------------------------------------------------------------- */

static int begun, cleaned;

static void clean_up_at_the_end(go_gen *g, void *arg) {
    begun++;
    T_EQ(go_gen_closed(g), 0);
    for (int i = 0; i < t_int(arg) && !go_gen_closed(g); i++)
        T_ASSERT(go_gen_yield(g, t_ptr(i)) == NULL);
    cleaned++;
}

static void close_after(int values, int asked) {
    go_gen *g = new_gen(clean_up_at_the_end, t_ptr(values));
    begun = cleaned = 0;
    for (int i = 0; i < asked; i++)
        T_EQ(go_gen_next(g, NULL), i < values ? 0 : -EPIPE);
    T_EQ(begun, asked > 0);
    T_EQ(cleaned, asked > values);
    T_EQ(go_gen_close(g), 0);
    T_EQ(begun, asked > 0);
    T_EQ(cleaned, asked > 0);
}

GTest(gen, a_closed_one_goes_on_once_to_clean_up) {
    for (int asked = 0; asked <= 5; asked++)
        close_after(3, asked);
}

static go_chan *gate;

static void park_while_cleaning_up(go_gen *g, void *arg) {
    (void)arg;
    go_gen_yield(g, NULL);
    T_EQ(go_gen_closed(g), 1);
    T_EQ(go_chan_recv(gate, NULL), 0);
    cleaned++;
}

static void open_gate(void *arg) {
    (void)arg;
    T_EQ(go_chan_send(gate, NULL), 0);
}

GTest(gen, it_may_park_while_it_cleans_up) {
    gate = go_chan_new(0, 0);
    go_gen *g = new_gen(park_while_cleaning_up, NULL);
    next_of(g);
    T_SPAWN(open_gate, NULL);
    T_EQ(go_gen_close(g), 0);
    T_EQ(cleaned, 1);
    go_chan_free(gate);
}

/* ---- it runs as the caller --------------------------------------------------------------------
 */

static void yield_ids(go_gen *g, void *arg) {
    (void)arg;
    while (!go_gen_closed(g)) {
        go_yield(); /* perhaps on another thread, still the same */
        go_gen_yield(g, t_ptr((intptr_t)go_id()));
    }
}

static void *ask_for_id(void *arg) {
    T_EQ(t_int(next_of(arg)), (intptr_t)go_id());
    return NULL;
}

Test(gen, its_id_is_that_of_whoever_asks) {
    t_start((unsigned)t_procs());
    go_gen *g = new_gen(yield_ids, NULL);
    for (int i = 0; i < 100; i++) {
        T_JOIN(go_task_spawn(ask_for_id, g));
        T_EQ(t_int(next_of(g)), 0); /* a foreign thread has none */
    }
    T_EQ(go_gen_close(g), 0);
    t_stop();
}

static go_local place;

/* Finds what the caller has set, and sets the caller's. */
static void swap_local(go_gen *g, void *arg) {
    for (void *in = arg; !go_gen_closed(g);) {
        void *found = go_local_get(place);
        T_EQ(go_local_set(place, in), 0);
        go_yield(); /* perhaps on another thread, still the same */
        T_ASSERT(go_local_get(place) == in);
        in = go_gen_yield(g, found);
    }
}

static void swap(go_gen *g, intptr_t found, intptr_t in) {
    void *v;
    T_EQ(t_int(go_local_get(place)), found);
    T_EQ(go_gen_send(g, t_ptr(in), &v), 0);
    T_EQ(t_int(v), found);
    T_EQ(t_int(go_local_get(place)), in);
}

static void *swap_twice(void *arg) {
    intptr_t mine = (intptr_t)go_id() * 100; /* of a foreign thread 0 */
    swap(arg, 0, mine + 1);
    go_yield();
    swap(arg, mine + 1, mine + 2);
    return NULL;
}

GTest(gen, its_locals_are_those_of_whoever_asks) {
    go_gen *g = new_gen(swap_local, t_ptr(7));
    pthread_t t;
    T_ASSERT(place = go_local_new(NULL));
    T_EQ(go_local_set(place, t_ptr(5)), 0);
    T_EQ(t_int(next_of(g)), 5);
    T_EQ(t_int(go_local_get(place)), 7);
    for (intptr_t i = 0; i < 20; i++) {
        T_JOIN(go_task_spawn(swap_twice, g));
        swap(g, 7 + i, 8 + i);
    }
    T_EQ(pthread_create(&t, NULL, swap_twice, g), 0);
    T_EQ(pthread_join(t, NULL), 0);
    swap(g, 27, 28);
    T_EQ(go_gen_close(g), 0);
    T_EQ(t_int(go_local_get(place)), 28);
}

static void yield_results(go_gen *g, void *arg) {
    (void)arg;
    while (!go_gen_closed(g))
        go_gen_yield(g, t_ptr(go_sleep(10 * GO_MICROSECOND)));
}

static void ask_in_scopes(void) {
    go_gen *g = new_gen(yield_results, NULL);
    for (int i = 0; i < 10; i++) {
        go_scope s, t;
        T_EQ(t_int(next_of(g)), 0);
        go_scope_enter(&s, go_now() - 1);
        T_EQ(t_int(next_of(g)), -ETIMEDOUT);
        T_EQ(go_scope_leave(&s), -ETIMEDOUT);
        go_scope_enter(&s, GO_FOREVER);
        T_EQ(t_int(next_of(g)), 0);
        go_scope_enter(&t, GO_FOREVER); /* another one than at its last yield */
        go_scope_cancel(&t);
        T_EQ(t_int(next_of(g)), -ECANCELED);
        T_EQ(go_scope_leave(&t), -ECANCELED);
        T_EQ(t_int(next_of(g)), 0);
        T_EQ(go_scope_leave(&s), 0);
    }
    T_EQ(go_gen_close(g), 0);
}

GTest(gen, its_scope_is_that_of_whoever_asks) {
    ask_in_scopes();
}

static void *ask_in_scopes_thread(void *arg) {
    ask_in_scopes();
    return arg;
}

Test(gen, its_scope_is_that_of_the_foreign_thread_that_asks) {
    t_start((unsigned)t_procs());
    t_threads(2, ask_in_scopes_thread);
    t_stop();
}

/* A scope of its own, between two yields. */
static void own_scopes(go_gen *g, void *arg) {
    (void)arg;
    while (!go_gen_closed(g)) {
        go_scope s;
        go_scope_enter(&s, go_now() - 1);
        int r = go_sleep(T_NEVER);
        T_EQ(go_scope_leave(&s), -ETIMEDOUT);
        go_gen_yield(g, t_ptr(r));
    }
}

GTest(gen, it_may_enter_scopes_and_leave_them) {
    go_gen *g = new_gen(own_scopes, NULL);
    for (int i = 0; i < 10; i++)
        T_EQ(t_int(next_of(g)), -ETIMEDOUT);
    T_EQ(go_gen_close(g), 0);
}

static void receive_for_ever(go_gen *g, void *arg) {
    go_gen_yield(g, t_ptr(go_chan_recv(arg, NULL)));
}

static void *ask_until_cancelled(void *arg) {
    go_gen *g = new_gen(receive_for_ever, arg);
    T_EQ(t_int(next_of(g)), -ECANCELED);
    must_be_over(g);
    T_EQ(go_gen_close(g), 0);
    return NULL;
}

GTest(gen, a_cancel_of_the_task_that_asks_reaches_it) {
    go_chan *never = go_chan_new(0, 0);
    for (int i = 0; i < 20; i++) {
        go_task *t = go_task_spawn(ask_until_cancelled, never);
        if (i % 2)
            go_yield();
        T_EQ(go_task_cancel(t), 0);
        T_JOIN(t);
    }
    go_chan_free(never);
}

static void ask_until_stopped(void *arg) {
    ask_until_cancelled(arg);
    rt_fetch_add(&cleaned, 1);
}

Test(gen, a_stop_wakes_who_waits_inside_one) {
    go_chan *never = go_chan_new(0, 0);
    t_start((unsigned)t_procs());
    for (int i = 0; i < 50; i++)
        T_SPAWN(ask_until_stopped, never);
    T_AWAIT(t_stats().parks >= 50);
    t_stop();
    T_EQ(cleaned, 50);
    go_chan_free(never);
}

/* ---- parking inside ---------------------------------------------------------------------------
 */

static go_chan *feed;

static void double_each(go_gen *g, void *arg) {
    (void)arg;
    for (intptr_t v; go_chan_recv(feed, &v) == 0 && !go_gen_closed(g);) {
        go_sleep(v % 5 * 10 * GO_MICROSECOND);
        go_gen_yield(g, t_ptr(2 * v));
    }
}

static int64_t total;

static void sum_doubles(void *arg) {
    (void)arg;
    go_gen *g = new_gen(double_each, NULL);
    for (void *v; go_gen_next(g, &v) == 0;)
        rt_fetch_add(&total, t_int(v));
    T_EQ(go_gen_close(g), 0);
}

static void *sum_doubles_thread(void *arg) {
    sum_doubles(arg);
    return NULL;
}

Test(gen, what_parks_inside_one_is_whoever_asks, .timeout = 120) {
    enum { THREADS = 3 };
    pthread_t threads[THREADS];
    int n = crowd(20000);
    feed = go_chan_new(sizeof(intptr_t), 8);
    t_start((unsigned)t_procs());
    for (int i = 0; i < 50; i++)
        T_SPAWN(sum_doubles, NULL);
    t_start_threads(threads, THREADS, sum_doubles_thread);
    for (intptr_t i = 1; i <= n; i++)
        T_EQ(go_chan_send(feed, &i), 0);
    T_EQ(go_chan_close(feed), 0);
    t_join_threads(threads, THREADS);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    T_EQ(total, (int64_t)n * (n + 1));
    go_chan_free(feed);
}

static uint32_t taken;

static void read_bytes(go_gen *g, void *arg) {
    ssize_t n = -1;
    for (unsigned char c; n != 0 && !go_gen_closed(g);) {
        n = go_read((int)t_int(arg), &c, 1);
        if (n != 0)
            go_gen_yield(g, t_ptr(n == 1 ? c : n));
    }
}

/* Each byte when all before it were taken, and somebody waits for it. */
static void *feed_bytes(void *arg) {
    int fd = (int)t_int(arg);
    for (unsigned char i = 0; i < 100; i++) {
        T_AWAIT(rt_load_acquire(&taken) == i && t_stats().fd_waits == 1);
        T_EQ(go_write(fd, &i, 1), 1);
    }
    T_AWAIT(rt_load_acquire(&taken) == 100 && t_stats().fd_waits == 1);
    T_EQ(go_close(fd), 0);
    return NULL;
}

static void *take_bytes(void *arg) {
    for (intptr_t i = 0; i < 100; i++) {
        T_EQ(t_int(next_of(arg)), i);
        rt_store_release(&taken, (uint32_t)i + 1);
    }
    must_be_over(arg);
    return NULL;
}

Test(gen, a_read_inside_one_parks_whoever_asks) {
    t_start((unsigned)t_procs());
    for (int i = 0; i < 2; i++) {
        int fd[2];
        T_EQ(pipe(fd), 0);
        rt_store_release(&taken, 0);
        go_gen *g = new_gen(read_bytes, t_ptr(fd[0]));
        go_task *feeder = go_task_spawn(feed_bytes, t_ptr(fd[1]));
        if (i == 0)
            T_JOIN(go_task_spawn(take_bytes, g));
        else
            take_bytes(g); /* on a foreign thread */
        T_JOIN(feeder);
        T_EQ(go_gen_close(g), 0);
        T_EQ(go_close(fd[0]), 0);
    }
    t_stop();
}

static void *ask_for_a_result(void *arg) {
    return next_of(arg);
}

/* The read of one that was cancelled has taken nothing: the next who asks gets the byte. */
GTest(gen, a_cancel_ends_a_read_inside_one_and_loses_nothing) {
    int fd[2];
    T_EQ(pipe(fd), 0);
    go_gen *g = new_gen(read_bytes, t_ptr(fd[0]));
    for (int i = 0; i < 20; i++) {
        go_task *t = go_task_spawn(ask_for_a_result, g);
        T_AWAIT(t_stats().fd_waits == 1);
        T_EQ(go_task_cancel(t), 0);
        T_EQ(t_int(T_JOIN(t)), -ECANCELED);
        go_scope s;
        go_scope_enter(&s, go_now() + 200 * GO_MICROSECOND);
        T_EQ(t_int(next_of(g)), -ETIMEDOUT);
        T_EQ(go_scope_leave(&s), -ETIMEDOUT);
        T_EQ(go_write(fd[1], "x", 1), 1);
        T_EQ(t_int(next_of(g)), 'x');
    }
    T_EQ(go_gen_close(g), 0);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}

/* ---- handed on --------------------------------------------------------------------------------
 */

static struct {
    go_gen *gen;
    go_mutex lock;
    intptr_t last;
} shared;

static void count_and_wander(go_gen *g, void *arg) {
    for (intptr_t i = 1; i <= t_int(arg); i++) {
        if (i % 3 == 0)
            go_yield();
        go_gen_yield(g, t_ptr(i));
    }
}

static void take_turns(void *arg) {
    (void)arg;
    for (int r = 0; r == 0;) {
        void *v = NULL;
        go_mutex_lock(&shared.lock);
        r = go_gen_next(shared.gen, &v);
        if (r == 0)
            T_EQ(t_int(v), ++shared.last);
        go_mutex_unlock(&shared.lock);
    }
}

static void *take_turns_thread(void *arg) {
    take_turns(arg);
    return NULL;
}

Test(gen, green_and_other_threads_may_take_turns, .timeout = 120) {
    int n = crowd(20000);
    t_start((unsigned)t_procs());
    shared.gen = new_gen(count_and_wander, t_ptr(n));
    for (int i = 0; i < 8; i++)
        T_SPAWN(take_turns, NULL);
    t_threads(3, take_turns_thread);
    T_AWAIT(t_stats().tasks_live == 0);
    T_EQ(shared.last, n);
    T_EQ(go_gen_close(shared.gen), 0);
    t_stop();
}
