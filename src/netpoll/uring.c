/* uring.c - the netpoll engine on io_uring: one ring for each M, readiness polls, direct transfers.
 *
 * Promise: a poll that is armed on a ring is answered when its M passes its scheduler loop, or at
 * once while it sleeps, or by its heir when its P is taken; only who is behind the gate of an M
 * touches its ring.
 *
 * A parking G prepares a one-shot POLL_ADD on the ring of the M that it runs on, without a system
 * call; the M submits what has gathered when it runs out of work, when the oldest is 20 us old or
 * the queue is half full, and the same call runs the deferred work of the ring, so a busy server
 * makes one io_uring_enter for dozens of parks and wakes. (Submitting at each park cost others half
 * of their CPU; gathering without an age limit ruined their tails: research/uring.md.)
 *
 * ONE POLL FOR EACH SLOT AND DIRECTION. slot->poll[dir] = {owner M, mask, seq}. The completion
 * carries {descriptor, direction, seq}: it counts only while seq and owner are still the slot's, so
 * an answer for a closed descriptor, an older poll or a reused number is thrown away. No pointer is
 * carried. When a waiter comes and a poll is armed that covers what it wants:
 *   on its own ring, or others wait on it   it relies on that poll
 *   on another ring, and nobody waits       armed here, taken back there
 * When a waiter is cancelled or late its poll stays, and the next wait relies on it: a reader that
 * times out 10,000 times has one poll in flight, not 10,000.
 *
 * CLOSE and forget take it back, because a poll holds the file: until it is gone no FIN is sent,
 * and a listener takes connections. On the own ring that is submitted at once; the owner of another
 * finds it in its inbox, and is woken. slot->polls counts what is in flight for the slot on all
 * rings, up when it is prepared, down when its completion is seen, which is after the system call
 * that let the file go; the close sleeps on that word. Meanwhile it serves such letters in its own
 * inbox, so two Ms that close each other's go on. A poll that is left with a hog would let it wait
 * until sysmon takes the P; under GO_STRICT nobody does, so it gives up after a slice.
 * What is in flight on a ring is either the poll of a slot, or taken back: then it is in the inbox
 * until it is answered, served or not.
 *
 * A foreign thread has no ring: it leaves "look at this descriptor" in the inbox of some M,
 * preferably one that sleeps, and parks like a G. So does an M that has no P.
 *
 * WHEN A P IS TAKEN (sched/retake.c) the ring goes with it, and the thread gets a new one before it
 * may have another P. Rings belong to one thread, so the heir cannot enter it; it closes the inbox
 * and the ring, which ends what is in flight there, counts that off, and arms on its own ring what
 * was armed on this one. A ring is used between rt_gate_enter and rt_gate_leave only, so nobody can
 * be at it. Who takes a poll back finds the inbox closed, and counts it off himself, or the heir
 * finds the letter. The kernel lets go the files of a closed ring by itself, some milliseconds
 * later, whatever the thread is doing; but not while something else holds the ring, as
 * io_uring_register_ring_fd does, and a forked child that has not called exec.
 *
 * THE DOORBELL is a read of an eventfd, in flight from the first sleep in the ring until it is
 * rung. It lends eight bytes of struct uring, which stay. An M with nothing in flight sleeps on a
 * futex instead: cheaper, and no false iowait. A signal is not needed for any of this.
 *
 * Tried by others and not done here: one ring for all (a lock on each park), fixed files and buffer
 * rings (they bind a descriptor to an M and break stealing), receiving by the ring (lends the
 * buffer). */
#include "base/chaos.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/sys_io.h"
#include "netpoll/engines.h"
#include "netpoll/fd.h"
#include "netpoll/inbox.h"
#include "netpoll/ring.h"

#include <string.h>

enum { ENTRIES = 512, COMPLETIONS = 4096, REAP_MAX = 256, STOP_TRIES = 20 };
static const int64_t SUBMIT_AGE_NS = 20 * 1000;
static const int64_t STOP_WAIT_NS = 50 * 1000 * 1000;
static const int64_t CLOSE_WAIT_NS = 10 * 1000 * 1000; /* include/gort/io.h tells it */
static const int64_t CLOSE_NAP_NS = 1000 * 1000;

