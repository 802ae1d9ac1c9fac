/* random.h - the generator behind every choice: victims, the case of a select. xorshift64*, S.
 * Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled" (2016). The
 * state belongs to its caller and is never 0. */
#ifndef RT_RANDOM_H
#define RT_RANDOM_H

#include <stdint.h>

static inline uint64_t rt_random_next(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * UINT64_C(0x2545F4914F6CDD1D);
}

/* 0..n-1, from the high bits; uneven by less than n / 2^32. */
static inline uint32_t rt_random_below(uint64_t *state, uint32_t n) {
    return (uint32_t)((rt_random_next(state) >> 32) * n >> 32);
}

#endif
