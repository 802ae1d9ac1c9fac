/* servers.c - a green thread for each connection: echo, http_raw, mixed.
 *
 * They run until SIGTERM or SIGINT. A connection's buffers live on its own stack; a broken
 * connection is closed and is nobody's error. http_raw is what one writes who needs no HTTP
 * library: it reads as much as there is, parses request after request out of the buffer, gathers
 * the answers and sends them in one piece before it reads again. */
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <time.h>

enum {
    ECHO_BUFFER = 4096,
    HTTP_IN = 4096, /* a request's head must fit */
    HTTP_OUT = 1024,
    BURN_MS = 5,
    BURN_BLOCK = 1024, /* steps between two preemption points: about a microsecond */
};

/* echo */

static void echo_connection(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char buf[ECHO_BUFFER];
    ssize_t got;

    while ((got = go_read(fd, buf, sizeof buf)) > 0)
        if (go_write_all(fd, buf, (size_t)got) < 0)
            break;
    MUST(go_close(fd));
}

/* /burn: a fixed number of steps of a generator, each of which needs the one before, counted out
 * to 5 ms of CPU before the runtime starts: wall time would count what others do meanwhile. */

static uint64_t burn_blocks;
static bool burn_checkpoints;
static _Atomic uint64_t burn_sink; /* keeps the steps from being dropped */

static uint64_t burn_block(uint64_t x)
{
    for (int i = 0; i < BURN_BLOCK; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
}

static void burn(void)
{
    uint64_t x = 88172645463325252u;

    for (uint64_t i = 0; i < burn_blocks; i++) {
        x = burn_block(x);
        if (burn_checkpoints)
            go_checkpoint();
    }
    burn_sink = x;
}

static int64_t thread_cpu_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (int64_t)ts.tv_sec * GO_SECOND + ts.tv_nsec;
}

static void burn_calibrate(void)
{
    const uint64_t blocks = 1000;
    uint64_t x = 1;
    int64_t best = INT64_MAX;

    for (int i = 0; i < 20; i++) {
        int64_t start = thread_cpu_ns();

        for (uint64_t b = 0; b < blocks; b++)
            x = burn_block(x);
        int64_t took = thread_cpu_ns() - start;
        best = took < best ? took : best;
    }
    burn_sink = x;
    burn_blocks = blocks * BURN_MS * GO_MILLISECOND / (uint64_t)(best > 0 ? best : 1);
}

/* HTTP/1.1, by hand */

#define ANSWER_OK \
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!"
#define ANSWER_BAD "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

struct request {
    size_t head;   /* bytes up to and with the empty line */
    uint64_t body; /* bytes that follow; nobody looks at them */
    bool burn;
    bool close; /* after the answer */
};

enum parsed { PARSED, INCOMPLETE, BAD };

static bool name_is(const char *line, size_t len, const char *name, size_t name_len)
{
    return len == name_len && strncasecmp(line, name, name_len) == 0;
}
#define NAME_IS(line, len, literal) name_is(line, len, literal, sizeof(literal) - 1)

/* METHOD SP TARGET SP HTTP/1.x, without its line end. */
static enum parsed parse_request_line(const char *line, size_t len, struct request *rq)
{
    const char *end = line + len;
    const char *target;
    const char *version;

    if (len > 4 && memcmp(line, "GET ", 4) == 0)
        target = line + 4;
    else if (len > 5 && memcmp(line, "POST ", 5) == 0)
        target = line + 5;
    else
        return BAD;
    version = memchr(target, ' ', (size_t)(end - target));
    if (!version || *target != '/')
        return BAD;
    size_t target_len = (size_t)(version - target);
    version++;
    if (end - version != 8 || memcmp(version, "HTTP/1.", 7) != 0)
        return BAD;
    if (version[7] != '0' && version[7] != '1')
        return BAD;
    rq->close = version[7] == '0';
    rq->burn = target_len == 5 && memcmp(target, "/burn", 5) == 0;
    return PARSED;
}

static enum parsed parse_length(const char *value, size_t len, uint64_t *length)
{
    uint64_t sum = 0;