struct uring {
    struct rt_ring ring;
    uint32_t inflight;      /* polls submitted or prepared whose completion has not been seen */
    uint32_t state;         /* its M's, then the heir's */
    uint16_t number;        /* index of its M, + 1 */
    int64_t first_prep;     /* when the oldest unsubmitted entry was prepared; any thread reads,
                               INT64_MAX: there is none */
    int64_t last_enter;
    bool bell_armed;
    uint64_t bell_count;    /* what the read of the bell is lent */
    uint32_t refused;       /* sleeps in a row that the kernel has not allowed (refusal.c) */
    struct rt_inbox inbox;  /* open while m->poller is this */
} __attribute__((aligned(RT_CACHE_LINE)));

enum { FREE, IN_USE, AWAITED /* by its M, until it is free */ };

static struct uring *rings; /* rt.max_ms of them */
uint32_t rt_uring_closed;
static uint32_t foreign_turn; /* round robin for foreign threads; only a hint */
static struct uring *looked_at; /* by sysmon just now */

/* ---- user_data ------------------------------------------------------------------------------- */

enum { TAG_NONE, TAG_POLL, TAG_BELL, TAG_LOOK };

/* 4 bits of tag, 1 of direction, 27 of descriptor, 32 of sequence. */
static uint64_t poll_data(int fd, int dir, uint32_t seq) {
    return (uint64_t)TAG_POLL << 60 | (uint64_t)dir << 59 | (uint64_t)(unsigned)fd << 32 | seq;
}
static int data_fd(uint64_t data) {
    return (int)(data >> 32 & 0x7ffffff);
}
static int data_dir(uint64_t data) {
    return (int)(data >> 59 & 1);
}
static unsigned data_tag(uint64_t data) {
    return (unsigned)(data >> 60);
}

/* ---- preparing: own ring --------------------------------------------------------------------- */

/* Of an M, from any thread: it may go at any time, but its memory stays. NULL: it has none. */
static struct uring *ring_of(const struct rt_m *m) {
    return rt_load_acquire(&m->poller); /* pairs with the release in uring_m_start */
}

static int submitted(struct uring *u, int err) {
    if (io_uring_sq_ready(&u->ring.u) == 0)
        rt_store_relaxed(&u->first_prep, INT64_MAX);
    return err;
}

static int submit(struct uring *u) {
    return submitted(u, rt_ring_submit(&u->ring));
}

static int wait(struct uring *u, int64_t timeout_ns) {
    return submitted(u, rt_ring_wait(&u->ring, timeout_ns));
}

/* An entry; a full queue is submitted on the spot. NULL: the kernel does not take any now. */
static struct io_uring_sqe *entry(struct uring *u) {
    if (io_uring_sq_ready(&u->ring.u) == 0)
        rt_store_relaxed(&u->first_prep, rt_sys_now());
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring.u);
    if (rt_unlikely(!sqe)) {
        submit(u);
        sqe = io_uring_get_sqe(&u->ring.u);
    }
    return sqe;
}

static int prepare_poll(struct uring *u, int fd, int dir, uint32_t seq, unsigned mask) {
    struct io_uring_sqe *sqe = entry(u);
    if (!sqe)
        return -EAGAIN;
    io_uring_prep_poll_add(sqe, fd, mask);
    sqe->user_data = poll_data(fd, dir, seq);
    rt_store_relaxed(&u->inflight, u->inflight + 1);
    return 0;
}

static bool prepare_remove(struct uring *u, uint64_t data) {
    struct io_uring_sqe *sqe = entry(u);
    if (!sqe)
        return false;
    io_uring_prep_poll_remove(sqe, data);
    sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = (uint64_t)TAG_NONE << 60;
    return true;
}

