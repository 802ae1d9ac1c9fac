/* when.h - what the tests of go_spawn_when share. */
#ifndef TEST_WHEN_H
#define TEST_WHEN_H

#include "net.h"

enum { ANY = 12345 };

static int runs;        /* of note */
static int last_result;

static inline void note(void *arg) {
    int expected = net_int(arg), r = go_when_result();
    T_EQ(go_when_result(), r); /* it stays */
    T_ASSERT(expected == ANY || r == expected, "%d, not %d", r, expected);
    T_ASSERT(go_id() != 0);
    __atomic_store_n(&last_result, r, __ATOMIC_RELAXED);
    __atomic_fetch_add(&runs, 1, __ATOMIC_RELEASE);
}

static inline int runs_now(void) {
    return __atomic_load_n(&runs, __ATOMIC_ACQUIRE);
}

static inline void await_runs(int n) {
    while (runs_now() < n)
        T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
    T_EQ(runs_now(), n);
}

static inline void when(int fd, short events, int expected) {
    T_EQ(go_spawn_when(fd, events, note, net_ptr(expected)), 0);
}

/* A pair of each kind: ours, and a blocking one of somebody else's. */
static inline void make_pair(int kind, int fd[2]) {
    if (kind == 0)
        net_pair(fd);
    else
        T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
}

/* The same, and the number of the first end is nobody else's when that has been closed. */
static inline void make_high_pair(int kind, int fd[2]) {
    make_pair(kind, fd);
    fd[0] = net_raise(fd[0], kind == 0);
}

static inline void close_pair(const int fd[2]) {
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}

static inline void drain(int fd, ssize_t at_least) {
    static char junk[1 << 16];
    for (ssize_t n; at_least > 0; at_least -= n)
        T_ASSERT((n = go_read(fd, junk, sizeof junk)) > 0);
}

#endif
