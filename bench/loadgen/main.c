/* main.c - gort-loadgen: measures a server on this machine and checks every byte that it answers.
 *
 * Closed loop: `conns` connections, each with one request under way; --rate makes them wait for
 * their turns, to compare servers at the same throughput. Half a second of warm-up, then the
 * measured window, then a short drain in which what was sent must still be answered. One line of
 * JSON on stdout. This thread only sleeps to the edges of the window and reads the server's CPU
 * clock there; CLOCK_PROCESS_CPUTIME_ID of another process counts in ns and includes threads that
 * have ended, which /proc/PID/task does not. Exit status: 0 no error, 1 errors counted, 2 bad
 * arguments, 3 could not measure.
 */
#include "loadgen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static const char help[] =
    "usage: gort-loadgen --port P [option ...]\n"
    "  --conns N           connections, each with one request under way (64)\n"
    "  --duration S        seconds to measure, after --warmup (5)\n"
    "  --warmup S          (0.5)\n"
    "  --proto echo|http   (http)\n"
    "  --size N            bytes of an echo message (64)\n"
    "  --path /PATH        what to GET (/)\n"
    "  --expect TEXT       the body that every answer must have (else: the first answer's)\n"
    "  --burn-percent X    send /burn in X of 100 requests, and keep their times apart (0)\n"
    "  --rate N            requests a second at most (0: as many as are answered)\n"
    "  --threads N         (1)\n"
    "  --server-pid PID    add the server's CPU time\n";

static _Noreturn void fail(int status, const char *what, const char *detail) {
    fprintf(stderr, "gort-loadgen: %s%s%s\n", what, detail ? ": " : "", detail ? detail : "");
    exit(status);
}

static double number(const char *name, const char *text, double min, double max) {
    char *end;
    double v = strtod(text, &end);

    if (end == text || *end || !(v >= min && v <= max)) {
        fprintf(stderr, "gort-loadgen: --%s: \"%s\" is not a number from %g to %g\n", name, text,
                min, max);
        exit(2);
    }
    return v;
}

