/* park.h - how a G waits, and how another makes it ready: all that sync, netpoll and task need.
 *
 *   waiter                                      waker
 *   lock the object                             lock the object
 *   seq = rt_park_seq(self); enqueue a node     take the node {g, seq} off the queue
 *   r = rt_park(self, &object->lock, ...)       rt_claim(g, seq, result); false: that wait was
 *   (the lock is released once parked)          cancelled or is late, go on with the next node
 *                                               write into the waiter's frame, if anything
 *                                               unlock; rt_ready(g)
 * After rt_park:
 *   the result of a claim made under the lock: the object is not touched again;
 *   -ECANCELED, -ETIMEDOUT, -ENOMEM: lock the object, and take the node off when it is still on
 *   (a waker whose claim failed has done so). */
#ifndef RT_PARK_H
#define RT_PARK_H

#include "sched/gate.h"
#include "sched/sched.h"

#include <errno.h>

/* The sequence number of the park that g is about to make; own G only. */
static inline uint64_t rt_park_seq(struct rt_g *g) {
    return RT_WAIT_SEQ(rt_load_relaxed(&g->wait));
}

/* Park g, the caller's own G, outside the runtime. `lock` (may be NULL) is held by the caller and
 * is released when g is parked. state: RT_WAITING (cancels claim it) or RT_HARD (they do not).
 * deadline: absolute, GO_FOREVER for none; with it the result may be -ETIMEDOUT. A cancellable
 * parker passes the minimum of its own deadline and g->limit. Works for foreign threads, too.
 * Returns the claimer's result; -ENOMEM when no timer could be armed (not parked, lock
 * released). */
int rt_park(struct rt_g *g, uint32_t *lock, enum rt_g_state state, int64_t deadline,
            enum rt_why why);
/* The same, RT_WAITING, where those who are woken make system calls: there may be thousands, each
 * cold when its turn comes, and the memory of those who come next is brought side by side. */
int rt_park_io(struct rt_g *g, uint32_t *lock, int64_t deadline, enum rt_why why);

/* For a parker that holds the locks of several objects, which it names in a list in its own frame.
 * All are released once it is parked, from the first to the last, so a waker that holds any of them
 * does not see a half-parked G either. A link is not read after its lock was released, but the
 * parker may be claimed and run before the last is: after rt_park_many its frame must not go, and
 * no link in it may change, until it has held the last lock of the list once more, or knows that
 * its claimer did. */
struct rt_locks {
    struct rt_locks *next;
    uint32_t *lock;
};
int rt_park_many(struct rt_g *g, struct rt_locks *locks, enum rt_g_state state, int64_t deadline,
                 enum rt_why why);

/* Move g from parked to claimed: true once for each park. The caller then owns g. */
static inline bool rt_claim(struct rt_g *g, uint64_t seq, int result) {
    uint64_t word = rt_load_relaxed(&g->wait);
    if (RT_WAIT_SEQ(word) != seq || RT_WAIT_STATE(word) < RT_WAITING ||
        !rt_cas(&g->wait, &word, RT_WAIT_WORD(seq + 1, RT_LIVE)))
        return false;
    g->wake_result = result;
    return true;
}
/* For a canceller: as rt_claim, but never a G that waits HARD. */
static inline bool rt_claim_soft(struct rt_g *g, uint64_t seq, int result) {
    uint64_t word = RT_WAIT_WORD(seq, RT_WAITING);
    if (!rt_cas(&g->wait, &word, RT_WAIT_WORD(seq + 1, RT_LIVE)))
        return false;
    g->wake_result = result;
    return true;
}

/* Does what stands in g->attention refuse the calls of a G inside that many shields? */
static inline bool rt_cancel_reaches(uint32_t attention, uint32_t shields) {
    uint32_t whole = shields == 0 ? RT_ATT_TASK | RT_ATT_STOP | RT_ATT_PIERCE : RT_ATT_PIERCE;
    return (attention & whole) != 0 || attention >> RT_ATT_LEVEL_SHIFT == shields + 1;
}

/* For a canceller that has left its bit in g's attention and made a heavy fence: claim g if it
 * waits in a call that a cancel reaches. The shields are those of the very park that is claimed: g
 * changes them while it runs, and then the sequence number is another one. */
static inline bool rt_cancel_claim(struct rt_g *g) {
    uint64_t word = rt_load_acquire(&g->wait); /* pairs with the release in rt_commit */
    return RT_WAIT_STATE(word) == RT_WAITING &&
           rt_cancel_reaches(rt_load_relaxed(&g->attention), rt_load_relaxed(&g->shields)) &&
           rt_claim_soft(g, RT_WAIT_SEQ(word), -ECANCELED);
}

/* Make a claimed G runnable. Any thread, outside the runtime, never parks, touches g no more. */
void rt_ready(struct rt_g *g);
/* The same on m's own thread inside the runtime. */
void rt_ready_in(struct rt_m *m, struct rt_g *g);
/* Many: as rt_ready, but behind one another in the queue, with at most one wake. Empties l. */
void rt_ready_all(struct rt_glist *l);
void rt_ready_all_in(struct rt_m *m, struct rt_glist *l);

/* What a cancellable call must ask on entry: 0, -ECANCELED or -ETIMEDOUT (which it marks in the
 * scopes that are late, so that their leave reports it). */
int rt_cancel_slow(struct rt_g *g);
static inline int rt_cancel_check(struct rt_g *g) {
    if (rt_likely(!(rt_load_relaxed(&g->attention) & RT_ATT_CANCEL) && g->limit == INT64_MAX))
        return 0;
    return rt_cancel_slow(g);
}

/* What a foreign thread may sleep on instead of its own note. It sets g->bell before it parks, and
 * back to NULL after. Others can then end its sleep without knowing whom they wake, with nothing
 * but an atomic add and a futex wake on a word that is always there: signal handlers (sem.c). Each
 * thread whose sleep ends calls `answer` before it looks whether it was made ready itself. */
struct rt_bell {
    uint32_t *word;            /* static; counts the rings */
    void (*answer)(void *arg); /* on the thread that was parked, and is so still */
    void *arg;
};
/* Wake one of those who sleep on `word`. May run in a signal handler. */
void rt_bell_ring_sig(uint32_t *word);

/* Set `bit` in g's attention and wake it if it waits in a cancellable call. Any thread, outside. */
void rt_cancel_g(struct rt_g *g, uint32_t bit);

/* After a cancellable park returned -ECANCELED or -ETIMEDOUT: which of them the caller must report.
 * own_deadline: the call's own deadline (GO_FOREVER when it has none): its own lateness is
 * -ETIMEDOUT, the scope's is -ECANCELED then, as the API says. */
int rt_cancel_result(struct rt_g *g, int park_result, int64_t own_deadline);

#endif
