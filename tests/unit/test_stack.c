/* stack.c - each green thread has a stack of its size with a guard below it, and gives it back. */
#include "t_unit.h"

#include "base/fault.h"
#include "base/sys.h"
#include "sched/g.h"
#include "sched/stack.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { KB = 1024, MB = 1024 * KB, MAX_STACK = 8 * MB, SLAB = 64 * MB };

/* TSan has no more than 8,128 threads, and each stack that was ever used counts as one. */
#ifdef T_TSAN
enum { MOST_STACKS = 4000 };
#else
enum { MOST_STACKS = 100000 };
#endif

static void nothing(void *arg T_UNUSED) {
}

static void done(void *wg) {
    go_waitgroup_done(wg);
}

static int spawn_sized(size_t bytes, void (*fn)(void *), void *arg) {
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    o.stack_size = bytes;
    return go_spawn_with(&o, fn, arg);
}

/* A crowd that parks until it is let go. */
static struct {
    go_waitgroup gate, home;
    uint32_t parking;
} crowd;

static void wait_at_the_gate(void *arg T_UNUSED) {
    rt_fetch_add(&crowd.parking, 1);
    T_EQ(go_waitgroup_wait(&crowd.gate), 0);
    go_waitgroup_done(&crowd.home);
}

static void close_gate(void) {
    rt_store_relaxed(&crowd.parking, 0);
    go_waitgroup_add(&crowd.gate, 1);
}

static void gather(int n, size_t stack) {
    go_waitgroup_add(&crowd.home, n);
    for (int i = 0; i < n; i++)
        T_EQ(spawn_sized(stack, wait_at_the_gate, NULL), 0);
}

static void disperse(void) {
    go_waitgroup_done(&crowd.gate);
    T_EQ(go_waitgroup_wait(&crowd.home), 0);
}

/* ---- overflow ---------------------------------------------------------------------------------
 * */

static volatile bool endless = true;

static __attribute__((noinline)) int recurse(int depth) {
    volatile char frame[100];
    frame[0] = (char)depth;
    return endless ? recurse(depth + 1) + frame[0] : 0;
}

static void overflow_by_recursion(void *arg T_UNUSED) {
    recurse(0);
}

static __attribute__((noinline)) void touch_a_megabyte(void) {
    volatile char big[MB];
    for (size_t at = sizeof big; at >= 4096; at -= 4096)
        big[at - 1] = 1;
}

static void overflow_by_an_array(void *arg T_UNUSED) {
    touch_a_megabyte();
}

Test(stack, an_overflow_dies) {
    T_DIES(SIGSEGV, NULL, go_run(overflow_by_recursion, NULL));
    T_DIES(SIGSEGV, NULL, go_run(overflow_by_an_array, NULL));
}

static void overflow_of_size(void *arg) {
    T_EQ(spawn_sized((size_t)t_int(arg), overflow_by_recursion, NULL), 0);
    for (;;)
        go_sleep(GO_SECOND);
}

Test(stack, an_overflow_dies_in_every_size) {
    for (intptr_t bytes = 16 * KB; bytes <= MB; bytes *= 4)
        T_DIES(SIGSEGV, NULL, go_run(overflow_of_size, t_ptr(bytes)));
#ifndef T_TSAN /* whose shadow of the calls is smaller than this */
    T_DIES(SIGSEGV, NULL, go_run(overflow_of_size, t_ptr(MAX_STACK)));
#endif
}

/* Neighbours on both sides have filled what they own. The handler of the overflow runs on the
 * worker's other stack, sees that it was the guard, and that nobody else was written to. */
enum { NEIGHBOURS = 40, PATTERN_BYTES = 128 * KB };
static volatile unsigned char *patterns[NEIGHBOURS];

static void keep_a_pattern(void *arg) {
    volatile unsigned char pattern[PATTERN_BYTES];
    int me = (int)t_int(arg);
    for (int i = 0; i < PATTERN_BYTES; i++)
        pattern[i] = (unsigned char)(i * 7 + me);
    patterns[me] = pattern;
    wait_at_the_gate(NULL);
}

