/* gotest.h - tests are facts: Test(runq, steal_takes_half_rounded_up) { ... }, each in a process of
 * its own.
 *
 * Normally this is Criterion. Not so under sanitizers, in cross builds and where Criterion is not
 * installed: there gotest_runner.c, which forks once per test, runs the same source. Criterion
 * 2.4.1 crashes under TSan before the first test, and counts a test as passed whose leak
 * LeakSanitizer has just reported. Its assertions are not used at all: they leave a test by
 * longjmp, which is wrong on the stack of a green thread or on another thread. Ours print one line
 * and abort, on any stack. Its --timeout does not work, so each test carries its own limit.
 *
 * Tests in C++ (*.cc) always use the runner.
 *
 * A test may set `.timeout = seconds` after its name; the default is T_TIMEOUT. */
#ifndef GOTEST_H
#define GOTEST_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define T_ASAN 1
#elif __has_feature(thread_sanitizer)
#define T_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(T_ASAN)
#define T_ASAN 1
#elif defined(__SANITIZE_THREAD__) && !defined(T_TSAN)
#define T_TSAN 1
#endif

#define T_TIMEOUT 60

#ifdef __cplusplus
#pragma GCC diagnostic ignored "-Wmissing-field-initializers" /* a test names what it sets */
extern "C" {
#endif

#ifdef GOTEST_CRITERION
#include <criterion/criterion.h>
#pragma GCC diagnostic ignored "-Woverride-init" /* a test's own .timeout comes after the default */
#undef Test
#define Test(suite, name, ...) \
    CR_TEST_BASE(suite, name, .timeout = T_TIMEOUT, ##__VA_ARGS__, .sentinel_ = 0)
#else
struct gotest {
    const char *suite, *name;
    void (*fn)(void);
    int timeout;
    struct gotest *next;
};
void t_register(struct gotest *);

#define Test(suite_, name_, ...) \
    static void suite_##_##name_(void); \
    __attribute__((constructor)) static void suite_##_##name_##_register(void) { \
        static struct gotest t = { \
            .suite = #suite_, .name = #name_, .fn = suite_##_##name_, ##__VA_ARGS__}; \
        t_register(&t); \
    } \
    static void suite_##_##name_(void)
#endif

#define T_ASSERT(cond, ...) \
    do { \
        if (!(cond)) \
            t_fail(__FILE__, __LINE__, #cond, " " __VA_ARGS__); \
    } while (0)

/* Integers and pointers; both are printed. */
#define T_EQ(a, b) \
    do { \
        long long t_a_ = (long long)(a), t_b_ = (long long)(b); \
        if (t_a_ != t_b_) \
            t_fail(__FILE__, __LINE__, #a " == " #b, " (%lld, %lld)", t_a_, t_b_); \
    } while (0)

#define T_STR_EQ(a, b) \
    do { \
        const char *t_a_ = (a), *t_b_ = (b); \
        if (strcmp(t_a_, t_b_) != 0) \
            t_fail(__FILE__, __LINE__, #a " == " #b, " (\"%s\", \"%s\")", t_a_, t_b_); \
    } while (0)

/* The statements, run in a forked child, end by signal `sig` with `text` on stderr. A sanitizer
 * that turns SIGSEGV into a report and an exit is accepted too. Fork before the runtime runs. */
#define T_DIES(sig, text, ...) \
    do { \
        struct t_child t_child_; \
        if (t_dies_begin(&t_child_)) { \
            __VA_ARGS__; \
            t_dies_survived(); \
        } \
        t_dies_end(&t_child_, (sig), (text), __FILE__, __LINE__); \
    } while (0)

/* Leave the test; only in the body of a test. tools/test lists what was skipped. */
#define T_SKIP(...) \
    do { \
        t_skip(__func__, __VA_ARGS__); \
        return; \
    } while (0)

/* n, or less where everything is slower: sanitizers, Valgrind, an emulator. At least 1. */
#define T_SCALE(n) t_scale(n)

/* To compare before and after. Threads that end are not counted, and more than before are waited
 * for. Libc keeps the stacks of ended threads and the heaps made for them: warm up once before the
 * first look. */
struct t_usage {
    int fds, threads, maps;
};
struct t_usage t_usage(void);
#define T_SAME_USAGE(before) t_same_usage((before), __FILE__, __LINE__)

long t_resident(void); /* bytes in memory */

int t_procs(void); /* GORT_PROCS, or 2 */
long t_scale(long n);

void t_fail(const char *file, int line, const char *what, const char *fmt, ...)
    __attribute__((noreturn, format(printf, 4, 5)));
void t_skip(const char *test, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

struct t_child {
    int pid, err;
};
bool t_dies_begin(struct t_child *c);
void t_dies_survived(void) __attribute__((noreturn));
void t_dies_end(struct t_child *c, int sig, const char *text, const char *file, int line);
void t_same_usage(struct t_usage before, const char *file, int line);

#ifdef __cplusplus
}
#endif

#endif
