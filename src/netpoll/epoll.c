/* epoll.c - the netpoll engine on epoll: one shared set, any M may collect from it.
 *
 * Promise: an event of an armed descriptor is collected by the M that sleeps in the set, at once,
 * or by the next M that runs out of work or passes its scheduler loop, at most every 20 us; while
 * all have more to do than an event would bring, now and then, and by sysmon after 3 ms.
 *
 * Descriptors that gort made are added once, at their first wait, edge-triggered for everything:
 * after that a park costs no system call at all. An edge is told once, so the slot counts them
 * (fd.c), and adding tells what is ready already. All others are armed for one event at each park
 * (EPOLLONESHOT): MOD, and ADD when the set does not know them. That heals a number that was closed
 * by a plain close(2) and handed out again: the kernel has forgotten the old file and says ENOENT.
 * Registered once, such a number would hang. A file that cannot be polled says EPERM and is always
 * ready.
 *
 * An event carries {descriptor, generation}; one of an older generation is thrown away. When an
 * event of a foreign descriptor leaves a waiter of the other direction, it is armed again by
 * whoever collected it.
 *
 * A short read of a stream is trusted to have emptied it (fd.h: dry), but not once an event has
 * told of the end, an error or urgent data: these may have been told in the same edge as the data,
 * and no other edge comes. Never on AF_UNIX, where a read stops behind bytes that came with
 * descriptors, and with SO_PASSCRED where another process has written.
 *
 * ONE M SLEEPS IN THE SET (`sleeper`), the others on futexes; while it does nobody else collects:
 * the events are its wake-up. The bell is level-triggered, and only the sleeper empties it: so a
 * collector that passes by cannot swallow a ring that is meant for the sleeper. */
#include "base/chaos.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/sys_io.h"
#include "netpoll/engines.h"
#include "netpoll/fd.h"
#include "sched/idle.h"

#include <string.h>
#include <sys/epoll.h>

enum { EVENTS = 128 };
static const int64_t COLLECT_EVERY_NS = 20 * 1000;
static const int64_t COLLECT_LATE_NS = 3 * 1000 * 1000; /* then sysmon does it */
static const uint64_t BELL = UINT64_MAX;
static const uint32_t EDGES = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET;

_Static_assert(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT && EPOLLPRI == POLLPRI &&
                   EPOLLRDHUP == POLLRDHUP && EPOLLERR == POLLERR && EPOLLHUP == POLLHUP,
               "masks of poll(2) are passed to epoll as they are");

static struct {
    int set, bell;
    uint32_t used;       /* 1: something was armed since the start */
    /* 1: an M sleeps in the set, or is about to. */
    uint32_t sleeper __attribute__((aligned(RT_CACHE_LINE)));
    uint32_t refused;    /* sleeps in a row that the kernel has not allowed: the sleeper's */
    uint32_t collector;  /* 1: an M collects without waiting */
    int64_t collected;   /* when; a hint */
} ep;

static uint64_t tag(const struct rt_fd *s, int fd) {
    return (uint64_t)s->gen << 32 | (unsigned)fd;
}

/* ---- what fd.c asks -------------------------------------------------------------------------- */

static int arm_edges(struct rt_fd *s, int fd) {
    if (s->flags & RT_FD_ADDED)
        return 0;
    int err = rt_sys_epoll_ctl(ep.set, EPOLL_CTL_ADD, fd, EDGES, tag(s, fd));
    if (err == -EEXIST)
        err = rt_sys_epoll_ctl(ep.set, EPOLL_CTL_MOD, fd, EDGES, tag(s, fd));
    return err;
}

/* For those that wait, if any. */
static int arm_once(struct rt_fd *s, int fd) {
    unsigned n;
    uint32_t events = rt_fd_wanted(s, RT_BOTH, &n) | EPOLLONESHOT;
    if (n == 0)
        return 0;
    int err = -ENOENT;
    if (s->flags & RT_FD_ADDED)
        err = rt_sys_epoll_ctl(ep.set, EPOLL_CTL_MOD, fd, events, tag(s, fd));
    if (err == -ENOENT)
        err = rt_sys_epoll_ctl(ep.set, EPOLL_CTL_ADD, fd, events, tag(s, fd));
    if (err == -EEXIST)
        err = rt_sys_epoll_ctl(ep.set, EPOLL_CTL_MOD, fd, events, tag(s, fd));
    return err;
}

