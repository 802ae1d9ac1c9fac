/* Datagrams, records and messages: recvfrom, sendto, recvmsg, sendmsg, and how each call that parks
 * ends. */
#include "net.h"

#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/un.h>

static go_waitgroup wg;
static char address[64];

/* ---- datagrams and records ------------------------------------------------------------------- */

static int bound_udp(struct sockaddr_in *sa) {
    socklen_t len = sizeof *sa;
    int fd = go_listen("udp", "127.0.0.1:0");
    T_ASSERT(fd >= 0, "%d", fd);
    T_EQ(getsockname(fd, (struct sockaddr *)sa, &len), 0);
    return fd;
}

static void answers(void *arg) {
    int fd = net_int(arg);
    char buf[16];
    for (ssize_t n = 1; n > 0;) {
        struct sockaddr_in from;
        socklen_t len = sizeof from;
        n = go_recvfrom(fd, buf, sizeof buf, 0, (struct sockaddr *)&from, &len);
        T_ASSERT(n >= 0, "%zd", n);
        T_EQ(len, sizeof from);
        T_EQ(go_sendto(fd, buf, (size_t)n, 0, (struct sockaddr *)&from, len), n);
    }
}

static void udp(void *arg) {
    (void)arg;
    struct sockaddr_in a, b, from;
    int server = bound_udp(&a), client = bound_udp(&b);
    char buf[16];
    socklen_t len = sizeof from;
    T_EQ(go_waitgroup_spawn(&wg, answers, net_ptr(server)), 0);
    for (int i = 0; i < 100; i++) {
        T_EQ(go_sendto(client, "question", 8, 0, (struct sockaddr *)&a, sizeof a), 8);
        T_EQ(go_recvfrom(client, buf, sizeof buf, 0, (struct sockaddr *)&from, &len), 8);
        T_EQ(from.sin_port, a.sin_port);
    }
    len = 2; /* too little room for an address: how long it was is told */
    T_EQ(go_sendto(client, "", 0, 0, (struct sockaddr *)&a, sizeof a), 0);
    T_EQ(go_recvfrom(client, buf, sizeof buf, 0, (struct sockaddr *)&from, &len), 0);
    T_EQ(len, sizeof from);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_sendto(server, "long", 4, 0, (struct sockaddr *)&b, sizeof b), 4);
    T_EQ(go_recvfrom(client, buf, 1, MSG_TRUNC | MSG_PEEK, NULL, NULL), 4);
    T_EQ(go_recvfrom(client, buf, 1, MSG_TRUNC, (struct sockaddr *)&from, NULL), -EFAULT);
    T_EQ(go_recvfrom(client, buf, 1, 0, NULL, NULL), 1);
    T_EQ(go_recvfrom(client, buf, 1, MSG_DONTWAIT, NULL, NULL), -EAGAIN);
    T_EQ(go_sendto(client, "x", 1, 0, NULL, 0), -EDESTADDRREQ);
    T_EQ(go_close(server), 0);
    T_EQ(go_close(client), 0);
}
Test(msg, udp_answers_whoever_asked) {
    RUN(udp);
}

static void records(void *arg) {
    (void)arg;
    char buf[16];
    snprintf(address, sizeof address, "@gort-test-packet-%d", (int)getpid());
    int listener = go_listen("unixpacket", address);
    T_ASSERT(listener >= 0, "%d", listener);
    int a = go_dial("unixpacket", address), b = go_accept(listener, NULL, NULL);
    T_ASSERT(a >= 0 && b >= 0, "%d %d", a, b);
    T_ASSERT(fcntl(b, F_GETFL) & O_NONBLOCK);
    T_EQ(go_write(a, "one", 3), 3);
    T_EQ(go_write(a, "three", 5), 5);
    T_EQ(go_read(b, buf, sizeof buf), 3);
    T_EQ(go_read(b, buf, sizeof buf), 5);
    T_EQ(go_close(a), 0);
    T_EQ(go_read(b, buf, sizeof buf), 0);
    T_EQ(go_write(b, "x", 1), -EPIPE);
    T_EQ(go_close(b), 0);
    T_EQ(go_close(listener), 0);
}
Test(msg, unixpacket_keeps_borders) {
    RUN(records);
}

/* ---- a unixgram whose queue is full: writable, and yet nothing goes -------------------------- */

