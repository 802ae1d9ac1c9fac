/* main.c - gort-loops: what -fsanitize-coverage=trace-pc costs code that computes, in ns. The best
 * of many short runs, plain and checked turn about, on one green thread. */
#include "kernels.h"

#include <gort.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 400 };

static double best[2];

static double timed(const struct kernel *k, uint64_t *result) {
    int64_t start = go_now();

    *result = k->run();
    return (double)(go_now() - start) / (double)k->ops;
}

static void measure(const struct kernel *plain, const struct kernel *checked) {
    uint64_t result[2];

    best[0] = best[1] = 1e18;
    for (int i = 0; i < ROUNDS; i++) {
        double ns[2] = {timed(plain, &result[0]), timed(checked, &result[1])};
        for (int k = 0; k < 2; k++)
            if (ns[k] < best[k])
                best[k] = ns[k];
        if (result[0] != result[1]) {
            fprintf(stderr, "%s: %" PRIu64 " and %" PRIu64 "\n", plain->name, result[0], result[1]);
            exit(1);
        }
    }
}

static void all(void *arg) {
    (void)arg;
    printf("%-20s %8s %8s\n", "ns", "plain", "checked");
    for (int i = 0; plain_kernels[i].name; i++) {
        measure(&plain_kernels[i], &checked_kernels[i]);
        if (*plain_kernels[i].name)
            printf("%-20s %8.2f %8.2f  %+.0f %%\n", plain_kernels[i].name, best[0], best[1],
                   (best[1] / best[0] - 1) * 100);
    }
}

int main(void) {
    return go_run(all, NULL) != 0;
}
