/* rwmutex.c - many readers or one writer.
 *
 * rt_state: how many readers hold it, and three bits:
 *   WRITER  a writer holds it
 *   STOP    a writer waits for those readers to leave: no more come in, and the last one to leave
 *           hands the lock over to the first writer on the queue
 *   QUEUED  somebody is on one of the two queues: a writer that leaves must look there
 * Lock and unlock are one CAS each while the bits that matter are clear. All else happens under the
 * lot's lock (lot.h): the queues, setting and clearing STOP and QUEUED, and every change of
 * rt_state while STOP, or WRITER and QUEUED, are set, which is then a plain store.
 *
 * Who leaves lets others go on in one of two ways: it hands the lock over to them, or it wakes them
 * to compete for it with those who run just now. To compete is the rule wherever it may be, because
 * who is handed the lock holds it while it waits for its turn to run, and everybody who runs
 * meanwhile must park: a convoy, in which each lock costs a park (64 tasks of which 1 in 100 writes
 * were 10 times slower, and stayed so). A hand-over is due
 *   - from the last reader to the writer that has set STOP;
 *   - from a writer to all the readers that wait, together, when another writer waits, too, or when
 *     one of them has been woken before and found the next writer inside;
 *   - from a writer to one that has waited for 1 ms and been woken in vain: it gets the lock, or,
 *     when there are readers to go in before, its STOP.
 * So while both wait readers and writers take turns: a reader waits for two writers at most, and
 * no reader that comes after a writer has set STOP passes it. Among writers the rule is that of the
 * mutex. Phase-fairness: B. Brandenburg, J. Anderson, "Spin-based reader-writer synchronization for
 * multiprocessor real-time systems" (2010). Go's sync.RWMutex has the same rules, but always hands
 * over to readers; it pays two locked instructions for an uncontended write.
 *
 * While QUEUED is set without STOP and WRITER, writers alone are queued, and one of them has been
 * woken and is on its way. Waits are HARD and have no deadline, so nobody leaves a queue of its
 * own. Whoever holds the lock keeps the object alive, and gives it up with the store or CAS to
 * rt_state: what follows touches the lot and those who go on. */
#include "base/log.h"
#include "base/sys.h"
#include "sync/lot.h"
#include "sync/spin.h"

#include <gort/sync.h>

static const uint32_t STOP = UINT32_C(1) << 29;
static const uint32_t WRITER = UINT32_C(1) << 30;
static const uint32_t QUEUED = UINT32_C(1) << 31;
static const uint32_t READERS = (UINT32_C(1) << 29) - 1;

enum { HANDED_OVER = 0, COMPETE = 1 };
static const int64_t STARVING_NS = 1000 * 1000;

_Static_assert(sizeof(go_rwmutex) == 32, "the public contract");

struct waiter {
    struct rt_waiter base;
    bool due; /* to be handed the lock; the first of its queue, if any */
};

static inline bool try_read(go_rwmutex *rw) {
    uint32_t state = rt_load_relaxed(&rw->rt_state);
    while ((state & ~QUEUED) < READERS) /* neither STOP nor WRITER, and room for one more */
        if (rt_cas_acquire(&rw->rt_state, &state, state + 1)) /* pairs with the unlocks' releases */
            return true;
    return false;
}

static inline bool try_write(go_rwmutex *rw) {
    uint32_t state = 0;
    do {
        if (rt_cas_acquire(&rw->rt_state, &state, state | WRITER)) /* with the unlocks' releases */
            return true;
    } while ((state & ~QUEUED) == 0);
    return false;
}

static bool spin(go_rwmutex *rw, bool (*take)(go_rwmutex *)) {
    if (!rt_spin_pays())
        return false;
    for (int i = 0; i < RT_SPINS && !(rt_load_relaxed(&rw->rt_state) & (QUEUED | STOP)); i++) {
        if (take(rw))
            return true;
        rt_cpu_relax();
    }
    return false;
}

/* Under the lot's lock: the lock, or QUEUED set, and STOP if a writer finds readers. The mark
 * acquires what readers who have left released: the last one, who hands over, takes it from the
 * lot's lock. */
static bool take_or_mark(go_rwmutex *rw, bool write) {
    while (!(write ? try_write(rw) : try_read(rw))) {
        uint32_t state = rt_load_relaxed(&rw->rt_state), held = state & ~QUEUED;
        if (!write && held == READERS)
            rt_fatal("go_rwmutex_rdlock: locked for reading too often");
        uint32_t marks = write && (state & READERS) ? QUEUED | STOP : QUEUED;
        bool is_free = write ? held == 0 : held < READERS;
        if (!is_free && rt_cas_acquire(&rw->rt_state, &state, state | marks))
            return false;
    }
    return true;
}

