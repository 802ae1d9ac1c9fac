/* chan.c: order, close, who gets what, and whose memory is touched until when. */
#include "t_unit.h"

#include "base/fault.h"
#include "sync/chan.h"

#include <sys/mman.h>

/* ---- one thread is enough -------------------------------------------------------------------- */

Test(chan, keeps_the_order_of_a_buffer_that_wraps) {
    go_chan *c = go_chan_new(sizeof(int), 7);
    int next_in = 0, next_out = 0, v;
    T_EQ(go_chan_cap(c), 7);
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < round % 8; i++, next_in++)
            T_EQ(go_chan_send(c, &next_in), 0);
        T_EQ(go_chan_len(c), round % 8);
        for (int i = 0; i < round % 8; i++, next_out++) {
            T_EQ(go_chan_recv(c, &v), 0);
            T_EQ(v, next_out);
        }
        T_EQ(go_chan_len(c), 0);
    }
    go_chan_free(c);
}

Test(chan, try_never_waits) {
    for (size_t capacity = 0; capacity < 3; capacity++) {
        go_chan *c = go_chan_new(sizeof(int), capacity);
        int v = -1;
        T_EQ(go_chan_try_recv(c, &v), -EAGAIN);
        T_EQ(v, -1);
        for (int i = 0; i < (int)capacity; i++)
            T_EQ(go_chan_try_send(c, &i), 0);
        T_EQ(go_chan_try_send(c, &v), -EAGAIN);
        for (int i = 0; i < (int)capacity; i++) {
            T_EQ(go_chan_try_recv(c, &v), 0);
            T_EQ(v, i);
        }
        T_EQ(go_chan_close(c), 0);
        T_EQ(go_chan_try_send(c, &v), -EPIPE);
        T_EQ(go_chan_try_recv(c, &v), -EPIPE);
        T_EQ(v, 0);
        go_chan_free(c);
    }
}

Test(chan, a_closed_one_is_drained_then_zero) {
    go_chan *c = go_chan_new(sizeof(int), 4);
    for (int i = 1; i <= 3; i++)
        T_EQ(go_chan_send(c, &i), 0);
    T_EQ(go_chan_close(c), 0);
    T_EQ(go_chan_close(c), -EALREADY);
    T_EQ(go_chan_send(c, &(int){9}), -EPIPE);
    for (int i = 1; i <= 3; i++) {
        int v = -1;
        T_EQ(go_chan_recv(c, &v), 0);
        T_EQ(v, i);
    }
    for (int i = 0; i < 3; i++) {
        int v = -1;
        T_EQ(go_chan_recv(c, &v), -EPIPE);
        T_EQ(v, 0);
    }
    T_EQ(go_chan_recv(c, NULL), -EPIPE);
    go_chan_free(c);
}

static void fill_pattern(unsigned char *p, size_t n, unsigned char seed) {
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)(seed + i * 7);
}

static void check_pattern(const unsigned char *p, size_t n, unsigned char seed) {
    for (size_t i = 0; i < n; i++)
        T_ASSERT(p[i] == (unsigned char)(seed + i * 7), "byte %zu of %zu", i, n);
}

static const size_t sizes[] = {0, 1, 2, 3, 4, 7, 8, 9, 16, 24, 1000, 5000};

static void send_patterns(void *arg) {
    go_chan **c = arg;
    unsigned char buf[5000];
    for (size_t s = 0; s < T_COUNT(sizes); s++)
        for (unsigned char i = 0; i < 9; i++) {
            fill_pattern(buf, sizes[s], i);
            T_EQ(go_chan_send(c[s], sizes[s] ? buf : NULL), 0);
        }
}

static void elements_arrive_whole(size_t capacity) {
    go_chan *c[T_COUNT(sizes)];
    for (size_t s = 0; s < T_COUNT(sizes); s++)
        T_ASSERT(c[s] = go_chan_new(sizes[s], capacity));
    T_EQ(go_start(NULL), 0);
    T_SPAWN(send_patterns, c);
    for (size_t s = 0; s < T_COUNT(sizes); s++)
        for (unsigned char i = 0; i < 9; i++) {
            unsigned char buf[5002];
            memset(buf, 0xee, sizeof buf);
            if (i % 4 == 3) { /* NULL drops the value */
                T_EQ(go_chan_recv(c[s], NULL), 0);
                continue;
            }
            T_EQ(go_chan_recv(c[s], buf + 1), 0);
            check_pattern(buf + 1, sizes[s], i);
            T_EQ(buf[0], 0xee);
            T_EQ(buf[sizes[s] + 1], 0xee); /* not a byte more */
        }
    t_stop();
    for (size_t s = 0; s < T_COUNT(sizes); s++)
        go_chan_free(c[s]);
}

