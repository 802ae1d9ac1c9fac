/* select.c - wait for whichever of several channel operations can be done first.
 *
 * Promise: exactly one case happens, at one moment at which it could, chosen with equal chances
 * among all that were seen ready; or none, and then there was a moment (of a poll, or when the wait
 * ended) at which none could. A select that has returned has left nothing on any channel.
 *
 * FIRST A LOOK, without locks: it chooses, and the case is then done under the lock of its own
 * channel, as a plain send or receive. Where something is ready, a select costs a few loads for
 * each case and one locked operation, however many cases there are.
 *
 * Only when nothing seems ready the locks of all the channels are taken, in the order of their
 * addresses, each once. With them held it looks again, and what it sees then is true at that
 * moment; if there is still nothing it polls out, or queues a node on each channel and parks.
 *
 * THE WAIT. rt_claim decides between the wakers of different channels: one CAS of the G's wait word
 * with the sequence of this wait. The winner also says which case it was; the others drop the node
 * and go on to the next in the queue, so no value is lost to a select that took another.
 *
 * A waker must not meet a node whose G is not parked yet: the claim would fail, the node would be
 * dropped, and the wait might last for ever. So all locks are held until the word says WAITING, and
 * are released by the commit (rt_park_many). Rejected: to hold on to one lock alone, and to teach
 * each waker to wait for a G that is on its way (every hand-over would pay for it); to queue up one
 * channel after the other with a word of the select's own that wakers claim first (two selects that
 * meet must then claim each other, and a waiter has two words to lose by).
 *
 * AFTERWARDS the select takes its nodes off, one lock at a time, but not from the channel that won:
 * whoever made that case happen may have freed it. So a claim leaves nothing of the select behind
 * on its channel, though that may be in several cases: of those in one direction a single one,
 * drawn at random, is queued, and the other direction's node is taken off by the claim.
 *
 * The commit may still be releasing locks when the select already runs again, elsewhere, and it
 * reads the list of them in this frame. It cannot be outrun: the select passes every lock but the
 * winner's, and the winner's claimer had that one from the commit.
 *
 * The sort is a merge sort of runs, on links: no recursion, no second array, and linear when the
 * channels come in the order of their addresses, as they often do. */
#include "base/chaos.h"
#include "base/check.h"
#include "base/queue.h"
#include "base/random.h"
#include "base/sys.h"
#include "sync/chan.h"

#include <limits.h>

enum { ON_STACK = 8, BINS = 32 };

struct node {
    struct rt_chan_waiter w;
    struct rt_locks locks; /* of the first node of each channel: all the locks, in order */
    struct node *next;     /* in order; after thin_out from channel to channel */
    struct node *twin;     /* the same channel, the other direction; NULL: none */
    go_chan *chan;
    struct go_case *from;
    int index; /* of the case */
};

/* ---- choosing -------------------------------------------------------------------------------- */

static __attribute__((noinline)) void seed(struct rt_g *g) { /* splitmix64, S. Vigna 2015 */
    uint64_t z = rt.seed + (g->id ? g->id : (uintptr_t)g) * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    g->random = (z ^ z >> 31) | 1;
}

/* Of n things that are met one after the other each is kept with the same chance when the nth takes
 * the place of the one before with probability 1/n. */
static inline bool takes_over(struct rt_g *g, uint32_t n) {
    if (n == 1)
        return true;
    if (rt_unlikely(g->random == 0))
        seed(g);
    return rt_random_below(&g->random, n) == 0;
}

static inline bool seems_ready(const struct go_case *k) {
    return k->send ? rt_chan_send_ready(k->chan) : rt_chan_recv_ready(k->chan);
}

/* The index of a case that seems ready; -1: none does. */
static inline int choose(struct rt_g *g, const struct go_case *cases, int n) {
    int chosen = -1;
    uint32_t ready = 0;
    for (int i = 0; i < n; i++)
        if (cases[i].chan && seems_ready(&cases[i]) && takes_over(g, ++ready))
            chosen = i;
    return chosen;
}

/* ---- in order of address --------------------------------------------------------------------- */

static struct node *merge(struct node *a, struct node *b) {
    struct node *first, **end = &first;
    while (a && b) {
        struct node **least = (uintptr_t)a->chan <= (uintptr_t)b->chan ? &a : &b;
        *end = *least;
        end = &(*end)->next;
        *least = *end;
    }
    *end = a ? a : b;
    return first;
}

/* bin[i] is empty or has 2^i runs in one list: merged like the digits of a binary counter. From
 * `used` on they were never written: to clear them all would take longer than most sorts do. */
static struct node *sort(struct node *nodes, int n) {
    struct node *bin[BINS], *all = NULL;
    int used = 0;
    for (int i = 0; i < n;) {
        struct node *run = &nodes[i], *last = run;
        while (++i < n && (uintptr_t)last->chan <= (uintptr_t)nodes[i].chan)
            last = last->next = &nodes[i];
        last->next = NULL;
        int b = 0;
        for (; b < used && bin[b]; bin[b++] = NULL)
            run = merge(bin[b], run);
        bin[b] = run;
        used += b == used;
    }
    for (int b = 0; b < used; b++)
        all = merge(bin[b], all);
    return all;
}

/* Of what is on one channel, keep a node for each direction. */
static struct node *thin_out(struct rt_g *g, struct node *all) {
    struct node *first = NULL, **end = &first;
    struct rt_locks *before = NULL;
    while (all) {
        go_chan *c = all->chan;
        struct node *kept[2] = {NULL, NULL};
        uint32_t met[2] = {0, 0};
        for (; all && all->chan == c; all = all->next) {
            bool send = all->from->send;
            if (takes_over(g, ++met[send]))
                kept[send] = all;
        }
        struct node *n = kept[0] ? kept[0] : kept[1];
        if (kept[0] && kept[1]) {
            kept[0]->twin = kept[1];
            kept[1]->twin = kept[0];
        }
        n->locks = (struct rt_locks){NULL, &c->lock};
        if (before)
            before->next = &n->locks;
        before = &n->locks;
        *end = n;
        end = &n->next;
    }
    *end = NULL;
    return first;
}

