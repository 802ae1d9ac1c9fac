/* fork, exec and their relatives beside a running runtime: a child may exec, every call that needs
 * the runtime is refused there, and the parent does not notice. */
#include "unit/t_unit.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

extern char **environ;

static void nothing(void *arg) {
    (void)arg;
}
static void *nothing_task(void *arg) {
    return arg;
}
static int nothing_child(void *arg) {
    (void)arg;
    return 0;
}
static void nothing_gen(go_gen *g, void *arg) {
    (void)g, (void)arg;
}
static void echo_gen(go_gen *g, void *arg) {
    while (!go_gen_closed(g))
        arg = go_gen_yield(g, arg);
}

/* ---- what a child is told -------------------------------------------------------------------- */

static struct {
    go_task *task;
    go_timer *timer;
    go_chan *ticker;
    go_gen *gen;
    go_local local;
    bool green; /* who forks is a green thread */
    int pair[2], file;
} made;

#define REFUSED(call) \
    do { \
        long long t_r_ = (long long)(call); \
        if (t_r_ != -ENXIO) \
            t_fail(__FILE__, __LINE__, #call, " in a forked child: %lld", t_r_); \
    } while (0)

static void refused_runtime(void) {
    struct go_options o = GO_OPTIONS_INIT;
    struct go_spawn_options so = GO_SPAWN_OPTIONS_INIT;
    struct go_stats stats = GO_STATS_INIT;
    go_task *one[] = {made.task};
    go_waitgroup wg = {0};
    go_group g;
    REFUSED(go_run(nothing, NULL));
    REFUSED(go_start(NULL));
    REFUSED(go_start(&o));
    REFUSED(go_stop(0));
    REFUSED(go_acquire());
    REFUSED(go_release(0));
    REFUSED(go_spawn(nothing, NULL));
    REFUSED(go_spawn_with(&so, nothing, NULL));
    REFUSED(go_blocking(nothing_task, NULL, NULL));
    REFUSED(go_set_procs(1));
    REFUSED(go_waitgroup_spawn(&wg, nothing, NULL));
    REFUSED(go_task_join(made.task, NULL));
    REFUSED(go_task_cancel(made.task));
    REFUSED(go_task_reap(made.task, NULL));
    REFUSED(go_task_detach(made.task));
    REFUSED(go_gather(one, 1, NULL));
    REFUSED(go_timer_stop(made.timer));
    REFUSED(go_timer_stop_wait(made.timer));
    REFUSED(go_stats(&stats));
    T_ASSERT(!go_task_spawn(nothing_task, NULL) && !go_task_spawn_with(&so, nothing_task, NULL));
    T_ASSERT(!go_timer_after(1, nothing, NULL) && !go_ticker_new(1));
    T_ASSERT(!go_gen_new(nothing_gen, NULL));
    go_ticker_free(made.ticker);
    go_group_enter(&g, GO_FOREVER);
    REFUSED(go_group_spawn(&g, nothing_child, NULL));
    REFUSED(go_group_spawn_with(&g, &so, nothing_child, NULL));
    T_EQ(go_group_wait(&g), 0);
    T_EQ(go_procs(), 0);
    T_EQ(go_id(), 0);
}

static void refused_io(void) {
    char b[1] = {'x'};
    struct iovec iov = {b, 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    struct sockaddr_in sin = {.sin_family = AF_INET};
    struct addrinfo *found;
    struct stat st;
    sigset_t set;
    int fd = made.pair[0], file = made.file;
    REFUSED(go_listen("tcp", "127.0.0.1:0"));
    REFUSED(go_listen_with("tcp", "127.0.0.1:0", NULL));
    REFUSED(go_accept(fd, NULL, NULL));
    REFUSED(go_dial("tcp", "127.0.0.1:1"));
    REFUSED(go_getaddrinfo("127.0.0.1", "1", NULL, &found));
    REFUSED(go_connect(fd, (struct sockaddr *)&sin, sizeof sin));
    REFUSED(go_read(fd, b, 1));
    REFUSED(go_write(fd, b, 1));
    REFUSED(go_readv(fd, &iov, 1));
    REFUSED(go_writev(fd, &iov, 1));
    REFUSED(go_write_all(fd, b, 1));
    REFUSED(go_pread(file, b, 1, 0));
    REFUSED(go_pwrite(file, b, 1, 0));
    REFUSED(go_open("/dev/null", O_RDONLY, 0));
    REFUSED(go_fsync(file));
    REFUSED(go_fdatasync(file));
    REFUSED(go_fstat(file, &st));
    REFUSED(go_unlink("/none/such"));
    REFUSED(go_rename("/none/such", "/none/other"));
    REFUSED(go_mkdir("/none/such/folder", 0));
    REFUSED(go_sendfile(fd, file, NULL, 1));
    REFUSED(go_recv(fd, b, 1, 0));
    REFUSED(go_send(fd, b, 1, 0));
    REFUSED(go_recvfrom(fd, b, 1, 0, NULL, NULL));
    REFUSED(go_sendto(fd, b, 1, 0, NULL, 0));
    REFUSED(go_recvmsg(fd, &msg, 0));
    REFUSED(go_sendmsg(fd, &msg, 0));
    REFUSED(go_poll(fd, POLLIN));
    REFUSED(go_poll_until(fd, POLLIN, GO_NOW));
    REFUSED(go_spawn_when(fd, POLLIN, nothing, NULL));
    REFUSED(go_spawn_when_until(fd, POLLIN, GO_NOW, nothing, NULL));
    REFUSED(go_wait_pid(1, NULL));
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    REFUSED(go_signal_wait(&set));
    T_EQ(go_forget(fd), 0); /* these two need none */
    T_EQ(go_close(fd), 0);
}

/* What needs no runtime, with objects of the child's own: nobody held them, or waited there, at the
 * fork. All that waits here ends by a deadline. */
static void channels_work(void) {
    int v = 1;
    go_scope s;
    go_chan *c = go_chan_new(sizeof v, 1), *r = go_chan_new(0, 0);
    struct go_case cases[] = {GO_CASE_RECV(r, NULL), GO_CASE_RECV(c, &v)};
    T_ASSERT(c && r);
    struct pollfd host = {.fd = go_chan_fd(c), .events = POLLIN};
    T_EQ(go_chan_send(c, &v), 0);
    T_EQ(go_chan_try_send(c, &v), -EAGAIN);
    T_ASSERT(go_chan_len(c) == 1 && go_chan_cap(c) == 1);
    T_EQ(poll(&host, 1, 0), 1);
    v = 0;
    T_EQ(go_chan_recv(c, &v), 0);
    T_EQ(v, 1);
    T_EQ(poll(&host, 1, 0), 0);
    T_EQ(go_chan_try_recv(c, &v), -EAGAIN);
    T_EQ(go_select(cases, 2, GO_NOW), -EAGAIN);
    T_EQ(go_select(cases, 2, go_now() + GO_MILLISECOND), -ETIMEDOUT);
    T_EQ(go_chan_try_send(c, &v), 0);
    T_EQ(go_select(cases, 2, GO_FOREVER), 1);
    go_scope_enter(&s, go_now() + GO_MILLISECOND);
    T_EQ(go_chan_recv(c, &v), -ETIMEDOUT);
    T_EQ(go_chan_send(r, NULL), -ETIMEDOUT);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    T_EQ(go_chan_close(c), 0);
    T_EQ(go_chan_close(c), -EALREADY);
    T_EQ(go_chan_send(c, &v), -EPIPE);
    T_EQ(go_chan_recv(c, &v), -EPIPE);
    T_EQ(go_select(cases, 2, GO_FOREVER), 1);
    T_EQ(cases[1].result, -EPIPE);
    go_chan_free(c);
    go_chan_free(r);
}

static int ran_once;

static void once(void) {
    ran_once++;
}

static void locks_work(void) {
    go_mutex m = {0};
    go_rwmutex rw = {0};
    go_cond c = {0};
    go_once o = {0};
    go_mutex_lock(&m);
    T_EQ(go_mutex_trylock(&m), -EBUSY);
    T_EQ(go_mutex_lock_until(&m, go_now() + GO_MILLISECOND), -ETIMEDOUT);
    T_EQ(go_cond_wait_until(&c, &m, go_now() + GO_MILLISECOND), -ETIMEDOUT);
    go_cond_signal(&c);
    go_cond_broadcast(&c);
    go_mutex_unlock(&m);
    T_EQ(go_mutex_lock_until(&m, GO_NOW), 0);
    go_mutex_unlock(&m);
    go_rwmutex_rdlock(&rw);
    T_EQ(go_rwmutex_tryrdlock(&rw), 0);
    T_EQ(go_rwmutex_trywrlock(&rw), -EBUSY);
    go_rwmutex_rdunlock(&rw);
    go_rwmutex_rdunlock(&rw);
    go_rwmutex_wrlock(&rw);
    T_EQ(go_rwmutex_tryrdlock(&rw), -EBUSY);
    go_rwmutex_wrunlock(&rw);
    go_once_do(&o, once);
    go_once_do(&o, once);
    T_EQ(ran_once, 1);
}

static void counts_work(void) {
    go_waitgroup wg = {0};
    go_barrier one, two;
    go_sem sem;
    go_scope s;
    go_waitgroup_add(&wg, 2);
    go_waitgroup_done(&wg);
    go_sem_init(&sem, 1);
    T_EQ(go_sem_acquire(&sem), 0);
    T_EQ(go_sem_try_acquire(&sem), -EAGAIN);
    go_barrier_init(&one, 1);
    go_barrier_init(&two, 2);
    T_EQ(go_barrier_wait(&one), 1);
    go_scope_enter(&s, go_now() + GO_MILLISECOND);
    T_EQ(go_waitgroup_wait(&wg), -ETIMEDOUT);
    T_EQ(go_sem_acquire(&sem), -ETIMEDOUT);
    T_EQ(go_barrier_wait(&two), -ETIMEDOUT);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    go_waitgroup_done(&wg);
    T_EQ(go_waitgroup_wait(&wg), 0);
    go_sem_release(&sem);
    go_sem_release_sig(&sem);
    T_EQ(go_sem_acquire(&sem), 0);
    T_EQ(go_sem_try_acquire(&sem), 0);
}

static void scopes_work(void) {
    go_scope s, shield;
    go_group g;
    go_scope_enter(&s, GO_FOREVER);
    T_EQ(go_sleep(GO_MICROSECOND), 0);
    go_scope_cancel(&s);
    T_EQ(go_canceled(), -ECANCELED);
    T_EQ(go_sleep(GO_FOREVER), -ECANCELED);
    go_yield();
    go_scope_enter_shielded(&shield, GO_FOREVER);
    T_EQ(go_canceled(), 0);
    T_EQ(go_sleep(GO_MICROSECOND), 0);
    T_EQ(go_scope_leave(&shield), 0);
    T_EQ(go_scope_leave(&s), -ECANCELED);
    T_EQ(go_canceled(), 0);
    go_group_enter(&g, GO_FOREVER);
    go_group_cancel(&g);
    T_EQ(go_canceled(), -ECANCELED);
    T_EQ(go_group_wait(&g), -ECANCELED);
}

/* A child of a green thread is a thread, and has none of the green thread's. */
static void locals_work(void) {
    T_ASSERT(go_local_get(made.local) == (made.green ? NULL : &made));
    go_local fresh = go_local_new(NULL);
    T_ASSERT(fresh && !go_local_get(fresh));
    T_EQ(go_local_set(fresh, &fresh), 0);
    T_ASSERT(go_local_get(fresh) == &fresh);
    T_EQ(go_local_set(made.local, NULL), 0);
    T_ASSERT(!go_local_get(made.local));
}

/* Made and begun in the parent, where it waits still. */
static void generators_work(void) {
    void *value;
    T_EQ(go_gen_send(made.gen, t_ptr(3), &value), 0);
    T_EQ(t_int(value), 3);
    T_EQ(go_gen_next(made.gen, &value), 0);
    T_EQ(t_int(value), 0);
    T_EQ(go_gen_close(made.gen), 0); /* goes on once */
}

/* To these the caller is a thread that is not green. */
static void nothing_happens(void) {
    go_checkpoint();
    go_nopreempt_begin();
    go_nopreempt_end();
    go_lock_thread();
    go_unlock_thread();
    T_EQ(go_when_result(), -EINVAL);
    T_ASSERT(go_version()[0] != '\0');
}

static void works_without_runtime(void) {
    channels_work();
    locks_work();
    counts_work();
    scopes_work();
    locals_work();
    generators_work();
    nothing_happens();
}

/* The child of a worker has nearly all signals blocked. One that hangs ends with its test. */
static void child_begins(void) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGABRT, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static void forks(void (*in_child)(void), int wanted) {
    pid_t pid = fork();
    T_ASSERT(pid >= 0);
    if (pid == 0) {
        child_begins();
        in_child();
        _exit(wanted);
    }
    int status;
    T_EQ(waitpid(pid, &status, 0), pid);
    T_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == wanted, "status %#x", (unsigned)status);
}

static void ask_everything(void) {
    refused_runtime();
    refused_io();
    works_without_runtime();
}

static void becomes_true(void) {
    execl("/bin/sh", "sh", "-c", "exit 9", (char *)NULL);
}

static void fork_here(void *arg) {
    int *n = arg;
    made.green = go_id() != 0; /* one forks at a time */
    T_EQ(go_local_set(made.local, &made), 0);
    forks(ask_everything, 0);
    forks(becomes_true, 9);
    rt_fetch_add(n, 1);
}

/* ---- the parent under load ------------------------------------------------------------------- */

static struct { int end, rounds; } load;

static void *sleeps(void *arg) {
    go_sleep(GO_FOREVER);
    return arg;
}

static void busy(void *arg) {
    char b;
    int fd[2];
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    while (!rt_load_acquire(&load.end)) {
        T_EQ(go_write(fd[0], "x", 1), 1);
        T_EQ(go_read(fd[1], &b, 1), 1);
        T_EQ(go_sleep(t_int(arg) * GO_MICROSECOND), 0);
        T_ASSERT(go_blocking(nothing_task, NULL, NULL) == 0);
        rt_fetch_add(&load.rounds, 1);
    }
    go_close(fd[0]);
    go_close(fd[1]);
}

static void begin(void) {
    T_EQ(go_start(NULL), 0);
    T_ASSERT(made.task = go_task_spawn(sleeps, NULL));
    T_ASSERT(made.timer = go_timer_after(60 * GO_MINUTE, nothing, NULL)); /* never, here */
    T_ASSERT(made.ticker = go_ticker_new(60 * GO_MINUTE));
    T_ASSERT(made.gen = go_gen_new(echo_gen, NULL));
    T_EQ(go_gen_next(made.gen, NULL), 0);
    T_ASSERT(made.local || (made.local = go_local_new(NULL)));
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, made.pair), 0);
    T_ASSERT((made.file = open("/proc/self/stat", O_RDONLY)) >= 0);
    for (intptr_t i = 0; i < 8; i++)
        T_SPAWN(busy, t_ptr(i * 50));
}

