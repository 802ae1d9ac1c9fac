/* gort/io.h - plain file descriptors, blocking or not, as if each call blocked.
 *
 * Every call here parks unless its comment says otherwise, works on a green thread and on any other
 * thread, needs the running runtime (-ENXIO otherwise), and honours the scope (-ECANCELED,
 * -ETIMEDOUT): the check is made before the call is tried; what was transferred is always reported.
 * EINTR is never reported. -ENOMEM: no memory for the descriptor's place in gort's table, which
 * grows by the first call on a number, or for the timer of a deadline; then nothing was
 * transferred, but by go_write_all; a descriptor that the call has made is closed again. A bad or
 * closed descriptor is -EBADF, also when it is closed by go_close while the call is parked. A
 * descriptor on which a call here was made is closed with go_close. O_NONBLOCK is never set on a
 * descriptor that gort did not make. A write to a closed peer is -EPIPE, and on sockets never
 * raises SIGPIPE. */
#ifndef GORT_IO_H
#define GORT_IO_H

#include <gort/base.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>

GO_BEGIN_DECLS

struct addrinfo;
struct stat;

/* A listening socket (for "udp": a bound one), non-blocking and close-on-exec.
 * network: "tcp" (both families by the address), "tcp4", "tcp6", "udp", "udp4", "udp6", "unix", and
 * as Go calls them "unixgram" (datagrams: bound as for "udp") and "unixpacket" (SOCK_SEQPACKET).
 * address: "127.0.0.1:8080", ":8080" (all addresses, IPv6 with IPv4 where there is IPv6), "[::1]:0"
 * (port 0: the kernel chooses; ask getsockname), or a path for the "unix" ones ("@name" for the
 * abstract namespace). "localhost" is the loopback address; no other name is looked up, because
 * this never parks: see go_getaddrinfo. SO_REUSEADDR is set for TCP, the backlog is SOMAXCONN.
 * Returns the descriptor; -EINVAL for a text that is no such address; -EADDRINUSE, -EACCES, ... */
GO_API int go_listen(const char *network, const char *address);

/* Options of go_listen_with. Zero fields mean the default; begin with GO_LISTEN_OPTIONS_INIT. */
struct go_listen_options {
    size_t size;      /* sizeof(struct go_listen_options) */
    int backlog;      /* of listen(2); default SOMAXCONN. net.core.somaxconn bounds it */
    int reuse_port;   /* SO_REUSEPORT: several sockets share the address, each gets a part */
    int v6only;       /* IPV6_V6ONLY: no IPv4 on this socket, so the address must be an IPv6 one */
    /* A path in use is tried: when nobody listens there any more (connect(2) is refused, and it is
     * a socket) it is unlinked and taken. Whoever is alive sees a connection that is closed at
     * once. Of two that do so at the same moment one may lose its path to the other. Others than
     * paths are not affected. */
    int unlink_stale;
};
#define GO_LISTEN_OPTIONS_INIT {sizeof(struct go_listen_options), 0, 0, 0, 0}

/* go_listen with options; o NULL means none. -EINVAL also for a backlog below 0, and for v6only
 * with an address that is not of IPv6. */
GO_API int go_listen_with(const char *network, const char *address,
                          const struct go_listen_options *o);

/* Accept a connection on fd: a new non-blocking, close-on-exec descriptor with TCP_NODELAY (when
 * TCP). sa and len (both may be NULL) as in accept(2). A connection that died in the queue is
 * skipped; when out of descriptors (EMFILE, ENFILE, ENOMEM) it waits 5 ms .. 1 s and tries again,
 * as Go's net/http does, so that one greedy moment does not end the server. */
GO_API int go_accept(int fd, struct sockaddr *sa, socklen_t *len);

/* Connect to an address in the forms of go_listen, with an empty host to the local host, or to a
 * name, "example.org:80", which is looked up as by go_getaddrinfo. Its addresses are tried in
 * order, one after the other; the kernel takes about two minutes to give up one that does not
 * answer, so set a deadline (gort/scope.h). It and a cancel end the lookup, too, at once: the
 * thread goes on, and drops its answer (go_stop waits for it). On a foreign thread the lookup is
 * made right there, and nothing ends it early.
 * Returns a non-blocking descriptor with TCP_NODELAY; -EINVAL for a bad text; when none of the
 * addresses works the first error that says more than that there is no way to it, -ECONNREFUSED,
 * ...; and of the lookup: -ENOENT, no such name or no address of that family; -EAGAIN, no answer
 * now, or no thread for it; -EIO, it fails for good; -ENOMEM. */
