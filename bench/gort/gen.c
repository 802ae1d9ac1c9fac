/* gen.c - generators: values on demand from a stack of their own, without a scheduler. */
#include "bench.h"

/* gen: one generator counts, its consumer adds up. */

static void count(go_gen *g, void *arg)
{
    for (intptr_t i = 1; i <= (intptr_t)arg; i++)
        go_gen_yield(g, (void *)i);
}

static void bench_run_gen(struct bench_run *run)
{
    int64_t sum = 0;
    void *value;

    bench_begin(run);
    go_gen *g = MUST_GET(go_gen_new(count, (void *)(intptr_t)run->n));
    while (go_gen_next(g, &value) == 0)
        sum += (intptr_t)value;
    MUST(go_gen_close(g));
    bench_end(run, run->n);
    if (sum != run->n * (run->n + 1) / 2)
        bench_die("gen: the values add up to %lld", (long long)sum);
    bench_result(run, sum);
}

/* gen_new: make one, take its value, close it. */

static void bench_run_gen_new(struct bench_run *run)
{
    void *value;

    bench_begin(run);
    for (int64_t i = 0; i < run->n; i++) {
        go_gen *g = MUST_GET(go_gen_new(count, (void *)(intptr_t)1));

        MUST(go_gen_next(g, &value));
        if (value != (void *)1 || go_gen_next(g, &value) != -EPIPE)
            bench_die("gen_new: generator %lld is wrong", (long long)i);
        MUST(go_gen_close(g));
    }
    bench_end(run, run->n);
}

const struct bench bench_gen[] = {
    {.name = "gen",
     .what = "a generator counts, its consumer adds up",
     .n = 1000000,
     .n_max = INT64_C(1) << 30,
     .procs = 1,
     .run = bench_run_gen},
    {.name = "gen_new",
     .what = "make a generator, take its one value, close it",
     .n = 1000000,
     .n_max = INT64_C(1) << 40,
     .procs = 1,
     .run = bench_run_gen_new},
    {0},
};
