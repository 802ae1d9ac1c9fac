/* I/O on threads that gort did not make. */
#include "net.h"

#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/un.h>

static char address[64];
static int threads; /* that have not finished */

/* A green thread that called pthread_join would block its M, and the polls of its ring with it. */
static void wait_threads(void) {
    while (__atomic_load_n(&threads, __ATOMIC_ACQUIRE) != 0)
        T_EQ(go_sleep(GO_MILLISECOND), 0);
}

static void start(void *(*fn)(void *), void *arg) {
    pthread_t thread;
    __atomic_fetch_add(&threads, 1, __ATOMIC_RELAXED);
    T_EQ(pthread_create(&thread, NULL, fn, arg), 0);
    T_EQ(pthread_detach(thread), 0);
}

static void *finished(void) {
    __atomic_fetch_sub(&threads, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void *echo_thread(void *arg) {
    int fd = net_int(arg);
    char buf[64];
    ssize_t n;
    while ((n = go_read(fd, buf, sizeof buf)) > 0)
        T_EQ(go_write_all(fd, buf, (size_t)n), n);
    T_EQ(n, 0);
    T_EQ(go_close(fd), 0);
    T_EQ(go_id(), 0);
    return finished();
}

static void talks(void *arg) {
    (void)arg;
    enum { N = 4 };
    int fd[N][2];
    char buf[8];
    for (int i = 0; i < N; i++) {
        net_pair(fd[i]);
        start(echo_thread, net_ptr(fd[i][0]));
    }
    for (int round = 0; round < 50; round++)
        for (int i = 0; i < N; i++) {
            T_EQ(go_write(fd[i][1], "ping", 4), 4);
            T_EQ(go_recv(fd[i][1], buf, 4, MSG_WAITALL), 4);
        }
    for (int i = 0; i < N; i++)
        T_EQ(go_close(fd[i][1]), 0);
    wait_threads();
}
Test(foreign, thread_and_green_thread_talk) {
    RUN(talks);
}

/* A thread and a green thread that wait for the same event: the M that is told hands one away and
 * has the other for itself, and must not go to sleep on it. `trigger` makes its events from inside,
 * so that they come when no M sleeps in the poller. */
static struct {
    int start[2], both[2][2];
    uint32_t got[2];
} twins;

static void twin(int i) {
    char c;
    while (go_read(twins.both[i][0], &c, 1) == 1)
        __atomic_fetch_add(&twins.got[i], 1, __ATOMIC_RELEASE);
}
static void *twin_thread(void *arg) {
    (void)arg;
    twin(0);
    return finished();
}
static void twin_green(void *arg) {
    (void)arg;
    twin(1);
}
static void trigger(void *arg) {
    char c;
    (void)arg;
    for (unsigned i = 0; go_read(twins.start[0], &c, 1) == 1; i++)
        for (unsigned k = 0; k < 2; k++)
            T_EQ(go_write(twins.both[(i + k) % 2][1], &c, 1), 1);
    for (int i = 0; i < 2; i++)
        T_EQ(go_close(twins.both[i][1]), 0);
}

Test(foreign, thread_and_green_thread_are_told_of_one_event) {
    struct go_options o = GO_OPTIONS_INIT;
    char c = 'x';
    T_EQ(go_start(&o), 0);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, twins.start), 0);
    for (int i = 0; i < 2; i++)
        T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, twins.both[i]), 0);
    start(twin_thread, NULL);
    SPAWN(twin_green, NULL);
    SPAWN(trigger, NULL);
    for (uint32_t i = 1; i <= (uint32_t)T_SCALE(1000); i++) {
        T_EQ(write(twins.start[1], &c, 1), 1);
        for (int k = 0; k < 2; k++)
            while (__atomic_load_n(&twins.got[k], __ATOMIC_ACQUIRE) != i)
                sched_yield();
    }
    T_EQ(close(twins.start[1]), 0);
    while (__atomic_load_n(&threads, __ATOMIC_ACQUIRE) != 0)
        sched_yield();
    T_EQ(go_stop(GO_FOREVER), 0);
    close(twins.start[0]);
    close(twins.both[0][0]);
    close(twins.both[1][0]);
}

