/* Bytes that go around, over every kind of stream. */
#include "net.h"

#include <sys/resource.h>

static go_waitgroup wg;
static char address[64];
static const char *network;

static void echo(void *arg) {
    int fd = net_int(arg);
    char buf[512];
    ssize_t n;
    while ((n = go_read(fd, buf, sizeof buf)) > 0)
        T_EQ(go_write_all(fd, buf, (size_t)n), n);
    T_ASSERT(n == 0 || n == -ECANCELED, "%zd", n); /* main may be quicker to end */
    T_EQ(go_close(fd), 0);
}

static int serving;

static void serve(void *arg) {
    int listener = net_int(arg), fd;
    while ((fd = go_accept(listener, NULL, NULL)) >= 0)
        SPAWN(echo, net_ptr(fd));
    T_ASSERT(fd == -EBADF || fd == -ENOTSOCK, "%d", fd); /* a ring may have the number by now */
    __atomic_store_n(&serving, 0, __ATOMIC_RELEASE);
}

enum { ROUNDS = 20, MESSAGE = 300 };

static void client(void *arg) {
    int fd = go_dial(network, address);
    T_ASSERT(fd >= 0, "%d", fd);
    char out[MESSAGE], in[MESSAGE];
    memset(out, net_int(arg), sizeof out);
    for (int i = 0; i < ROUNDS; i++) {
        T_EQ(go_write_all(fd, out, sizeof out), sizeof out);
        for (size_t got = 0; got < sizeof in;) {
            ssize_t n = go_read(fd, in + got, sizeof in - got);
            T_ASSERT(n > 0, "%zd", n);
            got += (size_t)n;
        }
        T_ASSERT(memcmp(in, out, sizeof in) == 0);
    }
    T_EQ(go_close(fd), 0);
}

static void echo_over(int listener, int clients) {
    serving = 1;
    SPAWN(serve, net_ptr(listener));
    for (int i = 0; i < clients; i++)
        T_EQ(go_waitgroup_spawn(&wg, client, net_ptr(i)), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_close(listener), 0);
    while (__atomic_load_n(&serving, __ATOMIC_ACQUIRE))
        go_sleep(GO_MILLISECOND);
}

static void over_tcp(void *arg) {
    (void)arg;
    network = "tcp";
    echo_over(net_listen(address), 100);
}
Test(echo, tcp) {
    RUN(over_tcp);
}

static void over_unix(void *arg) {
    (void)arg;
    network = "unix";
    snprintf(address, sizeof address, "/tmp/gort-test-%d.sock", (int)getpid());
    unlink(address);
    int listener = go_listen(network, address);
    T_ASSERT(listener >= 0, "%d", listener);
    T_EQ(go_listen(network, address), -EADDRINUSE);
    echo_over(listener, 50);
    T_EQ(unlink(address), 0);
}
Test(echo, unix_path) {
    RUN(over_unix);
}

static void over_abstract(void *arg) {
    (void)arg;
    network = "unix";
    snprintf(address, sizeof address, "@gort-test-%d", (int)getpid());
    int listener = go_listen(network, address);
    T_ASSERT(listener >= 0, "%d", listener);
    echo_over(listener, 20);
}
Test(echo, unix_abstract) {
    RUN(over_abstract);
}

static void over_tcp6(void *arg) {
    (void)arg;
    network = "tcp6";
    int listener = go_listen("tcp6", "[::1]:0");
    T_ASSERT(listener >= 0, "%d", listener);
    snprintf(address, sizeof address, "[::1]:%d", net_port(listener));
    echo_over(listener, 20);
}
Test(echo, tcp6) {
    if (!net_has_ipv6())
        T_SKIP("no IPv6 here");
    RUN(over_tcp6);
}

/* ":0" takes both families where there are two; an empty host dials the local one. */
static void over_any(void *arg) {
    (void)arg;
    network = "tcp";
    int listener = go_listen("tcp", ":0");
    T_ASSERT(listener >= 0, "%d", listener);
    snprintf(address, sizeof address, ":%d", net_port(listener));
    echo_over(listener, 20);
}
Test(echo, tcp_any_host) {
    RUN(over_any);
}

static void over_udp(void *arg) {
    (void)arg;
    char buf[64];
    int a = go_listen("udp", "127.0.0.1:0");
    T_ASSERT(a >= 0, "%d", a);
    snprintf(address, sizeof address, "127.0.0.1:%d", net_port(a));
    T_EQ(go_listen("udp", address), -EADDRINUSE);
    int b = go_dial("udp", address);
    T_ASSERT(b >= 0, "%d", b);
    /* Two short datagrams at once: the first, shorter than the buffer, does not hide the second. */
    T_EQ(go_send(b, "one", 3, 0), 3);
    T_EQ(go_send(b, "three", 5, 0), 5);
    T_EQ(go_recv(a, buf, sizeof buf, 0), 3);
    T_EQ(go_recv(a, buf, sizeof buf, 0), 5);
    T_EQ(go_close(a), 0);
    T_EQ(go_close(b), 0);
}
Test(echo, udp) {
    RUN(over_udp);
}

/* ---- much at once ---------------------------------------------------------------------------- */

enum { BULK = 8 << 20 };
static char *bulk_out, *bulk_in;

static void send_bulk(void *arg) {
    T_EQ(go_write_all(net_int(arg), bulk_out, BULK), BULK);
    T_EQ(go_shutdown(net_int(arg), SHUT_WR), 0);
}

static void recv_bulk(void *arg) {
    size_t got = 0;
    for (ssize_t n; (n = go_read(net_int(arg), bulk_in + got, BULK + 1 - got)) != 0;) {
        T_ASSERT(n > 0, "%zd", n);
        got += (size_t)n;
    }
    T_EQ(got, BULK);
}

