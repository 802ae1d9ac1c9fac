/* sys.c - what the rest of the runtime takes for granted of the system. */
#include "gotest.h"

#include "base/atomic.h"
#include "base/sys.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MS = 1000 * 1000, MARK = 4711 };

/* ---- memory ---------------------------------------------------------------------------------- */

static bool all_zero(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0)
            return false;
    return true;
}

static bool is_mapped(void *p) {
    unsigned char in_core;
    return mincore(p, 1, &in_core) == 0;
}

Test(sys, mapped_memory_is_zero_and_ours_until_unmapped) {
    size_t bytes = 5 * rt_sys_page_size();
    char *p = rt_sys_map(bytes);
    T_ASSERT(p && all_zero(p, bytes));
    memset(p, 0x55, bytes);
    T_ASSERT(is_mapped(p) && is_mapped(p + bytes - rt_sys_page_size()));
    rt_sys_unmap(p, bytes);
    T_ASSERT(!is_mapped(p) && !is_mapped(p + bytes - rt_sys_page_size()));
}

Test(sys, discarded_pages_are_zero_their_neighbours_are_not) {
    size_t page = rt_sys_page_size();
    char *p = rt_sys_map(4 * page);
    T_ASSERT(p);
    memset(p, 0x55, 4 * page);
    rt_sys_discard(p + page, 2 * page);
    T_EQ(p[page - 1], 0x55);
    T_ASSERT(all_zero(p + page, 2 * page));
    T_EQ(p[3 * page], 0x55);
    p[page] = 1;
    rt_sys_unmap(p, 4 * page);
}

Test(sys, stacks_are_mapped_aligned_and_nothing_beside_them) {
    int maps = t_usage().maps;
    for (size_t align = 16 * 1024; align <= (size_t)8 << 20; align *= 2) {
        char *p = rt_sys_map_stacks(3 * align, align);
        T_ASSERT(p);
        T_EQ((uintptr_t)p % align, 0);
        p[0] = p[3 * align - 1] = 1;
        rt_sys_unmap(p, 3 * align);
    }
#if !defined(T_ASAN) && !defined(T_TSAN)
    T_ASSERT(t_usage().maps <= maps + 2, "%d, then %d", maps, t_usage().maps);
#endif
    (void)maps;
}

/* An emulator takes the advice and does nothing; stack.c looks for that at the start, too. */
static bool light_ones_hold(void) {
    size_t page = rt_sys_page_size();
    char *p = rt_sys_map(page);
    bool light = true;
    T_ASSERT(p);
    T_EQ(rt_sys_guard(p, page, &light), 0);
    bool hold = light && rt_sys_guard_holds(p);
    rt_sys_unmap(p, page);
    return hold;
}

Test(sys, renewed_stacks_are_zero_and_without_guards) {
    size_t page = rt_sys_page_size(), size = 64 * page;
    bool light = light_ones_hold();
    char *p = rt_sys_map_stacks(size, size);
    T_ASSERT(p);
    memset(p, 0x55, size);
    T_EQ(rt_sys_guard(p, page, &light), 0);
    T_ASSERT(rt_sys_guard_holds(p));
    T_EQ(rt_sys_renew_stacks(p, size), 0);
    T_ASSERT(!rt_sys_guard_holds(p));
    T_ASSERT(all_zero(p, size));
#if !defined(T_ASAN) && !defined(T_TSAN) /* where mlock does nothing */
    T_EQ(mlock(p + 3 * page, 1), 0);
    p[3 * page] = 1;
    T_EQ(rt_sys_renew_stacks(p, size), -EAGAIN);
    T_EQ(p[3 * page], 1);
    T_EQ(munlock(p, size), 0);
    T_EQ(mlockall(MCL_FUTURE), 0);
    T_EQ(rt_sys_renew_stacks(p, size), 0);
    T_EQ(munlockall(), 0);
    unsigned char in_memory[64];
    T_EQ(mincore(p, size, in_memory), 0);
    for (int i = 0; i < 64; i++)
        T_EQ(in_memory[i] & 1, 0);
#endif
    rt_sys_unmap(p, size);
    T_EQ(rt_sys_renew_stacks(p + 1, size), -EAGAIN); /* EINVAL of the kernel */
}

Test(sys, no_memory_is_null) {
    T_ASSERT(rt_sys_map((size_t)1 << 60) == NULL);
    T_ASSERT(rt_sys_map_stacks((size_t)1 << 60, (size_t)1 << 20) == NULL);
    T_ASSERT(rt_sys_map_stacks(SIZE_MAX - 4095, 8192) == NULL);
}