Test(chan, elements_of_every_size_arrive_whole) {
    elements_arrive_whole(0);
    elements_arrive_whole(1);
    elements_arrive_whole(5);
}

Test(chan, sizes_that_overflow_are_refused) {
    T_ASSERT(!go_chan_new(SIZE_MAX, SIZE_MAX));
    T_ASSERT(!go_chan_new(SIZE_MAX, 2));
    T_ASSERT(!go_chan_new(2, SIZE_MAX));
    T_ASSERT(!go_chan_new(SIZE_MAX / 2 + 1, 2));
    T_ASSERT(!go_chan_new(SIZE_MAX, 1));
    T_ASSERT(!go_chan_new(1, SIZE_MAX - 8));
    go_chan *c = go_chan_new(0, SIZE_MAX); /* signals need no room */
    T_ASSERT(c);
    T_EQ(go_chan_cap(c), SIZE_MAX);
    for (int i = 0; i < 1000; i++)
        T_EQ(go_chan_send(c, NULL), 0);
    T_EQ(go_chan_len(c), 1000);
    T_EQ(go_chan_recv(c, NULL), 0);
    go_chan_free(c);
    c = go_chan_new(SIZE_MAX, 0); /* a rendezvous copies from stack to stack: no room either */
    go_chan_free(c);
}

Test(chan, out_of_memory_is_null) {
    rt_fault_arm(RT_FAULT_ALLOC, 1, false, ENOMEM);
    T_ASSERT(!go_chan_new(8, 8));
    rt_fault_disarm();
    go_chan *c = go_chan_new(8, 8);
    T_ASSERT(c);
    go_chan_free(c);
    go_chan_free(NULL);
    T_EQ(go_chan_len(NULL), 0);
    T_EQ(go_chan_cap(NULL), 0);
}

/* ---- misuse ---------------------------------------------------------------------------------- */

static void park_on(void *arg) {
    T_EQ(go_chan_recv(arg, NULL), -ECANCELED);
}

static void free_in_use(void *arg) {
    (void)arg;
    go_chan *c = go_chan_new(1, 0);
    T_SPAWN(park_on, c);
    T_AWAIT(rt_load_relaxed(&c->recvq.first));
    go_chan_free(c);
}

static void use_null(int which) {
    int v = 0;
    switch (which) {
    case 0:
        go_chan_send(NULL, &v);
        break;
    case 1:
        go_chan_recv(NULL, &v);
        break;
    case 2:
        go_chan_try_send(NULL, &v);
        break;
    case 3:
        go_chan_try_recv(NULL, &v);
        break;
    default:
        go_chan_close(NULL);
    }
}

Test(chan, misuse_is_told_and_aborts) {
    T_DIES(SIGABRT, "gort: go_chan_send: NULL channel", use_null(0));
    T_DIES(SIGABRT, "gort: go_chan_recv: NULL channel", use_null(1));
    T_DIES(SIGABRT, "gort: go_chan_try_send: NULL channel", use_null(2));
    T_DIES(SIGABRT, "gort: go_chan_try_recv: NULL channel", use_null(3));
    T_DIES(SIGABRT, "gort: go_chan_close: NULL channel", use_null(4));
    T_DIES(SIGABRT, "gort: go_chan_free", go_run(free_in_use, NULL));
}

/* ---- close ----------------------------------------------------------------------------------- */

struct closing {
    go_chan *c;
    int begun, piped, ok;
};

static void recv_until_closed(void *arg) {
    struct closing *k = arg;
    uint64_t v = 77;
    rt_fetch_add(&k->begun, 1);
    int r = go_chan_recv(k->c, &v);
    T_EQ(r, -EPIPE);
    T_EQ(v, 0);
    rt_fetch_add(&k->piped, 1);
}
static void send_until_closed(void *arg) {
    struct closing *k = arg;
    rt_fetch_add(&k->begun, 1);
    T_EQ(go_chan_send(k->c, &(uint64_t){1}), -EPIPE);
    rt_fetch_add(&k->piped, 1);
}
static void *recv_until_closed_thread(void *arg) {
    recv_until_closed(arg);
    return NULL;
}
static void *send_until_closed_thread(void *arg) {
    send_until_closed(arg);
    return NULL;
}

