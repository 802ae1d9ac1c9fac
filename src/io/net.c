/* net.c - listen, accept, dial, connect, shutdown.
 *
 * Sockets made here are non-blocking and closed by go_close, and the descriptor table is told so
 * (rt_fd_adopt). TCP_NODELAY is set on listeners, from which accepted connections inherit it, so
 * that an accept costs one system call.
 *
 * A blocking socket that somebody else made cannot be accepted from or connected without waiting:
 * there is no flag per call. For accept, poll(2) is asked first, by one caller at a time
 * (rt_fd_ask); when another process snatches the connection in between, the call waits for the next
 * one (on Linux there is no way around it but O_NONBLOCK, which that process shares). For connect,
 * SO_SNDTIMEO is one tick for the length of the call. */
#include "base/chaos.h"
#include "base/sys.h"
#include "base/sys_io.h"
#include "io/addr.h"
#include "io/adopt.h"

#include <gort/io.h>
#include <gort/time.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/tcp.h>

/* ---- listen ---------------------------------------------------------------------------------- */

/* Is a the path of a socket that nobody listens on any more? Only a socket: connect(2) refuses all
 * other files in the same way. */
static bool is_stale(const struct rt_addr *a) {
    if (a->sa.sa_family != AF_UNIX || !rt_sys_is_socket_file(a->un.sun_path))
        return false;
    int fd = rt_sys_socket(AF_UNIX, a->type, 0);
    if (fd < 0)
        return false;
    int err = rt_sys_connect(fd, &a->sa, a->len);
    rt_sys_close(fd);
    return err == -ECONNREFUSED;
}

static int set_up_listener(int fd, const struct rt_addr *a, const struct go_listen_options *o) {
    int err = 0;
    if (a->protocol == IPPROTO_TCP) {
        rt_sys_set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        err = rt_sys_set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    }
    if (err == 0 && a->sa.sa_family == AF_INET6)
        err = rt_sys_set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, a->only6 || o->v6only);
    if (err == 0 && o->reuse_port)
        err = rt_sys_set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (err == 0)
        err = rt_sys_bind(fd, &a->sa, a->len);
    if (err == -EADDRINUSE && o->unlink_stale && is_stale(a)) {
        rt_sys_unlink(a->un.sun_path); /* if it fails, so will the bind */
        err = rt_sys_bind(fd, &a->sa, a->len);
    }
    if (err == 0 && a->type != SOCK_DGRAM)
        err = rt_sys_listen(fd, o->backlog ? o->backlog : SOMAXCONN);
    return err;
}

static unsigned stream_flags(bool stream, int family) {
    bool whole = family == AF_INET || family == AF_INET6;
    return !stream ? 0 : whole ? RT_FD_STREAM : RT_FD_STREAM | RT_FD_PIECES;
}

/* A descriptor that the table knows, or -errno and nothing is left. */
static int listen_on(const struct rt_addr *a, const struct go_listen_options *o) {
    int fd = rt_sys_socket(a->sa.sa_family, a->type, a->protocol);
    if (fd < 0)
        return fd;
    unsigned flags = RT_FD_OURS | stream_flags(a->type == SOCK_STREAM, a->sa.sa_family);
    if (a->type != SOCK_DGRAM)
        flags |= RT_FD_NODELAY;
    int err = set_up_listener(fd, a, o);
    if (err == 0)
        err = rt_fd_adopt(fd, flags);
    if (err) {
        rt_sys_close(fd);
        return err;
    }
    return fd;
}

int go_listen_with(const char *network, const char *address, const struct go_listen_options *o) {
    static const struct go_listen_options defaults = GO_LISTEN_OPTIONS_INIT;
    struct rt_addr list[RT_ADDR_MAX];
    bool thread = rt_m() == NULL;
    if (!o)
        o = &defaults;
    if (o->size < sizeof *o || o->backlog < 0)
        return -EINVAL;
    if (thread && rt_foreign_enter() != 0)
        return -ENXIO;
    int n = rt_addr_parse(network, address, true, list), r = n;
    for (int i = 0; i < n; i++) {
        if (o->v6only && list[i].sa.sa_family != AF_INET6) {
            r = i == 0 ? -EINVAL : r;
            break;
        }
        r = listen_on(&list[i], o);
        if (r != -EAFNOSUPPORT && r != -EADDRNOTAVAIL) /* no IPv6 here: the next is IPv4 */
            break;
    }
    if (thread)
        rt_foreign_leave();
    return r;
}

int go_listen(const char *network, const char *address) {
    return go_listen_with(network, address, NULL);
}

/* ---- accept ---------------------------------------------------------------------------------- */

/* Errors of the connection that was at the head of the queue, which is gone (accept(2), "Error
 * handling"). */
