/* stack.c: sizes, guards, reuse. */
#include "t_unit.h"

#include "base/fault.h"
#include "base/sys.h"
#include "sched/g.h"
#include "sched/stack.h"
#include "sched/sysmon.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* ---- classes --------------------------------------------------------------------------------- */

Test(stack, classes_are_powers_of_two_from_16k_to_8m) {
    static const struct {
        size_t bytes;
        int size_class;
    } table[] = {{0, -EINVAL},       {1, -EINVAL},           {16383, -EINVAL},
                 {16384, 0},         {16385, 1},             {32768, 1},
                 {65536, 2},         {65537, 3},             {256 << 10, 4},
                 {1 << 20, 6},       {(8 << 20) - 1, 9},     {8 << 20, 9},
                 {(8 << 20) + 1, -EINVAL}, {SIZE_MAX, -EINVAL}};
    for (size_t i = 0; i < T_COUNT(table); i++)
        T_EQ(rt_stack_class(table[i].bytes), table[i].size_class);
    for (unsigned c = 0; c < RT_STACK_CLASSES; c++)
        T_EQ(rt_stack_class(rt_stack_slot_bytes(c)), c);
}

/* ---- slots, without a runtime ---------------------------------------------------------------- */

static void check_slot(struct rt_stack *s, unsigned c) {
    size_t bytes = rt_stack_slot_bytes(c), page = 4096;
    uintptr_t base = (uintptr_t)s & ~(uintptr_t)(bytes - 1);
    T_EQ(s->size_class, c);
    T_EQ((uintptr_t)s + sizeof *s, base + bytes); /* at the top of an aligned slot */
    size_t guard = (size_t)((uintptr_t)s->low - base);
    T_EQ(guard, bytes / 16 > page ? bytes / 16 : page);
    uintptr_t top = (uintptr_t)rt_stack_top(s);
    T_EQ(top % 16, 0);
    T_ASSERT(top <= (uintptr_t)s && top > (uintptr_t)s - 1024);
    s->low[0] = 1; /* usable from end to end */
    ((char *)top)[-1] = 1;
}

Test(stack, slots_are_aligned_guarded_and_apart) {
    enum { N = 40 };
    struct rt_stack *s[N];
    T_EQ(rt_stack_start(2, 4), 0);
    for (unsigned c = 0; c < RT_STACK_CLASSES; c++) {
        for (int i = 0; i < N; i++) {
            T_ASSERT(s[i] = rt_stack_get(c));
            check_slot(s[i], c);
            for (int k = 0; k < i; k++)
                T_ASSERT((uintptr_t)s[i] >> (RT_STACK_MIN_SHIFT + c) !=
                         (uintptr_t)s[k] >> (RT_STACK_MIN_SHIFT + c));
        }
        for (int i = 0; i < N; i++)
            rt_stack_put(s[i]);
        size_t mapped, cached;
        rt_stack_stats(&mapped, &cached);
        T_EQ(cached, (c + 1) * N);
        for (int i = 0; i < N; i++) /* what was put is got again, nothing new is mapped */
            T_ASSERT(s[i] = rt_stack_get(c));
        size_t now, left;
        rt_stack_stats(&now, &left);
        T_EQ(now, mapped);
        T_EQ(left, c * N);
        for (int i = 0; i < N; i++)
            rt_stack_put(s[i]);
    }
    rt_stack_stop();
}

static void touch_guard(unsigned c, bool lowest) {
    T_EQ(rt_stack_start(1, 0), 0);
    struct rt_stack *a = rt_stack_get(c), *b = rt_stack_get(c);
    T_ASSERT(a && b);
    uintptr_t slot = rt_stack_slot_bytes(c);
    volatile char *guard = lowest ? (char *)((uintptr_t)b & ~(slot - 1)) : b->low - 1;
    *guard = 1;
}

Test(stack, a_guard_kills_whoever_touches_it) {
    T_DIES(SIGSEGV, NULL, touch_guard(0, false));
    T_DIES(SIGSEGV, NULL, touch_guard(0, true));
    T_DIES(SIGSEGV, NULL, touch_guard(4, false));
    T_DIES(SIGSEGV, NULL, touch_guard(9, true));
}

