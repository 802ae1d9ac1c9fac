/* uring.c - the netpoll engine on io_uring: one ring for each M, readiness polls, direct transfers.
 *
 * Promise: a poll that is armed on a ring is answered when its M passes its scheduler loop, or at
 * once while it sleeps, or by its heir when its P is taken; nothing outside this M ever touches its
 * ring.
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
 * until that ends: so it gives up after a slice, when sysmon takes the P, and the heir counts what
 * it leaves behind in slot->stranded instead. (Some it cannot know of, taken back and not submitted
 * yet: they let a close wait for the slice, no more.) The hog itself cancels its own by descriptor.
 *
 * A foreign thread has no ring: it leaves "look at this descriptor" in the inbox of some M,
 * preferably one that sleeps, and parks like a G. So does an M that has no P.
 *
 * WHEN A P IS TAKEN (sched/retake.c) its ring stays with the thread that runs on. The heir goes
 * through the table and arms on its own ring what was armed there, and takes the inbox over. The
 * gate is shut and a heavy fence made before. Who arms looks at its gate after that, and who posts
 * looks at the other's: either the heir finds the poll and the letter, or they find the gate shut
 * and ask another M. An heir that comes so late that the thread has another P by now finds the gate
 * open, and leaves alone what was polled with that. The thread cancels all that is left on its ring
 * when it becomes a spare, or is locked to its green thread; until then the kernel does not let go
 * what was polled there, so the FIN of a close waits for the hog (the close does not).
 *
 * THE DOORBELL is a read of an eventfd, in flight from the first sleep in the ring until it is
 * rung. It lends eight bytes of struct uring, which live until the ring is closed. An M with
 * nothing in flight sleeps on a futex instead: cheaper, and no false iowait. A signal is not needed
 * for any of this.
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

enum { ENTRIES = 512, COMPLETIONS = 4096, REAP_MAX = 256, INBOX_BATCH = 32, STOP_TRIES = 20 };
static const int64_t SUBMIT_AGE_NS = 20 * 1000;
static const int64_t STOP_WAIT_NS = 50 * 1000 * 1000;
static const int64_t CLOSE_WAIT_NS = 10 * 1000 * 1000; /* include/gort/io.h tells it */
static const int64_t CLOSE_NAP_NS = 1000 * 1000;

struct uring {
    struct rt_ring ring;
    uint32_t inflight;      /* polls submitted or prepared whose completion has not been seen; an
                               heir reads it */
    uint32_t index;         /* of its M */
    int64_t first_prep;     /* when the oldest unsubmitted entry was prepared; any thread reads,
                               INT64_MAX: there is none */
    int64_t last_enter;
    int bell;               /* eventfd; -1: none yet */
    bool bell_armed;
    bool used;              /* by a thread, which has perhaps ended */
    uint64_t bell_count;    /* what the read of the bell is lent */
    uint32_t refused;       /* sleeps in a row that the kernel has not allowed (refusal.c) */
    struct rt_inbox inbox;
} __attribute__((aligned(RT_CACHE_LINE)));

static struct uring *rings; /* rt.max_ms of them, made up to the number of Ms */
static uint32_t foreign_turn; /* round robin for foreign threads; only a hint */

/* ---- user_data ------------------------------------------------------------------------------- */

enum { TAG_NONE, TAG_POLL, TAG_BELL, TAG_LOOK };
static const uint64_t TAG_MASK = (uint64_t)15 << 60;

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

/* Of this thread; NULL: of a foreign one. */
static struct uring *own(void) {
    struct rt_m *m = rt_m();
    return m ? m->poller : NULL;
}