static bool died_in_queue(int err) {
    switch (-err) {
    case ECONNABORTED:
    case EINTR:
    case ENETDOWN:
    case EPROTO:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return true;
    default:
        return false;
    }
}

static bool out_of_something(int err) {
    return err == -EMFILE || err == -ENFILE || err == -ENOBUFS || err == -ENOMEM;
}

/* Make the table know the new connection. */
static int take_in(int fd, unsigned listener) {
    unsigned flags = listener & (RT_FD_STREAM | RT_FD_PIECES);
    if (!(listener & RT_FD_NODELAY)) {
        flags = stream_flags(rt_sys_get_int(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM,
                             rt_sys_get_int(fd, SOL_SOCKET, SO_DOMAIN));
        rt_sys_set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1); /* refused unless it is TCP */
    }
    int err = rt_fd_adopt(fd, RT_FD_OURS | flags);
    if (err)
        rt_sys_close(fd);
    return err ? err : fd;
}

/* On a blocking listener: as accept(2) on another one. */
static int accept_asking(struct rt_fd_op *op, struct sockaddr *sa, socklen_t *len) {
    int ready = rt_sys_fd_ready(op->fd, POLLIN);
    if (ready < 0)
        return ready;
    if (ready == 0) { /* is it worth waiting for? */
        int listens = rt_sys_get_int(op->fd, SOL_SOCKET, SO_ACCEPTCONN);
        return listens < 0 ? listens : listens ? -EAGAIN : -EINVAL;
    }
    rt_chaos_delay("net: somebody is there, and may be taken by another");
    rt_fd_let_go(op);
    return rt_sys_accept(op->fd, sa, len);
}

/* One try; -EAGAIN: nobody is there. */
static int accept_try(struct rt_fd_op *op, struct sockaddr *sa, socklen_t *len) {
    unsigned flags = rt_load_relaxed(&op->slot->flags);
    int fd = -EAGAIN;
    rt_fd_fresh(op, RT_IN);
    if ((flags & RT_FD_OURS) || rt_sys_fd_blocking(op->fd) != 1) {
        fd = rt_sys_accept(op->fd, sa, len);
    } else if (rt_fd_ask(op)) {
        fd = accept_asking(op, sa, len);
        rt_fd_asked(op);
    }
    return fd < 0 ? fd : take_in(fd, flags);
}

static int accept_one(struct rt_fd_op *op, struct sockaddr *sa, socklen_t *len) {
    socklen_t room = len ? *len : 0;
    int64_t backoff = 5 * GO_MILLISECOND;
    for (;;) {
        int err, r = accept_try(op, sa, len);
        if (r >= 0)
            return r;
        if (len)
            *len = room;
        if (r == -EAGAIN) {
            err = rt_fd_wait(op, POLLIN, GO_FOREVER, RT_WHY_IO_READ);
        } else if (out_of_something(r)) {
            err = rt_fd_back_off(op, &backoff);
        } else if (died_in_queue(r)) {
            continue;
        } else {
            err = r;
        }
        if (err)
            return err;
    }
}

int go_accept(int fd, struct sockaddr *sa, socklen_t *len) {
    struct rt_fd_op op;
    int r = rt_fd_begin(&op, fd);
    if (r == 0) {
        r = accept_one(&op, sa, len);
        rt_fd_end(&op);
    }
    return r;
}

/* ---- connect and dial ------------------------------------------------------------------------ */

static int socket_error(int fd) {
    int failed = rt_sys_get_int(fd, SOL_SOCKET, SO_ERROR);
    return failed < 0 ? failed : -failed;
}

/* A connection is on its way: 0 when it is there. */
static int wait_connected(struct rt_fd_op *op) {
    for (;;) {
        rt_fd_fresh(op, RT_OUT);
        int r = rt_sys_fd_ready(op->fd, POLLOUT);
        if (r == 0) {
            r = rt_fd_wait(op, POLLOUT, GO_FOREVER, RT_WHY_IO_WRITE);
            if (r == 0)
                continue;
            return r;
        }
        int err = r < 0 ? r : socket_error(op->fd);
        if (err)
            return err;
        int peer = rt_sys_connected(op->fd);
        if (peer) /* it was there, and has been reset since the look above */
            err = socket_error(op->fd);
        return err ? err : peer;
    }
}