Test(stack, all_is_given_back) {
    struct rt_stack *s;
    T_EQ(rt_stack_start(2, 4), 0);
    rt_stack_stop();
    struct t_usage before = t_usage();
    for (int i = 0; i < 3; i++) {
        T_EQ(rt_stack_start(2, 4), 0);
        for (unsigned c = 0; c < RT_STACK_CLASSES; c++)
            for (int k = 0; k < 20; k++)
                T_ASSERT(s = rt_stack_get(c));
        rt_stack_stop();
        T_SAME_USAGE(before);
    }
}

Test(stack, without_memory_there_is_no_stack_and_no_slot_is_lost) {
    T_EQ(rt_stack_start(1, 4), 0);
    rt_fault_arm(RT_FAULT_GUARD, 1, true, ENOMEM);
    for (int i = 0; i < 1000; i++)
        T_ASSERT(!rt_stack_get(4));
    rt_fault_disarm();
    rt_fault_arm(RT_FAULT_MMAP, 1, true, ENOMEM);
    T_ASSERT(!rt_stack_get(2)); /* its first slab */
    T_EQ(rt_stack_reserve(100000), -ENOMEM);
    rt_fault_disarm();
    struct rt_stack *a = rt_stack_get(4), *b = rt_stack_get(2);
    T_ASSERT(a && b);
    check_slot(a, 4);
    check_slot(b, 2);
    rt_stack_stop();
}

/* ---- the scavenger, without a runtime -------------------------------------------------------- */

enum { MANY = 1000, SLAB = 256, KEPT = 256 }; /* slots of 256 KiB; those of a slab, of a depot */

static size_t page_table_bytes(void) {
    char line[200];
    size_t kb = 0;
    FILE *f = fopen("/proc/self/status", "re");
    T_ASSERT(f);
    while (fgets(line, sizeof line, f))
        sscanf(line, "VmPTE: %zu", &kb);
    fclose(f);
    T_ASSERT(kb > 0);
    return kb * 1024;
}

static void get_many(struct rt_stack **s) {
    for (int i = 0; i < MANY; i++) {
        T_ASSERT(s[i] = rt_stack_get(4));
        check_slot(s[i], 4);
        T_ASSERT(rt_sys_guard_holds(s[i]->low - 1));
        for (int k = 0; k < i; k++)
            T_ASSERT(s[i] != s[k]);
    }
}

static size_t mapped_bytes(void) {
    size_t mapped, cached;
    rt_stack_stats(&mapped, &cached);
    return mapped;
}

/* What was put is not needed any more. */
static void scavenge(size_t left) {
    static int64_t now = 1;
    for (int looks = 0; looks < 3; looks++, now += GO_SECOND)
        while (rt_stack_scavenge(now) == 0)
            ;
    size_t mapped, cached;
    rt_stack_stats(&mapped, &cached);
    T_EQ(cached, left);
}

#if defined(T_ASAN) || defined(T_TSAN)
#define SCAVENGED() T_SKIP("under a sanitizer stacks keep their contexts")
#else
#define SCAVENGED() (void)0
#endif

/* The depot keeps those that were put first, a whole slab. Of the others one is in use for a while,
 * and one slab was never full. */
Test(stack, a_slab_that_nobody_needs_is_as_new) {
    SCAVENGED();
    if (T_SCALE(20) < 5)
        T_SKIP("under Valgrind most of the page tables are its own");
    enum { OF_A_SLAB = SLAB / 8 * 4096, HELD = SLAB + 50, SLACK = 16384 }; /* one for each 2 MiB */
    struct rt_stack *s[MANY];
    T_EQ(rt_stack_start(1, 4), 0);
    get_many(s);
    size_t all = page_table_bytes(), mapped = mapped_bytes();
    for (int i = 0; i < MANY; i++)
        if (i != HELD)
            rt_stack_put(s[i]);
    scavenge(KEPT);
    size_t some = page_table_bytes();
    T_ASSERT(some + OF_A_SLAB <= all + SLACK, "%zu of %zu", some, all);
    T_ASSERT(some + 2 * OF_A_SLAB > all, "%zu of %zu", some, all);
    T_EQ(s[HELD]->low[0], 1); /* as check_slot has left it */
    rt_stack_put(s[HELD]);
    scavenge(KEPT); /* the others of its slab are bare */
    T_ASSERT(page_table_bytes() + OF_A_SLAB <= some + SLACK, "%zu", page_table_bytes());
    for (int round = 0; round < 3; round++) {
        get_many(s);
        T_EQ(mapped_bytes(), mapped);
        for (int i = 0; i < MANY; i++)
            rt_stack_put(s[round & 1 ? i : MANY - 1 - i]);
        scavenge(KEPT);
    }
    rt_stack_stop();
}