GO_API int go_dial(const char *network, const char *address);

/* As getaddrinfo(3), which waits on a thread of the pool of go_blocking while the caller is parked;
 * on a foreign thread it is called right there. *res, which is set when the result is 0, is freed
 * with freeaddrinfo(3).
 * Returns 0 or an EAI code for gai_strerror(3), never EAI_SYSTEM: EAI_MEMORY, EAI_AGAIN (also when
 * no thread can be started) or EAI_FAIL stand for it; or -ECANCELED, -ETIMEDOUT, which are no EAI
 * codes, when the lookup has not begun: once it has, it is waited for; -ENXIO when the runtime is
 * not running, the number of EAI_FAMILY. */
GO_API int go_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                          struct addrinfo **res);

/* Finish connecting fd to sa, as connect(2). 0 or -errno. */
GO_API int go_connect(int fd, const struct sockaddr *sa, socklen_t len);

/* As read(2), write(2), readv(2), writev(2): the number of bytes, 0 at the end, or -errno. Of a
 * file what the page cache has at once, which may be less than n; when it has nothing, or the file
 * system cannot tell, as go_pread. */
GO_API ssize_t go_read(int fd, void *buf, size_t n);
GO_API ssize_t go_write(int fd, const void *buf, size_t n);
GO_API ssize_t go_readv(int fd, const struct iovec *iov, int count);
GO_API ssize_t go_writev(int fd, const struct iovec *iov, int count);

/* Write all n bytes: n, or -errno, and then how much went out is unknown. */
GO_API ssize_t go_write_all(int fd, const void *buf, size_t n);

/* As pread(2) and pwrite(2). What is in the page cache is moved at once, for the rest the caller
 * parks while a thread of the pool of go_blocking waits for the disk: that is not cancelled once it
 * has begun, and a short count is then what pread(2) makes of it. When no thread can be started the
 * worker waits. -EINVAL for an offset below 0; -ESPIPE where there are no offsets. */
GO_API ssize_t go_pread(int fd, void *buf, size_t n, off_t offset);
GO_API ssize_t go_pwrite(int fd, const void *buf, size_t n, off_t offset);

/* As open(2), fsync(2), fdatasync(2), fstat(2), unlink(2), rename(2), mkdir(2), on a thread of the
 * pool of go_blocking while the caller is parked; on a foreign thread right there. Not cancelled
 * once they have begun: to open a FIFO waits for its other end, whatever becomes of the scope.
 * go_open makes a close-on-exec descriptor, for go_close; mode counts with O_CREAT alone.
 * 0, or the descriptor; -errno; -EAGAIN when no thread can be started. */
GO_API int go_open(const char *path, int flags, mode_t mode);
GO_API int go_fsync(int fd);
GO_API int go_fdatasync(int fd);
GO_API int go_fstat(int fd, struct stat *st);
GO_API int go_unlink(const char *path);
GO_API int go_rename(const char *from, const char *to);
GO_API int go_mkdir(const char *path, mode_t mode);

/* As sendfile(2), without its SIGPIPE: from the file `in`, at *offset, which is moved on, or at its
 * position when offset is NULL. Parks until out has room, and returns what went out then, 0 at the
 * end of the file. What must be read from a disk, or written to a file, is moved by a thread of the
 * pool of go_blocking, as in go_pread. When out is a blocking descriptor that gort did not make the
 * bytes are copied. */
GO_API ssize_t go_sendfile(int out, int in, off_t *offset, size_t n);

/* As recv(2), send(2), recvfrom(2), sendto(2), recvmsg(2), sendmsg(2); flags are passed on,
 * MSG_NOSIGNAL is added; with MSG_DONTWAIT they never park and say -EAGAIN. MSG_WAITALL on a stream
 * ends at ancillary data, too. When the queue behind a name of "unixgram" is full, sendto and
 * sendmsg try again after 0.1 ms .. 1 s: the kernel does not tell. */
GO_API ssize_t go_recv(int fd, void *buf, size_t n, int flags);
GO_API ssize_t go_send(int fd, const void *buf, size_t n, int flags);
GO_API ssize_t go_recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *sa,
                           socklen_t *len);
GO_API ssize_t go_sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *sa,
                         socklen_t len);
GO_API ssize_t go_recvmsg(int fd, struct msghdr *msg, int flags);
GO_API ssize_t go_sendmsg(int fd, const struct msghdr *msg, int flags);

