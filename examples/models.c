/* models.c - one job on three models of threading, side by side.
 *
 *   N:1  all green threads on one OS thread: cheap, but one CPU
 *   1:1  an OS thread for each task (pthreads): all CPUs, but the kernel does every switch
 *   M:N  green threads on as many OS threads as there are CPUs
 *
 * The job: TASKS tasks that compute a little and rest a little, in turns, as those of a server do.
 * Each model has a process of its own, whose time, context switches and memory the kernel counts.
 * A task of the first and the last costs a page or two of stack, of the second a thread; and only
 * there each rest is a switch of the kernel. */
#include <errno.h>
#include <gort.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TASKS = 500, ROUNDS = 20, STEPS = 10000, REST_NS = 1000000 };

static _Atomic uint64_t sum;

static void fail(const char *what, int err) {
    fprintf(stderr, "models: %s: %s\n", what, strerror(err));
    _exit(1);
}

static uint64_t compute(uint64_t x) {
    for (int i = 0; i < STEPS; i++) { /* xorshift64, G. Marsaglia 2003 */
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
}

/* ---- green threads: N:1 and M:N -------------------------------------------------------------- */

static void green_task(void *arg) {
    uint64_t x = (uintptr_t)arg;
    for (int i = 0; i < ROUNDS; i++) {
        x = compute(x);
        go_sleep(REST_NS);
    }
    sum += x;
}

static void run_green(unsigned procs) {
    struct go_options options = GO_OPTIONS_INIT;
    go_waitgroup wg = {0};
    options.procs = procs; /* 0: as many as there are CPUs */
    int err = go_start(&options);
    for (uintptr_t i = 1; err == 0 && i <= TASKS; i++)
        err = go_waitgroup_spawn(&wg, green_task, (void *)i);
    if (err == 0)
        err = go_waitgroup_wait(&wg);
    if (err)
        fail("green threads", -err);
    go_stop(GO_SECOND);
}

static void run_n_to_1(void) {
    run_green(1);
}
static void run_m_to_n(void) {
    run_green(0);
}

/* ---- an OS thread each: 1:1 ------------------------------------------------------------------ */

static void *thread_task(void *arg) {
    uint64_t x = (uintptr_t)arg;
    for (int i = 0; i < ROUNDS; i++) {
        x = compute(x);
        nanosleep(&(struct timespec){.tv_nsec = REST_NS}, NULL);
    }
    sum += x;
    return NULL;
}

static void run_1_to_1(void) {
    static pthread_t threads[TASKS];
    for (uintptr_t i = 0; i < TASKS; i++) {
        int err = pthread_create(&threads[i], NULL, thread_task, (void *)(i + 1));
        if (err)
            fail("pthread_create", err);
    }
    for (int i = 0; i < TASKS; i++)
        pthread_join(threads[i], NULL);
}

/* ---- the table ------------------------------------------------------------------------------- */

static double ms_of(struct timeval t) {
    return (double)t.tv_sec * 1e3 + (double)t.tv_usec / 1e3;
}

/* Run it in a child; returns what it has computed. */
static uint64_t measure(const char *name, void (*run)(void)) {
    uint64_t result = 0;
    struct rusage usage;
    int ends[2], status;
    if (pipe(ends) < 0)
        fail("pipe", errno);
    int64_t begin = go_now();
    pid_t pid = fork();
    if (pid < 0)
        fail("fork", errno);
    if (pid == 0) {
        run();
        result = sum;
        _exit(write(ends[1], &result, sizeof result) == sizeof result ? 0 : 1);
    }
    if (wait4(pid, &status, 0, &usage) != pid || status != 0 ||
        read(ends[0], &result, sizeof result) != sizeof result)
        exit(1);
    printf("%-22s %8.1f ms %8.1f ms %10ld %8.1f MB\n", name, (double)(go_now() - begin) / 1e6,
           ms_of(usage.ru_utime) + ms_of(usage.ru_stime), usage.ru_nvcsw + usage.ru_nivcsw,
           (double)usage.ru_maxrss / 1024);
    close(ends[0]);
    close(ends[1]);
    return result;
}

int main(void) {
    printf("%d tasks compute and rest %d times each\n\n", TASKS, ROUNDS);
    printf("%-22s %11s %11s %10s %11s\n", "", "time", "CPU", "switches", "memory");
    fflush(stdout); /* or the children would have it, too */
    uint64_t a = measure("N:1, one OS thread", run_n_to_1);
    fflush(stdout);
    uint64_t b = measure("1:1, pthreads", run_1_to_1);
    fflush(stdout);
    uint64_t c = measure("M:N, all CPUs", run_m_to_n);
    return a == b && b == c ? 0 : 1;
}