Test(stack, a_slab_that_cannot_be_renewed_is_kept_or_left_alone) {
    SCAVENGED();
    struct rt_stack *s[MANY];
    T_EQ(rt_stack_start(1, 4), 0);
    rt_stack_stop();
    struct t_usage before = t_usage();
    T_EQ(rt_stack_start(1, 4), 0);
    get_many(s);
    size_t mapped = mapped_bytes();
    T_EQ(mlock(s[SLAB + 1], 1), 0); /* MADV_DONTNEED refuses */
    for (int i = 0; i < MANY; i++)
        rt_stack_put(s[i]);
    rt_fault_arm(RT_FAULT_MMAP, 1, true, ENOMEM);
    scavenge(KEPT);
    T_EQ(rt_fault_points[RT_FAULT_MMAP].hits, 1); /* not the kept, the locked, the unfilled */
    rt_fault_disarm();
    T_EQ(mapped_bytes(), mapped - ((size_t)SLAB << 18));
    get_many(s);
    T_EQ(mapped_bytes(), mapped);
    rt_stack_stop();
    T_SAME_USAGE(before);
}

/* ---- on green threads ------------------------------------------------------------------------ */

static int spawn_sized(size_t bytes, void (*fn)(void *), void *arg) {
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    o.stack_size = bytes;
    return go_spawn_with(&o, fn, arg);
}

/* `bytes` of stack in frames of a kilobyte, each written and checked. */
static __attribute__((noinline)) int use_stack(int64_t bytes) {
    volatile char frame[1024];
    for (size_t i = 0; i < sizeof frame; i += 64)
        frame[i] = (char)(bytes >> 10);
    int below = bytes > 2048 ? use_stack(bytes - 1024 - 128) : 0;
    for (size_t i = 0; i < sizeof frame; i += 64)
        T_EQ(frame[i], (char)(bytes >> 10));
    return below + 1;
}

static void use_and_count(void *arg) {
    struct rt_stack *s = rt_self()->stack;
    char here;
    T_ASSERT(&here > s->low && &here < (char *)s);
    int64_t room = &here - s->low - 4096;
#if defined(T_ASAN) || defined(T_TSAN)
    room /= 4; /* frames are bigger there */
#endif
    use_stack(room);
    rt_fetch_add((int *)arg, 1);
}

Test(stack, every_size_can_be_used_to_its_end) {
    int ran = 0, n = 0;
    T_EQ(go_start(NULL), 0);
    for (size_t bytes = 16 << 10; bytes <= 8 << 20; bytes = bytes * 3 / 2, n++)
        T_EQ(spawn_sized(bytes, use_and_count, &ran), 0);
    T_EQ(spawn_sized(8 << 20, use_and_count, &ran), 0);
    T_AWAIT(rt_load_acquire(&ran) == n + 1);
    t_stop();
}

Test(stack, sizes_out_of_range_are_refused) {
    static const size_t bad[] = {1, 4096, 16383, (8 << 20) + 1, SIZE_MAX};
    int ran = 0;
    T_EQ(go_start(NULL), 0);
    for (size_t i = 0; i < T_COUNT(bad); i++)
        T_EQ(spawn_sized(bad[i], use_and_count, &ran), -EINVAL);
    T_EQ(spawn_sized(0, use_and_count, &ran), 0); /* the default */
    T_AWAIT(t_stats().tasks_live == 0);
    T_EQ(ran, 1);
    t_stop();
}

