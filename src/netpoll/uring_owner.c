/* uring_owner.c - whose a ring is: made, bound to a thread, left by it, taken again, closed.
 *
 * Promise: what was asked on the ring of an M that loses its P is asked on another; no file that is
 * closed by go_close or forgotten stays open for longer than the kernel takes because a thread
 * without a P has polled it, whatever that does; and it does not notice, unless such a file is
 * closed. (By plain close(2), of which nobody is told, it does until that thread comes back.)
 *
 * WHEN A P IS TAKEN (sched/retake.c) the ring goes with it. A ring is used behind the gate of its M
 * only, so nobody can be at it. It belongs to its thread, so the heir cannot enter it: he closes
 * the inbox, counts off all that is in flight there, arms on his own ring what was armed on this
 * one, and leaves it (LEFT). Who takes a poll back finds the inbox closed, and counts it off
 * himself, or the heir finds the letter. What is in flight still is noted in the inbox.
 *   the thread comes back   takes its ring again, cancels all, and begins anew
 *   a close finds its file  in such an inbox, and closes that ring; the thread gets another. If the
 *                           heir is not done, or not there, and the close has given up waiting
 *                           for him, it says so in the inbox, and he closes the ring
 * The kernel lets go the files of a closed ring by itself, some milliseconds later, whatever the
 * thread is doing; but not while something else holds the ring, as io_uring_register_ring_fd does,
 * and a forked child that has not called exec. It does tell the thread, so a system call of the hog
 * that cannot be begun again, as epoll_wait(2), ends by EINTR, once: so no ring is closed that need
 * not be. */
#include "base/chaos.h"
#include "base/lock.h"
#include "base/sys.h"
#include "netpoll/engines.h"
#include "netpoll/uring.h"

enum { STOP_TRIES = 20 };
static const int64_t STOP_WAIT_NS = 50 * 1000 * 1000;
static const uint64_t OF_FD = (uint64_t)15 << 60 | (uint64_t)0x7ffffff << 32;

enum { /* rt_uring.state */
    FREE,
    IN_USE, /* its M's; or the heir's, when the P was taken */
    LEFT,   /* who changes that has it: its M, or a close */
    CLOSING,
};

enum { LOOK_TRIES = 32 };
static const int64_t LOOK_NAP_NS = 50 * 1000;

struct rt_uring *rt_urings;
uint32_t rt_uring_left;
uint32_t rt_uring_closed;
static struct rt_uring *looked_at; /* by sysmon just now */

/* ---- rings that were left -------------------------------------------------------------------- */

static void set_state(struct rt_uring *u, uint32_t state) {
    rt_store_release(&u->state, state); /* pairs with the acquires of who has it next */
    rt_sys_futex_wake(&u->state, 1);
}

/* No M's any more, and ours alone. */
static void close_ring(struct rt_uring *u) {
    rt_fence_heavy(); /* that, then the look: pairs with the light fence in rt_uring_stuck */
    for (int tries = 0; rt_load_acquire(&looked_at) == u; tries++) /* pairs with its release */
        tries < LOOK_TRIES ? rt_sys_yield() : rt_sys_nap(LOOK_NAP_NS);
    rt_ring_free(&u->ring);
}

static void close_if_left(struct rt_uring *u) {
    uint32_t left = LEFT;
    if (rt_cas_acquire(&u->state, &left, CLOSING)) { /* pairs with the release in set_state */
        close_ring(u);
        rt_fetch_sub_relaxed(&rt_uring_left, 1);
        set_state(u, FREE);
    }
}

/* fd, which nobody asks for any more, is being closed. */
void rt_uring_close_left(int fd) {
    for (uint32_t i = 0, n = rt_load_relaxed(&rt.nms); i < n; i++) {
        struct rt_uring *u = &rt_urings[i];
        if (rt_load_acquire(&u->state) != FREE && /* pairs with the release in rt_uring_m_start */
            rt_inbox_want(&u->inbox, rt_uring_poll_data(fd, RT_IN, 0), OF_FD)) {
            rt_fetch_add_relaxed(&rt_uring_closed, 1);
            close_if_left(u); /* or the heir does when he is done; or its M cancels */
        }
    }
}

/* ---- sysmon looks ---------------------------------------------------------------------------- */

static bool stuck(const struct rt_uring *u) {
    const struct io_uring *r = &u->ring.u;
    bool seen = io_uring_smp_load_acquire(r->cq.ktail) != rt_load_relaxed(r->cq.khead);
    return seen || rt_ring_wants(&u->ring) || rt_inbox_any(&u->inbox) ||
           rt_sys_now() - rt_load_relaxed(&u->first_prep) >= RT_SUBMIT_AGE_NS;
}

