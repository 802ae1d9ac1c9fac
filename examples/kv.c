/* kv.c - a key-value server that redis-cli and redis-benchmark talk to: PING, GET, SET, DEL, INCR,
 * EXPIRE, in the RESP protocol, pipelined or not.
 *
 * A green thread per connection reads what there is, carries out request after request, gathers
 * the answers and sends them in one piece before it reads again. All cores share the store
 * (kv_store.c). It stops as echo.c does. */
#include "kv_store.h"

#include <errno.h>
#include <getopt.h>
#include <gort.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    MAX_ARGUMENTS = 1024,
    MAX_BULK = 1024 * 1024, /* bytes of a key or value */
    MAX_INLINE = 64 * 1024,
    MAX_REQUEST = 2 * MAX_BULK, /* bytes of a request in all */
    FIRST_INPUT = 16 * 1024,
    OUTPUT = 16 * 1024,
};

struct conn {
    int fd;
    bool failed; /* a write has: nobody listens any more */
    char *in;    /* capacity bytes, of which [at, have) are not carried out yet */
    size_t at, have, capacity;
    size_t argc;
    struct kv_text argv[MAX_ARGUMENTS]; /* of the request at hand, in the input */
    size_t out_len;
    char out[OUTPUT];
};

/* ---- answers --------------------------------------------------------------------------------- */

static void flush(struct conn *c) {
    if (c->out_len != 0 && !c->failed)
        c->failed = go_write_all(c->fd, c->out, c->out_len) < 0;
    c->out_len = 0;
}

static void put(struct conn *c, const char *p, size_t len) {
    if (len > OUTPUT - c->out_len)
        flush(c);
    if (len > OUTPUT) {
        c->failed = c->failed || go_write_all(c->fd, p, len) < 0;
        return;
    }
    memcpy(c->out + c->out_len, p, len);
    c->out_len += len;
}

static void say(struct conn *c, const char *text) {
    put(c, text, strlen(text));
}

static void answer_number(struct conn *c, int64_t n) {
    char text[32];
    put(c, text, (size_t)snprintf(text, sizeof text, ":%lld\r\n", (long long)n));
}

static void answer_bulk(struct conn *c, const char *p, size_t len) {
    char head[32];
    put(c, head, (size_t)snprintf(head, sizeof head, "$%zu\r\n", len));
    put(c, p, len);
    say(c, "\r\n");
}

static void answer_status(struct conn *c, enum kv_status status) {
    static const char *const text[] = {
        [KV_OK] = "+OK\r\n",
        [KV_NOT_A_NUMBER] = "-ERR value is not an integer or out of range\r\n",
        [KV_OVERFLOW] = "-ERR increment or decrement would overflow\r\n",
        [KV_NO_MEMORY] = "-OOM out of memory\r\n",
    };
    say(c, text[status]);
}

/* ---- commands -------------------------------------------------------------------------------- */

/* A whole number, and nothing else. */
static bool parse_number(struct kv_text t, int64_t *n) {
    size_t i = t.len > 1 && t.p[0] == '-';
    bool minus = i == 1;
    if (t.len == 0)
        return false;
    for (*n = 0; i < t.len; i++) {
        int digit = t.p[i] - '0';
        if (digit < 0 || digit > 9 || __builtin_mul_overflow(*n, 10, n) ||
            __builtin_add_overflow(*n, minus ? -digit : digit, n))
            return false;
    }
    return true;
}

/* Seconds or milliseconds from now. */
static bool parse_until(struct kv_text t, int64_t unit, int64_t *until) {
    int64_t n;
    return parse_number(t, &n) && !__builtin_mul_overflow(n, unit, &n) &&
           !__builtin_add_overflow(n, go_now(), until);
}

static void ping(struct conn *c) {
    if (c->argc == 1)
        say(c, "+PONG\r\n");
    else
        answer_bulk(c, c->argv[1].p, c->argv[1].len);
}

static void get(struct conn *c) {
    struct kv_value *v = kv_get(c->argv[1]);
    if (!v) {
        say(c, "$-1\r\n");
        return;
    }
    answer_bulk(c, v->data, v->len);
    kv_release(v);
}

static bool is(struct kv_text t, const char *word) {
    return t.len == strlen(word) && strncasecmp(t.p, word, t.len) == 0;
}

