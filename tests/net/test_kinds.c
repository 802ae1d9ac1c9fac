/* Descriptors as they come: blocking, not sockets, not pollable, not open. */
#include "net.h"

#include <pty.h>
#include <sys/eventfd.h>

static go_waitgroup wg;

static void not_open(void *arg) {
    (void)arg;
    char c;
    struct iovec iov = {&c, 1};
    const int bad[] = {-1, INT32_MIN, INT32_MAX, 10000000, 1 << 26, 999};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int fd = bad[i];
        T_EQ(go_read(fd, &c, 1), -EBADF);
        T_EQ(go_read(fd, &c, 0), -EBADF);
        T_EQ(go_write(fd, &c, 1), -EBADF);
        T_EQ(go_write_all(fd, &c, 1), -EBADF);
        T_EQ(go_readv(fd, &iov, 1), -EBADF);
        T_EQ(go_writev(fd, &iov, 1), -EBADF);
        T_EQ(go_recv(fd, &c, 1, 0), -EBADF);
        T_EQ(go_send(fd, &c, 1, 0), -EBADF);
        T_EQ(go_accept(fd, NULL, NULL), -EBADF);
        T_EQ(go_connect(fd, &(struct sockaddr){.sa_family = AF_INET}, 16), -EBADF);
        T_EQ(go_poll(fd, POLLIN), -EBADF);
        T_EQ(go_poll_until(fd, POLLIN, GO_NOW), -EBADF);
        T_EQ(go_shutdown(fd, SHUT_RD), -EBADF);
        T_EQ(go_forget(fd), -EBADF);
        T_EQ(go_close(fd), -EBADF);
    }
}
Test(kinds, not_open_is_ebadf) {
    RUN(not_open);
}

Test(kinds, without_the_runtime) {
    char c;
    int fd[2];
    T_EQ(pipe(fd), 0);
    T_EQ(go_read(fd[0], &c, 1), -ENXIO);
    T_EQ(go_write(fd[1], &c, 1), -ENXIO);
    T_EQ(go_poll_until(fd[0], POLLIN, GO_NOW), -ENXIO);
    T_EQ(go_listen("tcp", "127.0.0.1:0"), -ENXIO);
    T_EQ(go_dial("tcp", "127.0.0.1:1"), -ENXIO);
    T_EQ(go_close(fd[0]), 0); /* needs none */
    T_EQ(go_close(fd[1]), 0);
}

/* ---- blocking descriptors stay blocking, and nobody is blocked by them ----------------------- */

static void ticker(void *arg) {
    int *ticks = arg;
    for (;;) {
        if (go_sleep(GO_MILLISECOND) != 0)
            return;
        __atomic_fetch_add(ticks, 1, __ATOMIC_RELAXED);
    }
}

enum { BULK = 1 << 20 };

static void write_bulk(void *arg) {
    char *junk = calloc(1, BULK);
    T_ASSERT(junk);
    T_EQ(go_write_all(net_int(arg), junk, BULK), BULK);
    free(junk);
    T_EQ(go_close(net_int(arg)), 0);
}

static void moves(int in, int out, bool ends) {
    static int ticks;
    char buf[3000];
    int flags_in = fcntl(in, F_GETFL), flags_out = fcntl(out, F_GETFL);
    T_ASSERT(!(flags_in & O_NONBLOCK) && !(flags_out & O_NONBLOCK));
    int before = __atomic_load_n(&ticks, __ATOMIC_RELAXED);
    if (before == 0)
        SPAWN(ticker, &ticks);
    T_EQ(go_waitgroup_spawn(&wg, write_bulk, net_ptr(out)), 0);
    net_wait_parked(1); /* the writer waits, the ticker runs */
    while (__atomic_load_n(&ticks, __ATOMIC_RELAXED) == before)
        T_EQ(go_sleep(GO_MILLISECOND), 0);
    T_EQ(fcntl(out, F_GETFL), flags_out);
    size_t got = 0;
    while (got < BULK) {
        ssize_t n = go_read(in, buf, sizeof buf);
        T_ASSERT(n > 0, "%zd", n);
        got += (size_t)n;
    }
    if (ends)
        T_EQ(go_read(in, buf, sizeof buf), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(fcntl(in, F_GETFL), flags_in);
    T_EQ(go_close(in), 0);
}

static void blocking_pipe(void *arg) {
    (void)arg;
    int fd[2];
    T_EQ(pipe(fd), 0);
    moves(fd[0], fd[1], true);
}
Test(kinds, blocking_pipe) {
    RUN(blocking_pipe);
}

static void blocking_socket(void *arg) {
    (void)arg;
    int fd[2];
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    moves(fd[0], fd[1], true);
}
Test(kinds, blocking_socket) {
    RUN(blocking_socket);
}

/* A terminal knows no RWF_NOWAIT. */
static void read_line(void *arg) {
    char buf[64];
    T_EQ(go_read(net_int(arg), buf, sizeof buf), 6);
    T_ASSERT(memcmp(buf, "hello\n", 6) == 0);
}

static int host, user;
static void terminal(void *arg) {
    (void)arg;
    char buf[4096];
    struct termios raw;
    T_EQ(go_waitgroup_spawn(&wg, read_line, net_ptr(user)), 0);
    net_wait_parked(1);
    T_EQ(go_write(host, "hello\n", 6), 6);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(tcgetattr(user, &raw), 0);
    cfmakeraw(&raw);
    T_EQ(tcsetattr(user, TCSANOW, &raw), 0);
    T_EQ(go_waitgroup_spawn(&wg, write_bulk, net_ptr(user)), 0); /* more than it takes */
    for (size_t got = 0; got < BULK;) {
        ssize_t n = go_read(host, buf, sizeof buf);
        T_ASSERT(n > 0, "%zd", n);
        got += (size_t)n;
    }
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_close(host), 0);
}
Test(kinds, terminal) {
    if (openpty(&host, &user, NULL, NULL, NULL) != 0)
        T_SKIP("no terminal is to be had: %s", strerror(errno));
    RUN(terminal);
}

