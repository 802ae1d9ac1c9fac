/* start.c, boot: options, failures at every point, what a host can see of a running runtime. */
#include "t_unit.h"

#include "base/fault.h"
#include "sched/start.h"

#include <dirent.h>
#include <sys/prctl.h>

static void nothing(void *arg) {
    (void)arg;
}

static void *nothing_task(void *arg) {
    return arg;
}

static void count_up(void *counter) {
    rt_fetch_add((int *)counter, 1);
}

/* It runs: a green thread can be spawned, waited for and stopped. */
static void check_it_works(void) {
    int ran = 0;
    go_waitgroup wg = {0};
    T_EQ(go_waitgroup_spawn(&wg, count_up, &ran), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(ran, 1);
}

static int try_options(struct go_options o) {
    return go_start(&o);
}

Test(start, options_out_of_range_are_refused_and_leave_nothing) {
    t_start(2);
    t_stop();
    struct t_usage before = t_usage();
    const size_t size = sizeof(struct go_options);
    const struct go_options bad[] = {
        {.size = 0},
        {.size = size - 1},
        {.size = size, .procs = RT_MAX_PROCS + 1},
        {.size = size, .procs = ~0u},
        {.size = size, .stack_size = 1},
        {.size = size, .stack_size = (16 << 10) - 1},
        {.size = size, .stack_size = (8 << 20) + 1},
        {.size = size, .stack_size = SIZE_MAX},
        {.size = size, .procs = 4, .max_threads = 4},
        {.size = size, .netpoll = "kqueue"},
        {.size = size, .netpoll = ""},
        {.size = size, .flags = GO_STRICT << 1},
    };
    for (size_t i = 0; i < T_COUNT(bad); i++) {
        int r = try_options(bad[i]);
        T_ASSERT(r == -EINVAL, "case %d: %d", (int)i, r);
        T_EQ(go_procs(), 0);
    }
    T_SAME_USAGE(before);
    T_EQ(try_options((struct go_options){.size = size, .procs = 4, .max_threads = 5}), 0);
    check_it_works();
    t_stop();
}

Test(start, options_win_over_the_environment) {
    setenv("GORT_PROCS", "5", 1);
    T_EQ(go_start(NULL), 0);
    T_EQ(go_procs(), 5);
    t_stop();
    t_start(3);
    T_EQ(go_procs(), 3);
    t_stop();
    T_EQ(go_procs(), 0);
}

Test(start, a_second_start_is_refused) {
    t_start(2);
    T_EQ(go_start(NULL), -EALREADY);
    T_EQ(go_run(nothing, NULL), -EALREADY);
    check_it_works();
    t_stop();
}

static void start_from_inside(void *arg) {
    (void)arg;
    T_EQ(go_start(NULL), -EALREADY);
    T_EQ(go_run(nothing, NULL), -EALREADY);
}

Test(start, a_start_on_a_green_thread_is_refused) {
    T_EQ(go_run(start_from_inside, NULL), 0);
}

static void expect_enxio(void) {
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    struct go_stats s = GO_STATS_INIT;
    go_waitgroup wg = {0};
    T_EQ(go_spawn(nothing, NULL), -ENXIO);
    T_EQ(go_spawn_with(&o, nothing, NULL), -ENXIO);
    T_EQ(go_waitgroup_spawn(&wg, nothing, NULL), -ENXIO);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_ASSERT(!go_task_spawn(nothing_task, NULL));
    T_EQ(go_stats(&s), -ENXIO);
    T_EQ(go_stop(0), -ENXIO);
    T_EQ(go_procs(), 0);
    T_EQ(go_id(), 0);
}

Test(start, calls_before_start_and_after_stop_say_enxio) {
    expect_enxio();
    t_start(2);
    check_it_works();
    t_stop();
    expect_enxio();
}

Test(start, channels_and_locks_need_no_runtime) {
    go_chan *c = go_chan_new(sizeof(int), 1);
    int v = 7;
    T_EQ(go_chan_send(c, &v), 0);
    v = 0;
    T_EQ(go_chan_recv(c, &v), 0);
    T_EQ(v, 7);
    go_chan_free(c);
    go_mutex m = {0};
    go_mutex_lock(&m);
    T_EQ(go_mutex_trylock(&m), -EBUSY);
    go_mutex_unlock(&m);
    T_EQ(go_sleep(1), 0);
    go_yield();
    go_checkpoint();
}

/* ---- failures -------------------------------------------------------------------------------- */

/* Fail the 1st, 2nd, ... use of a site, until start no longer reaches it. Either start reports the
 * error and leaves nothing, or it found another way (auto: epoll instead of io_uring) and works. */
static void fail_each_nth(enum rt_fault_site site, int error, const char *netpoll) {
    struct go_options o = GO_OPTIONS_INIT;
    o.procs = 3;
    o.netpoll = netpoll;
    T_EQ(go_start(&o), 0);
    check_it_works();
    t_stop();
    struct t_usage before = t_usage();
    for (uint32_t n = 1;; n++) {
        T_ASSERT(n < 1000);
        rt_fault_arm(site, n, false, error);
        int r = go_start(&o);
        bool reached = rt_load_seq_cst(&rt_fault_points[site].countdown) == 0;
        rt_fault_disarm();
        if (r == 0) {
            check_it_works();
            t_stop();
        } else {
            T_ASSERT(reached && r == (site <= RT_FAULT_MMAP ? -ENOMEM : -error),
                     "site %d, call %u, %s: %d", site, n, netpoll, r);
        }
        T_SAME_USAGE(before);
        if (!reached)
            return;
    }
}

Test(start, each_failing_thread_is_reported_and_nothing_is_left) {
    fail_each_nth(RT_FAULT_THREAD, EAGAIN, "epoll");
    fail_each_nth(RT_FAULT_THREAD, EAGAIN, "auto");
}

Test(start, each_failing_allocation_is_reported_and_nothing_is_left) {
    fail_each_nth(RT_FAULT_ALLOC, ENOMEM, "epoll");
    fail_each_nth(RT_FAULT_ALLOC, ENOMEM, "auto");
}

Test(start, each_failing_mapping_is_reported_and_nothing_is_left) {
    fail_each_nth(RT_FAULT_MMAP, ENOMEM, "epoll");
    fail_each_nth(RT_FAULT_MMAP, ENOMEM, "auto");
    fail_each_nth(RT_FAULT_GUARD, ENOMEM, "auto");
}

Test(start, each_failing_descriptor_is_reported_and_nothing_is_left) {
    fail_each_nth(RT_FAULT_EPOLL, EMFILE, "epoll");
    fail_each_nth(RT_FAULT_EVENTFD, EMFILE, "epoll");
    fail_each_nth(RT_FAULT_EVENTFD, EMFILE, "auto");
    fail_each_nth(RT_FAULT_RING, EPERM, "auto");
}

Test(start, auto_falls_back_to_epoll_and_says_why) {
    struct go_options o = GO_OPTIONS_INIT;
    rt_fault_arm(RT_FAULT_RING, 1, true, EPERM);
    o.netpoll = "uring";
    T_EQ(go_start(&o), -EPERM);
    o.netpoll = "auto";
    T_EQ(go_start(&o), 0);
    struct go_stats s = t_stats();
    T_STR_EQ(s.netpoll, "epoll");
    T_ASSERT(s.netpoll_why && *s.netpoll_why);
    check_it_works();
    t_stop();
    rt_fault_disarm();
}

/* ---- forked children ------------------------------------------------------------------------- */

static void forked_child_of_running(void *arg) {
    pid_t pid = fork();
    T_ASSERT(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* should it hang, it ends with the test */
        expect_enxio();
        T_EQ(go_start(NULL), -ENXIO);
        T_EQ(go_run(nothing, NULL), -ENXIO);
#if !defined(T_ASAN) && !defined(T_TSAN) /* whose allocators may stay locked in a forked child */
        go_chan *c = go_chan_new(8, 1);      /* needs no runtime */
        T_EQ(go_chan_send(c, &(uint64_t){1}), 0);
        go_chan_free(c);
#endif
        _exit(0);
    }
    int status;
    T_EQ(waitpid(pid, &status, 0), pid);
    T_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
    rt_fetch_add((int *)arg, 1);
}

Test(start, a_forked_child_gets_enxio_and_its_parent_goes_on) {
#ifdef T_TSAN
    T_SKIP("TSan cannot fork beside threads");
#endif
    int forks = 0;
    t_start(t_procs());
    forked_child_of_running(&forks); /* by a foreign thread */
    go_waitgroup wg = {0};
    for (int i = 0; i < 3; i++) /* by green threads */
        T_EQ(go_waitgroup_spawn(&wg, forked_child_of_running, &forks), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(forks, 4);
    check_it_works();
    t_stop();
}

/* ---- what the host sees -------------------------------------------------------------------- */

/* The value of a line of /proc/self/task/<tid>/status; nothing, if the thread has gone. */
static void task_status(const char *tid, const char *key, char *out, size_t size) {
    char path[300], line[256];
    snprintf(path, sizeof path, "/proc/self/task/%s/status", tid);
    FILE *f = fopen(path, "re");
    *out = 0;
    if (!f)
        return;
    while (fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0)
            snprintf(out, size, "%s", line + strlen(key) + 2);
    out[strcspn(out, "\n")] = 0;
    fclose(f);
}

Test(start, threads_are_named_and_block_all_but_the_synchronous_signals) {
    enum { PROCS = 3 };
    t_start(PROCS);
    check_it_works();
    int workers = 0, sysmon = 0;
    static const int open[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    static const int shut[] = {SIGTERM, SIGINT, SIGCHLD, SIGPIPE, SIGALRM, SIGUSR1, SIGPROF};
    DIR *d = opendir("/proc/self/task");
    T_ASSERT(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char name[64], mask[64];
        if (e->d_name[0] == '.')
            continue;
        task_status(e->d_name, "Name", name, sizeof name);
        if (strncmp(name, "gort", 4) != 0)
            continue;
        sysmon += !strcmp(name, "gort-sysmon");
        workers += name[5] >= '0' && name[5] < '0' + PROCS && !name[6];
        uint64_t blocked = 0;
        for (size_t i = 0; i < T_COUNT(open); i++) /* libc blocks all while a thread begins */
            do {
                task_status(e->d_name, "SigBlk", mask, sizeof mask);
                blocked = strtoull(mask, NULL, 16);
            } while (blocked >> (open[i] - 1) & 1);
        for (size_t i = 0; i < T_COUNT(shut); i++)
            T_ASSERT(blocked >> (shut[i] - 1) & 1, "%s does not block signal %d", name, shut[i]);
    }
    closedir(d);
    T_EQ(workers, PROCS);
    T_EQ(sysmon, 1);
    t_stop();
}

struct dispositions {
    struct sigaction of[65];
    sigset_t mask;
    stack_t alt;
};

static void read_dispositions(struct dispositions *d) {
    memset(d, 0, sizeof *d);
    for (int i = 1; i < 65; i++)
        sigaction(i, NULL, &d->of[i]);
    pthread_sigmask(SIG_SETMASK, NULL, &d->mask);
    sigaltstack(NULL, &d->alt);
}

static void check_dispositions(const struct dispositions *before) {
    struct dispositions now;
    read_dispositions(&now);
    for (int i = 1; i < 65; i++)
        T_ASSERT(now.of[i].sa_handler == before->of[i].sa_handler &&
                     now.of[i].sa_flags == before->of[i].sa_flags,
                 "signal %d", i);
    for (int i = 1; i < 65; i++)
        T_EQ(sigismember(&now.mask, i), sigismember(&before->mask, i));
    T_EQ(now.alt.ss_sp, before->alt.ss_sp);
    T_EQ(now.alt.ss_flags, before->alt.ss_flags);
}

Test(start, the_hosts_signals_are_left_alone) {
    struct dispositions before;
    signal(SIGPIPE, SIG_DFL);
    signal(SIGUSR2, SIG_IGN);
    read_dispositions(&before);
    t_start(2);
    check_dispositions(&before);
    check_it_works();
    t_stop();
    check_dispositions(&before);
}

/* ---- errno ----------------------------------------------------------------------------------- */

#define KEEPS_ERRNO(call) \
    do { \
        errno = 77; \
        (void)(call); \
        int t_errno_ = errno; \
        T_ASSERT(t_errno_ == 77, "%s made it %d", #call, t_errno_); \
    } while (0)

static go_chan *errno_chan;

static void calls_keep_errno(void *arg) {
    bool foreign = arg != NULL;
    uint64_t v = 1;
    go_mutex m = {0};
    go_waitgroup wg = {0};
    go_scope s;
    struct go_stats st = GO_STATS_INIT;
    KEEPS_ERRNO(go_spawn(nothing, NULL));
    KEEPS_ERRNO(go_spawn(NULL, NULL));
    KEEPS_ERRNO(go_sleep(100 * GO_MICROSECOND));
    KEEPS_ERRNO((go_yield(), 0));
    KEEPS_ERRNO((go_checkpoint(), 0));
    KEEPS_ERRNO(go_chan_send(errno_chan, &v));
    KEEPS_ERRNO(go_chan_try_send(errno_chan, &v));
    KEEPS_ERRNO(go_chan_recv(errno_chan, &v));
    KEEPS_ERRNO(go_chan_try_recv(errno_chan, &v));
    KEEPS_ERRNO((go_mutex_lock(&m), 0));
    KEEPS_ERRNO(go_mutex_lock_until(&m, go_now() + GO_MILLISECOND));
    KEEPS_ERRNO((go_mutex_unlock(&m), 0));
    KEEPS_ERRNO(go_waitgroup_spawn(&wg, nothing, NULL));
    KEEPS_ERRNO(go_waitgroup_wait(&wg));
    KEEPS_ERRNO(go_task_join(go_task_spawn(nothing_task, NULL), NULL));
    KEEPS_ERRNO((go_scope_enter(&s, go_now() + GO_MILLISECOND), 0));
    KEEPS_ERRNO(go_chan_recv(errno_chan, &v));
    KEEPS_ERRNO((go_scope_cancel(&s), 0));
    KEEPS_ERRNO(go_scope_leave(&s));
    KEEPS_ERRNO(go_stats(&st));
    KEEPS_ERRNO(go_start(NULL));
    if (!foreign)
        KEEPS_ERRNO(go_stop(0));
}

Test(start, no_call_touches_errno) {
    errno_chan = go_chan_new(8, 1);
    KEEPS_ERRNO(go_spawn(nothing, NULL));
    struct go_options o = GO_OPTIONS_INIT;
    o.procs = 1; /* one thread runs all green threads: their errno is one */
    o.flags = GO_STRICT;
    KEEPS_ERRNO(go_start(&o));
    calls_keep_errno(errno_chan);
    T_SPAWN(calls_keep_errno, NULL);
    T_AWAIT(t_stats().tasks_live == 0);
    KEEPS_ERRNO(go_stop(GO_SECOND));
    KEEPS_ERRNO(go_run(nothing, NULL));
    go_chan_free(errno_chan);
}

Test(start, running_out_of_memory_does_not_touch_errno) {
#if defined(T_ASAN) || defined(T_TSAN)
    T_SKIP("a sanitizer ends the program instead");
#endif
    KEEPS_ERRNO(go_chan_new(1, (size_t)1 << 60));
    T_ASSERT(!go_chan_new(1, (size_t)1 << 60));
    KEEPS_ERRNO(go_chan_new(SIZE_MAX, SIZE_MAX));
}
