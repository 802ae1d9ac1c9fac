#include <gort.h>
#include <stdio.h>

static void hello(void *arg) {
    printf("hello from %s\n", (const char *)arg);
}

#ifndef HOG
int main(void) {
    return go_run(hello, "a green thread") != 0;
}
#else
/* Compiled with gort-checkpoints: computes on one P, and the other one runs nevertheless. */
static unsigned done;

static void other(void *arg) {
    hello(arg);
    __atomic_store_n(&done, 1, __ATOMIC_RELEASE);
}

static void hog(void *arg) {
    go_spawn(other, arg);
    while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE))
        ;
}

int main(void) {
    struct go_options options = GO_OPTIONS_INIT;
    options.procs = 1;
    options.flags = GO_STRICT;
    go_waitgroup home = {0};
    return go_start(&options) != 0 || go_waitgroup_spawn(&home, hog, "a green thread") != 0 ||
           go_waitgroup_wait(&home) != 0 || go_stop(GO_MINUTE) != 0;
}
#endif