Test(sys, allocated_memory_is_zero_and_aligned) {
    for (int round = 0; round < 100; round++) { /* some of it has been used before */
        for (size_t align = 64; align <= 4096; align *= 8) {
            char *p = rt_sys_alloc(1000), *q = rt_sys_alloc_aligned(1000, align);
            T_ASSERT(p && q && all_zero(p, 1000) && all_zero(q, 1000));
            T_EQ((uintptr_t)q % align, 0);
            memset(p, 0x55, 1000);
            memset(q, 0x55, 1000);
            rt_sys_free(p);
            rt_sys_free(q);
        }
    }
    void *empty = rt_sys_alloc(0);
    T_ASSERT(empty);
    rt_sys_free(empty);
    rt_sys_free(NULL);
}

Test(sys, a_page_is_a_power_of_two) {
    size_t page = rt_sys_page_size();
    T_ASSERT(page >= 4096 && (page & (page - 1)) == 0);
    T_ASSERT(rt_sys_max_maps() > 0);
}

/* ---- guards ---------------------------------------------------------------------------------- */

/* Three pages, the one in the middle guarded: by the means of the kernel, or by mprotect. */
static volatile char *guarded(bool light, size_t page) {
    char *p = rt_sys_map(3 * page);
    T_ASSERT(p);
    memset(p, 0x55, 3 * page);
    T_EQ(rt_sys_guard(p + page, page, &light), 0);
    return p;
}

static void write_to(volatile char *p) {
    *p = 1;
}

static char read_from(volatile char *p) {
    return *p;
}

Test(sys, a_guard_kills_whoever_touches_it) {
    size_t page = rt_sys_page_size();
    for (int light = 0; light <= light_ones_hold(); light++) {
        volatile char *p = guarded(light, page);
        T_DIES(SIGSEGV, NULL, write_to(p + page));
        T_DIES(SIGSEGV, NULL, write_to(p + 2 * page - 1));
        T_DIES(SIGSEGV, NULL, exit(read_from(p + page) & 0));
        T_EQ(p[page - 1], 0x55);
        T_EQ(p[2 * page], 0x55);
        p[page - 1] = p[2 * page] = 1;
        rt_sys_unmap((void *)p, 3 * page);
    }
}

Test(sys, a_guard_stays_when_its_neighbours_are_discarded) {
    size_t page = rt_sys_page_size();
    for (int light = 0; light <= light_ones_hold(); light++) {
        volatile char *p = guarded(light, page);
        rt_sys_discard((void *)p, page);
        rt_sys_discard((void *)(p + 2 * page), page);
        T_DIES(SIGSEGV, NULL, write_to(p + page));
        p[0] = p[2 * page] = 1;
        rt_sys_unmap((void *)p, 3 * page);
    }
}

/* mlockall(MCL_FUTURE) of the user's makes all memory like this. */
Test(sys, locked_memory_can_be_guarded) {
    size_t page = rt_sys_page_size();
    bool light = light_ones_hold();
    char *p = rt_sys_map(2 * page);
    T_ASSERT(p);
    if (mlock(p, 2 * page) != 0)
        T_SKIP("mlock: %s", strerror(errno));
    T_EQ(rt_sys_guard(p, page, &light), 0);
    T_DIES(SIGSEGV, NULL, write_to(p));
    p[page] = 1;
    rt_sys_unmap(p, 2 * page);
}

Test(sys, a_guard_over_nothing_is_an_error) {
    size_t page = rt_sys_page_size();
    for (int i = 0; i <= light_ones_hold(); i++) {
        bool light = i;
        char *p = rt_sys_map(page);
        T_ASSERT(p);
        rt_sys_unmap(p, page);
        T_EQ(rt_sys_guard(p, page, &light), -ENOMEM);
    }
}

/* ---- threads --------------------------------------------------------------------------------- */

struct seen {
    uint32_t go;
    char name[32];
    sigset_t blocked;
};

static void *look_at_self(void *arg) {
    struct seen *seen = arg;
    while (!rt_load_acquire(&seen->go)) /* the name is given from outside */
        rt_sys_nap(MS / 10);
    T_EQ(prctl(PR_GET_NAME, seen->name), 0);
    T_EQ(pthread_sigmask(SIG_SETMASK, NULL, &seen->blocked), 0);
    return arg;
}