/* All that is in flight, the bell too. */
static void prepare_cancel(struct uring *u) {
    struct io_uring_sqe *sqe = u->inflight || u->bell_armed ? entry(u) : NULL;
    if (!sqe)
        return;
    io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY);
    sqe->user_data = (uint64_t)TAG_NONE << 60;
}

/* ---- what fd.c asks -------------------------------------------------------------------------- */

static struct rt_m *m_for_foreign(void) {
    uint32_t start = rt_fetch_add_relaxed(&foreign_turn, 1), procs = rt_procs();
    struct rt_m *awake = rt_m_of(&rt.ps[0]); /* which is never put away */
    for (uint32_t i = 0; i < procs; i++) {
        struct rt_m *m = rt_m_of(&rt.ps[(start + i) % procs]);
        if (rt_gate_is_shut(m)) /* its P is being handed over, or was put away */
            continue;
        if (rt_load_relaxed(&m->sleep) != RT_AWAKE)
            return m;
        awake = m;
    }
    return awake;
}

/* Ask some M to look at fd; again when its P was taken just then. */
static int post_look(int fd) {
    uint64_t look = (uint64_t)TAG_LOOK << 60 | (uint64_t)(unsigned)fd << 32;
    for (;;) {
        struct rt_m *m = m_for_foreign();
        struct uring *u = ring_of(m);
        int err = u ? rt_inbox_post(&u->inbox, look) : -ESHUTDOWN;
        if (err == -ENOMEM)
            return err;
        if (err == 0 && !rt_gate_is_shut(m)) { /* else it is a spare by now */
            rt_fd_kick(m);
            return 0;
        }
        rt_sys_yield();
    }
}

/* Lock held: a poll less for which a close waits. */
static void count_poll_off(struct rt_fd *s) {
    rt_store_release(&s->polls, s->polls - 1); /* pairs with the acquire in uring_settle */
    if (rt_unlikely(s->polls == 0 && (s->flags & RT_FD_CLOSING)))
        rt_sys_futex_wake(&s->polls, 1);
}

/* Take back the poll of s in that direction. True: on u, the own ring, it was prepared. Else its M
 * is asked, and woken if it sleeps: the next close cannot know of this poll, and its FIN would wait
 * for that. Without memory for the request the poll stays until it fires: it is stale, and delays a
 * FIN at worst; but when its ring is closed before that nobody counts it off, so each later close
 * of the number waits for a slice. */
static bool take_back(struct uring *own, struct rt_fd *s, int fd, int dir) {
    struct rt_fd_poll *p = &s->poll[dir];
    struct uring *u = &rings[p->owner - 1];
    uint64_t data = poll_data(fd, dir, p->seq);
    rt_store_relaxed(&p->owner, 0);
    if (u == own && rt_inbox_keep(&u->inbox, data) == 0) {
        if (prepare_remove(u, data))
            return true;
        rt_inbox_forget(&u->inbox, data); /* the kernel takes none now: it goes there as others */
    }
    int err = rt_inbox_post(&u->inbox, data);
    if (err == 0)
        rt_fd_kick(&rt.ms[u->number - 1]);
    else if (err == -ESHUTDOWN) /* the ring is closed, and its heir has not found this poll */
        count_poll_off(s);
    return false;
}

/* See the table at the top of the file. */
static int arm_on(struct uring *u, struct rt_fd *s, int fd, int dir) {
    struct rt_fd_poll *p = &s->poll[dir];
    unsigned n;
    unsigned events = dir == RT_IN ? ~(unsigned)RT_OUT_EVENTS : RT_OUT_EVENTS;
    unsigned mask = rt_fd_wanted(s, 1u << dir, &n) & events;
    if (n == 0)
        return 0;
    bool covered = p->owner && (mask & ~(unsigned)p->mask) == 0;
    if (covered && (p->owner == u->number || n > 1))
        return 0;
    int err = prepare_poll(u, fd, dir, p->seq + 1, mask);
    if (err) /* the one that there is stays: others may wait for it */
        return err;
    if (p->owner)
        take_back(u, s, fd, dir);
    p->seq++;
    rt_store_relaxed(&s->polls, s->polls + 1);
    rt_store_relaxed(&p->owner, u->number);
    p->mask = (uint16_t)mask;
    return 0;
}

