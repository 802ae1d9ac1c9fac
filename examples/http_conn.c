/* http_conn.c - the life of one connection: read, answer, read on, close well.
 *
 * The usual request costs two system calls, one read that brings it whole and one write of its
 * answer, and no allocation. What else there is deals with the unusual:
 *
 * - Pipelining. Requests that arrived together are answered together: http_reply gathers in c->out,
 *   and that is written when nothing more can be answered without reading.
 * - Requests in pieces. A head is parsed again only when a line has been completed, and it has at
 *   most HTTP_MAX_FIELDS lines, so a client that sends byte by byte costs little more than another.
 * - Slow clients. Every wait has a deadline, by a scope around it. A head and a body have one
 *   deadline for the whole, not one per read: else a byte now and then holds us for ever.
 * - The end. close(2) with unread bytes in the socket sends a reset, which can overtake our last
 *   answer and destroy it on the client's side. See linger().
 *
 * A function that brings in something returns > 0 when it has it, 0 when the connection is to end
 * without a word, and -status when it is to end with that answer. */
#include "http_conn.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { BODY_CHUNK = 16384 }; /* a chunked body, whose length nobody knows, starts with this much */

static ssize_t read_until(struct http_conn *c, char *at, size_t len, int64_t deadline) {
    go_scope scope;
    go_scope_enter(&scope, deadline);
    ssize_t n = go_read(c->fd, at, len);
    go_scope_leave(&scope);
    return n;
}

bool http_conn_write(struct http_conn *c, struct http_str body) {
    if (c->failed || c->out_len + body.len == 0)
        return !c->failed;
    struct iovec parts[2] = {{c->out, c->out_len}, {(void *)body.at, body.len}};
    go_scope scope;
    go_scope_enter(&scope, go_now() + c->server->config.write_timeout_ns);
    ssize_t n;
    if (body.len == 0) {
        n = go_write_all(c->fd, c->out, c->out_len);
    } else if ((n = go_writev(c->fd, parts, 2)) >= 0) { /* all of it, nearly always */
        size_t sent = (size_t)n, sent_body = sent > c->out_len ? sent - c->out_len : 0;
        if (sent < c->out_len)
            n = go_write_all(c->fd, c->out + sent, c->out_len - sent);
        if (n >= 0 && sent_body < body.len)
            n = go_write_all(c->fd, body.at + sent_body, body.len - sent_body);
    }
    go_scope_leave(&scope);
    c->out_len = 0;
    c->failed = n < 0;
    return !c->failed;
}

static bool flush(struct http_conn *c) {
    return http_conn_write(c, HTTP_STR(""));
}

/* Wait for the first byte of a request. A connection that waits here owes nobody anything, so a
 * stop may end it, with shutdown(SHUT_RD): what had arrived before is still read, then comes the
 * end.
 *
 * We say that we are idle, then look whether the server stops; http_server_stop says that it stops,
 * then looks who is idle. Both orders are sequentially consistent, so one of us sees the other. */
static int wait_for_request(struct http_conn *c) {
    if (c->in != c->first_in) { /* a large head was here: do not sit on its memory while idle */
        free(c->in);
        c->in = c->first_in;
        c->in_cap = HTTP_IN_SIZE;
    }
    c->in_start = c->in_end = 0;
    atomic_store(&c->idle, true);
    if (atomic_load(&c->server->stopping))
        return 0;
    ssize_t n = read_until(c, c->in, c->in_cap, go_now() + c->server->config.idle_timeout_ns);
    /* A stop that sees this late treats us as idle still: then this request was just too late. */
    atomic_store_explicit(&c->idle, false, memory_order_relaxed);
    if (n <= 0)
        return 0;
    c->in_end = (size_t)n;
    return 1;
}

/* Twice the room for what is received, but no more than max. */
static bool grow_in(struct http_conn *c, size_t max) {
    size_t cap = c->in_cap < max / 2 ? c->in_cap * 2 : max;
    char *in = cap > c->in_cap ? malloc(cap) : NULL;
    if (in == NULL)
        return false;
    memcpy(in, c->in, c->in_end);
    if (c->in != c->first_in)
        free(c->in);
    c->in = in;
    c->in_cap = cap;
    return true;
}