/* Without any green thread: only foreign threads, go_start and go_stop. */
static void *client(void *arg) {
    (void)arg;
    char buf[4];
    for (int i = 0; i < 20; i++) {
        int fd = go_dial("tcp", address);
        T_ASSERT(fd >= 0, "%d", fd);
        T_EQ(go_write_all(fd, "abcd", 4), 4);
        T_EQ(go_recv(fd, buf, 4, MSG_WAITALL), 4);
        T_EQ(go_close(fd), 0);
    }
    return NULL;
}

Test(foreign, threads_alone) {
    T_EQ(go_start(NULL), 0);
    int listener = net_listen(address);
    pthread_t dialer;
    T_EQ(pthread_create(&dialer, NULL, client, NULL), 0);
    for (int i = 0; i < 20; i++) {
        int fd = go_accept(listener, NULL, NULL);
        T_ASSERT(fd >= 0, "%d", fd);
        threads++;
        echo_thread(net_ptr(fd));
    }
    pthread_join(dialer, NULL);
    T_EQ(go_close(listener), 0);
    T_EQ(go_stop(GO_FOREVER), 0);
}

static void *closed_thread(void *arg) {
    char c;
    T_EQ(go_read(net_int(arg), &c, 1), -EBADF);
    return finished();
}

static void *late_thread(void *arg) {
    char c;
    go_scope s;
    go_scope_enter(&s, go_now() + 10 * GO_MILLISECOND);
    T_EQ(go_read(net_int(arg), &c, 1), -ETIMEDOUT);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    T_EQ(go_poll_until(net_int(arg), POLLIN, go_now() + GO_MILLISECOND), -ETIMEDOUT);
    return finished();
}

static go_scope *shared; /* stays entered until its canceller is through and makes this NULL */

static void *cancelled_thread(void *arg) {
    char c;
    go_scope s;
    go_scope_enter(&s, GO_FOREVER);
    __atomic_store_n(&shared, &s, __ATOMIC_RELEASE);
    T_EQ(go_read(net_int(arg), &c, 1), -ECANCELED);
    while (__atomic_load_n(&shared, __ATOMIC_ACQUIRE))
        go_yield();
    T_EQ(go_scope_leave(&s), -ECANCELED);
    return finished();
}

static void ends(void *arg) {
    (void)arg;
    int fd[2];
    net_pair(fd);
    start(late_thread, net_ptr(fd[0]));
    wait_threads();
    start(cancelled_thread, net_ptr(fd[0]));
    while (!__atomic_load_n(&shared, __ATOMIC_ACQUIRE))
        go_sleep(GO_MILLISECOND);
    net_wait_parked(1);
    go_scope_cancel(shared);
    __atomic_store_n(&shared, NULL, __ATOMIC_RELEASE);
    wait_threads();
    start(closed_thread, net_ptr(fd[0]));
    net_wait_parked(1);
    T_EQ(go_close(fd[0]), 0);
    wait_threads();
    T_EQ(go_close(fd[1]), 0);
}
Test(foreign, close_cancel_and_deadline_reach_a_thread) {
    RUN(ends);
}

/* go_stop does not wait for a thread that waits for data which never comes. */
static int fds[2];

static void *stopped_thread(void *arg) {
    (void)arg;
    char c;
    ssize_t n = go_read(fds[0], &c, 1);
    T_ASSERT(n == -ECANCELED || n == -ENXIO, "%zd", n);
    T_EQ(go_read(fds[0], &c, 1), -ENXIO);
    return NULL;
}

Test(foreign, stop_wakes_a_parked_thread) {
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        T_EQ(go_start(NULL), 0);
        net_pair(fds);
        T_EQ(pthread_create(&thread, NULL, stopped_thread, NULL), 0);
        if (i % 2)
            net_wait_parked(1);
        T_EQ(go_stop(GO_FOREVER), 0);
        pthread_join(thread, NULL);
        T_EQ(go_close(fds[0]), 0);
        T_EQ(go_close(fds[1]), 0);
    }
}

/* It sleeps and tries again, on no descriptor: the queue of a unix listener stays full. */
static void *backs_off(void *arg) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    int r = go_connect(fd, arg, sizeof(struct sockaddr_un));
    T_ASSERT(r == -ECANCELED || r == -ENXIO, "%d", r);
    close(fd);
    return NULL;
}

