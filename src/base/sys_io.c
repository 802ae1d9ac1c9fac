/* sys_io.c - descriptors, sockets and epoll, as the kernel offers them.
 *
 * recv and send, which every request pays, go to the kernel by syscall(2): in a process with
 * threads the wrappers of glibc make each call a cancellation point, which costs two locked
 * operations, and pthread_cancel means nothing to a green thread. Not so under TSan, whose
 * interceptors see in the wrappers that what one side sends happens before what the other
 * receives. */
#include "base/sys_io.h"

#include "base/fault.h"
#include "base/san.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 0x8
#endif

/* The value of a call that reports by -1 and errno, with errno put back. */
#define KEEP_ERRNO(type, call) \
    ({ \
        int saved_ = errno; \
        type r_ = (call); \
        if (r_ < 0) { \
            r_ = -errno; \
            errno = saved_; \
        } \
        r_; \
    })
#define RETRY(call) \
    ({ \
        ssize_t n_; \
        do \
            n_ = KEEP_ERRNO(ssize_t, call); \
        while (rt_unlikely(n_ == -EINTR)); \
        n_; \
    })

/* ---- transfers ------------------------------------------------------------------------------- */

ssize_t rt_sys_recv(int fd, void *buf, size_t n, int flags) {
#if RT_TSAN
    return RETRY(recv(fd, buf, n, flags));
#else
    return RETRY(syscall(SYS_recvfrom, fd, buf, n, flags, NULL, NULL));
#endif
}

ssize_t rt_sys_send(int fd, const void *buf, size_t n, int flags) {
#if RT_TSAN
    return RETRY(send(fd, buf, n, flags));
#else
    return RETRY(syscall(SYS_sendto, fd, buf, n, flags, NULL, 0));
#endif
}

ssize_t rt_sys_recvmsg(int fd, struct msghdr *msg, int flags) {
    return RETRY(recvmsg(fd, msg, flags));
}

ssize_t rt_sys_sendmsg(int fd, const struct msghdr *msg, int flags) {
    return RETRY(sendmsg(fd, msg, flags));
}

ssize_t rt_sys_readv(int fd, const struct iovec *iov, int count) {
    return RETRY(readv(fd, iov, count));
}

ssize_t rt_sys_writev(int fd, const struct iovec *iov, int count) {
    return RETRY(writev(fd, iov, count));
}

ssize_t rt_sys_pread(int fd, void *buf, size_t n, off_t offset) {
    return RETRY(pread(fd, buf, n, offset));
}

ssize_t rt_sys_pwrite(int fd, const void *buf, size_t n, off_t offset) {
    return RETRY(pwrite(fd, buf, n, offset));
}

ssize_t rt_sys_preadv_nowait(int fd, const struct iovec *iov, int count, off_t offset) {
    int err = rt_fault(RT_FAULT_NOWAIT);
    return err ? err : RETRY(preadv2(fd, iov, count, offset, RWF_NOWAIT));
}

ssize_t rt_sys_pread_nowait(int fd, void *buf, size_t n, off_t offset) {
    return rt_sys_preadv_nowait(fd, &(struct iovec){.iov_base = buf, .iov_len = n}, 1, offset);
}

ssize_t rt_sys_pwrite_nowait(int fd, const void *buf, size_t n, off_t offset) {
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = n};
    int err = rt_fault(RT_FAULT_NOWAIT);
    return err ? err : RETRY(pwritev2(fd, &iov, 1, offset, RWF_NOWAIT));
}

off_t rt_sys_seek(int fd, off_t offset, int whence) {
    return KEEP_ERRNO(off_t, lseek(fd, offset, whence));
}

/* sendfile(2) knows no MSG_NOSIGNAL. Its SIGPIPE goes to the calling thread: it is blocked, and
 * taken back unless one was pending before, which would be somebody else's. */
