/* lock.h - the locks of the runtime itself, and a one-shot note.
 *
 * rt_lock: a word inside an object (channel, mutex, descriptor). Sections of a few dozen
 * instructions, and it may be carried across a context switch: the green thread that parks takes
 * it, the commit on the next context releases it by a plain store. So releasing never calls the
 * kernel; who finds it taken spins for about a microsecond, then gives up the CPU, because then the
 * holder has lost its own.
 *
 * rt_futex_lock: for sections that may call the kernel (mapping a slab, the stop). U. Drepper,
 * "Futexes are tricky" (2011), mutex 2: 0 free, 1 held, 2 held and somebody sleeps.
 *
 * rt_note: one thread waits, others say go; wakes may be spurious or stale, the waiter looks again.
 *
 * Order, outer first: cancel_lock of join.c, slab locks, object locks, globq lock, idle lock. A
 * thread holds at most one object lock, but for a select, which takes those of its channels in the
 * order of their addresses. */
#ifndef RT_LOCK_H
#define RT_LOCK_H

#include "base/atomic.h"

void rt_lock_slow(uint32_t *lock);

static inline bool rt_trylock(uint32_t *lock) {
    uint32_t free_word = 0;
    return rt_cas_acquire(lock, &free_word, 1); /* pairs with the release in rt_unlock */
}
static inline void rt_lock(uint32_t *lock) {
    if (rt_unlikely(!rt_trylock(lock)))
        rt_lock_slow(lock);
}
static inline void rt_unlock(uint32_t *lock) {
    rt_store_release(lock, 0); /* pairs with the acquire in rt_trylock */
}

void rt_futex_lock(uint32_t *lock);
void rt_futex_unlock(uint32_t *lock);

/* 0 woken (or spuriously so), -ETIMEDOUT. timeout_ns < 0 waits for ever. The note is left clear. */
int rt_note_wait(uint32_t *note, int64_t timeout_ns);
void rt_note_wake(uint32_t *note);

#endif
