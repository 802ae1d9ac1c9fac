/* rw.c - moving bytes: read, write, recv, send, their vectors and their messages.
 *
 * Promise: as if each call blocked, on any descriptor, blocking or not, and never longer than the
 * scope allows. The transfer is tried at once and directly; only -EAGAIN parks. When the latest
 * transfer left nothing behind and no event came since, the try is skipped: after a request has
 * been answered the next one is not there yet, and a failing recv costs as much as a good one.
 *
 * O_NONBLOCK is never set on a descriptor that is not ours, because it belongs to the open file,
 * which other processes may share. So:
 *   sockets   MSG_DONTWAIT, which is per call
 *   others    preadv2, pwritev2 with RWF_NOWAIT, which is per call, too (pipes since Linux 6.5)
 *   ttys, older pipes: -EOPNOTSUPP to that. poll(2), then a plain read, which has something to read
 *             unless another process takes it first; or a plain write of what surely fits
 *   files     are never "not ready": what the cache does not have at once is moved on a thread of
 *             the pool (file.h)
 * What a number means is tried, not remembered: slot->kind only says which to try first. */
#include "base/sys_io.h"
#include "io/file.h"
#include "netpoll/fd.h"

#include <gort/io.h>
#include <limits.h>

enum { SURELY_FITS = 256 }; /* a tty that polls writable takes that much (tty_io.c: WAKEUP_CHARS) */

static unsigned recv_events(int flags) {
    if (flags & MSG_ERRQUEUE)
        return 0; /* POLLERR is always in */
    return flags & MSG_OOB ? POLLPRI : POLLIN;
}

/* ---- sockets --------------------------------------------------------------------------------- */

static ssize_t sock_recv(struct rt_fd_op *op, void *buf, size_t n, int flags) {
    for (;;) {
        if (rt_likely(rt_fd_fresh(op, RT_IN)) || flags) {
            ssize_t r = rt_sys_recv(op->fd, buf, n, flags | MSG_DONTWAIT);
            if (r != -EAGAIN || (flags & MSG_DONTWAIT)) {
                if (r > 0 && ((size_t)r < n || RT_TRY == RT_POLL_AFTER_ANY) && !flags)
                    rt_fd_drained(op, RT_IN);
                return r;
            }
        }
        int err = rt_fd_wait(op, recv_events(flags), GO_FOREVER, RT_WHY_IO_READ);
        if (err)
            return err;
    }
}

static ssize_t sock_send(struct rt_fd_op *op, const void *buf, size_t n, int flags) {
    for (;;) {
        if (rt_likely(rt_fd_fresh(op, RT_OUT)) || flags) {
            ssize_t r = rt_sys_send(op->fd, buf, n, flags | MSG_DONTWAIT | MSG_NOSIGNAL);
            if (r != -EAGAIN || (flags & MSG_DONTWAIT)) {
                if (rt_unlikely(r > 0 && (size_t)r < n))
                    rt_fd_drained(op, RT_OUT);
                return r;
            }
        }
        int err = rt_fd_wait(op, POLLOUT, GO_FOREVER, RT_WHY_IO_WRITE);
        if (err)
            return err;
    }
}

/* A datagram to a name of AF_UNIX could not go. When the socket is writable all the same, the queue
 * of the one behind the name is full, and the kernel does not tell us when it is not: a poll says
 * "writable" at once, and each failure makes an edge of its own. Waiting would be spinning. */
static bool peer_is_full(const struct rt_fd_op *op, const struct msghdr *msg) {
    const struct sockaddr *to = msg->msg_name;
    return to && msg->msg_namelen >= sizeof to->sa_family && to->sa_family == AF_UNIX &&
           rt_sys_fd_ready(op->fd, POLLOUT) > 0;
}

