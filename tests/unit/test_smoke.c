/* ctest: once */
/* The harness itself: what each macro accepts. What it must reject is in tests/harness. */
#include "gotest.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int *volatile null;

Test(harness, a_test_may_set_its_own_limit, .timeout = 100) {
    T_ASSERT(1 + 1 == 2);
    T_ASSERT(true, "printed only when it is %s", "false");
    T_EQ(-1, 3 - 4);
    T_STR_EQ("park", "park");
    T_ASSERT(T_SCALE(1) == 1 && t_procs() > 0);
}

static void survive(void) {
    T_DIES(SIGABRT, "anything", (void)0);
}

static void say_other_words(void) {
    T_DIES(SIGABRT, "these words", abort());
}

Test(harness, dies_sees_signal_and_text) {
    int before = t_usage().fds;
    T_DIES(SIGABRT, "one 2", int a = 2, b = 1; fprintf(stderr, "one %d\n", a / b); abort());
    T_DIES(SIGABRT, "1 == 2", T_EQ(1, 2));
    T_DIES(SIGSEGV, NULL, *null = 1);
    T_DIES(SIGABRT, "(survived)", survive());
    T_DIES(SIGABRT, "these words", say_other_words());
    T_EQ(t_usage().fds, before);
}

static void *abort_thread(void *arg) {
    T_ASSERT(arg, "on a thread");
    return arg;
}

static void start_and_join(void *arg) {
    pthread_t t;
    T_EQ(pthread_create(&t, NULL, abort_thread, arg), 0);
    T_EQ(pthread_join(t, NULL), 0);
}

Test(harness, threads_may_start_and_fail_in_a_dying_child) {
    T_DIES(SIGABRT, "on a thread", start_and_join(NULL));
}

Test(harness, usage_counts_fds_and_threads) {
    start_and_join("anything");
    struct t_usage before = t_usage();
    start_and_join("anything");
    T_SAME_USAGE(before);
    int fd = dup(0);
    T_EQ(t_usage().fds, before.fds + 1);
    T_DIES(SIGABRT, "usage as before", T_SAME_USAGE(before));
    close(fd);
    T_SAME_USAGE(before);
}