static void close_wakes(void (*fn)(void *), void *(*thread_fn)(void *), size_t capacity) {
    enum { GREEN = 100, THREADS = 4 };
    for (int round = 0; round < 20; round++) {
        struct closing k = {.c = go_chan_new(8, capacity)};
        pthread_t t[THREADS];
        if (fn == send_until_closed)
            for (size_t i = 0; i < capacity; i++)
                T_EQ(go_chan_send(k.c, &(uint64_t){2}), 0);
        for (int i = 0; i < GREEN; i++)
            T_SPAWN(fn, &k);
        for (int i = 0; i < THREADS; i++)
            T_EQ(pthread_create(&t[i], NULL, thread_fn, &k), 0);
        T_AWAIT(rt_load_acquire(&k.begun) >= (round % 2 ? GREEN + THREADS : 10));
        T_EQ(go_chan_close(k.c), 0);
        t_join_threads(t, THREADS);
        T_AWAIT(rt_load_acquire(&k.piped) == GREEN + THREADS);
        T_EQ(go_chan_len(k.c), fn == send_until_closed ? capacity : 0);
        T_AWAIT(t_stats().tasks_live == 0);
        go_chan_free(k.c);
    }
}

Test(chan, close_wakes_all_receivers) {
    T_EQ(go_start(NULL), 0);
    close_wakes(recv_until_closed, recv_until_closed_thread, 0);
    close_wakes(recv_until_closed, recv_until_closed_thread, 3);
    t_stop();
}

Test(chan, close_wakes_all_senders) {
    T_EQ(go_start(NULL), 0);
    close_wakes(send_until_closed, send_until_closed_thread, 0);
    close_wakes(send_until_closed, send_until_closed_thread, 3);
    t_stop();
}

/* A close in the middle of traffic: what was sent with 0 arrives, what got -EPIPE does not. */
struct traffic {
    go_chan *c;
    uint64_t sent, received;
};

static void send_until_pipe(void *arg) {
    struct traffic *k = arg;
    int r;
    while ((r = go_chan_send(k->c, &(uint64_t){1})) == 0)
        rt_fetch_add(&k->sent, 1);
    T_EQ(r, -EPIPE);
}
static void recv_until_pipe(void *arg) {
    struct traffic *k = arg;
    int r;
    uint64_t v;
    while ((r = go_chan_recv(k->c, &v)) == 0)
        rt_fetch_add(&k->received, v);
    T_EQ(r, -EPIPE);
}

Test(chan, a_close_in_full_traffic_loses_nothing) {
    T_EQ(go_start(NULL), 0);
    for (int round = 0; round < (int)T_SCALE(100); round++) {
        struct traffic k = {.c = go_chan_new(8, (size_t)round % 5)};
        for (int i = 0; i < 4; i++) {
            T_SPAWN(send_until_pipe, &k);
            T_SPAWN(recv_until_pipe, &k);
        }
        T_AWAIT(rt_load_relaxed(&k.received) > 50);
        T_EQ(go_chan_close(k.c), 0);
        T_AWAIT(t_stats().tasks_live == 0);
        T_EQ(k.sent, k.received);
        go_chan_free(k.c);
    }
    t_stop();
}

/* ---- many at once ---------------------------------------------------------------------------- */

enum { MAX_PRODUCERS = 16 };

/* Values carry their producer; each consumer checks that those of one producer come in order. */
static struct {
    go_chan *c;
    uint64_t each;
    int producers, producing;
    uint64_t sum, count;
} mpmc;

static void produce(void *arg) {
    uint64_t who = (uint64_t)t_int(arg);
    for (uint64_t i = 1; i <= mpmc.each; i++)
        T_EQ(go_chan_send(mpmc.c, &(uint64_t){who << 32 | i}), 0);
    if (rt_fetch_sub(&mpmc.producing, 1) == 1)
        T_EQ(go_chan_close(mpmc.c), 0);
}

static void consume(void *arg) {
    uint64_t last[MAX_PRODUCERS] = {0}, v, sum = 0, count = 0;
    (void)arg;
    while (go_chan_recv(mpmc.c, &v) == 0) {
        uint64_t who = v >> 32, i = v & UINT32_MAX;
        T_ASSERT(who < (uint64_t)mpmc.producers && i > last[who], "%llu of %llu after %llu",
                 (unsigned long long)i, (unsigned long long)who, (unsigned long long)last[who]);
        last[who] = i;
        sum += i;
        count++;
    }
    rt_fetch_add(&mpmc.sum, sum);
    rt_fetch_add(&mpmc.count, count);
}

static void *produce_thread(void *arg) {
    produce(arg);
    return NULL;
}
static void *consume_thread(void *arg) {
    consume(arg);
    return NULL;
}