    if (len == 0 || len > 18)
        return BAD;
    for (size_t i = 0; i < len; i++) {
        if (value[i] < '0' || value[i] > '9')
            return BAD;
        sum = sum * 10 + (uint64_t)(value[i] - '0');
    }
    *length = sum;
    return PARSED;
}

/* Name: value, without its line end. Looked at is only what moves the start of the next request. */
static enum parsed parse_header(const char *line, size_t len, struct request *rq)
{
    const char *colon = memchr(line, ':', len);

    if (!colon || colon == line)
        return BAD;
    size_t name_len = (size_t)(colon - line);
    const char *value = colon + 1;
    size_t value_len = len - name_len - 1;

    switch (line[0] | 0x20) {
    case 'c':
    case 't':
        break;
    default:
        return PARSED;
    }
    while (value_len > 0 && (*value == ' ' || *value == '\t')) {
        value++;
        value_len--;
    }
    while (value_len > 0 && (value[value_len - 1] == ' ' || value[value_len - 1] == '\t'))
        value_len--;
    if (NAME_IS(line, name_len, "Connection")) {
        if (NAME_IS(value, value_len, "close"))
            rq->close = true;
        else if (NAME_IS(value, value_len, "keep-alive"))
            rq->close = false;
    } else if (NAME_IS(line, name_len, "Content-Length")) {
        return parse_length(value, value_len, &rq->body);
    } else if (NAME_IS(line, name_len, "Transfer-Encoding")) {
        return BAD;
    }
    return PARSED;
}

static enum parsed parse_request(const char *buf, size_t len, struct request *rq)
{
    const char *line = buf;
    const char *end = buf + len;

    *rq = (struct request){0};
    for (;;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));

        if (!newline)
            return INCOMPLETE;
        size_t line_len = (size_t)(newline - line);
        if (line_len == 0 || newline[-1] != '\r')
            return BAD;
        line_len--;
        if (line_len == 0 && line != buf) {
            rq->head = (size_t)(newline + 1 - buf);
            return PARSED;
        }
        enum parsed p = line == buf ? parse_request_line(line, line_len, rq)
                                    : parse_header(line, line_len, rq);
        if (p != PARSED)
            return p;
        line = newline + 1;
    }
}

struct http {
    int fd;
    bool burns;
    bool closing;
    uint64_t skip; /* bytes of a body that have not come yet */
    size_t out_len;
    size_t in_len;
    char out[HTTP_OUT];
    char in[HTTP_IN];
};

static bool http_flush(struct http *h)
{
    size_t len = h->out_len;

    h->out_len = 0;
    return len == 0 || go_write_all(h->fd, h->out, len) >= 0;
}

static bool http_answer(struct http *h, const char *text, size_t len)
{
    if (len > sizeof h->out - h->out_len && !http_flush(h))
        return false;
    memcpy(h->out + h->out_len, text, len);
    h->out_len += len;
    return true;
}

static bool http_bad(struct http *h)
{
    h->closing = true;
    return http_answer(h, ANSWER_BAD, sizeof ANSWER_BAD - 1);
}

static bool http_serve_one(struct http *h, const struct request *rq)
{
    if (rq->burn && h->burns) {
        if (!http_flush(h)) /* the answers before it must not wait for it */
            return false;
        burn();
    }
    h->skip = rq->body;
    h->closing = rq->close;
    return http_answer(h, ANSWER_OK, sizeof ANSWER_OK - 1);
}

/* Answer every complete request in the buffer and keep what is left. False: the connection is
 * gone. */
static bool http_consume(struct http *h)
{
    size_t used = 0;

    while (!h->closing) {
        struct request rq;
        size_t left = h->in_len - used;

        if (h->skip > 0) {
            size_t take = h->skip < left ? (size_t)h->skip : left;

            h->skip -= take;
            used += take;
            left -= take;
        }
        if (left == 0)
            break;
        enum parsed p = parse_request(h->in + used, left, &rq);
        if (p == INCOMPLETE && left < sizeof h->in)
            break;
        if (p != PARSED)
            return http_bad(h);
        if (!http_serve_one(h, &rq))
            return false;
        used += rq.head;
    }
    h->in_len -= used;
    if (h->in_len > 0 && used > 0)
        memmove(h->in, h->in + used, h->in_len);
    return true;
}

