/* Listening, accepting, connecting: texts, errors, and running out of descriptors. */
#include "net.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <sys/wait.h>

static go_waitgroup wg;
static char address[64];

static void texts(void *arg) {
    (void)arg;
    static const char *const bad[][2] = {
        {"tcp", ""}, {"tcp", ":"}, {"tcp", "127.0.0.1"}, {"tcp", "127.0.0.1:"},
        {"tcp", "127.0.0.1:x"},
        {"tcp", "127.0.0.1:65536"}, {"tcp", "127.0.0.1:-1"}, {"tcp", "127.0.0.1:80 "},
        {"tcp", "127.0.0.256:80"}, {"tcp", "1.2.3:80"}, {"tcp", "::1:80"}, {"tcp", "[::1]80"},
        {"tcp", "[::1:80"}, {"tcp", "[]:80"}, {"tcp", "[127.0.0.1]:80"}, {"tcp4", "[::1]:80"},
        {"tcp6", "127.0.0.1:80"}, {"tcp", "[::1%nosuchif0]:80"}, {"tcp", "no such host:80"},
        {"sctp", "127.0.0.1:80"}, {"", "127.0.0.1:80"}, {"TCP", "127.0.0.1:80"}, {"unix", ""},
        {"unix", "@"}, {NULL, "127.0.0.1:80"}, {"tcp", NULL},
        {"tcp", "127.0.0.1:99999999999999999999999"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        T_EQ(go_listen(bad[i][0], bad[i][1]), -EINVAL);
        T_EQ(go_dial(bad[i][0], bad[i][1]), -EINVAL);
    }
    char lengthy[200];
    memset(lengthy, 'a', sizeof lengthy);
    lengthy[sizeof lengthy - 1] = 0;
    T_EQ(go_listen("tcp", "example.org:80"), -EINVAL); /* to listen on, no name is looked up */
    T_EQ(go_listen("unix", lengthy), -EINVAL);
    T_EQ(go_listen("tcp", lengthy), -EINVAL);
    memcpy(lengthy + sizeof lengthy - 4, ":80", 4);
    T_EQ(go_listen("tcp", lengthy), -EINVAL);
}
Test(accept, bad_texts_are_einval) {
    RUN(texts);
}

static void errors(void *arg) {
    (void)arg;
    int listener = net_listen(address), plain[2];
    T_EQ(go_listen("tcp", address), -EADDRINUSE);
    T_EQ(go_listen("tcp", "192.0.2.1:0"), -EADDRNOTAVAIL);
    T_EQ(go_listen("unix", "/nonexistent/x.sock"), -ENOENT);
    T_EQ(go_dial("unix", "/nonexistent/x.sock"), -ENOENT);
    T_EQ(go_close(listener), 0);
    T_EQ(go_dial("tcp", address), -ECONNREFUSED);
    T_EQ(go_dial("unix", "@nobody-listens-here"), -ECONNREFUSED);
    T_EQ(pipe(plain), 0);
    T_EQ(go_accept(plain[0], NULL, NULL), -ENOTSOCK);
    T_EQ(go_recv(plain[0], address, 1, 0), -ENOTSOCK);
    T_EQ(go_shutdown(plain[0], SHUT_RD), -ENOTSOCK);
    T_EQ(go_close(plain[0]), 0);
    T_EQ(go_close(plain[1]), 0);
    int udp = go_listen("udp", "127.0.0.1:0");
    T_EQ(go_accept(udp, NULL, NULL), -EOPNOTSUPP);
    T_EQ(go_close(udp), 0);
}
Test(accept, errors) {
    RUN(errors);
}

/* In a network with two ports to call from, the one that is called is the first to be chosen. */
static void dial_every_port(void *arg) {
    (void)arg;
    for (int i = 0; i < 4; i++) {
        snprintf(address, sizeof address, "%s:%d", i < 2 ? "127.0.0.1" : "[::1]", 40000 + i % 2);
        int fd = go_dial("tcp", address);
        T_ASSERT(fd == -ECONNREFUSED || (i > 1 && fd == -EADDRNOTAVAIL), "%s: %d", address, fd);
    }
    int listener = go_listen("tcp", "127.0.0.1:40000"), fd = go_dial("tcp", "127.0.0.1:40000");
    T_ASSERT(listener >= 0 && fd >= 0, "%d, %d", listener, fd);
    T_EQ(go_close(fd), 0);
    T_EQ(go_close(listener), 0);
}

static bool make_network(void) {
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
        return false;
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int file = open("/proc/sys/net/ipv4/ip_local_port_range", O_WRONLY | O_CLOEXEC);
    bool made = ioctl(s, SIOCSIFFLAGS, &lo) == 0 && write(file, "40000 40001", 11) == 11;
    close(s);
    close(file);
    return made;
}

/* In a child, which has no other threads. */
Test(accept, a_dial_does_not_meet_itself) {
    enum { DENIED = 9 };
    int status;
    pid_t pid = fork();
    T_ASSERT(pid >= 0);
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        if (!make_network())
            _exit(DENIED);
        RUN(dial_every_port);
        _exit(0);
    }
    T_EQ(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == DENIED)
        T_SKIP("no network of our own is to be had");
    T_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
}