/* As shutdown(2). Never parks, needs no runtime. 0 or -errno. */
GO_API int go_shutdown(int fd, int how);

/* Wait until fd is ready for one of events (POLLIN, POLLOUT, ...): the revents (> 0, with POLLERR
 * and POLLHUP as in poll(2)), or -errno. For libraries that do their own reads. */
GO_API int go_poll(int fd, short events);
/* The same until an absolute deadline: -ETIMEDOUT; GO_NOW polls. A scope's deadline is -ECANCELED
 * here. */
GO_API int go_poll_until(int fd, short events, int64_t deadline);

/* Start a green thread that runs fn(arg) when fd is ready for one of events. Until then it has no
 * stack, only its record of 256 bytes: for connections that are idle most of the time. fn runs
 * exactly once, and inside it go_when_result tells why: the revents (> 0) as of go_poll, still true
 * when fn begins unless others read there, too; -EBADF: fd was closed by go_close or given up by
 * go_forget; -ECANCELED: the runtime stops; -ETIMEDOUT: the deadline is over; -ENOMEM: no memory
 * for a timer. It has no scope of its spawner's. With io_uring the kernel is asked when this worker
 * next looks for work: who computes on for long after the spawn, calls go_yield first.
 *
 * Never parks, any thread. 0; -EINVAL: fn is NULL; -EBADF; -EBUSY: one waits on fd already in the
 * direction of events (in: POLLIN, POLLPRI, POLLRDHUP, or none; out: POLLOUT); any number may be
 * parked there; -EAGAIN at the limit of green threads; -ENOMEM, -ENOSPC from the kernel; -ENXIO;
 * -ESHUTDOWN. Without 0 fn does not run. */
GO_API int go_spawn_when(int fd, short events, void (*fn)(void *), void *arg);
/* The same with a deadline; GO_NOW and what is past: fn runs at once in any case. */
GO_API int go_spawn_when_until(int fd, short events, int64_t deadline, void (*fn)(void *),
                               void *arg);
/* Inside fn: see there. -EINVAL elsewhere. Never parks, any thread. */
GO_API int go_when_result(void);

/* Wait until the child pid has ended, and reap it; *status (may be NULL) as in waitpid(2). By
 * pidfd, so on Linux 5.3 and newer the wait can be cancelled, and then the child is still there;
 * without pidfd a thread of the pool of go_blocking waits, and goes on to the end. Two may wait for
 * one child: one gets it, the other -ECHILD.
 * 0; -ECHILD when it is no child of this process, or was reaped elsewhere, or SIGCHLD is ignored;
 * -EINVAL unless pid > 0; -EMFILE, -ENFILE, -ENOMEM. */
GO_API int go_wait_pid(pid_t pid, int *status);

/* Wait for a signal of set that is sent to the process, take it, and return its number. By
 * signalfd: the host must have blocked these signals in all its threads, best before it starts any,
 * since gort changes no mask; in a thread where one is not blocked it does there what it always
 * did. What is sent between two calls is pending and found by the next, several of one kind as one.
 * Of several who wait for the same signal one gets it. A signal that is sent to a thread
 * (pthread_kill) is not seen.
 * -EINVAL when set is NULL or empty, SIGKILL and SIGSTOP not counted; -EMFILE, -ENFILE, -ENOMEM. */
GO_API int go_signal_wait(const sigset_t *set);

/* Close fd; whoever is parked on it gets -EBADF. Not cancellable, never shuts down what another
 * process shares. 0 or -errno (the descriptor is closed in any case but -EBADF). No runtime needed.
 * When it returns the file is let go: the peer sees the end, the port of a listener is free. On
 * io_uring a poll that another worker has asked for holds it, too; that one is woken and waited
 * for, which blocks the thread, for some 50 us as a rule and 10 ms at most: it may be that the
 * worker computes, or sleeps in a system call. Then its processor is taken from it, the kernel lets
 * the file go some milliseconds later, and a call of that worker that cannot be begun again, as
 * epoll_wait(2), may end by EINTR; with GO_STRICT the file is let go when the green thread there
 * ends, parks or yields. A forked child that does not call exec holds it, too. Never parks. */
GO_API int go_close(int fd);

/* Forget fd before a foreign library closes it: who is parked on it gets -EBADF, fd stays open.
 * Waits for a poll as go_close does. Never parks, needs no runtime. 0, -EBADF. */
GO_API int go_forget(int fd);

GO_END_DECLS

#endif
