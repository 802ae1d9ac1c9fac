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

static void *race_thread(void *arg) {
    (*(int *)arg)++;
    return NULL;
}

Test(bad, races) {
    pthread_t t;
    pthread_create(&t, NULL, race_thread, &shared);
    shared++;
    pthread_join(t, NULL);
}
