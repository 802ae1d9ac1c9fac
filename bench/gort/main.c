/* main.c - the command line of gort-bench, repetitions, and the line of JSON.
 *
 * The main thread starts the runtime, runs the bench on a green thread and waits for it; nothing of
 * this is inside the measured time. */
#include "bench.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { REPS_DEFAULT = 3, REPS_MAX = 1000, EXIT_USAGE = 2, WARM_SHARE = 10 };

static const struct bench *const families[] = {
    bench_switch_spawn, bench_chan, bench_select, bench_locks, bench_scope, bench_compute,
    bench_gen, bench_timers_mem, bench_hogs, bench_idleconn, bench_files, bench_servers,
};

void bench_die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    flockfile(stderr);
    fputs("gort-bench: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    funlockfile(stderr);
    va_end(ap);
    _exit(EXIT_FAILURE); /* not exit(): the runtime's threads still run */
}

void bench_die_call(const char *call, int64_t rc)
{
    bench_die("%s: %s", call, strerror((int)-rc));
}

static double cpu_seconds(void)
{
    struct rusage u;

    if (getrusage(RUSAGE_SELF, &u) != 0)
        bench_die("getrusage: %s", strerror(errno));
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int64_t steals_so_far(void)
{
    struct go_stats stats = GO_STATS_INIT;

    return go_stats(&stats) < 0 ? -1 : (int64_t)stats.steals;
}

/* Until bench_end() the fields hold where the counters stood. */
void bench_begin(struct bench_run *run)
{
    run->steals = steals_so_far();
    run->cpu_s = cpu_seconds();
    run->ns = go_now();
}

void bench_end(struct bench_run *run, int64_t ops)
{
    run->ns = go_now() - run->ns;
    run->cpu_s = cpu_seconds() - run->cpu_s;
    if (run->steals >= 0)
        run->steals = steals_so_far() - run->steals;
    run->ops = ops;
    run->ns_per_op = (double)run->ns / (double)ops;
}

void bench_result(struct bench_run *run, int64_t result)
{
    run->has_result = true;
    run->result = result;
}

void bench_add_extra(struct bench_run *run, const char *name, double value)
{
    if (run->extras == BENCH_EXTRAS)
        bench_die("%s: no room for another field", name);
    run->extra[run->extras++] = (struct bench_extra){name, value};
}

static int compare_int64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

void bench_sort(int64_t *values, size_t count)
{
    qsort(values, count, sizeof *values, compare_int64);
}

void bench_add_lateness(struct bench_run *run, const char *const names[3], int64_t *late_ns,
                        size_t count)
{
    /* Nearest rank: the smallest sample that so many per cent do not exceed. */
    const size_t rank[3] = {(count * 50 + 99) / 100, (count * 99 + 99) / 100, count};

    bench_sort(late_ns, count);
    for (int i = 0; i < 3; i++)
        bench_add_extra(run, names[i], (double)late_ns[rank[i] - 1] / 1e3);
}

/* The command line */

static void usage(FILE *out)
{
    fputs("usage: gort-bench NAME [--procs P] [--n N] [key=value ...]\n"
          "Runs one bench and prints one line of JSON; servers run until they are killed.\n"
          "reps=R: repetitions that count (3).\n\n",
          out);
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        for (const struct bench *b = families[f]; b->name; b++)
            fprintf(out, "  %-12s %s\n", b->name, b->what);
    fputs("\nDefault sizes (--n):\n ", out);
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        for (const struct bench *b = families[f]; b->name; b++)
            if (b->n_max > 1)
                fprintf(out, " %s %" PRId64, b->name, b->n);
    fputc('\n', out);
}

static const struct bench *find_bench(const char *name)
{
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        for (const struct bench *b = families[f]; b->name; b++)
            if (strcmp(b->name, name) == 0)
                return b;
    fprintf(stderr, "gort-bench: no bench \"%s\"; there are:", name);
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        for (const struct bench *b = families[f]; b->name; b++)
            fprintf(stderr, " %s", b->name);
    fputc('\n', stderr);
    exit(EXIT_USAGE);
}

static _Noreturn void usage_error(const char *what, const char *text)
{
    fprintf(stderr, "gort-bench: %s: %s (--help lists what there is)\n", text, what);
    exit(EXIT_USAGE);
}

static int64_t parse_number(const char *what, const char *text, int64_t min, int64_t max)
{
    char *end;

    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno == ERANGE || value < min || value > max) {
        fprintf(stderr, "gort-bench: %s: a number from %" PRId64 " to %" PRId64 ", not \"%s\"\n",
                what, min, max, text);
        exit(EXIT_USAGE);
    }
    return value;
}

static bool has_key(const struct bench *b, const char *key, size_t len)
{
    for (const char *k = b->keys ? b->keys : ""; *k; k = strchr(k, ' ') + 1)
        if (strncmp(k, key, len) == 0 && k[len] == ' ')
            return true;
    return len == 4 && memcmp(key, "reps", 4) == 0;
}

static void parse_key(const struct bench *b, const char *arg, struct bench_args *args)
{
    struct {
        const char *name;
        int64_t *value;
        int64_t min, max;
    } const numbers[] = {
        {"reps", &args->reps, 1, REPS_MAX},
        {"port", &args->port, 0, 65535},
        {"stack", &args->stack_kib, 0, 8192},
        {"hogs", &args->hogs, 0, 1024},
        {"tasks", &args->tasks, 1, 10000000},
        {"cases", &args->cases, 1, 65536},
        {"checkpoint", &args->checkpoint, 0, 1},
        {"strict", &args->strict, 0, 1},
    };
    const char *equals = strchr(arg, '=');

    if (!equals || !has_key(b, arg, (size_t)(equals - arg)))
        usage_error("no such option of this bench", arg);
    if (strncmp(arg, "addr=", 5) == 0) {
        args->addr = equals + 1;
        return;
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strncmp(arg, numbers[i].name, (size_t)(equals - arg)) == 0 &&
            numbers[i].name[equals - arg] == '\0')
            *numbers[i].value =
                parse_number(numbers[i].name, equals + 1, numbers[i].min, numbers[i].max);
}

