/* fd.c - the descriptor table, waiting on a descriptor, and the end of one.
 *
 * Promise: a green thread that waits on a descriptor is made ready when the descriptor is ready in
 * its direction, is closed by go_close, or when it is cancelled or late; never later than that, and
 * perhaps earlier (it tries its call again, and waits again).
 *
 * A POLL IS A HINT, NEVER A DEBT. The transfer is always a direct, non-blocking call of the green
 * thread itself. What the engines have in flight is only a question to the kernel, "tell me when",
 * to which the answer may be late, stale or unwanted. No buffer is lent, so to cancel is to claim
 * the G, at once.
 *
 *   waiter                                         event
 *   e = slot->edge; try the call: -EAGAIN     lock; edge++; take the waiters of that direction
 *   lock; edge != e or gen != g: try again      off the list and claim them; unlock; queue them
 *   enqueue; arm the engine; park (unlocks)
 * The event counter closes the gap between the -EAGAIN and the park for edge-triggered epoll, which
 * tells each edge once. It has no bit that must be cleared, so any number of readers may wait. For
 * the same reason the hint "dry" holds the count at which the direction was seen empty: one more
 * event makes it void by itself. All waiters of a direction are woken, each tries; who finds
 * nothing waits again. Waking one and passing the rest on would hang when that one does not read
 * (go_poll, a cancel).
 *
 * CLOSE: lock; gen++, claim all waiters with -EBADF, disarm the engine, mark CLOSING; unlock;
 * close(2); lock; clear CLOSING unless the slot has changed hands; unlock. close(2) hands the
 * number to whoever opens next, and that may be go_accept on another M before we return from it: it
 * bumps gen, and we then leave the mark alone. A waiter that finds CLOSING cannot know which file
 * its number means, so it tries its call again.
 *
 * Woken for the old file, a call must not read from the new one. So before it tries again it HOLDS
 * the number, a counter in the slot, and then compares gen; the close bumps gen, and then waits
 * until nobody holds the number: as long as a system call that does not wait takes, and a few of
 * these at most, since who comes later finds another gen. Two locked operations for a call that has
 * parked. (Go counts every call. One that has not waited is not protected here: when it overlaps
 * with the close it may as well come after it, and then an int can mean anything.)
 * Never shutdown(2): it would end a socket that another process shares.
 *
 * Nor is a close over while an engine's question holds the file: a listener would still take
 * connections, and a peer wait for its FIN. So the engine gets the number back first (settle), and
 * close(2) is what lets the file go, on the closer's thread.
 *
 * Slots stay where they are while the runtime runs: late events look at them without a reference.
 * They are valid when zero, so a chunk of 4,096 is just mapped, and its pages come when touched. */
#include "netpoll/fd.h"

#include "base/chaos.h"
#include "base/check.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/sys_io.h"
#include "sched/idle.h"
#include "sched/spawn.h"

#include <gort/time.h>

_Static_assert(sizeof(struct rt_fd) == RT_CACHE_LINE, "a slot is a cache line");

const struct rt_fd_engine *rt_fd_engine;
struct rt_fd *rt_fd_chunks[RT_FD_CHUNKS];

static const size_t CHUNK_BYTES = RT_FD_CHUNK * sizeof(struct rt_fd);
enum { CLOSE_TRIES = 10 };
static const int64_t CLOSE_NAP_NS = 200 * 1000;

/* Waits begun and ended on each M, by Gs that run there; one more for foreign threads. */
struct count {
    uint64_t begun, ended;
} __attribute__((aligned(RT_CACHE_LINE)));
static struct count *counts;
static size_t counts_bytes;
static struct count foreign_count;
static uint32_t foreign_parked; /* foreign threads that wait; who evicts them comes again */

/* ---- the table ------------------------------------------------------------------------------- */

int rt_fd_start(unsigned ms) {
    counts = rt_sys_alloc_sparse(counts_bytes = ms * sizeof *counts);
    foreign_count = (struct count){0};
    foreign_parked = 0;
    return counts ? 0 : -ENOMEM;
}

void rt_fd_stop(void) {
    for (size_t i = 0; i < RT_FD_CHUNKS; i++) {
        struct rt_fd *chunk = rt_load_relaxed(&rt_fd_chunks[i]);
        if (!chunk)
            continue;
        /* A thread that has no reference may look at the pointer, and finds out before it uses
         * it. */
        rt_store_relaxed(&rt_fd_chunks[i], NULL);
        rt_sys_unmap(chunk, CHUNK_BYTES);
    }
    rt_sys_free_sparse(counts, counts_bytes);
    counts = NULL;
}

