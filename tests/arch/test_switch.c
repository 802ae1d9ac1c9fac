/* arch.h - what a context is promised: its values, its registers, its stack, its end.
 *
 * It also prints the nanoseconds of a bare switch: without hooks, run queue and commit. */
#include "gotest.h"

#include "arch/arch.h"
#include "base/san.h"
#include "base/sys.h"

#include <errno.h>
#include <execinfo.h>
#include <fenv.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

#define NOINLINE __attribute__((noinline))
#define INLINE   static inline __attribute__((always_inline))

enum {
    STACK_BYTES = 256 * 1024,
    TOP = STACK_BYTES - 64, /* where the first frame begins: something else lies above it */
};

/* A context, and what the tools that watch stacks must know about it. */
struct side {
    struct rt_ctx ctx;
    struct rt_san san;
    char *low;
    unsigned valgrind_id;
    void (*body)(struct side *self, void *carry);
    struct side *home; /* where it goes when its body has returned */
};

/* Inlined, as in the runtime: the hooks belong into the frame that switches. */
INLINE void *go_to(struct side *from, struct side *to, void *carry) {
    rt_san_leave(&from->san, &to->san);
    carry = rt_arch_switch(&from->ctx, &to->ctx, carry);
    rt_san_arrive(&from->san);
    return carry;
}

static struct side *newborn; /* what the entry cannot be told by an argument */

static void entry(void *carry) {
    struct side *self = newborn;
    rt_san_arrive(&self->san);
    self->body(self, carry);
    rt_san_leave(NULL, &self->home->san);
    rt_arch_jump(&self->home->ctx, NULL);
}

static void begin_side(struct side *s, struct side *home, void (*body)(struct side *, void *)) {
    *s = (struct side){.body = body, .home = home};
    s->low = rt_sys_map(STACK_BYTES);
    T_ASSERT(s->low);
    s->valgrind_id = rt_san_stack_register(s->low, s->low + TOP);
    rt_san_init(&s->san, s->low, TOP);
    rt_arch_prepare(&s->ctx, s->low + TOP, entry);
}

/* The context of this thread. */
static void begin_home(struct side *s) {
    pthread_attr_t attr;
    void *low;
    size_t bytes;
    T_EQ(pthread_getattr_np(pthread_self(), &attr), 0);
    T_EQ(pthread_attr_getstack(&attr, &low, &bytes), 0);
    pthread_attr_destroy(&attr);
    *s = (struct side){.low = low};
    rt_san_init_thread(&s->san, low, bytes);
}

/* Its body has returned, or it is abandoned. */
static void end_side(struct side *s) {
    rt_san_destroy(&s->san);
    rt_san_stack_deregister(s->valgrind_id);
    rt_sys_unmap(s->low, STACK_BYTES);
}

#define PTR(n) ((void *)(intptr_t)(n))
#define INT(p) ((intptr_t)(p))

/* ---- values ---------------------------------------------------------------------------------- */

static void count_up(struct side *self, void *carry) {
    for (intptr_t expected = 7; carry; expected += 2) {
        T_EQ(INT(carry), expected);
        carry = go_to(self, self->home, PTR(expected + 1));
    }
}

Test(switch, values_are_carried_both_ways) {
    struct side home, other;
    begin_home(&home);
    begin_side(&other, &home, count_up);
    newborn = &other;
    for (intptr_t n = 7; n < 2007; n += 2)
        T_EQ(INT(go_to(&home, &other, PTR(n))), n + 1);
    T_EQ(INT(go_to(&home, &other, NULL)), 0);
    end_side(&other);
}

static void once(struct side *self, void *carry) {
    *(struct side **)carry = self;
}

Test(switch, a_context_may_be_made_anew_on_a_used_stack) {
    struct side home, other;
    begin_home(&home);
    for (int i = 0; i < 100; i++) {
        struct side *ran = NULL;
        begin_side(&other, &home, once);
        newborn = &other;
        go_to(&home, &other, &ran);
        T_ASSERT(ran == &other);
        end_side(&other);
    }
}

enum { CROWD = 100 };
static struct side crowd[CROWD];

/* Round robin: each goes to the next, the last one home. */
static void pass_on(struct side *self, void *carry) {
    long me = self - crowd;
    while (carry) {
        T_EQ(INT(carry) % CROWD, me);
        struct side *next = me + 1 < CROWD ? &crowd[me + 1] : self->home;
        newborn = next;
        carry = go_to(self, next, PTR(INT(carry) + 1));
    }
}