/* msg is only read when dir is RT_OUT. */
static ssize_t sock_msg(struct rt_fd_op *op, int dir, struct msghdr *msg, int flags) {
    const int more = MSG_DONTWAIT | (dir == RT_IN ? 0 : MSG_NOSIGNAL);
    int64_t backoff = 100 * GO_MICROSECOND;
    for (;;) {
        if (rt_fd_fresh(op, dir) || flags) {
            ssize_t r = dir == RT_IN ? rt_sys_recvmsg(op->fd, msg, flags | more)
                                     : rt_sys_sendmsg(op->fd, msg, flags | more);
            if (r != -EAGAIN || (flags & MSG_DONTWAIT))
                return r;
        }
        int err;
        if (dir == RT_IN)
            err = rt_fd_wait(op, recv_events(flags), GO_FOREVER, RT_WHY_IO_READ);
        else if (rt_unlikely(peer_is_full(op, msg)))
            err = rt_fd_back_off(op, &backoff);
        else
            err = rt_fd_wait(op, POLLOUT, GO_FOREVER, RT_WHY_IO_WRITE);
        if (err)
            return err;
    }
}

static ssize_t sock_move(struct rt_fd_op *op, int dir, const struct iovec *iov, int count) {
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
    return sock_msg(op, dir, &msg, 0);
}

/* MSG_WAITALL on a stream: MSG_DONTWAIT would end it early, so it is done here, one buffer at a
 * time. Ancillary data ends it: more of it would not fit beside what is there. */
static ssize_t recv_all(struct rt_fd_op *op, struct msghdr *msg, int flags) {
    const struct iovec *iov = msg->msg_iov, *end = iov + msg->msg_iovlen;
    size_t room = msg->msg_controllen, filled = 0;
    ssize_t done = 0, r = sock_msg(op, RT_IN, msg, flags);
    while (r > 0) {
        done += r;
        for (filled += (size_t)r; iov < end && filled >= iov->iov_len; iov++)
            filled -= iov->iov_len;
        if (iov == end || msg->msg_controllen > 0)
            break;
        struct iovec rest = {(char *)iov->iov_base + filled, iov->iov_len - filled};
        struct msghdr next = {.msg_iov = &rest, .msg_iovlen = 1,
                              .msg_control = msg->msg_control, .msg_controllen = room};
        r = sock_msg(op, RT_IN, &next, flags);
        if (r >= 0) {
            msg->msg_controllen = next.msg_controllen;
            msg->msg_flags |= next.msg_flags;
        }
    }
    return done ? done : r;
}