/* SET key value [EX seconds | PX milliseconds] */
static void set(struct conn *c) {
    int64_t until = INT64_MAX;
    if (c->argc != 3) {
        bool seconds = c->argc == 5 && is(c->argv[3], "EX");
        if (!seconds && !(c->argc == 5 && is(c->argv[3], "PX"))) {
            say(c, "-ERR syntax error\r\n");
            return;
        }
        if (!parse_until(c->argv[4], seconds ? GO_SECOND : GO_MILLISECOND, &until) ||
            until <= go_now()) {
            say(c, "-ERR invalid expire time in 'set' command\r\n");
            return;
        }
    }
    answer_status(c, kv_set(c->argv[1], c->argv[2], until));
}

static void del(struct conn *c) {
    int64_t n = 0;
    for (size_t i = 1; i < c->argc; i++)
        n += kv_delete(c->argv[i]);
    answer_number(c, n);
}

static void incr(struct conn *c) {
    int64_t n;
    enum kv_status status = kv_increment(c->argv[1], &n);
    if (status == KV_OK)
        answer_number(c, n);
    else
        answer_status(c, status);
}

static void expire(struct conn *c) {
    int64_t until;
    if (parse_until(c->argv[2], GO_SECOND, &until))
        answer_number(c, kv_expire(c->argv[1], until));
    else
        answer_status(c, KV_NOT_A_NUMBER);
}

static void execute(struct conn *c) {
    static const struct {
        const char *name;
        size_t least, most; /* words, with the name */
        void (*run)(struct conn *c);
    } commands[] = {
        {"get", 2, 2, get},   {"set", 3, 5, set},   {"del", 2, MAX_ARGUMENTS, del},
        {"incr", 2, 2, incr}, {"ping", 1, 2, ping}, {"expire", 3, 3, expire},
    };
    char text[96];
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (!is(c->argv[0], commands[i].name))
            continue;
        if (c->argc >= commands[i].least && c->argc <= commands[i].most) {
            commands[i].run(c);
            return;
        }
        snprintf(text, sizeof text, "-ERR wrong number of arguments for '%s' command\r\n",
                 commands[i].name);
        say(c, text);
        return;
    }
    say(c, "-ERR unknown command\r\n"); /* not repeated: it may have line ends in it */
}

/* ---- requests -------------------------------------------------------------------------------- */

enum { INCOMPLETE = 0, WRONG = -1 };

static ssize_t protocol_error(struct conn *c, const char *what) {
    say(c, "-ERR Protocol error: ");
    say(c, what);
    say(c, "\r\n");
    return WRONG;
}

/* "PING\r\n", as one types it. */
static ssize_t parse_inline(struct conn *c, const char *p, const char *end) {
    const char *line_end = memchr(p, '\n', (size_t)(end - p));
    if (!line_end)
        return end - p > MAX_INLINE ? protocol_error(c, "too big inline request") : INCOMPLETE;
    const char *start = p;
    while (p < line_end) {
        size_t word = 0;
        while (p + word < line_end && !strchr(" \t\r", p[word]))
            word++;
        if (word != 0 && c->argc == MAX_ARGUMENTS)
            return protocol_error(c, "too many words");
        if (word != 0)
            c->argv[c->argc++] = (struct kv_text){p, word};
        p += word + 1;
    }
    return line_end + 1 - start;
}

/* "*3\r\n": the sign, a number of at most ten digits, the line end. Moves *p behind it. */
static ssize_t parse_count(const char **p, const char *end, char sign, int64_t *n) {
    const size_t longest = 14;
    size_t len = (size_t)(end - *p);
    const char *line_end = memchr(*p, '\r', len < longest ? len : longest);
    if (len != 0 && **p != sign)
        return WRONG;
    if (!line_end || line_end + 1 == end)
        return len >= longest ? WRONG : INCOMPLETE;
    if (line_end[1] != '\n' ||
        !parse_number((struct kv_text){*p + 1, (size_t)(line_end - *p - 1)}, n))
        return WRONG;
    *p = line_end + 2;
    return 1;
}

/* The bytes of the next request, whose words are in argv then; INCOMPLETE; WRONG, and that is
 * answered. */
static ssize_t parse(struct conn *c) {
    const char *start = c->in + c->at, *p = start, *end = c->in + c->have;
    int64_t words, len;
    c->argc = 0;
    if (p == end)
        return INCOMPLETE;
    if (*p != '*')
        return parse_inline(c, p, end);
    ssize_t r = parse_count(&p, end, '*', &words);
    if (r < 0 || (r > 0 && words > MAX_ARGUMENTS))
        return protocol_error(c, "invalid multibulk length");
    for (; r > 0 && (int64_t)c->argc < words; p += len + 2) {
        r = parse_count(&p, end, '$', &len);
        if (r < 0 || (r > 0 && (len < 0 || len > MAX_BULK)))
            return protocol_error(c, "invalid bulk length");
        if (r == 0 || end - p < len + 2)
            return INCOMPLETE;
        if (p[len] != '\r' || p[len + 1] != '\n')
            return protocol_error(c, "a bulk does not end where it should");
        c->argv[c->argc++] = (struct kv_text){p, (size_t)len};
    }
    return r > 0 ? p - start : INCOMPLETE;
}