static int uring_arm(struct rt_fd *s, int fd) {
    struct rt_m *m = rt_enter();
    if (rt_unlikely(!m))
        return post_look(fd);
    int err = arm_on(m->poller, s, fd, RT_IN);
    if (err == 0)
        err = arm_on(m->poller, s, fd, RT_OUT);
    rt_gate_leave(m);
    return err;
}

static void uring_disarm(struct rt_fd *s, int fd) {
    bool due = false;
    if (!s->poll[RT_IN].owner && !s->poll[RT_OUT].owner)
        return;
    struct rt_m *m = rt_enter();
    for (int dir = RT_IN; dir <= RT_OUT; dir++)
        if (s->poll[dir].owner)
            due |= take_back(m ? m->poller : NULL, s, fd, dir);
    if (due) /* the deferred work, too: the file is let go there */
        submit(m->poller);
    if (m)
        rt_gate_leave(m);
}

/* ---- completions ----------------------------------------------------------------------------- */

static void poll_done(struct uring *u, uint64_t data, struct rt_glist *ready) {
    struct rt_fd *s = rt_fd_at(data_fd(data));
    int dir = data_dir(data);
    rt_store_relaxed(&u->inflight, u->inflight - 1);
    if (!s)
        return;
    rt_chaos_delay("uring: answered, nobody told");
    rt_lock(&s->lock);
    struct rt_fd_poll *p = &s->poll[dir];
    if (rt_likely(p->owner == u->number && p->seq == (uint32_t)data)) {
        /* An error (a descriptor closed behind our back, no memory) wakes, too: the call will
         * tell. */
        rt_store_relaxed(&p->owner, 0);
        rt_fd_event(s, 1u << dir, false, ready);
    } else {
        rt_inbox_forget(&u->inbox, data);
    }
    count_poll_off(s);
    rt_unlock(&s->lock);
}

static unsigned reap(struct uring *u, struct rt_glist *ready) {
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;
    io_uring_for_each_cqe(&u->ring.u, head, cqe) {
        if (n == REAP_MAX)
            break;
        n++;
        uint64_t data = cqe->user_data;
        if (data_tag(data) == TAG_POLL)
            poll_done(u, data, ready);
        else if (data_tag(data) == TAG_BELL)
            u->bell_armed = false;
    }
    io_uring_cq_advance(&u->ring.u, n); /* the kernel may write there again */
    return n;
}

static bool serve_look(struct uring *u, int fd) {
    struct rt_fd *s = rt_fd_at(fd);
    rt_lock(&s->lock);
    bool done = arm_on(u, s, fd, RT_IN) == 0 && arm_on(u, s, fd, RT_OUT) == 0;
    rt_unlock(&s->lock);
    return done;
}

/* The inbox: polls to take back, descriptors to look at for foreign threads. True: some. */
static bool serve_inbox(struct uring *u) {
    uint64_t letter;
    bool some = false;
    while (rt_inbox_take(&u->inbox, &letter)) {
        bool look = data_tag(letter) == TAG_LOOK;
        some = true;
        if (look ? !serve_look(u, data_fd(letter)) : !prepare_remove(u, letter)) {
            rt_inbox_put_back(&u->inbox, letter); /* the queue is full and the kernel busy */
            break;
        }
        if (look)
            rt_inbox_done(&u->inbox);
        else
            rt_inbox_keep_taken(&u->inbox, letter);
    }
    return some;
}

/* ---- a close waits ---- */

/* On the stack of the G that closes. True: some. */
static bool reap_for_close(struct uring *u, struct rt_glist *ready) {
    if (reap(u, ready) != 0)
        return true;
    bool letters = serve_inbox(u);
    if (letters || io_uring_sq_ready(&u->ring.u) || rt_ring_wants(&u->ring))
        submit(u);
    return reap(u, ready) != 0;
}

