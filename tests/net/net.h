/* net.h - what the network tests share. */
#ifndef TEST_NET_H
#define TEST_NET_H

#include "gotest.h"

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

#define RUN(fn) T_EQ(go_run((fn), NULL), 0)
#define SPAWN(fn, arg) T_EQ(go_spawn((fn), (arg)), 0)

static inline int net_port(int fd) {
    struct sockaddr_in6 sa;
    socklen_t len = sizeof sa;
    T_EQ(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    return ntohs(sa.sin6_port); /* the same place as in sockaddr_in */
}

static inline int net_listen(char address[32]) {
    int fd = go_listen("tcp", "127.0.0.1:0");
    T_ASSERT(fd >= 0, "%d", fd);
    snprintf(address, 32, "127.0.0.1:%d", net_port(fd));
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

/* Wait until n green threads are parked on descriptors. */
static inline void net_wait_parked(uint64_t n) {
    for (int i = 0; i < 10000; i++) {
        struct go_stats st = GO_STATS_INIT;
        T_EQ(go_stats(&st), 0);
        if (st.fd_waits == n)
            return;
        go_sleep(GO_MILLISECOND);
    }
    T_ASSERT(false, "never %d waits", (int)n);
}

/* Polls that the rings of this process hold; 0 under epoll. */
static inline int net_polls_in_flight(void) {
    int n = 0;
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
        T_ASSERT(f);
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
