/* A good guest: what a host had before go_start it has while gort runs and after go_stop, and what
 * gort adds is what docs/embedding.md lists.
 *
 * The state of the host is a text, one line for each thing, so that a difference names itself. What
 * it cannot see (system calls that change nothing) tests/scripts/guest.py does. */
#include "unit/t_unit.h"

#include "sched/pool.h"
#include "sched/retake.h"

#include <dirent.h>
#include <fcntl.h>
#include <fenv.h>
#include <locale.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>

extern char **environ;

static void nothing(int sig) {
    (void)sig;
}

/* ---- what a thread has ----------------------------------------------------------------------- */

/* The value of a line of /proc/self/task/<tid>/status. */
static void task_status(const char *tid, const char *key, char *out, size_t size) {
    char path[300], line[512];
    snprintf(path, sizeof path, "/proc/self/task/%s/status", tid);
    FILE *f = fopen(path, "re");
    *out = 0;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0)
            snprintf(out, size, "%s", line + strlen(key) + 2);
    out[strcspn(out, "\n")] = 0;
    if (f)
        fclose(f);
}

static void describe_thread(FILE *out) {
    char tid[32], text[256];
    stack_t alt;
    sigset_t mask, pending;
    cpu_set_t cpus;
    snprintf(tid, sizeof tid, "%d", gettid());
    static const char *const keys[] = {"Name", "SigBlk", "SigPnd", "Umask", "Cpus_allowed"};
    for (size_t i = 0; i < T_COUNT(keys); i++) {
        task_status(tid, keys[i], text, sizeof text);
        fprintf(out, "%s of a thread: %s\n", keys[i], text);
    }
    T_EQ(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
    T_EQ(sigpending(&pending), 0);
    for (int i = 1; i <= 64; i++)
        fprintf(out, "signal %d: blocked %d, pending %d\n", i, sigismember(&mask, i),
                sigismember(&pending, i));
    T_EQ(sigaltstack(NULL, &alt), 0);
    fprintf(out, "alternate stack: %p, %zu, %d\n", alt.ss_sp, alt.ss_size, alt.ss_flags);
    fprintf(out, "timer slack: %d\n", prctl(PR_GET_TIMERSLACK));
    fprintf(out, "signal of the parent's death: %d\n", prctl(PR_GET_PDEATHSIG, text) ? 0 : text[0]);
    fprintf(out, "nice: %d, policy: %d\n", getpriority(PRIO_PROCESS, 0), sched_getscheduler(0));
    T_EQ(sched_getaffinity(0, sizeof cpus, &cpus), 0);
    fprintf(out, "CPUs: %d\n", CPU_COUNT(&cpus));
    fprintf(out, "locale: %p\n", (void *)uselocale((locale_t)0));
    fprintf(out, "rounding: %d, exceptions: %d\n", fegetround(), fegetexcept());
    fprintf(out, "errno: %d\n", errno);
}

/* ---- what a process has ---------------------------------------------------------------------- */

static void describe_process(FILE *out) {
    char cwd[4096];
    for (int i = 1; i <= 64; i++) {
        struct sigaction sa = {0};
        if (sigaction(i, NULL, &sa) != 0)
            continue; /* libc's own */
        fprintf(out, "action of %d: %p, flags %#x, mask", i, (void *)sa.sa_handler,
                (unsigned)sa.sa_flags);
        for (int k = 1; k <= 64; k++)
            fputs(sigismember(&sa.sa_mask, k) ? "1" : "0", out);
        fputc('\n', out);
    }
    for (int i = 0; i < RLIM_NLIMITS; i++) {
        struct rlimit l;
        T_EQ(getrlimit((__rlimit_resource_t)i, &l), 0);
        fprintf(out, "limit %d: %llu %llu\n", i, (unsigned long long)l.rlim_cur,
                (unsigned long long)l.rlim_max);
    }
    for (int i = 0; i < 3; i++) {
        struct itimerval t;
        T_EQ(getitimer((__itimer_which_t)i, &t), 0);
        fprintf(out, "itimer %d: %ld %ld\n", i, t.it_interval.tv_sec, t.it_value.tv_sec);
    }
    fprintf(out, "environ: %p\n", (void *)environ);
    for (char **e = environ; *e; e++)
        fprintf(out, "environ: %p %s\n", (void *)*e, *e);
    fprintf(out, "locale: %s, %s\n", setlocale(LC_ALL, NULL), localeconv()->decimal_point);
    fprintf(out, "directory: %s\n", getcwd(cwd, sizeof cwd));
    fprintf(out, "ids: %d %d %d %d\n", getuid(), geteuid(), getpgrp(), getsid(0));
    fprintf(out, "dumpable: %d\n", prctl(PR_GET_DUMPABLE));
    int reaper = 0;
    prctl(PR_GET_CHILD_SUBREAPER, &reaper);
    fprintf(out, "subreaper: %d, no new privileges: %d\n", reaper, prctl(PR_GET_NO_NEW_PRIVS));
    fprintf(out, "transparent huge pages off: %d\n", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
}

/* ---- the host -------------------------------------------------------------------------------- */

/* A thread of the host, which describes itself when it is asked. */
static struct {
    pthread_t thread;
    pthread_barrier_t begin, end;
    FILE *out;
    char alt[16384];
} other;

static void *other_thread(void *arg) {
    sigset_t some;
    sigemptyset(&some);
    sigaddset(&some, SIGUSR1);
    pthread_sigmask(SIG_SETMASK, &some, NULL);
    pthread_setname_np(pthread_self(), "a-host-thread");
    sigaltstack(&(stack_t){.ss_sp = other.alt, .ss_size = sizeof other.alt}, NULL);
    prctl(PR_SET_TIMERSLACK, 123456);
    fesetround(FE_UPWARD);
    for (;;) {
        errno = 55;
        pthread_barrier_wait(&other.begin);
        if (!other.out)
            break;
        describe_thread(other.out);
        pthread_barrier_wait(&other.end);
    }
    sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
    return arg;
}

static void host_begin(void) {
    sigset_t mask;
    signal(SIGPIPE, SIG_DFL);
    signal(SIGHUP, SIG_IGN);
    struct sigaction sa = {.sa_handler = nothing, .sa_flags = SA_RESTART | SA_NODEFER};
    sigaddset(&sa.sa_mask, SIGTERM);
    sigaction(SIGUSR2, &sa, NULL);
    sigaction(SIGRTMIN + 3, &sa, NULL);
    sigemptyset(&mask);
    sigaddset(&mask, SIGWINCH);
    sigaddset(&mask, SIGRTMAX);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    umask(031);
    prctl(PR_SET_TIMERSLACK, 77777);
    setenv("A_HOSTS_VARIABLE", "its value", 1);
    T_EQ(pthread_barrier_init(&other.begin, NULL, 2), 0);
    T_EQ(pthread_barrier_init(&other.end, NULL, 2), 0);
    T_EQ(pthread_create(&other.thread, NULL, other_thread, NULL), 0);
}

static char *host_state(int number) {
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    T_ASSERT(out);
    errno = number;
    describe_thread(out);
    describe_process(out);
    other.out = out;
    pthread_barrier_wait(&other.begin);
    pthread_barrier_wait(&other.end);
    fclose(out);
    return text;
}

static void host_end(void) {
    other.out = NULL;
    pthread_barrier_wait(&other.begin);
    T_EQ(pthread_join(other.thread, NULL), 0);
}

static void same_state(char *before, char *now) {
    for (char *a = before, *b = now; *a || *b;) {
        int la = (int)strcspn(a, "\n"), lb = (int)strcspn(b, "\n");
        T_ASSERT(la == lb && memcmp(a, b, (size_t)la) == 0, "before: %.*s, now: %.*s", la, a, lb,
                 b);
        a += la + (a[la] != 0);
        b += lb + (b[lb] != 0);
    }
    free(now);
}

static void *leave(void *arg) {
    return arg;
}

static int done;
static void all_kinds(void *arg) {
    (void)arg;
    int fd[2];
    T_EQ(pipe(fd), 0);
    T_EQ(go_write(fd[1], "x", 1), 1);
    char c;
    T_EQ(go_read(fd[0], &c, 1), 1);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
    T_EQ(go_sleep(GO_MICROSECOND), 0);
    T_EQ(go_blocking(leave, NULL, NULL), 0);
    rt_fetch_add(&done, 1);
}

static void use_it(void) {
    go_waitgroup wg = {0};
    for (int i = 0; i < 20; i++)
        T_EQ(go_waitgroup_spawn(&wg, all_kinds, NULL), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
}

Test(guest, nothing_of_the_host_is_changed) {
    host_begin();
    char *before = host_state(44);
    for (int i = 0; i < 3; i++) {
        errno = 44;
        T_EQ(go_start(NULL), 0);
        same_state(before, host_state(errno));
        use_it();
        same_state(before, host_state(44));
        errno = 44;
        T_EQ(go_stop(GO_FOREVER), 0);
        same_state(before, host_state(errno));
    }
    free(before);
    host_end();
}

Test(guest, nothing_of_the_host_is_changed_by_a_start_that_fails) {
    struct go_options o = GO_OPTIONS_INIT;
    host_begin();
    char *before = host_state(44);
    o.netpoll = "none such";
    errno = 44;
    T_EQ(go_start(&o), -EINVAL);
    same_state(before, host_state(errno));
    o.netpoll = NULL;
    struct rlimit files, none;
    T_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
    none = (struct rlimit){3, files.rlim_max};
    T_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    errno = 44;
    int r = go_start(&o), err = errno;
    T_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
    T_ASSERT(r < 0, "%d", r);
    same_state(before, host_state(err));
    free(before);
    host_end();
}

/* ---- the threads of gort --------------------------------------------------------------------- */

enum { MOST = 2048 };

static int thread_ids(int *ids) {
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    T_ASSERT(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.') {
            T_ASSERT(n < MOST);
            ids[n++] = atoi(e->d_name);
        }
    closedir(d);
    return n;
}

static bool is_among(int id, const int *ids, int n) {
    for (int i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* Blocked is all that can be (libc keeps two for itself, and SIGKILL and SIGSTOP cannot), but for
 * those that a thread causes itself. */
static uint64_t wanted_mask(void) {
    static const int open[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    sigset_t all;
    uint64_t mask = 0;
    sigfillset(&all);
    for (int i = 1; i <= 64; i++)
        mask |= (uint64_t)(sigismember(&all, i) == 1) << (i - 1);
    for (size_t i = 0; i < T_COUNT(open); i++)
        mask &= ~((uint64_t)1 << (open[i] - 1));
    mask &= ~((uint64_t)1 << (SIGKILL - 1));
    return mask & ~((uint64_t)1 << (SIGSTOP - 1));
}

struct crew {
    int workers, sysmons, pool, strangers, open; /* open: to another set of signals */
};

/* Those threads that are not the host's. */
static struct crew crew(const int *host, int nhost) {
    struct crew c = {0};
    int all[MOST], n = thread_ids(all);
    for (int i = 0; i < n; i++) {
        char tid[32], name[256], mask[256];
        if (is_among(all[i], host, nhost))
            continue;
        snprintf(tid, sizeof tid, "%d", all[i]);
        task_status(tid, "Name", name, sizeof name);
        task_status(tid, "SigBlk", mask, sizeof mask);
        c.open += strtoull(mask, NULL, 16) != wanted_mask();
        if (!strcmp(name, "gort-sysmon"))
            c.sysmons++;
        else if (!strcmp(name, "gort-blk"))
            c.pool++;
        else if (!strncmp(name, "gort-", 5) && strspn(name + 5, "0123456789") == strlen(name + 5))
            c.workers++;
        else
            c.strangers++;
    }
    return c;
}

/* None ends while we look: a thread without work does after a while. */
static void keep_threads(void) {
    rt_pool_keep_ns = rt_spare_keep_ns = INT64_MAX / 2;
}

/* Libc blocks all signals while a thread begins, and a thread has the name of its maker at first:
 * so the picture may take a moment. */
static bool is_as_promised(const int *host, int nhost) {
    struct crew c = crew(host, nhost);
    return c.workers >= t_procs() && c.sysmons == 1 && c.strangers == 0 && c.open == 0 &&
           (unsigned)(c.workers + c.sysmons + c.pool) == t_stats().threads;
}

Test(guest, its_threads_are_named_and_block_what_they_can) {
    int host[MOST];
    keep_threads();
    t_threads(1, leave); /* with the first one TSan makes another of its own */
    int nhost = thread_ids(host);
    T_EQ(go_start(NULL), 0);
    T_AWAIT(is_as_promised(host, nhost));
    T_EQ(crew(host, nhost).pool, 0);
    use_it();
    T_AWAIT(is_as_promised(host, nhost));
    T_ASSERT(crew(host, nhost).pool > 0);
    t_stop();
    T_AWAIT(thread_ids(host) == nhost);
}

/* ---- its descriptors ------------------------------------------------------------------------- */

struct extra {
    int rings, sets, bells, others, inherited;
};

static bool had[1024];

static void look_at_descriptors(struct extra *e) {
    for (int fd = 0; fd < 1024; fd++) {
        char path[64], target[256];
        int flags = fcntl(fd, F_GETFD);
        if (!e) {
            had[fd] = flags >= 0;
            continue;
        }
        if (flags < 0 || had[fd])
            continue;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, target, sizeof target - 1);
        target[n > 0 ? n : 0] = 0;
        e->inherited += !(flags & FD_CLOEXEC);
        e->rings += !strcmp(target, "anon_inode:[io_uring]");
        e->sets += !strcmp(target, "anon_inode:[eventpoll]");
        e->bells += !strcmp(target, "anon_inode:[eventfd]");
        e->others += strncmp(target, "anon_inode:[", 12) != 0;
    }
}

/* For a moment sysmon has the file open by which it sees what a thread does. */
static bool stand_still(struct extra *e) {
    *e = (struct extra){0};
    look_at_descriptors(e);
    return e->others == 0;
}

Test(guest, its_descriptors_are_few_and_close_on_exec) {
    struct extra e = {0}, none = {0};
    int host[MOST];
    keep_threads();
    t_threads(1, leave);
    int nhost = thread_ids(host);
    look_at_descriptors(NULL);
    T_EQ(go_start(NULL), 0);
    use_it();
    T_AWAIT(is_as_promised(host, nhost));
    T_AWAIT(stand_still(&e));
    T_EQ(e.inherited, 0);
    if (!strcmp(t_stats().netpoll, "uring")) {
        T_ASSERT(e.rings >= t_procs());
        T_AWAIT(crew(host, nhost).workers >= e.rings); /* spare ones among them, or just begun */
        T_EQ(e.sets, 0);
        T_ASSERT(e.bells <= e.rings, "%d", e.bells);
    } else {
        T_EQ(e.rings, 0);
        T_EQ(e.sets, 1);
        T_EQ(e.bells, 1);
    }
    t_stop();
    look_at_descriptors(&none);
    T_EQ(none.rings + none.sets + none.bells + none.others, 0);
}