static __attribute__((noinline)) void lock_slow(go_rwmutex *rw, bool write) {
    if (spin(rw, write ? try_write : try_read))
        return;
    struct rt_g *g = rt_self();
    struct rt_lot *lot = rt_lot_of(rw);
    struct waiter w = {.base.g = g};
    int64_t since = write ? rt_sys_now() : 0;
    rt_contended();
    for (bool again = false;; again = true) {
        rt_lock(&lot->lock);
        if (take_or_mark(rw, write)) {
            rt_unlock(&lot->lock);
            return;
        }
        void **queue = write ? &rw->rt_writers : &rw->rt_readers;
        w.base.seq = rt_park_seq(g);
        if (again) {
            w.due = !write || rt_sys_now() - since > STARVING_NS;
            rt_queue_push_front(queue, &w.base.node);
        } else {
            rt_queue_push(queue, &w.base.node);
        }
        if (rt_park(g, &lot->lock, RT_HARD, GO_FOREVER, RT_WHY_RWMUTEX) == HANDED_OVER)
            return;
    }
}

static bool first_is_due(void *queue) {
    return queue && rt_container_of(rt_waiter_first(queue), struct waiter, base)->due;
}

/* Take the first waiter off, and append it to `gone`. Nobody else ends its wait. */
static void let_go(void **queue, struct rt_glist *gone, int how) {
    struct rt_waiter *w = rt_waiter_pop(queue);
    struct rt_g *g = w->g;
    if (rt_unlikely(!rt_claim(g, w->seq, how)))
        rt_throw("rwmutex: a waiter has vanished");
    rt_glist_push(gone, g);
}

/* Publish the state, with QUEUED as the queues are, and leave: the last touch of rw. */
static void leave(go_rwmutex *rw, struct rt_lot *lot, uint32_t state, struct rt_glist *gone) {
    if (rw->rt_readers || rw->rt_writers)
        state |= QUEUED;
    rt_store_release(&rw->rt_state, state); /* pairs with the acquiring CASes */
    rt_unlock(&lot->lock);
    rt_ready_all(gone);
}

/* ---- readers --------------------------------------------------------------------------------- */

void go_rwmutex_rdlock(go_rwmutex *rw) {
    if (rt_unlikely(!try_read(rw)))
        lock_slow(rw, false);
}

int go_rwmutex_tryrdlock(go_rwmutex *rw) {
    return try_read(rw) ? 0 : -EBUSY;
}

static __attribute__((noinline)) void rdunlock_slow(go_rwmutex *rw) {
    struct rt_glist gone = {0};
    struct rt_lot *lot = rt_lot_of(rw);
    rt_lock(&lot->lock);
    /* STOP is set, and stays while we hold it. */
    uint32_t state = rt_load_relaxed(&rw->rt_state) & ~QUEUED;
    if (!(state & STOP) || !(state & READERS))
        rt_fatal("go_rwmutex_rdunlock: not locked for reading");
    state--;
    if (state == STOP) {
        let_go(&rw->rt_writers, &gone, HANDED_OVER);
        state = WRITER;
    }
    leave(rw, lot, state, &gone);
}

void go_rwmutex_rdunlock(go_rwmutex *rw) {
    uint32_t state = rt_load_relaxed(&rw->rt_state);
    while ((state & ~QUEUED) - 1 < READERS) /* some readers, neither STOP nor WRITER */
        if (rt_likely(rt_cas_release(&rw->rt_state, &state, state - 1))) /* with try's acquire */
            return;
    rdunlock_slow(rw);
}

/* ---- writers --------------------------------------------------------------------------------- */

void go_rwmutex_wrlock(go_rwmutex *rw) {
    if (rt_unlikely(!try_write(rw)))
        lock_slow(rw, true);
}

int go_rwmutex_trywrlock(go_rwmutex *rw) {
    return try_write(rw) ? 0 : -EBUSY;
}

static __attribute__((noinline)) void wrunlock_slow(go_rwmutex *rw) {
    struct rt_glist gone = {0};
    struct rt_lot *lot = rt_lot_of(rw);
    rt_lock(&lot->lock);
    if (rt_load_relaxed(&rw->rt_state) != (WRITER | QUEUED))
        rt_fatal("go_rwmutex_wrunlock: not locked for writing");
    int how = rw->rt_writers || first_is_due(rw->rt_readers) ? HANDED_OVER : COMPETE;
    while (rw->rt_readers)
        let_go(&rw->rt_readers, &gone, how);
    uint32_t state = how == HANDED_OVER ? (uint32_t)gone.n : 0;
    bool due = first_is_due(rw->rt_writers);
    if (due && state != 0) {
        state |= STOP; /* for the one that stays the first on the queue */
    } else if (rw->rt_writers) {
        let_go(&rw->rt_writers, &gone, due ? HANDED_OVER : COMPETE);
        state |= due ? WRITER : 0;
    }
    leave(rw, lot, state, &gone);
}

void go_rwmutex_wrunlock(go_rwmutex *rw) {
    uint32_t state = WRITER;
    if (rt_unlikely(!rt_cas_release(&rw->rt_state, &state, 0))) /* pairs with try's acquire */
        wrunlock_slow(rw);
}
