/* gotest_runner.c - the helpers of gotest.h and, where Criterion is not used, the runner.
 *
 * The runner forks once per test. A test passes when its process ends by exit(0), so what a
 * sanitizer finds at exit (leaks, races) fails the test that caused it. A test that hangs is killed
 * with all its children after its time limit and named. */
#include "gotest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif

static bool skipped;

void t_fail(const char *file, int line, const char *what, const char *fmt, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    dprintf(2, "%s:%d: not so: %s%s\n", file, line, what, text);
    abort();
}

void t_skip(const char *test, const char *fmt, ...) {
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    dprintf(2, "SKIPPED %s: %s\n", test, text);
    skipped = true;
}

static long env_number(const char *name, long otherwise) {
    const char *text = getenv(name);
    long n = text ? strtol(text, NULL, 10) : 0;
    return n > 0 ? n : otherwise;
}

int t_procs(void) {
    return (int)env_number("GORT_PROCS", 2);
}

/* How much slower than a plain build; GOTEST_SLOWDOWN says it for Valgrind and emulators. */
static long slowdown(void) {
#if defined(T_TSAN)
    return env_number("GOTEST_SLOWDOWN", 10);
#elif defined(T_ASAN)
    return env_number("GOTEST_SLOWDOWN", 4);
#else
    return env_number("GOTEST_SLOWDOWN", 1);
#endif
}

long t_scale(long n) {
    long scaled = n / slowdown();
    return scaled > 0 ? scaled : 1;
}

/* GOTEST_KERNEL=6.1: the runtime asks nothing of the kernel that came later (base/fault.h). */
extern unsigned rt_fault_kernel __attribute__((weak)); /* not in each program there is a runtime */
__attribute__((constructor)) static void emulate_kernel(void) {
    const char *text = getenv("GOTEST_KERNEL");
    unsigned major, minor;
    if (text && sscanf(text, "%u.%u", &major, &minor) == 2 && &rt_fault_kernel)
        rt_fault_kernel = major << 8 | minor;
}

/* A green thread may be kept from its CPU for longer than go_run waits for the last of them. */
__attribute__((constructor)) static void have_patience(void) {
    setenv("GORT_GRACE", "1000000", 0);
}

/* One that was joined is listed until the kernel has buried it, but it says of itself that it ends.
 * And io_uring's helpers come and go as the kernel likes. */
static bool is_no_thread(const char *tid) {
    enum { PF_EXITING = 0x4, PF_IO_WORKER = 0x10 }; /* linux/sched.h; proc(5): stat, field 9 */
    char path[300], text[512];
    unsigned flags = 0;
    snprintf(path, sizeof path, "/proc/self/task/%s/stat", tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return errno == ENOENT || errno == ESRCH;
    text[n] = '\0';
    const char *name_end = strrchr(text, ')');
    return name_end && sscanf(name_end + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1 &&
           flags & (PF_EXITING | PF_IO_WORKER);
}

static int count_dir(const char *path, bool (*passed_over)(const char *name)) {
    DIR *dir = opendir(path);
    T_ASSERT(dir, "cannot open %s", path);
    int n = 0;
    for (struct dirent *e; (e = readdir(dir));)
        n += e->d_name[0] != '.' && !(passed_over && passed_over(e->d_name));
    closedir(dir);
    return n;
}

static int count_maps(void) {
    FILE *f = fopen("/proc/self/maps", "re");
    T_ASSERT(f);
    int n = 0;
    for (int c; (c = getc(f)) != EOF;)
        n += c == '\n';
    fclose(f);
    return n;
}

struct t_usage t_usage(void) {
    int fds = count_dir("/proc/self/fd", NULL) - 1; /* not the one that looks */
    return (struct t_usage){fds, count_dir("/proc/self/task", is_no_thread), count_maps()};
}

/* By a walk over the pages: the counters of statm(5) are summed up by CPU now and then. */
long t_resident(void) {
    long kib = -1;
    char line[256];
    FILE *f = fopen("/proc/self/smaps_rollup", "re");
    while (f && kib < 0 && fgets(line, sizeof line, f))
        sscanf(line, "Rss: %ld kB", &kib);
    if (f)
        fclose(f);
    if (kib >= 0)
        return kib * 1024;
    long pages = 0;
    f = fopen("/proc/self/statm", "re"); /* before Linux 4.14 */
    T_ASSERT(f && fscanf(f, "%*d %ld", &pages) == 1);
    fclose(f);
    return pages * sysconf(_SC_PAGESIZE);
}

void t_same_usage(struct t_usage before, const char *file, int line) {
    struct t_usage now = t_usage();
    for (int i = 1; now.threads > before.threads; i++) {
        if (i == 1000)
            dprintf(2, "%s:%d: %d threads before, and now %d\n", file, line, before.threads,
                    now.threads);
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        now = t_usage();
    }
    if (slowdown() > 1)
        now.maps = before.maps; /* those of a sanitizer, of Valgrind or qemu come and go */
    if (now.fds != before.fds || now.threads != before.threads || now.maps > before.maps)
        t_fail(file, line, "usage as before",
               ": fds %d then %d, threads %d then %d, maps %d then %d", before.fds, now.fds,
               before.threads, now.threads, before.maps, now.maps);
}

bool t_dies_begin(struct t_child *c) {
    int ends[2];
    T_EQ(pipe2(ends, O_CLOEXEC), 0);
    c->pid = fork();
    T_ASSERT(c->pid >= 0);
    if (c->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGABRT, SIG_DFL); /* Criterion reports what it catches as a crash */
        T_EQ(dup2(ends[1], 2), 2);
#ifndef T_ASAN
#ifndef T_TSAN
        signal(SIGSEGV, SIG_DFL);
#endif
#endif
        return true;
    }
    close(ends[1]);
    c->err = ends[0];
    return false;
}

void t_dies_survived(void) {
    dprintf(2, "(survived)\n");
    _exit(0);
}

void t_dies_end(struct t_child *c, int sig, const char *text, const char *file, int line) {
    char out[65536];
    size_t used = 0;
    char rest[4096]; /* a report longer than `out` is drained, so that the child can end */
    for (ssize_t n;;) {
        bool room = used < sizeof out - 1;
        n = read(c->err, room ? out + used : rest, room ? sizeof out - 1 - used : sizeof rest);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        used += room ? (size_t)n : 0;
    }
    out[used] = '\0';
    close(c->err);

    int status = 0;
    while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
        ;
    bool died = WIFSIGNALED(status) && WTERMSIG(status) == sig;
#if defined(T_ASAN) || defined(T_TSAN)
    died = died || (sig == SIGSEGV && WIFEXITED(status) && WEXITSTATUS(status) != 0);
#endif
    if (!died || (text && !strstr(out, text)))
        t_fail(file, line, "dies", " by signal %d saying \"%s\": status %#x, stderr:\n%s", sig,
               text ? text : "", (unsigned)status, out);
}

#ifdef GOTEST_CRITERION

/* Criterion starts libgit2, for its diffs, and that parses every CA certificate of the machine with
 * Mbed TLS: half of the CPU time of a short test, each of which is a program of its own. It finds
 * this one first, which parses none, and all is well as far as it knows. */
int mbedtls_x509_crt_parse_file(void *chain, const char *path);
__attribute__((visibility("default"))) int mbedtls_x509_crt_parse_file(void *chain,
                                                                       const char *path) {
    (void)chain, (void)path;
    return 0;
}

#else

enum { EXIT_SKIPPED = 77 };

static struct gotest *tests, **tests_end = &tests;

void t_register(struct gotest *t) {
    *tests_end = t;
    tests_end = &t->next;
}

/* In a child that the test forks. What another thread was about to free, or had on its stack, is a
 * leak there: Valgrind, which looks for leaks in children, too, shall not. */
static void forked(void) {
#ifdef VALGRIND_CLO_CHANGE
    VALGRIND_CLO_CHANGE("--leak-check=no");
#endif
}

static void run_here(const struct gotest *t) {
    pthread_atfork(NULL, NULL, forked);
    t->fn();
    exit(skipped ? EXIT_SKIPPED : 0);
}

static long seconds_now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (long)ts.tv_sec;
}

