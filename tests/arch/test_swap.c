/* swap.S: a function that ends in rt_arch_swap_in or _out returns to its caller with every register
 * that a call must keep, whatever the other side does with them. */
#include "gotest.h"

#include "arch/arch.h"
#include "base/atomic.h"
#include "base/san.h"
#include "base/sys.h"

#include <execinfo.h>
#include <stdio.h>

#if RT_ASAN || RT_TSAN

Test(swap, is_not_used_under_a_sanitizer) {
    T_SKIP("its hooks must stand in the frame that switches");
}

#else

#define NOINLINE __attribute__((noinline))
#define PTR(n)   ((void *)(intptr_t)(n))
#define INT(p)   ((intptr_t)(p))

enum { STACK_BYTES = 256 * 1024, HERE = 1, THERE = 2 };

static void *home, *other; /* stack pointers */
static uint32_t word;
static char *low;
static unsigned valgrind_id;

static NOINLINE int go_there(void *carry) {
    return rt_arch_swap_in(&home, &other, carry, &word, THERE);
}
static NOINLINE void *go_home(void *carry) {
    return rt_arch_swap_out(&other, &home, carry, &word, HERE);
}

static void begin(void (*entry)(void *carry)) {
    low = rt_sys_map(STACK_BYTES);
    T_ASSERT(low);
    valgrind_id = rt_san_stack_register(low, low + STACK_BYTES);
    other = rt_arch_swap_prepare(low + STACK_BYTES - 64, entry);
}

static void end(void) {
    rt_san_stack_deregister(valgrind_id);
    rt_sys_unmap(low, STACK_BYTES);
}

static void count_up(void *carry) {
    for (;;) {
        T_EQ(rt_load_acquire(&word), THERE);
        carry = go_home(PTR(INT(carry) + 1));
    }
}

Test(swap, values_are_carried_both_ways_and_the_word_says_who_runs) {
    begin(count_up);
    for (intptr_t n = 0; n < 1000; n += 2) {
        T_EQ(go_there(PTR(n)), n + 1);
        T_EQ(rt_load_acquire(&word), HERE);
    }
    end();
}

/* More values than a call keeps in registers, integers and doubles, all live around each swap. */
enum side { NOWHERE, FROM_HERE, FROM_THERE };

static NOINLINE uint64_t compute(enum side side, uint64_t seed, int rounds) {
    uint64_t a = seed, b = seed + 1, c = seed + 2, d = seed + 3, e = seed + 4, f = seed + 5,
             g = seed + 6, h = seed + 7, i = seed + 8, j = seed + 9, k = seed + 10, l = seed + 11;
    double p = (double)(seed % 100), q = p + 1, r = p + 2, s = p + 3, t = p + 4, u = p + 5,
           v = p + 6, w = p + 7, x = p + 8, y = p + 9;
    for (int n = 0; n < rounds; n++) {
        a = a * 31 + b, b = b * 33 + c, c = c * 35 + d, d = d * 37 + e, e = e * 39 + f;
        f = f * 41 + g, g = g * 43 + h, h = h * 45 + i, i = i * 47 + j, j = j * 49 + k;
        k = k * 51 + l, l = l * 53 + a;
        p = p * 0.5 + q, q = q * 0.5 + r, r = r * 0.5 + s, s = s * 0.5 + t, t = t * 0.5 + u;
        u = u * 0.5 + v, v = v * 0.5 + w, w = w * 0.5 + x, x = x * 0.5 + y, y = y * 0.5 + p;
        if (side == FROM_HERE)
            go_there(NULL);
        else if (side == FROM_THERE)
            go_home(NULL);
    }
    return a ^ b ^ c ^ d ^ e ^ f ^ g ^ h ^ i ^ j ^ k ^ l ^
           (uint64_t)(p + q + r + s + t + u + v + w + x + y);
}

enum { ROUNDS = 10000 };

static void compute_there(void *carry) {
    (void)carry;
    uint64_t got = compute(FROM_THERE, 99, ROUNDS);
    T_EQ(got, compute(NOWHERE, 99, ROUNDS));
    for (;;)
        go_home(PTR(1));
}

Test(swap, live_values_survive_ten_thousand_swaps) {
    begin(compute_there);
    uint64_t got = compute(FROM_HERE, 7, ROUNDS);
    T_EQ(got, compute(NOWHERE, 7, ROUNDS));
    T_EQ(go_there(NULL), 1);
    end();
}

static void check_the_frame(void *carry) {
    T_EQ((uintptr_t)__builtin_frame_address(0) % 16, 0);
    char text[64];
    snprintf(text, sizeof text, "%.2f %s", 1.25, (const char *)carry); /* saves vector registers */
    T_STR_EQ(text, "1.25 aligned");
    go_home(PTR(1));
}

Test(swap, a_new_context_begins_on_an_aligned_stack) {
    begin(check_the_frame);
    T_EQ(go_there("aligned"), 1);
    end();
}

static void look_back(void *carry) {
    void *pc[200];
    (void)carry;
    for (int i = 0; i < 2; i++) {
        int n = backtrace(pc, 200);
        ptrdiff_t at = n > 0 ? (char *)pc[n - 1] - (char *)rt_arch_entry : 0;
        T_ASSERT(at > 0 && at < 64, "the last of %d frames is %td bytes behind the entry", n, at);
        go_home(NULL);
    }
}

Test(swap, a_backtrace_ends_at_the_entry) {
    void *pc[200];
    if (backtrace(pc, 200) < 2) /* it loads libgcc, too: not on a small stack */
        T_SKIP("this libc has no backtraces");
    begin(look_back);
    go_there(NULL);
    go_there(NULL);
    end();
}

static void bounce(void *carry) {
    for (;;)
        carry = go_home(carry);
}

Test(swap, takes_some_nanoseconds) {
    begin(bounce);
    double best = 1e9;
    long n = T_SCALE(100000);
    for (int round = 0; round < 10; round++) {
        int64_t from = rt_sys_now();
        for (long i = 0; i < n; i++)
            go_there(NULL);
        double ns = (double)(rt_sys_now() - from) / (double)(2 * n);
        best = ns < best ? ns : best;
    }
    printf("%.2f ns per swap\n", best);
    end();
}

#endif
