/* What the calls leave as it was: errno, and the time-outs of a socket that gort did not make. */
#include "net.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <sys/time.h>
#include <sys/un.h>

static go_waitgroup wg;

/* ---- where a connect waits for ever, and where nobody is ------------------------------------- */

struct place {
    union {
        struct sockaddr sa;
        struct sockaddr_un un;
        struct sockaddr_in in;
    } at;
    socklen_t len;
};

/* A name of AF_UNIX that nobody has had. */
static struct place new_name(void) {
    static int names;
    char name[64];
    struct place p = {.at.un = {.sun_family = AF_UNIX}};
    int n = snprintf(name, sizeof name, "gort-untouched-%d-%d", (int)getpid(), names++);
    memcpy(p.at.un.sun_path + 1, name, (size_t)n);
    p.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    return p;
}

static struct place port_at(int port) {
    char host[16];
    return (struct place){.at.in = {.sin_family = AF_INET,
                                    .sin_port = htons((uint16_t)port),
                                    .sin_addr.s_addr = inet_addr(net_host(host))},
                          .len = sizeof(struct sockaddr_in)};
}

static int blocking_socket(const struct place *p) {
    int fd = socket(p->at.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    T_ASSERT(fd >= 0, "%d", fd);
    return fd;
}

static int bound_socket(struct place *p) {
    int fd = blocking_socket(p);
    T_EQ(bind(fd, &p->at.sa, p->len), 0);
    T_EQ(getsockname(fd, &p->at.sa, &p->len), 0);
    return fd;
}

static int blocking_listener(struct place *p, int backlog) {
    int fd = bound_socket(p);
    T_EQ(listen(fd, backlog), 0);
    return fd;
}

/* One waits in the queue of it, and there is no room for two. */
static int full_listener(struct place *p, int *hoarded) {
    int fd = blocking_listener(p, 0);
    *hoarded = blocking_socket(p);
    T_EQ(connect(*hoarded, &p->at.sa, p->len), 0);
    return fd;
}

/* ---- what parks, and what is late in its park ------------------------------------------------ */

static int64_t patience = 2 * GO_MILLISECOND;

/* `call` ends by a deadline, in its park: when that was over before, a later one is tried. */
#define LATE(call) \
    do { \
        uint64_t seq_ = rt_park_seq(rt_self()); \
        go_scope s_; \
        go_scope_enter(&s_, go_now() + patience); \
        T_EQ(call, -ETIMEDOUT); \
        T_EQ(go_scope_leave(&s_), -ETIMEDOUT); \
        if (rt_park_seq(rt_self()) != seq_) \
            break; \
        patience *= 2; \
    } while (true)

#define PARKS(call, result) \
    do { \
        uint64_t seq_ = rt_park_seq(rt_self()); \
        T_EQ(call, result); \
        T_ASSERT(rt_park_seq(rt_self()) != seq_, "%s has not parked", #call); \
    } while (0)

static void writes_then(void *arg) {
    net_wait_parked(1);
    T_EQ(go_write(net_int(arg), "x", 1), 1);
}

enum { BULK = 1 << 20 };

/* Or TCP takes all of that at once. */
static void little_room(const int fd[2]) {
    for (int i = 0; i < 2; i++) {
        T_EQ(setsockopt(fd[i], SOL_SOCKET, SO_SNDBUF, &(int){65536}, sizeof(int)), 0);
        T_EQ(setsockopt(fd[i], SOL_SOCKET, SO_RCVBUF, &(int){65536}, sizeof(int)), 0);
    }
}

static void drains_then(void *arg) {
    static char buf[1 << 14];
    net_wait_parked(1);
    for (long got = 0; got < BULK;) {
        ssize_t n = go_read(net_int(arg), buf, sizeof buf);
        T_ASSERT(n > 0, "%zd", n);
        got += n;
    }
}

static void connects_then(void *arg) {
    struct place *p = arg;
    net_wait_parked(1);
    int fd = blocking_socket(p);
    T_EQ(go_connect(fd, &p->at.sa, p->len), 0);
    T_EQ(go_close(fd), 0);
}

static void cancels_then(void *arg) {
    net_wait_parked(1);
    go_scope_cancel(arg);
}

#define WITH(fn, arg) T_EQ(go_waitgroup_spawn(&wg, (fn), (arg)), 0)
#define WITHOUT()     T_EQ(go_waitgroup_wait(&wg), 0)

/* ---- errno ----------------------------------------------------------------------------------- */

enum { MARK = 7777 };
static bool wanders; /* goes on on any worker, and nobody may have marked the errno of that one */

/* Not inlined: the compiler takes the address of errno for one that never changes. */
static __attribute__((noinline)) void mark(void) {
    __asm__ volatile("");
    errno = MARK;
}
static __attribute__((noinline)) int what_is_left(void) {
    __asm__ volatile("");
    return errno;
}

#define KEEPS(call) \
    ({ \
        mark(); \
        long r_ = (long)(call); \
        int left_ = what_is_left(); \
        T_ASSERT(left_ == MARK || (wanders && left_ == 0), "%s is %ld, errno %d", #call, r_, \
                 left_); \
        r_; \
    })

static void bytes_keep_errno(int in, int out) {
    static char junk[BULK];
    char c = 0;
    go_scope s;
    struct iovec iov = {&c, 1};
    T_EQ(KEEPS(go_write(out, "x", 1)), 1);
    T_EQ(KEEPS(go_read(in, &c, 1)), 1); /* it is there */
    LATE(KEEPS(go_read(in, &c, 1)));
    LATE(KEEPS(go_readv(in, &iov, 1)));
    LATE(KEEPS(go_poll(in, POLLIN)));
    WITH(writes_then, net_ptr(out));
    PARKS(KEEPS(go_read(in, &c, 1)), 1);
    WITHOUT();
    WITH(drains_then, net_ptr(in));
    PARKS(KEEPS(go_write_all(out, junk, BULK)), BULK);
    WITHOUT();
    go_scope_enter(&s, GO_FOREVER);
    WITH(cancels_then, &s);
    PARKS(KEEPS(go_read(in, &c, 1)), -ECANCELED);
    T_EQ(KEEPS(go_write(out, &c, 1)), -ECANCELED); /* on entry */
    T_EQ(go_scope_leave(&s), -ECANCELED);
    WITHOUT();
    T_ASSERT(KEEPS(go_accept(in, NULL, NULL)) < 0); /* nothing listens there */
    T_EQ(KEEPS(go_close(out)), 0);
    T_EQ(KEEPS(go_read(in, &c, 1)), 0);
    T_EQ(KEEPS(go_close(in)), 0);
}

static void transfers_keep_errno(void) {
    int fd[2];
    char c;
    net_pair(fd);
    little_room(fd);
    bytes_keep_errno(fd[0], fd[1]);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    bytes_keep_errno(fd[0], fd[1]);
    T_EQ(pipe(fd), 0);
    bytes_keep_errno(fd[0], fd[1]);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    T_EQ(KEEPS(go_close(fd[1])), 0);
    T_EQ(KEEPS(go_write(fd[0], "x", 1)), -EPIPE);
    T_EQ(KEEPS(go_close(fd[0])), 0);
    T_EQ(KEEPS(go_read(-1, &c, 1)), -EBADF);
    T_EQ(KEEPS(go_write(-1, &c, 1)), -EBADF);
    T_EQ(KEEPS(go_close(-1)), -EBADF);
    T_EQ(KEEPS(go_open("/tmp/gort/is/not/there", O_RDONLY, 0)), -ENOENT);
}

static void connecting_keeps_errno(void) {
    char address[32];
    int listener = net_listen(address), port = net_port(listener), hoarded;
    struct place here = port_at(port), full = new_name();
    for (int type = 0; type <= SOCK_NONBLOCK; type += SOCK_NONBLOCK) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | type, 0);
        LATE(KEEPS(go_accept(listener, NULL, NULL)));
        T_EQ(KEEPS(go_connect(fd, &here.at.sa, here.len)), 0);
        int other = (int)KEEPS(go_accept(listener, NULL, NULL));
        T_ASSERT(other >= 0, "%d", other);
        int again = (int)KEEPS(go_connect(fd, &here.at.sa, here.len));
        T_ASSERT(again == -EISCONN || again == 0, "%d", again); /* TCP may say once that it is */
        T_EQ(KEEPS(go_close(other)), 0);
        T_EQ(KEEPS(go_close(fd)), 0);
    }
    WITH(connects_then, &here);
    uint64_t seq = rt_park_seq(rt_self());
    int fd = (int)KEEPS(go_accept(listener, NULL, NULL));
    T_ASSERT(fd >= 0 && rt_park_seq(rt_self()) != seq, "%d", fd);
    T_EQ(KEEPS(go_close(fd)), 0);
    WITHOUT();
    T_EQ(KEEPS(go_close(listener)), 0);
    T_EQ(KEEPS(go_dial("tcp", address)), -ECONNREFUSED);

    listener = full_listener(&full, &hoarded);
    for (int type = 0; type <= SOCK_NONBLOCK; type += SOCK_NONBLOCK) {
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | type, 0);
        LATE(KEEPS(go_connect(fd, &full.at.sa, full.len)));
        T_EQ(KEEPS(go_close(fd)), 0);
    }
    T_EQ(KEEPS(go_close(hoarded)), 0);
    T_EQ(KEEPS(go_close(listener)), 0);
}

