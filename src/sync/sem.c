/* sem.c - a counting semaphore, which a signal handler may release.
 *
 * rt_count: free units in the low 31 bits, WAITED on top while somebody is on the queue. While
 * WAITED is clear acquire and release are one CAS each. While it is set nobody takes a unit but
 * under the lot's lock (lot.h), for the first in the queue: first come, first served. A release
 * then takes the lock and gives its unit to the first waiter that can be claimed. WAITED changes
 * under the lock alone.
 *
 * A SIGNAL HANDLER may have interrupted the holder of that very lock, or the scheduler: it must
 * take no lock, touch no P, and cannot make anybody ready. So it counts its unit by a CAS, and if
 * that finds WAITED, it asks for help:
 *   - it sets the lot's bit in `asked`;
 *   - it rings the lot's bell, which wakes one of the threads that wait for a semaphore of this lot
 *     (park.h), with or without a running runtime;
 *   - it wakes sysmon, if there is one: it is who helps when only green threads wait.
 * All three are static memory, so it touches the semaphore last with that CAS. Both helpers do the
 * same: clear the bit, then under the lock give the units of each semaphore in the lot that has
 * both units and waiters to its waiters. For this the lots know which semaphores are waited for: a
 * lot has a queue of their first waiters. A semaphore in it cannot be freed, because its first
 * waiter is still inside go_sem_acquire and the unit that it needs has not been given.
 *
 *   handler: count++;       bit = 1;  ring
 *   helper:  (rung) bit = 0; lock;    count, queue
 *   waiter:  lock; WAITED; queue itself; parks, which unlocks
 * A unit counted after the helper looked comes with another ring. A handler that does not find
 * WAITED need not ask: whoever sets it looks at the count under the lock, by the same CAS.
 *
 * Tried and dropped: a table of the semaphores that were released by handlers (it must be emptied
 * before a semaphore is freed, and may be full); a list through the semaphores (16 bytes have no
 * room); waking all waiters to look for themselves. */
#include "base/log.h"
#include "sched/sysmon.h"
#include "sync/lot.h"

#include <gort/sync.h>

static const uint32_t WAITED = UINT32_C(1) << 31;
static const uint32_t MOST = INT32_MAX;

_Static_assert(sizeof(go_sem) == 16, "the public contract");

struct waiter {
    struct rt_waiter base;
    struct rt_node first; /* on the lot's queue while this one is the first of its semaphore */
    go_sem *sem;
};

/* A bit for each lot in which a handler has counted a unit beside waiters. */
static uint64_t asked[RT_LOTS / 64];

static uint64_t *asked_word(const struct rt_lot *lot, uint64_t *bit) {
    size_t i = (size_t)(lot - rt_lots);
    *bit = UINT64_C(1) << (i % 64);
    return &asked[i / 64];
}

/* ---- the queue, under the lot's lock --------------------------------------------------------- */

static struct waiter *first_of(const go_sem *s) {
    struct rt_waiter *w = rt_waiter_first(s->rt_waiters);
    return w ? rt_container_of(w, struct waiter, base) : NULL;
}

static void enqueue(go_sem *s, struct rt_lot *lot, struct waiter *w) {
    rt_queue_push(&s->rt_waiters, &w->base.node);
    if (first_of(s) == w)
        rt_queue_push(&lot->sems, &w->first);
}

static void dequeue(go_sem *s, struct rt_lot *lot, struct waiter *w) {
    bool was_first = first_of(s) == w;
    rt_queue_remove(&s->rt_waiters, &w->base.node);
    if (was_first) {
        rt_queue_remove(&lot->sems, &w->first);
        if (s->rt_waiters)
            rt_queue_push(&lot->sems, &first_of(s)->first);
    }
}

/* Units to waiters: `given`, 0 or 1, and those that handlers have counted. What is left of both is
 * counted. With that the semaphore is given up: the CAS at the end is the last touch. */
static void give(go_sem *s, struct rt_lot *lot, uint32_t given, struct rt_glist *gone) {
    struct waiter *w;
    uint32_t taken = 0, word = rt_load_acquire(&s->rt_count); /* pairs with a handler's CAS */
    while ((w = first_of(s)) != NULL && taken < (word & MOST) + given) {
        struct rt_g *g = w->base.g;
        dequeue(s, lot, w);
        if (rt_claim(g, w->base.seq, 0)) {
            rt_glist_push(gone, g);
            taken++;
        }
    }
    uint32_t waited = s->rt_waiters ? WAITED : 0;
    for (;;) {
        uint32_t units = (word & MOST) + given - taken;
        if (rt_unlikely(units > MOST))
            rt_fatal("go_sem_release: more than 2^31 - 1 units");
        if ((units | waited) == word || rt_cas_release(&s->rt_count, &word, units | waited))
            return;
    }
}

/* ---- help for signal handlers ---------------------------------------------------------------- */

