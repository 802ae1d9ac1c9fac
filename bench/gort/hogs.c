/* hogs.c - what others notice of a task that computes and never calls the runtime, and what it
 * costs to call go_checkpoint instead. */
#include "bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

/* preempt: hogs hold every P for n ms, and a task sleeps 1 ms again and again beside them. What is
 * the runtime's share of its lateness says a plain thread, which does the same beside as many
 * spinning threads: for n / 2 ms before the task's turn and n / 2 after it, so that it sees the
 * machine that the task sees, without being in its way. One more thread ends the hogs: the bench
 * ends even where nothing preempts them, and the task is then late by the whole time. */

struct sleeps {
    size_t count;
    size_t room;
    int64_t *late_ns;
};

struct turn {
    atomic_bool stop;
    int64_t end; /* on go_now()'s clock */
    struct sleeps *sleeps;
    go_waitgroup done; /* of the tasks */
};

static const struct timespec MILLISECOND = {0, GO_MILLISECOND};

static bool more_sleeps(const struct turn *t) {
    return go_now() < t->end && t->sleeps->count < t->sleeps->room;
}

static void spin(const struct turn *t) {
    while (!atomic_load_explicit(&t->stop, memory_order_relaxed))
        ;
}

static void hog_task(void *arg) {
    struct turn *t = arg;

    spin(t);
    go_waitgroup_done(&t->done);
}

static void sleeper_task(void *arg) {
    struct turn *t = arg;

    while (more_sleeps(t)) {
        int64_t due = go_now() + GO_MILLISECOND;

        MUST(go_sleep(GO_MILLISECOND));
        t->sleeps->late_ns[t->sleeps->count++] = go_now() - due;
    }
    go_waitgroup_done(&t->done);
}

static void *hog_thread(void *arg) {
    spin(arg);
    return NULL;
}

static void *sleeper_thread(void *arg) {
    struct turn *t = arg;

    while (more_sleeps(t)) {
        int64_t due = go_now() + GO_MILLISECOND;

        MUST(-clock_nanosleep(CLOCK_MONOTONIC, 0, &MILLISECOND, NULL));
        t->sleeps->late_ns[t->sleeps->count++] = go_now() - due;
    }
    atomic_store_explicit(&t->stop, true, memory_order_relaxed);
    return NULL;
}

static void *ender_thread(void *arg) {
    struct turn *t = arg;
    int64_t ns = t->end - go_now(); /* in one sleep: it must not be in anybody's way */
    struct timespec left = {ns / GO_SECOND, ns % GO_SECOND};

    if (ns > 0)
        MUST(-clock_nanosleep(CLOCK_MONOTONIC, 0, &left, NULL));
    atomic_store_explicit(&t->stop, true, memory_order_relaxed);
    return NULL;
}

static void plain_turn(int hogs, int64_t ns, struct sleeps *sleeps) {
    struct turn t = {.end = go_now() + ns, .sleeps = sleeps};
    pthread_t sleeper;
    pthread_t *threads = MUST_GET(calloc((size_t)hogs, sizeof *threads));

    MUST(-pthread_create(&sleeper, NULL, sleeper_thread, &t));
    for (int i = 0; i < hogs; i++)
        MUST(-pthread_create(&threads[i], NULL, hog_thread, &t));
    MUST(-pthread_join(sleeper, NULL));
    for (int i = 0; i < hogs; i++)
        MUST(-pthread_join(threads[i], NULL));
    free(threads);
}

static void task_turn(int hogs, int64_t ns, struct sleeps *sleeps) {
    struct turn t = {.end = go_now() + ns, .sleeps = sleeps};
    pthread_t ender;

    go_waitgroup_add(&t.done, hogs + 1);
    MUST(-pthread_create(&ender, NULL, ender_thread, &t));
    MUST(go_spawn(sleeper_task, &t));
    go_yield(); /* it sleeps before the hogs come */
    for (int i = 0; i < hogs; i++)
        MUST(go_spawn(hog_task, &t));
    MUST(go_waitgroup_wait(&t.done));
    MUST(-pthread_join(ender, NULL));
}

