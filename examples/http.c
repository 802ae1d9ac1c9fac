/* http.c - an HTTP/1.1 server on green threads: options, routes, and a graceful stop.
 *
 *   http_server.h  what this program uses      http_conn.c   the life of a connection
 *   http_server.c  accepting and stopping      http_parse.c  request heads
 *   http.c         this program                http_reply.c  answers
 *
 * How it stops: main blocks SIGTERM and SIGINT before the runtime starts its threads, so that
 * sigwait in main is where they arrive. Then the server stops gracefully, and the runtime after it.
 * A second signal ends the program at once. */
#include "http_server.h"

#include <errno.h>
#include <getopt.h>
#include <gort.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

/* ---- The application ---- */

struct app {
    struct http_server *server;
    atomic_uint_fast64_t jobs_started, jobs_done;
};

struct job {
    struct app *app;
    int64_t duration_ns;
};

/* The value of "name=123" in the query, at most max; fallback when it is missing or no number. */
static int64_t query_number(struct http_str query, struct http_str name, int64_t max,
                            int64_t fallback) {
    const char *at = query.at, *end = query.at + query.len;
    while (at < end) {
        const char *amp = memchr(at, '&', (size_t)(end - at));
        const char *stop = amp != NULL ? amp : end;
        if ((size_t)(stop - at) > name.len + 1 && memcmp(at, name.at, name.len) == 0 &&
            at[name.len] == '=') {
            int64_t n = 0;
            for (const char *digit = at + name.len + 1; digit < stop; digit++) {
                if (*digit < '0' || *digit > '9')
                    return fallback;
                n = n * 10 + (*digit - '0');
                n = n < max ? n : max;
            }
            return n;
        }
        at = stop + 1;
    }
    return fallback;
}

static void get_hello(struct http_request *request, struct app *app) {
    (void)app;
    http_reply(request, 200, HTTP_STR("Hello, World!"));
}

/* GET /header?User-Agent */
static void get_header(struct http_request *request, struct app *app) {
    (void)app;
    struct http_str value = http_request_field(request, request->query);
    if (value.at != NULL)
        http_reply(request, 200, value);
    else
        http_reply(request, 404, HTTP_STR("no such field\n"));
}

/* GET /wait?ms=100: a handler that waits holds a green thread, not a thread. */
static void get_wait(struct http_request *request, struct app *app) {
    (void)app;
    go_sleep(query_number(request->query, HTTP_STR("ms"), 60000, 100) * GO_MILLISECOND);
    http_reply(request, 200, HTTP_STR("waited\n"));
}

static void post_echo(struct http_request *request, struct app *app) {
    (void)app;
    http_reply_with(request, 200, HTTP_STR("application/octet-stream"), HTTP_STR(""),
                    request->body);
}

static void run_job(void *arg) {
    struct job *job = arg;
    struct app *app = job->app;
    go_sleep(job->duration_ns); /* stands for what takes a while: a mail, a report, a query */
    free(job);
    atomic_fetch_add(&app->jobs_done, 1);
    http_server_release(app->server);
}

/* POST /jobs?ms=50: the answer goes out at once, the work is done by a green thread of its own. */
static void post_job(struct http_request *request, struct app *app) {
    struct job *job = malloc(sizeof *job);
    if (job == NULL) {
        http_reply(request, 503, HTTP_STR("out of memory\n"));
        return;
    }
    job->app = app;
    job->duration_ns = query_number(request->query, HTTP_STR("ms"), 60000, 50) * GO_MILLISECOND;
    http_server_hold(app->server);
    if (go_spawn(run_job, job) < 0) {
        http_server_release(app->server);
        free(job);
        http_reply(request, 503, HTTP_STR("too much to do\n"));
        return;
    }
    atomic_fetch_add(&app->jobs_started, 1);
    http_reply(request, 202, HTTP_STR("accepted\n"));
}

static void get_stats(struct http_request *request, struct app *app) {
    struct http_stats stats;
    char text[512];
    http_server_stats(app->server, &stats);
    int n = snprintf(text, sizeof text,
                     "connections_open %llu\n"
                     "connections %llu\n"
                     "requests %llu\n"
                     "jobs_started %llu\n"
                     "jobs_done %llu\n",
                     (unsigned long long)stats.connections_open,
                     (unsigned long long)stats.connections, (unsigned long long)stats.requests,
                     (unsigned long long)app->jobs_started, (unsigned long long)app->jobs_done);
    http_reply(request, 200, (struct http_str){text, (size_t)n});
}

