/* Children and signals. */
#include "net.h"

#include "base/atomic.h"
#include "base/fault.h"

#include <pthread.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

static go_waitgroup wg;

/* A child that lives until a byte comes, or the end, then exits with `code`. *end: where to write
 * it. */
static pid_t child(int code, int *end) {
    int pipes[2];
    T_EQ(pipe2(pipes, O_CLOEXEC), 0);
    pid_t pid = fork();
    T_ASSERT(pid >= 0);
    if (pid == 0) {
        char c;
        close(pipes[1]);
        while (read(pipes[0], &c, 1) < 0)
            ;
        _exit(code);
    }
    close(pipes[0]);
    *end = pipes[1];
    return pid;
}

static int open_fds(void) {
    return net_open_fds("pidfd") + net_open_fds("signalfd");
}

struct waiter {
    pid_t pid;
    int r, status, end;
};
static void *wait_for(void *arg) {
    struct waiter *w = arg;
    w->r = go_wait_pid(w->pid, &w->status);
    return NULL;
}

static void reaps(void *arg) {
    (void)arg;
    enum { N = 5 };
    struct waiter w[N];
    go_task *t[N];
    go_close(go_listen("tcp", "127.0.0.1:0")); /* warm */
    int before = open_fds();
    for (int i = 0; i < N; i++) {
        w[i].pid = child(i + 1, &w[i].end);
        T_ASSERT((t[i] = go_task_spawn(wait_for, &w[i])) != NULL);
    }
    net_wait_parked(N); /* the worker is not held up */
    for (int i = N - 1; i >= 0; i--) {
        close(w[i].end);
        T_EQ(go_task_join(t[i], NULL), 0);
        T_EQ(w[i].r, 0);
        T_ASSERT(WIFEXITED(w[i].status));
        T_EQ(WEXITSTATUS(w[i].status), i + 1);
        T_EQ(waitpid(w[i].pid, NULL, 0), -1);
        T_EQ(go_wait_pid(w[i].pid, NULL), -ECHILD);
    }
    int end, status;
    pid_t pid = child(0, &end);
    T_EQ(kill(pid, SIGKILL), 0);
    T_EQ(go_wait_pid(pid, &status), 0);
    T_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    close(end);
    pid = child(3, &end);
    close(end);
    siginfo_t info;
    T_EQ(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0); /* it has ended already */
    T_EQ(go_wait_pid(pid, NULL), 0);
    T_EQ(go_wait_pid(0, &status), -EINVAL);
    T_EQ(go_wait_pid(-1, &status), -EINVAL);
    T_EQ(go_wait_pid(getpid(), &status), -ECHILD);
    T_EQ(go_wait_pid(1, &status), -ECHILD);
    T_EQ(open_fds(), before);
}
static void *reaps_on_thread(void *arg) {
    struct waiter *w = arg;
    return wait_for(w);
}
Test(process, a_child_is_waited_for_and_reaped) {
    T_EQ(go_wait_pid(getpid(), NULL), -ENXIO);
    RUN(reaps);
    T_EQ(go_start(NULL), 0);
    struct waiter w;
    pthread_t t;
    w.pid = child(9, &w.end);
    T_EQ(pthread_create(&t, NULL, reaps_on_thread, &w), 0);
    close(w.end);
    T_EQ(pthread_join(t, NULL), 0);
    T_EQ(w.r, 0);
    T_EQ(WEXITSTATUS(w.status), 9);
    T_EQ(go_stop(GO_FOREVER), 0);
}

