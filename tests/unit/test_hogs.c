/* hogs: green threads that stay for long in code which knows nothing of gort, and may hold its
 * locks, hold up nobody, whatever it is.
 *
 * As many as there are Ps call it again and again until somebody has run who waits behind them,
 * and makes the same calls: without a retake there is no end, and the time limit of the test ends
 * it. */
#include "t_unit.h"

#include <dirent.h>
#include <netdb.h>
#include <regex.h>
#include <string.h>

static uint32_t over;
static FILE *out; /* one for all */

static void by_malloc(unsigned i) {
    enum { BLOCKS = 32 };
    void *block[BLOCKS];
    for (unsigned k = 0; k < BLOCKS; k++) {
        block[k] = malloc(16 + (i * 37 + k * 101) % 5000);
        T_ASSERT(block[k]);
        memset(block[k], (int)k, 16);
    }
    for (unsigned k = 0; k < BLOCKS; k++)
        free(block[(k * 7) % BLOCKS]);
}

static void by_stdio(unsigned i) {
    T_ASSERT(fprintf(out, "%u bottles of %s\n", i, "beer") > 0);
    if (i % 8 == 0)
        T_EQ(fflush(out), 0);
}

static void by_sleep(unsigned i) {
    T_EQ(usleep(i % 200), 0);
}

static void by_lookup(unsigned i) {
    static const char *const names[] = {"127.0.0.1", "::1", "localhost"};
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = i % 3 == 2 ? 0 : AI_NUMERICHOST};
    struct addrinfo *list = NULL;
    int r = getaddrinfo(names[i % 3], "80", &hints, &list);
    T_ASSERT(i % 3 == 2 || r == 0, "%s", gai_strerror(r)); /* "localhost" need not be known */
    if (r == 0)
        freeaddrinfo(list);
}

static void by_directory(unsigned i) {
    (void)i;
    DIR *d = opendir("/proc/self/task");
    int n = 0;
    T_ASSERT(d);
    while (readdir(d))
        n++;
    T_ASSERT(n > 2); /* ".", "..", itself */
    T_EQ(closedir(d), 0);
}

static int compare(const void *a, const void *b) {
    return *(const int *)a - *(const int *)b;
}

/* It allocates, and calls us back. */
static void by_library(unsigned i) {
    enum { NUMBERS = 500 };
    int number[NUMBERS];
    regex_t re;
    for (int k = 0; k < NUMBERS; k++)
        number[k] = (int)((i + 1) * 7919 * (unsigned)k % 1000);
    qsort(number, NUMBERS, sizeof *number, compare);
    for (int k = 1; k < NUMBERS; k++)
        T_ASSERT(number[k - 1] <= number[k]);
    T_EQ(regcomp(&re, "^(a|b)*c{2,3}[[:digit:]]+$", REG_EXTENDED), 0);
    T_EQ(regexec(&re, "ababcc42", 0, NULL, 0), 0);
    T_EQ(regexec(&re, "ababc42", 0, NULL, 0), REG_NOMATCH);
    regfree(&re);
}

static void (*call)(unsigned i);

static void hog(void *arg) {
    for (unsigned i = (unsigned)t_int(arg); !rt_load_acquire(&over); i++)
        call(i);
}

static void waits_behind_them(void *arg T_UNUSED) {
    for (unsigned i = 0; i < 20; i++)
        call(i);
    rt_store_release(&over, 1);
}

static void hogs_and_one(void *arg T_UNUSED) {
    for (unsigned i = 1; i < go_procs(); i++)
        T_SPAWN(hog, t_ptr(i));
    T_SPAWN(waits_behind_them, NULL);
    hog(NULL);
}

static void check(void (*which)(unsigned i)) {
    call = which;
    for (int rounds = t_procs() > 8 ? 1 : 3; rounds > 0; rounds--) {
        rt_store_relaxed(&over, 0);
        T_RUN(hogs_and_one, NULL);
    }
}

Test(hogs, in_malloc) {
    check(by_malloc);
}

Test(hogs, in_stdio) {
    out = fopen("/dev/null", "w");
    T_ASSERT(out);
    check(by_stdio);
    T_EQ(fclose(out), 0);
}

Test(hogs, in_usleep) {
    check(by_sleep);
}

Test(hogs, in_getaddrinfo) {
    T_EQ(setenv("GORT_STACK", "256K", 1), 0); /* who knows what answers here */
    check(by_lookup);
}

Test(hogs, in_a_directory) {
    check(by_directory);
}

Test(hogs, in_a_library_that_calls_back) {
    check(by_library);
}

/* ---- the process ends from one --------------------------------------------------------------- */

static int at_its_end;

static void note_the_end(void) {
    T_EQ(write(at_its_end, "x", 1), 1);
}

static void compute_for_ever(void *arg T_UNUSED) {
    for (;;)
        rt_cpu_relax();
}

/* Behind all of them: its P has been taken from one of them, or from who leaves. */
static void leave(void *arg T_UNUSED) {
    exit(7);
}

static void hogs_and_one_who_leaves(void *arg T_UNUSED) {
    for (unsigned i = 1; i < go_procs(); i++)
        T_SPAWN(compute_for_ever, NULL);
    T_SPAWN(leave, NULL);
    compute_for_ever(NULL);
}

Test(hogs, exit_beside_them_ends_the_process) {
    int ends[2], status;
    char c = 0;
    T_EQ(pipe(ends), 0);
    pid_t pid = fork();
    T_ASSERT(pid >= 0);
    if (pid == 0) {
        at_its_end = ends[1];
        if (atexit(note_the_end) == 0)
            go_run(hogs_and_one_who_leaves, NULL);
        _exit(1);
    }
    T_EQ(close(ends[1]), 0);
    T_EQ(waitpid(pid, &status, 0), pid);
    T_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 7, "status %#x", (unsigned)status);
    T_EQ(read(ends[0], &c, 1), 1); /* with all that exit(3) does */
    T_EQ(close(ends[0]), 0);
}