enum { DATAGRAMS = 100 }; /* net.unix.max_dgram_qlen is 10, or a little more */

static struct sockaddr_un gram_name(socklen_t *len) {
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    size_t n = strlen(address);
    memcpy(sa.sun_path + 1, address + 1, n - 1); /* "@..." */
    *len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    return sa;
}

static int bound_gram(void) {
    snprintf(address, sizeof address, "@gort-test-gram-%d", (int)getpid());
    int fd = go_listen("unixgram", address);
    T_ASSERT(fd >= 0, "%d", fd);
    return fd;
}

static void send_numbers(void *arg) {
    socklen_t len;
    struct sockaddr_un to = gram_name(&len);
    for (int i = 0; i < DATAGRAMS; i++)
        T_EQ(go_sendto(net_int(arg), &i, sizeof i, 0, (struct sockaddr *)&to, len), sizeof i);
}

static void numbers_arrive(int reader, int writer) {
    int got, others = 0, filler = go_dial("unixgram", address);
    T_ASSERT(writer >= 0 && filler >= 0, "%d %d", writer, filler);
    while (go_send(filler, "x", 1, MSG_DONTWAIT) == 1) /* nothing of ours is in the queue */
        others++;
    T_EQ(go_close(filler), 0);
    T_EQ(go_waitgroup_spawn(&wg, send_numbers, net_ptr(writer)), 0);
    T_EQ(go_sleep(20 * GO_MILLISECOND), 0); /* it may have begun to wait */
    while (others-- > 0)
        T_EQ(go_read(reader, &got, sizeof got), 1);
    for (int i = 0; i < DATAGRAMS; i++) {
        T_EQ(go_read(reader, &got, sizeof got), sizeof got);
        T_EQ(got, i);
    }
    T_EQ(go_waitgroup_wait(&wg), 0);
}

static void gram(void *arg) {
    (void)arg;
    char other[80];
    int reader = bound_gram(), writer = socket(AF_UNIX, SOCK_DGRAM, 0);
    numbers_arrive(reader, writer);
    int connected = go_dial("unixgram", address);
    numbers_arrive(reader, connected);
    snprintf(other, sizeof other, "%s-2", address);
    int ours = go_listen("unixgram", other);
    numbers_arrive(reader, ours);
    T_EQ(go_close(ours), 0);

    socklen_t len;
    struct sockaddr_un to = gram_name(&len);
    go_scope s;
    ssize_t n;
    struct go_stats before = GO_STATS_INIT, after = GO_STATS_INIT;
    while ((n = go_sendto(writer, "x", 1, MSG_DONTWAIT, (struct sockaddr *)&to, len)) == 1)
        ;
    T_EQ(n, -EAGAIN);
    T_EQ(go_stats(&before), 0);
    go_scope_enter(&s, go_now() + 20 * GO_MILLISECOND);
    T_EQ(go_sendto(writer, "x", 1, 0, (struct sockaddr *)&to, len), -ETIMEDOUT);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    T_EQ(go_stats(&after), 0);
    T_ASSERT(after.parks - before.parks < 100, "it spins"); /* each sleep is twice the last */
    T_EQ(go_sendto(writer, "x", 1, MSG_DONTWAIT, (struct sockaddr *)&to, len), -EAGAIN);
    T_EQ(go_close(reader), 0);
    T_EQ(go_sendto(writer, "x", 1, 0, (struct sockaddr *)&to, len), -ECONNREFUSED);
    T_EQ(go_close(connected), 0);
    T_EQ(go_close(writer), 0);
}
Test(msg, unixgram_waits_for_a_full_queue) {
    RUN(gram);
}

/* ---- messages -------------------------------------------------------------------------------- */

union control {
    struct cmsghdr head;
    char space[CMSG_SPACE(sizeof(int))];
};

static struct msghdr one_buffer(struct iovec *iov, void *buf, size_t n, union control *c) {
    *iov = (struct iovec){buf, n};
    return (struct msghdr){.msg_iov = iov, .msg_iovlen = 1, .msg_control = c,
                           .msg_controllen = c ? sizeof *c : 0};
}

static void send_descriptor(int over, int fd) {
    union control c = {.head = {.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET,
                                .cmsg_type = SCM_RIGHTS}};
    struct iovec iov;
    struct msghdr msg = one_buffer(&iov, "fd", 2, &c);
    memcpy(CMSG_DATA(&c.head), &fd, sizeof fd);
    T_EQ(go_sendmsg(over, &msg, 0), 2);
}

