/* sys_io.h - the system calls on descriptors, sockets and epoll, each returning >= 0 or -errno,
 * none touching errno's value as the caller sees it. None of them retries EINTR but where it says
 * so. Descriptors made here are close-on-exec. io_uring is entered by liburing (netpoll/ring.c). */
#ifndef RT_SYS_IO_H
#define RT_SYS_IO_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

struct addrinfo;
struct epoll_event;
struct stat;

/* ---- transfers. EINTR is retried in all of them ---------------------------------------------- */

ssize_t rt_sys_recv(int fd, void *buf, size_t n, int flags);
ssize_t rt_sys_send(int fd, const void *buf, size_t n, int flags);
ssize_t rt_sys_recvmsg(int fd, struct msghdr *msg, int flags);
ssize_t rt_sys_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t rt_sys_readv(int fd, const struct iovec *iov, int count);
ssize_t rt_sys_writev(int fd, const struct iovec *iov, int count);
ssize_t rt_sys_pread(int fd, void *buf, size_t n, off_t offset);
ssize_t rt_sys_pwrite(int fd, const void *buf, size_t n, off_t offset);
/* The same without waiting, as rt_sys_readv_nowait. An offset below 0 would be the file
 * position. */
ssize_t rt_sys_pread_nowait(int fd, void *buf, size_t n, off_t offset);
ssize_t rt_sys_preadv_nowait(int fd, const struct iovec *iov, int count, off_t offset);
ssize_t rt_sys_pwrite_nowait(int fd, const void *buf, size_t n, off_t offset);
/* No SIGPIPE is left behind. worker: the thread has it blocked, so that this comes cheaper. */
ssize_t rt_sys_sendfile(int out, int in, off_t *offset, size_t n, bool worker);
off_t rt_sys_seek(int fd, off_t offset, int whence);
/* At the file position, without waiting: -EAGAIN, or -EOPNOTSUPP where the file cannot promise
 * that. */
ssize_t rt_sys_readv_nowait(int fd, const struct iovec *iov, int count);
ssize_t rt_sys_writev_nowait(int fd, const struct iovec *iov, int count);

/* ---- descriptors ----------------------------------------------------------------------------- */

enum rt_fd_type { RT_TYPE_OTHER, RT_TYPE_SOCKET, RT_TYPE_PIPE, RT_TYPE_FILE };
int rt_sys_fd_type(int fd);     /* enum rt_fd_type; FILE: regular, directory or block device */
int rt_sys_fd_blocking(int fd); /* 1: O_NONBLOCK is not set */
/* What poll(2) says right now: the revents (0: nothing), -EBADF when it is not open. */
int rt_sys_fd_ready(int fd, short events);
int rt_sys_close(int fd); /* EINTR: Linux has closed it: 0 */

/* ---- files: any of these may wait for a disk. EINTR is retried where it can be --------------- */

int rt_sys_open(const char *path, int flags, mode_t mode);
int rt_sys_fsync(int fd);
int rt_sys_fdatasync(int fd);
int rt_sys_fstat(int fd, struct stat *st);
int rt_sys_unlink(const char *path);
int rt_sys_rename(const char *from, const char *to);
int rt_sys_mkdir(const char *path, mode_t mode);

/* ---- sockets --------------------------------------------------------------------------------- */

int rt_sys_socket(int family, int type, int protocol); /* non-blocking */
int rt_sys_accept(int fd, struct sockaddr *sa, socklen_t *len); /* the new one is non-blocking */
int rt_sys_connect(int fd, const struct sockaddr *sa, socklen_t len);
int rt_sys_bind(int fd, const struct sockaddr *sa, socklen_t len);
int rt_sys_listen(int fd, int backlog);
int rt_sys_shutdown(int fd, int how);
int rt_sys_set_int(int fd, int level, int option, int value);
int rt_sys_get_int(int fd, int level, int option); /* the value, >= 0 */
int rt_sys_connected(int fd);                      /* 0: it has a peer; -ENOTCONN */
bool rt_sys_met_itself(int fd); /* TCP: the connection begins and ends at this socket */
void rt_sys_no_linger(int fd);  /* TCP: its close resets the connection, and nothing stays behind */
/* connect(2) on a blocking socket that gives up after a clock tick, as if it were non-blocking. */
int rt_sys_connect_brief(int fd, const struct sockaddr *sa, socklen_t len);
unsigned rt_sys_if_index(const char *name); /* 0: there is none of that name */
/* getaddrinfo(3), with EAI_SYSTEM made an EAI code that fits errno best: EAI_MEMORY, EAI_AGAIN for
 * what may work later, else EAI_FAIL. */
int rt_sys_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **res);
void rt_sys_freeaddrinfo(struct addrinfo *list);
bool rt_sys_is_socket_file(const char *path); /* not a link to one */

/* ---- processes and signals ------------------------------------------------------------------- */

int rt_sys_pidfd(pid_t pid);
/* Reap a child that has ended: its pid; 0 while it runs, unless `block`. EINTR is retried. */
int rt_sys_wait(pid_t pid, int *status, bool block);
int rt_sys_signalfd(const sigset_t *set); /* non-blocking */

/* ---- eventfd and epoll ----------------------------------------------------------------------- */

int rt_sys_eventfd(bool nonblocking);
void rt_sys_eventfd_add(int fd);
void rt_sys_eventfd_drain(int fd); /* of a non-blocking one */
/* The number `to`, which stays in use all the time, means the file of fd from now on. */
int rt_sys_replace(int fd, int to);

int rt_sys_epoll_create(void);
int rt_sys_epoll_ctl(int epfd, int op, int fd, uint32_t events, uint64_t data);
/* timeout_ns < 0 waits for ever. The number of events, or -errno. */
int rt_sys_epoll_wait(int epfd, struct epoll_event *out, int max, int64_t timeout_ns);

#endif