static void files(void *arg) {
    (void)arg;
    char path[] = "/tmp/gort-test-XXXXXX", buf[8192];
    int fd = mkstemp(path);
    T_ASSERT(fd >= 0);
    T_EQ(unlink(path), 0);
    memset(buf, 7, sizeof buf);
    T_EQ(go_write_all(fd, buf, sizeof buf), sizeof buf);
    T_EQ(lseek(fd, 100, SEEK_SET), 100);
    T_EQ(go_read(fd, buf, sizeof buf), sizeof buf - 100); /* at the file position */
    T_EQ(go_read(fd, buf, sizeof buf), 0);
    T_EQ(go_poll(fd, POLLIN), POLLIN);
    T_EQ(go_close(fd), 0);
    fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    T_ASSERT(go_read(fd, buf, sizeof buf) > 10);
    T_EQ(go_close(fd), 0);
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    T_EQ(go_read(fd, buf, 10), 0);
    T_EQ(go_write(fd, buf, 10), 10);
    T_EQ(go_close(fd), 0);
    fd = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    T_EQ(go_read(fd, buf, 10), -EISDIR);
    T_EQ(go_close(fd), 0);
}
Test(kinds, files_and_devices) {
    RUN(files);
}

static void read_count(void *arg) {
    uint64_t n = 0;
    T_EQ(go_read(net_int(arg), &n, sizeof n), sizeof n);
    T_EQ(n, 3);
}

static void event(void *arg) {
    (void)arg;
    int fd = eventfd(0, EFD_CLOEXEC);
    uint64_t three = 3;
    T_EQ(go_waitgroup_spawn(&wg, read_count, net_ptr(fd)), 0);
    net_wait_parked(1);
    T_EQ(go_write(fd, &three, sizeof three), sizeof three);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_close(fd), 0);
}
Test(kinds, eventfd) {
    RUN(event);
}

/* ---- several on one descriptor --------------------------------------------------------------- */

static long sum;

static void take(void *arg) {
    char c;
    T_EQ(go_read(net_int(arg), &c, 1), 1);
    __atomic_fetch_add(&sum, c, __ATOMIC_RELAXED);
}

static void readers_on(int in, int out) {
    enum { N = 20 };
    sum = 0;
    for (int i = 0; i < N; i++)
        T_EQ(go_waitgroup_spawn(&wg, take, net_ptr(in)), 0);
    net_wait_parked(N);
    for (int i = 0; i < N; i += 2) {
        T_EQ(go_write(out, "\1\1", 2), 2);
        if (i % 4)
            go_sleep(GO_MILLISECOND);
    }
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(sum, N);
    T_EQ(go_close(in), 0);
    T_EQ(go_close(out), 0);
}

static void many_readers(void *arg) {
    (void)arg;
    int fd[2];
    net_pair(fd);
    readers_on(fd[0], fd[1]);
    T_EQ(pipe(fd), 0);
    readers_on(fd[0], fd[1]);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    readers_on(fd[0], fd[1]);
}
Test(kinds, each_of_many_readers_gets_its_byte) {
    RUN(many_readers);
}

static void echo_back(void *arg) {
    char c;
    T_EQ(go_read(net_int(arg), &c, 1), 1);
    T_EQ(go_write(net_int(arg), &c, 1), 1);
}

/* One waits to read, another to write, a third for either, on the same blocking socket. */
static void fill(void *arg) {
    char *junk = calloc(1, BULK);
    T_ASSERT(junk);
    T_EQ(go_write_all(net_int(arg), junk, BULK), BULK);
    free(junk);
}

static void poll_either(void *arg) {
    int ready = go_poll(net_int(arg), POLLIN | POLLOUT);
    T_ASSERT(ready & (POLLIN | POLLOUT), "%d", ready);
}

static void both_directions(void *arg) {
    (void)arg;
    int fd[2];
    static char junk[BULK];
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    T_EQ(go_waitgroup_spawn(&wg, fill, net_ptr(fd[0])), 0);
    net_wait_parked(1);
    T_EQ(go_waitgroup_spawn(&wg, take, net_ptr(fd[0])), 0);
    T_EQ(go_waitgroup_spawn(&wg, poll_either, net_ptr(fd[0])), 0);
    net_wait_parked(3);
    sum = 0;
    T_EQ(go_write(fd[1], "\1", 1), 1); /* the poller may look too late to see it */
    while (__atomic_load_n(&sum, __ATOMIC_RELAXED) == 0)
        go_sleep(GO_MILLISECOND);
    T_EQ(go_recv(fd[1], junk, BULK, MSG_WAITALL), BULK);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_waitgroup_spawn(&wg, echo_back, net_ptr(fd[0])), 0);
    T_EQ(go_write(fd[1], "y", 1), 1);
    T_EQ(go_poll(fd[1], POLLIN), POLLIN);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}
Test(kinds, reader_writer_and_poller_do_not_disturb_each_other) {
    RUN(both_directions);
}
