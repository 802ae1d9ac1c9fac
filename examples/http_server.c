/* http_server.c - the listener, the list of connections, and the end of both. */
#include "http_conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static struct http_conn *new_conn(struct http_server *server, int fd) {
    struct http_conn *c = malloc(sizeof *c);
    if (c == NULL)
        return NULL;
    memset(c, 0, offsetof(struct http_conn, request));
    c->fd = fd;
    c->server = server;
    go_mutex_lock(&server->lock);
    server->accepted++;
    c->next = server->conns;
    c->link = &server->conns;
    if (c->next != NULL)
        c->next->link = &c->next;
    server->conns = c;
    go_mutex_unlock(&server->lock);
    http_server_hold(server);
    return c;
}

void http_server_forget(struct http_conn *c) {
    struct http_server *server = c->server;
    go_mutex_lock(&server->lock);
    *c->link = c->next;
    if (c->next != NULL)
        c->next->link = c->link;
    server->requests_of_closed += c->requests;
    go_mutex_unlock(&server->lock);
    /* Closed only now: http_server_stop must find no number that is another connection's already.
     */
    go_close(c->fd);
    free(c);
    http_server_release(server);
}

static void accept_loop(void *arg) {
    struct http_server *server = arg;
    while (!atomic_load(&server->stopping)) {
        int fd = go_accept(server->listener, NULL, NULL);
        if (fd == -EBADF || fd == -ECANCELED)
            break; /* the listener was closed: we stop */
        if (fd < 0) {
            fprintf(stderr, "http: accept: %s\n", strerror(-fd));
            go_sleep(10 * GO_MILLISECOND);
            continue;
        }
        struct http_conn *c = new_conn(server, fd);
        if (c == NULL)
            go_close(fd);
        else if (go_spawn(http_conn_run, c) < 0)
            http_server_forget(c); /* out of green threads: refuse this client, go on */
    }
    http_server_release(server);
}

static unsigned bound_port(int fd) {
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &len) < 0)
        return 0;
    if (address.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

int http_server_start(struct http_server **out, const struct http_config *config) {
    struct http_server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return -ENOMEM;
    server->config = *config;
    server->listener = go_listen("tcp", config->address);
    if (server->listener < 0) {
        int error = server->listener;
        free(server);
        return error;
    }
    server->port = bound_port(server->listener);
    http_server_hold(server);
    *out = server; /* before the spawn: the first request may be handled before it returns */
    int error = go_spawn(accept_loop, server);
    if (error < 0) {
        go_close(server->listener);
        free(server);
        *out = NULL;
    }
    return error;
}

unsigned http_server_port(const struct http_server *server) {
    return server->port;
}

void http_server_stats(struct http_server *server, struct http_stats *out) {
    *out = (struct http_stats){0};
    go_mutex_lock(&server->lock);
    out->connections = server->accepted;
    out->requests = server->requests_of_closed;
    /* Each connection counts for itself, and the sum is made here: one counter for all would be a
     * cache line that every core writes at every request. */
    for (struct http_conn *c = server->conns; c != NULL; c = c->next) {
        out->connections_open++;
        out->requests += atomic_load_explicit(&c->requests, memory_order_relaxed);
    }
    go_mutex_unlock(&server->lock);
}

void http_server_hold(struct http_server *server) {
    go_waitgroup_add(&server->running, 1);
}

void http_server_release(struct http_server *server) {
    go_waitgroup_done(&server->running);
}

int http_server_stop(struct http_server *server, int64_t grace_ns) {
    atomic_store(&server->stopping, true); /* before we look who is idle: see wait_for_request */
    go_close(server->listener);
    go_mutex_lock(&server->lock);
    for (struct http_conn *c = server->conns; c != NULL; c = c->next)
        if (atomic_load(&c->idle))
            shutdown(c->fd, SHUT_RD);
    go_mutex_unlock(&server->lock);

    go_scope scope;
    go_scope_enter(&scope, go_now() + grace_ns);
    int r = go_waitgroup_wait(&server->running);
    go_scope_leave(&scope);
    return r;
}

void http_server_free(struct http_server *server) {
    free(server);
}
