/* hist.h - a histogram of durations in fixed memory, in the manner of HdrHistogram.
 *
 * A value of 128 ns or more falls into one of 128 equal steps between two powers of two, so a
 * percentile is off by less than 0.8 %; smaller values are exact. The largest value is kept apart.
 * Not shared: each worker has its own, merged when the workers have ended.
 */
#ifndef LOADGEN_HIST_H
#define LOADGEN_HIST_H

#include <stdint.h>

enum {
    HIST_STEP_BITS = 7,
    HIST_STEPS = 1 << HIST_STEP_BITS,
    HIST_MAX_BITS = 40, /* 18 minutes; longer ones are counted as that */
    HIST_SIZE = (HIST_MAX_BITS - HIST_STEP_BITS + 1) * HIST_STEPS,
};

struct hist {
    uint64_t total, max;
    uint64_t count[HIST_SIZE];
};

static inline void hist_add(struct hist *h, uint64_t ns) {
    if (ns > h->max)
        h->max = ns;
    if (ns >> HIST_MAX_BITS)
        ns = (UINT64_C(1) << HIST_MAX_BITS) - 1;
    unsigned shift = ns < HIST_STEPS ? 0 : 63 - HIST_STEP_BITS - (unsigned)__builtin_clzll(ns);
    /* ns >> shift is below 128 only for shift 0; from there on every shift adds 128 entries */
    h->count[shift * HIST_STEPS + (ns >> shift)]++;
    h->total++;
}

static inline void hist_merge(struct hist *to, const struct hist *from) {
    for (unsigned i = 0; i < HIST_SIZE; i++)
        to->count[i] += from->count[i];
    to->total += from->total;
    if (from->max > to->max)
        to->max = from->max;
}

/* The value in us that `percent` of the samples do not exceed: the middle of its step. */
static inline double hist_us(const struct hist *h, double percent) {
    uint64_t want = (uint64_t)((double)h->total * percent / 100), seen = 0;

    for (unsigned i = 0; i < HIST_SIZE; i++) {
        seen += h->count[i];
        if (seen > want) {
            unsigned shift = i < 2 * HIST_STEPS ? 0 : i / HIST_STEPS - 1;
            double low = (double)((uint64_t)(i - shift * HIST_STEPS) << shift);
            double us = (low + (double)((UINT64_C(1) << shift) >> 1)) / 1e3;
            return us > (double)h->max / 1e3 ? (double)h->max / 1e3 : us;
        }
    }
    return (double)h->max / 1e3;
}

#endif
