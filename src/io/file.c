/* file.c - files: what waits for a disk, and files to sockets.
 *
 * A regular file is never "not ready", so there is nothing to wait for: what the page cache has is
 * moved at once (RWF_NOWAIT), and the rest, or all where the file system cannot promise that, on a
 * thread of the pool (sched/pool.h). So is everything that takes a path, for which there is no such
 * flag, and which may wait for more than a disk: a FIFO for its other end, a network for its
 * server. What the kernel was given is lent to it, so none of that is cancelled once it has begun.
 *
 * A descriptor may be closed, and its number be another file's, while its call waits for a thread:
 * the generation of its slot is looked at once more right before the system call.
 *
 * go_sendfile parks for the room in the socket. sendfile(2) has no flag that forbids it to wait for
 * the disk, so each piece of up to 64 KiB is asked for first, by a read without waiting whose bytes
 * all fall on the same 4 KiB: 0.4 us for 4 KiB, 2 us for a whole piece, which to send takes four
 * times that. What is there is sent by the worker, without a copy of its own; the rest, and all
 * that goes into a file, by a thread of the pool. (mincore(2) wants a mapping; cachestat(2) counts
 * pages whose data has not come yet, and asks for the right to write.)
 *
 * Nor has it a flag for the socket: it goes by O_NONBLOCK, and that belongs to the open file. So
 * for a blocking one of somebody else the bytes are copied. */
#include "io/file.h"

#include "base/sys_io.h"
#include "io/adopt.h"

#include <gort/io.h>
#include <unistd.h>

enum { COPY = 4096 }; /* on a stack that may have 16 KiB */

/* ---- transfers ------------------------------------------------------------------------------- */

static bool is_stale(const struct rt_fd_op *op) {
    return rt_load_relaxed(&op->slot->gen) != op->gen;
}

struct move {
    struct rt_fd_op *op;
    const struct iovec *iov;
    off_t offset;
    ssize_t r;
    int dir, count;
};

static ssize_t move_blocking(const struct move *m) {
    int fd = m->op->fd;
    if (is_stale(m->op))
        return -EBADF;
    if (m->offset < 0)
        return m->dir == RT_IN ? rt_sys_readv(fd, m->iov, m->count)
                               : rt_sys_writev(fd, m->iov, m->count);
    return m->dir == RT_IN ? rt_sys_pread(fd, m->iov->iov_base, m->iov->iov_len, m->offset)
                           : rt_sys_pwrite(fd, m->iov->iov_base, m->iov->iov_len, m->offset);
}

static void *move_on_thread(void *arg) {
    struct move *m = arg;
    m->r = move_blocking(m);
    return NULL;
}

ssize_t rt_file_move(struct rt_fd_op *op, int dir, const struct iovec *iov, int count,
                     off_t offset) {
    struct move m = {.op = op, .dir = dir, .iov = iov, .count = count, .offset = offset};
    rt_fd_let_go(op);
    int err = go_blocking(move_on_thread, &m, NULL);
    if (err == -EAGAIN) /* a file is never "not ready": better the worker waits than nobody */
        return move_blocking(&m);
    return err ? err : m.r;
}

static ssize_t at_once(int fd, int dir, char *buf, size_t n, off_t offset) {
    return dir == RT_IN ? rt_sys_pread_nowait(fd, buf, n, offset)
                        : rt_sys_pwrite_nowait(fd, buf, n, offset);
}

/* What is short of n may be the end of the file, or of what is in the cache: a call that may wait
 * for the disk tells. */
static ssize_t move_at(struct rt_fd_op *op, int dir, char *buf, size_t n, off_t offset) {
    ssize_t done = at_once(op->fd, dir, buf, n, offset);
    if (done == -EAGAIN || done == -EOPNOTSUPP)
        done = 0;
    else if (done <= 0 || (size_t)done == n)
        return done;
    struct iovec rest = {.iov_base = buf + done, .iov_len = n - (size_t)done};
    ssize_t r = rt_file_move(op, dir, &rest, 1, offset + done);
    return r >= 0 || done == 0 ? done + r : done;
}

static ssize_t file_move(int fd, int dir, char *buf, size_t n, off_t offset) {
    struct rt_fd_op op;
    ssize_t r = rt_fd_begin(&op, fd);
    if (r)
        return r;
    r = offset < 0 ? -EINVAL : move_at(&op, dir, buf, n, offset); /* -1: see rt_sys_pread_nowait */
    rt_fd_end(&op);
    return r;
}

