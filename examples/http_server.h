/* http_server.h - an HTTP/1.1 server on green threads: what a program that uses it sees.
 *
 * Each connection has a green thread of its own, which reads a request with its body, calls the
 * handler, and writes the answer: the handler is plain code that may block in any gort call. */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include "third_party/picohttpparser/picohttpparser.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bytes with a length: most of them point into what was received, so none ends with a zero. */
struct http_str {
    const char *at;
    size_t len;
};
#define HTTP_STR(literal) ((struct http_str){(literal), sizeof(literal) - 1})

static inline bool http_str_equal(struct http_str a, struct http_str b) {
    return a.len == b.len && memcmp(a.at, b.at, a.len) == 0;
}

/* The same with ASCII letters of either case alike, as field names and many values are compared. */
bool http_str_equal_nocase(struct http_str a, struct http_str b);

enum { HTTP_MAX_FIELDS = 100 }; /* more header fields than this are answered 431 */

struct http_conn;

/* A request. What it points to holds until the handler returns. */
struct http_request {
    struct http_conn *conn;
    struct http_str method;
    struct http_str target; /* as it was sent */
    struct http_str path;   /* of the target, without the query; "*" in OPTIONS * */
    struct http_str query;  /* behind the '?', or empty */
    struct http_str body;   /* whole, decoded */
    int minor;              /* HTTP/1.minor */
    bool keep_alive;        /* the client's wish */
    bool expect_continue;
    bool chunked;
    bool has_length; /* there was a Content-Length */
    size_t content_length;
    size_t field_count;
    struct phr_header fields[HTTP_MAX_FIELDS];
};

/* The value of the first field of that name; at is NULL when there is none. */
struct http_str http_request_field(const struct http_request *request, struct http_str name);

/* Parse and check one request head of at most len bytes at `at`. Returns its length; 0 when it is
 * not complete yet; -status (400, 417, 431, 501, 505) when it must be refused. */
int http_parse_head(const char *at, size_t len, struct http_request *request);

/* Answer the request: once, from the handler. extra_fields (may be empty) is whole lines with their
 * "\r\n", 256 bytes at most with the type. HEAD is taken care of: the body is counted, not sent. */
void http_reply_with(struct http_request *request, int status, struct http_str content_type,
                     struct http_str extra_fields, struct http_str body);

static inline void http_reply(struct http_request *request, int status, struct http_str body) {
    http_reply_with(request, status, HTTP_STR("text/plain"), HTTP_STR(""), body);
}

/* Called on the connection's green thread. One that does not reply is answered 500. */
typedef void http_handler(struct http_request *request, void *arg);

struct http_config {
    const char *address; /* numeric, as go_listen takes it; port 0: any free one */
    http_handler *handler;
    void *arg;
    size_t max_header;         /* bytes of a request head; larger ones are answered 431 */
    size_t max_body;           /* bytes; larger ones are answered 413 */
    int64_t idle_timeout_ns;   /* wait for the first byte of a request, then close */
    int64_t header_timeout_ns; /* from the first byte to the end of the head, then 408 */
    int64_t body_timeout_ns;   /* from there to the end of the body, then 408 */
    int64_t write_timeout_ns;  /* for a client that does not read its answer */
    int64_t linger_ns;         /* after the last answer, for what the client still sends */
};

struct http_stats {
    uint64_t connections_open;
    uint64_t connections; /* accepted since the start */
    uint64_t requests;    /* that the handler has answered */
};

struct http_server;

/* Listen and accept, on green threads: the runtime must have been started. config is copied.
 * *out is set before the first request is handled. 0 or -errno. */
int http_server_start(struct http_server **out, const struct http_config *config);

/* The port that it listens on. */
unsigned http_server_port(const struct http_server *server);

/* Counters, each of them exact once the server is idle. */
void http_server_stats(struct http_server *server, struct http_stats *out);

/* Work that outlives its request is counted, so that a stop waits for it too: hold before it is
 * spawned, release as its last act. */
void http_server_hold(struct http_server *server);
void http_server_release(struct http_server *server);

/* Stop gracefully: accept no more, close the idle connections, let every request that has begun be
 * answered. Parks, any thread. 0 when all has ended, -ETIMEDOUT when grace_ns was not enough. */
int http_server_stop(struct http_server *server, int64_t grace_ns);

/* After http_server_stop returned 0, or after go_stop. */
void http_server_free(struct http_server *server);

#endif