/* Somebody else may take the ring away just now, and close it: a hazard pointer (M. Michael,
 * "Hazard pointers", 2004), with the dear fence on the other side. */
bool rt_uring_stuck(struct rt_m *m) {
    struct rt_uring *u = rt_uring_of(m);
    if (!u)
        return false;
    rt_store_release(&looked_at, u); /* what it has looked at before it is done with: close_ring */
    rt_fence_light();                /* pairs with the heavy fence in close_ring */
    bool yes = rt_uring_of(m) == u && stuck(u);
    rt_store_release(&looked_at, NULL); /* pairs with the acquire in close_ring */
    return yes;
}

/* ---- start and stop -------------------------------------------------------------------------- */

void rt_uring_stop(void) {
    for (unsigned i = 0; i < rt.nms; i++)
        if (rt_urings[i].number) {
            rt_ring_end(&rt_urings[i].ring);
            rt_inbox_free(&rt_urings[i].inbox);
        }
    rt_sys_free_sparse(rt_urings, rt.max_ms * sizeof *rt_urings);
    rt_urings = NULL;
}

/* Used for the first time. */
static void init_ring(struct rt_uring *u, uint32_t index) {
    u->number = (uint16_t)(index + 1);
    rt_ring_init(&u->ring);
    rt_inbox_init(&u->inbox);
}

int rt_uring_start(unsigned ms) {
    int err = rt_ring_self_test();
    if (err)
        return err;
    rt_urings = rt_sys_alloc_sparse(rt.max_ms * sizeof *rt_urings);
    if (!rt_urings)
        return -ENOMEM;
    for (unsigned i = 0; i < ms && err == 0; i++) {
        init_ring(&rt_urings[i], i);
        err = rt_ring_make(&rt_urings[i].ring, RT_RING_ENTRIES, RT_RING_COMPLETIONS);
    }
    if (err)
        rt_uring_stop();
    else
        rt_fd_engine = &rt_uring_engine;
    return err;
}

/* Everything in flight is cancelled and waited for. */
static void cancel_all(struct rt_uring *u, unsigned (*reaped)(struct rt_uring *, struct rt_glist *),
                       struct rt_glist *woken) {
    rt_uring_cancel(u);
    for (int i = 0; i < STOP_TRIES && (u->inflight || u->bell_armed); i++) {
        rt_uring_wait(u, STOP_WAIT_NS); /* runs about twenty pieces of deferred work */
        if (reaped(u, woken) != 0)
            i = 0;
    }
}

/* As reap, of what the heir has counted off. */
static unsigned discard(struct rt_uring *u, struct rt_glist *ready) {
    (void)ready;
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;
    io_uring_for_each_cqe(&u->ring.u, head, cqe) {
        n++;
        if (rt_uring_data_tag(cqe->user_data) == RT_TAG_POLL)
            u->inflight--;
        else if (rt_uring_data_tag(cqe->user_data) == RT_TAG_BELL)
            u->bell_armed = false;
    }
    io_uring_cq_advance(&u->ring.u, n);
    return n;
}

/* Its ring, or the place for another, is its own again: the heir is done. */
static void take_back_ring(struct rt_uring *u) {
    for (uint32_t state; (state = rt_load_acquire(&u->state)) != FREE;) /* pairs with set_state */
        if (state == LEFT && rt_cas_relaxed(&u->state, &state, IN_USE)) {
            cancel_all(u, discard, NULL);
            if (u->inflight || u->bell_armed) /* the kernel refuses again and again */
                close_ring(u);
            rt_fetch_sub_relaxed(&rt_uring_left, 1);
            return;
        } else if (state != LEFT) {
            rt_sys_futex_wait(&u->state, state, -1);
        }
}

int rt_uring_m_start(struct rt_m *m) {
    struct rt_uring *u = &rt_urings[m->index];
    if (m->poller)
        return 0;
    if (!u->number)
        init_ring(u, m->index);
    take_back_ring(u);
    int err = 0;
    if (!u->ring.made) {
        err = rt_ring_make(&u->ring, RT_RING_ENTRIES, RT_RING_COMPLETIONS);
        u->enabled = false;
    }
    if (err == 0 && !u->enabled)
        err = rt_ring_enable(&u->ring);
    if (err) {
        rt_ring_free(&u->ring);
        set_state(u, FREE);
        return err;
    }
    u->enabled = true;
    u->inflight = 0; /* all that was in it is gone with it; only a request to drop what has been
                        dropped may be prepared still */
    u->bell_armed = false;
    u->refused = 0;
    rt_store_relaxed(&u->first_prep, io_uring_sq_ready(&u->ring.u) ? rt_sys_now() : INT64_MAX);
    rt_store_release(&u->state, IN_USE); /* pairs with the acquire in rt_uring_close_left */
    rt_inbox_open(&u->inbox);
    rt_store_release(&m->poller, u); /* pairs with the acquire in rt_uring_of */
    return 0;
}