/* The ring on which this thread may arm something; NULL: it is foreign, or has no P. */
static struct uring *own_for_polls(void) {
    struct rt_m *m = rt_m();
    return m && !rt_gate_is_shut(m) ? m->poller : NULL;
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

/* Of what is in flight, the bell too: all of fd, or all (-1). */
static void prepare_cancel(struct uring *u, int fd) {
    struct io_uring_sqe *sqe = u->inflight || u->bell_armed ? entry(u) : NULL;
    if (!sqe)
        return;
    if (fd < 0)
        io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY);
    else
        io_uring_prep_cancel_fd(sqe, fd, IORING_ASYNC_CANCEL_ALL);
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

/* Ask some M to look at fd; again when its P was taken just then: the heir may have missed it. */
static int post_look(int fd) {
    uint64_t look = (uint64_t)TAG_LOOK << 60 | (uint64_t)(unsigned)fd << 32;
    for (;;) {
        struct rt_m *m = m_for_foreign();
        struct uring *u = m->poller;
        if (rt_gate_is_shut(m)) { /* the P is just being handed over */
            rt_sys_yield();
            continue;
        }
        if (!rt_inbox_post(&u->inbox, look))
            return -ENOMEM;
        rt_fence_light(); /* the letter, then the gate: pairs with the heavy fence in hand_over */
        if (rt_likely(!rt_gate_is_shut(m))) {
            rt_fd_kick(m);
            return 0;
        }
    }
}

/* Ask the M of ring u, which is not ours, or ours when its queue is full; a sleeper is woken: the
 * next close cannot know of a poll that is to be taken back, and its FIN would wait for that. */
static void post(struct uring *u, uint64_t item) {
    if (rt_inbox_post(&u->inbox, item))
        rt_fd_kick(&rt.ms[u->index]);
}

/* Take back the poll of s in that direction. Without memory for the request the poll just stays
 * until it fires: it is stale, and delays a FIN at worst. */
static bool take_back(struct rt_fd *s, int fd, int dir) {
    struct rt_fd_poll *p = &s->poll[dir];
    struct uring *u = &rings[p->owner - 1], *mine = own();
    uint64_t data = poll_data(fd, dir, p->seq);
    rt_store_relaxed(&p->owner, 0);
    if (u == mine && prepare_remove(u, data))
        return true;
    post(u, data);
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
    if (covered && (p->owner == u->index + 1 || n > 1))
        return 0;
    int err = prepare_poll(u, fd, dir, p->seq + 1, mask);
    if (err) /* the one that there is stays: others may wait for it */
        return err;
    if (p->owner)
        take_back(s, fd, dir);
    p->seq++;
    rt_store_relaxed(&s->polls, s->polls + 1);
    rt_store_relaxed(&p->owner, (uint16_t)(u->index + 1));
    p->mask = (uint16_t)mask;
    return 0;
}

/* Lock held: a poll less for which a close waits. */
static void count_poll_off(struct rt_fd *s) {
    rt_store_release(&s->polls, s->polls - 1); /* pairs with the acquire in uring_settle */
    if (rt_unlikely(s->polls == 0 && (s->flags & RT_FD_CLOSING)))
        rt_sys_futex_wake(&s->polls, 1);
}

/* Lock held: one poll of s is over, as this thread sees on its ring. Which one of several does not
 * matter: the sum is right, and a close that waits for the wrong one does so for a slice. */
static void poll_over(struct rt_fd *s) {
    if (s->stranded && (s->polls == 0 || rt_gate_is_shut(rt_m())))
        s->stranded--;
    else
        count_poll_off(s);
}

/* Lock held: a poll stays behind on the ring of m, which has lost its P. */
static void strand(struct rt_fd *s, const struct rt_m *m) {
    const struct uring *u = m->poller; /* who reaps there says so before he takes the lock */
    bool dropped = rt_load_relaxed(&u->inflight) == 0 || rt_load_relaxed(&m->away) == RT_AWAY_NOT;
    if (dropped || s->polls == 0)
        return;
    s->stranded++;
    count_poll_off(s);
}

/* Lock held: what m has polled for s is nobody's question any more. */
static void leave_polls(const struct rt_m *m, struct rt_fd *s) {
    const struct uring *u = m->poller;
    for (int dir = RT_IN; dir <= RT_OUT; dir++)
        if (s->poll[dir].owner == u->index + 1) {
            rt_store_relaxed(&s->poll[dir].owner, 0);
            strand(s, m);
        }
}

static int uring_arm(struct rt_fd *s, int fd) {
    struct uring *u = own_for_polls();
    if (rt_unlikely(!u))
        return post_look(fd);
    int err = arm_on(u, s, fd, RT_IN);
    if (err == 0)
        err = arm_on(u, s, fd, RT_OUT);
    rt_fence_light(); /* the polls, then the gate: pairs with the heavy fence in hand_over */
    if (rt_likely(!rt_gate_is_shut(rt_m())))
        return err;
    leave_polls(rt_m(), s); /* whether the heir has found them or not */
    return post_look(fd) == 0 ? 0 : -EAGAIN; /* they were for others, too: again, not "no memory" */
}

static void uring_disarm(struct rt_fd *s, int fd) {
    bool due = false;
    for (int dir = RT_IN; dir <= RT_OUT; dir++)
        if (s->poll[dir].owner)
            due |= take_back(s, fd, dir);
    if (due) /* the deferred work, too: the file is let go there */
        submit(own());
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
    if (p->owner == u->index + 1 && p->seq == (uint32_t)data) {
        /* An error (a descriptor closed behind our back, no memory) wakes, too: the call will
         * tell. */
        rt_store_relaxed(&p->owner, 0);
        rt_fd_event(s, 1u << dir, false, ready);
    }
    poll_over(s);
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

static bool serve_letter(struct uring *u, uint64_t item) {
    if (data_tag(item) == TAG_POLL)
        return prepare_remove(u, item);
    int fd = data_fd(item);
    struct rt_fd *s = rt_fd_at(fd);
    rt_lock(&s->lock);
    bool done = arm_on(u, s, fd, RT_IN) == 0 && arm_on(u, s, fd, RT_OUT) == 0;
    rt_unlock(&s->lock);
    return done;
}

/* The inbox: polls to take back, descriptors to look at for foreign threads. True: some. */
static bool serve_inbox(struct uring *u) {
    uint64_t items[INBOX_BATCH];
    bool some = false;
    for (uint32_t n; (n = rt_inbox_take(&u->inbox, items, INBOX_BATCH)) != 0;) {
        uint32_t i = 0;
        some = true;
        while (i < n && serve_letter(u, items[i]))
            i++;
        rt_inbox_settle(&u->inbox, items, n, n - i);
        if (i < n) /* the queue is full and the kernel busy: the rest waits, in any order */
            break;
    }
    return some;
}

/* ---- a close waits ---- */

/* Letters of those who close what was polled here. */
static void serve_closes(struct uring *u) {
    uint64_t items[INBOX_BATCH];
    uint32_t i = 0, n = rt_inbox_take_some(&u->inbox, items, INBOX_BATCH, TAG_MASK,
                                           (uint64_t)TAG_POLL << 60);
    while (i < n && prepare_remove(u, items[i]))
        i++;
    if (n)
        rt_inbox_settle(&u->inbox, items, n, n - i);
}

/* On the stack of the G that closes; the queues of a ring are its thread's. True: some. */
static bool reap_for_close(struct uring *u) {
    struct rt_glist ready = {0};
    unsigned n = reap(u, &ready);
    if (n == 0) {
        serve_closes(u);
        if (io_uring_sq_ready(&u->ring.u) || rt_ring_wants(&u->ring))
            submit(u);
        n = reap(u, &ready);
    }
    rt_ready_all(&ready);
    return n != 0;
}

static void uring_settle(struct rt_fd *s, int fd) {
    struct uring *u = own();
    int64_t until = 0;
    uint32_t n;
    if (u && rt_gate_is_shut(rt_m())) { /* an heir has the polls, the ring is this thread's still */
        prepare_cancel(u, fd);
        submit(u);
        reap_for_close(u);
    }
    while ((n = rt_load_acquire(&s->polls)) != 0) { /* pairs with the release in count_poll_off */
        bool some = u && reap_for_close(u);
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

static bool uring_stuck(struct rt_m *m) {
    struct uring *u = m->poller;
    const struct io_uring *r = &u->ring.u;
    bool seen = io_uring_smp_load_acquire(r->cq.ktail) != rt_load_relaxed(r->cq.khead);
    return seen || rt_ring_wants(&u->ring) || rt_inbox_any(&u->inbox) ||
           rt_sys_now() - rt_load_relaxed(&u->first_prep) >= SUBMIT_AGE_NS;
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
    io_uring_prep_read(sqe, u->bell, &u->bell_count, sizeof u->bell_count, 0);
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
    rt_sys_eventfd_add(((const struct uring *)m->poller)->bell);
}

/* ---- start and stop -------------------------------------------------------------------------- */

static void uring_stop(void) {
    for (unsigned i = 0; i < rt.nms && rings[i].inbox.items; i++) {
        rt_ring_free(&rings[i].ring);
        if (rings[i].bell >= 0)
            rt_sys_close(rings[i].bell);
        rt_inbox_free(&rings[i].inbox);
    }
    rt_sys_free_sparse(rings, rt.max_ms * sizeof *rings);
    rings = NULL;
}

/* The bell stays when the ring of a spare that ended is made anew: a late wake may ring it yet. */
static int make_ring(struct uring *u, unsigned index) {
    if (!u->inbox.items) { /* the place is used for the first time */
        u->index = index;
        u->bell = -1;
        rt_store_relaxed(&u->first_prep, INT64_MAX);
        rt_inbox_init(&u->inbox);
    }
    int err = rt_ring_setup(&u->ring, ENTRIES, COMPLETIONS);
    if (err)
        return err;
    if (u->bell < 0)
        u->bell = rt_sys_eventfd(false); /* blocking: reads in flight of a non-blocking one fail */
    if (u->bell < 0)
        rt_ring_free(&u->ring);
    return u->bell < 0 ? u->bell : 0;
}

static int uring_start(unsigned ms) {
    int err = rt_ring_self_test();
    if (err)
        return err;
    rings = rt_sys_alloc_sparse(rt.max_ms * sizeof *rings);
    if (!rings)
        return -ENOMEM;
    for (unsigned i = 0; i < ms && err == 0; i++)
        err = make_ring(&rings[i], i);
    if (err)
        uring_stop();
    else
        rt_fd_engine = &engine;
    return err;
}

static int uring_m_start(struct rt_m *m) {
    struct uring *u = &rings[m->index];
    m->poller = u;
    if (u->used) {
        rt_ring_free(&u->ring);
        u->inflight = 0; /* all that was in it is gone with it, prepared or not */
        u->bell_armed = false;
        u->refused = 0;
        rt_store_relaxed(&u->first_prep, INT64_MAX);
    }
    int err = u->ring.made ? 0 : make_ring(u, m->index);
    u->used = true;
    return err ? err : rt_ring_enable(&u->ring);
}

/* Everything in flight is cancelled and waited for. */
static void cancel_all(struct uring *u, struct rt_glist *woken) {
    prepare_cancel(u, -1);
    for (int i = 0; i < STOP_TRIES && (u->inflight || u->bell_armed); i++) {
        wait(u, STOP_WAIT_NS); /* runs about twenty pieces of deferred work */
        if (reap(u, woken) != 0)
            i = 0;
    }
}

/* Closing the ring would not do it while a forked child holds it, too. */
static void uring_m_stop(struct rt_m *m) {
    struct uring *u = m->poller;
    struct rt_glist woken = {0};
    serve_inbox(u);
    cancel_all(u, &woken);
    for (struct rt_g *g; (g = rt_glist_pop(&woken)) != NULL;)
        rt_ready(g); /* of foreign threads; the last green thread has ended long ago */
    rt_ring_disable(&u->ring); /* m->poller stays: a late wake may still ring the bell */
}

/* ---- a P is taken, or put away --------------------------------------------------------------- */

struct handover {
    struct rt_m *from;
    struct uring *to; /* NULL: to any */
    struct rt_glist *ready;
};

/* Lock held. Somebody else shall look for all who wait on s; else each looks for himself. */
static void pass_on(const struct handover *h, struct rt_fd *s, int fd) {
    if (!h->to) {
        if (s->waiters && post_look(fd) != 0)
            rt_fd_event(s, RT_BOTH, false, h->ready);
        return;
    }
    for (int dir = RT_IN; dir <= RT_OUT; dir++)
        if (arm_on(h->to, s, fd, dir) != 0)
            rt_fd_event(s, 1u << dir, false, h->ready);
}

/* Has u asked for s? Without the lock: what is armed there later is seen by who arms it. */
static bool asked_by(const struct uring *u, const struct rt_fd *s) {
    return rt_load_relaxed(&s->poll[RT_IN].owner) == u->index + 1 ||
           rt_load_relaxed(&s->poll[RT_OUT].owner) == u->index + 1;
}

static void pass_slot(struct rt_fd *s, int fd, void *arg) {
    const struct handover *h = arg;
    if (!asked_by(h->from->poller, s))
        return;
    rt_lock(&s->lock);
    if (rt_gate_is_shut(h->from)) { /* else it dropped them, and these are of its next P */
        leave_polls(h->from, s);
        pass_on(h, s, fd);
    }
    rt_unlock(&s->lock);
}

/* False: it goes back. */
static bool pass_letter(const struct handover *h, uint64_t item) {
    int fd = data_fd(item);
    struct rt_fd *s = rt_fd_at(fd);
    if (data_tag(item) == TAG_POLL && !rt_gate_is_shut(h->from))
        return false; /* it has another P by now, and this may be of its time */
    rt_lock(&s->lock);
    if (data_tag(item) == TAG_POLL)
        strand(s, h->from);
    else
        pass_on(h, s, fd);
    rt_unlock(&s->lock);
    return true;
}

/* What comes later finds the gate shut. */
static void pass_all(struct handover *h) {
    struct uring *old = h->from->poller;
    if (rt_load_relaxed(&old->inflight) != 0)
        rt_fd_each(pass_slot, h);
    uint64_t items[INBOX_BATCH];
    for (uint32_t n, letters = rt_load_relaxed(&old->inbox.n); letters != 0; letters -= n) {
        n = rt_inbox_take(&old->inbox, items, letters < INBOX_BATCH ? letters : INBOX_BATCH);
        if (n == 0)
            break;
        uint32_t back = n;
        for (uint32_t i = n; i-- > 0;)
            if (!pass_letter(h, items[i]))
                items[--back] = items[i];
        rt_inbox_settle(&old->inbox, items, n, n - back);
        if (back != n)
            rt_fd_kick(h->from);
    }
}

static void uring_adopt(struct rt_m *m, struct rt_m *from, struct rt_glist *ready) {
    rt_chaos_delay("uring: a late heir");
    pass_all(&(struct handover){.from = from, .to = m->poller, .ready = ready});
}

static void uring_hand_on(struct rt_m *m, struct rt_glist *ready) {
    pass_all(&(struct handover){.from = m, .ready = ready});
}

static void uring_retire(struct rt_m *m, struct rt_glist *ready) {
    cancel_all(m->poller, ready);
}

const struct rt_poller rt_uring_poller = {
    .name = "uring",
    .start = uring_start,
    .stop = uring_stop,
    .m_start = uring_m_start,
    .m_stop = uring_m_stop,
    .stuck = uring_stuck,
    .adopt = uring_adopt,
    .hand_on = uring_hand_on,
    .retire = uring_retire,
    .pending = uring_pending,
    .poll = uring_poll,
    .sleep_mode = uring_sleep_mode,
    .sleep_undo = uring_sleep_undo,
    .sleep = uring_sleep,
    .wake = uring_wake,
    .waits = rt_fd_waits,
};