static ssize_t recv_msg(struct rt_fd_op *op, struct msghdr *msg, int flags) {
    const int partial = MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC | MSG_ERRQUEUE | MSG_OOB;
    if ((flags & MSG_WAITALL) && !(flags & partial) &&
        rt_sys_get_int(op->fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM)
        return recv_all(op, msg, flags & ~MSG_WAITALL);
    return sock_msg(op, RT_IN, msg, flags);
}

/* ---- everything else ------------------------------------------------------------------------- */

static ssize_t plain(int fd, int dir, const struct iovec *iov, int count) {
    return dir == RT_IN ? rt_sys_readv(fd, iov, count) : rt_sys_writev(fd, iov, count);
}

/* A file that cannot promise not to wait: ask first. */
static ssize_t polled(int fd, int type, int dir, const struct iovec *iov, int count) {
    int ready = rt_sys_fd_ready(fd, dir == RT_IN ? POLLIN : POLLOUT);
    if (ready <= 0)
        return ready < 0 ? ready : -EAGAIN;
    if (dir == RT_IN)
        return plain(fd, dir, iov, count);
    size_t most = type == RT_TYPE_PIPE ? PIPE_BUF : SURELY_FITS;
    while (count > 1 && iov->iov_len == 0)
        iov++, count--;
    struct iovec little = {.iov_base = iov->iov_base,
                           .iov_len = iov->iov_len < most ? iov->iov_len : most};
    return plain(fd, dir, &little, 1);
}

/* One try; -ENOTSOCK: it is a socket after all. */
static ssize_t other_try(struct rt_fd_op *op, int dir, const struct iovec *iov, int count) {
    ssize_t r = dir == RT_IN ? rt_sys_readv_nowait(op->fd, iov, count)
                             : rt_sys_writev_nowait(op->fd, iov, count);
    if (r != -EAGAIN && r != -EOPNOTSUPP)
        return r;
    int type = rt_sys_fd_type(op->fd);
    if (type < 0)
        return type;
    if (type == RT_TYPE_FILE)
        return rt_file_move(op, dir, iov, count, -1);
    if (type == RT_TYPE_SOCKET)
        return -ENOTSOCK;
    if (r == -EAGAIN)
        return r;
    rt_fd_let_go(op); /* it may wait after all */
    return polled(op->fd, type, dir, iov, count);
}

static ssize_t other_move(struct rt_fd_op *op, int dir, const struct iovec *iov, int count) {
    for (;;) {
        rt_fd_fresh(op, dir);
        ssize_t r = other_try(op, dir, iov, count);
        if (r != -EAGAIN)
            return r;
        int err = rt_fd_wait(op, dir == RT_IN ? POLLIN : POLLOUT, GO_FOREVER,
                             dir == RT_IN ? RT_WHY_IO_READ : RT_WHY_IO_WRITE);
        if (err)
            return err;
    }
}

/* ---- either ---------------------------------------------------------------------------------- */

static bool looks_like_socket(const struct rt_fd_op *op) {
    return rt_likely(rt_load_relaxed(&op->slot->kind) == RT_KIND_SOCKET);
}

/* After -ENOTSOCK from one side, the other is tried, and first from now on. Twice wrong happens
 * when the number changes hands in between, and then it is the caller's bug. */
static ssize_t other_or_socket(struct rt_fd_op *op, int dir, const struct iovec *iov, int count) {
    ssize_t r = -ENOTSOCK;
    for (int tries = 0; r == -ENOTSOCK && tries < 4; tries++) {
        if (looks_like_socket(op)) {
            r = sock_move(op, dir, iov, count);
            if (r == -ENOTSOCK)
                rt_store_relaxed(&op->slot->kind, RT_KIND_OTHER);
        } else {
            r = other_move(op, dir, iov, count);
            if (r == -ENOTSOCK)
                rt_store_relaxed(&op->slot->kind, RT_KIND_SOCKET);
        }
    }
    return r;
}

static __attribute__((noinline)) ssize_t move_one(struct rt_fd_op *op, int dir, const void *buf,
                                                  size_t n) {
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = n};
    return other_or_socket(op, dir, &iov, 1);
}

static inline ssize_t write_some(struct rt_fd_op *op, const void *buf, size_t n) {
    if (rt_likely(looks_like_socket(op))) {
        ssize_t r = sock_send(op, buf, n, 0);
        if (rt_likely(r != -ENOTSOCK))
            return r;
    }
    return move_one(op, RT_OUT, buf, n);
}

/* ---- the calls ------------------------------------------------------------------------------- */

ssize_t go_read(int fd, void *buf, size_t n) {
    struct rt_fd_op op;
    ssize_t r = rt_fd_begin(&op, fd);
    if (rt_unlikely(r != 0))
        return r;
    r = -ENOTSOCK;
    if (rt_unlikely(n == 0)) /* read(2) of nothing never waits, recv(2) does */
        r = rt_sys_readv(fd, &(struct iovec){.iov_base = buf}, 1);
    else if (looks_like_socket(&op))
        r = sock_recv(&op, buf, n, 0);
    if (rt_unlikely(r == -ENOTSOCK))
        r = move_one(&op, RT_IN, buf, n);
    rt_fd_end(&op);
    return r;
}

ssize_t go_write(int fd, const void *buf, size_t n) {
    struct rt_fd_op op;
    ssize_t r = rt_fd_begin(&op, fd);
    if (rt_unlikely(r != 0))
        return r;
    r = write_some(&op, buf, n);
    rt_fd_end(&op);
    return r;
}