static int64_t clock_ns(clockid_t clock) {
    struct timespec t;

    if (clock_gettime(clock, &t) < 0)
        fail(3, "the server's CPU clock", strerror(errno));
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void sleep_until(int64_t ns) {
    struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static void print_times(const char *prefix, const struct hist *h) {
    printf(",\"%sp50_us\":%.1f,\"%sp99_us\":%.1f,\"%sp99.9_us\":%.1f,\"%smax_us\":%.1f", prefix,
           hist_us(h, 50), prefix, hist_us(h, 99), prefix, hist_us(h, 99.9), prefix,
           (double)h->max / 1e3);
}

/* CPU time used between two readings, in cores. The readings are a little late when the machine is
 * busy; as a rate over the time that really passed they are right all the same. */
struct usage {
    int64_t wall, server, client;
};

static struct usage usage_now(bool has_server, clockid_t server) {
    return (struct usage){now_ns(), has_server ? clock_ns(server) : 0,
                          clock_ns(CLOCK_PROCESS_CPUTIME_ID)};
}

struct options {
    unsigned port, conns, threads;
    double duration, warmup;
    pid_t server; /* 0: not told */
};

static void parse_options(int argc, char **argv, struct options *o, struct config *f) {
    enum {
        PORT,
        CONNS,
        DURATION,
        WARMUP,
        SIZE,
        BURN,
        RATE,
        THREADS,
        SERVER,
        PATH,
        EXPECT,
        PROTO,
        HELP
    };
    static const struct option options[] = {
        {"port", 1, 0, PORT},         {"conns", 1, 0, CONNS},
        {"duration", 1, 0, DURATION}, {"warmup", 1, 0, WARMUP},
        {"size", 1, 0, SIZE},         {"burn-percent", 1, 0, BURN},
        {"rate", 1, 0, RATE},         {"threads", 1, 0, THREADS},
        {"server-pid", 1, 0, SERVER}, {"path", 1, 0, PATH},
        {"expect", 1, 0, EXPECT},     {"proto", 1, 0, PROTO},
        {"help", 0, 0, HELP},         {0},
    };
    static const struct {
        double min, max;
    } range[] = {
        [PORT] = {1, 65535},  [CONNS] = {1, 1e6},    [DURATION] = {0.01, 86400},
        [WARMUP] = {0, 3600}, [SIZE] = {1, 1 << 24}, [BURN] = {0, 100},
        [RATE] = {0, 1e6},    [THREADS] = {1, 1024}, [SERVER] = {1, 1 << 30},
    };
    int opt, which;

    while ((opt = getopt_long(argc, argv, "", options, &which)) != -1) {
        double v = 0;
        if (opt <= SERVER)
            v = number(options[which].name, optarg, range[opt].min, range[opt].max);
        switch (opt) {
        case PORT:
            o->port = (unsigned)v;
            break;
        case CONNS:
            o->conns = (unsigned)v;
            break;
        case DURATION:
            o->duration = v;
            break;
        case WARMUP:
            o->warmup = v;
            break;
        case SIZE:
            f->size = (size_t)v;
            break;
        case BURN:
            f->burn_percent = v;
            break;
        case RATE:
            f->rate = v;
            break;
        case THREADS:
            o->threads = (unsigned)v;
            break;
        case SERVER:
            o->server = (pid_t)v;
            break;
        case PATH:
            f->path = optarg;
            break;
        case EXPECT:
            f->expect = optarg;
            break;
        case PROTO:
            f->http = !strcmp(optarg, "http");
            if (!f->http && strcmp(optarg, "echo"))
                fail(2, "--proto is echo or http, not", optarg);
            break;
        default:
            fputs(help, opt == HELP ? stdout : stderr);
            exit(opt == HELP ? 0 : 2);
        }
    }
    if (!o->port || optind < argc) {
        fputs(help, stderr);
        exit(2);
    }
    if (o->threads > o->conns)
        o->threads = o->conns;
}

/* Returns when every connection is open; the workers then wait at the barrier `go`. */
static struct worker *start_workers(struct config *f, const struct options *o) {
    struct worker *workers = calloc(o->threads, sizeof *workers);

    if (!workers)
        fail(3, "out of memory", NULL);
    pthread_barrier_init(&f->connected, NULL, o->threads + 1);
    pthread_barrier_init(&f->go, NULL, o->threads + 1);
    for (unsigned i = 0; i < o->threads; i++) {
        struct worker *w = &workers[i];
        w->config = f;
        w->id = i;
        w->conns = o->conns / o->threads + (i < o->conns % o->threads);
        int err = pthread_create(&w->thread, NULL, worker_run, w);
        if (err)
            fail(3, "pthread_create", strerror(err));
    }
    pthread_barrier_wait(&f->connected);
    return workers;
}

/* Joins them all; the sums are in the first. */
static void join_workers(struct worker *workers, unsigned threads) {
    for (unsigned i = 0; i < threads; i++)
        pthread_join(workers[i].thread, NULL);
    for (unsigned i = 1; i < threads; i++) {
        hist_merge(&workers->quick, &workers[i].quick);
        hist_merge(&workers->burns, &workers[i].burns);
        workers->errors += workers[i].errors;
    }
}

static void print_report(const struct config *f, const struct options *o, const struct worker *sum,
                         struct usage from, struct usage to) {
    double requests = (double)(sum->quick.total + sum->burns.total);
    double wall = (double)(to.wall - from.wall);
    double cores = (double)(to.server - from.server) / wall;

    printf("{\"proto\":\"%s\",\"conns\":%u,\"threads\":%u,\"duration_s\":%g",
           f->http ? "http" : "echo", o->conns, o->threads, o->duration);
    printf(",\"requests\":%.0f,\"rps\":%.0f,\"errors\":%llu", requests, requests / o->duration,
           (unsigned long long)sum->errors);
    print_times("", &sum->quick);
    if (f->burn_percent > 0) {
        printf(",\"burns\":%llu", (unsigned long long)sum->burns.total);
        print_times("burn_", &sum->burns);
    }
    if (o->server && requests > 0)
        printf(",\"server_cpu_us_per_req\":%.3f,\"server_cores\":%.3f",
               cores * o->duration * 1e6 / requests, cores);
    printf(",\"client_cores\":%.3f}\n", (double)(to.client - from.client) / wall);
}

int main(int argc, char **argv) {
    struct config f = {.http = true, .size = 64, .path = "/"};
    struct options o = {.conns = 64, .threads = 1, .duration = 5, .warmup = 0.5};
    clockid_t server_clock = 0;
    struct rlimit files;

    parse_options(argc, argv, &o, &f);
    if (o.server && clock_getcpuclockid(o.server, &server_clock))
        fail(3, "no such process", "--server-pid");
    f.server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)o.port)};
    f.server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }

    f.threads = o.threads;
    struct worker *workers = start_workers(&f, &o);
    f.begin = now_ns() + (int64_t)(o.warmup * 1e9);
    f.end = f.begin + (int64_t)(o.duration * 1e9);
    pthread_barrier_wait(&f.go);
    sleep_until(f.begin);
    struct usage from = usage_now(o.server, server_clock);
    sleep_until(f.end);
    struct usage to = usage_now(o.server, server_clock);
    join_workers(workers, o.threads);

    print_report(&f, &o, workers, from, to);
    bool failed = workers->errors || workers->quick.total + workers->burns.total == 0;
    free(workers);
    return failed;
}