ssize_t rt_sys_sendfile(int out, int in, off_t *offset, size_t n, bool worker) {
    sigset_t pipe, before, pending;
    int saved = errno;
    sigemptyset(&pending);
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    if (!worker) {
        sigpending(&pending);
        pthread_sigmask(SIG_BLOCK, &pipe, &before);
    }
    ssize_t r = RETRY(sendfile(out, in, offset, n));
    if (r == -EPIPE && !sigismember(&pending, SIGPIPE))
        sigtimedwait(&pipe, NULL, &(struct timespec){0});
    if (!worker)
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    return r;
}

ssize_t rt_sys_readv_nowait(int fd, const struct iovec *iov, int count) {
    return rt_sys_preadv_nowait(fd, iov, count, -1);
}

ssize_t rt_sys_writev_nowait(int fd, const struct iovec *iov, int count) {
    int err = rt_fault(RT_FAULT_NOWAIT);
    return err ? err : RETRY(pwritev2(fd, iov, count, -1, RWF_NOWAIT));
}

/* ---- descriptors ----------------------------------------------------------------------------- */

int rt_sys_fd_type(int fd) {
    struct stat st;
    int err = KEEP_ERRNO(int, fstat(fd, &st));
    if (err)
        return err;
    if (S_ISSOCK(st.st_mode))
        return RT_TYPE_SOCKET;
    if (S_ISFIFO(st.st_mode))
        return RT_TYPE_PIPE;
    return S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISBLK(st.st_mode) ? RT_TYPE_FILE
                                                                             : RT_TYPE_OTHER;
}

int rt_sys_fd_blocking(int fd) {
    int flags = KEEP_ERRNO(int, fcntl(fd, F_GETFL));
    return flags < 0 ? flags : !(flags & O_NONBLOCK);
}

int rt_sys_fd_ready(int fd, short events) {
    struct pollfd p = {.fd = fd, .events = events};
    if (fd < 0)
        return -EBADF;
    ssize_t n = RETRY(poll(&p, 1, 0));
    if (n < 0)
        return (int)n;
    return p.revents & POLLNVAL ? -EBADF : (unsigned short)p.revents;
}

#if RT_TSAN
/* To close what somebody is reading from is allowed here; for TSan it is a race on the
 * descriptor. */
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
#else
#define AnnotateIgnoreWritesBegin(file, line) (void)0
#define AnnotateIgnoreWritesEnd(file, line)   (void)0
#endif

int rt_sys_close(int fd) {
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    int err = KEEP_ERRNO(int, close(fd));
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    return err == -EINTR ? 0 : err;
}

/* ---- files ----------------------------------------------------------------------------------- */

int rt_sys_open(const char *path, int flags, mode_t mode) {
    int err = rt_fault(RT_FAULT_FILE);
    return err ? err : (int)RETRY(open(path, flags | O_CLOEXEC, mode));
}

int rt_sys_fsync(int fd) {
    int err = rt_fault(RT_FAULT_FILE);
    return err ? err : (int)RETRY(fsync(fd));
}

int rt_sys_fdatasync(int fd) {
    int err = rt_fault(RT_FAULT_FILE);
    return err ? err : (int)RETRY(fdatasync(fd));
}

int rt_sys_fstat(int fd, struct stat *st) {
    int err = rt_fault(RT_FAULT_FILE);
    return err ? err : KEEP_ERRNO(int, fstat(fd, st));
}

int rt_sys_unlink(const char *path) {
    int err = rt_fault(RT_FAULT_FILE);
    return err ? err : KEEP_ERRNO(int, unlink(path));
}

int rt_sys_rename(const char *from, const char *to) {
    int err = rt_fault(RT_FAULT_FILE);
    return err ? err : KEEP_ERRNO(int, rename(from, to));
}

int rt_sys_mkdir(const char *path, mode_t mode) {
    int err = rt_fault(RT_FAULT_FILE);
    return err ? err : KEEP_ERRNO(int, mkdir(path, mode));
}

