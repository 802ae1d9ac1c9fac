/* sys.c - what the shipped files call of the kernel: futexes, time, memory; and their last words.
 *
 * A futex wait is one step: the kernel passes a full fence, takes the lock of the word's queue,
 * compares, and queues; so is a wake: a full fence (futex_hb_waiters_pending), then the queue. */
#include "checker.h"

#include "base/log.h"
#include "base/sys.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { ARENA_BYTES = 64 * 1024 };

bool rt_asymmetric = true;
int64_t model_clock;

static char arena[ARENA_BYTES] __attribute__((aligned(64)));
static size_t arena_used;

static int wait_bits(uint32_t *word, uint32_t expected, int64_t timeout_ns, uint32_t bits) {
    explore_point(0, false);
    uint32_t value = memory_kernel_load(word);
    bool sleeps = value == expected && !(C->spurious && model_choose(2) == 1);
    C->spurious -= value == expected && !sleeps;
    report_step(&memory_kernel_site, "wait(%p == %u): %s", (void *)word, expected,
                sleeps              ? "sleeps"
                : value == expected ? "interrupted"
                                    : "differs");
    if (!sleeps)
        return value == expected ? -EINTR : -EAGAIN;
    int64_t until = model_clock + timeout_ns;
    explore_sleep((uintptr_t)word, bits, timeout_ns >= 0);
    report_step(&memory_kernel_site, C->cur->timed_out ? "timed out" : "woken");
    if (C->cur->timed_out && C->clock_moves && model_clock < until)
        model_clock = until;
    return C->cur->timed_out ? -ETIMEDOUT : 0;
}

int rt_sys_futex_wait(uint32_t *word, uint32_t expected, int64_t timeout_ns) {
    return wait_bits(word, expected, timeout_ns, UINT32_MAX);
}

int rt_sys_futex_wait_bits(uint32_t *word, uint32_t expected, int64_t deadline, uint32_t bits) {
    int64_t left = deadline > model_clock ? deadline - model_clock : 0;
    return wait_bits(word, expected, deadline == INT64_MAX ? -1 : left, bits);
}

void rt_sys_futex_wake_bits(uint32_t *word, int count, uint32_t bits) {
    explore_point(0, false);
    C->cur->hash = mix(C->cur->hash, (uintptr_t)word + 1); /* it has gone on */
    explore_wake((uintptr_t)word, count, bits);
    report_step(&memory_kernel_site, "wake(%p)", (void *)word);
}

void rt_sys_futex_wake(uint32_t *word, int count) {
    rt_sys_futex_wake_bits(word, count, UINT32_MAX);
}

/* No scheduling point: between two points of others it does not matter when it was asked. */
int64_t rt_sys_now(void) {
    if (C->active && C->clock_moves) {
        model_clock += C->clock_step;
        C->cur->hash = mix(C->cur->hash, (uint64_t)model_clock);
    }
    return model_clock;
}

void model_clock_moves(void) {
    C->clock_moves = true;
}

void model_clock_step(int64_t ns) {
    C->clock_moves = true;
    C->clock_step = ns;
}

void rt_sys_yield(void) {
    model_wait_for_change();
}

void rt_sys_nap(int64_t ns) {
    (void)ns;
    model_wait_for_change();
}

uint64_t rt_sys_random(void) {
    return 1;
}

/* ---- memory: a block is {size, contents}; set back with everything else ---------------------- */

void *rt_sys_alloc_aligned(size_t bytes, size_t align) {
    (void)align; /* 64 is enough for all that the models use */
    size_t whole = 64 + (bytes + 63) / 64 * 64;
    if (whole > ARENA_BYTES - arena_used)
        model_fail("the model allocates too much");
    char *p = arena + arena_used;
    arena_used += whole;
    memcpy(p, &bytes, sizeof bytes);
    return p + 64;
}

void *rt_sys_alloc(size_t bytes) {
    return rt_sys_alloc_aligned(bytes, 64);
}

void *rt_sys_alloc_raw(size_t bytes) {
    return rt_sys_alloc_aligned(bytes, 64);
}

/* Not set back with everything else, but made anew. What a model has in the place of one is on the
 * heap. */
void *rt_sys_alloc_sparse(size_t bytes) {
    char *p = C->sparse + C->sparse_used;
    size_t whole = (bytes + 63) / 64 * 64;
    if (whole > SPARSE_BYTES - C->sparse_used)
        model_fail("the model allocates too much");
    C->sparse_used += whole;
    return memset(p, 0, bytes);
}
void rt_sys_free_sparse(void *p, size_t bytes) {
    if ((char *)p >= C->sparse && (char *)p < C->sparse + SPARSE_BYTES)
        race_gone_sparse((uintptr_t)p, bytes);
    else
        rt_sys_free(p);
}
void rt_sys_free(void *p) {
    size_t bytes;
    if (!p)
        return;
    memcpy(&bytes, (char *)p - 64, sizeof bytes);
    if (C->active)
        model_gone(p, bytes);
}

/* ---- last words ------------------------------------------------------------------------------ */

static __attribute__((noreturn)) void last_words(const char *fmt, va_list ap) {
    char text[256];
    vsnprintf(text, sizeof text, fmt, ap);
    model_fail("%s", text);
}

void rt_fatal(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    last_words(fmt, ap);
}

void rt_throw(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    last_words(fmt, ap);
}
