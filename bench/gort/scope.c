/* scope.c - what a deadline around a call costs, and a group of tasks that may fail. */
#include "bench.h"

enum { GROUP = 10 };

/* scope: a deadline, a second from now, around a receive that finds a value, which is put there
 * before. */

static void bench_run_scope(struct bench_run *run)
{
    go_chan *filled = MUST_GET(go_chan_new(sizeof(int64_t), 1));

    bench_begin(run);
    for (int64_t i = 0; i < run->n; i++) {
        go_scope scope;
        int64_t value;

        MUST(go_chan_send(filled, &i));
        go_scope_enter(&scope, go_now() + GO_SECOND);
        MUST(go_chan_recv(filled, &value));
        MUST(go_scope_leave(&scope));
        if (value != i)
            bench_die("scope: %lld came for %lld", (long long)value, (long long)i);
    }
    bench_end(run, run->n);
    go_chan_free(filled);
}

/* group: ten children, each of which leaves a number where its owner finds it. */

static int group_child(void *arg)
{
    int64_t *number = arg;

    *number *= 2;
    return 0;
}

static void bench_run_group(struct bench_run *run)
{
    int64_t rounds = (run->n + GROUP - 1) / GROUP;
    int64_t numbers[GROUP];

    bench_begin(run);
    for (int64_t round = 0; round < rounds; round++) {
        go_group group;
        int64_t sum = 0;

        go_group_enter(&group, GO_FOREVER);
        for (int i = 0; i < GROUP; i++) {
            numbers[i] = round + i;
            MUST(go_group_spawn(&group, group_child, &numbers[i]));
        }
        MUST(go_group_wait(&group));
        for (int i = 0; i < GROUP; i++)
            sum += numbers[i];
        if (sum != 2 * (GROUP * round + GROUP * (GROUP - 1) / 2))
            bench_die("group: round %lld adds up to %lld", (long long)round, (long long)sum);
    }
    bench_end(run, rounds * GROUP);
}

const struct bench bench_scope[] = {
    {.name = "scope",
     .what = "a deadline of a second around a receive that finds a value, put there before",
     .n = 10000000,
     .n_max = INT64_C(1) << 40,
     .run = bench_run_scope},
    {.name = "group",
     .what = "groups of 10 tasks that may fail: spawn, wait for all",
     .n = 2000000,
     .n_max = INT64_C(1) << 40,
     .run = bench_run_group},
    {0},
};
