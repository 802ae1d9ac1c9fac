/* fd.h - the descriptor table: what the runtime knows of each descriptor, and who waits on it.
 *
 * A call on a descriptor is: rt_fd_begin; then again and again: rt_fd_fresh and the system call,
 * and when that says -EAGAIN rt_fd_wait; at last rt_fd_end. fd.c tells the protocol. */
#ifndef RT_FD_H
#define RT_FD_H

#include "base/queue.h"
#include "sched/park.h"
#include "sched/poller.h"
#include "sched/sched.h"
#include "sched/start.h"

#include <errno.h>
#include <poll.h>

enum { RT_IN = 0, RT_OUT = 1, RT_BOTH = 1 << RT_IN | 1 << RT_OUT /* as bits */ };
enum { /* what of poll(2) belongs to which direction; POLLERR and POLLHUP belong to both */
    RT_OUT_EVENTS = POLLOUT | POLLWRNORM | POLLWRBAND,
    RT_IN_EVENTS = POLLIN | POLLPRI | POLLRDNORM | POLLRDBAND | POLLRDHUP,
};

enum { /* slot->flags: written under the lock */
    RT_FD_OURS = 1,    /* made by gort: non-blocking, and closed by go_close */
    RT_FD_STREAM = 2,  /* bytes without borders: a short read means that it is empty */
    RT_FD_WARY = 4,    /* the end, an error or urgent data were seen: do not trust a short read */
    RT_FD_CLOSING = 8, /* somebody is between giving the waiters up and close(2) */
    RT_FD_ADDED = 16,  /* epoll: in the set, as far as we know */
    RT_FD_NODELAY = 32, /* a listener whose connections inherit TCP_NODELAY, or need none */
    RT_FD_PIECES = 64,  /* a read of that stream may stop at a border, as AF_UNIX has them */
};

enum rt_fd_kind { /* which call to try first; a guess that the system calls correct */
    RT_KIND_SOCKET = 0, /* also: not known yet */
    RT_KIND_OTHER,
};

/* uring: the poll in flight for one direction; epoll does not use it. Under the slot's lock. */
struct rt_fd_poll {
    uint32_t seq;   /* of the latest poll: a completion with another is stale */
    uint16_t owner; /* the ring that has it; 0: none; an heir peeks without lock */
    uint16_t mask;
};

struct rt_fd {
    uint32_t lock;
    uint32_t gen;     /* bumped by close, forget and reuse; read without the lock */
    uint32_t edge[2]; /* events so far by direction; written under the lock */
    uint32_t dry[2];  /* edge[] + 1 when the latest transfer left nothing; a hint, any thread */
    uint16_t flags;
    uint8_t kind;     /* enum rt_fd_kind; a hint, any thread */
    uint8_t asking;   /* see rt_fd_ask; any thread */
    uint32_t held;    /* calls that have waited and try again: its number is theirs until then */
    void *waiters; /* queue of struct rt_fd_waiter; under the lock */
    struct rt_fd_poll poll[2];
    /* uring: polls in flight on all rings, each holds the file. Written under the lock; a close
     * waits on this word. */
    uint32_t polls;
} __attribute__((aligned(RT_CACHE_LINE)));

struct rt_fd_waiter {
    struct rt_node node;
    struct rt_g *g;
    uint64_t seq;
    uint16_t mask;
    bool foreign : 1;   /* a foreign thread */
    bool unstarted : 1; /* in the record of a G that has no stack yet (io/when.c) */
    bool naps : 1;      /* waits for no event: only the end of the descriptor wakes it */
    int fd;             /* of an unstarted one */
};

struct rt_fd_op {
    struct rt_g *g;
    struct rt_fd *slot;
    uint32_t gen;
    uint32_t edge[2]; /* what slot->edge was before the latest try */
    int fd;
    bool held; /* counted in slot->held */
};

/* What an engine does for fd.c; the lock of s is held. */
struct rt_fd_engine {
    bool edges; /* what is there may have been told before, and is not told again */
    /* The waiters of s want what is in their masks. 0; RT_FD_ALWAYS: this file is always ready;
     * -EAGAIN: no room now, yield and try again; other -errno. Called right before the park, on the
     * thread that will park. */
    int (*arm)(struct rt_fd *s, int fd);
    /* Forget what is armed for nobody. fd may be another file by now, or none. NULL: it does no
     * harm. */
    void (*drop)(struct rt_fd *s, int fd);
    /* Forget what is armed. fd is still open. */
    void (*disarm)(struct rt_fd *s, int fd);
    /* After that, without the lock, RT_FD_CLOSING set: wait until nothing that was armed holds the
     * file of s, but not for long. NULL: nothing does. */
    void (*settle)(struct rt_fd *s, int fd);
};
enum { RT_FD_ALWAYS = 1 };
extern const struct rt_fd_engine *rt_fd_engine;

