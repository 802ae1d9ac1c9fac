/* Bytes that go around, over every kind of stream. */
#include "net.h"

static go_waitgroup wg;
static char address[64];
static const char *network;

static void echo(void *arg) {
    int fd = net_int(arg);
    char buf[512];
    ssize_t n;
    while ((n = go_read(fd, buf, sizeof buf)) > 0)
        T_EQ(go_write_all(fd, buf, (size_t)n), n);
    T_EQ(n, 0);
    T_EQ(go_close(fd), 0);
}

static int serving;

static void serve(void *arg) {
    int listener = net_int(arg), fd;
    while ((fd = go_accept(listener, NULL, NULL)) >= 0)
        SPAWN(echo, net_ptr(fd));
    T_EQ(fd, -EBADF);
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
    go_waitgroup_done(&wg);
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
