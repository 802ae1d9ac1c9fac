/* chan.c - channels between two tasks and between many, a select over some. */
#include "bench.h"

#include <stdlib.h>

enum {
    CAPACITY = 128,
    PRODUCERS = 4,
    CONSUMERS = 4,
};

/* chan_unbuf: a round trip is two messages. */

struct pingpong {
    go_chan *ping;
    go_chan *pong;
    go_waitgroup done;
};

static void ponger(void *arg)
{
    struct pingpong *pp = arg;
    int64_t value;

    while (bench_receive(pp->ping, &value)) {
        value++;
        MUST(go_chan_send(pp->pong, &value));
    }
    go_waitgroup_done(&pp->done);
}

/* lock_thread: the same, and the one that answers has a thread for itself. */
static void locked_ponger(void *arg)
{
    go_lock_thread();
    ponger(arg); /* the end unlocks */
}

static void play(struct bench_run *run, void (*answers)(void *))
{
    int64_t rounds = (run->n + 1) / 2;
    struct pingpong pp = {
        .ping = MUST_GET(go_chan_new(sizeof(int64_t), 0)),
        .pong = MUST_GET(go_chan_new(sizeof(int64_t), 0)),
    };

    go_waitgroup_add(&pp.done, 1);
    MUST(go_spawn(answers, &pp));
    bench_begin(run);
    for (int64_t i = 0; i < rounds; i++) {
        int64_t answer;

        MUST(go_chan_send(pp.ping, &i));
        MUST(go_chan_recv(pp.pong, &answer));
        if (answer != i + 1)
            bench_die("ping-pong: %lld came back for %lld", (long long)answer, (long long)i);
    }
    bench_end(run, rounds * 2);
    MUST(go_chan_close(pp.ping));
    MUST(go_waitgroup_wait(&pp.done));
    go_chan_free(pp.ping);
    go_chan_free(pp.pong);
}

static void bench_run_chan_unbuf(struct bench_run *run)
{
    play(run, ponger);
}

static void bench_run_lock_thread(struct bench_run *run)
{
    play(run, locked_ponger);
}

/* chan_buf: one producer, one consumer, which checks that the order is kept. */

struct stream {
    go_chan *chan;
    int64_t count;
};

static void stream_producer(void *arg)
{
    const struct stream *s = arg;
    go_chan *chan = s->chan;
    int64_t count = s->count;

    for (int64_t i = 0; i < count; i++)
        MUST(go_chan_send(chan, &i));
    MUST(go_chan_close(chan));
}

static void bench_run_chan_buf(struct bench_run *run)
{
    struct stream s = {MUST_GET(go_chan_new(sizeof(int64_t), CAPACITY)), run->n};
    int64_t value;
    int64_t count = 0;

    bench_begin(run);
    MUST(go_spawn(stream_producer, &s));
    while (bench_receive(s.chan, &value)) {
        if (value != count)
            bench_die("chan_buf: item %lld is %lld", (long long)count, (long long)value);
        count++;
    }
    bench_end(run, run->n);
    if (count != run->n)
        bench_die("chan_buf: %lld items instead of %lld", (long long)count, (long long)run->n);
    go_chan_free(s.chan);
}

/* chan_mpmc: every value is sent once; that each arrived once is seen by count and sum. */

struct mpmc {
    go_chan *chan;
    go_waitgroup producers;
    go_waitgroup consumers;
};

struct mpmc_task {
    _Alignas(64) struct mpmc *shared;
    int64_t first; /* of a producer's values */
    int64_t count; /* to send, or received */
    int64_t sum;   /* of what was received */
};

static void mpmc_producer(void *arg)
{
    const struct mpmc_task *t = arg;
    go_chan *chan = t->shared->chan;

    for (int64_t v = t->first, end = t->first + t->count; v < end; v++)
        MUST(go_chan_send(chan, &v));
    go_waitgroup_done(&t->shared->producers);
}

static void mpmc_consumer(void *arg)
{
    struct mpmc_task *t = arg;
    go_chan *chan = t->shared->chan;
    int64_t value;

    while (bench_receive(chan, &value)) {
        t->count++;
        t->sum += value;
    }
    go_waitgroup_done(&t->shared->consumers);
}

