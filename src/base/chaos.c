/* chaos.c - see chaos.h. */
#include "base/chaos.h"

#include "base/log.h"
#include "base/sys.h"

#include <stdio.h>
#include <string.h>

#ifdef GORT_DEBUG

static const uint32_t MAX_DELAY_NS = 50 * 1000;

uint32_t rt_chaos_limit;
static uint64_t chaos_seed;
static char chaos_at[64]; /* "": everywhere */
static uint32_t threads;
static __thread uint64_t dice __attribute__((tls_model("initial-exec")));

/* noinline: the address of `dice` must not be kept across a switch. */
static __attribute__((noinline)) uint32_t roll(void) {
    if (dice == 0)
        dice = (chaos_seed + rt_fetch_add_relaxed(&threads, 1)) * UINT64_C(0x9E3779B97F4A7C15) | 1;
    dice ^= dice >> 12;
    dice ^= dice << 25;
    dice ^= dice >> 27;
    return (uint32_t)(dice * UINT64_C(0x2545F4914F6CDD1D) >> 32);
}

bool rt_chaos_flip_slow(const char *point) {
    return roll() < rt_load_relaxed(&rt_chaos_limit) && strstr(point, chaos_at);
}

void rt_chaos_delay_slow(const char *point) {
    if (!rt_chaos_flip_slow(point))
        return;
    uint32_t ns = roll() % MAX_DELAY_NS;
    for (int64_t until = rt_sys_now() + ns; rt_sys_now() < until;)
        rt_cpu_relax();
}

void rt_chaos_start(double probability, uint64_t seed, const char *at) {
    chaos_seed = seed;
    snprintf(chaos_at, sizeof chaos_at, "%s", at ? at : "");
    rt_store_relaxed(&threads, 1);
    rt_store_relaxed(&rt_chaos_limit, (uint32_t)(probability * UINT32_MAX));
}

#else

void rt_chaos_start(double probability, uint64_t seed, const char *at) {
    (void)seed;
    (void)at;
    if (probability > 0)
        rt_log("GORT_CHAOS has no effect: this library was built without GORT_DEBUG");
}

#endif
