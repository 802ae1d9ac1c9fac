/* ctest: once */
/* env.c: what is understood, and one line for what is not. */
#include "t_unit.h"

#include "base/chaos.h"
#include "sched/env.h"
#include "sched/sched.h"

static struct rt_env read_env(char *text, size_t size) {
    struct rt_env e;
    struct t_stderr err = t_stderr_begin();
    rt_env_read(&e);
    t_stderr_end(err, text, size);
    return e;
}

static void clear(void) {
    static const char *const names[] = {"GORT_PROCS", "GORT_STACK", "GORT_GRACE",   "GORT_NETPOLL",
                                        "GORT_SEED",  "GORT_CHAOS", "GORT_CHAOS_AT"};
    for (size_t i = 0; i < T_COUNT(names); i++)
        unsetenv(names[i]);
}

/* Understood: nothing on stderr. */
static struct rt_env good(const char *name, const char *value) {
    char text[1000];
    clear();
    setenv(name, value, 1);
    struct rt_env e = read_env(text, sizeof text);
    T_ASSERT(!*text, "%s=%s: %s", name, value, text);
    return e;
}

/* Not understood: one line that names the variable and its value; the default. */
static struct rt_env bad(const char *name, const char *value) {
    char text[1000], expected[200];
    clear();
    setenv(name, value, 1);
    snprintf(expected, sizeof expected, "gort: %s=%s is not understood", name, value);
    struct rt_env e = read_env(text, sizeof text);
    T_ASSERT(strstr(text, expected) == text, "%s=%s: %s", name, value, text);
    T_ASSERT(strchr(text, '\n') == text + strlen(text) - 1, "one line: %s", text);
    return e;
}

Test(env, nothing_set_means_the_defaults) {
    char text[1000];
    clear();
    struct rt_env e = read_env(text, sizeof text);
    T_STR_EQ(text, "");
    T_EQ(e.procs, 0);
    T_EQ(e.stack, 0);
    T_EQ(e.grace_ns, 10 * GO_SECOND);
    T_ASSERT(!e.netpoll);
    e = good("GORT_PROCS", "");
    T_EQ(e.procs, 0);
    e = good("GORT_NETPOLL", "");
    T_ASSERT(!e.netpoll);
}

Test(env, procs_is_a_number_from_1_to_1024) {
    T_EQ(good("GORT_PROCS", "1").procs, 1);
    T_EQ(good("GORT_PROCS", "7").procs, 7);
    T_EQ(good("GORT_PROCS", "1024").procs, RT_MAX_PROCS);
    static const char *const wrong[] = {"0",  "1025", "-1", "-18446744073709551615", "two", "2 ",
                                        " 2", "+2",   "2K", "0x2", "2.5", "99999999999999999999"};
    for (size_t i = 0; i < T_COUNT(wrong); i++)
        T_EQ(bad("GORT_PROCS", wrong[i]).procs, 0);
}

Test(env, stack_takes_units) {
    T_EQ(good("GORT_STACK", "16384").stack, 16384);
    T_EQ(good("GORT_STACK", "16K").stack, 16384);
    T_EQ(good("GORT_STACK", "100k").stack, 102400);
    T_EQ(good("GORT_STACK", "1M").stack, 1 << 20);
    T_EQ(good("GORT_STACK", "8m").stack, 8 << 20);
    T_EQ(good("GORT_STACK", "8388608").stack, 8 << 20);
    static const char *const wrong[] = {"16383", "15K", "9M", "8388609", "1G", "K", "16KB", "16 K",
                                        "18014398509481985K", "-1M", "17592186044417M"};
    for (size_t i = 0; i < T_COUNT(wrong); i++)
        T_EQ(bad("GORT_STACK", wrong[i]).stack, 0);
}

Test(env, grace_is_in_milliseconds) {
    T_EQ(good("GORT_GRACE", "0").grace_ns, 0);
    T_EQ(good("GORT_GRACE", "1").grace_ns, GO_MILLISECOND);
    T_EQ(good("GORT_GRACE", "1000000000").grace_ns, 1000000000 * GO_MILLISECOND);
    static const char *const wrong[] = {"-1", "1000000001", "soon", "1s", "1K"};
    for (size_t i = 0; i < T_COUNT(wrong); i++)
        T_EQ(bad("GORT_GRACE", wrong[i]).grace_ns, 10 * GO_SECOND);
}