static void check_alignment(void *arg) {
    (void)arg;
    double v[4] __attribute__((aligned(16)));
    volatile double *p = v;
    for (int i = 0; i < 4; i++)
        p[i] = i * 1.5;
    T_EQ((uintptr_t)v % 16, 0);
    T_EQ((uintptr_t)__builtin_frame_address(0) % 16, 0);
    T_ASSERT(p[3] == 4.5);
    char text[64]; /* libc uses aligned vector moves */
    snprintf(text, sizeof text, "%.3f %d", p[3], 7);
    T_STR_EQ(text, "4.500 7");
}

GTest(stack, frames_are_aligned) {
    for (int i = 0; i < 100; i++) { /* every colour */
        T_SPAWN(check_alignment, NULL);
        T_EQ(spawn_sized(16 << 10, check_alignment, NULL), 0);
    }
    T_AWAIT(t_stats().tasks_live == 1);
}

static void short_lived(void *arg) {
    rt_fetch_add((int *)arg, 1);
}

Test(stack, those_of_the_dead_are_used_again) {
    int ran = 0, n = (int)T_SCALE(20000);
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < n; i++) {
        if (i % 4 == 0)
            T_EQ(spawn_sized(1 << 20, short_lived, &ran), 0);
        else
            T_SPAWN(short_lived, &ran);
        if (i % 100 == 99)
            T_AWAIT(t_stats().tasks_live == 0);
    }
    T_AWAIT(rt_load_acquire(&ran) == n);
    /* Each P keeps some Gs, and each of these stands for a stack. */
    size_t each = rt_stack_slot_bytes(rt.stack_class), slabs = 4 * ((size_t)64 << 20);
    T_ASSERT(t_stats().stacks_mapped <= (rt_g_cache + 512) * each * rt.procs + slabs);
    t_stop();
}

/* ---- what is refused, and what is left ------------------------------------------------------- */

static void check_default_class(void *arg) {
    const struct rt_stack *s = rt_self()->stack;
    T_EQ(rt_stack_slot_bytes(s->size_class), (size_t)t_int(arg));
    T_ASSERT((char *)__builtin_frame_address(0) - s->low >= t_int(arg) / 16 * 10);
}

Test(stack, the_default_size_is_an_option) {
    for (size_t bytes = 16 << 10; bytes <= 8 << 20; bytes *= 8) {
        struct go_options o = GO_OPTIONS_INIT;
        o.stack_size = bytes;
        T_EQ(go_start(&o), 0);
        T_SPAWN(check_default_class, t_ptr((intptr_t)bytes));
        T_EQ(spawn_sized(bytes, check_default_class, t_ptr((intptr_t)bytes)), 0);
        T_AWAIT(t_stats().tasks_live == 0);
        t_stop();
    }
}

static void park_for_ever(void *arg T_UNUSED) {
    T_EQ(go_sleep(GO_FOREVER), -ECANCELED);
}

Test(stack, a_refused_spawn_gives_its_stack_back) {
    struct go_options o = GO_OPTIONS_INIT;
    int spawned = 0, ran = 0;
    o.max_tasks = 100;
    T_EQ(go_start(&o), 0);
    while (spawn_sized(1 << 20, park_for_ever, NULL) == 0)
        spawned++;
    T_ASSERT(spawned >= 98 && spawned <= 102, "%d", spawned);
    size_t mapped = t_stats().stacks_mapped;
    for (int i = 0; i < 1000; i++)
        T_EQ(spawn_sized(1 << 20, short_lived, &ran), -EAGAIN);
    T_EQ(t_stats().stacks_mapped, mapped);
    t_stop();
    T_EQ(ran, 0);
}

static void wait_until_set(void *flag) {
    T_AWAIT(rt_load_acquire((uint32_t *)flag));
}

Test(stack, an_odd_size_without_a_guard_is_refused) {
    int ran = 0;
    uint32_t leave = 0;
    T_EQ(go_start(NULL), 0);
    T_EQ(spawn_sized(1 << 20, wait_until_set, &leave), 0);
    rt_fault_arm(RT_FAULT_GUARD, 1, true, ENOMEM);
    for (int i = 0; i < 500; i++)
        T_EQ(spawn_sized(1 << 20, short_lived, &ran), -EAGAIN);
    rt_store_release(&leave, 1);
    T_AWAIT(spawn_sized(1 << 20, short_lived, &ran) == 0); /* a used stack needs no new guard */
    rt_fault_disarm();
    T_EQ(spawn_sized(1 << 20, short_lived, &ran), 0);
    T_AWAIT(t_stats().tasks_live == 0);
    T_EQ(ran, 2);
    t_stop();
}