/* ---- Routes ---- */

struct route {
    struct http_str path;
    void (*get)(struct http_request *, struct app *); /* exactly one of the two */
    void (*post)(struct http_request *, struct app *);
};

static const struct route routes[] = {
    {{"/", 1}, get_hello, NULL},     {{"/header", 7}, get_header, NULL},
    {{"/wait", 5}, get_wait, NULL},  {{"/stats", 6}, get_stats, NULL},
    {{"/echo", 5}, NULL, post_echo}, {{"/jobs", 5}, NULL, post_job},
};

static void handle(struct http_request *request, void *arg) {
    const struct route *route = NULL;
    for (size_t i = 0; i < sizeof routes / sizeof *routes && route == NULL; i++)
        if (http_str_equal(routes[i].path, request->path))
            route = &routes[i];
    if (route == NULL) {
        /* OPTIONS * asks what the server can do. */
        bool all = http_str_equal(request->path, HTTP_STR("*"));
        http_reply_with(request, all ? 200 : 404, HTTP_STR("text/plain"),
                        all ? HTTP_STR("Allow: GET, HEAD, POST\r\n") : HTTP_STR(""),
                        all ? HTTP_STR("") : HTTP_STR("not found\n"));
        return;
    }
    struct http_str method = request->method;
    struct http_str allow = HTTP_STR("Allow: POST\r\n");
    if (route->get != NULL) {
        if (http_str_equal(method, HTTP_STR("GET")) || http_str_equal(method, HTTP_STR("HEAD"))) {
            route->get(request, arg);
            return;
        }
        allow = HTTP_STR("Allow: GET, HEAD\r\n");
    } else if (http_str_equal(method, HTTP_STR("POST"))) {
        route->post(request, arg);
        return;
    }
    http_reply_with(request, 405, HTTP_STR("text/plain"), allow, HTTP_STR("method not allowed\n"));
}

/* ---- The program ---- */

struct settings {
    const char *host;
    uint64_t port, procs, max_header, max_body;
    int64_t idle_ns, header_ns, body_ns, write_ns, linger_ns, grace_ns;
};

static const char help[] =
    "usage: http [OPTION]...\n"
    "An HTTP/1.1 server on green threads.\n"
    "  --host ADDRESS          numeric address to listen on (default 127.0.0.1; 0.0.0.0: all)\n"
    "  --port N                port (default 8080; 0: any free one, which is printed)\n"
    "  --procs N               processors to use (default: all)\n"
    "  --max-header BYTES      largest request head (default 32768; beyond it: 431)\n"
    "  --max-body BYTES        largest request body (default 1048576; beyond it: 413)\n"
    "  --idle-timeout TIME     wait for the next request (default 60s)\n"
    "  --header-timeout TIME   from a request's first byte to the end of its head (default 10s)\n"
    "  --body-timeout TIME     from there to the end of its body (default 30s)\n"
    "  --write-timeout TIME    for a client that does not read its answer (default 30s)\n"
    "  --linger TIME           after the last answer, for what is still sent (default 2s)\n"
    "  --grace TIME            after SIGTERM or SIGINT, for requests in progress (default 10s)\n"
    "  --help                  this text\n"
    "TIME is a number with its unit: 250ms, 10s, 2m.\n"
    "Exit status: 0 when every request was answered, 1 when the grace was not enough.\n"
    "Routes: GET / /header?NAME /wait?ms=N /stats, POST /echo /jobs?ms=N\n";

static bool parse_number(const char *text, uint64_t max, uint64_t *out) {
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || n > max)
        return false;
    *out = n;
    return true;
}

static bool parse_time(const char *text, int64_t *out) {
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = {{"ms", GO_MILLISECOND}, {"s", GO_SECOND}, {"m", GO_MINUTE}};
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (errno == 0 && n <= 1000000 && strcmp(end, units[i].name) == 0) {
            *out = n * units[i].ns;
            return true;
        }
    return false;
}