static bool reap_own_for_close(void) {
    struct rt_glist ready = {0};
    struct rt_m *m = rt_enter();
    if (!m)
        return false;
    bool some = reap_for_close(m->poller, &ready);
    rt_gate_leave(m);
    rt_ready_all(&ready);
    return some;
}

static void uring_settle(struct rt_fd *s) {
    int64_t until = 0;
    uint32_t n;
    while ((n = rt_load_acquire(&s->polls)) != 0) { /* pairs with the release in count_poll_off */
        bool some = reap_own_for_close();
        int64_t now = rt_sys_now();
        if (until == 0)
            until = now + CLOSE_WAIT_NS;
        else if (now >= until)
            return;
        if (!some)
            rt_sys_futex_wait(&s->polls, n, CLOSE_NAP_NS);
    }
}

static const struct rt_fd_engine engine = {
    .arm = uring_arm, .disarm = uring_disarm, .settle = uring_settle};

/* ---- what the scheduler asks ----------------------------------------------------------------- */

static bool stuck(const struct uring *u) {
    const struct io_uring *r = &u->ring.u;
    bool seen = io_uring_smp_load_acquire(r->cq.ktail) != rt_load_relaxed(r->cq.khead);
    return seen || rt_ring_wants(&u->ring) || rt_inbox_any(&u->inbox) ||
           rt_sys_now() - rt_load_relaxed(&u->first_prep) >= SUBMIT_AGE_NS;
}

/* Somebody else may take the ring away just now, and close it: a hazard pointer (M. Michael,
 * "Hazard pointers", 2004), with the dear fence on the other side. */
static bool uring_stuck(struct rt_m *m) {
    struct uring *u = ring_of(m);
    if (!u)
        return false;
    rt_store_release(&looked_at, u); /* what it has looked at before it is done with: close_ring */
    rt_fence_light();                /* pairs with the heavy fence in close_ring */
    bool yes = ring_of(m) == u && stuck(u);
    rt_store_release(&looked_at, NULL); /* pairs with the acquire in close_ring */
    return yes;
}

static bool uring_pending(struct rt_m *m) {
    struct uring *u = m->poller;
    if (io_uring_cq_ready(&u->ring.u) || rt_ring_wants(&u->ring) || rt_inbox_any(&u->inbox))
        return true;
    uint32_t waiting = io_uring_sq_ready(&u->ring.u);
    return waiting != 0 &&
           (waiting > ENTRIES / 2 || rt_sys_now() - u->first_prep >= SUBMIT_AGE_NS);
}

/* One call runs about twenty pieces of deferred work, so there may be several. But the flag that
 * says so may be stale: the kernel adds the work, then sets the flag, and we may have run the work
 * in between. */
static void uring_poll(struct rt_m *m, bool hungry, struct rt_glist *ready) {
    if (!m) /* sysmon; rings are their owners' */
        return;
    struct uring *u = m->poller;
    bool letters = serve_inbox(u); /* somebody waits in a close */
    uint32_t waiting = io_uring_sq_ready(&u->ring.u);
    bool enter = waiting != 0 || rt_ring_wants(&u->ring);
    if (enter && !hungry && !letters && waiting <= ENTRIES / 2) {
        int64_t now = rt_sys_now();
        enter = now - u->last_enter >= SUBMIT_AGE_NS;
        if (enter)
            u->last_enter = now;
    }
    for (unsigned n = 0; n < REAP_MAX;) {
        if (enter && submit(u) < 0)
            enter = false; /* EAGAIN, EBUSY, EINTR: at the next pass */
        unsigned got = reap(u, ready);
        n += got;
        if (!enter || got == 0 || !rt_ring_wants(&u->ring))
            break;
    }
}

static enum rt_sleep_mode uring_sleep_mode(struct rt_m *m) {
    struct uring *u = m->poller;
    bool idle = u->inflight == 0 && io_uring_sq_ready(&u->ring.u) == 0 &&
                io_uring_cq_ready(&u->ring.u) == 0 && !rt_inbox_any(&u->inbox);
    return idle ? RT_SLEEP_FUTEX : RT_SLEEP_POLLER;
}