Test(stack, without_memory_for_an_odd_size_a_spawn_says_so) {
    int ran = 0;
    T_EQ(go_start(NULL), 0);
    rt_fault_arm(RT_FAULT_MMAP, 1, true, ENOMEM);
    int err = spawn_sized(8 << 20, short_lived, &ran);
    T_ASSERT(err == -EAGAIN || err == -ENOMEM, "%d", err);
    rt_fault_disarm();
    T_EQ(spawn_sized(8 << 20, short_lived, &ran), 0);
    T_AWAIT(t_stats().tasks_live == 0);
    T_EQ(ran, 1);
    t_stop();
}

Test(stack, nothing_is_left_after_the_stop) {
    struct t_usage before = {0};
    int ran = 0;
    for (int round = 0; round < 4; round++) {
        if (round == 1)
            before = t_usage();
        T_EQ(go_start(NULL), 0);
        for (int i = 0; i < 100; i++) {
            T_SPAWN(park_for_ever, NULL);
            T_EQ(spawn_sized(32 << 10, park_for_ever, NULL), 0);
        }
        for (int i = 0; i < 50; i++) /* perhaps still waiting for their turn */
            T_EQ(spawn_sized(8 << 20, short_lived, &ran), 0);
        t_stop();
    }
    T_EQ(ran, 200);
    T_SAME_USAGE(before);
}

/* ---- overflow -------------------------------------------------------------------------------- */

static char *guard_low, *guard_high;

static void on_segv(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)context;
    char *at = info->si_addr;
    bool hit = at >= guard_low && at < guard_high;
    const char *text = hit ? "in its guard\n" : "elsewhere\n";
    ssize_t n = write(2, text, strlen(text));
    (void)n;
    signal(SIGSEGV, SIG_DFL); /* the second time it dies */
}

static void watch_segv(void) {
    struct sigaction sa = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    T_EQ(sigaction(SIGSEGV, &sa, NULL), 0);
}

static __attribute__((noinline)) int recurse(int depth) {
    volatile char frame[512];
    frame[depth % 512] = 1;
    return depth < 0 ? 0 : recurse(depth + 1) + frame[0];
}

static __attribute__((noinline)) int big_frames(int depth) {
    volatile char frame[128 << 10]; /* could step over the guard, but for the compiler's probes */
    frame[0] = (char)depth;
    return depth < 0 ? 0 : big_frames(depth + 1) + frame[0];
}

static void overflow(void *arg) {
    struct rt_stack *s = rt_self()->stack;
    guard_high = s->low;
    guard_low = (char *)((uintptr_t)s & ~(rt_stack_slot_bytes(s->size_class) - 1));
    if (arg)
        big_frames(0);
    else
        recurse(0);
}

static void neighbour(void *arg) {
    volatile uint64_t pattern[64];
    for (int i = 0; i < 64; i++)
        pattern[i] = (uintptr_t)&pattern[i];
    T_EQ(go_sleep(GO_FOREVER), -ECANCELED);
    (void)arg;
}

static void overflow_beside_others(size_t bytes, bool big) {
    watch_segv();
    t_start((unsigned)t_procs());
    for (int i = 0; i < 20; i++)
        T_EQ(spawn_sized(bytes, neighbour, NULL), 0);
    T_AWAIT(t_stats().parks == 20);
    T_EQ(spawn_sized(bytes, overflow, t_ptr(big)), 0);
    T_AWAIT(false);
}

Test(stack, an_overflow_dies_in_its_own_guard) {
#if defined(T_ASAN) || defined(T_TSAN)
    const char *where = NULL; /* a sanitizer may be there first, or end otherwise */
#else
    const char *where = "in its guard";
#endif
    T_DIES(SIGSEGV, where, overflow_beside_others(0, false));
    T_DIES(SIGSEGV, where, overflow_beside_others(16 << 10, false));
    T_DIES(SIGSEGV, where, overflow_beside_others(1 << 20, true));
}

/* ---- a kernel without light guards ----------------------------------------------------------- */

