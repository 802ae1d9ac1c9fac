/* Tests that must not pass: tests/harness/must_fail runs each of them and looks at what is said. */
#include "gotest.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static int shared;

Test(bad, fails) {
    T_EQ(shared, 1);
}

static void *fail_thread(void *arg) {
    T_ASSERT(arg);
    return NULL;
}

Test(bad, fails_on_a_thread) {
    pthread_t t;
    pthread_create(&t, NULL, fail_thread, NULL);
    pthread_join(t, NULL);
}

Test(bad, hangs, .timeout = 1) {
    for (;;)
        pause();
}

Test(bad, exits) {
    _exit(3);
}

static void *volatile lost;

Test(bad, leaks) {
    lost = malloc(100);
    lost = NULL;
}

/* TSan looks at a word by steps: of two accesses at the same moment it may see none. */
static int raced[1000];

static void *race_thread(void *arg) {
    for (int i = 0; i < 1000; i++)
        raced[i]++;
    return arg;
}

Test(bad, races) {
    pthread_t t;
    pthread_create(&t, NULL, race_thread, NULL);
    race_thread(NULL);
    pthread_join(t, NULL);
}
