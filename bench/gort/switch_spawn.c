/* switch_spawn.c - what a green thread costs: to switch to, to start, to wait for. */
#include "bench.h"

enum { BATCH = 1000 };

/* switch: two tasks (or tasks=N) on one P. While the starter waits they are the only ones that can
 * run, so every yield is a switch to the other. A short run with a log proves it; in the measured
 * one the log would be measured too. */

enum { SWITCH_LOG = 4096 };

struct switcher {
    int64_t yields;
    go_waitgroup *done;
    uint8_t *log; /* NULL: no log */
    unsigned *logged;
    uint8_t me;
};

static void switch_task(void *arg)
{
    const struct switcher *s = arg;

    for (int64_t i = 0; i < s->yields; i++) {
        if (s->log)
            s->log[(*s->logged)++] = s->me;
        go_yield();
    }
    go_waitgroup_done(s->done);
}

static void switch_pair(int64_t yields_each, uint8_t *log, unsigned *logged)
{
    go_waitgroup done = {0};
    struct switcher s[2];

    go_waitgroup_add(&done, 2);
    for (int i = 0; i < 2; i++) {
        s[i] = (struct switcher){yields_each, &done, log, logged, (uint8_t)i};
        MUST(go_spawn(switch_task, &s[i]));
    }
    MUST(go_waitgroup_wait(&done));
}

static void switch_check_turns(void)
{
    uint8_t log[SWITCH_LOG];
    unsigned logged = 0;

    switch_pair(SWITCH_LOG / 2, log, &logged);
    if (logged != SWITCH_LOG)
        bench_die("switch: %u yields instead of %d", logged, SWITCH_LOG);
    for (unsigned i = 1; i < logged; i++)
        if (log[i] == log[i - 1])
            bench_die("switch: yield %u did not switch to the other task", i);
}

/* Many: they start before the time runs, and then wait for each other. */

struct crowd {
    int64_t yields;
    go_waitgroup there, go, done;
};

static void crowd_task(void *arg)
{
    struct crowd *c = arg;

    go_waitgroup_done(&c->there);
    MUST(go_waitgroup_wait(&c->go));
    for (int64_t i = 0; i < c->yields; i++)
        go_yield();
    go_waitgroup_done(&c->done);
}

static void switch_crowd(struct bench_run *run, int64_t tasks)
{
    struct crowd c = {.yields = (run->n + tasks - 1) / tasks};

    go_waitgroup_add(&c.there, (int)tasks);
    go_waitgroup_add(&c.done, (int)tasks);
    go_waitgroup_add(&c.go, 1);
    for (int64_t i = 0; i < tasks; i++)
        MUST(go_spawn(crowd_task, &c));
    MUST(go_waitgroup_wait(&c.there));
    bench_begin(run);
    go_waitgroup_done(&c.go);
    MUST(go_waitgroup_wait(&c.done));
    bench_end(run, c.yields * tasks);
}

static void bench_run_switch(struct bench_run *run)
{
    int64_t each = (run->n + 1) / 2;

    if (run->args->tasks != 2) {
        switch_crowd(run, run->args->tasks);
        return;
    }
    switch_check_turns();
    bench_begin(run);
    switch_pair(each, NULL, NULL);
    bench_end(run, each * 2);
}

/* spawn: batches, so that the tasks of a batch exist at the same time but not all n of them. */

static void spawn_task(void *arg)
{
    go_waitgroup_done(arg);
}

static void bench_run_spawn(struct bench_run *run)
{
    go_waitgroup done = {0};

    bench_begin(run);
    for (int64_t left = run->n; left > 0; left -= BATCH) {
        int batch = left < BATCH ? (int)left : BATCH;

        go_waitgroup_add(&done, batch);
        for (int i = 0; i < batch; i++)
            MUST(go_spawn(spawn_task, &done));
        MUST(go_waitgroup_wait(&done));
    }
    bench_end(run, run->n);
}

/* spawn_join: one task at a time; it hands its argument back, so that the result is looked at. */

static void *join_task(void *arg)
{
    return arg;
}

static void bench_run_spawn_join(struct bench_run *run)
{
    bench_begin(run);
    for (int64_t i = 1; i <= run->n; i++) {
        void *sent = (void *)(intptr_t)i;
        void *got = NULL;
        go_task *task = MUST_GET(go_task_spawn(join_task, sent));

        MUST(go_task_join(task, &got));
        if (got != sent)
            bench_die("spawn_join: task %lld returned %p", (long long)i, got);
    }
    bench_end(run, run->n);
}

const struct bench bench_switch_spawn[] = {
    {.name = "switch",
     .what = "2 tasks (tasks=N) yield in turn, 1 P",
     .keys = "tasks ",
     .n = 5000000,
     .n_max = INT64_C(1) << 40,
     .procs = 1,
     .one_p = true,
     .run = bench_run_switch},
    {.name = "spawn",
     .what = "spawn empty tasks in batches of 1000, wait for each batch",
     .n = 3000000,
     .n_max = INT64_C(1) << 40,
     .run = bench_run_spawn},
    {.name = "spawn_join",
     .what = "spawn one task, join it",
     .n = 2000000,
     .n_max = INT64_C(1) << 40,
     .run = bench_run_spawn_join},
    {0},
};