ssize_t go_pread(int fd, void *buf, size_t n, off_t offset) {
    return file_move(fd, RT_IN, buf, n, offset);
}

ssize_t go_pwrite(int fd, const void *buf, size_t n, off_t offset) {
    return file_move(fd, RT_OUT, (char *)(uintptr_t)buf, n, offset);
}

/* ---- calls on a descriptor ------------------------------------------------------------------- */

struct fd_call {
    struct rt_fd_op op;
    struct stat *st;
    int r;
};

static void *sync_all(void *arg) {
    struct fd_call *c = arg;
    c->r = is_stale(&c->op) ? -EBADF : rt_sys_fsync(c->op.fd);
    return NULL;
}
static void *sync_data(void *arg) {
    struct fd_call *c = arg;
    c->r = is_stale(&c->op) ? -EBADF : rt_sys_fdatasync(c->op.fd);
    return NULL;
}
static void *stat_fd(void *arg) {
    struct fd_call *c = arg;
    c->r = is_stale(&c->op) ? -EBADF : rt_sys_fstat(c->op.fd, c->st);
    return NULL;
}

static int on_fd(void *(*fn)(void *), int fd, struct stat *st) {
    struct fd_call c = {.st = st};
    int r = rt_fd_begin(&c.op, fd);
    if (r)
        return r;
    r = go_blocking(fn, &c, NULL);
    rt_fd_end(&c.op);
    return r ? r : c.r;
}

int go_fsync(int fd) {
    return on_fd(sync_all, fd, NULL);
}

int go_fdatasync(int fd) {
    return on_fd(sync_data, fd, NULL);
}

int go_fstat(int fd, struct stat *st) {
    return on_fd(stat_fd, fd, st);
}

/* ---- calls on a path ------------------------------------------------------------------------- */

struct path_call {
    const char *path, *to;
    int flags, r;
    mode_t mode;
};

static void *open_path(void *arg) {
    struct path_call *c = arg;
    c->r = rt_sys_open(c->path, c->flags, c->mode);
    return NULL;
}
static void *unlink_path(void *arg) {
    struct path_call *c = arg;
    c->r = rt_sys_unlink(c->path);
    return NULL;
}
static void *rename_path(void *arg) {
    struct path_call *c = arg;
    c->r = rt_sys_rename(c->path, c->to);
    return NULL;
}
static void *make_dir(void *arg) {
    struct path_call *c = arg;
    c->r = rt_sys_mkdir(c->path, c->mode);
    return NULL;
}

static int on_path(void *(*fn)(void *), struct path_call c) {
    int err = go_blocking(fn, &c, NULL);
    return err ? err : c.r;
}

int go_open(const char *path, int flags, mode_t mode) {
    int fd = on_path(open_path, (struct path_call){.path = path, .flags = flags, .mode = mode});
    return rt_adopt(fd, 0);
}

int go_unlink(const char *path) {
    return on_path(unlink_path, (struct path_call){.path = path});
}

int go_rename(const char *from, const char *to) {
    return on_path(rename_path, (struct path_call){.path = from, .to = to});
}

int go_mkdir(const char *path, mode_t mode) {
    return on_path(make_dir, (struct path_call){.path = path, .mode = mode});
}

/* ---- sendfile -------------------------------------------------------------------------------- */

enum { PIECE = 1 << 16, SINK = 4096 };

struct send {
    struct rt_fd_op out, in;
    off_t *offset;
    size_t n;
    bool to_file; /* which may wait for a disk, too */
    ssize_t r;
};

static off_t send_at(const struct send *s) {
    return s->offset ? *s->offset : rt_sys_seek(s->in.fd, 0, SEEK_CUR);
}

/* How much of the next n bytes no disk is needed for; 0: not known of any. */
static __attribute__((noinline)) size_t at_hand(const struct send *s, size_t n) {
    char sink[SINK];
    struct iovec iov[PIECE / SINK];
    off_t at = send_at(s);
    if (at < 0)
        return n; /* sendfile(2) says why */
    size_t most = n < PIECE ? n : PIECE, count = 0;
    for (size_t to = 0; to < most; to += SINK)
        iov[count++] = (struct iovec){sink, most - to < SINK ? most - to : SINK};
    ssize_t r = rt_sys_preadv_nowait(s->in.fd, iov, (int)count, at);
    if (r > 0)
        return (size_t)r;
    return r == -EAGAIN || r == -EOPNOTSUPP ? 0 : n; /* the end, or an error at once */
}

