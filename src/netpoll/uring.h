/* uring.h - what the two files of the engine on io_uring share: uring.c, which polls, and
 * uring_owner.c, which says whose a ring is. */
#ifndef RT_URING_H
#define RT_URING_H

#include "netpoll/fd.h"
#include "netpoll/inbox.h"
#include "netpoll/ring.h"

enum { RT_RING_ENTRIES = 512, RT_RING_COMPLETIONS = 4096 };
static const int64_t RT_SUBMIT_AGE_NS = 20 * 1000;

struct rt_uring {
    struct rt_ring ring;
    uint32_t inflight;      /* polls submitted or prepared whose completion has not been seen */
    uint32_t state;         /* uring_owner.c's; a futex word */
    uint16_t number;        /* index of its M, + 1 */
    int64_t first_prep;     /* when the oldest unsubmitted entry was prepared; any thread reads,
                               INT64_MAX: there is none */
    int64_t last_enter;
    bool bell_armed;
    bool enabled;           /* bound to its thread */
    uint64_t bell_count;    /* what the read of the bell is lent */
    uint32_t refused;       /* sleeps in a row that the kernel has not allowed (refusal.c) */
    struct rt_inbox inbox;  /* open while m->poller is this */
} __attribute__((aligned(RT_CACHE_LINE)));

extern struct rt_uring *rt_urings; /* rt.max_ms of them */
extern uint32_t rt_uring_left;     /* rings without an M, which may hold files; any thread */

/* ---- user_data, and letters ------------------------------------------------------------------ */

enum { RT_TAG_NONE, RT_TAG_POLL, RT_TAG_BELL, RT_TAG_LOOK };

/* 4 bits of tag, 1 of direction, 27 of descriptor, 32 of sequence. A letter with the tag of a poll
 * asks to take that back. */
static inline uint64_t rt_uring_poll_data(int fd, int dir, uint32_t seq) {
    return (uint64_t)RT_TAG_POLL << 60 | (uint64_t)dir << 59 | (uint64_t)(unsigned)fd << 32 | seq;
}
static inline int rt_uring_data_fd(uint64_t data) {
    return (int)(data >> 32 & 0x7ffffff);
}
static inline int rt_uring_data_dir(uint64_t data) {
    return (int)(data >> 59 & 1);
}
static inline unsigned rt_uring_data_tag(uint64_t data) {
    return (unsigned)(data >> 60);
}

/* Of an M, from any thread: it may go at any time, but its memory stays. NULL: it has none. */
static inline struct rt_uring *rt_uring_of(const struct rt_m *m) {
    return rt_load_acquire(&m->poller); /* pairs with the release in rt_uring_m_start */
}

/* ---- uring.c --------------------------------------------------------------------------------- */

extern const struct rt_fd_engine rt_uring_engine;

/* Ask some M to look at fd. 0, -ENOMEM. */
int rt_uring_post_look(int fd);

/* The lock of s is held: a poll less for which a close waits. */
void rt_uring_count_off(struct rt_fd *s);
/* And u is the own ring: poll for who waits on s in that direction. 0, -EAGAIN. */
int rt_uring_arm_on(struct rt_uring *u, struct rt_fd *s, int fd, int dir);

/* On the own ring. All that is in flight is cancelled, once it is submitted. */
void rt_uring_cancel(struct rt_uring *u);
/* Submit, run the deferred work, and wait for a completion. */
int rt_uring_wait(struct rt_uring *u, int64_t timeout_ns);
/* Completions that there are: how many. */
unsigned rt_uring_reap(struct rt_uring *u, struct rt_glist *ready);
/* Letters. True: some. */
bool rt_uring_serve_inbox(struct rt_uring *u);

/* ---- uring_owner.c --------------------------------------------------------------------------- */

/* As poller.h has them. */
int rt_uring_start(unsigned ms);
void rt_uring_stop(void);
int rt_uring_m_start(struct rt_m *m);
void rt_uring_m_stop(struct rt_m *m);
bool rt_uring_stuck(struct rt_m *m);
void rt_uring_adopt(struct rt_m *m, void *from, struct rt_glist *ready);

/* fd, which nobody asks for any more, is being closed: no ring that was left, or will be, holds its
 * file for long. Any thread; not needed when rt_uring_left and slot->polls are zero. */
void rt_uring_close_left(int fd);

#endif
