/* timers_mem.c - tasks that wait: how late they wake, what they weigh. */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* timers: lateness is what passes between the moment a sleep should have ended and the moment the
 * task goes on, so it holds the wait for a P too. */

enum { SLEEPS = 5 };

struct sleeper {
    int64_t late_ns[SLEEPS];
};

struct timers {
    struct sleeper *sleepers;
    go_waitgroup done;
};

/* One for the process: a sleeper has room for its results only, so that its argument is its place
 * in them. Written by the bench before the tasks start. */
static struct timers timers;

/* splitmix64 (Steele, Lea, Flood 2014), for its good first values from neighbouring seeds. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void timers_task(void *arg)
{
    struct sleeper *self = arg;
    uint64_t random = (uint64_t)(self - timers.sleepers);

    for (int i = 0; i < SLEEPS; i++) {
        int64_t ns = GO_MILLISECOND + (int64_t)(next_random(&random) % (49 * GO_MILLISECOND + 1));
        int64_t end = go_now() + ns;

        MUST(go_sleep(ns));
        self->late_ns[i] = go_now() - end;
    }
    go_waitgroup_done(&timers.done);
}

static void bench_run_timers(struct bench_run *run)
{
    static const char *const names[] = {"late_p50_us", "late_p99_us", "late_max_us"};
    size_t tasks = (size_t)run->n;

    timers.sleepers = MUST_GET(malloc(tasks * sizeof *timers.sleepers));
    /* Its pages are touched before the clock starts. */
    memset(timers.sleepers, 0xff, tasks * sizeof *timers.sleepers);
    go_waitgroup_add(&timers.done, (int)tasks);
    bench_begin(run);
    for (size_t i = 0; i < tasks; i++)
        MUST(go_spawn(timers_task, &timers.sleepers[i]));
    MUST(go_waitgroup_wait(&timers.done));
    bench_end(run, run->n * SLEEPS);
    for (size_t i = 0; i < tasks; i++)
        for (int j = 0; j < SLEEPS; j++)
            if (timers.sleepers[i].late_ns[j] < 0)
                bench_die("timers: a sleep ended %lld ns early",
                          (long long)-timers.sleepers[i].late_ns[j]);
    bench_add_lateness(run, names, timers.sleepers[0].late_ns, tasks * SLEEPS);
    free(timers.sleepers);
    timers.sleepers = NULL;
}

/* mem: resident memory and page tables before and after n tasks have parked on a receive. */

enum { MEM_WARM = 64 };

struct parked {
    go_chan *never; /* nobody sends; closed at the end */
    go_waitgroup done;
    _Atomic int64_t started;
    _Atomic int64_t woken;
};

static void mem_task(void *arg)
{
    struct parked *p = arg;

    atomic_fetch_add_explicit(&p->started, 1, memory_order_relaxed);
    if (go_chan_recv(p->never, NULL) != -EPIPE)
        bench_die("mem: a receive ended before the channel was closed");
    atomic_fetch_add_explicit(&p->woken, 1, memory_order_relaxed);
    go_waitgroup_done(&p->done);
}

static void park_tasks(struct parked *p, const struct go_spawn_options *options, int64_t count)
{
    go_waitgroup_add(&p->done, (int)count);
    for (int64_t i = 0; i < count; i++)
        MUST(go_spawn_with(options, mem_task, p));
    while (atomic_load_explicit(&p->started, memory_order_relaxed) < count)
        go_yield();
}

/* A task says that it has started a little before it has parked. */
static void settle(void)
{
    MUST(go_sleep(50 * GO_MILLISECOND));
}

static void wake_tasks(struct parked *p, int64_t count)
{
    MUST(go_chan_close(p->never));
    MUST(go_waitgroup_wait(&p->done));
    go_chan_free(p->never);
    if (p->woken != count)
        bench_die("mem: %lld tasks woke instead of %lld", (long long)p->woken, (long long)count);
}

static void bench_run_mem(struct bench_run *run)
{
    struct go_spawn_options options = GO_SPAWN_OPTIONS_INIT;
    struct parked warm = {.never = MUST_GET(go_chan_new(0, 0))};
    struct parked p = {.never = MUST_GET(go_chan_new(0, 0))};

    options.stack_size = (size_t)run->args->stack_kib * 1024;
    park_tasks(&warm, &options, MEM_WARM);
    settle();
    wake_tasks(&warm, MEM_WARM);
    (void)bench_resident_bytes(); /* touches its own buffer and code */
    int64_t tables = bench_page_table_bytes();
    int64_t resident = bench_resident_bytes();

    bench_begin(run);
    park_tasks(&p, &options, run->n);
    bench_end(run, run->n);
    settle();
    resident = bench_resident_bytes() - resident;
    tables = bench_page_table_bytes() - tables;
    wake_tasks(&p, run->n);
    bench_add_extra(run, "bytes_per_task", (double)(resident + tables) / (double)run->n);
    bench_add_extra(run, "rss_bytes", (double)resident);
    bench_add_extra(run, "page_table_bytes", (double)tables);
}

const struct bench bench_timers_mem[] = {
    {.name = "timers",
     .what = "n tasks sleep a random 1-50 ms, 5 times",
     .n = 100000,
     .n_max = INT32_MAX,
     .warm_full = true,
     .run = bench_run_timers},
    {.name = "mem",
     .what = "park n tasks; stack=KiB",
     .keys = "stack ",
     .n = 100000,
     .n_max = INT32_MAX,
     .procs = 1,
     .once = true,
     .run = bench_run_mem},
    {0},
};
