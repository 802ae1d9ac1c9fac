/* lock.c - slow paths of the locks. */
#include "base/lock.h"

#include "base/sys.h"

#include <errno.h>

enum { SPINS = 100, YIELDS = 32 };
static const int64_t NAP_NS = 50 * 1000;

/* The holder either runs, and is done within the spins, or has lost its CPU, and then the best use
 * of ours is to give it up. The naps at the end are for a waiter of a real-time class:
 * sched_yield(2) never lets a thread of a lower class run. */
void rt_lock_slow(uint32_t *lock) {
    for (unsigned round = 0;; round++) {
        for (int i = 0; i < SPINS; i++) {
            if (rt_load_relaxed(lock) == 0 && rt_trylock(lock))
                return;
            rt_cpu_relax();
        }
        if (round < YIELDS)
            rt_sys_yield();
        else
            rt_sys_nap(NAP_NS);
    }
}

void rt_futex_lock(uint32_t *lock) {
    uint32_t seen = 0;
    if (rt_cas_acquire(lock, &seen, 1))
        return;
    while (rt_exchange_acquire(lock, 2) != 0) /* pairs with rt_futex_unlock's */
        rt_sys_futex_wait(lock, 2, -1);
}

void rt_futex_unlock(uint32_t *lock) {
    /* The wake may hit a word that its owner has freed since: a stale address is allowed. */
    if (rt_exchange_release(lock, 0) == 2) /* pairs with rt_futex_lock's */
        rt_sys_futex_wake(lock, 1);
}

int rt_note_wait(uint32_t *note, int64_t timeout_ns) {
    if (rt_exchange_acquire(note, 0) != 0) /* pairs with rt_note_wake's */
        return 0;
    int err = rt_sys_futex_wait(note, 0, timeout_ns);
    bool told = rt_exchange_acquire(note, 0) != 0; /* the same */
    return !told && err == -ETIMEDOUT ? -ETIMEDOUT : 0;
}

void rt_note_wake(uint32_t *note) {
    if (rt_exchange_release(note, 1) == 0) /* pairs with rt_note_wait's */
        rt_sys_futex_wake(note, 1);
}