static int descriptor_in(struct msghdr *msg) {
    int fd = -1;
    struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    T_ASSERT(c && c->cmsg_type == SCM_RIGHTS);
    memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

static void passes_one(void *arg) {
    int fd[2];
    T_EQ(pipe(fd), 0);
    send_descriptor(net_int(arg), fd[0]);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_write(fd[1], "hello", 5), 5);
    T_EQ(go_close(fd[1]), 0);
}

static void descriptors(void *arg) {
    (void)arg;
    int fd[2];
    char buf[16];
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    for (int i = 0; i < 20; i++) {
        union control c;
        struct iovec iov;
        struct msghdr msg = one_buffer(&iov, buf, sizeof buf, &c);
        T_EQ(go_waitgroup_spawn(&wg, passes_one, net_ptr(fd[1])), 0);
        T_EQ(go_recvmsg(fd[0], &msg, MSG_CMSG_CLOEXEC), 2);
        int passed = descriptor_in(&msg);
        T_ASSERT(fcntl(passed, F_GETFD) & FD_CLOEXEC);
        T_EQ(go_read(passed, buf, sizeof buf), 5);
        T_EQ(go_waitgroup_wait(&wg), 0);
        T_EQ(go_read(passed, buf, sizeof buf), 0);
        T_EQ(go_close(passed), 0);
    }
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}
Test(msg, descriptors_travel) {
    RUN(descriptors);
}

/* ---- a read that stops before the end of what is there --------------------------------------- */

/* Until all that was sent is there, and each event of it is known. */
static void all_told(int fd, int bytes) {
    for (int n = 0; n < bytes; go_sleep(GO_MILLISECOND))
        T_EQ(ioctl(fd, FIONREAD, &n), 0);
    T_EQ(go_sleep(5 * GO_MILLISECOND), 0); /* if not, nothing is tested */
}

/* It takes no descriptors, and stops behind the bytes that came with one all the same. */
static void at_a_descriptor(void *arg) {
    (void)arg;
    char buf[16];
    snprintf(address, sizeof address, "@gort-borders-%d", (int)getpid());
    int listener = go_listen("unix", address), out = go_dial("unix", address);
    int in = go_accept(listener, NULL, NULL);
    T_ASSERT(listener >= 0 && out >= 0 && in >= 0);
    for (int i = 0; i < 5; i++) {
        T_EQ(go_poll_until(in, POLLIN, go_now() + GO_MILLISECOND), -ETIMEDOUT);
        T_EQ(go_poll_until(out, POLLIN, go_now() + GO_MILLISECOND), -ETIMEDOUT);
        send_descriptor(out, 0);
        T_EQ(go_write(out, "more", 4), 4);
        all_told(in, 6);
        T_EQ(go_read(in, buf, sizeof buf), 2);
        T_EQ(go_read(in, buf, sizeof buf), 4); /* hangs when the first was trusted */
        int swap = in;
        in = out;
        out = swap;
    }
    T_EQ(go_close(in), 0);
    T_EQ(go_close(out), 0);
    T_EQ(go_close(listener), 0);
}
Test(msg, a_read_that_stops_at_a_descriptor_leaves_the_rest_readable) {
    RUN(at_a_descriptor);
}

/* The urgent byte is taken before any event of it is seen (at procs 1, most often); a read stops
 * where it was. */
static void at_the_mark(void *arg) {
    (void)arg;
    for (int i = 0; i < 5; i++) {
        int fd[2];
        char buf[16];
        ssize_t r;
        net_pair(fd);
        T_EQ(go_poll_until(fd[0], POLLIN, go_now() + GO_MILLISECOND), -ETIMEDOUT);
        T_EQ(send(fd[1], "abc", 3, 0), 3);
        T_EQ(send(fd[1], "!", 1, MSG_OOB), 1);
        T_EQ(send(fd[1], "def", 3, 0), 3);
        while ((r = go_recv(fd[0], buf, 1, MSG_OOB)) == -EINVAL)
            ; /* not there yet */
        T_EQ(r, 1);
        T_EQ(go_sleep(5 * GO_MILLISECOND), 0);
        T_EQ(go_read(fd[0], buf, sizeof buf), 3);
        T_EQ(go_read(fd[0], buf, sizeof buf), 3);
        T_EQ(go_close(fd[0]), 0);
        T_EQ(go_close(fd[1]), 0);
    }
}
Test(msg, a_read_that_stops_at_the_urgent_mark_leaves_the_rest_readable) {
    RUN(at_the_mark);
}

