/* after.c - timers: a function that is called at a later time.
 *
 * A timer is a G that waits for its first run without a stack (rt_spawn_at), and this struct, which
 * the handle points to. Both belong to two parties, the G and whoever stops the timer; t->lock says
 * who came first, and who comes second frees the struct:
 *
 *            .--stop: 0--> STOPPED --G--> freed
 *   ARMED --+--time--> RUNNING --returned--> OVER --stop: EALREADY--> freed
 *            |             '--stop: EALREADY--> LEFT --returned--> freed
 *            '--the runtime stops--> VOID --stop: 0--> freed
 *
 * A stop that can take the G back (rt_spawn_undo) frees the struct at once. The G runs in any case
 * when the runtime stops, because the stop wakes it; then it only notes that it never will. So a
 * handle outlives the runtime, and no fn begins after a stop has. The G itself is looked at in the
 * state ARMED alone, and by a foreign thread that holds the runtime since before it looked: it
 * cannot be of a runtime that is gone. */
#include "base/check.h"
#include "base/lock.h"
#include "base/sys.h"
#include "sched/park.h"
#include "sched/spawn.h"
#include "sched/start.h"

#include <gort/time.h>

enum { ARMED = 1, STOPPED, RUNNING, OVER, LEFT, VOID };

struct go_timer {
    uint32_t lock;
    uint32_t state; /* under lock */
    void (*fn)(void *);
    void *arg;
    struct rt_g *g; /* waits, or runs it */
    uint64_t seq;
    struct rt_g *waiter; /* under lock: in go_timer_stop_wait, with waiter_seq */
    uint64_t waiter_seq;
};

/* True: it is time. */
static bool begin(go_timer *t) {
    bool due = rt_self()->wake_result == -ETIMEDOUT && rt_running() == 0;
    rt_lock(&t->lock);
    bool stopped = t->state == STOPPED;
    if (!stopped)
        t->state = due ? RUNNING : VOID;
    rt_unlock(&t->lock);
    if (stopped)
        rt_sys_free(t);
    return due && !stopped;
}

static void end(go_timer *t) {
    rt_lock(&t->lock);
    bool left = t->state == LEFT;
    t->state = OVER;
    struct rt_g *waiter = t->waiter;
    bool mine = waiter && rt_claim(waiter, t->waiter_seq, 0);
    rt_unlock(&t->lock); /* the last touch: the waiter frees it, or a stop that comes now */
    if (left)
        rt_sys_free(t);
    if (mine)
        rt_ready(waiter);
}

static void timer_main(void *arg) {
    go_timer *t = arg;
    if (!begin(t))
        return;
    t->fn(t->arg);
    end(t);
}

go_timer *go_timer_after(int64_t ns, void (*fn)(void *), void *arg) {
    go_timer *t = fn ? rt_sys_alloc(sizeof *t) : NULL;
    if (!t)
        return NULL;
    *t = (go_timer){.state = ARMED, .fn = fn, .arg = arg};
    int64_t when = rt_time_add(rt_sys_now(), ns > 0 ? ns : 0);
    if (rt_spawn_at(timer_main, t, when, "go_timer_after", &t->g, &t->seq) != 0) {
        rt_sys_free(t);
        return NULL;
    }
    return t;
}

/* t->lock is held and released. fn runs: leave it alone, or wait for it. */
static int stop_running(go_timer *t, bool wait) {
    struct rt_g *self = rt_self();
    if (wait && t->g == self) {
        rt_unlock(&t->lock);
        return -EDEADLK;
    }
    if (!wait) {
        t->state = LEFT;
        rt_unlock(&t->lock);
        return -EALREADY;
    }
    t->waiter = self;
    t->waiter_seq = rt_park_seq(self);
    rt_park(self, &t->lock, RT_HARD, GO_FOREVER, RT_WHY_OTHER);
    rt_sys_free(t);
    return -EALREADY;
}

static int stop(go_timer *t, bool wait, bool may_undo) {
    rt_lock(&t->lock);
    uint32_t state = t->state;
    if (state == RUNNING)
        return stop_running(t, wait);
    struct rt_g *g = t->g;
    uint64_t seq = t->seq;
    if (state == ARMED)
        t->state = STOPPED;
    rt_unlock(&t->lock); /* its G may free it from now on, when it was armed */
    if (state != ARMED || (may_undo && rt_spawn_undo(g, seq)))
        rt_sys_free(t);
    return state == OVER ? -EALREADY : 0;
}

static int stop_anywhere(go_timer *t, bool wait) {
    if (!t)
        return -EINVAL;
    if (rt_load_relaxed(&rt.state) == RT_FORKED)
        return -ENXIO; /* the lock may be held for ever, by a thread that is not here */
    bool green = rt_m() != NULL;
    bool entered = green || rt_foreign_enter() == 0;
    int r = stop(t, wait, entered);
    if (entered && !green)
        rt_foreign_leave();
    return r;
}

int go_timer_stop(go_timer *t) {
    return stop_anywhere(t, false);
}

int go_timer_stop_wait(go_timer *t) {
    return stop_anywhere(t, true);
}