Test(switch, many_contexts_take_turns) {
    struct side home;
    begin_home(&home);
    for (int i = 0; i < CROWD; i++)
        begin_side(&crowd[i], &home, pass_on);
    newborn = &crowd[0];
    intptr_t n = CROWD;
    for (long rounds = T_SCALE(2000); rounds > 0; rounds--) {
        n = INT(go_to(&home, &crowd[0], PTR(n)));
        T_EQ(n % CROWD, 0);
    }
    for (int i = 0; i < CROWD; i++) {
        newborn = &crowd[i];
        go_to(&home, &crowd[i], NULL);
        end_side(&crowd[i]);
    }
}

/* ---- registers ------------------------------------------------------------------------------- */

typedef double pair __attribute__((vector_size(16)));

/* More values than there are registers, all live around each switch. */
struct values {
    uint64_t i[20];
    double d[20];
    pair v[6];
};

INLINE void take_turn(struct side *from, struct side *to, bool switching) {
    if (switching)
        go_to(from, to, from);
    else
        __asm__ __volatile__("" ::: "memory");
}

INLINE uint64_t mix(uint64_t a, uint64_t b) {
    return (a << 7 | a >> 57) * UINT64_C(0x9E3779B97F4A7C15) + b;
}

#define EACH_I(DO) \
    DO(0, 1) DO(1, 2) DO(2, 3) DO(3, 4) DO(4, 5) DO(5, 6) DO(6, 7) DO(7, 8) DO(8, 9) DO(9, 10) \
    DO(10, 11) DO(11, 12) DO(12, 13) DO(13, 14) DO(14, 15) DO(15, 16) DO(16, 17) DO(17, 18) \
    DO(18, 19) DO(19, 0)
#define EACH_V(DO) DO(0, 1) DO(1, 2) DO(2, 3) DO(3, 4) DO(4, 5) DO(5, 0)

/* The same computation with and without switches. The values are locals of their own names, so the
 * compiler keeps in registers what it can. */
INLINE void compute(struct values *out, struct side *from, struct side *to, long rounds,
                    uint64_t seed, bool switching) {
#define LOAD_I(n, m) \
    uint64_t i##n = seed + n; \
    double d##n = (double)(seed % 1000) + n;
#define LOAD_V(n, m) pair v##n = {(double)(seed % 100) + n, n};
#define STEP_I(n, m) \
    i##n = mix(i##n, i##m); \
    d##n = d##n * 0.5 + d##m;
#define STEP_V(n, m) v##n = v##n * 0.25 + v##m;
#define STORE_I(n, m) \
    out->i[n] = i##n; \
    out->d[n] = d##n;
#define STORE_V(n, m) out->v[n] = v##n;
    EACH_I(LOAD_I)
    EACH_V(LOAD_V)
    for (long r = 0; r < rounds; r++) {
        EACH_I(STEP_I)
        EACH_V(STEP_V)
        take_turn(from, to, switching);
    }
    EACH_I(STORE_I)
    EACH_V(STORE_V)
}

static NOINLINE void compute_alone(struct values *out, long rounds, uint64_t seed) {
    memset(out, 0, sizeof *out);
    compute(out, NULL, NULL, rounds, seed, false);
}

static NOINLINE void compute_switching(struct values *out, struct side *from, struct side *to,
                                       long rounds, uint64_t seed) {
    memset(out, 0, sizeof *out);
    compute(out, from, to, rounds, seed, true);
}

static long rounds;

static void compute_here(struct side *self, void *carry) {
    (void)carry;
    struct values switching, alone;
    compute_switching(&switching, self, self->home, rounds, 99);
    compute_alone(&alone, rounds, 99);
    T_ASSERT(memcmp(&switching, &alone, sizeof alone) == 0);
    go_to(self, self->home, PTR(1));
}

/* Both sides keep every register busy, so each destroys whatever the other has left in one. */
Test(switch, live_values_survive_ten_thousand_switches) {
    struct side home, other;
    struct values switching, alone;
    rounds = 10000;
    begin_home(&home);
    begin_side(&other, &home, compute_here);
    newborn = &other;
    compute_switching(&switching, &home, &other, rounds, 7);
    compute_alone(&alone, rounds, 7);
    T_ASSERT(memcmp(&switching, &alone, sizeof alone) == 0);
    T_EQ(INT(go_to(&home, &other, NULL)), 1);
    go_to(&home, &other, NULL);
    end_side(&other);
}