static void errno_stays(void *arg) {
    int *done = arg;
    transfers_keep_errno();
    connecting_keeps_errno();
    __atomic_store_n(done, 1, __ATOMIC_RELEASE);
}

/* Nobody's P is taken, so with one P there is one thread, and its errno is the one that was. */
Test(untouched, errno_is_not_written_by_any_call_of_a_green_thread) {
    struct go_options o = GO_OPTIONS_INIT;
    static int done;
    o.procs = (unsigned)t_procs();
    o.flags = GO_STRICT;
    wanders = t_procs() > 1;
    T_EQ(go_start(&o), 0);
    SPAWN(errno_stays, &done);
    net_await(&done);
    T_EQ(go_stop(GO_FOREVER), 0);
}

Test(untouched, errno_is_not_written_by_any_call_of_a_foreign_thread) {
    int done = 0;
    T_EQ(go_start(NULL), 0);
    errno_stays(&done);
    T_EQ(go_stop(GO_FOREVER), 0);
}

/* ---- the time-outs of a blocking socket of somebody else ------------------------------------- */

struct timeouts {
    struct timeval send, receive;
};

static struct timeouts timeouts_of(int fd) {
    struct timeouts t;
    socklen_t len = sizeof t.send;
    T_EQ(getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t.send, &len), 0);
    T_EQ(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t.receive, &len), 0);
    return t;
}