/* A foreign thread waits, and perhaps nobody sleeps in the set, because its sleeper was called away
 * and hogs: send somebody there, who is quicker than sysmon. */
static void find_a_sleeper(void) {
    if (rt_load_relaxed(&ep.sleeper)) /* if not any more: it goes to its loop, and looks there */
        return;
    struct rt_p *p = &rt.ps[0]; /* it is never put away; its M, if awake, looks before it sleeps */
    for (uint32_t i = 0, procs = rt_procs(); i < procs; i++) {
        const struct rt_m *m = rt_m_of(&rt.ps[i]);
        if (rt_load_relaxed(&m->sleep) != RT_AWAKE && !rt_gate_is_shut(m)) {
            p = &rt.ps[i];
            break;
        }
    }
    rt_idle_kick(p, rt_m_of(p));
}

static int epoll_arm(struct rt_fd *s, int fd) {
    int err = s->flags & RT_FD_OURS ? arm_edges(s, fd) : arm_once(s, fd);
    if (err)
        return err == -EPERM ? RT_FD_ALWAYS : err;
    if (!(s->flags & RT_FD_ADDED))
        rt_store_relaxed(&s->flags, (uint16_t)(s->flags | RT_FD_ADDED));
    if (!rt_load_relaxed(&ep.used))
        rt_store_relaxed(&ep.used, 1);
    struct rt_m *m = rt_m();
    if (rt_unlikely(!m || rt_gate_is_shut(m)))
        find_a_sleeper();
    return 0;
}

static void epoll_disarm(struct rt_fd *s, int fd) {
    if (s->flags & RT_FD_ADDED)
        rt_sys_epoll_ctl(ep.set, EPOLL_CTL_DEL, fd, 0, 0);
}

static const struct rt_fd_engine engine = {
    .edges = true, .arm = epoll_arm, .disarm = epoll_disarm};

/* ---- collecting ------------------------------------------------------------------------------ */

static void one_event(const struct epoll_event *e, struct rt_glist *ready) {
    int fd = (int)(uint32_t)e->data.u64;
    struct rt_fd *s = rt_fd_at(fd);
    const uint32_t both = EPOLLERR | EPOLLHUP;
    unsigned dirs = 0;
    if (e->events & ((uint32_t)RT_IN_EVENTS | both))
        dirs |= 1u << RT_IN;
    if (e->events & ((uint32_t)RT_OUT_EVENTS | both))
        dirs |= 1u << RT_OUT;
    rt_chaos_delay("epoll: told by the kernel, by us to nobody");
    rt_lock(&s->lock);
    if (s->gen == (uint32_t)(e->data.u64 >> 32)) {
        rt_fd_event(s, dirs, (e->events & (both | EPOLLRDHUP | EPOLLPRI)) != 0, ready);
        if (!(s->flags & RT_FD_OURS) && arm_once(s, fd) != 0)
            rt_fd_event(s, RT_BOTH, false, ready); /* let them find out for themselves */
    }
    rt_unlock(&s->lock);
}

static void touch(const struct epoll_event *events, int n) {
    int fds[RT_FD_BATCH];
    n = n < RT_FD_BATCH ? n : RT_FD_BATCH;
    for (int i = 0; i < n; i++)
        fds[i] = (int)(uint32_t)events[i].data.u64;
    rt_fd_touch(fds, (unsigned)n);
}

/* Collect, waiting up to timeout_ns (< 0: for ever). 0, or the error of the wait, which passes. */
static int collect(int64_t timeout_ns, struct rt_glist *ready, bool *rung) {
    struct epoll_event events[EVENTS];
    int n = -EINTR;
    if (timeout_ns == 0 || !rt_chaos_flip("epoll: a wait is interrupted"))
        n = rt_sys_epoll_wait(ep.set, events, EVENTS, timeout_ns);
    bool passes = n >= 0 || n == -EINTR || n == -ENOMEM || n == -EAGAIN;
    if (rt_unlikely(!passes)) /* all who wait would wait for ever */
        rt_fatal("epoll_wait(2) worked at the start and fails now: %s (was the descriptor of the "
                 "set closed by somebody else, or is there a late seccomp filter?)",
                 strerror(-n));
    for (int i = 0; i < n; i++) {
        if (i % RT_FD_BATCH == 0)
            touch(&events[i], n - i);
        if (events[i].data.u64 == BELL)
            *rung = true;
        else
            one_event(&events[i], ready);
    }
    return n < 0 ? n : 0;
}