static bool patterns_are_whole(void) {
    for (int me = 0; me < NEIGHBOURS; me++)
        for (int i = 0; patterns[me] && i < PATTERN_BYTES; i++)
            if (patterns[me][i] != (unsigned char)(i * 7 + me))
                return false;
    return true;
}

static void on_overflow(int sig, siginfo_t *info, void *context T_UNUSED) {
    const struct rt_stack *s = rt_m()->g->stack;
    const char *slot = (const char *)(s + 1) - rt_stack_slot_bytes(s->size_class);
    const char *at = info->si_addr;
    bool guard = at >= slot && at < s->low, whole = patterns_are_whole();
    dprintf(2, "%s, %s\n", guard ? "the guard" : "not the guard", whole ? "whole" : "spoilt");
    signal(sig, SIG_DFL);
}

static void overflow_between_neighbours(void *arg) {
    struct sigaction act = {.sa_sigaction = on_overflow, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    go_waitgroup_add(&crowd.gate, 1);
    for (int i = 0; i < NEIGHBOURS; i++) {
        if (i == NEIGHBOURS / 2) { /* a slot in between stays free, for the culprit */
            T_SPAWN(wait_at_the_gate, NULL);
            T_AWAIT(rt_load_acquire(&crowd.parking) == (uint32_t)i + 1);
        }
        T_SPAWN(keep_a_pattern, t_ptr(i));
    }
    T_AWAIT(rt_load_acquire(&crowd.parking) == NEIGHBOURS + 1);
    T_EQ(sigaction(SIGSEGV, &act, NULL), 0);
    T_SPAWN(t_int(arg) ? overflow_by_an_array : overflow_by_recursion, NULL);
    for (;;)
        go_sleep(GO_SECOND);
}

Test(stack, an_overflow_hits_the_guard_and_nobody_else) {
    T_DIES(SIGSEGV, "the guard, whole", go_run(overflow_between_neighbours, t_ptr(0)));
    T_DIES(SIGSEGV, "the guard, whole", go_run(overflow_between_neighbours, t_ptr(1)));
}

/* ---- sizes ------------------------------------------------------------------------------------
 * */

#if defined(T_ASAN) || defined(T_TSAN)
enum { SPARE = 6 * KB }; /* their own calls need room, too */
#else
enum { SPARE = 2 * KB };
#endif

/* Write to all that is said to be ours. */
static __attribute__((noinline)) int use_it_all(const char *low) {
    volatile char frame[256];
    for (size_t i = 0; i < sizeof frame; i += 64)
        frame[i] = 1;
    return (const char *)frame > low + SPARE ? use_it_all(low) + frame[64] : 0;
}

struct sized {
    size_t bytes;
    go_waitgroup *wg;
};

static void check_room(void *arg) {
    struct sized sized = *(struct sized *)arg;
    const struct rt_stack *s = rt_self()->stack;
    size_t room = (size_t)((const char *)__builtin_frame_address(0) - s->low);
    size_t guard = sized.bytes / 16 > rt_sys_page_size() ? sized.bytes / 16 : rt_sys_page_size();
    T_ASSERT(room + guard + 2 * KB >= sized.bytes, "%zu of %zu", room, sized.bytes);
    if (sized.bytes >= 64 * KB)
        T_ASSERT(room >= sized.bytes / 16 * 14, "%zu of %zu", room, sized.bytes);
    T_ASSERT(use_it_all(s->low) >= 0);
    go_waitgroup_done(sized.wg);
}

GTest(stack, a_size_that_is_asked_for_is_there) {
    go_waitgroup wg = {0};
    static const size_t sizes[] = {16 * KB, 16 * KB + 1, 20000, 32 * KB, 64 * KB, 100 * KB,
                                   256 * KB, MB, 3 * MB, MAX_STACK - 1, MAX_STACK};
    struct sized sized[T_COUNT(sizes)];
    for (size_t i = 0; i < T_COUNT(sizes); i++) {
        sized[i] = (struct sized){sizes[i], &wg};
        go_waitgroup_add(&wg, 1);
        T_EQ(spawn_sized(sizes[i], check_room, &sized[i]), 0);
    }
    T_EQ(go_waitgroup_wait(&wg), 0);
}

GTest(stack, a_size_out_of_range_is_refused) {
    static const size_t bad[] = {1, 4096, 16 * KB - 1, MAX_STACK + 1, 16 * MB, SIZE_MAX / 2 + 1,
                                 SIZE_MAX};
    uint64_t spawned = t_stats().spawned;
    for (size_t i = 0; i < T_COUNT(bad); i++) {
        T_EQ(spawn_sized(bad[i], nothing, NULL), -EINVAL);
        T_EQ(rt_stack_class(bad[i]), -EINVAL);
    }
    T_EQ(t_stats().spawned, spawned);
}

static void check_default(void *arg) {
    check_room(arg);
}

Test(stack, the_default_size_is_an_option) {
    for (size_t bytes = 16 * KB; bytes <= MAX_STACK; bytes *= 8) {
        struct go_options o = GO_OPTIONS_INIT;
        go_waitgroup wg = {0};
        struct sized sized = {bytes, &wg};
        o.stack_size = bytes;
        T_EQ(go_start(&o), 0);
        go_waitgroup_add(&wg, 2);
        T_SPAWN(check_default, &sized);
        T_EQ(spawn_sized(bytes, check_default, &sized), 0); /* the default class by its size */
        T_EQ(go_waitgroup_wait(&wg), 0);
        t_stop();
    }
}

/* ---- reuse ------------------------------------------------------------------------------------
 * */

static bool count_one(struct rt_g *g T_UNUSED, void *n) {
    ++*(size_t *)n;
    return true;
}

/* What is mapped for stacks beside the promise that each struct rt_g makes. */
static size_t mapped_for_odd_sizes(void) {
    size_t promised = (size_t)go_procs() * RT_STACK_CACHE;
    rt_g_each(count_one, &promised);
    size_t slabs = (promised * rt_stack_slot_bytes(rt.stack_class) + SLAB - 1) / SLAB;
    return t_stats().stacks_mapped - slabs * SLAB;
}

GTest(stack, stacks_are_used_again) {
    go_waitgroup wg = {0};
    int n = (int)T_SCALE(100000), maps = 0;
    size_t cached = (size_t)go_procs() * (RT_STACK_CACHE + rt_g_cache) + 128;
    for (int i = 0; i < n; i++) {
        if (i == n / 10) /* libc has its arenas by now */
            maps = t_usage().maps;
        go_waitgroup_add(&wg, 1);
        T_SPAWN(done, &wg);
        T_EQ(go_waitgroup_wait(&wg), 0);
    }
    size_t mapped = t_stats().stacks_mapped;
    T_EQ(mapped_for_odd_sizes(), 0);
    T_ASSERT(mapped <= cached * rt_stack_slot_bytes(rt.stack_class) + SLAB, "%zu MB", mapped / MB);
#if defined(T_ASAN) || defined(T_TSAN)
    maps += 10000; /* theirs */
#endif
    T_ASSERT(t_usage().maps <= maps + t_procs() + 8, "%d, then %d", maps, t_usage().maps);
}

static void *null_task(void *arg) {
    return arg;
}

static void burst_of_tasks(int n, size_t bytes) {
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    o.stack_size = bytes;
    for (int i = 0; i < n; i++) {
        go_task *t = go_task_spawn_with(&o, null_task, t_ptr(i));
        T_ASSERT(t);
        T_EQ(t_int(T_JOIN(t)), i);
    }
}

GTest(stack, odd_sizes_do_not_leak) {
    size_t mapped = 0;
    int n = 500;
    for (int round = 0; round < 20; round++) {
        close_gate();
        gather(n, 64 * KB);
        T_AWAIT(rt_load_acquire(&crowd.parking) == (uint32_t)n);
        disperse();
        close_gate();
        gather(20, MB); /* some may not have run when they are let go */
        disperse();
        burst_of_tasks(100, 512 * KB);
        if (round == 1)
            mapped = mapped_for_odd_sizes();
    }
    T_ASSERT(mapped_for_odd_sizes() <= mapped + SLAB, "%zu MB, then %zu MB", mapped / MB,
             mapped_for_odd_sizes() / MB);
}

Test(stack, a_refused_spawn_gives_its_stack_back) {
    struct go_options o = GO_OPTIONS_INIT;
    o.max_tasks = 100;
    T_EQ(go_start(&o), 0);
    crowd.gate = crowd.home = (go_waitgroup){0};
    go_waitgroup_add(&crowd.gate, 1);
    int spawned = 0;
    while (spawn_sized(MB, wait_at_the_gate, NULL) == 0)
        spawned++;
    T_ASSERT(spawned >= 98 && spawned <= 102, "%d", spawned);
    go_waitgroup_add(&crowd.home, spawned);
    size_t mapped = t_stats().stacks_mapped;
    for (int i = 0; i < 1000; i++)
        T_EQ(spawn_sized(MB, nothing, NULL), -EAGAIN);
    T_EQ(t_stats().stacks_mapped, mapped);
    disperse();
    t_stop();
}

Test(stack, nothing_is_left_after_the_stop) {
    struct t_usage before = {0};
    for (int round = 0; round < 4; round++) {
        if (round == 1)
            before = t_usage();
        T_EQ(go_start(NULL), 0);
        crowd.gate = crowd.home = (go_waitgroup){0};
        close_gate();
        gather(100, 0);
        gather(100, 32 * KB);
        disperse();
        for (int i = 0; i < 50; i++) /* perhaps never run */
            T_EQ(spawn_sized(MAX_STACK, nothing, NULL), 0);
        t_stop();
    }
    T_SAME_USAGE(before);
}

GTest(stack, a_hundred_thousand_parked_ones_wake, .timeout = 240) {
    int n = (int)T_SCALE(100000);
    if (n > MOST_STACKS)
        n = MOST_STACKS;
    close_gate();
    gather(n, 0);
    T_AWAIT(rt_load_acquire(&crowd.parking) == (uint32_t)n);
    T_ASSERT(t_stats().tasks_live >= (uint64_t)n);
    disperse();
}

/* ---- guards that fail -------------------------------------------------------------------------
 * */

static uint32_t ran;

static void run(void *arg T_UNUSED) {
    rt_fetch_add(&ran, 1);
}

Test(stack, who_gets_no_guard_runs_later) {
    T_EQ(go_start(NULL), 0);
    rt_fault_arm(RT_FAULT_GUARD, 1, false, ENOMEM);
    T_SPAWN(run, NULL);
    T_AWAIT(rt_load_acquire(&ran) == 1);
    T_EQ(rt_fault_points[RT_FAULT_GUARD].countdown, 0); /* it did fail */
    rt_fault_disarm();
    t_stop();
}

static void sleep_and_count(void *arg T_UNUSED) {
    for (int i = 0; i < 20; i++)
        T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
    rt_fetch_add(&ran, 1000);
}

/* While the kernel has no guards those with a stack go on; when it has some again all run. */
Test(stack, a_famine_of_guards_delays_only_the_new_ones) {
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < 4; i++)
        T_SPAWN(sleep_and_count, NULL);
    T_AWAIT(t_stats().parks >= 4); /* all have their stacks */
    rt_fault_arm(RT_FAULT_GUARD, 1, true, ENOMEM);
    for (int i = 0; i < 500; i++)
        T_SPAWN(run, NULL);
    T_AWAIT(rt_load_acquire(&ran) >= 4000);
    rt_fault_disarm();
    T_AWAIT(rt_load_acquire(&ran) == 4500);
    t_stop();
}