static void set_timeouts(int fd, int seconds) {
    struct timeouts t = {.send.tv_sec = seconds, .receive.tv_sec = 2L * seconds};
    T_EQ(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t.send, sizeof t.send), 0);
    T_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t.receive, sizeof t.receive), 0);
}

static void same_timeouts(int fd, int seconds, const char *after) {
    struct timeouts t = timeouts_of(fd);
    T_ASSERT(t.send.tv_sec == seconds && t.send.tv_usec == 0, "%s: SO_SNDTIMEO is %ld.%06ld",
             after, (long)t.send.tv_sec, (long)t.send.tv_usec);
    T_ASSERT(t.receive.tv_sec == 2L * seconds && t.receive.tv_usec == 0,
             "%s: SO_RCVTIMEO is %ld.%06ld", after, (long)t.receive.tv_sec,
             (long)t.receive.tv_usec);
}

static void bytes_keep_timeouts(int fd, int peer, int seconds) {
    static char junk[BULK];
    char c;
    LATE(go_read(fd, &c, 1));
    same_timeouts(fd, seconds, "a late read");
    WITH(writes_then, net_ptr(peer));
    PARKS(go_read(fd, &c, 1), 1);
    WITHOUT();
    same_timeouts(fd, seconds, "a read");
    WITH(drains_then, net_ptr(peer));
    PARKS(go_write_all(fd, junk, BULK), BULK);
    WITHOUT();
    same_timeouts(fd, seconds, "a write");
    T_EQ(go_send(fd, "x", 1, 0), 1);
    LATE(go_recv(fd, &c, 1, 0));
    LATE(go_poll(fd, POLLIN));
    same_timeouts(fd, seconds, "go_send, go_recv, go_poll");
}

