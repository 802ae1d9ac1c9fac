/* file.c - reading and writing at an offset, and files to sockets.
 *
 * A regular file is never "not ready", so there is nothing to wait for: what the page cache has is
 * moved at once (RWF_NOWAIT), and for the rest the worker is held up while the disk works. A pool
 * of threads for that is still to come; until then this file says where it would be asked.
 *
 * go_sendfile parks for the room in the socket alone. sendfile(2) has no flag per call, it goes by
 * O_NONBLOCK of the socket, and that belongs to the open file: so for a blocking one of somebody
 * else the bytes are copied. */
#include "base/sys_io.h"
#include "netpoll/fd.h"

#include <gort/io.h>
#include <unistd.h>

enum { COPY = 4096 }; /* on a stack that may have 16 KiB */

static ssize_t at_once(int fd, int dir, char *buf, size_t n, off_t offset) {
    return dir == RT_IN ? rt_sys_pread_nowait(fd, buf, n, offset)
                        : rt_sys_pwrite_nowait(fd, buf, n, offset);
}

static ssize_t plain(int fd, int dir, char *buf, size_t n, off_t offset) {
    return dir == RT_IN ? rt_sys_pread(fd, buf, n, offset) : rt_sys_pwrite(fd, buf, n, offset);
}

/* What is short of n may be the end of the file, or of what is in the cache: the plain call, which
 * may wait for the disk, tells. */
static ssize_t move_at(int fd, int dir, char *buf, size_t n, off_t offset) {
    ssize_t done = at_once(fd, dir, buf, n, offset);
    if (done == -EAGAIN || done == -EOPNOTSUPP)
        return plain(fd, dir, buf, n, offset);
    if (done <= 0 || (size_t)done == n)
        return done;
    ssize_t r = plain(fd, dir, buf + done, n - (size_t)done, offset + done);
    return r > 0 ? done + r : done;
}

static ssize_t file_move(int fd, int dir, char *buf, size_t n, off_t offset) {
    struct rt_fd_op op;
    ssize_t r = rt_fd_begin(&op, fd);
    if (r)
        return r;
    r = offset < 0 ? -EINVAL : move_at(fd, dir, buf, n, offset); /* -1: see rt_sys_pread_nowait */
    rt_fd_end(&op);
    return r;
}

ssize_t go_pread(int fd, void *buf, size_t n, off_t offset) {
    return file_move(fd, RT_IN, buf, n, offset);
}

ssize_t go_pwrite(int fd, const void *buf, size_t n, off_t offset) {
    return file_move(fd, RT_OUT, (char *)(uintptr_t)buf, n, offset);
}

/* ---- sendfile -------------------------------------------------------------------------------- */

/* Would sendfile(2) wait for room in op->fd? Into a file it waits for the disk alone. */
static bool blocks(const struct rt_fd_op *op) {
    return !(rt_load_relaxed(&op->slot->flags) & RT_FD_OURS) && rt_sys_fd_blocking(op->fd) == 1 &&
           rt_sys_fd_type(op->fd) != RT_TYPE_FILE;
}

static ssize_t send_direct(struct rt_fd_op *op, int in, off_t *offset, size_t n) {
    bool worker = rt_m() != NULL;
    for (;;) {
        if (rt_fd_fresh(op, RT_OUT)) {
            ssize_t r = rt_sys_sendfile(op->fd, in, offset, n, worker);
            if (r != -EAGAIN)
                return r;
        }
        int err = rt_fd_wait(op, POLLOUT, GO_FOREVER, RT_WHY_IO_WRITE);
        if (err)
            return err;
    }
}

/* Up to COPY bytes of in at *at, which is moved on by what was sent. */
static ssize_t copy_some(struct rt_fd_op *op, int in, off_t *at, size_t n) {
    char buf[COPY];
    ssize_t r = rt_sys_pread(in, buf, n < COPY ? n : COPY, *at);
    if (r <= 0)
        return r;
    if (rt_load_acquire(&op->slot->gen) != op->gen) /* pairs with fd.c: reset */
        return -EBADF;
    r = go_write(op->fd, buf, (size_t)r);
    *at += r > 0 ? r : 0;
    return r;
}

static ssize_t send_copy(struct rt_fd_op *op, int in, off_t *offset, size_t n) {
    off_t at = offset ? *offset : rt_sys_seek(in, 0, SEEK_CUR);
    ssize_t r = at < 0 ? (offset ? -EINVAL : (ssize_t)at) : 0, done = 0;
    while (r >= 0 && (size_t)done < n) {
        r = copy_some(op, in, &at, n - (size_t)done);
        if (r <= 0)
            break;
        done += r;
    }
    if (done == 0)
        return r;
    if (offset)
        *offset = at;
    else
        rt_sys_seek(in, at, SEEK_SET);
    return done;
}

ssize_t go_sendfile(int out, int in, off_t *offset, size_t n) {
    struct rt_fd_op op;
    ssize_t r = rt_fd_begin(&op, out);
    if (r)
        return r;
    r = blocks(&op) ? send_copy(&op, in, offset, n) : send_direct(&op, in, offset, n);
    rt_fd_end(&op);
    return r;
}
