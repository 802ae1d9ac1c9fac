/* when.c - go_spawn_when: a green thread that begins when a descriptor is ready, and has no stack
 * before that.
 *
 * Promise: for each go_spawn_when that returned 0, fn runs exactly once: when the descriptor is
 * ready, is closed or forgotten, when the deadline is over, or when the runtime stops.
 *
 * THE WAITER IS THE G ITSELF, before its first run. It is spawned into no queue; its wait word goes
 * to WAITING as that of a parking G does (spawn.c: rt_park_unstarted), and its node in the slot's
 * list lies in its own record, where one that runs keeps what selects need. So events, close,
 * timers and the stop claim it and queue it as any other waiter, knowing nothing of this; but then
 * it runs for the first time, and gets a stack for that. Exactly once, because a claim succeeds
 * once. The claim also orders what the spawner wrote into the record before the G that runs.
 *
 *   spawner                                  when_main, on the new stack
 *   note the edges; poll(2) says nothing     take the node off the list, unless an event has
 *   arm the timer of a deadline              clear what the record was lent for
 *   lock the slot; edge moved: again         an event: poll(2) for the revents; when nothing is
 *   node into the list; arm the engine           there any more wait as go_poll does
 *   WAITING, unlock, look at attention       fn(arg)
 *
 * The poll(2) before is needed for edge-triggered epoll, which does not tell what it has told. It
 * is spared when the latest transfer left nothing (fd.h: dry), as after the last request of a
 * connection. The one after tells what is true when fn begins, and keeps fn from being called in
 * vain when somebody else was quicker; then, and only then, the G waits on with the stack that it
 * has.
 *
 * When waiting without a stack cannot be arranged, it is started at once and waits with one: while
 * another thread is between giving the waiters up and close(2) on this number; when the ring takes
 * no entry.
 *
 * The close protocol of fd.c holds: the record keeps the slot's generation, so that a wake for an
 * older file of the same number is -EBADF. */
#include "base/sys.h"
#include "base/sys_io.h"
#include "io/poll.h"
#include "sched/spawn.h"

#include <gort/io.h>
#include <string.h>

/* Until it runs. */
struct when {
    struct rt_fd_waiter node;
    void (*fn)(void *);
    uint32_t gen; /* of the slot */
};
_Static_assert(sizeof(struct when) <= sizeof((struct rt_g *)0)->before, "it lies in the record");

static struct when *when_of(struct rt_g *g) {
    return (struct when *)(void *)g->before;
}

/* What was lent is as in any other record. */
static void clear(struct rt_g *g) {
    memset(g->before, 0, sizeof g->before);
}

/* ---- it runs --------------------------------------------------------------------------------- */

static int result_of(struct rt_fd_op *op, unsigned mask) {
    int r = op->g->wake_result;
    if (r >= 0 && rt_fd_hold(op) != 0)
        r = -EBADF;
    if (r == 0)
        r = rt_poll_until(op, mask, op->g->wait_deadline);
    rt_fd_let_go(op);
    return r;
}

static void when_main(void *arg) {
    struct rt_g *g = rt_self();
    struct when *w = when_of(g);
    int fd = w->node.fd;
    struct rt_fd_op op = {.g = g, .slot = rt_fd_at(fd), .gen = w->gen, .fd = fd};
    void (*fn)(void *) = w->fn;
    unsigned mask = w->node.mask;
    rt_fd_started(&op, &w->node);
    clear(g);
    g->result = (void *)(intptr_t)result_of(&op, mask);
    fn(arg);
}

int go_when_result(void) {
    struct rt_g *g = rt_self();
    return g->fn == (void *)when_main ? (int)(intptr_t)g->result : -EINVAL;
}

/* ---- it is spawned --------------------------------------------------------------------------- */

/* The revents, 0 for nothing, -EBADF. */
static int look(struct rt_fd_op *op, unsigned mask) {
    unsigned dirs = rt_fd_dirs(mask);
    bool fresh = false;
    for (int dir = RT_IN; dir <= RT_OUT; dir++)
        if (dirs & 1u << dir)
            fresh |= rt_fd_fresh(op, dir);
    return fresh ? rt_sys_fd_ready(op->fd, (short)mask) : 0;
}

/* r: its result; 0: it looks, and waits, by itself. */
static int start_now(struct rt_g *g, int r) {
    g->wake_result = r;
    rt_spawn_ready(g);
    return 0;
}

/* 0: g is on its way, waiting or not. */
static int send_off(struct rt_fd_op *op, struct rt_g *g, unsigned mask, int64_t deadline) {
    int r;
    do {
        r = look(op, mask);
        if (r < 0)
            return r;
        if (r == 0 && deadline != GO_FOREVER && rt_sys_now() >= deadline)
            r = -ETIMEDOUT;
        if (r != 0)
            return start_now(g, r);
        r = rt_spawn_arm(g);
        if (r == 0)
            r = rt_fd_wait_unstarted(op, &when_of(g)->node, rt_poll_why(mask));
    } while (r == -EAGAIN);
    return r == RT_FD_ALWAYS ? start_now(g, 0) : r;
}

static int spawn_when(struct rt_fd_op *op, unsigned mask, int64_t deadline, void (*fn)(void *),
                      void *arg) {
    int err = rt_running();
    struct rt_g *g = err ? NULL : rt_spawn_take(when_main, arg, deadline, &err);
    if (!g)
        return err;
    struct when *w = when_of(g);
    w->fn = fn;
    w->gen = op->gen;
    w->node =
        (struct rt_fd_waiter){.g = g, .seq = rt_park_seq(g), .mask = (uint16_t)mask, .fd = op->fd};
    err = send_off(op, g, mask, deadline);
    if (err) {
        clear(g);
        rt_spawn_give_back(g);
    }
    return err;
}

int go_spawn_when_until(int fd, short events, int64_t deadline, void (*fn)(void *), void *arg) {
    struct rt_fd_op op;
    if (!fn)
        return -EINVAL;
    int err = rt_fd_find(&op, fd);
    if (err == 0) {
        err = spawn_when(&op, rt_poll_mask(events), deadline, fn, arg);
        rt_fd_end(&op);
    }
    return err;
}

int go_spawn_when(int fd, short events, void (*fn)(void *), void *arg) {
    return go_spawn_when_until(fd, events, GO_FOREVER, fn, arg);
}
