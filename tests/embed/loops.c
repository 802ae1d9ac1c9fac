/* loops.c - compiled twice: with -fsanitize-coverage=trace-pc and N(x) checked_x, and without. */
#include "embed/loops.h"

#if CHECKED
#define N(name) checked_##name
#else
#define N(name) plain_##name
#endif
#define SEEN(word) __atomic_load_n((word), __ATOMIC_ACQUIRE)

void N(until)(const uint32_t *word, uint32_t bits) {
    while (!(SEEN(word) & bits))
        ;
}

uint32_t N(spin)(uint32_t laps) {
    volatile uint32_t x = 1;
    for (uint32_t i = 0; i < laps; i++)
        x = x * 1664525u + 1013904223u;
    return x;
}

#if CHECKED
static void one_block(const uint32_t *stop) {
    do {
    } while (!SEEN(stop));
}

static void left_in_the_middle(const uint32_t *stop) {
    volatile unsigned x = 0;
    for (;;) {
        x = x + 1;
        if (SEEN(stop))
            break;
        x = x + 2;
    }
}

static void by_goto(const uint32_t *stop) {
    volatile unsigned x = 0;
again:
    if (x++ & 1)
        goto odd;
    if (SEEN(stop))
        return;
    goto again;
odd:
    x = x + 2;
    goto again;
}

static void nested(const uint32_t *stop) {
    volatile unsigned x = 0;
    while (!SEEN(stop))
        for (int i = 0; i < 3; i++)
            for (int k = 0; k < i; k++)
                x = x + 1;
}

static void by_switch(const uint32_t *stop) {
    volatile unsigned x = 0;
    for (;;)
        switch (x++ % 4) {
        case 0:
        case 1:
            continue;
        case 2:
            if (SEEN(stop))
                return;
            break;
        default:
            x = x + 1;
        }
}

/* The entry of a function is the only thing that comes again. */
static __attribute__((noinline)) void enters(const uint32_t *stop, volatile unsigned *depth);
static void (*volatile again)(const uint32_t *stop, volatile unsigned *depth) = enters;
static void enters(const uint32_t *stop, volatile unsigned *depth) {
    if (++*depth < 100 && !SEEN(stop))
        again(stop, depth);
    --*depth;
}

static void recursive(const uint32_t *stop) {
    volatile unsigned depth = 0;
    while (!SEEN(stop))
        enters(stop, &depth);
}

static void over_an_array(const uint32_t *stop) {
    static uint32_t a[256];
    volatile uint32_t sum = 0;
    while (!SEEN(stop)) { /* vectorised where it can be */
        uint32_t s = 0;
        for (int i = 0; i < 256; i++)
            s += a[i];
        sum = sum + s;
    }
}

void checked_kind(unsigned kind, const uint32_t *stop) {
    static void (*const kinds[CHECKED_KINDS])(const uint32_t *) = {
        one_block, left_in_the_middle, by_goto, nested, by_switch, recursive, over_an_array};
    kinds[kind](stop);
}
#endif