/* "abc...z" in pieces of one, two, three bytes, each when the one before has been taken. */
static void dribble(void *arg) {
    for (int at = 0, n = 1; at < 26; at += n, n = n % 3 + 1) {
        const char *text = "abcdefghijklmnopqrstuvwxyz";
        size_t left = (size_t)(26 - at), now = (size_t)n < left ? (size_t)n : left;
        T_EQ(go_write(net_int(arg), text + at, now), now);
        T_EQ(go_poll(net_int(arg), POLLOUT), POLLOUT);
        go_yield();
    }
}

static void waits_for_all(void *arg) {
    (void)arg;
    int fd[2];
    char a[3], b[20], c[3];
    struct iovec iov[] = {{a, 3}, {NULL, 0}, {b, 20}, {c, 3}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 4};
    net_pair(fd);
    T_EQ(go_waitgroup_spawn(&wg, dribble, net_ptr(fd[1])), 0);
    T_EQ(go_recvmsg(fd[0], &msg, MSG_WAITALL), 26);
    T_EQ(memcmp(a, "abc", 3), 0);
    T_EQ(memcmp(b, "defghijklmnopqrstuvw", 20), 0);
    T_EQ(memcmp(c, "xyz", 3), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_write(fd[1], "end", 3), 3);
    T_EQ(go_close(fd[1]), 0);
    T_EQ(go_recvfrom(fd[0], b, 20, MSG_WAITALL, NULL, NULL), 3);
    T_EQ(go_recvmsg(fd[0], &msg, MSG_WAITALL), 0);
    T_EQ(go_close(fd[0]), 0);
}
Test(msg, recvmsg_waitall_fills_every_buffer) {
    RUN(waits_for_all);
}

static void rights_end_waitall(void *arg) {
    (void)arg;
    int fd[2];
    char buf[16];
    union control c;
    struct iovec iov;
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    T_EQ(go_write(fd[1], "ab", 2), 2);
    send_descriptor(fd[1], 0);
    send_descriptor(fd[1], 1);
    struct msghdr msg = one_buffer(&iov, buf, sizeof buf, &c);
    T_EQ(go_recvmsg(fd[0], &msg, MSG_WAITALL), 4);
    T_EQ(memcmp(buf, "abfd", 4), 0);
    T_EQ(close(descriptor_in(&msg)), 0);
    msg = one_buffer(&iov, buf, sizeof buf, &c);
    T_EQ(go_recvmsg(fd[0], &msg, MSG_WAITALL), 2);
    T_EQ(close(descriptor_in(&msg)), 0);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}
Test(msg, recvmsg_waitall_loses_no_descriptor) {
    RUN(rights_end_waitall);
}

/* ---- how each call that parks ends ----------------------------------------------------------- */

static ssize_t park_recvfrom(int fd) {
    char c;
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    return go_recvfrom(fd, &c, 1, 0, (struct sockaddr *)&sa, &len);
}

static ssize_t park_recvmsg(int fd) {
    char buf[8];
    struct iovec iov;
    struct msghdr msg = one_buffer(&iov, buf, sizeof buf, NULL);
    return go_recvmsg(fd, &msg, MSG_WAITALL);
}

static ssize_t park_readv(int fd) {
    char c[2];
    struct iovec iov[] = {{&c[0], 1}, {NULL, 0}, {&c[1], 1}};
    return go_readv(fd, iov, 3);
}

static ssize_t park_recv_all(int fd) {
    char buf[8];
    return go_recv(fd, buf, sizeof buf, MSG_WAITALL);
}

static char junk[1 << 16];

static ssize_t park_write(int fd) {
    ssize_t n;
    while ((n = go_write(fd, junk, sizeof junk)) > 0)
        ;
    return n;
}

static ssize_t park_writev(int fd) {
    struct iovec iov[] = {{junk, 1000}, {NULL, 0}, {junk, sizeof junk}};
    ssize_t n;
    while ((n = go_writev(fd, iov, 3)) > 0)
        ;
    return n;
}

/* More than there is room for at once: whole, or an error. */
static ssize_t park_write_all(int fd) {
    ssize_t n;
    while ((n = go_write_all(fd, junk, sizeof junk)) == sizeof junk)
        ;
    return n;
}