/* ---- sockets --------------------------------------------------------------------------------- */

int rt_sys_socket(int family, int type, int protocol) {
    int err = rt_fault(RT_FAULT_SOCKET);
    type |= SOCK_NONBLOCK | SOCK_CLOEXEC;
    return err ? err : KEEP_ERRNO(int, socket(family, type, protocol));
}

int rt_sys_accept(int fd, struct sockaddr *sa, socklen_t *len) {
    int err = rt_fault(RT_FAULT_SOCKET);
    return err ? err : KEEP_ERRNO(int, accept4(fd, sa, len, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

int rt_sys_connect(int fd, const struct sockaddr *sa, socklen_t len) {
    return KEEP_ERRNO(int, connect(fd, sa, len));
}

int rt_sys_bind(int fd, const struct sockaddr *sa, socklen_t len) {
    return KEEP_ERRNO(int, bind(fd, sa, len));
}

int rt_sys_listen(int fd, int backlog) {
    return KEEP_ERRNO(int, listen(fd, backlog));
}

int rt_sys_shutdown(int fd, int how) {
    return KEEP_ERRNO(int, shutdown(fd, how));
}

int rt_sys_set_int(int fd, int level, int option, int value) {
    return KEEP_ERRNO(int, setsockopt(fd, level, option, &value, sizeof value));
}

int rt_sys_get_int(int fd, int level, int option) {
    int value = 0;
    socklen_t len = sizeof value;
    int err = KEEP_ERRNO(int, getsockopt(fd, level, option, &value, &len));
    return err ? err : value;
}

int rt_sys_connected(int fd) {
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    return KEEP_ERRNO(int, getpeername(fd, (struct sockaddr *)&sa, &len));
}

bool rt_sys_met_itself(int fd) {
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } own = {0}, peer = {0};
    socklen_t own_len = sizeof own, peer_len = sizeof peer;
    if (KEEP_ERRNO(int, getsockname(fd, &own.sa, &own_len)) != 0 ||
        KEEP_ERRNO(int, getpeername(fd, &peer.sa, &peer_len)) != 0)
        return false;
    if (own.in.sin_port != peer.in.sin_port) /* at the same place in both */
        return false;
    return own.sa.sa_family == AF_INET
               ? own.in.sin_addr.s_addr == peer.in.sin_addr.s_addr
               : memcmp(&own.in6.sin6_addr, &peer.in6.sin6_addr, sizeof own.in6.sin6_addr) == 0;
}

void rt_sys_no_linger(int fd) {
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    (void)KEEP_ERRNO(int, setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once));
}

int rt_sys_connect_brief(int fd, const struct sockaddr *sa, socklen_t len) {
    struct timeval before = {0}, tick = {.tv_usec = 1};
    socklen_t size = sizeof before;
    int err = KEEP_ERRNO(int, getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &before, &size));
    if (err)
        return err;
    err = KEEP_ERRNO(int, setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tick, sizeof tick));
    if (err)
        return err;
    err = rt_sys_connect(fd, sa, len);
    (void)KEEP_ERRNO(int, setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &before, sizeof before));
    return err;
}

unsigned rt_sys_if_index(const char *name) {
    int saved = errno;
    unsigned index = if_nametoindex(name);
    errno = saved;
    return index;
}

static int eai_of(int error) {
    switch (error) {
    case ENOMEM:
        return EAI_MEMORY;
    case EAGAIN:
    case EINTR:
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ETIMEDOUT:
    case ECONNREFUSED:
    case ENETUNREACH:
    case EHOSTUNREACH:
        return EAI_AGAIN;
    default:
        return EAI_FAIL;
    }
}

int rt_sys_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **res) {
    int err = rt_fault(RT_FAULT_LOOKUP), saved = errno;
    if (err)
        return eai_of(-err);
    int r = getaddrinfo(host, service, hints, res);
    if (r == EAI_SYSTEM)
        r = eai_of(errno);
    errno = saved;
    return r;
}