Test(stack, an_odd_size_without_a_guard_is_refused) {
    T_EQ(go_start(NULL), 0);
    T_EQ(spawn_sized(MB, run, NULL), 0);
    T_AWAIT(rt_load_acquire(&ran) == 1);
    size_t mapped = t_stats().stacks_mapped;
    rt_fault_arm(RT_FAULT_GUARD, 1, true, ENOMEM);
    int refused = 0; /* those that find a used stack in the depot need no guard */
    for (int i = 0; i < 500; i++)
        refused += spawn_sized(MB, run, NULL) == -EAGAIN;
    T_ASSERT(refused > 0);
    rt_fault_disarm();
    T_AWAIT(rt_load_acquire(&ran) == 501 - (uint32_t)refused);
    T_EQ(spawn_sized(MB, run, NULL), 0);
    T_AWAIT(rt_load_acquire(&ran) == 502 - (uint32_t)refused);
    T_EQ(t_stats().stacks_mapped, mapped);
    t_stop();
}

Test(stack, without_memory_for_stacks_a_spawn_says_so) {
    T_EQ(go_start(NULL), 0);
    rt_fault_arm(RT_FAULT_MMAP, 1, true, ENOMEM);
    int err = spawn_sized(MAX_STACK, run, NULL);
    T_ASSERT(err == -EAGAIN || err == -ENOMEM, "%d", err);
    rt_fault_disarm();
    T_EQ(spawn_sized(MAX_STACK, run, NULL), 0);
    T_AWAIT(rt_load_acquire(&ran) == 1);
    t_stop();
}

