/* bench.h - what the benches of gort-bench share: the table entry, one repetition, the checks.
 *
 * A bench is a function that does its work once, on a green thread, between bench_begin() and
 * bench_end(); setting up and tearing down stay outside. It checks its own result and calls
 * bench_die() when that is wrong, so a number that is printed belongs to work that was done. main.c
 * repeats it, picks best and median and prints the line of JSON. */
#ifndef BENCH_H
#define BENCH_H

#include <gort.h>

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

enum { BENCH_EXTRAS = 8 };

/* The command line, defaults filled in. */
struct bench_args {
    int64_t n;           /* size of the work, in the unit of the bench's entry */
    unsigned procs;      /* 0: let the runtime choose (GORT_PROCS, else the CPUs) */
    int64_t reps;        /* repetitions that count */
    int64_t port;        /* servers; 0: the kernel chooses */
    const char *addr;    /* servers: numeric address to listen on */
    int64_t stack_kib;   /* mem: stack of a parked task, 0: the runtime's default */
    int64_t hogs;        /* preempt: 0: as many as procs */
    int64_t tasks;       /* switch: how many */
    int64_t cases;       /* select*: how many channels */
    int64_t checkpoint;  /* mixed: 1: /burn calls go_checkpoint; 0: it never calls the runtime */
    int64_t strict;      /* mixed: 1: GO_STRICT, no P is taken from who hogs it */
};

struct bench_extra {
    const char *name;
    double value;
};

/* One repetition. The bench reads args and n; bench_begin() and bench_end() fill the rest. */
struct bench_run {
    const struct bench_args *args;
    int64_t n;
    int64_t ops;
    int64_t ns;
    double ns_per_op; /* ns / ops, unless the bench sets something else after bench_end() */
    double cpu_s;     /* user and system time of the whole process */
    int64_t steals;   /* -1: the runtime does not say */
    bool has_result;
    int64_t result;
    unsigned extras;
    struct bench_extra extra[BENCH_EXTRAS];
};

struct bench {
    const char *name;
    const char *what;  /* one line for --help */
    const char *keys;  /* key=value options it knows, each followed by a blank; reps goes without */
    int64_t n;         /* default size */
    int64_t n_max;
    unsigned procs;    /* default, when neither --procs nor GORT_PROCS says; 0: all */
    bool one_p;        /* always on one P, strictly, whatever --procs and GORT_PROCS say */
    bool warm_full;    /* the warm-up has the full size, not a tenth of it */
    bool once;         /* a second run in the same process would measure something else */
    void (*run)(struct bench_run *);          /* a measured bench, on a green thread */
    void (*serve)(const struct bench_args *); /* a server, on the main thread: until SIGTERM */
};

/* The table: one array for each file, ended by an entry without a name. */
extern const struct bench bench_switch_spawn[];
extern const struct bench bench_chan[];
extern const struct bench bench_select[];
extern const struct bench bench_locks[];
extern const struct bench bench_scope[];
extern const struct bench bench_compute[];
extern const struct bench bench_gen[];
extern const struct bench bench_timers_mem[];
extern const struct bench bench_hogs[];
extern const struct bench bench_idleconn[];
extern const struct bench bench_files[];
extern const struct bench bench_servers[];

/* The measured part of a repetition; ops as bench.md counts them. */
void bench_begin(struct bench_run *run);
void bench_end(struct bench_run *run, int64_t ops);

void bench_result(struct bench_run *run, int64_t result);
void bench_add_extra(struct bench_run *run, const char *name, double value);

/* Say what is wrong on stderr and end the process with status 1, from any thread. */
_Noreturn void bench_die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

void bench_sort(int64_t *values, size_t count);

/* Sort late_ns and add its median, 99th percentile and maximum under these names (literals), in
 * us. */
void bench_add_lateness(struct bench_run *run, const char *const names[3], int64_t *late_ns,
                        size_t count);

/* Bytes of a "Key: 123 kB" line of a /proc file, -1 when there is none. One thread at a time. */
int64_t bench_proc_bytes(const char *path, const char *key);
/* Pages in memory, exactly; and their page tables. */
int64_t bench_resident_bytes(void);
int64_t bench_page_table_bytes(void);

_Noreturn void bench_die_call(const char *call, int64_t rc);

/* A call that cannot fail in a bench: what it returned, or the end of the process. */
#define MUST(call) bench_must((call), #call)

static inline int64_t bench_must(int64_t rc, const char *call)
{
    if (__builtin_expect(rc < 0, 0))
        bench_die_call(call, rc);
    return rc;
}

/* The same for constructors, which say NULL. */
#define MUST_GET(call) bench_must_get((call), #call)

static inline void *bench_must_get(void *made, const char *call)
{
    if (__builtin_expect(made == NULL, 0))
        bench_die("%s: NULL", call);
    return made;
}

/* Receive until the channel is closed and drained: true with a value, false at the end. */
static inline bool bench_receive(go_chan *c, int64_t *value)
{
    int rc = go_chan_recv(c, value);

    if (rc == -EPIPE)
        return false;
    bench_must(rc, "go_chan_recv");
    return true;
}

#endif