/* ---- connections ----------------------------------------------------------------------------- */

/* Read on; the requests so far are carried out, and what is left moves to the front. */
static bool read_more(struct conn *c) {
    memmove(c->in, c->in + c->at, c->have - c->at);
    c->have -= c->at;
    c->at = 0;
    if (c->have == c->capacity) {
        char *in = c->capacity < MAX_REQUEST ? realloc(c->in, c->capacity * 2) : NULL;
        if (!in) {
            say(c, "-ERR too big a request\r\n");
            return false;
        }
        c->in = in;
        c->capacity *= 2;
    }
    ssize_t n = go_read(c->fd, c->in + c->have, c->capacity - c->have);
    if (n <= 0)
        return false;
    c->have += (size_t)n;
    return true;
}

static void serve_requests(struct conn *c) {
    ssize_t n;
    do {
        while ((n = parse(c)) > 0 && !c->failed) {
            c->at += (size_t)n;
            if (c->argc != 0)
                execute(c);
        }
        flush(c);
    } while (n != WRONG && !c->failed && read_more(c));
    flush(c);
}

static void serve(void *arg) {
    int fd = (int)(intptr_t)arg;
    struct conn *c = malloc(sizeof *c); /* most of it is never touched */
    char *in = c ? malloc(FIRST_INPUT) : NULL;
    if (in) {
        c->fd = fd;
        c->failed = false;
        c->at = c->have = c->out_len = 0;
        c->in = in;
        c->capacity = FIRST_INPUT;
        serve_requests(c);
        free(c->in);
    }
    free(c);
    go_close(fd);
}

static void accept_loop(void *arg) {
    int listener = (int)(intptr_t)arg, fd;
    while ((fd = go_accept(listener, NULL, NULL)) >= 0)
        if (go_spawn(serve, (void *)(intptr_t)fd) < 0)
            go_close(fd); /* at a limit: this client is refused, the others go on */
}

/* ---- the program ----------------------------------------------------------------------------- */

static int usage(FILE *to, const char *program) {
    fprintf(to,
            "usage: %s [--port N] [--procs N]\n"
            "  --port N   listen on 127.0.0.1:N (default 6379; 0: any free one, see the output)\n"
            "  --procs N  processors to use (default: all)\n",
            program);
    return to == stdout ? 0 : 2;
}

static int parse_options(int argc, char **argv, int64_t *port, int64_t *procs) {
    static const struct option options[] = {{"port", required_argument, NULL, 'p'},
                                            {"procs", required_argument, NULL, 'P'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int o;
    while ((o = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (o == 'h')
            return usage(stdout, argv[0]);
        int64_t *n = o == 'p' ? port : procs;
        if (o == '?' || !parse_number((struct kv_text){optarg, strlen(optarg)}, n) || *n < 0 ||
            *n > (o == 'p' ? 65535 : 1024))
            return usage(stderr, argv[0]);
    }
    return optind == argc ? -1 : usage(stderr, argv[0]);
}

int main(int argc, char **argv) {
    int64_t port = 6379, procs = 0;
    struct go_options options = GO_OPTIONS_INIT;
    int exit_code = parse_options(argc, argv, &port, &procs);
    if (exit_code >= 0)
        return exit_code;
    options.procs = (unsigned)procs;

    sigset_t stop; /* blocked in the runtime's threads, too, which inherit it */
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    pthread_sigmask(SIG_BLOCK, &stop, NULL);

    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%d", (int)port);
    int r = kv_init() ? go_start(&options) : -ENOMEM;
    int listener = r < 0 ? r : go_listen("tcp", address);
    if (listener >= 0)
        r = go_spawn(accept_loop, (void *)(intptr_t)listener);
    if (r == 0 && listener >= 0)
        r = go_spawn(kv_sweep, NULL);
    if (listener < 0 || r < 0) {
        fprintf(stderr, "%s: %s: %s\n", argv[0], address, strerror(listener < 0 ? -listener : -r));
        return 1;
    }
    struct sockaddr_in bound;
    socklen_t len = sizeof bound;
    getsockname(listener, (struct sockaddr *)&bound, &len);
    printf("listening on 127.0.0.1:%u\n", ntohs(bound.sin_port));
    fflush(stdout);

    int signo;
    sigwait(&stop, &signo);
    go_close(listener);
    return go_stop(5 * GO_SECOND) == 0 ? 0 : 1;
}