/* On x86-64 they live on a register stack of their own. */
INLINE long double sum_up(struct side *from, struct side *to, long n, bool switching) {
    volatile long double seed = 2;
    long double a = seed, b = seed * 5, c = seed * 7;
    for (long i = 0; i < n; i++) {
        take_turn(from, to, switching);
        a = a * 0.5L + b;
        b = b * 0.5L + c;
        c = c * 0.5L + (long double)i;
    }
    return a + b + c;
}

static NOINLINE long double sum_up_switching(struct side *from, struct side *to, long n) {
    return sum_up(from, to, n, true);
}
static NOINLINE long double sum_up_alone(long n) {
    return sum_up(NULL, NULL, n, false);
}

static void sum_up_here(struct side *self, void *carry) {
    (void)carry;
    T_ASSERT(sum_up_switching(self, self->home, 1000) == sum_up_alone(1000));
    go_to(self, self->home, PTR(1));
}

Test(switch, long_doubles_survive_too) {
    struct side home, other;
    begin_home(&home);
    begin_side(&other, &home, sum_up_here);
    newborn = &other;
    long double sum = sum_up_switching(&home, &other, 1000);
    T_EQ(INT(go_to(&home, &other, NULL)), 1);
    T_ASSERT(sum == sum_up_alone(1000));
    go_to(&home, &other, NULL);
    end_side(&other);
}

static void set_rounding(struct side *self, void *carry) {
    T_EQ(fegetround(), (int)INT(carry));
    T_EQ(fesetround(FE_DOWNWARD), 0);
    go_to(self, self->home, NULL);
    T_EQ(fegetround(), FE_TONEAREST);
}

/* Saving them would cost more than the switch; no program changes them in passing. */
Test(switch, control_words_belong_to_the_thread) {
    struct side home, other;
    begin_home(&home);
    begin_side(&other, &home, set_rounding);
    newborn = &other;
    T_EQ(fesetround(FE_UPWARD), 0);
    go_to(&home, &other, PTR(FE_UPWARD));
    T_EQ(fegetround(), FE_DOWNWARD);
    T_EQ(fesetround(FE_TONEAREST), 0);
    go_to(&home, &other, NULL);
    end_side(&other);
}

/* ---- the stack ------------------------------------------------------------------------------- */

/* The compiler knows what an aligned local is aligned to, so it must not see the address. */
static NOINLINE uintptr_t remainder_of(volatile void *p, uintptr_t align) {
    __asm__ __volatile__("" : "+r"(p));
    return (uintptr_t)p % align;
}

static void use_aligned_locals(struct side *self, void *carry) {
    char text[64];
    _Alignas(16) pair local = {1, 2};
    __asm__ __volatile__("" : "+m"(local)); /* stored and loaded by aligned moves */
    T_ASSERT(local[0] == 1 && local[1] == 2);
    T_EQ(remainder_of(&local, 16), 0);
    T_ASSERT((char *)&local > self->low && (char *)&local < self->low + STACK_BYTES);
    snprintf(text, sizeof text, "%.2f %s", 1.25, (const char *)carry); /* saves vector registers */
    T_STR_EQ(text, "1.25 aligned");
}

static void check_alignment_of_entry(void *carry) {
    T_EQ(remainder_of(__builtin_frame_address(0), 16), 0);
    entry(carry);
}

Test(switch, a_new_context_begins_on_an_aligned_stack) {
    struct side home, other;
    begin_home(&home);
    for (size_t colour = 0; colour < 16; colour++) {
        begin_side(&other, &home, use_aligned_locals);
        char *top = other.low + TOP - colour * 64;
        rt_arch_prepare(&other.ctx, top, check_alignment_of_entry);
        newborn = &other;
        go_to(&home, &other, "aligned");
        end_side(&other);
    }
}

/* Down and up again, with a switch on each level. */
static NOINLINE long deep(struct side *self, long depth) {
    volatile long mine = depth * 3;
    if (depth > 0)
        T_EQ(deep(self, depth - 1), (depth - 1) * 3);
    go_to(self, self->home, PTR(depth));
    T_EQ(mine, depth * 3);
    return mine;
}