/* -1, or the exit status. */
static int parse_options(int argc, char **argv, struct settings *s) {
    enum { HOST = 1, HELP, NUMBERS, TIMES = NUMBERS + 4 };
    static const struct option options[] = {
        {"host", 1, NULL, HOST},
        {"help", 0, NULL, HELP},
        {"port", 1, NULL, NUMBERS},
        {"procs", 1, NULL, NUMBERS + 1},
        {"max-header", 1, NULL, NUMBERS + 2},
        {"max-body", 1, NULL, NUMBERS + 3},
        {"idle-timeout", 1, NULL, TIMES},
        {"header-timeout", 1, NULL, TIMES + 1},
        {"body-timeout", 1, NULL, TIMES + 2},
        {"write-timeout", 1, NULL, TIMES + 3},
        {"linger", 1, NULL, TIMES + 4},
        {"grace", 1, NULL, TIMES + 5},
        {NULL, 0, NULL, 0},
    };
    uint64_t *numbers[] = {&s->port, &s->procs, &s->max_header, &s->max_body};
    const uint64_t largest[] = {65535, 1024, 1 << 30, 1 << 30};
    int64_t *times[] = {&s->idle_ns,  &s->header_ns, &s->body_ns,
                        &s->write_ns, &s->linger_ns, &s->grace_ns};
    int o, at = 0;
    while ((o = getopt_long(argc, argv, "", options, &at)) != -1) {
        bool good = true;
        if (o == '?')
            return 2; /* getopt_long has said why */
        if (o == HELP) {
            fputs(help, stdout);
            return 0;
        }
        if (o == HOST)
            s->host = optarg;
        else if (o < TIMES)
            good = parse_number(optarg, largest[o - NUMBERS], numbers[o - NUMBERS]);
        else
            good = parse_time(optarg, times[o - TIMES]);
        if (!good) {
            fprintf(stderr, "%s: --%s cannot be \"%s\"\n", argv[0], options[at].name, optarg);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "%s: what is \"%s\"? Try --help.\n", argv[0], argv[optind]);
        return 2;
    }
    return -1;
}

/* A descriptor per connection: the usual soft limit of 1024 is for programs that use select(2). */
static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void print_start(const struct settings *s, struct http_server *server) {
    struct go_stats stats = GO_STATS_INIT;
    printf("listening on http://%s:%u\n", s->host, http_server_port(server));
    if (go_stats(&stats) == 0)
        printf("gort %s, %u procs, netpoll %s (%s)\n", go_version(), stats.procs, stats.netpoll,
               stats.netpoll_why);
    fflush(stdout); /* whoever started us with --port 0 is waiting for this */
}

static int serve_until(const sigset_t *signals, const struct settings *s) {
    struct app app = {0};
    char address[128];
    bool bare_ipv6 = strchr(s->host, ':') != NULL && s->host[0] != '[';
    snprintf(address, sizeof address, bare_ipv6 ? "[%s]:%u" : "%s:%u", s->host, (unsigned)s->port);
    struct http_config config = {
        .address = address,
        .handler = handle,
        .arg = &app,
        .max_header = s->max_header,
        .max_body = s->max_body,
        .idle_timeout_ns = s->idle_ns,
        .header_timeout_ns = s->header_ns,
        .body_timeout_ns = s->body_ns,
        .write_timeout_ns = s->write_ns,
        .linger_ns = s->linger_ns,
    };
    int r = http_server_start(&app.server, &config);
    if (r < 0) {
        fprintf(stderr, "http: %s: %s\n", address, strerror(-r));
        go_stop(GO_SECOND);
        return 1;
    }
    print_start(s, app.server);

    int signo;
    sigwait(signals, &signo);
    pthread_sigmask(SIG_UNBLOCK, signals, NULL); /* the next one ends the program at once */
    r = http_server_stop(app.server, s->grace_ns);
    if (r < 0)
        fprintf(stderr, "http: cut off what did not end within the grace\n");
    if (go_stop(5 * GO_SECOND) < 0)
        return 1;
    http_server_free(app.server);
    return r < 0 ? 1 : 0;
}

int main(int argc, char **argv) {
    struct settings s = {.host = "127.0.0.1",
                         .port = 8080,
                         .max_header = 32768,
                         .max_body = 1 << 20,
                         .idle_ns = GO_MINUTE,
                         .header_ns = 10 * GO_SECOND,
                         .body_ns = 30 * GO_SECOND,
                         .write_ns = 30 * GO_SECOND,
                         .linger_ns = 2 * GO_SECOND,
                         .grace_ns = 10 * GO_SECOND};
    int status = parse_options(argc, argv, &s);
    if (status >= 0)
        return status;
    raise_descriptor_limit();

    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);

    struct go_options options = GO_OPTIONS_INIT;
    options.procs = (unsigned)s.procs;
    int r = go_start(&options);
    if (r < 0) {
        fprintf(stderr, "%s: the runtime does not start: %s\n", argv[0], strerror(-r));
        return 1;
    }
    return serve_until(&signals, &s);
}
