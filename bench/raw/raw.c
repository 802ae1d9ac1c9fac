/* raw.c - gort-raw: echo, http_raw and mixed as one would write them by hand, without green
 * threads: the yardstick for what the servers on gort may cost. mixed is http_raw whose /burn
 * computes for 5 ms, in the loop: all others wait.
 *
 * One thread, one epoll, edge triggered. A connection is registered once, for both directions, and
 * never changed. What makes it cheap is what it leaves out:
 *   - a read that came back short has emptied the socket, so no second read asks for EAGAIN;
 *   - answers go out at once; EPOLLOUT matters only after a write that did not take all;
 *   - input lands in one buffer for all connections, and only what could not be used or sent yet is
 *     copied into memory of the connection's own.
 * The short read has one trap: a FIN that is already there gives no further edge. EPOLLRDHUP says
 * so. A peer that sends without end is put at the back of a list after some reads, so that the
 * others are served too; one that does not read its answers is not read from either.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFER = 65536, /* one read */
    HEAD_MAX = 4096,
    READS_IN_A_ROW = 16,
    REQUEST_MIN = sizeof "GET / HTTP/1.1\r\n\r\n" - 1,
};

struct conn {
    int fd;
    bool gone;      /* the peer has said FIN: read on until 0 */
    bool closing;   /* after what is still to be sent */
    bool burn;      /* the request is one for /burn */
    bool in_again;  /* member of the list `again` */
    size_t skip;    /* bytes of a request's body that have not come; nobody looks at them */
    size_t head;    /* bytes of a request that has not arrived in full */
    size_t pending; /* bytes of `unsent` that wait for EPOLLOUT */
    char *unsent;
    char *partial;
    struct conn *next;
};

/* What a protocol makes of `len` bytes at `in`: the answer, and how many bytes it used. */
typedef size_t handler(struct conn *c, const char *in, size_t len, const char **out,
                       size_t *out_len);

static int epoll_fd;
static handler *handle;
static struct conn *again; /* connections whose socket may still hold input */

/* Room in front of a read for the part of a request that came before. */
static char input[HEAD_MAX + BUFFER];

