/* net.h - what the network tests share. */
#ifndef TEST_NET_H
#define TEST_NET_H

#include "gotest.h"

#include "base/lock.h"
#include "netpoll/engines.h"
#include "netpoll/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gort.h>
#include <malloc.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* For tests that count mappings: glibc makes heaps for threads as it sees fit, and keeps them. */
#define NET_ONE_HEAP() (void)mallopt(M_ARENA_MAX, 1) /* ASan knows no such thing */

#define RUN(fn) T_EQ(net_run(fn), 0)
#define SPAWN(fn, arg) T_EQ(go_spawn((fn), (arg)), 0)

/* Main has returned; the others get a grace to end. Where that is too short the stop goes on. */
static inline int net_run(void (*fn)(void *)) {
    int r = go_run(fn, NULL);
    return r == -ETIMEDOUT ? go_stop(GO_FOREVER) : r;
}

static inline int net_port(int fd) {
    struct sockaddr_in6 sa;
    socklen_t len = sizeof sa;
    T_EQ(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    return ntohs(sa.sin6_port); /* the same place as in sockaddr_in */
}

/* A loopback address of this process alone: tests run side by side, and who dials a port that he
 * has just closed shall not find the listener of another one there. */
static inline const char *net_host(char host[16]) {
    unsigned pid = (unsigned)getpid(); /* of 22 bits at most */
    snprintf(host, 16, "127.%u.%u.%u", 64 + (pid >> 16) % 64, pid >> 8 & 255, pid & 255);
    return host;
}

/* For tests that are skipped without; the library is not asked. */
static inline bool net_has_ipv6(void) {
    struct sockaddr_in6 sa = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool has = fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof sa) == 0;
    if (fd >= 0)
        close(fd);
    return has;
}

static inline int net_listen(char address[32]) {
    char host[16];
    snprintf(address, 32, "%s:0", net_host(host));
    int fd = go_listen("tcp", address);
    T_ASSERT(fd >= 0, "%d", fd);
    snprintf(address, 32, "%s:%d", host, net_port(fd));
    return fd;
}

/* A connected pair made by gort: [0] accepted, [1] dialled. */
static inline void net_pair_at(int listener, const char *address, int fd[2]) {
    fd[1] = go_dial("tcp", address);
    T_ASSERT(fd[1] >= 0, "%d", fd[1]);
    fd[0] = go_accept(listener, NULL, NULL);
    T_ASSERT(fd[0] >= 0, "%d", fd[0]);
}

static inline void net_pair(int fd[2]) {
    char address[32];
    int listener = net_listen(address);
    net_pair_at(listener, address, fd);
    T_EQ(go_close(listener), 0);
}

/* The file of fd under a number that is nobody else's when it has been closed. A low one may be:
 * the runtime opens files of its own at any time (the ring of a spare worker, sysmon's look at a
 * thread), and the kernel hands out the lowest. ours: as if gort had made it. */
enum { NET_HIGH = 800 };
static inline int net_raise(int fd, bool ours) {
    int high = fcntl(fd, F_DUPFD_CLOEXEC, NET_HIGH);
    T_ASSERT(high >= NET_HIGH, "%d", high);
    T_EQ(go_close(fd), 0);
    if (ours)
        T_EQ(rt_fd_adopt(high, RT_FD_OURS | RT_FD_STREAM), 0);
    return high;
}

static inline uint64_t net_parked(void) {
    struct go_stats st = GO_STATS_INIT;
    T_EQ(go_stats(&st), 0);
    return st.fd_waits;
}

/* Wait until n green threads are parked on descriptors. */
static inline void net_wait_parked(uint64_t n) {
    while (net_parked() != n)
        go_sleep(100 * GO_MICROSECOND);
}

/* Wait for what another has stored with a release. */
static inline void net_await(const int *flag) {
    while (!__atomic_load_n(flag, __ATOMIC_ACQUIRE))
        T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
}

/* How many descriptors are of that kind, as /proc names it. All of them are not counted: a spare
 * worker that comes meanwhile has a ring. */
static inline int net_open_fds(const char *kind) {
    int n = 0;
    for (int fd = 0; fd < 1024; fd++) {
        char path[64], to[64] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        n += readlink(path, to, sizeof to - 1) > 0 && strstr(to, kind) != NULL;
    }
    return n;
}

/* Is the file gone with the close? It need not be after one that took as long as go_close waits for
 * the rings: their workers may have had no CPU meanwhile; or when a ring had to be closed for it,
 * since the last time: the kernel takes some milliseconds to let go what that held. */
static inline bool net_close_is_over(int fd) {
    static uint32_t rings_closed;
    int64_t start = go_now();
    T_EQ(go_close(fd), 0);
    bool late = go_now() - start >= 10 * GO_MILLISECOND;
    uint32_t before = rings_closed;
    rings_closed = rt_load_relaxed(&rt_uring_closed);
    return !late && rings_closed == before;
}

/* Polls that the rings of this process hold, and how many rings there are; 0 under epoll. */
static inline int net_polls_in_flight(int *rings) {
    int n = 0;
    *rings = 0;
    DIR *d = opendir("/proc/self/fd");
    T_ASSERT(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[300], text[200];
        snprintf(path, sizeof path, "/proc/self/fd/%s", e->d_name);
        ssize_t len = readlink(path, text, sizeof text - 1);
        if (len <= 0)
            continue;
        text[len] = 0;
        if (!strstr(text, "io_uring"))
            continue;
        snprintf(path, sizeof path, "/proc/self/fdinfo/%s", e->d_name);
        FILE *f = fopen(path, "re");
        if (!f)
            continue; /* of a spare worker that has just ended */
        ++*rings;
        while (fgets(text, sizeof text, f))
            n += strstr(text, "op=6,") != NULL; /* IORING_OP_POLL_ADD */
        fclose(f);
    }
    closedir(d);
    return n;
}

static inline void *net_ptr(int fd) {
    return (void *)(intptr_t)fd;
}
static inline int net_int(void *arg) {
    return (int)(intptr_t)arg;
}

#endif
