/* compute.c - trees and chains of tasks: skynet, fib, sieve. */
#include "bench.h"

#include <stdatomic.h>
#include <stdlib.h>

/* skynet: a task for each node of a tree with fan-out 10, and a rendezvous channel for each inner
 * node, over which its children send their sums. A child reads its arguments from the stack of its
 * parent, which is there until all ten have sent. */

enum { FANOUT = 10 };

struct node {
    go_chan *up;
    int64_t first;
    int64_t leaves;
};

static void skynet(void *arg)
{
    const struct node *self = arg;
    int64_t sum = self->first;

    if (self->leaves > 1) {
        go_chan *sums = MUST_GET(go_chan_new(sizeof(int64_t), 0));
        int64_t share = self->leaves / FANOUT;
        struct node child[FANOUT];

        for (int i = 0; i < FANOUT; i++) {
            child[i] = (struct node){sums, self->first + i * share, share};
            MUST(go_spawn(skynet, &child[i]));
        }
        sum = 0;
        for (int i = 0; i < FANOUT; i++) {
            int64_t part;

            MUST(go_chan_recv(sums, &part));
            sum += part;
        }
        go_chan_free(sums);
    }
    MUST(go_chan_send(self->up, &sum));
}

/* The largest power of the fan-out that is not above n. */
static int64_t power_of_fanout(int64_t n)
{
    int64_t power = 1;

    while (power * FANOUT <= n)
        power *= FANOUT;
    return power;
}

static void bench_run_skynet(struct bench_run *run)
{
    go_chan *up = MUST_GET(go_chan_new(sizeof(int64_t), 0));
    int64_t leaves = power_of_fanout(run->n);
    struct node root = {up, 0, leaves};
    int64_t sum;

    bench_begin(run);
    MUST(go_spawn(skynet, &root));
    MUST(go_chan_recv(up, &sum));
    bench_end(run, leaves);
    if (sum != leaves * (leaves - 1) / 2)
        bench_die("skynet: the sum of %lld leaves is not %lld", (long long)leaves, (long long)sum);
    bench_result(run, sum);
    go_chan_free(up);
}

/* fib: a task for each call down to 2, 2 fib(n) - 1 of them. The one that was spawned last is
 * joined first, as in every fork-join program: it is the one most likely not to have been taken
 * away. */

static void *fib(void *arg)
{
    uintptr_t n = (uintptr_t)arg;
    void *x = NULL;
    void *y = NULL;

    if (n <= 2)
        return (void *)(uintptr_t)1;
    go_task *a = MUST_GET(go_task_spawn(fib, (void *)(n - 1)));
    go_task *b = MUST_GET(go_task_spawn(fib, (void *)(n - 2)));
    MUST(go_task_join(b, &y));
    MUST(go_task_join(a, &x));
    return (void *)((uintptr_t)x + (uintptr_t)y);
}

static int64_t fib_expected(int64_t n)
{
    int64_t a = 0;
    int64_t b = 1;

    for (int64_t i = 1; i < n; i++) {
        int64_t next = a + b;

        a = b;
        b = next;
    }
    return b;
}

static void bench_run_fib(struct bench_run *run)
{
    int64_t expected = fib_expected(run->n);
    void *got = NULL;

    bench_begin(run);
    go_task *root = MUST_GET(go_task_spawn(fib, (void *)(uintptr_t)run->n));
    MUST(go_task_join(root, &got));
    bench_end(run, 2 * expected - 1);
    if ((int64_t)(intptr_t)got != expected)
        bench_die("fib: %lld instead of %lld", (long long)(intptr_t)got, (long long)expected);
    bench_result(run, expected);
}

/* sieve: numbers from 2 on enter a chain of filters, one for each prime found so far; what leaves
 * it is the next prime. When the last one is out the source stops, and the end runs down the
 * chain: each filter closes its output when its input is closed and drained. */

struct filter {
    go_chan *in;
    go_chan *out;
    int64_t prime;
    struct sieve *sieve;
};

struct sieve {
    go_chan *source;
    atomic_bool enough;
    go_waitgroup done; /* the source and all filters: nobody touches a channel after it */
};

static void sieve_source(void *arg)
{
    struct sieve *s = arg;
    go_chan *out = s->source;

    for (int64_t value = 2; !atomic_load_explicit(&s->enough, memory_order_relaxed); value++)
        MUST(go_chan_send(out, &value));
    MUST(go_chan_close(out));
    go_waitgroup_done(&s->done);
}

static void sieve_filter(void *arg)
{
    const struct filter *f = arg;
    go_chan *in = f->in;
    go_chan *out = f->out;
    int64_t prime = f->prime;
    int64_t value;

    while (bench_receive(in, &value))
        if (value % prime != 0)
            MUST(go_chan_send(out, &value));
    MUST(go_chan_close(out));
    go_waitgroup_done(&f->sieve->done);
}

static bool is_prime(int64_t n)
{
    for (int64_t d = 2; d * d <= n; d++)
        if (n % d == 0)
            return false;
    return n >= 2;
}

static int64_t nth_prime(int64_t n)
{
    int64_t candidate = 1;

    while (n > 0)
        n -= is_prime(++candidate);
    return candidate;
}

static void bench_run_sieve(struct bench_run *run)
{
    size_t primes = (size_t)run->n;
    struct filter *chain = MUST_GET(calloc(primes, sizeof *chain));
    struct sieve s = {0};
    int64_t prime = 0;
    int64_t rest;

    go_waitgroup_add(&s.done, (int)primes + 1);
    bench_begin(run);
    s.source = MUST_GET(go_chan_new(sizeof(int64_t), 0));
    MUST(go_spawn(sieve_source, &s));
    go_chan *in = s.source;
    for (size_t i = 0; i < primes; i++) {
        go_chan *out = MUST_GET(go_chan_new(sizeof(int64_t), 0));

        MUST(go_chan_recv(in, &prime));
        chain[i] = (struct filter){in, out, prime, &s};
        MUST(go_spawn(sieve_filter, &chain[i]));
        in = out;
    }
    atomic_store_explicit(&s.enough, true, memory_order_relaxed);
    while (bench_receive(in, &rest))
        ;
    MUST(go_waitgroup_wait(&s.done));
    go_chan_free(s.source);
    for (size_t i = 0; i < primes; i++)
        go_chan_free(chain[i].out);
    bench_end(run, run->n);
    if (prime != nth_prime(run->n))
        bench_die("sieve: prime %lld is not %lld", (long long)run->n, (long long)prime);
    bench_result(run, prime);
    free(chain);
}

const struct bench bench_compute[] = {
    {.name = "skynet",
     .what = "n leaves (a power of 10), fan-out 10, sums through channels",
     .n = 1000000,
     .n_max = INT64_C(1000000000),
     .warm_full = true,
     .run = bench_run_skynet},
    {.name = "fib",
     .what = "fib(n), a task for each call down to 2",
     .n = 30,
     .n_max = 50,
     .warm_full = true,
     .run = bench_run_fib},
    {.name = "sieve",
     .what = "first n primes through a chain of rendezvous channels",
     .n = 1500,
     .n_max = 1000000,
     .warm_full = true,
     .run = bench_run_sieve},
    {0},
};