static void *send_on_thread(void *arg) {
    struct send *s = arg;
    s->r = is_stale(&s->out) || is_stale(&s->in)
               ? -EBADF
               : rt_sys_sendfile(s->out.fd, s->in.fd, s->offset, s->n, true);
    return NULL;
}

/* Up to n bytes, once; *asked is how many. */
static ssize_t send_piece(struct send *s, size_t n, size_t *asked) {
    bool worker = rt_m() != NULL; /* a foreign thread may wait for a disk */
    int err = rt_fd_hold(&s->in);
    if (err)
        return err;
    *asked = !worker ? n : s->to_file ? 0 : at_hand(s, n);
    if (*asked == 0) {
        rt_fd_let_go(&s->in);
        rt_fd_let_go(&s->out);
        struct send lent = *s;
        lent.n = *asked = n;
        err = go_blocking(send_on_thread, &lent, NULL);
        if (err != -EAGAIN) /* else there is no thread: see rt_file_move */
            return err ? err : lent.r;
        err = rt_fd_hold(&s->in);
    }
    if (err == 0)
        err = rt_fd_hold(&s->out);
    if (err)
        return err;
    return rt_sys_sendfile(s->out.fd, s->in.fd, s->offset, *asked, worker);
}

/* What there is room for now. */
static ssize_t send_some(struct send *s) {
    size_t done = 0, asked = 0;
    ssize_t r;
    do {
        r = send_piece(s, s->n - done, &asked);
        if (r > 0)
            done += (size_t)r;
    } while (r > 0 && (size_t)r == asked && done < s->n);
    return done ? (ssize_t)done : r;
}

static ssize_t send_direct(struct send *s) {
    for (;;) {
        if (rt_fd_fresh(&s->out, RT_OUT)) {
            ssize_t r = send_some(s);
            if (r != -EAGAIN)
                return r;
        }
        rt_fd_let_go(&s->in); /* it may be closed meanwhile */
        int err = rt_fd_wait(&s->out, POLLOUT, GO_FOREVER, RT_WHY_IO_WRITE);
        if (err)
            return err;
    }
}

/* Up to COPY bytes of in at *at, which is moved on by what was sent. */
static ssize_t copy_some(struct send *s, off_t *at, size_t n) {
    char buf[COPY];
    if (is_stale(&s->in)) /* closed during the write before */
        return -EBADF;
    ssize_t r = move_at(&s->in, RT_IN, buf, n < COPY ? n : COPY, *at);
    if (r <= 0)
        return r;
    if (is_stale(&s->out))
        return -EBADF;
    r = go_write(s->out.fd, buf, (size_t)r);
    *at += r > 0 ? r : 0;
    return r;
}

static ssize_t send_copy(struct send *s) {
    off_t at = send_at(s);
    ssize_t r = at < 0 ? (s->offset ? -EINVAL : (ssize_t)at) : 0, done = 0;
    while (r >= 0 && (size_t)done < s->n) {
        r = copy_some(s, &at, s->n - (size_t)done);
        if (r <= 0)
            break;
        done += r;
    }
    if (done == 0)
        return r;
    if (s->offset)
        *s->offset = at;
    else if (!is_stale(&s->in))
        rt_sys_seek(s->in.fd, at, SEEK_SET);
    return done;
}

static ssize_t send_file(struct send *s) {
    bool ours = rt_load_relaxed(&s->out.slot->flags) & RT_FD_OURS; /* then it is no file */
    s->to_file = !ours && rt_sys_fd_type(s->out.fd) == RT_TYPE_FILE;
    bool blocks = !ours && !s->to_file && rt_sys_fd_blocking(s->out.fd) == 1;
    return blocks ? send_copy(s) : send_direct(s);
}

ssize_t go_sendfile(int out, int in, off_t *offset, size_t n) {
    struct send s = {.offset = offset, .n = n};
    ssize_t r = rt_fd_begin(&s.out, out);
    if (r)
        return r;
    r = rt_fd_find(&s.in, in);
    if (r == 0) {
        r = send_file(&s);
        rt_fd_end(&s.in);
    }
    rt_fd_end(&s.out);
    return r;
}