/* The text of "--name TEXT" or "--name=TEXT" at argv[*i], NULL when it is another option. */
static const char *option_text(const char *name, int argc, char **argv, int *i)
{
    size_t len = strlen(name);

    if (strncmp(argv[*i], name, len) != 0)
        return NULL;
    if (argv[*i][len] == '=')
        return argv[*i] + len + 1;
    if (argv[*i][len] != '\0')
        return NULL;
    if (++*i == argc)
        usage_error("a number must follow", name);
    return argv[*i];
}

static const struct bench *parse_args(int argc, char **argv, struct bench_args *args)
{
    const char *text;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            usage(stdout);
            exit(EXIT_SUCCESS);
        }
    }
    if (argc < 2) {
        usage(stderr);
        exit(EXIT_USAGE);
    }
    const struct bench *b = find_bench(argv[1]);
    *args = (struct bench_args){
        .n = b->n,
        .procs = getenv("GORT_PROCS") ? 0 : b->procs,
        .reps = b->once ? 1 : REPS_DEFAULT,
        .port = 8080,
        .addr = "127.0.0.1",
        .tasks = 2,
        .cases = 4,
    };
    for (int i = 2; i < argc; i++) {
        if ((text = option_text("--procs", argc, argv, &i)))
            args->procs = (unsigned)parse_number("--procs", text, 1, 1024);
        else if ((text = option_text("--n", argc, argv, &i)))
            args->n = parse_number("--n", text, 1, b->n_max);
        else
            parse_key(b, argv[i], args);
    }
    if (b->one_p)
        args->procs = 1;
    if (b->once && args->reps != 1)
        usage_error("it can only run once in a process", b->name);
    return b;
}

/* Repetitions */

struct plan {
    const struct bench *bench;
    const struct bench_args *args;
    struct bench_run *runs;
};

static void *run_plan(void *arg)
{
    const struct plan *plan = arg;
    const struct bench_args *args = plan->args;

    if (!plan->bench->once) {
        int64_t n = plan->bench->warm_full ? args->n : (args->n + WARM_SHARE - 1) / WARM_SHARE;
        struct bench_run warm = {.args = args, .n = n};

        plan->bench->run(&warm);
    }
    for (int64_t r = 0; r < args->reps; r++) {
        plan->runs[r] = (struct bench_run){.args = args, .n = args->n};
        plan->bench->run(&plan->runs[r]);
    }
    return NULL;
}

static int compare_runs(const void *a, const void *b)
{
    const struct bench_run *x = a;
    const struct bench_run *y = b;

    return (x->ns > y->ns) - (x->ns < y->ns);
}

static void print_json(const struct bench *b, unsigned procs, const struct bench_run *best,
                       const struct bench_run *median)
{
    printf("{\"runtime\":\"gort\",\"bench\":\"%s\",\"procs\":%u,\"n\":%" PRId64, b->name, procs,
           best->ops);
    printf(",\"ns_per_op\":%.2f,\"ns_per_op_med\":%.2f", best->ns_per_op, median->ns_per_op);
    printf(",\"ms\":%.3f,\"ms_med\":%.3f", (double)best->ns / 1e6, (double)median->ns / 1e6);
    if (best->has_result)
        printf(",\"result\":%" PRId64, best->result);
    printf(",\"cpu_s\":%.3f", best->cpu_s);
    if (best->steals >= 0)
        printf(",\"steals\":%" PRId64, best->steals);
    for (unsigned i = 0; i < best->extras; i++)
        printf(",\"%s\":%.2f", best->extra[i].name, best->extra[i].value);
    printf("}\n");
}

static void measure(const struct bench *b, const struct bench_args *args)
{
    size_t reps = (size_t)args->reps;
    struct bench_run *runs = MUST_GET(calloc(reps, sizeof *runs));
    struct plan plan = {b, args, runs};
    go_task *task = MUST_GET(go_task_spawn(run_plan, &plan));
    unsigned procs = go_procs();

    MUST(go_task_join(task, NULL));
    MUST(go_stop(10 * GO_SECOND));
    qsort(runs, reps, sizeof *runs, compare_runs);
    print_json(b, procs, &runs[0], &runs[reps / 2]);
    free(runs);
}

/* Before the runtime starts its threads, which inherit the mask: the main thread waits for them. */
static void block_stop_signals(void)
{
    sigset_t stop;

    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    MUST(-pthread_sigmask(SIG_BLOCK, &stop, NULL));
}

int main(int argc, char **argv)
{
    struct go_options options = GO_OPTIONS_INIT;
    struct bench_args args;
    const struct bench *b = parse_args(argc, argv, &args);

    options.procs = args.procs;
    options.flags = b->one_p || args.strict ? GO_STRICT : 0;
    if (b->serve)
        block_stop_signals();
    MUST(go_start(&options));
    if (b->serve)
        b->serve(&args);
    else
        measure(b, &args);
    if (fflush(stdout) != 0)
        bench_die("stdout: %s", strerror(errno));
    return EXIT_SUCCESS;
}