static struct node *prepare(struct rt_g *g, struct node *nodes, struct go_case *cases, int n) {
    int used = 0;
    for (int i = 0; i < n; i++)
        if (cases[i].chan) {
            struct node *to = &nodes[used++];
            to->w.g = g;
            to->w.seq = rt_park_seq(g) | RT_CHAN_SELECT;
            to->w.elem = cases[i].elem;
            to->twin = NULL;
            to->chan = cases[i].chan;
            to->from = &cases[i];
            to->index = i;
        }
    return thin_out(g, sort(nodes, used));
}

/* ---- under all the locks --------------------------------------------------------------------- */

static void lock_all(struct node *first) {
    for (struct node *n = first; n; n = n->next)
        rt_lock(&n->chan->lock);
}

static void unlock_all(struct node *first) {
    for (struct node *n = first; n; n = n->next)
        rt_unlock(&n->chan->lock);
}

static void enqueue(struct node *n) {
    go_chan *c = n->chan;
    rt_chan_enqueue(n->from->send ? &c->sendq : &c->recvq, &n->w);
}

static void dequeue(struct node *n) {
    go_chan *c = n->chan;
    rt_chan_dequeue(n->from->send ? &c->sendq : &c->recvq, &n->w);
}

static void enqueue_all(struct node *first) {
    for (struct node *n = first; n; n = n->next) {
        enqueue(n);
        if (n->twin)
            enqueue(n->twin);
        rt_chan_changed(n->chan);
    }
}

/* From all channels but `won`, which may be gone; no lock is held. */
static void dequeue_all(struct node *first, const go_chan *won) {
    for (struct node *n = first; n; n = n->next) {
        if (n->chan == won)
            continue;
        rt_lock(&n->chan->lock);
        dequeue(n);
        if (n->twin)
            dequeue(n->twin);
        rt_chan_changed(n->chan);
        rt_unlock(&n->chan->lock);
    }
}

bool rt_chan_claim_case(struct rt_chan_waiter *w, int result) {
    struct node *n = rt_container_of(w, struct node, w);
    if (!rt_claim(w->g, w->seq & ~RT_CHAN_SELECT, n->index))
        return false;
    n->from->result = result;
    if (n->twin)
        dequeue(n->twin);
    return true;
}

/* ---- select ---------------------------------------------------------------------------------- */

/* The index of the case, or -errno. */
static int select_locked(struct rt_g *g, struct node *nodes, struct go_case *cases, int n,
                         int64_t deadline) {
    struct node *first = prepare(g, nodes, cases, n);
    rt_chaos_delay("select: looked, not locked");
    lock_all(first);
    for (int i; (i = choose(g, cases, n)) >= 0;) {
        struct go_case *k = &cases[i];
        struct rt_g *wake;
        int r = k->send ? rt_chan_send_locked(k->chan, k->elem, &wake)
                        : rt_chan_recv_locked(k->chan, k->elem, &wake);
        if (r == -EAGAIN) /* a waiter that had given up made it seem ready, and is gone now */
            continue;
        k->result = r;
        unlock_all(first);
        if (wake)
            rt_ready(wake);
        return i;
    }
    if (deadline != GO_FOREVER && (deadline == GO_NOW || deadline <= rt_sys_now())) {
        unlock_all(first);
        return deadline == GO_NOW ? -EAGAIN : -ETIMEDOUT;
    }
    enqueue_all(first);
    int r = rt_park_many(g, first ? &first->locks : NULL, RT_WAITING,
                         deadline < g->limit ? deadline : g->limit, RT_WHY_SELECT);
    rt_chaos_delay("select: claimed, still on the other channels");
    dequeue_all(first, r >= 0 ? cases[r].chan : NULL);
    if (r >= 0)
        return r;
    r = rt_cancel_result(g, r, deadline);
    return r == -ETIMEDOUT && deadline == GO_FOREVER ? -ECANCELED : r;
}

static __attribute__((noinline)) int select_slow(struct rt_g *g, struct go_case *cases, int n,
                                                 int64_t deadline) {
    struct node few[ON_STACK];
    if (n <= ON_STACK)
        return select_locked(g, few, cases, n, deadline);
    size_t bytes;
    struct node *nodes = rt_size_mul((size_t)n, sizeof *nodes, &bytes) ? rt_sys_alloc(bytes) : NULL;
    if (!nodes)
        return -ENOMEM;
    int r = select_locked(g, nodes, cases, n, deadline);
    rt_sys_free(nodes);
    return r;
}

int go_select(struct go_case *cases, size_t n, int64_t deadline) {
    struct rt_g *g = rt_self();
    if (rt_unlikely(rt_cancel_check(g)))
        return -ECANCELED; /* also for the scope's deadline: -ETIMEDOUT is for ours */
    if (rt_unlikely(n > INT_MAX))
        return -EINVAL;
    for (int i; (i = choose(g, cases, (int)n)) >= 0;) {
        struct go_case *k = &cases[i];
        rt_chaos_delay("select: chosen, not locked");
        rt_lock(&k->chan->lock);
        int r = k->send ? rt_chan_send_now(k->chan, k->elem) : rt_chan_recv_now(k->chan, k->elem);
        if (rt_likely(r != -EAGAIN)) {
            k->result = r;
            return i;
        }
        rt_unlock(&k->chan->lock);
    }
    return select_slow(g, cases, (int)n, deadline);
}