/* The slot of fd, which is in range. NULL: out of memory. */
static struct rt_fd *slot_make(int fd) {
    struct rt_fd **chunk = &rt_fd_chunks[(unsigned)fd >> RT_FD_CHUNK_BITS];
    if (!rt_load_relaxed(chunk)) { /* rt_fd_at looks once more */
        struct rt_fd *fresh = rt_sys_map(CHUNK_BYTES), *none = NULL;
        if (!fresh)
            return NULL;
        if (!rt_cas_release(chunk, &none, fresh)) /* pairs with the acquire in rt_fd_at */
            rt_sys_unmap(fresh, CHUNK_BYTES);
    }
    return rt_fd_at(fd);
}

static bool in_range(int fd) {
    return fd >= 0 && (unsigned)fd < (unsigned)RT_FD_CHUNKS << RT_FD_CHUNK_BITS;
}

/* ---- begin and end --------------------------------------------------------------------------- */

int rt_fd_begin_slow(struct rt_fd_op *op) {
    bool thread = op->g->flags & RT_G_THREAD; /* else the runtime runs, or who runs the caller? */
    int err = 0;
    if (thread && rt_foreign_enter() != 0)
        return -ENXIO;
    op->slot = rt_fd_at(op->fd); /* again: the look before the reference was only a guess */
    if (!op->slot) {
        /* Ask before a chunk is mapped for a number that means nothing. */
        err = in_range(op->fd) ? rt_sys_fd_ready(op->fd, 0) : -EBADF;
        if (err >= 0) {
            op->slot = slot_make(op->fd);
            err = op->slot ? 0 : -ENOMEM;
        }
    }
    if (err && thread)
        rt_foreign_leave();
    return err;
}