/* madvise(..., MADV_GUARD_INSTALL) says EINVAL from now on, as before Linux 6.13. */
static void forbid_light_guards(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 102, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {T_COUNT(code), code};
    T_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    T_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static go_chan *silent;

static void park_until_closed(void *arg) {
    T_EQ(go_chan_recv(silent, NULL), -EPIPE);
    rt_fetch_add((int *)arg, 1);
}

Test(stack, guards_by_mprotect_are_guards_and_their_number_is_bounded, .timeout = 120) {
    int ended = 0, n = 0, r = 0;
    forbid_light_guards();
    T_DIES(SIGSEGV, NULL, touch_guard(0, false));
    T_DIES(SIGSEGV, NULL, touch_guard(9, true));
    silent = go_chan_new(0, 0);
    T_EQ(go_start(NULL), 0);
    int most = T_SCALE(200000) >= 100000 ? 200000 : 1000; /* Valgrind's map of them is a list */
    while (n < most && (r = go_spawn(park_until_closed, &ended)) == 0)
        n++;
    if (most > 1000 && rt_sys_max_maps() < (size_t)most) {
        T_EQ(r, -EAGAIN);
        T_ASSERT(n > 10000, "%d", n);
    }
    T_EQ(go_chan_close(silent), 0);
    T_AWAIT(rt_load_acquire(&ended) == n); /* the program goes on */
    T_SPAWN(short_lived, &ended);
    T_AWAIT(t_stats().tasks_live == 0);
    T_EQ(ended, n + 1);
    t_stop();
    go_chan_free(silent);
}

/* ---- memory goes back ------------------------------------------------------------------------ */

static size_t resident_bytes(void) {
    size_t pages = 0, ignored;
    FILE *f = fopen("/proc/self/statm", "re");
    T_ASSERT(f);
    T_EQ(fscanf(f, "%zu %zu", &ignored, &pages), 2);
    fclose(f);
    return pages * rt_sys_page_size();
}

static int crowd(int n) {
    int ended = 0;
    uint64_t parks = t_stats().parks;
    silent = go_chan_new(0, 0);
    for (int i = 0; i < n; i++)
        T_SPAWN(park_until_closed, &ended);
    T_AWAIT(t_stats().parks == parks + (uint64_t)n);
    T_EQ(go_chan_close(silent), 0);
    T_AWAIT(t_stats().tasks_live == 0);
    go_chan_free(silent);
    return ended;
}

/* Twice: the second crowd stands on stacks that were made bare, guards in place. */
Test(stack, a_burst_gives_its_memory_back) {
#if defined(T_ASAN) || defined(T_TSAN)
    T_SKIP("under a sanitizer stacks keep their contexts");
#endif
    enum { N = 20000 };
    if (T_SCALE(20) < 5)
        T_SKIP("under Valgrind most of the memory is its own");
    T_EQ(go_start(NULL), 0);
    size_t before = resident_bytes();
    for (int round = 0; round < 2; round++) {
        T_EQ(crowd(N), N);
        T_AWAIT(t_stats().stacks_cached <= 256);
        size_t left = resident_bytes() - before;
        T_ASSERT(left < (size_t)N * 1024 + (16 << 20), "%zu MB", left >> 20); /* 4 KiB each */
    }
    T_AWAIT(rt_load_acquire(&rt_sysmon_asleep)); /* and nothing is left to be done */
    t_stop();
}

static void overflow_on_a_bare_stack(void) {
    t_start_strict(1);
    T_EQ(crowd(2000), 2000);
    T_AWAIT(t_stats().stacks_cached <= 256);
    T_EQ(crowd(1000), 1000); /* the cache and the depot are used up */
    watch_segv();
    static int ended;
    silent = go_chan_new(0, 0);
    for (int i = 0; i < 1000; i++)
        T_SPAWN(park_until_closed, &ended);
    T_SPAWN(overflow, NULL);
    T_AWAIT(false);
}

Test(stack, a_bare_stack_has_its_guard) {
#if defined(T_ASAN) || defined(T_TSAN)
    T_SKIP("under a sanitizer stacks keep their contexts");
#endif
    T_DIES(SIGSEGV, "in its guard", overflow_on_a_bare_stack());
}