static ssize_t park_send(int fd) {
    ssize_t n;
    while ((n = go_send(fd, junk, sizeof junk, 0)) > 0)
        ;
    return n;
}

static ssize_t park_sendto(int fd) {
    ssize_t n;
    while ((n = go_sendto(fd, junk, sizeof junk, 0, NULL, 0)) > 0)
        ;
    return n;
}

static ssize_t park_sendmsg(int fd) {
    struct iovec iov;
    struct msghdr msg = one_buffer(&iov, junk, sizeof junk, NULL);
    ssize_t n;
    while ((n = go_sendmsg(fd, &msg, 0)) > 0)
        ;
    return n;
}

static ssize_t park_sendfile(int fd) {
    FILE *f = tmpfile();
    T_ASSERT(f && ftruncate(fileno(f), 1 << 20) == 0);
    ssize_t n;
    do {
        off_t from = 0;
        n = go_sendfile(fd, fileno(f), &from, 1 << 20);
        T_EQ(from, n > 0 ? n : 0);
    } while (n > 0);
    fclose(f);
    return n;
}

static ssize_t (*const calls[])(int) = {park_recvfrom, park_recvmsg, park_readv, park_recv_all,
                                        park_write, park_writev, park_write_all, park_send,
                                        park_sendto, park_sendmsg, park_sendfile};
enum { CALLS = sizeof calls / sizeof *calls, BY_CLOSE = 0, BY_CANCEL, BY_DEADLINE, ENDS };

static struct parked {
    int fd, by, expected;
    ssize_t (*call)(int);
    go_scope scope;
    int running, through, done; /* through: its canceller, until when the scope stays entered */
} parked;

static void park(void *arg) {
    struct parked *p = arg;
    go_scope_enter(&p->scope,
                   p->by == BY_DEADLINE ? go_now() + 5 * GO_MILLISECOND : GO_FOREVER);
    __atomic_store_n(&p->running, 1, __ATOMIC_RELEASE);
    T_EQ(p->call(p->fd), p->expected);
    while (p->by == BY_CANCEL && !__atomic_load_n(&p->through, __ATOMIC_ACQUIRE))
        go_yield(); /* a sleep would be refused */
    T_EQ(go_scope_leave(&p->scope), p->by == BY_CLOSE ? 0 : p->expected);
    __atomic_store_n(&p->done, 1, __ATOMIC_RELEASE);
}

static void *park_thread(void *arg) {
    park(arg);
    return NULL;
}

static void ends_one(int by, ssize_t (*call)(int), int fd[2], bool thread) {
    static const int expected[] = {-EBADF, -ECANCELED, -ETIMEDOUT};
    pthread_t t;
    parked = (struct parked){.fd = fd[0], .by = by, .expected = expected[by], .call = call};
    if (thread)
        T_EQ(pthread_create(&t, NULL, park_thread, &parked), 0);
    else
        SPAWN(park, &parked);
    net_await(&parked.running);
    if (by != BY_DEADLINE)
        net_wait_parked(1);
    if (by == BY_CANCEL) {
        go_scope_cancel(&parked.scope);
        __atomic_store_n(&parked.through, 1, __ATOMIC_RELEASE);
    }
    if (by == BY_CLOSE)
        T_EQ(go_close(fd[0]), 0);
    net_await(&parked.done);
    if (thread)
        T_EQ(pthread_join(t, NULL), 0); /* it is about to end */
    if (by != BY_CLOSE)
        T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}

static void ends(void *arg) {
    (void)arg;
    for (int i = 0; i < CALLS * ENDS * 4; i++) {
        int fd[2];
        if (i & 1)
            net_pair(fd); /* ours */
        else
            T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0); /* blocking, and not ours */
        fd[0] = net_raise(fd[0], i & 1); /* who sends may be between two calls at the close */
        ends_one(i / 4 % ENDS, calls[i / 4 / ENDS], fd, i & 2);
    }
}
Test(msg, close_cancel_and_deadline_end_every_call) {
    RUN(ends);
}

/* ---- errors ---------------------------------------------------------------------------------- */

static int broken[2];