Test(sys, a_thread_has_its_name_and_only_synchronous_signals) {
    struct seen seen = {0};
    pthread_t t;
    sigset_t before, after;
    void *result;
    sigemptyset(&before);
    sigaddset(&before, SIGUSR2);
    T_EQ(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
    T_EQ(rt_sys_thread(&t, look_at_self, &seen, "gort-test"), 0);
    rt_store_release(&seen.go, 1);
    T_EQ(pthread_join(t, &result), 0);
    T_ASSERT(result == &seen);
    T_STR_EQ(seen.name, "gort-test");
    static const int open[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    for (size_t i = 0; i < sizeof open / sizeof *open; i++)
        T_ASSERT(!sigismember(&seen.blocked, open[i]), "signal %d", open[i]);
    static const int shut[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGCHLD, SIGPIPE,
                               SIGPROF, SIGWINCH, SIGURG};
    for (size_t i = 0; i < sizeof shut / sizeof *shut; i++)
        T_ASSERT(sigismember(&seen.blocked, shut[i]), "signal %d", shut[i]);
    T_ASSERT(sigismember(&seen.blocked, SIGRTMIN));
    T_EQ(pthread_sigmask(SIG_SETMASK, NULL, &after), 0); /* the creator's are as they were */
    T_ASSERT(sigismember(&after, SIGUSR2) && !sigismember(&after, SIGUSR1));
}

Test(sys, threads_are_counted) {
    struct seen seen = {0};
    pthread_t t;
    T_EQ(rt_sys_thread(&t, look_at_self, &seen, "t"), 0); /* TSan's own comes with the first */
    rt_store_release(&seen.go, 1);
    T_EQ(pthread_join(t, NULL), 0);
    int before = t_usage().threads;
    while (rt_sys_thread_count() != before) /* that one may take a moment to vanish */
        before = t_usage().threads;
    seen.go = 0;
    T_EQ(rt_sys_thread(&t, look_at_self, &seen, "t"), 0);
    T_ASSERT(rt_sys_thread_count() > 1);
    rt_store_release(&seen.go, 1);
    T_EQ(pthread_join(t, NULL), 0);
}

static void pin_to_one_cpu(void) {
    cpu_set_t all, one;
    int first = 0;
    T_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    while (!CPU_ISSET(first, &all))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    T_EQ(sched_setaffinity(0, sizeof one, &one), 0);
}

Test(sys, cpus_are_those_of_the_affinity_mask) {
    cpu_set_t all;
    T_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    T_ASSERT(rt_sys_cpus() >= 1 && (int)rt_sys_cpus() <= CPU_COUNT(&all));
    pid_t pid = fork();
    T_ASSERT(pid >= 0);
    if (pid == 0) {
        pin_to_one_cpu();
        _exit(rt_sys_cpus() == 1 ? 0 : 1);
    }
    int status;
    T_EQ(waitpid(pid, &status, 0), pid);
    T_EQ(status, 0);
}

/* ---- futexes, the clock ---------------------------------------------------------------------- */

Test(sys, a_futex_wait_says_why_it_ended) {
    uint32_t word = 5;
    T_EQ(rt_sys_futex_wait(&word, 4, -1), -EAGAIN);
    T_EQ(rt_sys_futex_wait(&word, 5, 0), -ETIMEDOUT);
    int64_t begin = rt_sys_now();
    T_EQ(rt_sys_futex_wait(&word, 5, 2 * MS), -ETIMEDOUT);
    T_ASSERT(rt_sys_now() - begin >= 2 * MS);
    rt_sys_futex_wake(&word, 1); /* nobody there */
}

Test(sys, the_clock_goes_on_and_naps_last) {
    int64_t last = rt_sys_now();
    T_ASSERT(last > 0);
    for (int i = 0; i < 1000; i++) {
        int64_t now = rt_sys_now();
        T_ASSERT(now >= last);
        last = now;
    }
    rt_sys_nap(3 * MS);
    T_ASSERT(rt_sys_now() - last >= 3 * MS);
    rt_sys_yield();
}

Test(sys, random_numbers_differ) {
    uint64_t r[64];
    for (int i = 0; i < 64; i++) {
        r[i] = rt_sys_random();
        for (int j = 0; j < i; j++)
            T_ASSERT(r[i] != r[j]);
    }
}

/* ---- the asymmetric fence -------------------------------------------------------------------- */

/* Store one word, load the other, on two threads: with a light fence here and a heavy one there
 * both cannot have missed each other. */
static struct {
    uint32_t x, y;
    uint32_t round, done;
    uint32_t seen_x, seen_y;
} dekker;

static void spin(int *spins) {
    rt_cpu_relax();
    if (++*spins % 64 == 0)
        sched_yield();
}

static void *light_side(void *arg) {
    for (uint32_t i = 1; i <= (uint32_t)(uintptr_t)arg; i++) {
        for (int spins = 0; rt_load_acquire(&dekker.round) != i;)
            spin(&spins);
        rt_store_relaxed(&dekker.x, i);
        rt_fence_light();
        dekker.seen_y = rt_load_relaxed(&dekker.y);
        rt_store_release(&dekker.done, i);
    }
    return NULL;
}

static void play_dekker(uint32_t rounds) {
    pthread_t t;
    memset(&dekker, 0, sizeof dekker);
    T_EQ(pthread_create(&t, NULL, light_side, (void *)(uintptr_t)rounds), 0);
    for (uint32_t i = 1; i <= rounds; i++) {
        rt_store_release(&dekker.round, i);
        rt_store_relaxed(&dekker.y, i);
        rt_fence_heavy();
        dekker.seen_x = rt_load_relaxed(&dekker.x);
        for (int spins = 0; rt_load_acquire(&dekker.done) != i;)
            spin(&spins);
        T_ASSERT(dekker.seen_x == i || dekker.seen_y == i, "round %u: both are late", i);
    }
    T_EQ(pthread_join(t, NULL), 0);
}

Test(sys, one_of_two_fences_sees_the_other) {
    rt_asymmetric = false;
    play_dekker((uint32_t)T_SCALE(10000));
    rt_asymmetric = rt_sys_membarrier_register();
    if (!rt_asymmetric)
        T_SKIP("the kernel has no membarrier");
    play_dekker((uint32_t)T_SCALE(10000));
}

/* ---- errno ----------------------------------------------------------------------------------- */

#define KEEPS_ERRNO(call) \
    do { \
        errno = MARK; \
        (void)(call); \
        T_ASSERT(errno == MARK, #call ": errno is %d", errno); \
    } while (0)

Test(sys, calls_that_fail_leave_errno_alone) {
    uint32_t words[2] = {0}, word = 0;
    pthread_t t;
    bool light = true, heavy = false;
    size_t page = rt_sys_page_size();
    char *gone = rt_sys_map(page);
    rt_sys_unmap(gone, page);
    KEEPS_ERRNO(rt_sys_futex_wait(&word, 1, -1));
    KEEPS_ERRNO(rt_sys_futex_wait(&word, 0, 1000));
    KEEPS_ERRNO(rt_sys_map((size_t)1 << 60));
    KEEPS_ERRNO(rt_sys_map_stacks((size_t)1 << 60, (size_t)1 << 20));
    KEEPS_ERRNO(rt_sys_guard(gone, page, &light));
    KEEPS_ERRNO(rt_sys_guard(gone, page, &heavy));
    KEEPS_ERRNO((rt_sys_discard(gone, page), 0));
    KEEPS_ERRNO(rt_sys_renew_stacks(gone, page));
    KEEPS_ERRNO((rt_sys_futex_wake((void *)((char *)words + 1), 1), 0));
    KEEPS_ERRNO((rt_sys_unmap(gone + 1, 1), 0));
    KEEPS_ERRNO((rt_sys_nap(-1), 0));
#if !defined(T_ASAN) && !defined(T_TSAN)
    KEEPS_ERRNO(rt_sys_alloc((size_t)1 << 60));
    KEEPS_ERRNO(rt_sys_alloc_aligned((size_t)1 << 60, 64));
    pthread_attr_t attr;
    T_EQ(pthread_attr_init(&attr), 0);
    T_EQ(pthread_attr_setstacksize(&attr, (size_t)1 << 50), 0);
    T_EQ(pthread_setattr_default_np(&attr), 0);
    KEEPS_ERRNO(rt_sys_thread(&t, look_at_self, NULL, "t"));
    T_ASSERT(rt_sys_thread(&t, look_at_self, NULL, "t") < 0);
#endif
    (void)t;
}

static void *no_fd_is_left(void *arg) {
    KEEPS_ERRNO(rt_sys_thread_count());
    T_EQ(rt_sys_thread_count(), -EMFILE);
    KEEPS_ERRNO(rt_sys_max_maps());
    T_EQ(rt_sys_max_maps(), 65530);
    KEEPS_ERRNO(rt_sys_cpus());
    T_ASSERT(rt_sys_cpus() >= 1);
    return arg;
}

Test(sys, without_descriptors_it_says_so_or_guesses) {
    struct rlimit old, none;
    T_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 0;
    T_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    no_fd_is_left(NULL);
    T_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
}

Test(sys, calls_that_work_leave_errno_alone) {
    KEEPS_ERRNO(rt_sys_random());
    KEEPS_ERRNO(rt_sys_now());
    KEEPS_ERRNO(rt_sys_cpus());
    KEEPS_ERRNO(rt_sys_max_maps());
    KEEPS_ERRNO(rt_sys_thread_count());
    KEEPS_ERRNO(rt_sys_membarrier_register());
    KEEPS_ERRNO((rt_sys_membarrier(), 0));
}
