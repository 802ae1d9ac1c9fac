/* go_listen_with: what each option changes, and what is never unlinked. */
#include "net.h"

#include <netinet/tcp.h>
#include <sys/stat.h>

static char address[64];

static int with(const char *network, const char *at, struct go_listen_options o) {
    return go_listen_with(network, at, &o);
}
#define WITH(network, at, ...) \
    with((network), (at), (struct go_listen_options){.size = sizeof(struct go_listen_options), \
                                                     __VA_ARGS__})

static void bad(void *arg) {
    (void)arg;
    struct go_listen_options o = GO_LISTEN_OPTIONS_INIT;
    T_EQ(WITH("tcp", "127.0.0.1:0", .backlog = -1), -EINVAL);
    T_EQ(WITH("tcp", "127.0.0.1:0", .v6only = 1), -EINVAL);
    T_EQ(WITH("tcp4", ":0", .v6only = 1), -EINVAL);
    T_EQ(WITH("unix", "@x", .v6only = 1), -EINVAL);
    T_EQ(WITH("tcp", "nonsense", .reuse_port = 1), -EINVAL);
    o.size = 4;
    T_EQ(go_listen_with("tcp", "127.0.0.1:0", &o), -EINVAL);
    int fd = go_listen_with("tcp", "127.0.0.1:0", NULL);
    T_ASSERT(fd >= 0, "%d", fd);
    T_EQ(go_close(fd), 0);
}
Test(listen, bad_options_are_einval) {
    T_EQ(go_listen_with("tcp", "127.0.0.1:0", NULL), -ENXIO);
    RUN(bad);
}

static void backlog(void *arg) {
    (void)arg;
    struct tcp_info info;
    socklen_t len = sizeof info;
    int fd = WITH("tcp", "127.0.0.1:0", .backlog = 7);
    T_ASSERT(fd >= 0, "%d", fd);
    T_EQ(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
    T_EQ(info.tcpi_sacked, 7); /* of a listener: the backlog (tcp.c: tcp_get_info) */
    T_EQ(go_close(fd), 0);
}
Test(listen, backlog_is_the_kernels) {
    RUN(backlog);
}

static void reuse_port(void *arg) {
    (void)arg;
    static const char *const networks[] = {"tcp", "udp"};
    for (int i = 0; i < 2; i++) {
        int a = WITH(networks[i], "127.0.0.1:0", .reuse_port = 1);
        T_ASSERT(a >= 0, "%d", a);
        snprintf(address, sizeof address, "127.0.0.1:%d", net_port(a));
        T_EQ(go_listen(networks[i], address), -EADDRINUSE);
        int b = WITH(networks[i], address, .reuse_port = 1);
        T_ASSERT(b >= 0, "%d", b);
        T_EQ(go_close(a), 0);
        T_EQ(go_close(b), 0);
    }
}
Test(listen, reuse_port_shares_an_address) {
    RUN(reuse_port);
}

static void v6only(void *arg) {
    (void)arg;
    int fd = WITH("tcp", ":0", .v6only = 1);
    T_ASSERT(fd >= 0, "%d", fd);
    char host[16];
    snprintf(address, sizeof address, "%s:%d", net_host(host), net_port(fd));
    T_EQ(go_dial("tcp", address), -ECONNREFUSED);
    int four = go_listen("tcp", address); /* the port is free for IPv4 */
    T_ASSERT(four >= 0, "%d", four);
    T_EQ(go_close(four), 0);
    T_EQ(go_close(fd), 0);
}
Test(listen, v6only_takes_no_ipv4) {
    if (!net_has_ipv6())
        T_SKIP("no IPv6 here");
    RUN(v6only);
}

static bool exists(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0;
}

static void stale(void *arg) {
    const char *network = arg;
    char other[80];
    snprintf(address, sizeof address, "/tmp/gort-test-listen-%d.sock", (int)getpid());
    snprintf(other, sizeof other, "%s.link", address);
    unlink(address), unlink(other); /* of a test that was killed */
    int fd = WITH(network, address, .unlink_stale = 1);
    T_ASSERT(fd >= 0, "%d", fd);

    /* Alive. */
    T_EQ(WITH(network, address, .unlink_stale = 1), -EADDRINUSE);
    int client = go_dial(network, address);
    T_ASSERT(client >= 0, "%d", client);
    T_EQ(go_close(client), 0);
    if (strcmp(network, "unix") != 0)
        T_EQ(WITH("unix", address, .unlink_stale = 1), -EADDRINUSE);

    /* Stale. */
    T_EQ(go_close(fd), 0);
    T_ASSERT(exists(address));
    T_EQ(go_listen(network, address), -EADDRINUSE);
    fd = WITH(network, address, .unlink_stale = 1);
    T_ASSERT(fd >= 0, "%d", fd);
    client = go_dial(network, address);
    T_ASSERT(client >= 0, "%d", client);
    T_EQ(go_close(client), 0);
    T_EQ(go_close(fd), 0);

    /* A link to a stale one, and a file that is no socket. */
    T_EQ(symlink(address, other), 0);
    T_EQ(WITH(network, other, .unlink_stale = 1), -EADDRINUSE);
    T_ASSERT(exists(address) && exists(other));
    T_EQ(unlink(address), 0);
    T_EQ(unlink(other), 0);
    FILE *f = fopen(other, "we");
    T_ASSERT(f && fclose(f) == 0);
    T_EQ(WITH(network, other, .unlink_stale = 1), -EADDRINUSE);
    T_ASSERT(exists(other));
    T_EQ(unlink(other), 0);
}
static void stale_all(void *arg) {
    (void)arg;
    stale("unix");
    stale("unixgram");
    stale("unixpacket");
    snprintf(address, sizeof address, "@gort-test-abstract-%d", (int)getpid());
    int fd = go_listen("unix", address);
    T_ASSERT(fd >= 0, "%d", fd);
    T_EQ(WITH("unix", address, .unlink_stale = 1), -EADDRINUSE);
    T_EQ(go_close(fd), 0);
}
Test(listen, only_a_stale_socket_is_unlinked) {
    RUN(stale_all);
}