static const char hello[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!";
static const char bad[] =
    "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/* Holds the answers to all the requests that can be in `input`: nothing is left over but a part of
 * the next request. Pages that nobody pipelines into are never touched. */
static char output[(HEAD_MAX + BUFFER) / REQUEST_MIN * sizeof hello + sizeof bad];

static size_t echo(struct conn *c, const char *in, size_t len, const char **out, size_t *out_len) {
    (void)c;
    *out = in;
    *out_len = len;
    return len;
}

static bool is(const char *text, size_t len, const char *what) {
    return len == strlen(what) && !strncasecmp(text, what, len);
}

static bool request_line(struct conn *c, const char *line, size_t len) {
    size_t method = len > 5 && !memcmp(line, "POST ", 5) ? 5 : 4;

    if (len < method + sizeof "/ HTTP/1.1" - 1 || (method == 4 && memcmp(line, "GET ", 4)) ||
        line[method] != '/')
        return false;
    const char *version = line + len - sizeof " HTTP/1.1" + 1;
    if (memcmp(version, " HTTP/1.", 8) || (version[8] != '0' && version[8] != '1') ||
        memchr(line + method, ' ', (size_t)(version - line) - method))
        return false;
    c->closing = version[8] == '0';
    c->burn = is(line + method, (size_t)(version - line) - method, "/burn");
    return true;
}

/* Of the headers only those matter that say where the next request begins, if there is one. */
static bool header(struct conn *c, const char *line, size_t len) {
    const char *colon = memchr(line, ':', len), *value = colon + 1, *end = line + len;
    char *stop;

    if (!colon || colon == line)
        return false;
    size_t name = (size_t)(colon - line);
    if (name < 10) /* Host, Accept, User-Agent: nearly all of them */
        return true;
    while (value < end && *value == ' ')
        value++;
    size_t size = (size_t)(end - value);
    if (is(line, name, "Connection")) {
        if (is(value, size, "close"))
            c->closing = true;
        else if (is(value, size, "keep-alive"))
            c->closing = false;
    } else if (is(line, name, "Content-Length")) {
        if (!size || size > 18 || *value < '0' || *value > '9')
            return false;
        c->skip = strtoul(value, &stop, 10);
        return stop == end;
    }
    return !is(line, name, "Transfer-Encoding");
}

/* The bytes of the request's head, 0 when it is not there in full, -1 when it is wrong. */
static ssize_t parse(struct conn *c, const char *in, size_t len) {
    const char *line = in, *end = in + len, *newline;

    for (; (newline = memchr(line, '\n', (size_t)(end - line))); line = newline + 1) {
        size_t size = (size_t)(newline - line);
        if (!size-- || newline[-1] != '\r')
            return -1;
        if (line == in ? !request_line(c, line, size) : size && !header(c, line, size))
            return -1;
        if (line != in && !size)
            return newline + 1 - in;
    }
    c->closing = false; /* what the part said is read again with the rest */
    c->skip = 0;
    return 0;
}

/* /burn: so many steps, each of which needs the one before, that they take 5 ms of CPU; 0: none. */
static long burn_steps;

static uint64_t burn(long steps) {
    uint64_t x = 88172645463325252u;

    for (long i = 0; i < steps; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
}

static int64_t cpu_ns(void) {
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void calibrate(void) {
    const long sample = 1000000;
    int64_t best = INT64_MAX;

    for (int i = 0; i < 20; i++) {
        int64_t from = cpu_ns();
        if (burn(sample) == 0)
            abort(); /* it never gets there; the compiler does not know */
        int64_t took = cpu_ns() - from;
        best = took < best ? took : best;
    }
    burn_steps = (long)(INT64_C(5000000) * sample / best);
}

/* Answers every request whose head is there, pipelined ones with one write. */
static size_t http_raw(struct conn *c, const char *in, size_t len, const char **out,
                       size_t *out_len) {
    size_t used = 0;

    *out = output;
    *out_len = 0;
    while (!c->closing) {
        size_t body = c->skip < len - used ? c->skip : len - used;
        c->skip -= body;
        used += body;
        if (used == len)
            break;
        ssize_t head = parse(c, in + used, len - used);
        if (!head)
            break;
        if (head > 0 && c->burn && burn(burn_steps) == 0)
            abort();
        const char *answer = head < 0 ? bad : hello;
        size_t size = strlen(answer);
        memcpy(output + *out_len, answer, size);
        *out_len += size;
        if (head < 0)
            c->closing = true;
        else
            used += (size_t)head;
    }
    return used;
}

static void conn_close(struct conn *c) {
    if (c->in_again)
        for (struct conn **p = &again; *p; p = &(*p)->next)
            if (*p == c) {
                *p = c->next;
                break;
            }
    close(c->fd);
    free(c->unsent);
    free(c->partial);
    free(c);
}

/* false: the connection is broken. */
static bool conn_write(struct conn *c, const char *buf, size_t len) {
    ssize_t n = send(c->fd, buf, len, MSG_NOSIGNAL);

    if (n == (ssize_t)len)
        return true;
    if (n < 0) {
        if (errno != EAGAIN)
            return false;
        n = 0;
    }
    c->pending = len - (size_t)n;
    c->unsent = malloc(c->pending);
    if (!c->unsent)
        return false;
    memcpy(c->unsent, buf + n, c->pending);
    return true;
}

static bool conn_flush(struct conn *c) {
    ssize_t n = send(c->fd, c->unsent, c->pending, MSG_NOSIGNAL);

    if (n < 0)
        return errno == EAGAIN;
    c->pending -= (size_t)n;
    memmove(c->unsent, c->unsent + n, c->pending);
    if (!c->pending) {
        free(c->unsent);
        c->unsent = NULL;
    }
    return true;
}

static bool keep_partial(struct conn *c, const char *from, size_t len) {
    if (len && !c->partial)
        c->partial = malloc(HEAD_MAX);
    if (len > HEAD_MAX || (len && !c->partial))
        return false;
    if (len)
        memcpy(c->partial, from, len);
    c->head = len;
    return true;
}

/* Reads, answers, and returns false when the connection is over. */
static bool conn_run(struct conn *c) {
    if (c->pending && (!conn_flush(c) || (c->closing && !c->pending)))
        return false;
    for (int reads = 0; !c->pending; reads++) {
        if (reads == READS_IN_A_ROW) {
            if (!c->in_again) {
                c->in_again = true;
                c->next = again;
                again = c;
            }
            return true;
        }
        char *at = input + HEAD_MAX, *start = at - c->head;
        ssize_t n = recv(c->fd, at, BUFFER, 0);
        if (n <= 0)
            return n < 0 && errno == EAGAIN;
        if (c->head)
            memcpy(start, c->partial, c->head);

        const char *out;
        size_t len = c->head + (size_t)n, out_len;
        size_t used = handle(c, start, len, &out, &out_len);
        if (out_len && !conn_write(c, out, out_len))
            return false;
        if (c->closing)
            return c->pending;
        if (!keep_partial(c, start + used, len - used))
            return false;
        if (n < BUFFER && !c->gone)
            return true;
    }
    return true;
}

static void accept_all(int listener) {
    int fd, on = 1;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0 ||
           errno == EINTR || errno == ECONNABORTED) {
        if (fd < 0)
            continue;
        struct conn *c = calloc(1, sizeof *c);
        struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                 .data.ptr = c};
        if (!c) {
            close(fd);
            continue;
        }
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
            conn_close(c);
    }
    if (errno != EAGAIN)
        perror("gort-raw: accept");
}

static _Noreturn void die(const char *what) {
    perror(what);
    exit(1);
}

static int listen_on(unsigned port) {
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        die("gort-raw: socket");
    if (bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(fd, SOMAXCONN) < 0)
        die("gort-raw: listen");
    return fd;
}

static _Noreturn void serve(int listener) {
    struct epoll_event events[512], ev = {.events = EPOLLIN, .data.ptr = NULL};

    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &ev) < 0)
        die("gort-raw: epoll");
    for (;;) {
        int n = epoll_wait(epoll_fd, events, 512, again ? 0 : -1);
        if (n < 0 && errno != EINTR)
            die("gort-raw: epoll_wait");
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c) {
                accept_all(listener);
                continue;
            }
            if (events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
                c->gone = true;
            if (!conn_run(c))
                conn_close(c);
        }
        struct conn *turn = again;
        again = NULL;
        while (turn) {
            struct conn *c = turn;
            turn = c->next;
            c->in_again = false;
            if (!conn_run(c))
                conn_close(c);
        }
    }
}

int main(int argc, char **argv) {
    unsigned port = 8080;

    bool mixed = argc > 1 && !strcmp(argv[1], "mixed");
    if (argc > 1 && !strcmp(argv[1], "echo"))
        handle = echo;
    else if (mixed || (argc > 1 && !strcmp(argv[1], "http_raw")))
        handle = http_raw;
    if (!handle) {
        fprintf(stderr, "usage: gort-raw echo|http_raw|mixed [port=N]\n");
        return 2;
    }
    if (mixed)
        calibrate();
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "--procs") && i + 1 < argc)
            i++; /* one thread, whatever is asked for */
        else if (sscanf(argv[i], "port=%u", &port) != 1 || port > 65535) {
            fprintf(stderr, "gort-raw: unknown argument \"%s\"\n", argv[i]);
            return 2;
        }
    }
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    serve(listen_on(port));
}
