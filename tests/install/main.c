#include <gort.h>
#include <stdio.h>

static void hello(void *arg) {
    printf("hello from %s\n", (const char *)arg);
}

int main(void) {
    return go_run(hello, "a green thread") != 0;
}
