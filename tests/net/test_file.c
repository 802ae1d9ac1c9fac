/* Files: reading and writing at an offset, and sending one. */
#include "net.h"

#include "base/fault.h"
#include "sched/pool.h"

#include <pthread.h>

static go_waitgroup wg;
enum { SIZE = 1 << 20 };

static char pattern(long at) {
    return (char)(at * 7 + (at >> 8) + (at >> 16));
}

static int made_file(long bytes) {
    char buf[4096];
    FILE *f = tmpfile();
    T_ASSERT(f);
    int fd = dup(fileno(f));
    T_ASSERT(fd >= 0);
    fclose(f);
    for (long at = 0; at < bytes; at += (long)sizeof buf) {
        for (long i = 0; i < (long)sizeof buf; i++)
            buf[i] = pattern(at + i);
        T_EQ(pwrite(fd, buf, sizeof buf, at), sizeof buf);
    }
    return fd;
}

static void at_offsets(void *arg) {
    (void)arg;
    char buf[8192];
    int fd = made_file(8192);
    T_EQ(go_pread(fd, buf, 100, 5000), 100);
    for (int i = 0; i < 100; i++)
        T_EQ(buf[i], pattern(5000 + i));
    T_EQ(go_pread(fd, buf, sizeof buf, 8000), 192); /* up to the end */
    T_EQ(go_pread(fd, buf, sizeof buf, 8192), 0);
    T_EQ(go_pread(fd, buf, 0, 0), 0);
    T_EQ(go_pwrite(fd, "hello", 5, 8190), 5);
    T_EQ(go_pread(fd, buf, 10, 8189), 6);
    T_EQ(memcmp(buf + 1, "hello", 5), 0);
    T_EQ(lseek(fd, 0, SEEK_CUR), 0); /* nothing moved */
    T_EQ(go_pread(fd, buf, 1, -1), -EINVAL);
    T_EQ(go_pwrite(fd, buf, 1, -1), -EINVAL);
    int reader = net_raise(open("/dev/null", O_RDONLY | O_CLOEXEC), false), pair[2];
    T_EQ(go_pwrite(reader, "x", 1, 0), -EBADF);
    T_EQ(go_close(reader), 0);
    T_EQ(go_pread(reader, buf, 1, 0), -EBADF);
    T_EQ(pipe(pair), 0);
    T_EQ(go_pread(pair[0], buf, 1, 0), -ESPIPE);
    T_EQ(go_pwrite(pair[1], buf, 1, 0), -ESPIPE);
    T_EQ(go_close(pair[0]), 0);
    T_EQ(go_close(pair[1]), 0);
    int proc = open("/proc/self/stat", O_RDONLY | O_CLOEXEC); /* knows no RWF_NOWAIT */
    T_ASSERT(go_pread(proc, buf, 4096, 0) > 10);
    T_EQ(go_close(proc), 0);

    go_scope s;
    go_scope_enter(&s, GO_FOREVER);
    go_scope_cancel(&s);
    T_EQ(go_pread(fd, buf, 1, 0), -ECANCELED);
    T_EQ(go_pwrite(fd, buf, 1, 0), -ECANCELED);
    T_EQ(go_sendfile(1, fd, NULL, 1), -ECANCELED);
    T_EQ(go_scope_leave(&s), -ECANCELED);
    T_EQ(go_close(fd), 0);
}
static void *at_offsets_thread(void *arg) {
    at_offsets(arg);
    return NULL;
}
Test(file, pread_and_pwrite_leave_the_position) {
    RUN(at_offsets);
    T_EQ(go_pread(0, &(char){0}, 1, 0), -ENXIO);
    T_EQ(go_pwrite(0, "", 1, 0), -ENXIO);
    T_EQ(go_sendfile(1, 0, NULL, 1), -ENXIO);
    pthread_t t;
    T_EQ(go_start(NULL), 0);
    T_EQ(pthread_create(&t, NULL, at_offsets_thread, NULL), 0);
    T_EQ(pthread_join(t, NULL), 0);
    T_EQ(go_stop(GO_FOREVER), 0);
}

/* ---- sendfile -------------------------------------------------------------------------------- */

struct sender {
    int out, in;
    bool by_position;
};

static void send_all(void *arg) {
    struct sender *s = arg;
    off_t at = 0;
    for (ssize_t n = 1; n > 0;) {
        off_t before = at;
        n = go_sendfile(s->out, s->in, s->by_position ? NULL : &at, SIZE);
        T_ASSERT(n >= 0, "%zd", n);
        if (s->by_position)
            at += n;
        T_EQ(at, before + n);
        T_EQ(lseek(s->in, 0, SEEK_CUR), s->by_position ? at : 0);
    }
    T_EQ(at, SIZE);
    T_EQ(go_close(s->out), 0);
}

static void *send_all_thread(void *arg) {
    send_all(arg);
    return NULL;
}

