/* waitgroup.c - wait until a count is 0.
 *
 * rt_count: the count in the low 31 bits, WAITED on top when somebody is on the queue. add and done
 * are one CAS. Without WAITED the one that brings the count to 0 does not touch the waitgroup
 * again, so a waiter who sees a word of 0 returns and may free it. With WAITED he takes rt_lock
 * first and gives up his count, which keeps the waitgroup alive, under it: then 0|WAITED is seen
 * only while rt_lock is held. He leaves with one store of 64 bits to count and lock; the waiters
 * are claimed before and woken after. */
#include "base/list.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/san.h"
#include "base/sys.h"
#include "sched/park.h"

#include <gort/sync.h>

static const uint32_t WAITED = UINT32_C(1) << 31;

_Static_assert(sizeof(go_waitgroup) == 16, "the public contract");

struct waiter {
    struct waiter *next, **link; /* link: where the pointer to this one is; NULL: off the queue */
    struct rt_g *g;
    uint64_t seq;
};

static void enqueue(go_waitgroup *wg, struct waiter *w) {
    w->next = wg->rt_waiters;
    w->link = (struct waiter **)(void *)&wg->rt_waiters;
    if (w->next)
        w->next->link = &w->next;
    wg->rt_waiters = w;
}

static void dequeue(struct waiter *w) {
    *w->link = w->next;
    if (w->next)
        w->next->link = w->link;
    w->link = NULL;
}

/* Both words at once, with rt_lock held: count `from` becomes `to`, and the lock is released. */
static bool leave(go_waitgroup *wg, uint32_t from, uint32_t to) {
    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the count is the low half");
    uint64_t both = (uint64_t)1 << 32 | from;
    rt_san_released(&wg->rt_lock);
    return rt_cas((uint64_t *)(void *)wg, &both, to);
}

static uint32_t sum(uint32_t word, int n) {
    int64_t after = (int64_t)(word & ~WAITED) + n;
    if (rt_unlikely(after < 0 || after > INT32_MAX))
        rt_fatal(after < 0 ? "go_waitgroup_add: the count is below 0"
                           : "go_waitgroup_add: the count is above 2^31 - 1");
    return (uint32_t)after | (word & WAITED);
}

/* Somebody waits, and we are about to bring the count to 0: our count, which keeps wg alive, is
 * given up under the lock. */
static __attribute__((noinline)) void add_locked(go_waitgroup *wg, int n) {
    struct rt_glist gone = {0};
    rt_lock(&wg->rt_lock);
    for (;;) {
        uint32_t word = rt_load_relaxed(&wg->rt_count), after = sum(word, n);
        if (after != WAITED) { /* counted up meanwhile, or the waiter has given up */
            if (leave(wg, word, after))
                return;
        } else if (rt_cas(&wg->rt_count, &word, WAITED)) {
            break;
        }
    }
    for (struct waiter *w; (w = wg->rt_waiters) != NULL;) {
        struct rt_g *g = w->g;
        dequeue(w);
        if (rt_claim(g, w->seq, 0))
            rt_glist_push(&gone, g);
    }
    uint32_t word = WAITED;
    while (!leave(wg, word, word & ~WAITED)) /* fails only when it is counted up again at once */
        word = rt_load_relaxed(&wg->rt_count);
    for (struct rt_g *g; (g = rt_glist_pop(&gone)) != NULL;)
        rt_ready(g);
}

/* With rt_lock held: set or clear WAITED while the count is not 0. False: it is 0. */
static bool mark(go_waitgroup *wg, uint32_t waited) {
    uint32_t word = rt_load_acquire(&wg->rt_count); /* a 0 pairs with the add in done */
    while ((word & ~WAITED) != 0)
        if (rt_cas(&wg->rt_count, &word, (word & ~WAITED) | waited))
            return true;
    return false;
}

void go_waitgroup_add(go_waitgroup *wg, int n) {
    uint32_t word = rt_load_relaxed(&wg->rt_count), after;
    do {
        after = sum(word, n);
        if (rt_unlikely(after == WAITED && n != 0)) {
            add_locked(wg, n);
            return;
        }
    } while (!rt_cas(&wg->rt_count, &word, after));
}

void go_waitgroup_done(go_waitgroup *wg) {
    go_waitgroup_add(wg, -1);
}

int go_waitgroup_wait(go_waitgroup *wg) {
    struct rt_g *g = rt_self();
    int r = rt_cancel_check(g);
    if (rt_unlikely(r))
        return r;
    if (rt_load_acquire(&wg->rt_count) == 0) /* pairs with the add in done */
        return 0;
    rt_lock(&wg->rt_lock);
    if (!mark(wg, WAITED)) {
        rt_unlock(&wg->rt_lock);
        return 0;
    }
    struct waiter w = {.g = g, .seq = rt_park_seq(g)};
    enqueue(wg, &w);
    r = rt_park(g, &wg->rt_lock, RT_WAITING, g->limit, RT_WHY_WAITGROUP);
    if (r == 0)
        return 0;
    rt_lock(&wg->rt_lock);
    if (w.link)
        dequeue(&w);
    if (!wg->rt_waiters)
        mark(wg, 0);
    rt_unlock(&wg->rt_lock);
    return rt_cancel_result(g, r, GO_FOREVER);
}

struct job {
    go_waitgroup *wg;
    void (*fn)(void *);
    void *arg;
};

static void run_job(void *arg) {
    struct job job = *(struct job *)arg;
    rt_sys_free(arg);
    job.fn(job.arg);
    go_waitgroup_done(job.wg);
}

int go_waitgroup_spawn(go_waitgroup *wg, void (*fn)(void *), void *arg) {
    if (!fn)
        return -EINVAL;
    struct job *job = rt_sys_alloc(sizeof *job);
    if (!job)
        return -ENOMEM;
    *job = (struct job){wg, fn, arg};
    go_waitgroup_add(wg, 1);
    int err = go_spawn(run_job, job);
    if (err) {
        rt_sys_free(job);
        go_waitgroup_done(wg);
    }
    return err;
}