static void timeouts_stay(struct place *p, int seconds) {
    int listener = blocking_listener(p, 8), fd = blocking_socket(p);
    set_timeouts(listener, seconds);
    set_timeouts(fd, seconds);
    LATE(go_accept(listener, NULL, NULL));
    same_timeouts(listener, seconds, "a late accept");
    T_EQ(go_connect(fd, &p->at.sa, p->len), 0);
    same_timeouts(fd, seconds, "a connect");
    int peer = go_accept(listener, NULL, NULL);
    T_ASSERT(peer >= 0, "%d", peer);
    same_timeouts(listener, seconds, "an accept");
    int again = go_connect(fd, &p->at.sa, p->len);
    T_ASSERT(again == -EISCONN || again == 0, "%d", again);
    same_timeouts(fd, seconds, "a second connect");
    little_room((int[]){fd, peer});
    bytes_keep_timeouts(fd, peer, seconds);
    T_EQ(go_close(peer), 0);
    T_EQ(go_close(fd), 0);
    T_EQ(go_close(listener), 0);
}

static void refused_connect_keeps_timeouts(struct place p, int seconds) {
    int deaf = bound_socket(&p), fd = blocking_socket(&p);
    set_timeouts(fd, seconds);
    T_EQ(go_connect(fd, &p.at.sa, p.len), -ECONNREFUSED);
    same_timeouts(fd, seconds, "a refused connect");
    T_EQ(go_close(fd), 0);
    T_EQ(go_close(deaf), 0);
}

static void late_connect_keeps_timeouts(int seconds) {
    struct place p = new_name();
    int hoarded, listener = full_listener(&p, &hoarded), fd = blocking_socket(&p);
    set_timeouts(fd, seconds);
    LATE(go_connect(fd, &p.at.sa, p.len));
    same_timeouts(fd, seconds, "a late connect");
    T_EQ(go_close(fd), 0);
    T_EQ(go_close(hoarded), 0);
    T_EQ(go_close(listener), 0);
}

static void all_timeouts_stay(void *arg) {
    (void)arg;
    for (int seconds = 0; seconds <= 7; seconds += 7) { /* 0: none, as most have it */
        struct place path = new_name(), port = port_at(0);
        timeouts_stay(&path, seconds);
        timeouts_stay(&port, seconds);
        refused_connect_keeps_timeouts(new_name(), seconds);
        refused_connect_keeps_timeouts(port_at(0), seconds);
        late_connect_keeps_timeouts(seconds);
    }
}
static void *all_timeouts_stay_thread(void *arg) {
    all_timeouts_stay(arg);
    return NULL;
}
Test(untouched, the_timeouts_of_a_blocking_socket_of_others_stay) {
    pthread_t t;
    RUN(all_timeouts_stay);
    T_EQ(go_start(NULL), 0);
    T_EQ(pthread_create(&t, NULL, all_timeouts_stay_thread, NULL), 0);
    T_EQ(pthread_join(t, NULL), 0);
    T_EQ(go_stop(GO_FOREVER), 0);
}