Test(env, netpoll_is_one_of_three) {
    T_STR_EQ(good("GORT_NETPOLL", "auto").netpoll, "auto");
    T_STR_EQ(good("GORT_NETPOLL", "uring").netpoll, "uring");
    T_STR_EQ(good("GORT_NETPOLL", "epoll").netpoll, "epoll");
    T_ASSERT(!bad("GORT_NETPOLL", "Epoll").netpoll);
    T_ASSERT(!bad("GORT_NETPOLL", "kqueue").netpoll);
    T_ASSERT(!bad("GORT_NETPOLL", "epoll ").netpoll);
}

Test(env, chaos_is_a_probability) {
    T_ASSERT(good("GORT_CHAOS", "0").chaos == 0.0);
    T_ASSERT(good("GORT_CHAOS", "0.25").chaos == 0.25);
    T_ASSERT(good("GORT_CHAOS", "1").chaos == 1.0);
    T_EQ(good("GORT_SEED", "18446744073709551615").seed, UINT64_MAX);
    static const char *const wrong[] = {"-0.1", "1.1", "often", "nan", "0.5x", "inf"};
    for (size_t i = 0; i < T_COUNT(wrong); i++)
        T_ASSERT(bad("GORT_CHAOS", wrong[i]).chaos == 0.0);
    T_ASSERT(!good("GORT_CHAOS", "1").chaos_at);
    T_STR_EQ(good("GORT_CHAOS_AT", "park: ").chaos_at, "park: ");
}

#if RT_CHAOS
static unsigned flips(double p, uint64_t seed, const char *at, bool out[1000]) {
    unsigned n = 0;
    rt_chaos_start(p, seed, at);
    for (int i = 0; i < 1000; i++)
        n += out[i] = rt_chaos_flip("env: here");
    rt_chaos_start(0, 0, NULL);
    return n;
}

static void *flips_of_a_thread(void *arg) {
    flips(0.5, 7, NULL, arg);
    return NULL;
}

Test(env, chaos_is_where_it_is_wanted_as_often_as_it_is_wanted) {
    bool one[1000], other[1000];
    T_EQ(flips(0, 1, NULL, one), 0);
    T_EQ(flips(0.999999, 1, NULL, one), 1000);
    T_EQ(flips(0.999999, 1, "v: h", one), 1000);
    T_EQ(flips(0.999999, 1, "there", one), 0);
    unsigned n = flips(0.05, 1, "", one);
    T_ASSERT(n > 10 && n < 150, "%u of 1000 at 0.05", n); /* nine standard deviations */
    pthread_t t;
    T_EQ(pthread_create(&t, NULL, flips_of_a_thread, one), 0);
    T_EQ(pthread_join(t, NULL), 0);
    T_EQ(pthread_create(&t, NULL, flips_of_a_thread, other), 0);
    T_EQ(pthread_join(t, NULL), 0);
    T_ASSERT(memcmp(one, other, sizeof one) == 0, "the seed decides");
}
#endif

Test(env, an_endless_value_is_one_line_too) {
    char value[5000];
    memset(value, '9', sizeof value - 1);
    value[sizeof value - 1] = 0;
    clear();
    setenv("GORT_PROCS", value, 1);
    char text[8000];
    T_EQ(read_env(text, sizeof text).procs, 0);
    T_ASSERT(strlen(text) < 600 && strchr(text, '\n') == text + strlen(text) - 1, "%s", text);
}

Test(env, reading_it_keeps_errno) {
    setenv("GORT_PROCS", "99999999999999999999", 1);
    setenv("GORT_CHAOS", "1e999", 1);
    setenv("GORT_STACK", "99999999999999999999K", 1);
    char text[1000];
    errno = 77;
    struct rt_env e;
    struct t_stderr err = t_stderr_begin();
    errno = 77;
    rt_env_read(&e);
    int after = errno;
    t_stderr_end(err, text, sizeof text);
    T_EQ(after, 77);
}

static void check_settings(void *arg) {
    (void)arg;
    T_EQ(go_procs(), 3);
    T_EQ(rt.stack_class, 2); /* 64 KiB */
    T_STR_EQ(t_stats().netpoll, "epoll");
}

Test(env, go_run_goes_by_it) {
    setenv("GORT_PROCS", "3", 1);
    setenv("GORT_STACK", "64K", 1);
    setenv("GORT_NETPOLL", "epoll", 1);
    T_RUN(check_settings, NULL);
}
