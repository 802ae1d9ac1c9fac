/* files.c - file_read: random 4 KiB reads of a file that the page cache holds, by go_pread from
 * green threads; file_read_threads: the same by pread(2) from as many threads as there are Ps, for
 * what the system call costs. The number of a block stands at both of its ends. */
#include "bench.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { READ_BLOCK = 4096, BLOCKS = 8192, READERS = 64 };

struct reads {
    int fd;
    bool green;
    int64_t each;
    go_waitgroup done;
    FILE *file;
};

static int64_t *ends(char *block, int end) {
    return (int64_t *)(void *)(block + (end ? READ_BLOCK - sizeof(int64_t) : 0));
}

static struct reads open_file(bool green, int64_t each) {
    struct reads r = {.green = green, .each = each, .file = MUST_GET(tmpfile())};
    _Alignas(int64_t) char block[READ_BLOCK] = {0};

    r.fd = fileno(r.file);
    for (int64_t i = 0; i < BLOCKS; i++) {
        *ends(block, 0) = *ends(block, 1) = i;
        if (pwrite(r.fd, block, sizeof block, i * READ_BLOCK) != sizeof block)
            bench_die("file_read: cannot write %d MiB into a temporary file",
                      BLOCKS * READ_BLOCK >> 20);
    }
    return r;
}

static void read_blocks(struct reads *r, uint64_t seed) {
    _Alignas(int64_t) char block[READ_BLOCK];
    uint64_t x = seed * 88172645463325252u;

    for (int64_t i = 0; i < r->each; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        int64_t at = (int64_t)(x % BLOCKS);
        ssize_t got = r->green ? go_pread(r->fd, block, sizeof block, at * READ_BLOCK)
                               : pread(r->fd, block, sizeof block, at * READ_BLOCK);
        if (got != READ_BLOCK || *ends(block, 0) != at || *ends(block, 1) != at)
            bench_die("file_read: block %lld: %zd bytes, and they begin with %lld", (long long)at,
                      got, (long long)*ends(block, 0));
    }
}

/* Each reader draws another seed. */
static _Atomic uint64_t seeds = 1;

static void read_task(void *arg) {
    struct reads *r = arg;

    read_blocks(r, seeds++);
    go_waitgroup_done(&r->done);
}

static void *read_thread(void *arg) {
    read_blocks(arg, seeds++);
    return NULL;
}

static void bench_run_file_read(struct bench_run *run) {
    struct reads r = open_file(true, (run->n + READERS - 1) / READERS);

    go_waitgroup_add(&r.done, READERS);
    bench_begin(run);
    for (int i = 0; i < READERS; i++)
        MUST(go_spawn(read_task, &r));
    MUST(go_waitgroup_wait(&r.done));
    bench_end(run, r.each * READERS);
    fclose(r.file);
}

static void bench_run_file_read_threads(struct bench_run *run) {
    enum { MOST = 1024 };
    int64_t threads = go_procs();
    struct reads r = open_file(false, (run->n + threads - 1) / threads);
    pthread_t t[MOST];

    bench_begin(run);
    for (int64_t i = 0; i < threads; i++)
        MUST(-pthread_create(&t[i], NULL, read_thread, &r));
    for (int64_t i = 0; i < threads; i++)
        MUST(-pthread_join(t[i], NULL));
    bench_end(run, r.each * threads);
    fclose(r.file);
}

const struct bench bench_files[] = {
    {.name = "file_read",
     .what = "64 tasks read random 4 KiB of a cached file by go_pread",
     .n = 400000,
     .n_max = INT64_C(1) << 40,
     .run = bench_run_file_read},
    {.name = "file_read_threads",
     .what = "the same by pread(2) in a plain thread for each P",
     .n = 400000,
     .n_max = INT64_C(1) << 40,
     .run = bench_run_file_read_threads},
    {0},
};
