/* sys.c - threads, memory, futexes and the clock, as the kernel offers them. */
#include "base/sys.h"

#include "base/atomic.h"
#include "base/chaos.h"
#include "base/check.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/san.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13 */
#endif

bool rt_asymmetric;

void rt_fence_heavy(void) {
    if (rt_load_relaxed(&rt_asymmetric))
        rt_sys_membarrier();
    else
        rt_fence_full();
}

static struct timespec to_timespec(int64_t ns) {
    return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

int rt_sys_futex_wait(uint32_t *word, uint32_t expected, int64_t timeout_ns) {
    if (rt_chaos_flip("sys: a futex wait ends for no reason"))
        return 0;
    struct timespec ts = to_timespec(timeout_ns < 0 ? 0 : timeout_ns);
    int saved = errno;
    long r = syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_ns < 0 ? NULL : &ts,
                     NULL, 0);
    int err = r < 0 ? -errno : 0;
    errno = saved;
    return err;
}

void rt_sys_futex_wake(uint32_t *word, int count) {
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
    errno = saved;
}

int rt_sys_futex_wait_bits(uint32_t *word, uint32_t expected, int64_t deadline, uint32_t bits) {
    if (rt_chaos_flip("sys: a futex wait for bits ends for no reason"))
        return 0;
    struct timespec ts = to_timespec(deadline < 0 ? 0 : deadline);
    int saved = errno;
    long r = syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected,
                     deadline == INT64_MAX ? NULL : &ts, NULL, bits);
    int err = r < 0 ? -errno : 0;
    errno = saved;
    return err;
}

void rt_sys_futex_wake_bits(uint32_t *word, int count, uint32_t bits) {
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, count, NULL, NULL, bits);
    errno = saved;
}

bool rt_sys_membarrier_register(void) {
    int saved = errno;
    bool ok = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0 &&
              syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
    errno = saved;
    return ok;
}

void rt_sys_membarrier(void) {
    int saved = errno;
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0)
        rt_fatal("membarrier(2) worked at the start and fails now: %m (a late seccomp filter?)");
    errno = saved;
}

int64_t rt_sys_now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void rt_sys_yield(void) {
    sched_yield();
}

void rt_sys_nap(int64_t ns) {
    struct timespec ts = to_timespec(ns);
    int saved = errno;
    nanosleep(&ts, NULL);
    errno = saved;
}

uint64_t rt_sys_random(void) {
    uint64_t r = 0;
    int saved = errno;
    if (getrandom(&r, sizeof r, GRND_NONBLOCK) != sizeof r)
        r = (uint64_t)rt_sys_now() * UINT64_C(0x9E3779B97F4A7C15);
    errno = saved;
    return r;
}

void *rt_sys_map(size_t bytes) {
    if (rt_fault(RT_FAULT_MMAP))
        return NULL;
    int saved = errno;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    errno = saved;
    return p == MAP_FAILED ? NULL : p;
}

enum { STACKS_PROT = PROT_READ | PROT_WRITE };
enum { STACKS_FLAGS = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK };

void *rt_sys_map_stacks(size_t bytes, size_t align) {
    size_t total;
    if (rt_fault(RT_FAULT_MMAP) || !rt_size_add(bytes, align, &total))
        return NULL;
    int saved = errno;
    char *p = mmap(NULL, total, STACKS_PROT, STACKS_FLAGS, -1, 0);
    if (p == MAP_FAILED) {
        errno = saved;
        return NULL;
    }
    size_t skip = (size_t)(-(uintptr_t)p & (align - 1));
    if (skip != 0)
        munmap(p, skip);
    munmap(p + skip + bytes, align - skip);
    p += skip;
    madvise(p, bytes, MADV_NOHUGEPAGE); /* one touch of a huge page would cost 2 MiB */
    errno = saved;
    return p;
}

void rt_sys_unmap(void *p, size_t bytes) {
    int saved = errno;
    munmap(p, bytes);
    errno = saved;
}

static int guard_install(void *p, size_t bytes) {
    if (rt_fault_before(RT_KERNEL(6, 13)))
        return -EINVAL;
    return madvise(p, bytes, MADV_GUARD_INSTALL) == 0 ? 0 : -errno;
}