static void move_bulk(int from, int to) {
    memset(bulk_in, 0, BULK + 1);
    T_EQ(go_waitgroup_spawn(&wg, send_bulk, net_ptr(from)), 0);
    T_EQ(go_waitgroup_spawn(&wg, recv_bulk, net_ptr(to)), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_ASSERT(memcmp(bulk_in, bulk_out, BULK) == 0);
}

static void bulk(void *arg) {
    (void)arg;
    int fd[2];
    bulk_out = malloc(BULK);
    bulk_in = malloc(BULK + 1);
    T_ASSERT(bulk_out && bulk_in);
    for (size_t i = 0; i < BULK; i++)
        bulk_out[i] = (char)(i * 2654435761u >> 13);
    net_pair(fd);
    move_bulk(fd[0], fd[1]); /* half closed: the other direction goes on */
    move_bulk(fd[1], fd[0]);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
    free(bulk_out);
    free(bulk_in);
}
Test(echo, more_than_fits_and_half_close) {
    RUN(bulk);
}

static void vectors(void *arg) {
    (void)arg;
    int fd[2];
    char a[3], b[4], c[10];
    net_pair(fd);
    struct iovec out[3] = {{"ab", 2}, {NULL, 0}, {"cdefg", 5}};
    struct iovec in[3] = {{a, sizeof a}, {b, sizeof b}, {c, sizeof c}};
    T_EQ(go_writev(fd[0], out, 3), 7);
    T_EQ(go_readv(fd[1], in, 3), 7);
    T_ASSERT(memcmp(a, "abc", 3) == 0 && memcmp(b, "defg", 4) == 0);
    T_EQ(go_readv(fd[1], in, -1), -EINVAL);
    T_EQ(go_writev(fd[0], out, 1 << 20), -EINVAL);
    T_EQ(go_readv(fd[1], in, 0), 0);
    T_EQ(go_read(fd[1], a, 0), 0); /* waits for nothing */
    T_EQ(go_write_all(fd[1], a, 0), 0);
    T_EQ(go_recv(fd[1], a, 1, MSG_DONTWAIT), -EAGAIN);
    T_EQ(go_write(fd[0], "xyz", 3), 3);
    T_EQ(go_recv(fd[1], a, sizeof a, MSG_PEEK), 3);
    T_EQ(go_recv(fd[1], a, 2, 0), 2);
    T_EQ(go_read(fd[1], a, sizeof a), 1);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_read(fd[1], a, sizeof a), 0);
    T_EQ(go_read(fd[1], a, sizeof a), 0);
    T_EQ(go_close(fd[1]), 0);
}
Test(echo, vectors_flags_and_the_end) {
    RUN(vectors);
}

static void late_halves(void *arg) {
    for (int i = 0; i < 4; i++) {
        go_sleep(2 * GO_MILLISECOND);
        T_EQ(go_write(net_int(arg), "12345", 5), 5);
    }
}

static void wait_all(void *arg) {
    (void)arg;
    int fd[2];
    char buf[20];
    net_pair(fd);
    SPAWN(late_halves, net_ptr(fd[0]));
    T_EQ(go_recv(fd[1], buf, sizeof buf, MSG_WAITALL), 20);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}
Test(echo, recv_waitall) {
    RUN(wait_all);
}

/* The peer's end: -EPIPE. Workers block SIGPIPE; net.foreign shows that there is none. */
static void closed_peer(void *arg) {
    (void)arg;
    int fd[2];
    net_pair(fd);
    T_EQ(go_close(fd[1]), 0);
    ssize_t n;
    while ((n = go_write(fd[0], "x", 1)) == 1)
        go_sleep(GO_MILLISECOND);
    T_ASSERT(n == -EPIPE || n == -ECONNRESET, "%zd", n);
    T_EQ(go_close(fd[0]), 0);
}
Test(echo, write_to_a_closed_peer_is_epipe) {
    RUN(closed_peer);
}

/* ---- a thousand connections at once ---------------------------------------------------------- */

enum { MANY = 1000 };
static int many[MANY][2];

static void reader(void *arg) {
    int *fd = arg, value = -1;
    T_EQ(go_read(fd[0], &value, sizeof value), sizeof value);
    T_EQ(value, fd[1]);
    T_EQ(go_write(fd[0], &value, sizeof value), sizeof value);
}

static void thousand(void *arg) {
    (void)arg;
    char at[32];
    int listener = net_listen(at); /* one: the kernel searches for free ports one by one */
    for (int i = 0; i < MANY; i++) {
        net_pair_at(listener, at, many[i]);
        T_EQ(go_waitgroup_spawn(&wg, reader, many[i]), 0);
    }
    T_EQ(go_close(listener), 0);
    net_wait_parked(MANY);
    for (int i = 0; i < MANY; i++)
        T_EQ(go_write(many[i][1], &many[i][1], sizeof(int)), sizeof(int));
    for (int i = 0, value; i < MANY; i++) {
        T_EQ(go_read(many[i][1], &value, sizeof value), sizeof value);
        T_EQ(value, many[i][1]);
    }
    T_EQ(go_waitgroup_wait(&wg), 0);
    for (int i = 0; i < MANY; i++)
        T_ASSERT(go_close(many[i][0]) == 0 && go_close(many[i][1]) == 0);
}
Test(echo, thousand_connections) {
    NET_ONE_HEAP();
    struct rlimit limit = {4096, 4096};
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        T_SKIP("cannot have 4096 descriptors");
    RUN(thousand);
    struct t_usage before = t_usage();
    RUN(thousand);
    T_SAME_USAGE(before);
}