static void uring_sleep_undo(struct rt_m *m) {
    (void)m;
}

static bool arm_bell(struct uring *u) {
    struct io_uring_sqe *sqe = u->bell_armed ? NULL : entry(u);
    if (!sqe)
        return u->bell_armed;
    io_uring_prep_read(sqe, u->ring.bell, &u->bell_count, sizeof u->bell_count, 0);
    sqe->user_data = (uint64_t)TAG_BELL << 60;
    return u->bell_armed = true;
}

static void uring_sleep(struct rt_m *m, int64_t timeout_ns, struct rt_glist *ready) {
    struct uring *u = m->poller;
    serve_inbox(u);
    int err = -EBUSY; /* the queue is full and the kernel takes none of it */
    if (arm_bell(u)) /* what could not be served is there still, and nobody rings for it again */
        err = wait(u, rt_inbox_any(&u->inbox) ? 0 : timeout_ns);
    if (reap(u, ready) != 0)
        err = 0;
    rt_wait_ended(&u->refused, "io_uring_enter(2)", err);
}

static void uring_wake(struct rt_m *m) {
    const struct uring *u = ring_of(m);
    if (u) /* else the sleep is over long ago */
        rt_sys_eventfd_add(u->ring.bell);
}

/* ---- rings come and go ----------------------------------------------------------------------- */

/* No M's any more. */
static void close_ring(struct uring *u) {
    rt_fence_heavy(); /* that, then the look: pairs with the light fence in uring_stuck */
    while (rt_load_acquire(&looked_at) == u) /* pairs with the release in uring_stuck */
        rt_sys_yield();
    rt_ring_free(&u->ring);
}

/* ---- start and stop -------------------------------------------------------------------------- */

static void uring_stop(void) {
    for (unsigned i = 0; i < rt.nms; i++)
        if (rings[i].number) {
            rt_ring_end(&rings[i].ring);
            rt_inbox_free(&rings[i].inbox);
        }
    rt_sys_free_sparse(rings, rt.max_ms * sizeof *rings);
    rings = NULL;
}

/* Used for the first time. */
static void init_ring(struct uring *u, uint32_t index) {
    u->number = (uint16_t)(index + 1);
    rt_ring_init(&u->ring);
    rt_inbox_init(&u->inbox);
}

static int uring_start(unsigned ms) {
    int err = rt_ring_self_test();
    if (err)
        return err;
    rings = rt_sys_alloc_sparse(rt.max_ms * sizeof *rings);
    if (!rings)
        return -ENOMEM;
    for (unsigned i = 0; i < ms && err == 0; i++) {
        init_ring(&rings[i], i);
        err = rt_ring_make(&rings[i].ring, ENTRIES, COMPLETIONS);
    }
    if (err)
        uring_stop();
    else
        rt_fd_engine = &engine;
    return err;
}

/* The M has not left it to somebody who is still at it. */
static void await_free(struct uring *u) {
    for (uint32_t state; (state = rt_load_acquire(&u->state)) != FREE;) /* pairs with set_free */
        if (state == AWAITED || rt_cas_relaxed(&u->state, &state, AWAITED))
            rt_sys_futex_wait(&u->state, AWAITED, -1);
}

static void set_free(struct uring *u) {
    if (rt_exchange_release(&u->state, FREE) == AWAITED) /* pairs with the acquire in await_free */
        rt_sys_futex_wake(&u->state, 1);
}

static int uring_m_start(struct rt_m *m) {
    struct uring *u = &rings[m->index];
    if (m->poller)
        return 0;
    if (!u->number)
        init_ring(u, m->index);
    await_free(u);
    int err = u->ring.made ? 0 : rt_ring_make(&u->ring, ENTRIES, COMPLETIONS);
    if (err == 0)
        err = rt_ring_enable(&u->ring);
    if (err) {
        rt_ring_free(&u->ring);
        return err;
    }
    u->inflight = 0; /* all that was in it is gone with it, prepared or not */
    u->bell_armed = false;
    u->refused = 0;
    rt_store_relaxed(&u->first_prep, INT64_MAX);
    rt_store_relaxed(&u->state, IN_USE);
    rt_inbox_open(&u->inbox);
    rt_store_release(&m->poller, u); /* pairs with the acquire in ring_of */
    return 0;
}