/* ---- what the scheduler asks ----------------------------------------------------------------- */

static bool epoll_pending(struct rt_m *m) {
    (void)m;
    return rt_load_relaxed(&ep.used) && !rt_load_relaxed(&ep.sleeper);
}

/* sysmon queues what it gets for any worker, so who sleeps on a note must not be among it. */
static void wake_threads(struct rt_glist *ready) {
    struct rt_glist green = {0};
    for (struct rt_g *g; (g = rt_glist_pop(ready)) != NULL;) {
        if (g->flags & RT_G_NOTE)
            rt_ready(g);
        else
            rt_glist_push(&green, g);
    }
    *ready = green;
}

static void epoll_poll(struct rt_m *m, bool hungry, struct rt_glist *ready) {
    if (!epoll_pending(m))
        return;
    if (!hungry) {
        int64_t now = rt_sys_now(), every = m ? COLLECT_EVERY_NS : COLLECT_LATE_NS;
        if (now - rt_load_relaxed(&ep.collected) < every)
            return;
        rt_store_relaxed(&ep.collected, now);
    }
    if (!rt_trylock(&ep.collector))
        return;
    bool rung; /* for the sleeper, who empties the bell */
    (void)collect(0, ready, &rung);
    rt_unlock(&ep.collector);
    if (!m)
        wake_threads(ready);
}

static enum rt_sleep_mode epoll_sleep_mode(struct rt_m *m) {
    (void)m;
    uint32_t none = 0;
    return rt_cas_acquire(&ep.sleeper, &none, 1) ? RT_SLEEP_POLLER : RT_SLEEP_FUTEX;
}

static void epoll_sleep_undo(struct rt_m *m) {
    (void)m;
    rt_store_release(&ep.sleeper, 0); /* and what is the sleeper's */
}

static void epoll_sleep(struct rt_m *m, int64_t timeout_ns, struct rt_glist *ready) {
    bool rung = false;
    int err = collect(timeout_ns, ready, &rung);
    if (rung)
        rt_sys_eventfd_drain(ep.bell);
    rt_wait_ended(&ep.refused, "epoll_wait(2)", err);
    epoll_sleep_undo(m);
}

static void epoll_wake(struct rt_m *m) {
    (void)m;
    rt_sys_eventfd_add(ep.bell);
}

/* ---- start and stop -------------------------------------------------------------------------- */

static void epoll_stop(void) {
    if (ep.bell >= 0)
        rt_sys_close(ep.bell);
    if (ep.set >= 0)
        rt_sys_close(ep.set);
    ep.bell = ep.set = -1;
}

static int epoll_start(unsigned procs) {
    (void)procs;
    ep.used = ep.sleeper = ep.refused = ep.collector = 0;
    ep.collected = 0;
    ep.bell = -1;
    ep.set = rt_sys_epoll_create();
    if (ep.set < 0)
        return ep.set;
    ep.bell = rt_sys_eventfd(true);
    int err = ep.bell < 0 ? ep.bell
                          : rt_sys_epoll_ctl(ep.set, EPOLL_CTL_ADD, ep.bell, EPOLLIN, BELL);
    if (err) {
        epoll_stop();
        return err;
    }
    rt_fd_engine = &engine;
    return 0;
}

static int epoll_m_start(struct rt_m *m) {
    m->poller = NULL;
    return 0;
}

static void epoll_m_stop(struct rt_m *m) {
    (void)m;
}

const struct rt_poller rt_epoll_poller = {
    .name = "epoll",
    .start = epoll_start,
    .stop = epoll_stop,
    .m_start = epoll_m_start,
    .m_stop = epoll_m_stop,
    .pending = epoll_pending,
    .poll = epoll_poll,
    .sleep_mode = epoll_sleep_mode,
    .sleep_undo = epoll_sleep_undo,
    .sleep = epoll_sleep,
    .wake = epoll_wake,
    .waits = rt_fd_waits,
};
