/* waitgroup.c - wait until a count is 0.
 *
 * rt_count: the count in the low 31 bits, WAITED on top when somebody is on the queue. add and done
 * are one CAS. Without WAITED the one that brings the count to 0 does not touch the waitgroup
 * again, so a waiter who sees a word of 0 returns and may free it. With WAITED he takes the lot's
 * lock (lot.h) first and gives up his count, which keeps the waitgroup alive, under it: then
 * 0|WAITED is seen only while that lock is held. He takes the queue off and leaves with the CAS
 * that clears WAITED; the waiters are claimed before and woken after. One that was cancelled
 * meanwhile finds its node off the queue, and does not look at the waitgroup, which another waiter
 * may have freed. */
#include "base/log.h"
#include "base/sys.h"
#include "sync/lot.h"

#include <gort/sync.h>

static const uint32_t WAITED = UINT32_C(1) << 31;

_Static_assert(sizeof(go_waitgroup) == 16, "the public contract");

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
    struct rt_lot *lot = rt_lot_of(wg);
    rt_lock(&lot->lock);
    uint32_t word = rt_load_relaxed(&wg->rt_count), after;
    do {
        after = sum(word, n); /* counted up meanwhile, or the waiter has given up */
    } while (!rt_cas_release(&wg->rt_count, &word, after)); /* as in go_waitgroup_add */
    if (after == WAITED) {
        for (struct rt_waiter *w; (w = rt_waiter_pop(&wg->rt_waiters)) != NULL;) {
            struct rt_g *g = w->g;
            if (rt_claim(g, w->seq, 0))
                rt_glist_push(&gone, g);
        }
        rt_fetch_and_acq_rel(&wg->rt_count, ~WAITED); /* the last touch: who sees it may free wg */
    }
    rt_unlock(&lot->lock);
    rt_ready_all(&gone);
}

/* Under the lot's lock: set or clear WAITED while the count is not 0. False: it is 0. */
static bool mark(go_waitgroup *wg, uint32_t waited) {
    uint32_t word = rt_load_acquire(&wg->rt_count); /* a 0 pairs with the add in done */
    while ((word & ~WAITED) != 0)
        if (rt_cas_acq_rel(&wg->rt_count, &word, (word & ~WAITED) | waited)) /* the adds */
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
    } while (!rt_cas_release(&wg->rt_count, &word, after)); /* pairs with the acquire of the wait */
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
    struct rt_lot *lot = rt_lot_of(wg);
    struct rt_waiter w = {.g = g, .seq = rt_park_seq(g)};
    rt_lock(&lot->lock);
    if (!mark(wg, WAITED)) {
        rt_unlock(&lot->lock);
        return 0;
    }
    rt_queue_push(&wg->rt_waiters, &w.node);
    r = rt_park(g, &lot->lock, RT_WAITING, g->limit, RT_WHY_WAITGROUP);
    if (r == 0)
        return 0;
    rt_lock(&lot->lock);
    if (rt_waiter_queued(&w)) {
        rt_queue_remove(&wg->rt_waiters, &w.node);
        if (!wg->rt_waiters)
            mark(wg, 0);
    }
    rt_unlock(&lot->lock);
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