static void http_serve(int fd, bool burns)
{
    struct http h;

    h.fd = fd;
    h.burns = burns;
    h.closing = false;
    h.skip = 0;
    h.out_len = 0;
    h.in_len = 0;
    while (!h.closing) {
        ssize_t got = go_read(fd, h.in + h.in_len, sizeof h.in - h.in_len);

        if (got <= 0)
            break;
        h.in_len += (size_t)got;
        if (!http_consume(&h) || !http_flush(&h))
            break;
    }
    MUST(go_close(fd));
}

static void http_connection(void *arg)
{
    http_serve((int)(intptr_t)arg, false);
}

static void mixed_connection(void *arg)
{
    http_serve((int)(intptr_t)arg, true);
}

/* Listening */

struct server {
    int fd;
    void (*connection)(void *);
};

static void acceptor(void *arg)
{
    const struct server *s = arg;

    for (;;) {
        int fd = go_accept(s->fd, NULL, NULL);

        if (fd == -ECANCELED || fd == -EBADF)
            break; /* the runtime stops */
        if (fd == -ECONNABORTED || fd == -EPROTO)
            continue; /* the peer went away in the queue */
        MUST(fd);
        int rc = go_spawn(s->connection, (void *)(intptr_t)fd);
        if (rc < 0) {
            MUST(go_close(fd)); /* refuse one rather than all */
            if (rc == -ESHUTDOWN || go_sleep(GO_MILLISECOND) < 0)
                break;
        }
    }
    MUST(go_close(s->fd));
}

static unsigned local_port(int fd)
{
    struct sockaddr_storage ss = {0};
    socklen_t len = sizeof ss;

    if (getsockname(fd, (struct sockaddr *)&ss, &len) != 0)
        return 0;
    if (ss.ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)&ss)->sin6_port);
    return ntohs(((const struct sockaddr_in *)&ss)->sin_port);
}

/* As many descriptors as the hard limit allows, which is what Go's runtime does too. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void serve(const char *name, const struct bench_args *args, void (*connection)(void *))
{
    struct go_stats stats = GO_STATS_INIT;
    struct server s = {.connection = connection};
    char address[128];
    sigset_t stop;
    int sig;

    raise_descriptor_limit();
    signal(SIGPIPE, SIG_IGN);
    snprintf(address, sizeof address, "%s:%lld", args->addr, (long long)args->port);
    s.fd = go_listen("tcp", address);
    if (s.fd < 0)
        bench_die("%s: %s: %s", name, address, strerror(-s.fd));
    unsigned port = local_port(s.fd);
    MUST(go_spawn(acceptor, &s));
    MUST(go_stats(&stats));
    fprintf(stderr, "gort-bench: %s on %s:%u, procs %u, netpoll %s\n", name, args->addr, port,
            go_procs(), stats.netpoll ? stats.netpoll : "?");
    /* main() has blocked them before the runtime's threads were started. */
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    sigwait(&stop, &sig);
    MUST(go_stop(5 * GO_SECOND)); /* here: the acceptor uses s */
}

static void serve_echo(const struct bench_args *args)
{
    serve("echo", args, echo_connection);
}

static void serve_http_raw(const struct bench_args *args)
{
    serve("http_raw", args, http_connection);
}

static void serve_mixed(const struct bench_args *args)
{
    burn_checkpoints = args->checkpoint != 0;
    burn_calibrate();
    serve("mixed", args, mixed_connection);
}

const struct bench bench_servers[] = {
    {.name = "echo",
     .what = "server: sends back what it gets; port=N addr=A",
     .keys = "port addr ",
     .n = 1,
     .n_max = 1,
     .serve = serve_echo},
    {.name = "http_raw",
     .what = "server: HTTP/1.1 parsed by hand; port=N addr=A",
     .keys = "port addr ",
     .n = 1,
     .n_max = 1,
     .serve = serve_http_raw},
    {.name = "mixed",
     .what = "server: http_raw whose /burn spins 5 ms; port=N addr=A checkpoint=0|1 strict=0|1",
     .keys = "port addr checkpoint strict ",
     .n = 1,
     .n_max = 1,
     .serve = serve_mixed},
    {0},
};