int rt_sys_guard(void *p, size_t bytes, bool *light) {
    int err = rt_fault(RT_FAULT_GUARD);
    if (err)
        return err;
    int saved = errno;
    if (rt_load_relaxed(light)) {
        err = guard_install(p, bytes);
        if (err == -EINVAL) {
            /* Refused on locked memory (mlockall MCL_FUTURE), or a kernel before 6.13. */
            munlock(p, bytes);
            err = guard_install(p, bytes);
            if (err == -EINVAL)
                rt_store_relaxed(light, false);
        }
    }
    if (!rt_load_relaxed(light))
        err = mprotect(p, bytes, PROT_NONE) == 0 ? 0 : -errno;
    errno = saved;
    return err;
}

bool rt_sys_guard_holds(const void *p) {
    int saved = errno, end[2];
    bool holds = false;
    if (pipe2(end, O_CLOEXEC) == 0) { /* the kernel reads it, not we; Valgrind reads names itself */
        holds = write(end[1], p, 1) < 0 && errno == EFAULT;
        close(end[0]);
        close(end[1]);
    }
    errno = saved;
    return holds;
}

void rt_sys_discard(void *p, size_t bytes) {
    int saved = errno;
    madvise(p, bytes, MADV_DONTNEED);
    errno = saved;
}

int rt_sys_renew_stacks(void *p, size_t bytes) {
    int saved = errno, err = 0;
    /* Unmapped first: a mapping that fails must not leave us in doubt whose it is. */
    if (madvise(p, bytes, MADV_DONTNEED) != 0 || munmap(p, bytes) != 0) {
        err = -EAGAIN;
    } else {
        void *q = rt_fault(RT_FAULT_MMAP) ? MAP_FAILED
                                          : mmap(p, bytes, PROT_NONE,
                                                 STACKS_FLAGS | MAP_FIXED_NOREPLACE, -1, 0);
        if (q == p) /* after mlockall(MCL_FUTURE) it is locked, and would be filled */
            munlock(p, bytes);
        if (q != p || mprotect(p, bytes, STACKS_PROT) != 0) {
            if (q != MAP_FAILED)
                munmap(q, bytes);
            err = -ENOMEM;
        } else {
            madvise(p, bytes, MADV_NOHUGEPAGE);
        }
    }
    errno = saved;
    return err;
}

size_t rt_sys_page_size(void) {
    return (size_t)sysconf(_SC_PAGESIZE);
}

static bool read_line(const char *path, char *buf, size_t size) {
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool ok = fgets(buf, (int)size, f) != NULL;
    fclose(f);
    return ok;
}

size_t rt_sys_max_maps(void) {
    char line[32];
    size_t n = 0;
    int saved = errno;
    if (read_line("/proc/sys/vm/max_map_count", line, sizeof line))
        n = strtoul(line, NULL, 10);
    errno = saved;
    return n ? n : 65530;
}

/* Compilers believe that the allocation leaves errno alone (clang of calloc, gcc of posix_memalign,
 * as POSIX says and glibc does not), and would drop the restore as a store of what is there. */
static void restore_errno(int saved) {
    __asm__ __volatile__("" ::: "memory");
    errno = saved;
}

void *rt_sys_alloc(size_t bytes) {
    if (rt_fault(RT_FAULT_ALLOC))
        return NULL;
    int saved = errno;
    void *p = calloc(1, bytes ? bytes : 1);
    restore_errno(saved);
    return p;
}

void *rt_sys_alloc_raw(size_t bytes) {
    if (rt_fault(RT_FAULT_ALLOC))
        return NULL;
    int saved = errno;
    void *p = malloc(bytes);
    restore_errno(saved);
    return p;
}

void *rt_sys_alloc_aligned(size_t bytes, size_t align) {
    void *p = NULL;
    if (rt_fault(RT_FAULT_ALLOC))
        return NULL;
    int saved = errno;
    bool ok = posix_memalign(&p, align, bytes) == 0;
    restore_errno(saved);
    return ok ? memset(p, 0, bytes) : NULL;
}

void rt_sys_free(void *p) {
    free(p);
}

void *rt_sys_alloc_sparse(size_t bytes) {
    if (rt_fault(RT_FAULT_ALLOC))
        return NULL;
    int saved = errno;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p != MAP_FAILED) {
        madvise(p, bytes, MADV_NOHUGEPAGE); /* one touch of a huge page would cost 2 MiB */
        rt_san_root(p, bytes);
    }
    errno = saved;
    return p == MAP_FAILED ? NULL : p;
}