/* Read more of a head that has begun. */
static int read_more_head(struct http_conn *c, int64_t deadline) {
    if (c->in_start > 0) { /* behind an answered request: make room by moving to the front */
        memmove(c->in, c->in + c->in_start, c->in_end - c->in_start);
        c->in_end -= c->in_start;
        c->in_start = 0;
    }
    if (c->in_end == c->in_cap && !grow_in(c, c->server->config.max_header))
        return -503;
    ssize_t n = read_until(c, c->in + c->in_end, c->in_cap - c->in_end, deadline);
    if (n <= 0)
        return n == -ETIMEDOUT ? -408 : 0;
    c->in_end += (size_t)n;
    return 1;
}

/* Some clients send an empty line after a body; RFC 9112 2.2 asks us to overlook it. */
static void skip_empty_lines(struct http_conn *c) {
    for (;;) {
        const char *at = c->in + c->in_start;
        size_t have = c->in_end - c->in_start;
        if (have >= 1 && at[0] == '\n')
            c->in_start += 1;
        else if (have >= 2 && at[0] == '\r' && at[1] == '\n')
            c->in_start += 2;
        else
            return;
    }
}

/* Bring the next request's head: its length, with c->request filled in. */
static int receive_head(struct http_conn *c) {
    size_t max = c->server->config.max_header;
    size_t seen = 0; /* so many bytes were parsed already and found incomplete */
    int64_t deadline = 0;
    for (;;) {
        if (seen == 0)
            skip_empty_lines(c);
        const char *at = c->in + c->in_start;
        size_t have = c->in_end - c->in_start;
        if (have > 0 && (seen == 0 || memchr(at + seen, '\n', have - seen) != NULL)) {
            int n = http_parse_head(at, have, &c->request);
            if (n != 0)
                return n > 0 && (size_t)n > max ? -431 : n;
        }
        seen = have;
        if (have > 0 && have >= max)
            return -431;
        if (!flush(c)) /* whatever comes now has to be waited for */
            return 0;
        if (have > 0 && deadline == 0)
            deadline = go_now() + c->server->config.header_timeout_ns;
        int n = have > 0 ? read_more_head(c, deadline) : wait_for_request(c);
        if (n <= 0)
            return n;
    }
}

/* The body is not here yet: send what we owe, and the 100 that the client may be waiting for. */
static bool prepare_to_wait_for_body(struct http_conn *c) {
    if (c->request.expect_continue) {
        struct http_str go_on = HTTP_STR("HTTP/1.1 100 Continue\r\n\r\n");
        if (c->out_len + go_on.len > HTTP_OUT_SIZE && !flush(c))
            return false;
        memcpy(c->out + c->out_len, go_on.at, go_on.len);
        c->out_len += go_on.len;
    }
    return flush(c);
}

/* A body by Content-Length; in[body_at, in_end) may be its beginning. Into c->in if it fits there,
 * else into memory of its own. Never reads beyond it, so what follows in the socket is the next
 * request. */
static int receive_sized_body(struct http_conn *c, size_t body_at, size_t *next) {
    size_t length = c->request.content_length, have = c->in_end - body_at;
    *next = body_at + length;
    if (length > c->server->config.max_body)
        return -413;
    c->request.body = (struct http_str){c->in + body_at, length};
    if (have >= length)
        return 1;
    if (!prepare_to_wait_for_body(c))
        return 0;
    char *body = c->in + body_at;
    if (length > c->in_cap - body_at) {
        body = c->body = malloc(length);
        if (body == NULL)
            return -503;
        memcpy(body, c->in + body_at, have);
        c->request.body.at = body;
        *next = c->in_end;
    }
    int64_t deadline = go_now() + c->server->config.body_timeout_ns;
    while (have < length) {
        ssize_t n = read_until(c, body + have, length - have, deadline);
        if (n <= 0)
            return n == -ETIMEDOUT ? -408 : 0;
        have += (size_t)n;
    }
    if (body != c->body)
        c->in_end = *next;
    return 1;
}

/* Append decoded bytes to c->body, which grows by doubling up to max_body. */
static int append_body(struct http_conn *c, const char *at, size_t len, size_t *cap) {
    struct http_str *body = &c->request.body;
    size_t max = c->server->config.max_body;
    if (len == 0)
        return 1;
    if (len > max - body->len)
        return -413;
    if (body->len + len > *cap) {
        size_t want = *cap > 0 ? *cap : BODY_CHUNK;
        while (want < body->len + len)
            want *= 2;
        want = want < max ? want : max;
        char *grown = realloc(c->body, want);
        if (grown == NULL)
            return -503;
        c->body = grown;
        *cap = want;
    }
    memcpy(c->body + body->len, at, len);
    body->at = c->body;
    body->len += len;
    return 1;
}