/* Any thread but a green one: sysmon, or one that is parked here itself. */
static void answer(void *arg) {
    struct rt_lot *lot = arg;
    struct rt_glist gone = {0};
    uint64_t bit, *word = asked_word(lot, &bit);
    if (!(rt_load_relaxed(word) & bit))
        return;
    rt_lock(&lot->lock);
    rt_fetch_and_acquire(word, ~bit); /* pairs with the handler's or */
    struct rt_node *next = lot->sems, *last = next ? next->prev : NULL, *n = NULL;
    while (n != last) { /* what a semaphore that is still waited for appends comes after that */
        n = next;
        next = n->next;
        give(rt_container_of(n, struct waiter, first)->sem, lot, 0, &gone);
    }
    rt_unlock(&lot->lock);
    rt_ready_all(&gone);
}

void rt_sem_answer_all(void) {
    for (size_t i = 0; i < RT_LOTS / 64; i++)
        for (uint64_t bits = rt_load_relaxed(&asked[i]); bits; bits &= bits - 1)
            answer(&rt_lots[i * 64 + (size_t)__builtin_ctzll(bits)]);
}

bool rt_sem_waited(void) {
    for (size_t i = 0; i < RT_LOTS; i++)
        if (rt_load_relaxed(&rt_lots[i].sems))
            return true;
    return false;
}

/* ---- the calls ------------------------------------------------------------------------------- */

void go_sem_init(go_sem *s, unsigned n) {
    if (n > MOST)
        rt_fatal("go_sem_init: more than 2^31 - 1 units");
    *s = (go_sem){.rt_count = n};
}

static inline bool try_acquire(go_sem *s) {
    uint32_t word = rt_load_relaxed(&s->rt_count);
    while (word != 0 && !(word & WAITED))
        if (rt_cas_acquire(&s->rt_count, &word, word - 1)) /* pairs with the releases */
            return true;
    return false;
}

/* Under the lot's lock: a unit, or WAITED set while there is none. */
static bool take_or_mark(go_sem *s) {
    uint32_t word = rt_load_relaxed(&s->rt_count);
    for (;;) {
        if (word & WAITED)
            return false;
        if (word != 0 && rt_cas_acquire(&s->rt_count, &word, word - 1)) /* with the releases */
            return true;
        if (word == 0 && rt_cas_relaxed(&s->rt_count, &word, WAITED))
            return false;
    }
}

static int park(struct rt_g *g, struct rt_lot *lot) {
    struct rt_bell bell = {&lot->bell, answer, lot};
    if (g->flags & RT_G_NOTE)
        g->bell = &bell;
    int r = rt_park(g, &lot->lock, RT_WAITING, g->limit, RT_WHY_SEM);
    g->bell = NULL;
    return r;
}

static __attribute__((noinline)) int acquire_slow(go_sem *s, struct rt_g *g) {
    struct rt_lot *lot = rt_lot_of(s);
    struct waiter w = {.base.g = g, .base.seq = rt_park_seq(g), .sem = s};
    rt_lock(&lot->lock);
    if (take_or_mark(s)) {
        rt_unlock(&lot->lock);
        return 0;
    }
    enqueue(s, lot, &w);
    int r = park(g, lot);
    if (r == 0) {
        if (g->flags & RT_G_THREAD)
            rt_sysmon_look();
        return 0;
    }
    rt_lock(&lot->lock);
    if (rt_waiter_queued(&w.base)) {
        dequeue(s, lot, &w);
        if (!s->rt_waiters)
            rt_fetch_and_release(&s->rt_count, ~WAITED); /* the last touch, beside who may free s */
    }
    rt_unlock(&lot->lock);
    if (g->flags & RT_G_THREAD)
        rt_sysmon_look();
    return rt_cancel_result(g, r, GO_FOREVER);
}

int go_sem_acquire(go_sem *s) {
    struct rt_g *g = rt_self();
    int r = rt_cancel_check(g);
    if (rt_unlikely(r))
        return r;
    return rt_likely(try_acquire(s)) ? 0 : acquire_slow(s, g);
}

int go_sem_try_acquire(go_sem *s) {
    return try_acquire(s) ? 0 : -EAGAIN;
}

static __attribute__((noinline)) void release_slow(go_sem *s) {
    struct rt_lot *lot = rt_lot_of(s);
    struct rt_glist gone = {0};
    rt_lock(&lot->lock);
    give(s, lot, 1, &gone);
    rt_unlock(&lot->lock);
    rt_ready_all(&gone);
}

/* Count one unit. True: somebody waits. */
static inline bool count_one(go_sem *s, bool beside_waiters) {
    uint32_t word = rt_load_relaxed(&s->rt_count);
    do {
        if ((word & WAITED) && !beside_waiters)
            return true;
        if (rt_unlikely((word & MOST) == MOST))
            rt_fatal("go_sem_release: more than 2^31 - 1 units");
    } while (!rt_cas_release(&s->rt_count, &word, word + 1)); /* pairs with the acquiring CASes */
    return word & WAITED;
}

void go_sem_release(go_sem *s) {
    if (rt_unlikely(count_one(s, false)))
        release_slow(s);
}

void go_sem_release_sig(go_sem *s) {
    struct rt_lot *lot = rt_lot_of(s);
    if (!count_one(s, true))
        return;
    uint64_t bit, *word = asked_word(lot, &bit);
    rt_fetch_or_release(word, bit); /* after the count; answer looks the other way round */
    rt_bell_ring_sig(&lot->bell);
    rt_sysmon_call_sig();
}