/* Of this thread: each call is -EPIPE, and none leaves a SIGPIPE. */
static void meets_a_closed_peer(void) {
    struct iovec iov;
    struct msghdr msg = one_buffer(&iov, junk, 1, NULL);
    FILE *f = tmpfile();
    sigset_t pending;
    T_ASSERT(f && fwrite("x", 1, 1, f) == 1 && fflush(f) == 0);
    for (int i = 0; i < 2; i++) { /* a blocking one, and ours */
        off_t from = 0;
        T_EQ(go_sendto(broken[i], "x", 1, 0, NULL, 0), -EPIPE);
        T_EQ(go_sendmsg(broken[i], &msg, 0), -EPIPE);
        T_EQ(go_sendfile(broken[i], fileno(f), &from, 1), -EPIPE);
        T_EQ(from, 0);
    }
    T_EQ(sigpending(&pending), 0);
    T_EQ(sigismember(&pending, SIGPIPE), 0);
    fclose(f);
}

static void *closed_peer_thread(void *arg) {
    sigset_t set, before;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    T_EQ(pthread_sigmask(SIG_UNBLOCK, &set, NULL), 0); /* as a thread that no worker has made */
    meets_a_closed_peer();
    /* A SIGPIPE that was pending before is somebody else's, and stays. */
    FILE *f = tmpfile();
    off_t from = 0;
    T_ASSERT(f && fwrite("x", 1, 1, f) == 1 && fflush(f) == 0);
    T_EQ(pthread_sigmask(SIG_BLOCK, &set, &before), 0);
    T_EQ(pthread_kill(pthread_self(), SIGPIPE), 0);
    T_EQ(go_sendfile(broken[1], fileno(f), &from, 1), -EPIPE);
    T_EQ(sigtimedwait(&set, NULL, &(struct timespec){0}), SIGPIPE);
    T_EQ(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
    fclose(f);
    __atomic_store_n((int *)arg, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void closed_peer(void *arg) {
    (void)arg;
    int fd[2], done = 0;
    pthread_t t;
    signal(SIGPIPE, SIG_DFL);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    T_EQ(close(fd[1]), 0);
    broken[0] = fd[0];
    net_pair(fd);
    T_EQ(go_close(fd[1]), 0);
    T_EQ(go_poll(fd[0], POLLIN) & POLLIN, POLLIN);
    ssize_t n;
    while ((n = go_write(fd[0], "x", 1)) > 0) /* the first goes out; the answer is a reset */
        T_EQ(go_sleep(GO_MILLISECOND), 0);
    T_ASSERT(n == -EPIPE || n == -ECONNRESET, "%zd", n);
    broken[1] = fd[0];
    meets_a_closed_peer();
    T_EQ(pthread_create(&t, NULL, closed_peer_thread, &done), 0);
    net_await(&done);
    T_EQ(pthread_join(t, NULL), 0);
    T_EQ(go_close(broken[0]), 0);
    T_EQ(go_close(broken[1]), 0);
}
Test(msg, closed_peer_is_epipe_and_no_signal) {
    RUN(closed_peer);
}

static void call_all(int fd, int expected) {
    struct iovec iov;
    char c = 0;
    struct msghdr msg = one_buffer(&iov, &c, 1, NULL);
    struct sockaddr_storage sa = {.ss_family = AF_INET};
    socklen_t len = sizeof sa;
    T_EQ(go_recvfrom(fd, &c, 1, 0, NULL, NULL), expected);
    T_EQ(go_recvfrom(fd, &c, 1, 0, (struct sockaddr *)&sa, &len), expected);
    T_EQ(len, sizeof sa);
    T_EQ(go_sendto(fd, &c, 1, 0, NULL, 0), expected);
    T_EQ(go_sendto(fd, &c, 1, 0, (struct sockaddr *)&sa, len), expected);
    T_EQ(go_recvmsg(fd, &msg, 0), expected);
    T_EQ(go_sendmsg(fd, &msg, 0), expected);
}

static void bad_descriptors(void *arg) {
    (void)arg;
    int fd[2];
    T_EQ(pipe(fd), 0);
    call_all(fd[0], -ENOTSOCK);
    call_all(-1, -EBADF);
    call_all(999, -EBADF);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}
Test(msg, errors_with_and_without_the_runtime) {
    int fd[2];
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    call_all(fd[0], -ENXIO);
    RUN(bad_descriptors);
    call_all(fd[0], -ENXIO);
    T_EQ(close(fd[0]), 0);
    T_EQ(close(fd[1]), 0);
}
