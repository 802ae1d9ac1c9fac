/* atomic.h - every access to memory that two threads share goes through these names.
 *
 * The named orders show the whole repertoire of the runtime; a model build replaces this header.
 * Each use that is not seq_cst names its partner in a comment at the line.
 *
 * The asymmetric pair: a store and a later load of two words on a hot path are ordered against the
 * same on a rare path by rt_fence_light() on the hot side, a mere compiler barrier, and
 * rt_fence_heavy() on the rare one: membarrier(2) makes every running thread of the process pass a
 * full barrier (0.5 us where it was measured). Where the kernel refuses membarrier, both are
 * full. */
#ifndef RT_ATOMIC_H
#define RT_ATOMIC_H

#include <stdbool.h>
#include <stdint.h>

#define rt_load_relaxed(p)         __atomic_load_n((p), __ATOMIC_RELAXED)
#define rt_load_acquire(p)         __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define rt_load_seq_cst(p)         __atomic_load_n((p), __ATOMIC_SEQ_CST)
#define rt_store_relaxed(p, v)     __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define rt_store_release(p, v)     __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define rt_store_seq_cst(p, v)     __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
#define rt_exchange(p, v)          __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)
#define rt_exchange_relaxed(p, v)  __atomic_exchange_n((p), (v), __ATOMIC_RELAXED)
#define rt_exchange_acquire(p, v)  __atomic_exchange_n((p), (v), __ATOMIC_ACQUIRE)
#define rt_exchange_release(p, v)  __atomic_exchange_n((p), (v), __ATOMIC_RELEASE)
#define rt_exchange_acq_rel(p, v)  __atomic_exchange_n((p), (v), __ATOMIC_ACQ_REL)
#define rt_fetch_add(p, v)         __atomic_fetch_add((p), (v), __ATOMIC_SEQ_CST)
#define rt_fetch_add_relaxed(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)
#define rt_fetch_add_release(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELEASE)
#define rt_fetch_sub(p, v)         __atomic_fetch_sub((p), (v), __ATOMIC_SEQ_CST)
#define rt_fetch_sub_relaxed(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_RELAXED)
#define rt_fetch_sub_release(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_RELEASE)
#define rt_fetch_or(p, v)          __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST)
#define rt_fetch_or_relaxed(p, v)  __atomic_fetch_or((p), (v), __ATOMIC_RELAXED)
#define rt_fetch_or_release(p, v)  __atomic_fetch_or((p), (v), __ATOMIC_RELEASE)
#define rt_fetch_and(p, v)         __atomic_fetch_and((p), (v), __ATOMIC_SEQ_CST)
#define rt_fetch_and_relaxed(p, v) __atomic_fetch_and((p), (v), __ATOMIC_RELAXED)
#define rt_fetch_and_acquire(p, v) __atomic_fetch_and((p), (v), __ATOMIC_ACQUIRE)
#define rt_fetch_and_release(p, v) __atomic_fetch_and((p), (v), __ATOMIC_RELEASE)
#define rt_fetch_and_acq_rel(p, v) __atomic_fetch_and((p), (v), __ATOMIC_ACQ_REL)
#define rt_cas_(p, expected, v, yes, no) \
    __atomic_compare_exchange_n((p), (expected), (v), false, (yes), (no))
#define rt_cas(p, expected, v) rt_cas_(p, expected, v, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)
#define rt_cas_relaxed(p, expected, v) rt_cas_(p, expected, v, __ATOMIC_RELAXED, __ATOMIC_RELAXED)
#define rt_cas_acquire(p, expected, v) rt_cas_(p, expected, v, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)
#define rt_cas_release(p, expected, v) rt_cas_(p, expected, v, __ATOMIC_RELEASE, __ATOMIC_RELAXED)
#define rt_cas_acq_rel(p, expected, v) rt_cas_(p, expected, v, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)

/* A counter with one writer that others may read. */
#define rt_bump(p) rt_store_relaxed((p), rt_load_relaxed(p) + 1)

#define rt_likely(x)   __builtin_expect(!!(x), 1)
#define rt_unlikely(x) __builtin_expect(!!(x), 0)

#define RT_CACHE_LINE 64

#if defined(__x86_64__)
#define rt_cpu_relax() __builtin_ia32_pause()
/* A locked no-op on the own stack: the same order as mfence, at a third of its price. */
#define rt_fence_full() __asm__ __volatile__("lock; orl $0, (%%rsp)" ::: "memory", "cc")
#elif defined(__aarch64__)
#define rt_cpu_relax() __asm__ __volatile__("isb" ::: "memory")
#define rt_fence_full() __asm__ __volatile__("dmb ish" ::: "memory")
#else
#error "gort runs on x86-64 and aarch64"
#endif

extern bool rt_asymmetric; /* membarrier works; set before the first worker starts; relaxed */

static inline void rt_fence_light(void) {
    if (rt_unlikely(!rt_load_relaxed(&rt_asymmetric)))
        rt_fence_full();
    __asm__ __volatile__("" ::: "memory");
}

void rt_fence_heavy(void);

#endif
