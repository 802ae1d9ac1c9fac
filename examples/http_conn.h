/* http_conn.h - a connection and the server it belongs to: shared by http_conn.c, http_reply.c and
 * http_server.c, not for those who use them. */
#ifndef HTTP_CONN_H
#define HTTP_CONN_H

#include "http_server.h"

#include <gort.h>
#include <stdatomic.h>

enum {
    HTTP_IN_SIZE = 4096,  /* a request head larger than this, which is rare, moves to the heap */
    HTTP_OUT_SIZE = 4096, /* answers to pipelined requests gather here: one write for all */
    HTTP_REPLY_HEAD_MAX = 512, /* status line and fields of any answer */
};

/* Everything that one connection needs, in one allocation made when it is accepted: nothing is
 * allocated per request, and an idle connection holds this and its green thread's stack. Only the
 * connection's own green thread touches it, but for what is marked. */
struct http_conn {
    int fd;
    struct http_server *server;
    struct http_conn *next, **link; /* in server->conns, under server->lock */
    /* Waits for a request, so a stop may end it: see wait_for_request. */
    atomic_bool idle;
    atomic_uint_fast64_t requests; /* written here alone, read by http_server_stats */

    bool keep_alive; /* another request may follow the current one */
    bool failed;     /* the client cannot be written to */
    bool linger;     /* it may still be sending: see linger() */
    bool replied;    /* to the current request */

    /* Received bytes are in[in_start, in_end); the request at in_start stays where it is until it
     * has been answered, because the request points into it. */
    char *in;
    size_t in_cap, in_start, in_end;
    char *body; /* of the current request, when it did not fit into `in`; else NULL */
    size_t out_len;

    struct http_request request; /* from here on nothing is initialised */
    char first_in[HTTP_IN_SIZE];
    char out[HTTP_OUT_SIZE];
};

struct http_server {
    struct http_config config;
    int listener;
    unsigned port;
    atomic_bool stopping;
    go_waitgroup running; /* the accept loop, the connections, and what http_server_hold counts */

    go_mutex lock;
    struct http_conn *conns;     /* under lock */
    uint64_t accepted;           /* under lock */
    uint64_t requests_of_closed; /* under lock */
};

/* The life of a connection, on its own green thread; arg is the struct http_conn. */
void http_conn_run(void *arg);

/* Unlink c and free it: its last act. */
void http_server_forget(struct http_conn *c);

/* Write what has gathered in c->out, and then body (which may be empty). False, and c->failed, when
 * the client is gone or does not read. */
bool http_conn_write(struct http_conn *c, struct http_str body);

#endif