enum { DEPTH = 500 };

static void go_deep(struct side *self, void *carry) {
    (void)carry;
    T_EQ(deep(self, DEPTH), DEPTH * 3);
}

Test(switch, a_deep_chain_of_calls_stays_whole) {
    struct side home, other;
    begin_home(&home);
    begin_side(&other, &home, go_deep);
    newborn = &other;
    for (int i = 0; i <= DEPTH; i++)
        T_EQ(INT(go_to(&home, &other, NULL)), i);
    go_to(&home, &other, NULL);
    end_side(&other);
}

/* A signal uses the stack below where it comes, whatever instruction of the switch that is. */
static volatile sig_atomic_t signals;

static void on_signal(int sig) {
    volatile char room[512];
    for (size_t i = 0; i < sizeof room; i++)
        room[i] = (char)sig;
    signals++;
}

static void to_and_fro(struct side *self, void *carry) {
    while (carry)
        carry = go_to(self, self->home, PTR(INT(carry) + 1));
}

Test(switch, signals_may_come_at_any_moment) {
#if RT_TSAN
    T_SKIP("TSan keeps signals back until a call of libc");
#endif
    struct side home, other;
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    T_EQ(sigaction(SIGALRM, &act, NULL), 0);
    begin_home(&home);
    begin_side(&other, &home, to_and_fro);
    newborn = &other;
    T_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
    for (intptr_t n = 1, many = T_SCALE(200); signals < many; n++)
        T_EQ(INT(go_to(&home, &other, PTR(n))), n + 1);
    T_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
    go_to(&home, &other, NULL);
    end_side(&other);
}

/* ---- backtraces ------------------------------------------------------------------------------ */

enum { MANY_FRAMES = 200 };

static NOINLINE void check_backtrace(int levels) {
    void *pc[MANY_FRAMES];
    int n = backtrace(pc, MANY_FRAMES);
    T_ASSERT(n >= levels && n <= levels + 4, "%d frames", n);
    /* The outermost one returns into the first instructions, and nothing lies behind them. */
    ptrdiff_t at = (char *)pc[n - 1] - (char *)rt_arch_entry;
    T_ASSERT(at > 0 && at < 64, "the last of %d frames is %td bytes behind rt_arch_entry", n, at);
}

static void look_back(struct side *self, void *carry) {
    (void)carry;
    check_backtrace(3); /* check_backtrace, look_back, entry */
    go_to(self, self->home, NULL);
    check_backtrace(3);
}

Test(switch, a_backtrace_ends_at_the_entry) {
    struct side home, other;
    void *pc[MANY_FRAMES];
    if (backtrace(pc, MANY_FRAMES) < 2) /* it loads libgcc, too: not on a small stack */
        T_SKIP("this libc has no backtraces");
    begin_home(&home);
    begin_side(&other, &home, look_back);
    newborn = &other;
    go_to(&home, &other, NULL);
    go_to(&home, &other, NULL);
    end_side(&other);
}

/* ---- the price ------------------------------------------------------------------------------- */

#if RT_ASAN || RT_TSAN
Test(switch, a_bare_switch_takes_some_nanoseconds) {
    T_SKIP("under a sanitizer no switch is bare");
}
#else
static struct rt_ctx bare_home, bare_other;

static void bare(void *carry) {
    for (;;)
        carry = rt_arch_switch(&bare_other, &bare_home, carry);
}

Test(switch, a_bare_switch_takes_some_nanoseconds) {
    char *low = rt_sys_map(STACK_BYTES);
    T_ASSERT(low);
    unsigned id = rt_san_stack_register(low, low + TOP);
    rt_arch_prepare(&bare_other, low + TOP, bare);
    double best = 1e9;
    long n = T_SCALE(1000000);
    for (int round = 0; round < 10; round++) {
        int64_t begin = rt_sys_now();
        for (long i = 0; i < n; i++)
            rt_arch_switch(&bare_home, &bare_other, NULL);
        double ns = (double)(rt_sys_now() - begin) / (double)(2 * n);
        if (ns < best)
            best = ns;
    }
    printf("%.2f ns per bare switch\n", best);
    rt_san_stack_deregister(id);
    rt_sys_unmap(low, STACK_BYTES);
}
#endif