/* Wait for the child, at most `seconds`; kill its process group in any case. SIGCHLD is blocked, so
 * it stays pending for sigtimedwait when the child ends right before that. */
static int wait_child(pid_t pid, long seconds, bool *late) {
    sigset_t chld;
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    long end = seconds_now() + seconds;
    int status;
    *late = false;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        *late = seconds_now() >= end;
        if (*late)
            kill(pid, SIGKILL);
        sigtimedwait(&chld, NULL, &(struct timespec){.tv_sec = 1});
    }
    kill(-pid, SIGKILL); /* whatever it left behind */
    return status;
}

static const char *run_forked(const struct gotest *t, long seconds) {
    static char why[64];
    sigset_t chld, old;
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    sigprocmask(SIG_BLOCK, &chld, &old);
    pid_t pid = fork();
    T_ASSERT(pid >= 0);
    if (pid == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sigprocmask(SIG_SETMASK, &old, NULL);
        run_here(t);
    }
    bool late;
    int status = wait_child(pid, seconds, &late);
    if (late)
        snprintf(why, sizeof why, "hangs, killed after %ld s", seconds);
    else if (WIFSIGNALED(status))
        snprintf(why, sizeof why, "ended by signal %d", WTERMSIG(status));
    else if (WEXITSTATUS(status) == EXIT_SKIPPED)
        return "skipped";
    else if (WEXITSTATUS(status) != 0)
        snprintf(why, sizeof why, "exit code %d", WEXITSTATUS(status));
    else
        return NULL;
    return why;
}

/* --here runs in this process, for a debugger. Criterion's -jN is accepted and ignored. */
int main(int argc, char **argv) {
    const char *filter = "*";
    bool list = false, here = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--filter") && i + 1 < argc)
            filter = argv[++i];
        else if (!strcmp(argv[i], "--list"))
            list = true;
        else if (!strcmp(argv[i], "--here"))
            here = true;
        else if (strncmp(argv[i], "-j", 2) != 0)
            return fputs("usage: [--list] [--filter SUITE/NAME] [--here]\n", stderr), 2;
    }

    int ran = 0, failed = 0, skips = 0;
    for (struct gotest *t = tests; t; t = t->next) {
        char name[256];
        snprintf(name, sizeof name, "%s/%s", t->suite, t->name);
        if (fnmatch(filter, name, 0) != 0)
            continue;
        if (list) {
            puts(name);
            continue;
        }
        if (here)
            run_here(t);
        int limit = t->timeout ? t->timeout : T_TIMEOUT;
        const char *why = run_forked(t, slowdown() > 1 ? 3 * limit : limit);
        bool skip = why && !strcmp(why, "skipped");
        ran++;
        skips += skip;
        failed += why && !skip;
        if (why)
            fprintf(stderr, "[%s] %s: %s\n", skip ? "SKIP" : "FAIL", name, why);
    }
    if (list)
        return 0;
    printf("[====] %d tests, %d failed, %d skipped\n", ran, failed, skips);
    return failed || !ran ? 1 : ran == skips ? EXIT_SKIPPED : 0;
}
#endif
