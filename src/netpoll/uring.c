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
 * times out 10,000 times has one poll in flight, not 10,000. On a descriptor that is not gort's,
 * which may be closed by plain close(2), it is taken back (drop).
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
 * WHOSE a ring is, and what becomes of it when a P is taken, is in uring_owner.c.
 *
 * THE DOORBELL is a read of an eventfd, in flight from the first sleep in the ring until it is
 * rung. It lends eight bytes of struct rt_uring, which stay. An M with nothing in flight sleeps on
 * a futex instead: cheaper, and no false iowait. A signal is not needed for any of this.
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
#include "netpoll/uring.h"

#include <string.h>

/* Who is crowded does not poll (proc.c): so they fit the ring of the P, and none is pushed out of
 * it to be overtaken in the global queue. */
enum { REAP_MAX = RT_RING / 2 };
static const int64_t CLOSE_WAIT_NS = 10 * 1000 * 1000; /* include/gort/io.h tells it */
static const int64_t CLOSE_NAP_NS = 1000 * 1000;

static uint32_t foreign_turn; /* round robin for foreign threads; only a hint */
/* ---- preparing: own ring --------------------------------------------------------------------- */

static int submitted(struct rt_uring *u, int err) {
    if (io_uring_sq_ready(&u->ring.u) == 0)
        rt_store_relaxed(&u->first_prep, INT64_MAX);
    return err;
}

static int submit(struct rt_uring *u) {
    return submitted(u, rt_ring_submit(&u->ring));
}

int rt_uring_wait(struct rt_uring *u, int64_t timeout_ns) {
    return submitted(u, rt_ring_wait(&u->ring, timeout_ns));
}

/* An entry; a full queue is submitted on the spot. NULL: the kernel does not take any now. */
static struct io_uring_sqe *entry(struct rt_uring *u) {
    if (io_uring_sq_ready(&u->ring.u) == 0)
        rt_store_relaxed(&u->first_prep, rt_sys_now());
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring.u);
    if (rt_unlikely(!sqe)) {
        submit(u);
        sqe = io_uring_get_sqe(&u->ring.u);
    }
    return sqe;
}

static int prepare_poll(struct rt_uring *u, int fd, int dir, uint32_t seq, unsigned mask) {
    struct io_uring_sqe *sqe = entry(u);
    if (!sqe)
        return -EAGAIN;
    io_uring_prep_poll_add(sqe, fd, mask);
    sqe->user_data = rt_uring_poll_data(fd, dir, seq);
    rt_store_relaxed(&u->inflight, u->inflight + 1);
    return 0;
}

/* A cancel, not POLL_REMOVE: this is refused (EALREADY) when the file has woken the poll and the
 * work for that has not run, and if that finds nothing, because the data has been read since, the
 * poll goes on. */
static bool prepare_remove(struct rt_uring *u, uint64_t data) {
    struct io_uring_sqe *sqe = entry(u);
    if (!sqe)
        return false;
    io_uring_prep_cancel64(sqe, data, 0);
    sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = (uint64_t)RT_TAG_NONE << 60;
    return true;
}

