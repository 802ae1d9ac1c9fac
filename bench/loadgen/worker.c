/* worker.c - a closed loop over many connections: each has one request under way, and sends the
 * next as soon as the answer to the last has been checked.
 *
 * One epoll, edge triggered, registered once for both directions; a connection costs a recv, a send
 * and its share of an epoll_wait for each request. The clock is read once for each answer: that
 * moment ends one request and begins the next, so a request's time includes checking the answer
 * before it (well under a microsecond) and the whole time in the socket.
 *
 * With a rate a timer deals out turns, and a connection needs one for each request. Turns that find
 * no free connection are kept: what a server owes it must catch up with.
 */
#include "loadgen.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { GIVE_UP_AFTER = 1000, SHOW_ERRORS = 5, DRAIN_SECONDS = 10 };

enum { QUICK, BURN };

struct request {
    char *text;
    size_t len;
};

struct conn {
    int fd; /* -1: dead */
    int kind;
    bool waiting; /* a request is under way */
    int64_t start;
    size_t sent, have; /* have: bytes of an answer kept in part */
    char *message;     /* echo: what was sent and must come back */
    char *part;
};

struct loop {
    struct worker *w;
    struct config *config;
    int epoll;
    int timer; /* deals out turns; -1: no rate */
    uint64_t turns;
    unsigned alive, waiting;
    uint64_t random;
    struct request requests[2];
    struct answer answers[2];
    size_t room; /* of `in` and of every conn.part: one byte more than an answer may have */
    char *in;
    struct conn *conns;
};

int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void *must(void *p) {
    if (!p) {
        fprintf(stderr, "gort-loadgen: out of memory\n");
        exit(3);
    }
    return p;
}

static uint64_t next_random(struct loop *l) {
    l->random ^= l->random << 13;
    l->random ^= l->random >> 7;
    l->random ^= l->random << 17;
    return l->random;
}

/* Opens a connection in place of c's. Blocks, two seconds at most: this is not the measured path.
 */
static int conn_open(struct loop *l, struct conn *c) {
    struct timeval patience = {.tv_sec = 2};
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (struct sockaddr *)&l->config->server, sizeof l->config->server) < 0 ||
        fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &ev) < 0) {
        int err = errno;
        close(fd);
        return -err;
    }
    c->fd = fd;
    c->waiting = false;
    c->have = 0;
    return 0;
}

static void conn_fail(struct loop *l, struct conn *c, const char *why) {
    if (l->w->errors++ < SHOW_ERRORS)
        fprintf(stderr, "gort-loadgen: connection %td: %s\n", c - l->conns, why);
    if (c->waiting)
        l->waiting--;
    c->waiting = false;
    close(c->fd); /* takes it out of the epoll */
    c->fd = -1;
    int err = l->w->errors < GIVE_UP_AFTER ? conn_open(l, c) : -ECANCELED;
    if (err < 0) {
        l->alive--;
        if (err != -ECANCELED && l->w->errors < SHOW_ERRORS)
            fprintf(stderr, "gort-loadgen: connect: %s\n", strerror(-err));
    }
}

static const struct request *conn_request(struct loop *l, struct conn *c, struct request *echo) {
    if (l->config->http)
        return &l->requests[c->kind];
    *echo = (struct request){c->message, l->config->size};
    return echo;
}

/* Sends what the socket takes; the rest goes when epoll says that there is room again. */
static void conn_send(struct loop *l, struct conn *c) {
    struct request echo;
    const struct request *r = conn_request(l, c, &echo);

    while (c->waiting && c->sent < r->len) {
        ssize_t n = send(c->fd, r->text + c->sent, r->len - c->sent, MSG_NOSIGNAL);
        if (n >= 0)
            c->sent += (size_t)n;
        else if (errno == EAGAIN)
            return;
        else if (errno != EINTR)
            return conn_fail(l, c, strerror(errno));
    }
}

static void conn_begin(struct loop *l, struct conn *c, int64_t now) {
    struct config *f = l->config;

    if (now >= f->end || c->fd < 0)
        return;
    if (l->timer >= 0 && l->turns-- == 0) {
        l->turns = 0; /* it waits for one */
        return;
    }
    if (f->http) {
        c->kind =
            f->burn_percent > 0 && (double)(next_random(l) >> 11) * 0x1p-53 * 100 < f->burn_percent
                ? BURN
                : QUICK;
    } else {
        for (size_t i = 0; i < f->size; i += sizeof(uint64_t)) {
            uint64_t word = next_random(l);
            memcpy(c->message + i, &word, f->size - i < sizeof word ? f->size - i : sizeof word);
        }
    }
    c->sent = c->have = 0;
    c->start = now;
    c->waiting = true;
    l->waiting++;
    conn_send(l, c);
}

/* As answer_check, for both protocols; whatever follows the answer was not asked for. */
static ssize_t check(struct loop *l, struct conn *c, const char *buf, size_t len,
                     const char **why) {
    ssize_t total;

    if (l->config->http) {
        total = answer_check(&l->answers[c->kind], buf, len, why);
    } else {
        size_t size = l->config->size;
        *why = "the echo differs";
        if (memcmp(buf, c->message, len < size ? len : size))
            return -1;
        total = len < size ? 0 : (ssize_t)size;
    }
    if (total > 0 && (size_t)total < len) {
        *why = "more bytes than the answer has";
        return -1;
    }
    if (total == 0 && len >= l->room) {
        *why = "an answer too large";
        return -1;
    }
    return total;
}