/* The table. Two levels, so that a slot's address never changes while the runtime runs. */
#ifndef RT_FD_TABLE_BITS /* tests/model has a smaller one */
#define RT_FD_TABLE_BITS 14
#define RT_FD_SLOT_BITS  12
#endif
enum {
    RT_FD_CHUNK_BITS = RT_FD_SLOT_BITS,
    RT_FD_CHUNK = 1 << RT_FD_CHUNK_BITS,
    RT_FD_CHUNKS = 1 << RT_FD_TABLE_BITS,
};
extern struct rt_fd *rt_fd_chunks[RT_FD_CHUNKS];

/* The slot of fd; NULL when its part of the table has never been needed, or fd is out of range. */
static inline struct rt_fd *rt_fd_at(int fd) {
    unsigned n = (unsigned)fd;
    if (rt_unlikely(n >= (unsigned)RT_FD_CHUNKS << RT_FD_CHUNK_BITS))
        return NULL;
    struct rt_fd *chunk = rt_load_acquire(&rt_fd_chunks[n >> RT_FD_CHUNK_BITS]); /* fd.c: publish */
    return rt_likely(chunk != NULL) ? &chunk[n & (RT_FD_CHUNK - 1)] : NULL;
}

/* ---- calls ----------------------------------------------------------------------------------- */

int rt_fd_begin_slow(struct rt_fd_op *op);
void rt_fd_end_slow(void);

/* The slot of fd: 0 (then rt_fd_end must follow), -ENXIO, -EBADF, -ENOMEM. */
static inline int rt_fd_find(struct rt_fd_op *op, int fd) {
    struct rt_g *g = rt_self();
    op->g = g;
    op->fd = fd;
    op->held = false;
    op->slot = rt_fd_at(fd);
    if (rt_unlikely(!op->slot || (g->flags & RT_G_THREAD))) {
        int err = rt_fd_begin_slow(op);
        if (err)
            return err;
    }
    /* Keeps the first try behind it: who finds the next file's gen never tries the old one. Pairs
     * with the release in fd.c: reset. */
    op->gen = rt_load_acquire(&op->slot->gen);
    return 0;
}

/* May the caller do I/O now? The same, and -ECANCELED, -ETIMEDOUT. */
static inline int rt_fd_begin(struct rt_fd_op *op, int fd) {
    int err = rt_fd_find(op, fd);
    if (rt_unlikely(err != 0))
        return err;
    err = rt_cancel_check(op->g);
    if (rt_unlikely(err != 0) && (op->g->flags & RT_G_THREAD))
        rt_fd_end_slow();
    return err;
}

/* From here to rt_fd_let_go, or rt_fd_end, the number of op means the file that it meant at
 * rt_fd_begin: go_close and go_forget wait. So what is done in between must not park and not take
 * long. 0; -EBADF: it is too late. Every wait below that returns 0 has done so. */
int rt_fd_hold(struct rt_fd_op *op);

static inline void rt_fd_let_go(struct rt_fd_op *op) {
    if (op->held) {
        op->held = false;
        rt_fetch_sub_release(&op->slot->held, 1); /* pairs with the acquire in fd.c: settle */
    }
}

static inline void rt_fd_end(struct rt_fd_op *op) {
    rt_fd_let_go(op);
    if (rt_unlikely(op->g->flags & RT_G_THREAD))
        rt_fd_end_slow();
}

/* tools/bench --only tries builds the others, too, for the table in docs/performance.md. */
enum { RT_TRY_UNLESS_DRY, RT_TRY_ALWAYS, RT_POLL_AFTER_ANY };
#ifndef RT_TRY
#define RT_TRY RT_TRY_UNLESS_DRY
#endif

/* Before each try: note what has happened so far. False: the latest transfer left nothing behind
 * and no event came since, so a try would be wasted. */
static inline bool rt_fd_fresh(struct rt_fd_op *op, int dir) {
    /* Acquire: keeps the try behind it, and pairs with the release in rt_fd_event (flags first). */
    uint32_t edge = rt_load_acquire(&op->slot->edge[dir]);
    op->edge[dir] = edge;
    return RT_TRY == RT_TRY_ALWAYS || rt_load_relaxed(&op->slot->dry[dir]) != edge + 1;
}

/* The try that rt_fd_fresh preceded moved less than it could. */
static inline void rt_fd_drained(struct rt_fd_op *op, int dir) {
    uint16_t flags = rt_load_relaxed(&op->slot->flags);
    if ((flags & (RT_FD_STREAM | RT_FD_WARY)) == RT_FD_STREAM)
        rt_store_relaxed(&op->slot->dry[dir], op->edge[dir] + 1);
}