Test(foreign, stop_ends_a_back_off) {
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    snprintf(sa.sun_path + 1, sizeof sa.sun_path - 1, "gort-full-%d", (int)getpid());
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), hoard[10], n = 0;
    T_EQ(bind(listener, (struct sockaddr *)&sa, sizeof sa), 0);
    T_EQ(listen(listener, 0), 0);
    do {
        T_ASSERT(n < 10);
        hoard[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    } while (connect(hoard[n++], (struct sockaddr *)&sa, sizeof sa) == 0);
    for (int i = 0; i < 5; i++) {
        pthread_t thread;
        T_EQ(go_start(NULL), 0);
        T_EQ(pthread_create(&thread, NULL, backs_off, &sa), 0);
        usleep((useconds_t)i * 2000); /* before, in the midst */
        T_EQ(go_stop(GO_FOREVER), 0);
        T_EQ(pthread_join(thread, NULL), 0);
    }
    while (n > 0)
        close(hoard[--n]);
    close(listener);
}

/* ---- close while the runtime stops ----------------------------------------------------------- */

static void read_behind_a_shield(void *arg) {
    char c;
    go_scope s;
    go_scope_enter_shielded(&s, GO_FOREVER);
    T_EQ(go_read(net_int(arg), &c, 1), -EBADF);
    T_EQ(go_scope_leave(&s), 0);
}

static void *stop(void *arg) {
    T_EQ(go_stop(GO_FOREVER), 0); /* from half of the grace on no shield would help */
    return arg;
}

static void nothing(void *arg) {
    (void)arg;
}

/* They are told as at any other time, and what was polled is let go. */
Test(foreign, close_while_the_runtime_stops) {
    int fd[2][2];
    pthread_t thread;
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < 2; i++) {
        T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd[i]), 0);
        SPAWN(read_behind_a_shield, net_ptr(fd[i][0]));
    }
    for (struct go_stats st = GO_STATS_INIT; st.fd_waits != 2; usleep(100))
        T_EQ(go_stats(&st), 0);
    T_EQ(pthread_create(&thread, NULL, stop, NULL), 0);
    while (go_spawn(nothing, NULL) == 0)
        usleep(100);
    T_EQ(go_close(fd[0][0]), 0);
    T_EQ(go_forget(fd[1][0]), 0);
    close(fd[1][0]);
    T_EQ(pthread_join(thread, NULL), 0);
    for (int i = 0; i < 2; i++) {
        char c;
        T_EQ(read(fd[i][1], &c, 1), 0);
        close(fd[i][1]);
    }
}

/* ---- signals of the host --------------------------------------------------------------------- */

/* A thread of the host has handlers, and calls of its own are interrupted. None of ours says so. */
enum { SIGNALS = 20, LONG = 1 << 20 };
static struct {
    pthread_t thread;
    int pair[2], pipe[2], listener;
    char fifo[64];
    pid_t child;
    uint32_t begun, done; /* steps */
    int caught;
} intr;

static void catch(int sig) {
    (void)sig;
    intr.caught++; /* on one thread alone */
}

static void step_read(void) {
    char c;
    T_EQ(go_read(intr.pair[0], &c, 1), 1);
}
static void step_read_pipe(void) {
    char c;
    T_EQ(go_read(intr.pipe[0], &c, 1), 1);
}
static void step_accept(void) {
    int fd = go_accept(intr.listener, NULL, NULL);
    T_ASSERT(fd >= 0, "%d", fd);
    T_EQ(go_close(fd), 0);
}
static void step_poll(void) {
    T_EQ(go_poll_until(intr.pair[0], POLLIN, go_now() + 10 * GO_MILLISECOND), -ETIMEDOUT);
}
static void step_wait_pid(void) {
    int status;
    T_EQ(go_wait_pid(intr.child, &status), 0);
}
static void step_open(void) {
    int fd = go_open(intr.fifo, O_RDONLY, 0); /* waits for who writes */
    T_ASSERT(fd >= 0, "%d", fd);
    T_EQ(go_close(fd), 0);
}
static void step_write(void) {
    static char junk[LONG];
    T_EQ(go_write_all(intr.pair[0], junk, LONG), LONG);
}
static void (*const steps[])(void) = {
    step_read, step_read_pipe, step_accept, step_poll, step_wait_pid, step_open, step_write};
enum { STEPS = sizeof steps / sizeof *steps };