/* ---- kernels without MADV_GUARD_INSTALL -------------------------------------------------------
 * */

/* From here on madvise(MADV_GUARD_INSTALL) says -EINVAL, as it does before Linux 6.13. */
static bool no_light_guards(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 102, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {T_COUNT(code), code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

Test(stack, older_kernels_guard_by_mprotect) {
    if (!no_light_guards())
        T_SKIP("no seccomp filter here: %s", strerror(errno));
    bool light = true;
    size_t page = rt_sys_page_size();
    char *p = rt_sys_map(2 * page);
    T_EQ(rt_sys_guard(p, page, &light), 0);
    T_ASSERT(!light);
    rt_sys_unmap(p, 2 * page);
    T_DIES(SIGSEGV, NULL, go_run(overflow_by_recursion, NULL));
    T_DIES(SIGSEGV, "the guard, whole", go_run(overflow_between_neighbours, t_ptr(1)));
}

/* Each guard splits a mapping, and the kernel has a limit on them, which malloc needs, too. */
Test(stack, older_kernels_have_a_limit_of_stacks, .timeout = 120) {
#ifdef T_TSAN
    T_SKIP("more stacks than TSan has threads");
#endif
    if (rt_sys_max_maps() > 200000)
        T_SKIP("vm.max_map_count is %zu: this would take too long", rt_sys_max_maps());
    if (!no_light_guards())
        T_SKIP("no seccomp filter here: %s", strerror(errno));
    struct go_options o = GO_OPTIONS_INIT;
    o.stack_size = 16 * KB;
    T_EQ(go_start(&o), 0);
    int n = 0, err;
    go_waitgroup_add(&crowd.gate, 1);
    while ((err = go_spawn(wait_at_the_gate, NULL)) == 0)
        n++;
    T_EQ(err, -EAGAIN);
    T_ASSERT(n >= 1000 && (size_t)n <= rt_sys_max_maps() / 2, "%d", n);
    T_EQ(spawn_sized(256 * KB, nothing, NULL), -EAGAIN); /* all sizes share the limit */
    T_AWAIT(rt_load_acquire(&crowd.parking) == (uint32_t)n); /* each has got its stack */
    void *p = rt_sys_map(MB);
    T_ASSERT(p);
    rt_sys_unmap(p, MB);
    go_waitgroup_add(&crowd.home, n);
    disperse();
    T_AWAIT(t_stats().tasks_live == 0);
    go_waitgroup_add(&crowd.home, 1);
    T_SPAWN(done, &crowd.home); /* and they may be used again */
    T_EQ(go_waitgroup_wait(&crowd.home), 0);
    t_stop();
}