ssize_t go_write_all(int fd, const void *buf, size_t n) {
    struct rt_fd_op op;
    ssize_t r = rt_fd_begin(&op, fd);
    if (rt_unlikely(r != 0))
        return r;
    size_t done = 0;
    do {
        r = write_some(&op, (const char *)buf + done, n - done);
        if (r <= 0)
            break;
        done += (size_t)r;
    } while (done < n);
    rt_fd_end(&op);
    if (r < 0)
        return r;
    return done == n ? (ssize_t)n : -EIO; /* a device that takes nothing and says no error */
}

static ssize_t move_vector(int fd, int dir, const struct iovec *iov, int count) {
    struct rt_fd_op op;
    if (count < 0 || count > IOV_MAX)
        return -EINVAL;
    ssize_t r = rt_fd_begin(&op, fd);
    if (rt_unlikely(r != 0))
        return r;
    size_t total = 0;
    for (int i = 0; i < count && total == 0; i++)
        total = iov[i].iov_len;
    r = total ? other_or_socket(&op, dir, iov, count) : plain(fd, dir, iov, count);
    rt_fd_end(&op);
    return r;
}

ssize_t go_readv(int fd, const struct iovec *iov, int count) {
    return move_vector(fd, RT_IN, iov, count);
}

ssize_t go_writev(int fd, const struct iovec *iov, int count) {
    return move_vector(fd, RT_OUT, iov, count);
}

ssize_t go_recv(int fd, void *buf, size_t n, int flags) {
    struct rt_fd_op op;
    ssize_t r = rt_fd_begin(&op, fd);
    if (rt_unlikely(r != 0))
        return r;
    if (rt_likely(!(flags & MSG_WAITALL))) {
        r = sock_recv(&op, buf, n, flags);
    } else {
        struct iovec iov = {.iov_base = buf, .iov_len = n};
        r = recv_msg(&op, &(struct msghdr){.msg_iov = &iov, .msg_iovlen = 1}, flags);
    }
    if (flags & MSG_OOB)
        rt_fd_beware(&op);
    rt_fd_end(&op);
    return r;
}

ssize_t go_send(int fd, const void *buf, size_t n, int flags) {
    struct rt_fd_op op;
    ssize_t r = rt_fd_begin(&op, fd);
    if (rt_unlikely(r != 0))
        return r;
    r = sock_send(&op, buf, n, flags);
    rt_fd_end(&op);
    return r;
}

ssize_t go_recvmsg(int fd, struct msghdr *msg, int flags) {
    struct rt_fd_op op;
    ssize_t r = rt_fd_begin(&op, fd);
    if (rt_unlikely(r != 0))
        return r;
    r = recv_msg(&op, msg, flags);
    if (flags & MSG_OOB)
        rt_fd_beware(&op);
    rt_fd_end(&op);
    return r;
}

ssize_t go_sendmsg(int fd, const struct msghdr *msg, int flags) {
    struct rt_fd_op op;
    ssize_t r = rt_fd_begin(&op, fd);
    if (rt_unlikely(r != 0))
        return r;
    r = sock_msg(&op, RT_OUT, (struct msghdr *)(uintptr_t)msg, flags);
    rt_fd_end(&op);
    return r;
}

ssize_t go_recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *sa, socklen_t *len) {
    if (!sa)
        return go_recv(fd, buf, n, flags);
    if (!len)
        return -EFAULT;
    struct iovec iov = {.iov_base = buf, .iov_len = n};
    struct msghdr msg = {.msg_name = sa, .msg_namelen = *len, .msg_iov = &iov, .msg_iovlen = 1};
    ssize_t r = go_recvmsg(fd, &msg, flags);
    if (r >= 0)
        *len = msg.msg_namelen;
    return r;
}

ssize_t go_sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *sa,
                  socklen_t len) {
    if (!sa)
        return go_send(fd, buf, n, flags);
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = n};
    struct msghdr msg = {.msg_name = (void *)(uintptr_t)sa, .msg_namelen = len, .msg_iov = &iov,
                         .msg_iovlen = 1};
    return go_sendmsg(fd, &msg, flags);
}