/* A chunked body. Each read goes to the free end of c->in and is decoded in place, so that bytes of
 * the next request, when some came along, are already where they belong. Only when the body did not
 * come whole is it gathered in memory of its own. */
static int receive_chunked_body(struct http_conn *c, size_t body_at, size_t *next) {
    struct phr_chunked_decoder decoder = {.consume_trailer = 1};
    size_t cap = 0;
    int64_t deadline = 0;
    c->request.body = (struct http_str){c->in + body_at, 0};
    for (;;) {
        char *at = c->in + body_at;
        size_t len = c->in_end - body_at;
        ssize_t left = phr_decode_chunked(&decoder, at, &len);
        if (left == -1)
            return -400;
        *next = body_at + len;
        c->in_end = *next + (left > 0 ? (size_t)left : 0);
        if (left >= 0 && c->body == NULL) {
            c->request.body.len = len;
            return len > c->server->config.max_body ? -413 : 1;
        }
        int n = append_body(c, at, len, &cap);
        if (n <= 0 || left >= 0)
            return n;
        if (deadline == 0) {
            if (!prepare_to_wait_for_body(c))
                return 0;
            deadline = go_now() + c->server->config.body_timeout_ns;
        }
        ssize_t got = read_until(c, at, c->in_cap - body_at, deadline);
        if (got <= 0)
            return got == -ETIMEDOUT ? -408 : 0;
        c->in_end = body_at + (size_t)got;
    }
}

/* Bring a whole request into c->request; *next is where in c->in the one after it begins. */
static int receive(struct http_conn *c, size_t *next) {
    struct http_request *request = &c->request;
    request->conn = c;
    int head = receive_head(c);
    if (head <= 0)
        return head;
    request->body = HTTP_STR("");
    *next = c->in_start + (size_t)head;
    if (request->has_length)
        return receive_sized_body(c, *next, next);
    if (!request->chunked)
        return 1;
    if (c->in_cap - *next < HTTP_IN_SIZE / 4) {
        /* The head leaves no room to decode in. With more room the request is somewhere else:
         * parsing it once more is simpler than moving every pointer in it. */
        if (!grow_in(c, c->in_cap + HTTP_IN_SIZE))
            return -503;
        http_parse_head(c->in + c->in_start, (size_t)head, request);
        request->body = HTTP_STR("");
    }
    return receive_chunked_body(c, *next, next);
}

/* Answer a request that is refused, and end the connection: nobody knows where the next begins. */
static void refuse(struct http_conn *c, int status) {
    c->request.method = HTTP_STR("");
    c->request.minor = 1;
    c->keep_alive = false;
    c->linger = true;
    c->replied = false;
    http_reply(&c->request, status, HTTP_STR("the request was refused\n"));
}

static void answer(struct http_conn *c) {
    struct http_server *server = c->server;
    c->replied = false;
    c->keep_alive = c->request.keep_alive;
    server->config.handler(&c->request, server->config.arg);
    if (!c->replied)
        http_reply(&c->request, 500, HTTP_STR("the handler gave no answer\n"));
    atomic_store_explicit(&c->requests,
                          atomic_load_explicit(&c->requests, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* Our half is closed, so the client sees the end of our answer; then what it still sends is read
 * and dropped until it closes too, for a while. Only then may the socket be closed: with unread
 * bytes in it the kernel would send a reset, and the client might lose the answer that tells what
 * went wrong. */
static void linger(struct http_conn *c) {
    shutdown(c->fd, SHUT_WR);
    int64_t deadline = go_now() + c->server->config.linger_ns;
    while (read_until(c, c->out, HTTP_OUT_SIZE, deadline) > 0)
        continue;
}

void http_conn_run(void *arg) {
    struct http_conn *c = arg;
    c->in = c->first_in;
    c->in_cap = HTTP_IN_SIZE;
    do {
        size_t next = 0;
        int r = receive(c, &next);
        if (r <= 0) {
            c->keep_alive = false;
            if (r < 0)
                refuse(c, -r);
        } else {
            answer(c);
            c->in_start = next;
        }
        free(c->body);
        c->body = NULL;
    } while (c->keep_alive && !c->failed);
    flush(c);
    if (!c->failed && (c->linger || c->in_start < c->in_end))
        linger(c);
    if (c->in != c->first_in)
        free(c->in);
    http_server_forget(c);
}