static void *takes_steps(void *arg) {
    (void)arg;
    sigset_t set; /* a worker has made it, with all signals blocked */
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    T_EQ(pthread_sigmask(SIG_UNBLOCK, &set, NULL), 0);
    for (unsigned i = 0; i < STEPS; i++) {
        __atomic_store_n(&intr.begun, i + 1, __ATOMIC_RELEASE);
        steps[i]();
        __atomic_store_n(&intr.done, i + 1, __ATOMIC_RELEASE);
    }
    return NULL;
}

/* What step i waits for. */
static void give(unsigned i) {
    static char junk[LONG];
    char c = 0;
    int fd;
    if (steps[i] == step_read)
        T_EQ(go_write(intr.pair[1], &c, 1), 1);
    if (steps[i] == step_read_pipe)
        T_EQ(go_write(intr.pipe[1], &c, 1), 1);
    if (steps[i] == step_accept || steps[i] == step_open) {
        fd = steps[i] == step_open ? go_open(intr.fifo, O_WRONLY, 0) : go_dial("tcp", address);
        T_ASSERT(fd >= 0, "%d", fd);
        T_EQ(go_close(fd), 0);
    }
    if (steps[i] == step_wait_pid)
        T_EQ(kill(intr.child, SIGKILL), 0);
    if (steps[i] == step_write)
        T_EQ(go_recv(intr.pair[1], junk, LONG, MSG_WAITALL), LONG);
}

static void interrupt(void) {
    T_EQ(pthread_kill(intr.thread, SIGUSR1), 0);
    T_EQ(go_sleep(200 * GO_MICROSECOND), 0);
}

static void interrupts(void *arg) {
    (void)arg;
    net_pair(intr.pair);
    T_EQ(pipe(intr.pipe), 0);
    intr.listener = net_listen(address);
    T_EQ(pthread_create(&intr.thread, NULL, takes_steps, NULL), 0);
    for (unsigned i = 0; i < STEPS; i++) {
        while (__atomic_load_n(&intr.begun, __ATOMIC_ACQUIRE) <= i)
            T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
        for (int k = 0; k < SIGNALS; k++)
            interrupt();
        give(i);
        while (__atomic_load_n(&intr.done, __ATOMIC_ACQUIRE) <= i)
            interrupt();
    }
    for (int i = 0; i < 2; i++) {
        T_EQ(go_close(intr.pair[i]), 0);
        T_EQ(go_close(intr.pipe[i]), 0);
    }
    T_EQ(go_close(intr.listener), 0);
}
Test(foreign, no_call_says_that_a_signal_came) {
    struct sigaction act = {.sa_handler = catch}; /* without SA_RESTART */
    struct sigaction before;
    snprintf(intr.fifo, sizeof intr.fifo, "/tmp/gort-test-fifo.%d", getpid());
    unlink(intr.fifo); /* of a test that was killed and had our number */
    T_EQ(mkfifo(intr.fifo, 0600), 0);
    T_EQ(sigaction(SIGUSR1, &act, &before), 0);
    intr.child = fork();
    T_ASSERT(intr.child >= 0);
    if (intr.child == 0)
        for (;;)
            pause();
    RUN(interrupts);
    T_EQ(pthread_join(intr.thread, NULL), 0);
    T_ASSERT(intr.caught >= (int)STEPS, "%d", intr.caught);
    T_EQ(sigaction(SIGUSR1, &before, NULL), 0);
    T_EQ(unlink(intr.fifo), 0);
}

/* A thread of the host does not block SIGPIPE, which would end the process. */
Test(foreign, a_closed_peer_is_epipe_and_no_signal) {
    void (*before)(int) = signal(SIGPIPE, SIG_DFL);
    int fd[2];
    char c = 0;
    struct iovec v = {&c, 1};
    T_EQ(go_start(NULL), 0);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    T_EQ(go_close(fd[1]), 0);
    T_EQ(go_write(fd[0], &c, 1), -EPIPE);
    T_EQ(go_write_all(fd[0], &c, 1), -EPIPE);
    T_EQ(go_writev(fd[0], &v, 1), -EPIPE);
    T_EQ(go_send(fd[0], &c, 1, 0), -EPIPE);
    T_EQ(go_sendmsg(fd[0], &(struct msghdr){.msg_iov = &v, .msg_iovlen = 1}, 0), -EPIPE);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_stop(GO_FOREVER), 0);
    signal(SIGPIPE, before);
}
