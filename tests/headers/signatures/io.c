/* gort/io.h alone: with the types of its calls, but for those that they only point to. */
#include <gort/io.h>

#include "is.h"

IS(int, go_listen, const char *, const char *);
IS(int, go_listen_with, const char *, const char *, const struct go_listen_options *);
IS(int, go_accept, int, struct sockaddr *, socklen_t *);
IS(int, go_dial, const char *, const char *);
IS(ssize_t, go_read, int, void *, size_t);
IS(ssize_t, go_write, int, const void *, size_t);
IS(ssize_t, go_write_all, int, const void *, size_t);
IS(ssize_t, go_readv, int, const struct iovec *, int);
IS(ssize_t, go_writev, int, const struct iovec *, int);
IS(ssize_t, go_pread, int, void *, size_t, off_t);
IS(ssize_t, go_pwrite, int, const void *, size_t, off_t);
IS(ssize_t, go_recv, int, void *, size_t, int);
IS(ssize_t, go_send, int, const void *, size_t, int);
IS(ssize_t, go_recvfrom, int, void *, size_t, int, struct sockaddr *, socklen_t *);
IS(ssize_t, go_sendto, int, const void *, size_t, int, const struct sockaddr *, socklen_t);
IS(ssize_t, go_recvmsg, int, struct msghdr *, int);
IS(ssize_t, go_sendmsg, int, const struct msghdr *, int);
IS(int, go_connect, int, const struct sockaddr *, socklen_t);
IS(int, go_shutdown, int, int);
IS(ssize_t, go_sendfile, int, int, off_t *, size_t);
IS(int, go_close, int);
IS(int, go_forget, int);
IS(int, go_poll, int, short);
IS(int, go_poll_until, int, short, int64_t);
IS(int, go_spawn_when, int, short, void (*)(void *), void *);
IS(int, go_spawn_when_until, int, short, int64_t, void (*)(void *), void *);
IS(int, go_when_result, void);
IS(int, go_open, const char *, int, mode_t);
IS(int, go_fsync, int);
IS(int, go_fdatasync, int);
IS(int, go_fstat, int, struct stat *);
IS(int, go_unlink, const char *);
IS(int, go_rename, const char *, const char *);
IS(int, go_mkdir, const char *, mode_t);
IS(int, go_getaddrinfo, const char *, const char *, const struct addrinfo *, struct addrinfo **);
IS(int, go_wait_pid, pid_t, int *);
IS(int, go_signal_wait, const sigset_t *);

struct go_listen_options listen_options = GO_LISTEN_OPTIONS_INIT;
size_t *listen_options_size = &listen_options.size;