void rt_sys_freeaddrinfo(struct addrinfo *list) {
    int saved = errno;
    freeaddrinfo(list);
    errno = saved;
}

bool rt_sys_is_socket_file(const char *path) {
    struct stat st;
    return KEEP_ERRNO(int, lstat(path, &st)) == 0 && S_ISSOCK(st.st_mode);
}

/* ---- processes and signals ------------------------------------------------------------------- */

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

int rt_sys_pidfd(pid_t pid) {
    int err = rt_fault(RT_FAULT_PIDFD);
    return err ? err : (int)KEEP_ERRNO(long, syscall(SYS_pidfd_open, pid, 0));
}

int rt_sys_wait(pid_t pid, int *status, bool block) {
    return (int)RETRY(wait4(pid, status, __WALL | (block ? 0 : WNOHANG), NULL));
}

int rt_sys_signalfd(const sigset_t *set) {
    int err = rt_fault(RT_FAULT_SIGNALFD);
    return err ? err : KEEP_ERRNO(int, signalfd(-1, set, SFD_NONBLOCK | SFD_CLOEXEC));
}

/* ---- eventfd and epoll ----------------------------------------------------------------------- */

int rt_sys_eventfd(bool nonblocking) {
    int err = rt_fault(RT_FAULT_EVENTFD);
    return err ? err : KEEP_ERRNO(int, eventfd(0, EFD_CLOEXEC | (nonblocking ? EFD_NONBLOCK : 0)));
}

void rt_sys_eventfd_add(int fd) {
    uint64_t one = 1;
    (void)RETRY(write(fd, &one, sizeof one));
}

void rt_sys_eventfd_drain(int fd) {
    uint64_t count;
    (void)RETRY(read(fd, &count, sizeof count));
}

int rt_sys_replace(int fd, int to) {
    int r = RETRY(dup3(fd, to, O_CLOEXEC));
    return r < 0 ? r : 0;
}

int rt_sys_epoll_create(void) {
    int err = rt_fault(RT_FAULT_EPOLL);
    return err ? err : KEEP_ERRNO(int, epoll_create1(EPOLL_CLOEXEC));
}

int rt_sys_epoll_ctl(int epfd, int op, int fd, uint32_t events, uint64_t data) {
    struct epoll_event e = {.events = events, .data.u64 = data};
    int err = rt_fault(op == EPOLL_CTL_ADD   ? RT_FAULT_EPOLL_ADD
                       : op == EPOLL_CTL_MOD ? RT_FAULT_EPOLL_MOD
                                             : RT_FAULT_EPOLL_DEL);
    return err ? err : KEEP_ERRNO(int, epoll_ctl(epfd, op, fd, &e));
}

int rt_sys_epoll_wait(int epfd, struct epoll_event *out, int max, int64_t timeout_ns) {
    int err = rt_fault(RT_FAULT_EPOLL_WAIT);
    if (err)
        return err;
#ifdef SYS_epoll_pwait2
    static bool refused; /* before Linux 5.11, or a seccomp filter that does not know it */
    if (timeout_ns > 0 && !rt_load_relaxed(&refused)) {
        struct timespec ts = {.tv_sec = timeout_ns / 1000000000,
                              .tv_nsec = timeout_ns % 1000000000};
        int n = rt_fault(RT_FAULT_PWAIT2);
        if (n == 0)
            n = (int)KEEP_ERRNO(long, syscall(SYS_epoll_pwait2, epfd, out, max, &ts, NULL, 0));
        if (n != -ENOSYS && n != -EPERM)
            return n;
        rt_store_relaxed(&refused, true);
    }
#endif
    int64_t ms = timeout_ns < 0 ? -1 : (timeout_ns + 999999) / 1000000;
    return KEEP_ERRNO(int, epoll_wait(epfd, out, max, ms > INT32_MAX ? INT32_MAX : (int)ms));
}