/* For a call that waits in the kernel unless there is something, on a descriptor that others may
 * read from, too: who asks poll(2) first and then makes it does so between these two, and only when
 * the first says true, or of two who were told that there is something one would wait, where no
 * close, cancel or stop reaches it. False: as -EAGAIN, and nothing is missed by it: the wait asks
 * the kernel, which tells again of what is there. Those of other processes are not kept out. A
 * close forgets who asks, since the next file of the number has nothing to do with it; the late
 * rt_fd_asked of that one may then let two in. */
static inline bool rt_fd_ask(struct rt_fd_op *op) {
    return rt_exchange_acquire(&op->slot->asking, 1) == 0; /* pairs with rt_fd_asked */
}
static inline void rt_fd_asked(struct rt_fd_op *op) {
    rt_store_release(&op->slot->asking, 0); /* pairs with the exchange in rt_fd_ask */
}

/* The caller has taken what an event would have told (RT_FD_WARY), perhaps before it was seen. */
void rt_fd_beware(struct rt_fd_op *op);

/* Park until fd may be ready for an event of mask (0: POLLERR and POLLHUP alone), unless one came
 * since rt_fd_fresh. own_deadline: the call's own, GO_FOREVER for none. 0: try again. -EBADF:
 * closed; -ECANCELED, -ETIMEDOUT: as the caller must report them; -ENOMEM, -ENOSPC: the
 * kernel's. */
int rt_fd_wait(struct rt_fd_op *op, unsigned mask, int64_t own_deadline, enum rt_why why);

/* The same wait for a G that has not started; op is its spawner's. *w lies in the record of w->g,
 * all but node and unstarted is set, and its timer is armed (rt_spawn_arm). Returns at once: 0: it
 * waits, and neither may be touched any more; -EAGAIN: an event came since rt_fd_fresh;
 * RT_FD_ALWAYS: it cannot be said now, let it run and wait by itself; -EBUSY: another such one
 * waits in this direction; -EBADF, -ENOMEM, -ENOSPC. */
int rt_fd_wait_unstarted(struct rt_fd_op *op, struct rt_fd_waiter *w, enum rt_why why);
/* It runs now: undo what that has left. */
void rt_fd_started(struct rt_fd_op *op, struct rt_fd_waiter *w);

/* Sleep for *ns, and double it up to a second: for what no event tells. 0; -EBADF: closed, at
 * once; -ECANCELED, -ETIMEDOUT. */
int rt_fd_back_off(struct rt_fd_op *op, int64_t *ns);

/* Take the slot of a descriptor that gort has just made: whatever it knew of an older one of the
 * same number is over. flags: RT_FD_OURS | ... 0, -ENOMEM. */
int rt_fd_adopt(int fd, unsigned flags);

/* Whoever waits on fd gets -EBADF. */
void rt_fd_forget(int fd);
/* The same, and close(2). 0 or -errno. */
int rt_fd_close(int fd);

/* ---- for the engines ------------------------------------------------------------------------- */

/* Bits 1 << RT_IN, 1 << RT_OUT. */
static inline unsigned rt_fd_dirs(unsigned mask) {
    unsigned dirs = mask & RT_OUT_EVENTS ? 1u << RT_OUT : 0;
    return dirs == 0 || (mask & ~(unsigned)RT_OUT_EVENTS) ? dirs | 1u << RT_IN : dirs;
}

/* What the waiters of these directions want, united; *n: how many they are. */
unsigned rt_fd_wanted(const struct rt_fd *s, unsigned dirs, unsigned *n);

/* Something happened in these directions: claim the waiters, append them to ready. Lock held. */
void rt_fd_event(struct rt_fd *s, unsigned dirs, bool wary, struct rt_glist *ready);

/* Before a batch of events: bring their slots, all at once, and then the frames of who waits. These
 * may be gone by now, so that is but a prefetch. */
enum { RT_FD_BATCH = 8 };
static inline void rt_fd_touch(const int *fds, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        const struct rt_fd *s = rt_fd_at(fds[i]);
        if (s)
            __builtin_prefetch(rt_load_relaxed(&s->waiters));
    }
}

/* Make m look at its netpoller soon; any thread. */
void rt_fd_kick(struct rt_m *m);

/* For that many Ms. */
int rt_fd_start(unsigned ms);
void rt_fd_stop(void);
uint64_t rt_fd_waits(void);
/* Call fn for each slot that there is, unlocked. */
void rt_fd_each(void (*fn)(struct rt_fd *s, int fd, void *arg), void *arg);
/* Claim with -ECANCELED every foreign thread that waits on a descriptor: the runtime stops. One may
 * be missed that is just about to wait, so again and again until they have left. */
void rt_fd_evict_foreign(void);

#endif