static int connect_op(struct rt_fd_op *op, const struct sockaddr *sa, socklen_t len) {
    int64_t backoff = GO_MILLISECOND;
    for (;;) {
        bool brief = !(rt_load_relaxed(&op->slot->flags) & RT_FD_OURS) &&
                     rt_sys_fd_blocking(op->fd) == 1;
        int err = brief ? rt_sys_connect_brief(op->fd, sa, len) : rt_sys_connect(op->fd, sa, len);
        if (err == -EINTR && sa->sa_family == AF_UNIX)
            continue; /* it waited for room in the queue: no connection is on its way */
        if (err == -EINPROGRESS || err == -EALREADY || err == -EINTR)
            return wait_connected(op);
        if (err != -EAGAIN || sa->sa_family != AF_UNIX)
            return err;
        /* The listener's queue is full; nothing tells when it is not. */
        err = rt_fd_back_off(op, &backoff);
        if (err)
            return err;
    }
}

int go_connect(int fd, const struct sockaddr *sa, socklen_t len) {
    struct rt_fd_op op;
    int r = rt_fd_begin(&op, fd);
    if (r == 0) {
        r = connect_op(&op, sa, len);
        rt_fd_end(&op);
    }
    return r;
}

/* Where nobody listens TCP may meet itself: when the kernel chooses, as the port to call from, the
 * one that is called. Then that port is ours, so nobody else is there. (Go closes it and tries
 * again, twice.) Closed as others are it would stay taken for a minute, and no server could start
 * there. */
static bool found_nobody(const struct rt_addr *a, int fd) {
    if (a->protocol != IPPROTO_TCP || !rt_sys_met_itself(fd))
        return false;
    rt_sys_no_linger(fd);
    return true;
}

static int dial_to(const struct rt_addr *a) {
    bool stream = a->type == SOCK_STREAM;
    int fd = rt_sys_socket(a->sa.sa_family, a->type, a->protocol);
    if (fd >= 0 && a->protocol == IPPROTO_TCP)
        rt_sys_set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    fd = rt_adopt(fd, RT_FD_OURS | stream_flags(stream, a->sa.sa_family));
    int err = fd < 0 ? 0 : go_connect(fd, &a->sa, a->len);
    if (fd >= 0 && err == 0 && found_nobody(a, fd))
        err = -ECONNREFUSED;
    if (err) {
        go_close(fd);
        return err;
    }
    return fd;
}

/* These say that there is no way to an address, and nothing of who is there. */
static bool tells_little(int err) {
    return err == -EAFNOSUPPORT || err == -EADDRNOTAVAIL || err == -ENETUNREACH ||
           err == -EHOSTUNREACH;
}

enum { UNTRIED = INT_MIN };

/* Try one more address, after *r befell those before it: true when there is no more to do. What is
 * reported at the end is the first error that tells something, else the first. */
static bool dial_next(const struct rt_addr *a, int *r) {
    int fd = dial_to(a);
    if (*r == UNTRIED || fd >= 0 || (tells_little(*r) && !tells_little(fd)))
        *r = fd;
    if (fd >= 0)
        return true;
    int err = rt_cancel_check(rt_self()); /* -ETIMEDOUT may be the scope's, or one peer's */
    *r = err ? fd : *r;
    return err != 0;
}

static int as_errno(int eai) {
    switch (eai) {
    case 0:
    case -ECANCELED:
    case -ETIMEDOUT:
    case -ENXIO: /* EAI_FAMILY has the same number, and we ask for families that exist */
        return eai;
    case EAI_AGAIN:
        return -EAGAIN;
    case EAI_MEMORY:
        return -ENOMEM;
    case EAI_FAIL:
        return -EIO;
    default:
        return -ENOENT;
    }
}

static int dial_name(const struct rt_addr_name *name) {
    struct addrinfo hints = {.ai_family = name->family, .ai_socktype = name->type,
                             .ai_protocol = name->protocol};
    struct addrinfo *list = NULL;
    struct rt_addr a;
    int r = as_errno(rt_lookup(name->host, NULL, &hints, &list, true));
    if (r)
        return r;
    r = UNTRIED;
    for (struct addrinfo *i = list; i; i = i->ai_next)
        if (rt_addr_make(name, i->ai_addr, i->ai_addrlen, &a) && dial_next(&a, &r))
            break;
    rt_sys_freeaddrinfo(list);
    return r == UNTRIED ? -ENOENT : r;
}

int go_dial(const char *network, const char *address) {
    struct rt_addr list[RT_ADDR_MAX];
    struct rt_addr_name name;
    int r = rt_m() == NULL && rt_running() ? -ENXIO : rt_cancel_check(rt_self());
    if (r)
        return r;
    int n = rt_addr_parse(network, address, false, list);
    if (n < 0)
        return rt_addr_parse_name(network, address, &name) == 0 ? dial_name(&name) : n;
    r = UNTRIED;
    for (int i = 0; i < n && !dial_next(&list[i], &r); i++)
        ;
    return r;
}

int go_shutdown(int fd, int how) {
    return rt_sys_shutdown(fd, how);
}
