/* mutex.c - a lock for green threads and threads.
 *
 * rt_state: LOCKED, QUEUED (somebody is on the queue), WOKEN (one that was has been woken, and has
 * not come yet), and above these, while it is locked, the low bits of the id of the green thread
 * that holds it, for reports (0: a thread).
 *
 * Lock and unlock are one CAS each while QUEUED is clear. The queue is protected by rt_lock; so is
 * every change of QUEUED, and while LOCKED is set nobody but the holder clears it.
 *
 * Normally an unlock frees the mutex and wakes the first waiter, which competes with whoever runs
 * just now: that is fast, because the one who runs is hot. Until that one has come, and got it or
 * gone back to the front of the queue, the other unlocks wake nobody: of several only one could get
 * it. (Without that each unlock of 64 tasks on two Ps woke another, to be stolen, to find the mutex
 * taken and to park again: 42 ns a pair instead of 20.) A waiter that has waited for 1 ms is
 * starving: the next unlock hands the mutex over to it, locked. So nobody waits much longer than
 * 1 ms times the number of those before it, and the time in which those who were woken were not
 * run. Both rules are those of Go's sync.Mutex.
 *
 * Promise to whoever frees the mutex after its unlock: the unlock touches it last with the store
 * that releases it; rt_state and rt_lock are therefore released together, as one word of 64
 * bits. */
#include "base/lock.h"
#include "base/log.h"
#include "base/san.h"
#include "base/sys.h"
#include "sched/start.h"
#include "sync/lot.h"
#include "sync/mutex.h"
#include "sync/spin.h"

enum { LOCKED = RT_MUTEX_LOCKED, QUEUED = RT_MUTEX_QUEUED, WOKEN = RT_MUTEX_WOKEN };
enum { OWNER_SHIFT = RT_MUTEX_OWNER_SHIFT, HANDED_OVER = 1 };
static const int64_t STARVING_NS = 1000 * 1000;

_Static_assert(sizeof(go_mutex) == 16 && offsetof(go_mutex, rt_lock) == 4, "the public contract");

struct waiter {
    struct rt_waiter base;
    bool starving;
};

/* What the state says when g holds it. */
static inline uint32_t held_by(const struct rt_g *g) {
    return LOCKED | (uint32_t)rt_load_relaxed(&g->id) << OWNER_SHIFT;
}

static inline uint32_t held_by_self(void) {
    struct rt_m *m = rt_m();
    return rt_likely(m != NULL) ? held_by(m->g) : LOCKED;
}

bool rt_mutex_held(const uint32_t *lock, uint64_t id) {
    const go_mutex *m = rt_container_of(lock, const go_mutex, rt_lock);
    return ((rt_load_relaxed(&m->rt_state) >> OWNER_SHIFT ^ (uint32_t)id) << OWNER_SHIFT) == 0;
}

/* Both words at once. */
static void release(go_mutex *m, uint32_t state) {
    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "state is the low half");
    rt_san_released(&m->rt_lock);
    rt_store_release((uint64_t *)(void *)m, (uint64_t)state); /* pairs with the CASes on both */
}

/* mine: WOKEN, if this is who has been woken; else 0. */
static inline bool try_lock(go_mutex *m, uint32_t mine) {
    uint32_t state = rt_load_relaxed(&m->rt_state);
    while (!(state & LOCKED))
        if (rt_cas_acquire(&m->rt_state, &state, (state & ~mine) | held_by_self()))
            return true; /* pairs with unlock's release */
    return false;
}

static bool spin(go_mutex *m) {
    if (!rt_spin_pays())
        return false;
    for (int i = 0; i < RT_SPINS; i++) {
        if (!(rt_load_relaxed(&m->rt_state) & LOCKED) && try_lock(m, 0))
            return true;
        rt_cpu_relax();
    }
    return false;
}

/* Under rt_lock: the mutex; or QUEUED set beside LOCKED, and `mine` cleared. */
static bool lock_or_mark(go_mutex *m, uint32_t mine) {
    while (!try_lock(m, mine)) {
        uint32_t state = rt_load_relaxed(&m->rt_state), marked = (state & ~mine) | QUEUED;
        if ((state & LOCKED) && (state == marked || rt_cas_relaxed(&m->rt_state, &state, marked)))
            return false;
    }
    return true;
}

static __attribute__((noinline)) int lock_slow(go_mutex *m, int64_t deadline) {
    if (try_lock(m, 0) || spin(m))
        return 0;
    struct rt_g *g = rt_self();
    struct waiter w = {.base.g = g};
    int64_t since = rt_sys_now();
    rt_contended();
    for (bool again = false;; again = true) {
        rt_lock(&m->rt_lock);
        if (lock_or_mark(m, again ? WOKEN : 0)) {
            rt_unlock(&m->rt_lock);
            return 0;
        }
        w.base.seq = rt_park_seq(g);
        w.starving = again && rt_sys_now() - since > STARVING_NS;
        if (again)
            rt_queue_push_front(&m->rt_waiters, &w.base.node);
        else
            rt_queue_push(&m->rt_waiters, &w.base.node);
        int r = rt_park(g, &m->rt_lock, RT_HARD, deadline, RT_WHY_MUTEX);
        if (r == HANDED_OVER)
            return 0;
        if (r < 0) {
            rt_lock(&m->rt_lock);
            if (rt_waiter_queued(&w.base))
                rt_queue_remove(&m->rt_waiters, &w.base.node);
            if (!m->rt_waiters)
                rt_fetch_and_relaxed(&m->rt_state, ~(uint32_t)QUEUED);
            rt_unlock(&m->rt_lock);
            return r;
        }
    }
}

void go_mutex_lock(go_mutex *m) {
    uint32_t state = 0;
    if (rt_likely(rt_cas_acquire(&m->rt_state, &state, held_by_self())))
        return; /* pairs with unlock's release */
    lock_slow(m, GO_FOREVER);
}

int go_mutex_trylock(go_mutex *m) {
    return try_lock(m, 0) ? 0 : -EBUSY;
}

int go_mutex_lock_until(go_mutex *m, int64_t deadline) {
    if (try_lock(m, 0))
        return 0;
    if (deadline <= rt_sys_now())
        return -ETIMEDOUT;
    return lock_slow(m, deadline);
}

static __attribute__((noinline)) void unlock_slow(go_mutex *m) {
    if (!(rt_load_relaxed(&m->rt_state) & LOCKED))
        rt_fatal("go_mutex_unlock: not locked");
    rt_lock(&m->rt_lock);
    for (struct rt_waiter *w; (w = rt_waiter_pop(&m->rt_waiters)) != NULL;) {
        bool hand_over = rt_container_of(w, struct waiter, base)->starving;
        struct rt_g *g = w->g;
        uint64_t seq = w->seq;
        uint32_t queued = m->rt_waiters ? QUEUED : 0;
        if (!rt_claim(g, seq, hand_over ? HANDED_OVER : 0))
            continue; /* it has just given up */
        release(m, queued | (hand_over ? held_by(g) : WOKEN));
        rt_ready(g);
        return;
    }
    release(m, 0);
}

void go_mutex_unlock(go_mutex *m) {
    if (rt_unlikely(!rt_mutex_unlock_alone(m)))
        unlock_slow(m);
}