/* ---- a P is taken, or put away --------------------------------------------------------------- */

struct heir {
    struct rt_uring *of, *to; /* to NULL: any */
    struct rt_glist *ready;
};

/* Lock held. Somebody else shall look for all who wait on s; else each looks for himself. */
static void pass_on(const struct heir *h, struct rt_fd *s, int fd) {
    if (!h->to) {
        if (s->waiters && rt_uring_post_look(fd) != 0)
            rt_fd_event(s, RT_BOTH, false, h->ready);
        return;
    }
    for (int dir = RT_IN; dir <= RT_OUT; dir++)
        if (rt_uring_arm_on(h->to, s, fd, dir) != 0)
            rt_fd_event(s, 1u << dir, false, h->ready);
}

static void pass_slot(struct rt_fd *s, int fd, void *arg) {
    const struct heir *h = arg;
    bool asked = false;
    for (int dir = RT_IN; dir <= RT_OUT; dir++) /* not to lock them all: nothing is added here */
        asked |= rt_load_relaxed(&s->poll[dir].owner) == h->of->number;
    if (!asked)
        return;
    rt_lock(&s->lock);
    for (int dir = RT_IN; dir <= RT_OUT; dir++)
        if (s->poll[dir].owner == h->of->number) {
            rt_store_relaxed(&s->poll[dir].owner, 0);
            rt_inbox_note(&h->of->inbox, rt_uring_poll_data(fd, dir, s->poll[dir].seq));
            rt_uring_count_off(s);
        }
    pass_on(h, s, fd);
    rt_unlock(&s->lock);
}

static void pass_letters(const struct heir *h) {
    uint64_t letter;
    rt_inbox_close(&h->of->inbox);
    while (rt_inbox_take(&h->of->inbox, &letter)) {
        int fd = rt_uring_data_fd(letter);
        struct rt_fd *s = rt_fd_at(fd);
        bool look = rt_uring_data_tag(letter) == RT_TAG_LOOK;
        if (look)
            rt_inbox_done(&h->of->inbox);
        else
            rt_inbox_keep_taken(&h->of->inbox, letter); /* it is in flight still */
        rt_lock(&s->lock);
        if (look)
            pass_on(h, s, fd);
        else
            rt_uring_count_off(s);
        rt_unlock(&s->lock);
    }
}

void rt_uring_adopt(struct rt_m *m, void *from, struct rt_glist *ready) {
    struct rt_uring *of = from;
    struct heir h = {.of = of, .to = m ? m->poller : NULL, .ready = ready};
    rt_chaos_delay("uring: a late heir");
    rt_fetch_add_relaxed(&rt_uring_left, 1); /* before anything is counted off: see uring_settle */
    pass_letters(&h);
    if (of->inflight != 0)
        rt_fd_each(pass_slot, &h);
    rt_chaos_delay("uring: counted off, not left");
    set_state(of, LEFT);
    if (rt_inbox_wanted(&of->inbox))
        close_if_left(of);
}

/* A spare ends. Nothing was asked on its ring, but perhaps to look: see rt_uring_post_look. */
static void give_ring_back(struct rt_m *m, struct rt_uring *u, struct rt_glist *woken) {
    rt_store_relaxed(&m->poller, NULL);
    pass_letters(&(struct heir){.of = u, .ready = woken});
    close_ring(u);
    set_state(u, FREE);
}

/* Closing the ring would not do it while a forked child holds it, too. */
void rt_uring_m_stop(struct rt_m *m) {
    struct rt_uring *u = m->poller;
    struct rt_glist woken = {0};
    if (!u)
        return;
    if (rt_gate_is_shut(m)) {
        give_ring_back(m, u, &woken);
    } else {
        rt_uring_serve_inbox(u);
        cancel_all(u, rt_uring_reap, &woken);
    }
    for (struct rt_g *g; (g = rt_glist_pop(&woken)) != NULL;)
        rt_ready(g); /* of foreign threads, or at the stop, where no green thread is left */
}