/* Reads until the answer is complete or the socket is empty. A whole answer in one read, the usual
 * case, is checked in the worker's own buffer, which stays in the cache; only a part is copied. */
static void conn_receive(struct loop *l, struct conn *c) {
    for (;;) {
        char *buf = c->have ? c->part : l->in;
        const char *why;
        ssize_t n = recv(c->fd, buf + c->have, l->room - c->have, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0)
            return conn_fail(l, c, n ? strerror(errno) : "closed by the server");
        if (!c->waiting)
            return conn_fail(l, c, "bytes that nobody asked for");

        size_t len = c->have + (size_t)n;
        ssize_t total = check(l, c, buf, len, &why);
        if (total < 0)
            return conn_fail(l, c, why);
        if (total > 0) {
            int64_t now = now_ns();
            if (now >= l->config->begin && now < l->config->end)
                hist_add(c->kind == BURN ? &l->w->burns : &l->w->quick, (uint64_t)(now - c->start));
            c->waiting = false;
            l->waiting--;
            return conn_begin(l, c, now);
        }
        if (!c->have) {
            if (!c->part)
                c->part = must(malloc(l->room));
            memcpy(c->part, buf, len);
        }
        c->have = len;
    }
}

static void take_turns(struct loop *l) {
    uint64_t expired;

    if (read(l->timer, &expired, sizeof expired) == sizeof expired)
        l->turns += expired;
    for (unsigned i = 0; l->turns && i < l->w->conns; i++)
        if (!l->conns[i].waiting)
            conn_begin(l, &l->conns[i], now_ns());
}

static void start_timer(struct loop *l) {
    int64_t ns = (int64_t)(1e9 * l->config->threads / l->config->rate);
    struct timespec every = {ns / 1000000000, ns % 1000000000};
    struct itimerspec spec = {every, every};
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};

    l->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (l->timer < 0 || timerfd_settime(l->timer, 0, &spec, NULL) < 0 ||
        epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->timer, &ev) < 0) {
        perror("gort-loadgen: timerfd");
        exit(3);
    }
}

static void set_up(struct loop *l) {
    struct config *f = l->config;
    struct worker *w = l->w;
    unsigned port = ntohs(f->server.sin_port);

    l->random = UINT64_C(0x9e3779b97f4a7c15) * (w->id + 1);
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->room = (f->http ? ANSWER_MAX : f->size) + 1;
    l->in = must(malloc(l->room));
    l->conns = must(calloc(w->conns, sizeof *l->conns));
    for (int kind = QUICK; kind <= BURN; kind++) {
        int len = asprintf(&l->requests[kind].text, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n\r\n",
                           kind == BURN ? "/burn" : f->path, port);
        must(len < 0 ? NULL : l->requests[kind].text);
        l->requests[kind].len = (size_t)len;
        l->answers[kind].body = f->expect;
    }
    for (unsigned i = 0; i < w->conns; i++) {
        struct conn *c = &l->conns[i];
        c->message = f->http ? NULL : must(malloc(f->size));
        int err = conn_open(l, c);
        if (err < 0) {
            fprintf(stderr, "gort-loadgen: connect to port %u: %s\n", port, strerror(-err));
            exit(3);
        }
        l->alive++;
    }
}

static void tear_down(struct loop *l) {
    for (unsigned i = 0; i < l->w->conns; i++) {
        struct conn *c = &l->conns[i];
        if (c->fd >= 0)
            close(c->fd);
        free(c->message);
        free(c->part);
    }
    if (l->timer >= 0)
        close(l->timer);
    for (int kind = QUICK; kind <= BURN; kind++) {
        free(l->requests[kind].text);
        free(l->answers[kind].text);
    }
    free(l->in);
    free(l->conns);
    close(l->epoll);
}

void *worker_run(void *arg) {
    struct worker *w = arg;
    struct loop l = {.w = w, .config = w->config, .timer = -1};
    struct epoll_event events[256];

    set_up(&l);
    pthread_barrier_wait(&w->config->connected);
    pthread_barrier_wait(&w->config->go);
    if (w->config->rate > 0)
        start_timer(&l);
    for (unsigned i = 0; i < w->conns; i++)
        conn_begin(&l, &l.conns[i], now_ns());

    /* At the end of the window nothing new is sent; what is under way has a little time to end. */
    int64_t last = w->config->end + DRAIN_SECONDS * INT64_C(1000000000), now;
    while (l.alive && (now = now_ns()) < last && (l.waiting || now < w->config->end)) {
        int64_t until = now < w->config->end ? w->config->end : last;
        int n = epoll_wait(l.epoll, events, 256, (int)((until - now) / 1000000 + 1));
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c) {
                take_turns(&l);
                continue;
            }
            int fd = c->fd;
            if (events[i].events & EPOLLOUT)
                conn_send(&l, c);
            /* a failed send may have put a new connection here, which this event is not about */
            if (c->fd == fd && fd >= 0 && (events[i].events & ~(uint32_t)EPOLLOUT))
                conn_receive(&l, c);
        }
        if (now < w->config->end)
            for (unsigned i = 0; w->errors && i < w->conns; i++)
                if (!l.conns[i].waiting) /* opened anew after an error */
                    conn_begin(&l, &l.conns[i], now_ns());
    }
    if (l.waiting)
        fprintf(stderr, "gort-loadgen: %u requests were never answered\n", l.waiting);
    w->errors += l.waiting;
    tear_down(&l);
    return NULL;
}