/* All that is in flight, the bell too. */
void rt_uring_cancel(struct rt_uring *u) {
    struct io_uring_sqe *sqe = u->inflight || u->bell_armed ? entry(u) : NULL;
    if (!sqe)
        return;
    io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY);
    sqe->user_data = (uint64_t)RT_TAG_NONE << 60;
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
int rt_uring_post_look(int fd) {
    uint64_t look = (uint64_t)RT_TAG_LOOK << 60 | (uint64_t)(unsigned)fd << 32;
    for (;;) {
        struct rt_m *m = m_for_foreign();
        struct rt_uring *u = rt_uring_of(m);
        int err = u && !rt_gate_is_shut(m) ? rt_inbox_post(&u->inbox, look) : -ESHUTDOWN;
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
void rt_uring_count_off(struct rt_fd *s) {
    rt_store_release(&s->polls, s->polls - 1); /* pairs with the acquire in uring_settle */
    if (rt_unlikely(s->polls == 0 && (s->flags & RT_FD_CLOSING)))
        rt_sys_futex_wake(&s->polls, 1);
}

/* u is the own ring. The letter is for an heir: without memory for it the poll goes all the same,
 * unless the P is taken first. */
static bool take_back_own(struct rt_uring *u, uint64_t data) {
    bool kept = rt_inbox_keep(&u->inbox, data) == 0;
    if (prepare_remove(u, data))
        return true;
    if (kept) /* the kernel takes none now: it goes there as others */
        rt_inbox_forget(&u->inbox, data);
    return false;
}

/* Take back the poll of s in that direction. True: on u, the own ring, it was prepared. Else its M
 * is asked, and woken if it sleeps: the next close cannot know of this poll, and its FIN would wait
 * for that. Without memory for the request the poll stays until it fires: it is stale, and delays a
 * FIN at worst; but when its ring is closed before that nobody counts it off, so each later close
 * of the number waits for a slice. The owner goes last: an heir, who looks at it without the lock,
 * finds the letter or the owner. */
static bool take_back(struct rt_uring *own, struct rt_fd *s, int fd, int dir) {
    struct rt_fd_poll *p = &s->poll[dir];
    struct rt_uring *u = &rt_urings[p->owner - 1];
    uint64_t data = rt_uring_poll_data(fd, dir, p->seq);
    bool prepared = u == own && take_back_own(u, data);
    int err = prepared ? 0 : rt_inbox_post_or_note(&u->inbox, data);
    rt_store_relaxed(&p->owner, 0);
    if (prepared)
        return true;
    if (err == 0)
        rt_fd_kick(&rt.ms[u->number - 1]);
    else if (err == -ESHUTDOWN) /* the ring is closed, and its heir has not found this poll */
        rt_uring_count_off(s);
    return false;
}

/* See the table at the top of the file. */
int rt_uring_arm_on(struct rt_uring *u, struct rt_fd *s, int fd, int dir) {
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
        return rt_uring_post_look(fd);
    int err = rt_uring_arm_on(m->poller, s, fd, RT_IN);
    if (err == 0)
        err = rt_uring_arm_on(m->poller, s, fd, RT_OUT);
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

static bool for_nobody(const struct rt_fd *s, int dir) {
    unsigned n;
    rt_fd_wanted(s, 1u << dir, &n);
    return s->poll[dir].owner != 0 && n == 0;
}

/* Nobody waits for the file to go, so they are submitted with the others. */
static void uring_drop(struct rt_fd *s, int fd) {
    if (!for_nobody(s, RT_IN) && !for_nobody(s, RT_OUT))
        return;
    struct rt_m *m = rt_enter();
    for (int dir = RT_IN; dir <= RT_OUT; dir++)
        if (for_nobody(s, dir))
            take_back(m ? m->poller : NULL, s, fd, dir);
    if (m)
        rt_gate_leave(m);
}

/* ---- completions ----------------------------------------------------------------------------- */

static void poll_done(struct rt_uring *u, uint64_t data, struct rt_glist *ready) {
    struct rt_fd *s = rt_fd_at(rt_uring_data_fd(data));
    int dir = rt_uring_data_dir(data);
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
    rt_uring_count_off(s);
    rt_unlock(&s->lock);
}

/* A few completions at once: their slots are loaded side by side. */
static unsigned reap_batch(struct rt_uring *u, struct rt_glist *ready) {
    uint64_t data[RT_FD_BATCH];
    int fds[RT_FD_BATCH];
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;
    io_uring_for_each_cqe(&u->ring.u, head, cqe) {
        if (n == RT_FD_BATCH)
            break;
        data[n] = cqe->user_data;
        fds[n] = rt_uring_data_fd(data[n]);
        n++;
    }
    io_uring_cq_advance(&u->ring.u, n); /* the kernel may write there again */
    rt_fd_touch(fds, n);
    for (unsigned i = 0; i < n; i++)
        if (rt_uring_data_tag(data[i]) == RT_TAG_POLL)
            poll_done(u, data[i], ready);
        else if (rt_uring_data_tag(data[i]) == RT_TAG_BELL)
            u->bell_armed = false;
    return n;
}

unsigned rt_uring_reap(struct rt_uring *u, struct rt_glist *ready) {
    unsigned n = 0, got;
    do
        n += got = reap_batch(u, ready);
    while (got == RT_FD_BATCH && ready->n < REAP_MAX);
    return n;
}

static bool serve_look(struct rt_uring *u, int fd) {
    struct rt_fd *s = rt_fd_at(fd);
    rt_lock(&s->lock);
    bool done = rt_uring_arm_on(u, s, fd, RT_IN) == 0 && rt_uring_arm_on(u, s, fd, RT_OUT) == 0;
    rt_unlock(&s->lock);
    return done;
}

/* The inbox: polls to take back, descriptors to look at for foreign threads. True: some. */
bool rt_uring_serve_inbox(struct rt_uring *u) {
    uint64_t letter;
    bool some = false;
    while (rt_inbox_take(&u->inbox, &letter)) {
        bool look = rt_uring_data_tag(letter) == RT_TAG_LOOK;
        some = true;
        if (look ? !serve_look(u, rt_uring_data_fd(letter)) : !prepare_remove(u, letter)) {
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
static bool reap_for_close(struct rt_uring *u, struct rt_glist *ready) {
    if (rt_uring_reap(u, ready) != 0)
        return true;
    bool letters = rt_uring_serve_inbox(u);
    if (letters || io_uring_sq_ready(&u->ring.u) || rt_ring_wants(&u->ring))
        submit(u);
    return rt_uring_reap(u, ready) != 0;
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

static void uring_settle(struct rt_fd *s, int fd) {
    int64_t until = 0;
    uint32_t n;
    while ((n = rt_load_acquire(&s->polls)) != 0) { /* pairs with rt_uring_count_off */
        bool some = reap_own_for_close();
        int64_t now = rt_sys_now();
        if (until == 0)
            until = now + CLOSE_WAIT_NS;
        else if (now >= until)
            break;
        if (!some)
            rt_sys_futex_wait(&s->polls, n, CLOSE_NAP_NS);
    }
    if (rt_unlikely(n != 0 || rt_load_relaxed(&rt_uring_left) != 0)) /* raised before n fell */
        rt_uring_close_left(fd);
}

const struct rt_fd_engine rt_uring_engine = {
    .arm = uring_arm, .drop = uring_drop, .disarm = uring_disarm, .settle = uring_settle};

/* ---- what the scheduler asks ----------------------------------------------------------------- */

static bool uring_pending(struct rt_m *m) {
    struct rt_uring *u = m->poller;
    if (io_uring_cq_ready(&u->ring.u) || rt_ring_wants(&u->ring) || rt_inbox_any(&u->inbox))
        return true;
    uint32_t waiting = io_uring_sq_ready(&u->ring.u);
    return waiting != 0 &&
           (waiting > RT_RING_ENTRIES / 2 || rt_sys_now() - u->first_prep >= RT_SUBMIT_AGE_NS);
}

static bool uring_urgent(struct rt_m *m) {
    const struct rt_uring *u = m->poller;
    return rt_inbox_any(&u->inbox);
}

/* One call runs about twenty pieces of deferred work, so there may be several. But the flag that
 * says so may be stale: the kernel adds the work, then sets the flag, and we may have run the work
 * in between. */
static void uring_poll(struct rt_m *m, bool hungry, struct rt_glist *ready) {
    if (!m) /* sysmon; rings are their owners' */
        return;
    struct rt_uring *u = m->poller;
    bool letters = rt_uring_serve_inbox(u); /* somebody waits in a close */
    uint32_t waiting = io_uring_sq_ready(&u->ring.u);
    bool enter = waiting != 0 || rt_ring_wants(&u->ring);
    if (enter && !hungry && !letters && waiting <= RT_RING_ENTRIES / 2) {
        int64_t now = rt_sys_now();
        enter = now - u->last_enter >= RT_SUBMIT_AGE_NS;
        if (enter)
            u->last_enter = now;
    }
    while (ready->n < REAP_MAX) {
        if (enter && submit(u) < 0)
            enter = false; /* EAGAIN, EBUSY, EINTR: at the next pass */
        unsigned got = rt_uring_reap(u, ready);
        if (!enter || got == 0 || !rt_ring_wants(&u->ring))
            break;
    }
}

static enum rt_sleep_mode uring_sleep_mode(struct rt_m *m) {
    struct rt_uring *u = m->poller;
    bool idle = u->inflight == 0 && io_uring_sq_ready(&u->ring.u) == 0 &&
                io_uring_cq_ready(&u->ring.u) == 0 && !rt_inbox_any(&u->inbox);
    return idle ? RT_SLEEP_FUTEX : RT_SLEEP_POLLER;
}

static void uring_sleep_undo(struct rt_m *m) {
    (void)m;
}

static bool arm_bell(struct rt_uring *u) {
    struct io_uring_sqe *sqe = u->bell_armed ? NULL : entry(u);
    if (!sqe)
        return u->bell_armed;
    io_uring_prep_read(sqe, u->ring.bell, &u->bell_count, sizeof u->bell_count, 0);
    sqe->user_data = (uint64_t)RT_TAG_BELL << 60;
    return u->bell_armed = true;
}

static void uring_sleep(struct rt_m *m, int64_t timeout_ns, struct rt_glist *ready) {
    struct rt_uring *u = m->poller;
    rt_uring_serve_inbox(u);
    int err = -EBUSY; /* the queue is full and the kernel takes none of it */
    if (arm_bell(u)) /* what could not be served is there still, and nobody rings for it again */
        err = rt_uring_wait(u, rt_inbox_any(&u->inbox) ? 0 : timeout_ns);
    if (rt_uring_reap(u, ready) != 0)
        err = 0;
    rt_wait_ended(&u->refused, "io_uring_enter(2)", err);
}

static void uring_wake(struct rt_m *m) {
    const struct rt_uring *u = rt_uring_of(m);
    if (u) /* else the sleep is over long ago */
        rt_sys_eventfd_add(u->ring.bell);
}

const struct rt_poller rt_uring_poller = {
    .name = "uring",
    .start = rt_uring_start,
    .stop = rt_uring_stop,
    .m_start = rt_uring_m_start,
    .m_stop = rt_uring_m_stop,
    .stuck = rt_uring_stuck,
    .adopt = rt_uring_adopt,
    .pending = uring_pending,
    .urgent = uring_urgent,
    .poll = uring_poll,
    .sleep_mode = uring_sleep_mode,
    .sleep_undo = uring_sleep_undo,
    .sleep = uring_sleep,
    .dozes = true,
    .wake = uring_wake,
    .waits = rt_fd_waits,
};