static void everything_arrives_once(size_t capacity, int green, int threads) {
    pthread_t p[MAX_PRODUCERS], q[MAX_PRODUCERS];
    memset(&mpmc, 0, sizeof mpmc);
    mpmc.c = go_chan_new(8, capacity);
    mpmc.each = (uint64_t)T_SCALE(threads ? 500 : 5000);
    mpmc.producers = mpmc.producing = green + threads;
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < threads; i++) {
        T_EQ(pthread_create(&p[i], NULL, produce_thread, t_ptr(i)), 0);
        T_EQ(pthread_create(&q[i], NULL, consume_thread, NULL), 0);
    }
    for (int i = 0; i < green; i++) {
        T_SPAWN(produce, t_ptr(threads + i));
        T_SPAWN(consume, NULL);
    }
    t_join_threads(p, threads);
    t_join_threads(q, threads);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    uint64_t n = (uint64_t)mpmc.producers;
    T_EQ(mpmc.count, n * mpmc.each);
    T_EQ(mpmc.sum, n * (mpmc.each * (mpmc.each + 1) / 2));
    go_chan_free(mpmc.c);
}

Test(chan, everything_arrives_once_and_in_order_between_green_threads, .timeout = 120) {
    everything_arrives_once(0, 8, 0);
    everything_arrives_once(1, 8, 0);
    everything_arrives_once(64, 8, 0);
}

Test(chan, everything_arrives_once_and_in_order_between_all_kinds, .timeout = 120) {
    everything_arrives_once(0, 4, 3);
    everything_arrives_once(2, 4, 3);
    everything_arrives_once(64, 1, 4);
}

/* One producer, one consumer: values and the buffer's order, whoever of the two waits. */
static void count_to(void *arg) {
    go_chan *c = arg;
    for (uint64_t i = 1; i <= mpmc.each; i++)
        T_EQ(go_chan_send(c, &i), 0);
    T_EQ(go_chan_close(c), 0);
}

Test(chan, one_to_one_is_first_in_first_out) {
    T_EQ(go_start(NULL), 0);
    mpmc.each = (uint64_t)T_SCALE(3000);
    for (size_t capacity = 0; capacity < 4; capacity++) {
        go_chan *c = go_chan_new(8, capacity);
        T_SPAWN(count_to, c);
        uint64_t v, n = 0;
        while (go_chan_recv(c, &v) == 0)
            T_EQ(v, ++n);
        T_EQ(n, mpmc.each);
        T_AWAIT(t_stats().tasks_live == 0);
        go_chan_free(c);
    }
    t_stop();
}

/* ---- who receives the last value may free the channel ---------------------------------------- */

static void send_last(void *arg) {
    T_EQ(go_chan_send(arg, &(uint64_t){5}), 0);
}
static void *send_last_thread(void *arg) {
    send_last(arg);
    return NULL;
}

static void recv_and_free(void *arg) {
    for (int i = 0; i < (int)T_SCALE(3000); i++) {
        go_chan *c = go_chan_new(8, (size_t)i % 3);
        uint64_t v = 0;
        T_SPAWN(send_last, c);
        if (i % 2)
            go_yield(); /* then the sender is there first */
        T_EQ(go_chan_recv(c, &v), 0);
        go_chan_free(c);
        T_EQ(v, 5);
    }
    go_waitgroup_done(arg);
}

GTest(chan, the_receiver_of_the_last_value_may_free_it, .timeout = 120) {
    go_waitgroup wg = {0};
    go_waitgroup_add(&wg, 3);
    for (int i = 0; i < 3; i++)
        T_SPAWN(recv_and_free, &wg);
    T_EQ(go_waitgroup_wait(&wg), 0);
}

Test(chan, the_receiver_may_free_what_a_foreign_thread_sent_on) {
    for (int i = 0; i < (int)T_SCALE(500); i++) {
        pthread_t t;
        uint64_t v = 0;
        go_chan *c = go_chan_new(8, (size_t)i % 2);
        T_EQ(pthread_create(&t, NULL, send_last_thread, c), 0);
        T_EQ(go_chan_recv(c, &v), 0);
        go_chan_free(c);
        T_EQ(v, 5);
        T_EQ(pthread_join(t, NULL), 0);
    }
}

static void recv_closed(void *arg) {
    go_chan *c = *(go_chan **)arg;
    T_EQ(go_chan_recv(c, NULL), -EPIPE);
    go_chan_free(c);
    rt_store_release((go_chan **)arg, NULL);
}

Test(chan, the_last_receiver_of_a_closed_one_may_free_it) {
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < (int)T_SCALE(2000); i++) {
        go_chan *c = go_chan_new(8, 0), *shared = c;
        T_SPAWN(recv_closed, &shared);
        if (i % 2)
            sched_yield();
        T_EQ(go_chan_close(c), 0);
        while (rt_load_acquire(&shared))
            sched_yield();
    }
    t_stop();
}