static void cancelled(void *arg) {
    (void)arg;
    struct waiter w;
    go_scope s;
    go_close(go_listen("tcp", "127.0.0.1:0")); /* warm */
    int before = open_fds();
    w.pid = child(4, &w.end);
    go_task *t = go_task_spawn(wait_for, &w);
    net_wait_parked(1);
    T_EQ(go_task_cancel(t), 0);
    T_EQ(go_task_join(t, NULL), 0);
    T_EQ(w.r, -ECANCELED);
    go_scope_enter(&s, go_now() + GO_MILLISECOND);
    T_EQ(go_wait_pid(w.pid, NULL), -ETIMEDOUT);
    T_EQ(go_wait_pid(w.pid, NULL), -ETIMEDOUT);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    close(w.end);
    siginfo_t info;
    T_EQ(waitid(P_PID, (id_t)w.pid, &info, WEXITED | WNOWAIT), 0);
    go_scope_enter(&s, GO_FOREVER);
    go_scope_cancel(&s);
    T_EQ(go_wait_pid(w.pid, NULL), -ECANCELED); /* though it has ended */
    T_EQ(go_scope_leave(&s), -ECANCELED);
    T_EQ(go_wait_pid(w.pid, &w.status), 0); /* it was still there */
    T_EQ(WEXITSTATUS(w.status), 4);

    struct waiter two[2]; /* both wait, one gets it */
    go_task *both[2];
    two[0].pid = two[1].pid = child(5, &w.end);
    for (int i = 0; i < 2; i++)
        both[i] = go_task_spawn(wait_for, &two[i]);
    net_wait_parked(2);
    close(w.end);
    for (int i = 0; i < 2; i++)
        T_EQ(go_task_join(both[i], NULL), 0);
    T_EQ(two[0].r + two[1].r, -ECHILD);
    T_EQ(open_fds(), before);
}
Test(process, a_cancel_leaves_the_child_there) {
    RUN(cancelled);
}

/* The pidfd says that it has ended, but who traces it must see that first. Meanwhile others run:
 * one of them is who lets the tracer go. */
static int tracer_end;

static void let_tracer_go(void *arg) {
    (void)arg;
    T_EQ(go_sleep(10 * GO_MILLISECOND), 0);
    close(tracer_end);
}

static void traced(void *arg) {
    int end, said[2], hold[2], status = 0;
    pid_t pid = child(4, &end);
    T_EQ(pipe2(said, O_CLOEXEC), 0);
    T_EQ(pipe2(hold, O_CLOEXEC), 0);
    pid_t tracer = fork();
    T_ASSERT(tracer >= 0);
    if (tracer == 0) {
        char c = ptrace(PTRACE_SEIZE, pid, 0, 0) == 0;
        close(end);
        close(hold[1]);
        if (write(said[1], &c, 1) == 1)
            (void)!read(hold[0], &c, 1);
        _exit(0);
    }
    char may = 0;
    T_EQ(read(said[0], &may, 1), 1);
    tracer_end = hold[1];
    SPAWN(let_tracer_go, NULL);
    close(end);
    T_EQ(go_wait_pid(pid, &status), 0);
    T_EQ(WEXITSTATUS(status), 4);
    T_EQ(go_wait_pid(tracer, &status), 0);
    close(said[0]);
    close(said[1]);
    close(hold[0]);
    __atomic_store_n((int *)arg, may ? 1 : 2, __ATOMIC_RELEASE);
}
Test(process, a_child_that_is_traced_holds_up_nobody) {
    struct go_options o = GO_OPTIONS_INIT;
    int done = 0;
    o.procs = 1;
    o.flags = GO_STRICT;
    T_EQ(go_start(&o), 0);
    T_EQ(go_spawn(traced, &done), 0);
    while (__atomic_load_n(&done, __ATOMIC_ACQUIRE) == 0)
        usleep(1000);
    T_EQ(go_stop(GO_FOREVER), 0);
    if (done == 2)
        T_SKIP("ptrace is denied");
}

static void without_pidfd(void *arg) {
    (void)arg;
    static const int errors[] = {ENOSYS, EPERM};
    for (int i = 0; i < 2; i++) {
        struct waiter w;
        w.pid = child(6, &w.end);
        rt_fault_arm(RT_FAULT_PIDFD, 1, true, errors[i]);
        go_task *t = go_task_spawn(wait_for, &w);
        struct go_stats st = GO_STATS_INIT;
        do {
            go_yield();
            T_EQ(go_stats(&st), 0);
        } while (st.blocking_threads == 0);
        close(w.end);
        T_EQ(go_task_join(t, NULL), 0);
        T_EQ(w.r, 0);
        T_EQ(WEXITSTATUS(w.status), 6);
    }
    int end;
    pid_t pid = child(7, &end);
    rt_fault_arm(RT_FAULT_PIDFD, 1, true, EMFILE);
    T_EQ(go_wait_pid(pid, NULL), -EMFILE);
    rt_fault_arm(RT_FAULT_PIDFD, 1, true, ESRCH);
    T_EQ(go_wait_pid(pid, NULL), -ECHILD);
    rt_fault_disarm();
    close(end);
    T_EQ(go_wait_pid(pid, NULL), 0);
}
Test(process, without_pidfd_a_thread_waits) {
    RUN(without_pidfd);
}

/* ---- signals --------------------------------------------------------------------------------- */