static void end(void) {
    int rounds = rt_load_acquire(&load.rounds);
    T_AWAIT(rt_load_acquire(&load.rounds) > rounds + 20); /* all goes on */
    rt_store_release(&load.end, 1);
    T_EQ(go_timer_stop(made.timer), 0);
    go_ticker_free(made.ticker);
    T_EQ(go_task_reap(made.task, NULL), 0);
    T_EQ(go_gen_close(made.gen), 0);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

Test(fork, a_child_is_refused_what_needs_the_runtime_and_its_parent_goes_on, .timeout = 200) {
#ifdef T_TSAN
    T_SKIP("TSan cannot fork beside threads");
#endif
    int n = 0, times = (int)T_SCALE(25);
    begin();
    for (int i = 0; i < times; i++) {
        go_waitgroup wg = {0};
        fork_here(&n); /* two forks on a host thread, two on a green thread */
        T_EQ(go_waitgroup_spawn(&wg, fork_here, &n), 0);
        T_EQ(go_waitgroup_wait(&wg), 0);
    }
    T_EQ(n, 2 * times);
    end();
}

/* ---- what was the green thread's ------------------------------------------------------------- */

static void must_abort(pid_t pid) {
    int status;
    T_ASSERT(pid > 0);
    T_EQ(waitpid(pid, &status, 0), pid);
    T_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %#x", (unsigned)status);
}

/* It returns. */
static pid_t quiet_child(void) {
    pid_t pid = fork();
    if (pid == 0) {
        child_begins();
        close(2); /* the line that says why */
    }
    return pid;
}

static void leaves_in_child(void *arg) {
    go_scope s;
    (void)arg;
    go_scope_enter(&s, GO_FOREVER);
    go_scope_cancel(&s);
    pid_t pid = quiet_child();
    if (pid == 0 && go_canceled() != 0)
        _exit(1);
    int r = go_scope_leave(&s);
    if (pid == 0)
        _exit(2);
    T_EQ(r, -ECANCELED);
    must_abort(pid);
}

static void returns_in_child(void *arg) {
    pid_t pid = quiet_child();
    (void)arg;
    if (pid != 0)
        must_abort(pid);
}

Test(fork, a_child_has_no_scope_of_its_green_thread_and_cannot_return_from_it) {
#ifdef T_TSAN
    T_SKIP("TSan cannot fork beside threads");
#endif
    T_RUN(leaves_in_child, NULL);
    T_RUN(returns_in_child, NULL);
}

/* ---- exec from a green thread ---------------------------------------------------------------- */

static int exited_with(pid_t pid) {
    int status;
    T_ASSERT(pid > 0);
    T_EQ(go_wait_pid(pid, &status), 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static pid_t spawned(const char *command) {
    char *argv[] = {(char *)"sh", (char *)"-c", (char *)command, NULL};
    posix_spawnattr_t attr;
    sigset_t none;
    pid_t pid;
    sigemptyset(&none);
    T_EQ(posix_spawnattr_init(&attr), 0);
    T_EQ(posix_spawnattr_setsigmask(&attr, &none), 0);
    T_EQ(posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK), 0);
    T_EQ(posix_spawn(&pid, "/bin/sh", NULL, &attr, argv, environ), 0);
    T_EQ(posix_spawnattr_destroy(&attr), 0);
    return pid;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
static __attribute__((noinline)) pid_t vforked(void) {
    pid_t pid = vfork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", "exit 6", (char *)NULL);
        _exit(127);
    }
    return pid;
}
#pragma GCC diagnostic pop

static int executed;

static void execute(void *arg) {
    T_EQ(exited_with(spawned("exit 5")), 5);
    /* the mask that was asked for is the child's */
    T_EQ(exited_with(spawned("kill -TERM $$; exit 5")), -1);
    T_EQ(exited_with(vforked()), 6);
    int status = system("exit 7"); /* waits in the kernel: its worker is held up */
    T_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 7, "status %#x", (unsigned)status);
    T_EQ(go_sleep(t_int(arg)), 0);
    rt_fetch_add(&executed, 1);
}

Test(fork, posix_spawn_vfork_and_system_on_green_threads, .timeout = 120) {
    enum { SIDE_BY_SIDE = 6 };
    begin();
    for (int i = 0; i < T_SCALE(4); i++) {
        go_waitgroup wg = {0};
        executed = 0;
        for (intptr_t k = 0; k < SIDE_BY_SIDE; k++)
            T_EQ(go_waitgroup_spawn(&wg, execute, t_ptr(k)), 0);
        T_EQ(go_waitgroup_wait(&wg), 0);
        T_EQ(executed, SIDE_BY_SIDE);
    }
    end();
}

/* ---- a daemon -------------------------------------------------------------------------------- */

static void says_hello(void *fd) {
    T_EQ(go_write(*(int *)fd, "hello", 5), 5);
}

/* What a daemon says that calls in_daemon() twice. */
static void daemon_says(void (*in_daemon)(int fd), const char *wanted) {
    int fd[2];
    char text[16] = "";
    T_EQ(pipe(fd), 0);
    pid_t pid = fork();
    T_ASSERT(pid >= 0);
    if (pid == 0) {
        child_begins();
        T_EQ(daemon(0, 1), 0); /* forks again; we are the grandchild */
        in_daemon(fd[1]);
        in_daemon(fd[1]);
        _exit(0);
    }
    close(fd[1]);
    size_t have = 0;
    for (ssize_t n; (n = read(fd[0], text + have, sizeof text - 1 - have)) > 0;)
        have += (size_t)n;
    T_STR_EQ(text, wanted);
    T_EQ(waitpid(pid, NULL, 0), pid);
    close(fd[0]);
}

static void runs(int fd) {
    T_EQ(go_run(says_hello, &fd), 0);
}

static void runs_shared(int fd) {
    go_waitgroup wg = {0};
    T_EQ(go_acquire(), 0);
    T_EQ(go_waitgroup_spawn(&wg, says_hello, &fd), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_release(GO_FOREVER), 0);
}

Test(fork, daemon_before_the_start) {
    daemon_says(runs, "hellohello");
}

Test(fork, daemon_after_a_stop) {
    for (int i = 0; i < 2; i++) {
        t_start((unsigned)t_procs());
        t_stop();
        daemon_says(runs, "hellohello");
        T_EQ(go_acquire(), 0);
        T_EQ(go_release(GO_FOREVER), 0);
        daemon_says(runs_shared, "hellohello");
    }
}

/* ---- a fork at any moment of a start or a stop ----------------------------------------------- */

static uint32_t forked_enough;
static int forks_made;

/* Now and then a fork falls where it is sure what becomes of the child. */
static void await_a_fork(bool wanted) {
    int before = rt_load_acquire(&forks_made);
    while (wanted && rt_load_acquire(&forks_made) == before && !rt_load_acquire(&forked_enough))
        nanosleep(&(struct timespec){.tv_nsec = 100 * 1000}, NULL);
}

static void *starts_and_stops(void *arg) {
    for (int round = 0; !rt_load_acquire(&forked_enough); round++) {
        T_EQ(go_acquire(), 0);
        await_a_fork(round % 4 == 1);
        T_EQ(go_release(GO_FOREVER), 0);
        await_a_fork(round % 4 == 3);
    }
    return arg;
}

/* Refused for ever, or all of it works. */
static void starts_or_is_refused(void) {
    go_waitgroup wg = {0};
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC), r = go_acquire();
    if (r != 0) {
        T_EQ(r, -ENXIO);
        REFUSED(go_start(NULL));
        REFUSED(go_stop(0));
        _exit(1);
    }
    T_EQ(go_waitgroup_spawn(&wg, says_hello, &fd), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_release(GO_FOREVER), 0);
    t_start(1);
    t_stop();
}

Test(fork, beside_starts_and_stops_a_child_starts_its_own_or_is_refused, .timeout = 200) {
#ifdef T_TSAN
    T_SKIP("TSan cannot fork beside threads");
#endif
    pthread_t thread;
    int started = 0, refused = 0;
    T_EQ(pthread_create(&thread, NULL, starts_and_stops, NULL), 0);
    for (int i = 0; i < T_SCALE(100) || started == 0 || refused == 0; i++) {
        int status;
        pid_t pid = fork();
        T_ASSERT(pid >= 0);
        if (pid == 0) {
            child_begins();
            starts_or_is_refused();
            _exit(0);
        }
        rt_store_release(&forks_made, i + 1);
        T_EQ(waitpid(pid, &status, 0), pid);
        T_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) <= 1, "status %#x", (unsigned)status);
        started += WEXITSTATUS(status) == 0;
        refused += WEXITSTATUS(status) == 1;
    }
    rt_store_release(&forked_enough, 1);
    T_EQ(pthread_join(thread, NULL), 0);
}