static struct sleeps room_for(int64_t ms) {
    size_t room = (size_t)ms + 2; /* one for each ms, and one in each turn that begins at its end */

    return (struct sleeps){0, room, MUST_GET(calloc(room, sizeof(int64_t)))};
}

static void bench_run_preempt(struct bench_run *run) {
    static const char *const task_names[] = {"p50_us", "p99_us", "max_us"};
    static const char *const plain_names[] = {"plain_p50_us", "plain_p99_us", "plain_max_us"};
    int hogs = run->args->hogs ? (int)run->args->hogs : (int)go_procs();
    int64_t ns = run->n * GO_MILLISECOND;
    struct sleeps task = room_for(run->n);
    struct sleeps plain = room_for(run->n);

    plain_turn(hogs, ns / 2, &plain);
    bench_begin(run);
    task_turn(hogs, ns, &task);
    bench_end(run, (int64_t)task.count);
    plain_turn(hogs, ns / 2, &plain);
    if (task.count == 0 || plain.count == 0)
        bench_die("preempt: nobody slept");
    bench_add_lateness(run, task_names, task.late_ns, task.count);
    bench_add_lateness(run, plain_names, plain.late_ns, plain.count);
    if (task.late_ns[0] < 0) /* they are sorted now */
        bench_die("preempt: a sleep ended %lld ns early", (long long)-task.late_ns[0]);
    run->ns_per_op = (double)task.late_ns[task.count / 2]; /* the median: it is no throughput */
    free(task.late_ns);
    free(plain.late_ns);
}

/* checkpoint: a loop of go_checkpoint less the same loop without it; empty_call_ns is the same for
 * a function that does nothing, so that one sees what is the call and what is the load and the
 * branch. In blocks, turn about, of which the median counts: a block in which the machine did
 * something else says nothing about them. */

enum { BLOCK = 10000 };

static __attribute__((noinline)) void empty(void) {
    __asm__ volatile(""); /* else the calls are left out */
}

/* Inlined, so that each loop calls its function by name; NULL: the loop alone. */
static inline __attribute__((always_inline)) int64_t timed(void (*call)(void)) {
    int64_t start = go_now();

    for (int i = 0; i < BLOCK; i++) {
        __asm__ volatile("" ::: "memory"); /* keeps the loop */
        if (call)
            call();
    }
    return go_now() - start;
}

static double median_per_call(int64_t *ns, size_t blocks) {
    bench_sort(ns, blocks);
    return (double)ns[blocks / 2] / BLOCK;
}

static void bench_run_checkpoint(struct bench_run *run) {
    size_t blocks = (size_t)((run->n + BLOCK - 1) / BLOCK);
    int64_t *checkpoint_ns = MUST_GET(calloc(blocks, sizeof *checkpoint_ns));
    int64_t *empty_ns = MUST_GET(calloc(blocks, sizeof *empty_ns));

    bench_begin(run);
    for (size_t i = 0; i < blocks; i++) {
        int64_t loop = timed(NULL);

        checkpoint_ns[i] = timed(go_checkpoint) - loop;
        empty_ns[i] = timed(empty) - loop;
    }
    bench_end(run, (int64_t)blocks * BLOCK);
    run->ns_per_op = median_per_call(checkpoint_ns, blocks);
    bench_add_extra(run, "empty_call_ns", median_per_call(empty_ns, blocks));
    free(checkpoint_ns);
    free(empty_ns);
}

const struct bench bench_hogs[] = {
    {.name = "preempt",
     .what = "hogs on every P beside a task that sleeps 1 ms, for n ms; hogs=COUNT",
     .keys = "hogs ",
     .n = 2000,
     .n_max = 3600000,
     .once = true,
     .run = bench_run_preempt},
    {.name = "checkpoint",
     .what = "a loop of go_checkpoint, less the empty loop",
     .n = 20000000,
     .n_max = INT32_MAX,
     .procs = 1,
     .one_p = true,
     .run = bench_run_checkpoint},
    {0},
};