static void read_all(int in) {
    static char buf[1 << 16];
    long at = 0;
    for (ssize_t n; (n = go_read(in, buf, sizeof buf)) != 0; at += n) {
        T_ASSERT(n > 0, "%zd", n);
        for (long i = 0; i < n; i += 97)
            T_ASSERT(buf[i] == pattern(at + i), "at %ld", at + i);
    }
    T_EQ(at, SIZE);
    T_EQ(go_close(in), 0);
}

static void send_over(int out, int in, bool thread) {
    pthread_t t;
    struct sender s = {.out = out, .in = made_file(SIZE), .by_position = thread};
    int flags = fcntl(out, F_GETFL);
    if (thread)
        T_EQ(pthread_create(&t, NULL, send_all_thread, &s), 0);
    else
        T_EQ(go_waitgroup_spawn(&wg, send_all, &s), 0);
    net_wait_parked(1); /* it is full; at procs 1 this shows that the worker is not held up */
    T_EQ(fcntl(out, F_GETFL), flags);
    read_all(in);
    T_EQ(go_waitgroup_wait(&wg), 0);
    if (thread)
        T_EQ(pthread_join(t, NULL), 0); /* it has closed its end */
    T_EQ(close(s.in), 0);
}

static void over_tcp(bool thread) {
    int fd[2];
    net_pair(fd);
    T_EQ(setsockopt(fd[1], SOL_SOCKET, SO_RCVBUF, &(int){65536}, sizeof(int)), 0);
    T_EQ(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &(int){65536}, sizeof(int)), 0);
    send_over(fd[0], fd[1], thread);
}

static void over_sockets(void *arg) {
    (void)arg;
    for (int i = 0; i < 4; i++) {
        int fd[2];
        over_tcp(i & 1);
        T_EQ(socketpair(AF_UNIX, SOCK_STREAM | (i & 2 ? SOCK_NONBLOCK : 0), 0, fd), 0);
        send_over(fd[0], fd[1], i & 1);
    }
}
Test(file, sendfile_to_any_socket) {
    RUN(over_sockets);
}

/* Each look at the cache says no, or one of the first few does. */
static void without_cache(void *arg) {
    static const int errors[] = {EAGAIN, EOPNOTSUPP};
    struct go_stats st = GO_STATS_INIT;
    over_sockets(arg);
    T_EQ(go_stats(&st), 0);
    bool cached = st.blocking_threads == 0; /* where the file system can tell */
    for (int i = 0; i < 2; i++) {
        rt_fault_arm(RT_FAULT_NOWAIT, 1, true, errors[i]);
        over_tcp(false);
        T_EQ(go_stats(&st), 0);
        T_ASSERT(st.blocking_threads > 0);
        over_sockets(arg);
    }
    for (uint32_t nth = 1; cached && nth < 4; nth++) {
        rt_fault_arm(RT_FAULT_NOWAIT, nth, false, EAGAIN);
        over_sockets(arg);
        T_EQ(rt_fault_points[RT_FAULT_NOWAIT].hits, 1);
    }
    rt_fault_disarm();
}
Test(file, sendfile_leaves_to_the_pool_what_is_not_cached) {
    rt_pool_keep_ns = INT64_MAX / 2; /* its threads are counted */
    RUN(without_cache);
}

static void over_others(void *arg) {
    (void)arg;
    int fd[2];
    T_EQ(pipe(fd), 0);
    send_over(fd[1], fd[0], false);
    T_EQ(pipe2(fd, O_NONBLOCK), 0);
    send_over(fd[1], fd[0], false);

    struct sender s = {.out = made_file(0), .in = made_file(SIZE)};
    int copy = dup(s.out);
    send_all(&s);
    T_EQ(lseek(copy, 0, SEEK_SET), 0);
    read_all(copy);
    T_EQ(close(s.in), 0);
}
Test(file, sendfile_to_a_pipe_and_to_a_file) {
    RUN(over_others);
}

static void send_errors(void *arg) {
    (void)arg;
    int fd[2], in = made_file(4096), plain[2];
    off_t at = 100;
    net_pair(fd);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, plain), 0);
    for (int i = 0; i < 2; i++) {
        int out = i ? plain[0] : fd[0];
        at = 4096;
        T_EQ(go_sendfile(out, in, &at, 10), 0); /* the end */
        T_EQ(go_sendfile(out, in, NULL, 0), 0);
        T_EQ(go_sendfile(out, -1, NULL, 1), -EBADF);
        at = 0;
        T_EQ(go_sendfile(out, -1, &at, 1), -EBADF);
        at = -1;
        T_EQ(go_sendfile(out, in, &at, 1), -EINVAL);
        T_EQ(at, -1);
    }
    T_EQ(go_sendfile(-1, in, NULL, 1), -EBADF);
    T_EQ(go_sendfile(fd[0], plain[0], NULL, 1), -EINVAL);
    T_EQ(go_close(in), 0);
    for (int i = 0; i < 2; i++) {
        T_EQ(go_close(fd[i]), 0);
        T_EQ(go_close(plain[i]), 0);
    }
}
Test(file, sendfile_errors) {
    RUN(send_errors);
}