void rt_sys_free_sparse(void *p, size_t bytes) {
    if (!p)
        return;
    rt_san_root_gone(p, bytes);
    rt_sys_unmap(p, bytes);
}

#ifdef __GLIBC__
#define HAVE_ATTR_SIGMASK __GLIBC_PREREQ(2, 32)
#else
#define HAVE_ATTR_SIGMASK 0
#endif

/* All but the synchronous signals are blocked in the new thread from its first instruction. By the
 * attribute, where libc has it: then the caller's own mask is left alone. */
static int start_thread(pthread_t *t, pthread_attr_t *attr, void *(*fn)(void *), void *arg) {
    int err = rt_fault(RT_FAULT_THREAD);
    if (err)
        return err;
    sigset_t shut;
    sigfillset(&shut);
    static const int synchronous[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    for (size_t i = 0; i < sizeof synchronous / sizeof *synchronous; i++)
        sigdelset(&shut, synchronous[i]);
#if HAVE_ATTR_SIGMASK
    err = -pthread_attr_setsigmask_np(attr, &shut);
    return err ? err : -pthread_create(t, attr, fn, arg);
#else
    sigset_t before;
    pthread_sigmask(SIG_SETMASK, &shut, &before); /* the new thread inherits it */
    err = -pthread_create(t, attr, fn, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err;
#endif
}

static int make_thread(pthread_t *t, void *(*fn)(void *), void *arg, size_t stack_bytes) {
    pthread_attr_t attr;
    int err = -pthread_attr_init(&attr);
    if (err)
        return err;
    if (stack_bytes)
        pthread_attr_setstacksize(&attr, stack_bytes);
    err = start_thread(t, &attr, fn, arg);
    pthread_attr_destroy(&attr);
    return err;
}

int rt_sys_thread(pthread_t *t, void *(*fn)(void *), void *arg, const char *name) {
    int saved = errno;
    int err = make_thread(t, fn, arg, 0);
    if (err == 0)
        pthread_setname_np(*t, name);
    errno = saved;
    return err;
}

int rt_sys_thread_sized(void *(*fn)(void *), void *arg, size_t stack_bytes) {
    int saved = errno;
    pthread_t t;
    int err = make_thread(&t, fn, arg, stack_bytes);
    errno = saved;
    return err;
}

void rt_sys_thread_name(const char *name) {
    int saved = errno;
    pthread_setname_np(pthread_self(), name);
    errno = saved;
}

void rt_sys_alt_stack(void *base, size_t bytes) {
    int saved = errno;
    stack_t ss = {.ss_sp = base, .ss_size = bytes, .ss_flags = base ? 0 : SS_DISABLE};
    sigaltstack(&ss, NULL);
    errno = saved;
}

int rt_sys_tid(void) {
    return (int)syscall(SYS_gettid);
}

int rt_sys_pid(void) {
    return getpid();
}

bool rt_sys_may_switch(int pid) {
    int saved = errno;
    stack_t ss;
    bool may = getpid() == pid && sigaltstack(NULL, &ss) == 0 && !(ss.ss_flags & SS_ONSTACK);
    errno = saved;
    return may;
}

int rt_sys_errno(void) {
    return errno;
}

void rt_sys_set_errno(int value) {
    errno = value;
}

int64_t rt_sys_thread_cpu(pthread_t t) {
    clockid_t clock;
    struct timespec ts;
    int saved = errno;
    bool known = pthread_getcpuclockid(t, &clock) == 0 && clock_gettime(clock, &ts) == 0;
    errno = saved;
    return known ? (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec : -1;
}

char rt_sys_thread_state(int tid) {
    char text[512];
    int saved = errno;
    snprintf(text, sizeof text, "/proc/self/task/%d/stat", tid);
    int fd = open(text, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    errno = saved;
    text[n > 0 ? n : 0] = 0;
    const char *name_end = strrchr(text, ')'); /* "tid (name) S ..." */
    return name_end && name_end[1] == ' ' ? name_end[2] : 0;
}

int rt_sys_thread_count(void) {
    int saved = errno;
    DIR *d = opendir("/proc/self/task");
    if (!d) {
        int err = -errno;
        errno = saved;
        return err;
    }
    int n = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.';
    closedir(d);
    errno = saved;
    return n;
}
