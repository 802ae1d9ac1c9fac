/* ticker.c - tickers: a channel that receives the time again and again.
 *
 * Each tick is a G of its own, which waits without a stack (rt_spawn_at), sends, spawns the next
 * one, and ends: on the hot stack of whoever ran before, so a ticker costs two records and a
 * channel. Its times are multiples of the period from the beginning; those that are already past
 * when a tick comes are skipped.
 *
 * The ticker belongs to its user and to the G of the next tick; who gives it up last frees it with
 * its channel, so a send needs no lock against go_ticker_free. As in after.c, g is looked at only
 * while it waits, and by a foreign thread that holds the runtime since before. */
#include "base/check.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/sys.h"
#include "sched/park.h"
#include "sched/spawn.h"
#include "sched/start.h"
#include "sync/chan.h"

#include <gort/time.h>

struct ticker {
    go_chan *chan;
    int64_t period;
    int64_t next;  /* when the next tick is due; its G */
    uint32_t lock; /* futex lock, since a spawn may map; protects all below */
    uint32_t owners;
    bool waiting; /* g waits with seq */
    bool freed;   /* by the user: no more ticks */
    struct rt_g *g;
    uint64_t seq;
};

static void give_up(struct ticker *t) {
    rt_futex_lock(&t->lock);
    bool last = --t->owners == 0;
    rt_futex_unlock(&t->lock);
    if (!last)
        return;
    t->chan->owner = NULL;
    go_chan_free(t->chan);
    rt_sys_free(t);
}

static void tick(void *arg);

/* The lock is held. */
static int spawn_next(struct ticker *t) {
    int err = rt_spawn_at(tick, t, t->next, "go_ticker_new", &t->g, &t->seq);
    t->waiting = err == 0;
    return err;
}

/* Send; false when nobody will ever receive. */
static bool send_time(struct ticker *t) {
    int64_t now = rt_sys_now();
    int r = go_chan_try_send(t->chan, &now); /* -EAGAIN: the last one is still there */
    t->next = rt_time_add(t->next, t->period);
    if (t->next <= now)
        t->next = rt_time_add(t->next, (now - t->next) / t->period * t->period + t->period);
    return r != -EPIPE;
}

/* On a stack, for want of memory. False: the runtime stops. */
static bool sleep_until(int64_t when) {
    for (int64_t left; (left = when - rt_sys_now()) > 0;) {
        int r = go_sleep(left);
        if (r == -ENOMEM)
            go_yield();
        else if (r != 0)
            return false;
    }
    go_yield(); /* it may be late already, again and again */
    return rt_running() == 0;
}

/* One tick, and more of them while there is no memory for the next G. */
static void tick(void *arg) {
    struct ticker *t = arg;
    bool alive = rt_self()->wake_result == -ETIMEDOUT && rt_running() == 0;
    rt_futex_lock(&t->lock);
    t->waiting = false;
    bool over = t->freed;
    rt_futex_unlock(&t->lock);
    while (!over && alive && send_time(t)) {
        rt_futex_lock(&t->lock);
        over = t->freed;
        if (!over && spawn_next(t) == 0) {
            rt_futex_unlock(&t->lock); /* the next one may run by now: t is its */
            return;
        }
        rt_futex_unlock(&t->lock);
        alive = over || sleep_until(t->next);
    }
    if (!over && !alive)
        go_chan_close(t->chan); /* there will be no more */
    give_up(t);
}

go_chan *go_ticker_new(int64_t period_ns) {
    struct ticker *t = period_ns > 0 ? rt_sys_alloc(sizeof *t) : NULL;
    go_chan *c = t ? go_chan_new(sizeof(int64_t), 1) : NULL;
    if (!c) {
        rt_sys_free(t);
        return NULL;
    }
    *t = (struct ticker){.chan = c, .period = period_ns, .owners = 2};
    c->owner = t;
    t->next = rt_time_add(rt_sys_now(), period_ns);
    rt_futex_lock(&t->lock);
    int err = spawn_next(t);
    rt_futex_unlock(&t->lock);
    if (err) {
        t->owners = 1;
        give_up(t);
        return NULL;
    }
    return c;
}

void go_ticker_free(go_chan *c) {
    if (!c || rt_load_relaxed(&rt.state) == RT_FORKED)
        return;
    struct ticker *t = c->owner;
    if (!t)
        rt_fatal("go_ticker_free: not the channel of a ticker");
    bool green = rt_m() != NULL;
    bool entered = green || rt_foreign_enter() == 0;
    rt_futex_lock(&t->lock);
    t->freed = true;
    bool waiting = t->waiting;
    struct rt_g *g = t->g;
    uint64_t seq = t->seq;
    rt_futex_unlock(&t->lock);
    if (waiting && entered && rt_spawn_undo(g, seq))
        give_up(t);
    give_up(t);
    if (entered && !green)
        rt_foreign_leave();
}