static void bench_run_chan_mpmc(struct bench_run *run)
{
    int64_t each = (run->n + PRODUCERS - 1) / PRODUCERS;
    int64_t total = each * PRODUCERS;
    struct mpmc shared = {.chan = MUST_GET(go_chan_new(sizeof(int64_t), CAPACITY))};
    struct mpmc_task producer[PRODUCERS];
    struct mpmc_task consumer[CONSUMERS];
    int64_t count = 0;
    int64_t sum = 0;

    go_waitgroup_add(&shared.producers, PRODUCERS);
    go_waitgroup_add(&shared.consumers, CONSUMERS);
    bench_begin(run);
    for (int i = 0; i < CONSUMERS; i++) {
        consumer[i] = (struct mpmc_task){.shared = &shared};
        MUST(go_spawn(mpmc_consumer, &consumer[i]));
    }
    for (int i = 0; i < PRODUCERS; i++) {
        producer[i] = (struct mpmc_task){.shared = &shared, .first = i * each, .count = each};
        MUST(go_spawn(mpmc_producer, &producer[i]));
    }
    MUST(go_waitgroup_wait(&shared.producers));
    MUST(go_chan_close(shared.chan));
    MUST(go_waitgroup_wait(&shared.consumers));
    bench_end(run, total);
    for (int i = 0; i < CONSUMERS; i++) {
        count += consumer[i].count;
        sum += consumer[i].sum;
    }
    if (count != total || sum != total * (total - 1) / 2)
        bench_die("chan_mpmc: %lld items of %lld, sum %lld", (long long)count, (long long)total,
                  (long long)sum);
    go_chan_free(shared.chan);
}

/* select4: one producer for each channel; its values come in order, and the last ones are last. */

static void bench_run_select4(struct bench_run *run)
{
    int64_t cases = run->args->cases;
    int64_t each = (run->n + cases - 1) / cases;
    struct go_case *select = MUST_GET(calloc((size_t)cases, sizeof *select));
    struct stream *stream = MUST_GET(calloc((size_t)cases, sizeof *stream));
    int64_t *next = MUST_GET(calloc((size_t)cases, sizeof *next));
    int64_t value;

    for (int64_t i = 0; i < cases; i++) {
        stream[i] = (struct stream){MUST_GET(go_chan_new(sizeof value, CAPACITY)), each};
        select[i] = (struct go_case)GO_CASE_RECV(stream[i].chan, &value);
    }
    bench_begin(run);
    for (int64_t i = 0; i < cases; i++)
        MUST(go_spawn(stream_producer, &stream[i]));
    for (int64_t left = each * cases; left > 0; left--) {
        int64_t i = MUST(go_select(select, (size_t)cases, GO_FOREVER));

        if (select[i].result == -EPIPE) { /* no more from this one */
            select[i].chan = NULL;
            left++;
            continue;
        }
        if (value != next[i]++)
            bench_die("select4: item %lld of channel %lld is %lld", (long long)next[i] - 1,
                      (long long)i, (long long)value);
    }
    bench_end(run, each * cases);
    for (int64_t i = 0; i < cases; i++) {
        if (next[i] != each || go_chan_recv(stream[i].chan, NULL) != -EPIPE)
            bench_die("select4: %lld items of channel %lld", (long long)next[i], (long long)i);
        go_chan_free(stream[i].chan);
    }
    free(select);
    free(stream);
    free(next);
}

const struct bench bench_chan[] = {
    {.name = "chan_unbuf",
     .what = "ping-pong over two rendezvous channels (n messages)",
     .n = 3000000,
     .n_max = INT64_C(1) << 40,
     .run = bench_run_chan_unbuf},
    {.name = "lock_thread",
     .what = "the same with one that is locked to a thread (n messages)",
     .n = 100000,
     .n_max = INT64_C(1) << 40,
     .run = bench_run_lock_thread},
    {.name = "chan_buf",
     .what = "1 producer, 1 consumer, capacity 128, 64-bit integers",
     .n = 5000000,
     .n_max = INT64_C(1) << 40,
     .run = bench_run_chan_buf},
    {.name = "chan_mpmc",
     .what = "4 producers, 4 consumers, one channel, capacity 128",
     .n = 5000000,
     .n_max = INT64_C(1) << 31, /* the sum of the values must fit */
     .run = bench_run_chan_mpmc},
    {.name = "select4",
     .what = "one task selects over cases=4 channels with a producer each, capacity 128",
     .keys = "cases ",
     .n = 5000000,
     .n_max = INT64_C(1) << 40,
     .run = bench_run_select4},
    {0},
};