static sigset_t set_of(int a, int b) {
    sigset_t set;
    sigemptyset(&set);
    if (a)
        sigaddset(&set, a);
    if (b)
        sigaddset(&set, b);
    return set;
}

/* Criterion has a thread beside the test that blocks nothing: so in a child of our own. */
static void in_child(void (*fn)(void)) {
    pid_t pid = fork();
    T_ASSERT(pid >= 0);
    if (pid == 0) {
        sigset_t set = set_of(SIGUSR1, SIGUSR2);
        signal(SIGABRT, SIG_DFL);
        T_EQ(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
        fn();
        _exit(0);
    }
    int status = 1;
    T_EQ(waitpid(pid, &status, 0), pid);
    T_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
}

static int got[8];
static uint32_t ngot;
static void take_signal(void *arg) {
    sigset_t set = set_of(SIGUSR1, net_int(arg));
    int r = go_signal_wait(&set);
    got[rt_fetch_add(&ngot, 1)] = r;
}

static void *wait_for_signal(void *set) {
    return net_ptr(go_signal_wait(set));
}

static void signals(void *arg) {
    (void)arg;
    sigset_t both = set_of(SIGUSR1, SIGUSR2), one = set_of(SIGUSR1, 0), none = set_of(0, 0);
    sigset_t never = set_of(SIGKILL, SIGSTOP);
    go_close(go_listen("tcp", "127.0.0.1:0")); /* warm */
    int before = open_fds();
    T_EQ(go_signal_wait(NULL), -EINVAL);
    T_EQ(go_signal_wait(&none), -EINVAL);
    T_EQ(go_signal_wait(&never), -EINVAL);
    T_EQ(kill(getpid(), SIGUSR2), 0); /* before anybody waits */
    T_EQ(go_signal_wait(&both), SIGUSR2);
    for (int i = 0; i < 2; i++) { /* two who wait, a signal for each */
        T_EQ(go_waitgroup_spawn(&wg, take_signal, net_ptr(SIGUSR2)), 0);
    }
    net_wait_parked(2);
    T_EQ(kill(getpid(), SIGUSR1), 0);
    net_wait_parked(1);
    T_EQ(kill(getpid(), SIGUSR2), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(got[0] + got[1], SIGUSR1 + SIGUSR2);

    go_scope s;
    go_scope_enter(&s, go_now() + GO_MILLISECOND);
    T_EQ(go_signal_wait(&one), -ETIMEDOUT);
    T_EQ(kill(getpid(), SIGUSR1), 0);
    T_EQ(go_signal_wait(&one), -ETIMEDOUT); /* and does not take it */
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    T_EQ(go_signal_wait(&one), SIGUSR1);

    go_task *t = go_task_spawn(wait_for_signal, &one);
    net_wait_parked(1);
    T_EQ(go_task_cancel(t), 0);
    void *r;
    T_EQ(go_task_join(t, &r), 0);
    T_EQ(net_int(r), -ECANCELED);
    T_EQ(kill(getpid(), SIGUSR1), 0); /* for the next: nobody is left behind who takes it */
    T_EQ(go_signal_wait(&one), SIGUSR1);
    rt_fault_arm(RT_FAULT_SIGNALFD, 1, false, EMFILE);
    T_EQ(go_signal_wait(&one), -EMFILE);
    T_EQ(open_fds(), before);
}
static void run_signals(void) {
    sigset_t set = set_of(SIGUSR1, 0);
    T_EQ(go_signal_wait(&set), -ENXIO);
    T_EQ(go_run(signals, NULL), 0);
    T_EQ(go_start(NULL), 0);
    T_EQ(kill(getpid(), SIGUSR1), 0);
    T_EQ(go_signal_wait(&set), SIGUSR1); /* on a foreign thread */
    T_EQ(go_stop(GO_FOREVER), 0);
    T_EQ(go_signal_wait(&set), -ENXIO);
}
Test(process, a_signal_is_taken_once) {
    in_child(run_signals);
}

static void many(void *arg) {
    (void)arg;
    sigset_t one = set_of(SIGUSR1, 0);
    for (long i = 0; i < T_SCALE(500); i++) {
        T_EQ(kill(getpid(), SIGUSR1), 0);
        T_EQ(go_signal_wait(&one), SIGUSR1);
    }
}
static void run_many(void) {
    T_EQ(go_run(many, NULL), 0);
}
Test(process, no_signal_is_lost_between_two_calls) {
    in_child(run_many);
}