static int option(int fd, int level, int name) {
    int value = -1;
    socklen_t len = sizeof value;
    T_EQ(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

static void looks(int fd) {
    T_ASSERT(fcntl(fd, F_GETFL) & O_NONBLOCK);
    T_ASSERT(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    T_EQ(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
}

static int plain_listener(int type) {
    char host[16];
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(net_host(host))};
    int fd = socket(AF_INET, SOCK_STREAM | type, 0);
    T_EQ(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    T_EQ(listen(fd, 100), 0);
    snprintf(address, sizeof address, "%s:%d", host, net_port(fd));
    return fd;
}

static void made_here(void *arg) {
    (void)arg;
    struct sockaddr_in sa;
    socklen_t len = sizeof sa;
    int fd[2], listener = net_listen(address);
    fd[1] = go_dial("tcp", address);
    fd[0] = go_accept(listener, (struct sockaddr *)&sa, &len);
    looks(listener);
    looks(fd[0]);
    looks(fd[1]);
    T_EQ(len, sizeof sa);
    T_EQ(ntohs(sa.sin_port), net_port(fd[1]));
    T_EQ(option(listener, SOL_SOCKET, SO_REUSEADDR), 1);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
    T_EQ(go_close(listener), 0);
    /* One that is not ours, too. */
    listener = plain_listener(0);
    fd[1] = go_dial("tcp", address);
    fd[0] = go_accept(listener, NULL, NULL);
    looks(fd[0]);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
    T_EQ(go_close(listener), 0);
}
Test(accept, what_gort_makes_is_nonblocking_cloexec_nodelay) {
    RUN(made_here);
}

/* ---- a blocking listener, a blocking socket -------------------------------------------------- */

static void accept_one(void *arg) {
    int fd = go_accept(net_int(arg), NULL, NULL);
    T_ASSERT(fd >= 0, "%d", fd);
    T_EQ(go_close(fd), 0);
}

static int plain_connect(void) {
    char host[16];
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(net_host(host))};
    sa.sin_port = htons((uint16_t)atoi(strchr(address, ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM, 0), r = go_connect(fd, (struct sockaddr *)&sa, sizeof sa);
    T_ASSERT(!(fcntl(fd, F_GETFL) & O_NONBLOCK));
    T_EQ(go_close(fd), 0);
    return r;
}

static void not_ours(void *arg) {
    (void)arg;
    int listener = plain_listener(0);
    for (int i = 0; i < 5; i++)
        T_EQ(go_waitgroup_spawn(&wg, accept_one, net_ptr(listener)), 0);
    net_wait_parked(5);
    for (int i = 0; i < 5; i++)
        T_EQ(plain_connect(), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_ASSERT(!(fcntl(listener, F_GETFL) & O_NONBLOCK));
    if (net_close_is_over(listener))
        T_EQ(plain_connect(), -ECONNREFUSED);
}
Test(accept, blocking_sockets_of_others) {
    RUN(not_ours);
}

/* A unix listener whose queue is full says -EAGAIN, and nothing tells when there is room. */
static void dial_late(void *arg) {
    (void)arg;
    int fd = go_dial("unix", address);
    T_ASSERT(fd >= 0, "%d", fd);
    T_EQ(go_close(fd), 0);
}

static void full_queue(void *arg) {
    (void)arg;
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    snprintf(address, sizeof address, "/tmp/gort-full-%d.sock", (int)getpid());
    memcpy(sa.sun_path, address, sizeof address);
    unlink(address);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    T_EQ(bind(listener, (struct sockaddr *)&sa, sizeof sa), 0);
    T_EQ(listen(listener, 0), 0);
    for (int i = 0; i < 4; i++)
        T_EQ(go_waitgroup_spawn(&wg, dial_late, NULL), 0);
    go_sleep(20 * GO_MILLISECOND);
    for (int i = 0; i < 4; i++)
        accept_one(net_ptr(listener));
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_close(listener), 0);
    T_EQ(unlink(address), 0);
}
Test(accept, dial_waits_for_a_full_unix_queue) {
    RUN(full_queue);
}

/* ---- out of descriptors ---------------------------------------------------------------------- */

static int accepted;

/* No number is free from now on, whoever gives one back: what is open stays open. */
static struct rlimit no_more_descriptors(void) {
    struct rlimit old;
    T_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    T_EQ(setrlimit(RLIMIT_NOFILE, &(struct rlimit){1, old.rlim_max}), 0);
    T_EQ(dup(0), -1);
    T_EQ(errno, EMFILE);
    return old;
}

static void accept_loop(void *arg) {
    int fd;
    while ((fd = go_accept(net_int(arg), NULL, NULL)) >= 0) {
        __atomic_fetch_add(&accepted, 1, __ATOMIC_RELAXED);
        T_EQ(go_close(fd), 0);
    }
    T_ASSERT(fd == -EBADF || fd == -ENOTSOCK, "%d", fd); /* a ring may have the number by now */
}

static void read_one(void *arg) {
    char c;
    T_EQ(go_read(net_int(arg), &c, 1), 1);
    T_EQ(go_write(net_int(arg), &c, 1), 1);
}

static void greedy(void *arg) {
    (void)arg;
    int listener = net_listen(address), client = socket(AF_INET, SOCK_STREAM, 0), talk[2];
    char c = 0;
    accepted = 0;
    net_pair(talk);
    T_EQ(go_waitgroup_spawn(&wg, accept_loop, net_ptr(listener)), 0);
    net_wait_parked(1);
    struct rlimit old = no_more_descriptors();
    struct sockaddr_in sa;
    socklen_t len = sizeof sa;
    T_EQ(getsockname(listener, (struct sockaddr *)&sa, &len), 0);
    T_EQ(go_connect(client, (struct sockaddr *)&sa, sizeof sa), 0);
    net_wait_parked(0); /* it was told, */
    T_EQ(go_waitgroup_spawn(&wg, read_one, net_ptr(talk[0])), 0);
    go_sleep(5 * GO_MILLISECOND); /* the reader is parked; it goes on */
    T_EQ(go_write(talk[1], &c, 1), 1);
    T_EQ(go_read(talk[1], &c, 1), 1);
    T_EQ(__atomic_load_n(&accepted, __ATOMIC_RELAXED), 0); /* waits, and has not failed */
    T_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    while (__atomic_load_n(&accepted, __ATOMIC_RELAXED) == 0)
        go_sleep(GO_MILLISECOND);
    T_EQ(go_close(listener), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_close(client), 0);
    T_EQ(go_close(talk[0]), 0);
    T_EQ(go_close(talk[1]), 0);
}
Test(accept, waits_when_out_of_descriptors) {
    RUN(greedy);
}

static void backoff_is_cancellable(void *arg) {
    (void)arg;
    int listener = net_listen(address);
    struct rlimit old = no_more_descriptors();
    go_scope s;
    go_scope_enter(&s, go_now() + 10 * GO_MILLISECOND);
    T_EQ(go_accept(listener, NULL, NULL), -ETIMEDOUT);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    T_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    T_EQ(go_close(listener), 0);
}
Test(accept, backoff_ends_with_the_scope) {
    RUN(backoff_is_cancellable);
}

/* ---- many acceptors, many dialers ------------------------------------------------------------ */

static void dial_some(void *arg) {
    (void)arg;
    for (int i = 0; i < 20; i++) {
        int fd = go_dial("tcp", address);
        T_ASSERT(fd >= 0, "%d", fd);
        T_EQ(go_close(fd), 0);
    }
}

static void crowd(void *arg) {
    (void)arg;
    enum { N = 8 };
    go_waitgroup dialers = {0};
    int listener = net_listen(address);
    accepted = 0;
    for (int i = 0; i < N; i++)
        T_EQ(go_waitgroup_spawn(&wg, accept_loop, net_ptr(listener)), 0);
    for (int i = 0; i < N; i++)
        T_EQ(go_waitgroup_spawn(&dialers, dial_some, NULL), 0);
    T_EQ(go_waitgroup_wait(&dialers), 0);
    while (__atomic_load_n(&accepted, __ATOMIC_RELAXED) < N * 20)
        go_sleep(GO_MILLISECOND);
    T_EQ(go_close(listener), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
}
Test(accept, many_acceptors_on_one_listener) {
    RUN(crowd);
}

/* All are told of one connection, and one gets it. The others must not be in accept(2), where on a
 * blocking listener the close does not reach them. Threads, since they all begin at once. */
static void *accept_on_a_thread(void *arg) {
    accept_loop(arg);
    return NULL;
}

Test(accept, many_acceptors_on_one_blocking_listener) {
    enum { N = 8 };
    pthread_t t[N];
    T_EQ(go_start(NULL), 0);
    int listener = plain_listener(0);
    accepted = 0;
    for (int i = 0; i < N; i++)
        T_EQ(pthread_create(&t[i], NULL, accept_on_a_thread, net_ptr(listener)), 0);
    for (int i = 0; i < T_SCALE(100); i++) {
        T_EQ(plain_connect(), 0);
        while (__atomic_load_n(&accepted, __ATOMIC_RELAXED) <= i)
            sched_yield();
        net_wait_parked(N); /* all of them: the next connection would get one out of the kernel */
    }
    T_EQ(go_close(listener), 0);
    for (int i = 0; i < N; i++)
        T_EQ(pthread_join(t[i], NULL), 0);
    T_EQ(go_stop(GO_FOREVER), 0);
}