void rt_fd_end_slow(void) {
    rt_foreign_leave();
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* As rt_fd_dirs; a direction of its own that no event has. */
static unsigned dirs_of(const struct rt_fd_waiter *w) {
    return w->naps ? 1u << (RT_OUT + 1) : rt_fd_dirs(w->mask);
}

unsigned rt_fd_wanted(const struct rt_fd *s, unsigned dirs, unsigned *n) {
    unsigned mask = 0;
    *n = 0;
    const struct rt_node *first = s->waiters, *next = first;
    for (; next; next = next->next != first ? next->next : NULL) {
        const struct rt_fd_waiter *w = rt_container_of(next, const struct rt_fd_waiter, node);
        if (dirs_of(w) & dirs) {
            mask |= w->mask;
            ++*n;
        }
    }
    return mask;
}

/* Is there reason to try again instead of waiting? Lock held. */
static bool moved_on(const struct rt_fd_op *op, unsigned mask) {
    unsigned dirs = rt_fd_dirs(mask);
    for (int dir = RT_IN; dir <= RT_OUT; dir++)
        if ((dirs & 1u << dir) && op->slot->edge[dir] != op->edge[dir])
            return true;
    return (op->slot->flags & RT_FD_CLOSING) != 0;
}

static void count_begun(void) {
    struct rt_m *m = rt_m();
    if (m)
        rt_bump(&counts[m->index].begun);
    else
        rt_fetch_add_relaxed(&foreign_count.begun, 1);
}

static void count_ended(void) {
    struct rt_m *m = rt_m();
    if (m)
        rt_bump(&counts[m->index].ended);
    else
        rt_fetch_add_relaxed(&foreign_count.ended, 1);
}

int rt_fd_hold(struct rt_fd_op *op) {
    struct rt_fd *s = op->slot;
    if (op->held)
        return 0;
    rt_fetch_add(&s->held, 1);
    if (rt_unlikely(rt_load_seq_cst(&s->gen) != op->gen)) { /* the count, then gen: see settle */
        rt_fetch_sub_relaxed(&s->held, 1); /* nothing was done under it */
        return -EBADF;
    }
    op->held = true;
    rt_chaos_delay("fd: it knows what the number means, and has not used it");
    return 0;
}

/* Lock held. A foreign descriptor may be closed by plain close(2) behind our back. So what nobody
 * waits for any more is not asked either: the question would hold that file, and say nothing of the
 * next one of that number, whose waiters would rely on it. */
static void ask_no_more(struct rt_fd *s, int fd) {
    if (rt_fd_engine->drop && !(s->flags & RT_FD_OURS))
        rt_fd_engine->drop(s, fd);
}

/* After a wait that no event ended, or one in both directions. */
static void dequeue(struct rt_fd *s, int fd, struct rt_fd_waiter *w) {
    rt_lock(&s->lock);
    if (w->node.next)
        rt_queue_remove(&s->waiters, &w->node);
    ask_no_more(s, fd);
    rt_unlock(&s->lock);
}

/* Another thread is in close(2), which may linger (SO_LINGER) for long after it has given the
 * number away, perhaps to a file that this call is for. */
static int let_close(struct rt_fd_op *op, int64_t own_deadline) {
    int64_t ns = CLOSE_NAP_NS;
    int err = rt_fd_back_off(op, &ns);
    bool refused = err == -ECANCELED || err == -ETIMEDOUT;
    return refused ? rt_cancel_result(op->g, err, own_deadline) : err;
}

/* w is in the queue and the lock of s held; it is released. Back again w is off the queue. */
static int park(struct rt_fd_op *op, struct rt_fd_waiter *w, int64_t deadline, enum rt_why why) {
    struct rt_fd *s = op->slot;
    if (w->foreign)
        rt_fetch_add_relaxed(&foreign_parked, 1);
    int r = rt_park_io(w->g, &s->lock, deadline, why);
    if (w->foreign)
        rt_fetch_sub_relaxed(&foreign_parked, 1);
    if (rt_unlikely(r != 0 || rt_fd_dirs(w->mask) == RT_BOTH))
        dequeue(s, op->fd, w);
    return r;
}

int rt_fd_wait(struct rt_fd_op *op, unsigned mask, int64_t own_deadline, enum rt_why why) {
    struct rt_fd *s = op->slot;
    struct rt_g *g = op->g;
    rt_chaos_delay("fd: the call said -EAGAIN, nobody knows that we wait");
    rt_lock(&s->lock);
    if (rt_unlikely(s->gen != op->gen)) {
        rt_unlock(&s->lock);
        return -EBADF;
    }
    if (rt_unlikely(moved_on(op, mask))) {
        bool closing = s->flags & RT_FD_CLOSING;
        rt_unlock(&s->lock);
        return closing ? let_close(op, own_deadline) : rt_fd_hold(op);
    }
    rt_fd_let_go(op);
    struct rt_fd_waiter w = {
        .g = g, .seq = rt_park_seq(g), .mask = (uint16_t)mask, .foreign = g->flags & RT_G_THREAD};
    rt_queue_push(&s->waiters, &w.node);
    int err = rt_fd_engine->arm(s, op->fd);
    if (rt_unlikely(err != 0)) {
        rt_queue_remove(&s->waiters, &w.node);
        ask_no_more(s, op->fd);
        rt_unlock(&s->lock);
        if (err != RT_FD_ALWAYS && err != -EAGAIN)
            return err;
        go_yield();
        err = rt_cancel_check(g);
        return err ? rt_cancel_result(g, err, own_deadline) : rt_fd_hold(op);
    }
    count_begun();
    int r = park(op, &w, own_deadline < g->limit ? own_deadline : g->limit, why);
    count_ended();
    if (rt_likely(r == 0))
        return rt_fd_hold(op);
    return r == -ECANCELED || r == -ETIMEDOUT ? rt_cancel_result(g, r, own_deadline) : r;
}

/* Lock held. */
static bool unstarted_waits(const struct rt_fd *s, unsigned dirs) {
    const struct rt_node *first = s->waiters, *next = first;
    for (; next; next = next->next != first ? next->next : NULL) {
        const struct rt_fd_waiter *w = rt_container_of(next, const struct rt_fd_waiter, node);
        if (w->unstarted && (rt_fd_dirs(w->mask) & dirs))
            return true;
    }
    return false;
}

int rt_fd_wait_unstarted(struct rt_fd_op *op, struct rt_fd_waiter *w, enum rt_why why) {
    struct rt_fd *s = op->slot;
    rt_chaos_delay("fd: looked, nobody knows that it waits");
    rt_lock(&s->lock);
    int err = 0;
    if (s->gen != op->gen)
        err = -EBADF;
    else if (unstarted_waits(s, rt_fd_dirs(w->mask)))
        err = -EBUSY;
    else if (moved_on(op, w->mask)) /* which file is it, in between? It shall yield, and look */
        err = s->flags & RT_FD_CLOSING ? RT_FD_ALWAYS : -EAGAIN;
    if (err) {
        rt_unlock(&s->lock);
        return err;
    }
    w->unstarted = true;
    rt_queue_push(&s->waiters, &w->node);
    err = rt_fd_engine->arm(s, op->fd);
    if (err) {
        rt_queue_remove(&s->waiters, &w->node);
        w->unstarted = false;
        ask_no_more(s, op->fd);
        rt_unlock(&s->lock);
        return err == -EAGAIN ? RT_FD_ALWAYS : err;
    }
    count_begun();
    rt_park_unstarted(w->g, &s->lock, why);
    return 0;
}

void rt_fd_started(struct rt_fd_op *op, struct rt_fd_waiter *w) {
    if (!w->unstarted)
        return;
    count_ended();
    dequeue(op->slot, w->fd, w);
}

/* Among the waiters of the slot, but for no event: a close and the stop end it. */
int rt_fd_back_off(struct rt_fd_op *op, int64_t *ns) {
    struct rt_fd *s = op->slot;
    struct rt_g *g = op->g;
    int64_t until = rt_time_add(rt_sys_now(), *ns), deadline = until < g->limit ? until : g->limit;
    *ns = *ns * 2 < GO_SECOND ? *ns * 2 : GO_SECOND;
    rt_fd_let_go(op);
    rt_chaos_delay("fd: nobody knows that we wait");
    rt_lock(&s->lock);
    if (rt_unlikely(s->gen != op->gen)) {
        rt_unlock(&s->lock);
        return -EBADF;
    }
    struct rt_fd_waiter w = {
        .g = g, .seq = rt_park_seq(g), .foreign = g->flags & RT_G_THREAD, .naps = true};
    rt_queue_push(&s->waiters, &w.node);
    int r = park(op, &w, deadline, RT_WHY_SLEEP);
    if (r != -ETIMEDOUT || deadline != until)
        return rt_cancel_result(g, r, GO_FOREVER);
    bool late = w.foreign && rt_running() != 0; /* the stop waits for us, and comes between naps */
    return late ? -ECANCELED : rt_fd_hold(op);
}

/* The waiters of these directions, or of them the foreign threads. The others keep their order. */
static void claim(struct rt_fd *s, unsigned dirs, bool foreign, int result, struct rt_glist *out) {
    void *all = s->waiters;
    rt_store_relaxed(&s->waiters, NULL); /* rt_fd_touch peeks */
    for (struct rt_node *n; (n = rt_queue_pop(&all)) != NULL;) {
        struct rt_fd_waiter *w = rt_container_of(n, struct rt_fd_waiter, node);
        if (!(dirs_of(w) & dirs) || (foreign && !w->foreign))
            rt_queue_push(&s->waiters, n);
        else if (rt_claim(w->g, w->seq, result)) /* else cancelled, and it sees that it is off */
            rt_glist_push(out, w->g);
    }
}

/* Lock held. dry is void by that, and cleared, or it would mean something again when the count has
 * gone round. The count is never UINT32_MAX, whose successor is what a dry that says nothing is. */
static void count_edge(struct rt_fd *s, int dir) {
    uint32_t edge = s->edge[dir] + 1;
    rt_store_relaxed(&s->dry[dir], 0);
    rt_store_release(&s->edge[dir], edge != UINT32_MAX ? edge : 0); /* pairs with rt_fd_fresh */
}

void rt_fd_event(struct rt_fd *s, unsigned dirs, bool wary, struct rt_glist *ready) {
    if (wary)
        rt_store_relaxed(&s->flags, (uint16_t)(s->flags | RT_FD_WARY));
    for (int dir = RT_IN; dir <= RT_OUT; dir++)
        if (dirs & 1u << dir)
            count_edge(s, dir);
    claim(s, dirs, false, 0, ready);
}

void rt_fd_beware(struct rt_fd_op *op) {
    rt_lock(&op->slot->lock);
    if (op->slot->gen == op->gen)
        rt_store_relaxed(&op->slot->flags, (uint16_t)(op->slot->flags | RT_FD_WARY));
    rt_unlock(&op->slot->lock);
}

uint64_t rt_fd_waits(void) {
    uint64_t n = rt_load_relaxed(&foreign_count.begun) - rt_load_relaxed(&foreign_count.ended);
    for (uint32_t i = 0, ms = rt_load_relaxed(&rt.nms); counts && i < ms; i++)
        n += rt_load_relaxed(&counts[i].begun) - rt_load_relaxed(&counts[i].ended);
    return (int64_t)n < 0 ? 0 : n; /* the counters are not read at one moment */
}

void rt_fd_kick(struct rt_m *m) {
    rt_idle_kick(rt_load_relaxed(&m->p), m);
}

/* ---- the end of a descriptor ----------------------------------------------------------------- */

/* Lock held. Everything that is known of the descriptor is void. */
static void reset(struct rt_fd *s, int fd, struct rt_glist *out) {
    rt_store_release(&s->gen, s->gen + 1); /* pairs with the acquire in rt_fd_find */
    claim(s, ~0u, false, -EBADF, out);
    rt_fd_engine->disarm(s, fd);
    rt_store_relaxed(&s->flags, 0);
    rt_store_relaxed(&s->kind, RT_KIND_SOCKET);
    rt_store_relaxed(&s->asking, 0);
    for (int dir = RT_IN; dir <= RT_OUT; dir++)
        count_edge(s, dir);
}

/* Of who waits for another thread that is in a system call. */
static void after_try(int tries) {
    if (tries < CLOSE_TRIES)
        rt_sys_yield();
    else
        rt_sys_nap(CLOSE_NAP_NS);
}

/* The lock, while nobody is between reset and close(2) on this number. */
static void lock_unless_closing(struct rt_fd *s) {
    for (int tries = 0;; tries++) {
        rt_lock(&s->lock);
        if (rt_likely(!(s->flags & RT_FD_CLOSING)))
            return;
        rt_unlock(&s->lock);
        after_try(tries); /* it lingers; our P is taken if somebody needs it */
    }
}

/* After reset: nobody uses the number for the old file any more. A holder is between two
 * instructions or in a system call that does not wait, on another thread. */
static void settle(struct rt_fd *s, int fd) {
    rt_fence_full(); /* gen, then the count: pairs with the add in rt_fd_hold */
    for (int tries = 0; rt_load_acquire(&s->held) != 0; tries++) /* pairs with rt_fd_let_go's */
        after_try(tries);
    if (rt_fd_engine->settle)
        rt_fd_engine->settle(s, fd);
}

/* Up to close(2), or instead of it. The slot's gen from then on. */
static uint32_t begin_close(struct rt_fd *s, int fd) {
    struct rt_glist woken = {0};
    lock_unless_closing(s);
    reset(s, fd, &woken);
    uint32_t gen = s->gen;
    rt_store_relaxed(&s->flags, RT_FD_CLOSING);
    rt_unlock(&s->lock);
    rt_ready_all(&woken);
    rt_chaos_delay("fd: the waiters know, the number is still open");
    settle(s, fd);
    return gen;
}

static void end_close(struct rt_fd *s, uint32_t gen) {
    rt_lock(&s->lock);
    if (s->gen == gen)
        rt_store_relaxed(&s->flags, (uint16_t)(s->flags & ~RT_FD_CLOSING));
    rt_unlock(&s->lock);
}

int rt_fd_adopt(int fd, unsigned flags) {
    struct rt_fd *s = in_range(fd) ? slot_make(fd) : NULL;
    if (!s)
        return -ENOMEM;
    if ((flags & RT_FD_PIECES) && rt_fd_engine->edges)
        flags |= RT_FD_WARY;
    struct rt_glist woken = {0};
    rt_lock(&s->lock); /* closing or not: the number is ours now */
    reset(s, fd, &woken);
    rt_store_relaxed(&s->flags, (uint16_t)flags);
    rt_unlock(&s->lock);
    rt_ready_all(&woken);
    return 0;
}

void rt_fd_forget(int fd) {
    struct rt_fd *s = rt_fd_at(fd);
    if (s)
        end_close(s, begin_close(s, fd));
}

int rt_fd_close(int fd) {
    struct rt_fd *s = rt_fd_at(fd);
    if (!s)
        return rt_sys_close(fd);
    uint32_t gen = begin_close(s, fd);
    int err = rt_sys_close(fd);
    rt_chaos_delay("fd: the number may be somebody else's");
    end_close(s, gen);
    return err;
}

/* ---- the stop -------------------------------------------------------------------------------- */

void rt_fd_each(void (*fn)(struct rt_fd *s, int fd, void *arg), void *arg) {
    for (size_t i = 0; i < RT_FD_CHUNKS; i++) {
        struct rt_fd *chunk = rt_load_acquire(&rt_fd_chunks[i]); /* pairs with slot_make */
        for (size_t k = 0; chunk && k < RT_FD_CHUNK; k++)
            fn(&chunk[k], (int)(i << RT_FD_CHUNK_BITS | k), arg);
    }
}

static void evict(struct rt_fd *s, int fd, void *woken) {
    (void)fd;
    rt_lock(&s->lock);
    claim(s, ~0u, true, -ECANCELED, woken);
    rt_unlock(&s->lock);
}

void rt_fd_evict_foreign(void) {
    struct rt_glist woken = {0};
    if (rt_load_relaxed(&foreign_parked) == 0)
        return;
    rt_fd_each(evict, &woken);
    rt_ready_all(&woken);
}