/* Everything in flight is cancelled and waited for. */
static void cancel_all(struct uring *u, struct rt_glist *woken) {
    prepare_cancel(u);
    for (int i = 0; i < STOP_TRIES && (u->inflight || u->bell_armed); i++) {
        wait(u, STOP_WAIT_NS); /* runs about twenty pieces of deferred work */
        if (reap(u, woken) != 0)
            i = 0;
    }
}

/* A spare ends; nothing was asked on its ring. */
static void give_ring_back(struct rt_m *m, struct uring *u) {
    uint64_t look;
    rt_store_relaxed(&m->poller, NULL);
    rt_inbox_close(&u->inbox);
    while (rt_inbox_take(&u->inbox, &look)) /* posted once more elsewhere: see post_look */
        rt_inbox_done(&u->inbox);
    close_ring(u);
    set_free(u);
}

/* Closing the ring would not do it while a forked child holds it, too. */
static void uring_m_stop(struct rt_m *m) {
    struct uring *u = m->poller;
    struct rt_glist woken = {0};
    if (!u)
        return;
    if (rt_gate_is_shut(m)) {
        give_ring_back(m, u);
        return;
    }
    serve_inbox(u);
    cancel_all(u, &woken);
    for (struct rt_g *g; (g = rt_glist_pop(&woken)) != NULL;)
        rt_ready(g); /* of foreign threads; the last green thread has ended long ago */
}

/* ---- a P is taken, or put away --------------------------------------------------------------- */

struct heir {
    struct uring *of, *to; /* to NULL: any */
    struct rt_glist *ready;
};

/* Lock held. Somebody else shall look for all who wait on s; else each looks for himself. */
static void pass_on(const struct heir *h, struct rt_fd *s, int fd) {
    if (!h->to) {
        if (s->waiters && post_look(fd) != 0)
            rt_fd_event(s, RT_BOTH, false, h->ready);
        return;
    }
    for (int dir = RT_IN; dir <= RT_OUT; dir++)
        if (arm_on(h->to, s, fd, dir) != 0)
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
            count_poll_off(s);
        }
    pass_on(h, s, fd);
    rt_unlock(&s->lock);
}

static void pass_letters(const struct heir *h) {
    uint64_t letter;
    rt_inbox_close(&h->of->inbox);
    while (rt_inbox_take(&h->of->inbox, &letter)) {
        int fd = data_fd(letter);
        struct rt_fd *s = rt_fd_at(fd);
        rt_inbox_done(&h->of->inbox);
        rt_lock(&s->lock);
        if (data_tag(letter) == TAG_POLL)
            count_poll_off(s);
        else
            pass_on(h, s, fd);
        rt_unlock(&s->lock);
    }
}

static void uring_adopt(struct rt_m *m, void *from, struct rt_glist *ready) {
    struct uring *of = from;
    struct heir h = {.of = of, .to = m ? m->poller : NULL, .ready = ready};
    rt_chaos_delay("uring: a late heir");
    rt_fetch_add_relaxed(&rt_uring_closed, 1);
    close_ring(of); /* first: who counts on a count of zero closes the file */
    pass_letters(&h);
    if (of->inflight != 0)
        rt_fd_each(pass_slot, &h);
    set_free(of);
}

const struct rt_poller rt_uring_poller = {
    .name = "uring",
    .start = uring_start,
    .stop = uring_stop,
    .m_start = uring_m_start,
    .m_stop = uring_m_stop,
    .stuck = uring_stuck,
    .adopt = uring_adopt,
    .pending = uring_pending,
    .poll = uring_poll,
    .sleep_mode = uring_sleep_mode,
    .sleep_undo = uring_sleep_undo,
    .sleep = uring_sleep,
    .wake = uring_wake,
    .waits = rt_fd_waits,
};
