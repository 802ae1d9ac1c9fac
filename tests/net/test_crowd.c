/* A peer that resets its connection; and as many connections as a process may have. */
#include "net.h"

#include <arpa/inet.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>

static go_waitgroup wg;

/* ---- a reset ends what is parked, and is told once ------------------------------------------- */

static ssize_t by_read(int fd) {
    char c;
    return go_read(fd, &c, 1);
}
static ssize_t by_readv(int fd) {
    char c[2];
    struct iovec iov[] = {{&c[0], 1}, {&c[1], 1}};
    return go_readv(fd, iov, 2);
}
static ssize_t by_recvmsg(int fd) {
    char c;
    struct iovec iov = {&c, 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    return go_recvmsg(fd, &msg, 0);
}
static ssize_t by_write(int fd) {
    return go_write(fd, "x", 1);
}
static ssize_t by_write_all(int fd) {
    return go_write_all(fd, "xyz", 3);
}
static ssize_t by_sendmsg(int fd) {
    struct iovec iov = {(char[]){"xyz"}, 3};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    return go_sendmsg(fd, &msg, 0);
}
static ssize_t by_poll(int fd) {
    int r = go_poll(fd, POLLIN);
    T_ASSERT(r > 0 && (r & POLLERR), "%d", r);
    return go_read(fd, &(char){0}, 1);
}

static const struct way {
    ssize_t (*call)(int fd);
    bool writes; /* it waits for room */
    const char *name;
} ways[] = {
    {by_read, false, "read"},          {by_readv, false, "readv"}, {by_recvmsg, false, "recvmsg"},
    {by_poll, false, "poll"},          {by_write, true, "write"},  {by_sendmsg, true, "sendmsg"},
    {by_write_all, true, "write_all"},
};
enum { WAYS = sizeof ways / sizeof *ways };

static struct victim {
    const struct way *way;
    int fd[2];
} victims[WAYS];

static void is_reset(void *arg) {
    const struct victim *v = arg;
    char c;
    ssize_t r;
    do
        r = v->way->call(v->fd[0]);
    while (v->way->writes && r > 0); /* what was full has more room when its bytes have arrived */
    T_ASSERT(r == -ECONNRESET, "%s: %zd", v->way->name, r);
    T_EQ(go_read(v->fd[0], &c, 1), 0); /* it has been told */
    T_EQ(go_write(v->fd[0], "x", 1), -EPIPE);
}

static void fill(int fd) {
    static char page[4096];
    int r;
    T_EQ(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
    do
        r = (int)write(fd, page, sizeof page);
    while (r > 0);
    T_EQ(errno, EAGAIN);
}

static void reset(int fd) {
    const struct linger at_once = {.l_onoff = 1};
    T_EQ(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
    T_EQ(go_close(fd), 0);
}

static void all_are_reset(void *arg) {
    (void)arg;
    for (int i = 0; i < WAYS; i++) {
        struct victim *v = &victims[i];
        v->way = &ways[i];
        net_pair(v->fd);
        if (v->way->writes)
            fill(v->fd[0]);
        T_EQ(go_waitgroup_spawn(&wg, is_reset, v), 0);
    }
    net_wait_parked(WAYS);
    for (int i = 0; i < WAYS; i++)
        reset(victims[i].fd[1]);
    T_EQ(go_waitgroup_wait(&wg), 0);
    for (int i = 0; i < WAYS; i++)
        T_EQ(go_close(victims[i].fd[0]), 0);
}
Test(crowd, a_reset_ends_every_parked_call) {
    RUN(all_are_reset);
}

/* ---- as many connections as there may be, twenty thousand at most ---------------------------- */

enum { MOST = 20000, OTHERS = 400 /* descriptors */, HOSTS = 4 };

static int n, left, broken; /* connections; how they ended */
static int said[2], told[2]; /* by the crowd, to the crowd */
static char address[HOSTS][32];
static struct sockaddr_in peer[HOSTS];

/* How many one process may have; the limit is raised where that is allowed. */
static int as_many_as_may_be(void) {
    struct rlimit limit, high = {MOST + OTHERS, MOST + OTHERS};
    T_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < high.rlim_cur && setrlimit(RLIMIT_NOFILE, &high) != 0) {
        limit.rlim_cur = limit.rlim_max;
        T_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
        T_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
        high = limit;
    }
    int room = (int)high.rlim_cur - OTHERS;
    int wanted = T_SCALE(MOST);
    return wanted < room ? wanted : room;
}

static void echo(void *arg) {
    int fd = (int)(intptr_t)arg;
    char c;
    ssize_t r;
    while ((r = go_read(fd, &c, 1)) == 1)
        T_EQ(go_write(fd, &c, 1), 1);
    T_ASSERT(r == 0 || r == -ECONNRESET, "%zd", r);
    __atomic_fetch_add(r == 0 ? &left : &broken, 1, __ATOMIC_RELAXED);
    T_EQ(go_close(fd), 0);
}

static void accept_all(void *arg) {
    int listener = (int)(intptr_t)arg, fd;
    while ((fd = go_accept(listener, NULL, NULL)) >= 0)
        T_EQ(go_waitgroup_spawn(&wg, echo, (void *)(intptr_t)fd), 0);
    T_EQ(fd, -EBADF);
}

static void must(bool right, const char *what) {
    if (!right) {
        perror(what);
        _exit(1);
    }
}

/* The other ends: plain calls of another process, which has no runtime. It says when all are
 * there, and waits until it may go on. */
static void be_the_crowd(void) {
    static int fd[MOST];
    char c = 0;
    must(read(told[0], peer, sizeof peer) == sizeof peer, "the addresses");
    for (int i = 0; i < n; i++) {
        fd[i] = socket(AF_INET, SOCK_STREAM, 0);
        must(fd[i] >= 0, "socket");
        must(connect(fd[i], (struct sockaddr *)&peer[i % HOSTS], sizeof peer[0]) == 0, "connect");
    }
    must(write(said[1], &c, 1) == 1 && read(told[0], &c, 1) == 1, "all are there");
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < n; i++) {
            c = (char)(i + round);
            must(write(fd[i], &c, 1) == 1, "write");
        }
        for (int i = n; i-- > 0;)
            must(read(fd[i], &c, 1) == 1 && c == (char)(i + round), "read");
    }
    for (int i = 0; i < n; i++) { /* every other one without a farewell */
        struct linger at_once = {.l_onoff = i % 2};
        must(setsockopt(fd[i], SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0, "linger");
        must(close(fd[i]) == 0, "close");
    }
    _exit(0);
}

static int open_sockets(void) {
    struct stat st;
    int sockets = 0;
    for (int fd = 0; fd < MOST + OTHERS; fd++)
        sockets += fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
    return sockets;
}

static void serve_the_crowd(void *arg) {
    (void)arg;
    int listener[HOSTS];
    char c;
    for (int i = 0; i < HOSTS; i++) { /* more than there are ports of one */
        socklen_t len = sizeof peer[i];
        listener[i] = net_listen(address[i]);
        T_EQ(getsockname(listener[i], (struct sockaddr *)&peer[i], &len), 0);
        SPAWN(accept_all, (void *)(intptr_t)listener[i]);
    }
    int before = open_sockets();
    T_EQ(go_write_all(told[1], peer, sizeof peer), sizeof peer);
    T_EQ(go_read(said[0], &c, 1), 1);
    net_wait_parked((uint64_t)n + HOSTS); /* all of them, and the acceptors */
    T_EQ(go_write(told[1], &c, 1), 1);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_ASSERT(left + broken == n && broken == n / 2, "%d and %d of %d", left, broken, n);
    T_EQ(open_sockets(), before);
    for (int i = 0; i < HOSTS; i++)
        T_EQ(go_close(listener[i]), 0);
}

Test(crowd, as_many_connections_as_there_may_be, .timeout = 120) {
    int status;
    n = as_many_as_may_be();
    T_ASSERT(pipe(said) == 0 && pipe(told) == 0);
    pid_t pid = fork();
    if (pid == 0)
        be_the_crowd();
    T_ASSERT(pid > 0 && close(said[1]) == 0 && close(told[0]) == 0); /* if it dies that shows */
    RUN(serve_the_crowd);
    T_EQ(waitpid(pid, &status, 0), pid);
    T_EQ(status, 0);
    fprintf(stderr, "%d connections\n", n);
}
