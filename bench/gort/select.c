/* select.c - a select over many channels by the number of its cases, without and with a wait. */
#include "bench.h"

#include <stdlib.h>

/* Which channel is next, in C and Go alike: the high half of a 32-bit generator (Numerical Recipes)
 * times the number of channels. */
static int64_t next_of(uint32_t *seed, int64_t cases)
{
    *seed = *seed * 1664525 + 1013904223;
    return (int64_t)((uint64_t)*seed * (uint64_t)cases >> 32);
}

struct fan {
    go_chan **chan;
    struct go_case *cases;
    int64_t count;
    int64_t value; /* where every case receives */
};

static void fan_make(struct fan *f, int64_t count, size_t capacity)
{
    f->count = count;
    f->chan = MUST_GET(calloc((size_t)count, sizeof(go_chan *)));
    f->cases = MUST_GET(calloc((size_t)count, sizeof *f->cases));
    for (int64_t i = 0; i < count; i++) {
        f->chan[i] = MUST_GET(go_chan_new(sizeof f->value, capacity));
        f->cases[i] = (struct go_case)GO_CASE_RECV(f->chan[i], &f->value);
    }
}

static void fan_free(struct fan *f)
{
    for (int64_t i = 0; i < f->count; i++)
        go_chan_free(f->chan[i]);
    free(f->chan);
    free(f->cases);
}

/* Select: item i must come from that channel. */
static void fan_take(struct fan *f, int64_t from, int64_t i)
{
    int64_t at = MUST(go_select(f->cases, (size_t)f->count, GO_FOREVER));

    if (at != from || f->value != i || f->cases[at].result != 0)
        bench_die("select: item %lld of channel %lld came for item %lld of channel %lld",
                  (long long)f->value, (long long)at, (long long)i, (long long)from);
}

/* select_n: one channel has a value, which the same task has put there; nobody waits. */

static void bench_run_select_n(struct bench_run *run)
{
    struct fan fan;
    uint32_t seed = 1;
    int64_t sum = 0;

    fan_make(&fan, run->args->cases, 1);
    bench_begin(run);
    for (int64_t i = 0; i < run->n; i++) {
        int64_t to = next_of(&seed, fan.count);

        MUST(go_chan_send(fan.chan[to], &i));
        fan_take(&fan, to, i);
        sum += to;
    }
    bench_end(run, run->n);
    bench_result(run, sum);
    fan_free(&fan);
}

/* select_park: a value only comes once the select waits in all its channels. The partner sends by
 * a call that finds either a waiter or nobody, and gives way until there is one. */

struct partner {
    struct fan *fan;
    int64_t count;
    go_waitgroup done;
};

static void send_to_waiter(void *arg)
{
    struct partner *p = arg;
    uint32_t seed = 1;
    int rc;

    for (int64_t i = 0; i < p->count; i++) {
        go_chan *to = p->fan->chan[next_of(&seed, p->fan->count)];

        do {
            go_yield();
            rc = go_chan_try_send(to, &i);
        } while (rc == -EAGAIN);
        MUST(rc);
    }
    go_waitgroup_done(&p->done);
}

static void bench_run_select_park(struct bench_run *run)
{
    struct fan fan;
    struct partner partner = {.fan = &fan, .count = run->n};
    uint32_t seed = 1;
    int64_t sum = 0;

    fan_make(&fan, run->args->cases, 0);
    go_waitgroup_add(&partner.done, 1);
    MUST(go_spawn(send_to_waiter, &partner));
    bench_begin(run);
    for (int64_t i = 0; i < run->n; i++) {
        int64_t from = next_of(&seed, fan.count);

        fan_take(&fan, from, i);
        sum += from;
    }
    bench_end(run, run->n);
    bench_result(run, sum);
    MUST(go_waitgroup_wait(&partner.done));
    fan_free(&fan);
}

const struct bench bench_select[] = {
    {.name = "select_n",
     .what = "one task selects over cases=4 channels, one of which has a value",
     .keys = "cases ",
     .n = 5000000,
     .n_max = INT64_C(1) << 40,
     .run = bench_run_select_n},
    {.name = "select_park",
     .what = "the same over rendezvous channels: each time it waits for a partner",
     .keys = "cases ",
     .n = 2000000,
     .n_max = INT64_C(1) << 40,
     .run = bench_run_select_park},
    {0},
};
