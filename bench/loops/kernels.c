/* kernels.c - see kernels.h; compiled twice, with KERNELS the name of the table. */
#include "kernels.h"

#include <stddef.h>
#include <string.h>

static uint32_t numbers[KERNEL_N], work[KERNEL_N];
static char text[KERNEL_N];

static void fill(void) {
    uint32_t x = 1;

    for (int i = 0; i < KERNEL_N; i++) {
        x = x * 1664525u + 1013904223u;
        numbers[i] = x;
        text[i] = (char)(x >> 24);
    }
}

/* A chain of dependent multiplications, each 4 cycles long: what stands beside it is free. */
static uint64_t hash(void) {
    uint64_t h = UINT64_C(1469598103934665603);

    for (int i = 0; i < KERNEL_N; i++)
        h = (h ^ (unsigned char)text[i]) * UINT64_C(1099511628211);
    return h;
}

/* Vectorised, if nothing is in the way. */
static uint64_t sum(void) {
    uint32_t s = 0;

    for (int i = 0; i < KERNEL_N; i++)
        s += numbers[i];
    return s;
}

static void sift(uint32_t *a, size_t i, size_t n) {
    for (size_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && a[c + 1] > a[c])
            c++;
        if (a[i] >= a[c])
            return;
        uint32_t t = a[i];
        a[i] = a[c];
        a[c] = t;
    }
}

/* Branches that nobody foresees. */
static uint64_t heapsort(void) {
    memcpy(work, numbers, sizeof work);
    for (size_t i = KERNEL_N / 2; i-- > 0;)
        sift(work, i, KERNEL_N);
    for (size_t n = KERNEL_N - 1; n > 0; n--) {
        uint32_t t = work[0];
        work[0] = work[n];
        work[n] = t;
        sift(work, 0, n);
    }
    return work[KERNEL_N / 2];
}

static __attribute__((noinline)) uint64_t fib(unsigned n) {
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

/* Nothing but calls: the dearest case. */
static uint64_t calls(void) {
    return fib(20);
}

/* A byte at a time and a switch in it, as parsers have them. */
static uint64_t parse(void) {
    uint64_t words = 0, numbers_seen = 0, in = 0;

    for (int i = 0; i < KERNEL_N; i++) {
        char c = text[i];
        if (c >= '0' && c <= '9') {
            numbers_seen += in == 0;
            in = 1;
        } else if ((c | 32) >= 'a' && (c | 32) <= 'z') {
            words += in != 2;
            in = 2;
        } else {
            in = 0;
        }
    }
    return words << 32 | numbers_seen;
}

static uint64_t prepare(void) {
    fill();
    return 0;
}

const struct kernel KERNELS[] = {{"", 1, prepare}, /* first */
                                 {"hash, a byte", KERNEL_N, hash},
                                 {"sum, a number", KERNEL_N, sum},
                                 {"parse, a byte", KERNEL_N, parse},
                                 {"heapsort, a number", KERNEL_N, heapsort},
                                 {"fib, a call", 21891, calls},
                                 {NULL, 0, NULL}};
