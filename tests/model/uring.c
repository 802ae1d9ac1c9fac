/* uring.c - netpoll/uring.c with fd.c and the scheduler loop as shipped: who waits on a descriptor
 * is told when it can be read, whoever polls for it; a P may be taken at any moment at which its M
 * is outside; a close ends when no poll holds the file any more. An M enters its ring behind its
 * gate alone, and nobody else touches the queues but who closes them: they are plain memory, so the
 * checker would see it.
 *
 * In the place of the kernel: one file, which has a byte to be read or not; what each ring polls
 * for and what it has answered; a bell for each. An answer is made when the ring is entered, as
 * with IORING_SETUP_DEFER_TASKRUN: until then a flag says that it should be. A ring that is closed
 * lets its files go; but a read of its bell stays, and is answered before another's. A close may
 * come back while a ring that no M has holds the file; at rest none does. */
#define ENGINE rt_uring_poller
#include "file.h"

#include "netpoll/ring.h"

enum { BELL = 10, RINGS = ENGINE_MS, POLLS = 4 };

static struct kernel_ring {
    struct rt_ring *ring;
    struct {
        bool on;
        int fd;
        uint64_t data;
    } polls[POLLS];
    bool bell_is_read, bell_is_read_by_old;
    uint64_t bell_data;
    /* Any thread: */
    uint32_t asks;   /* polls of the file */
    uint32_t bell;   /* rung */
    uint32_t holds;  /* the same, but no order goes with it */
    uint32_t queue;  /* where it is waited for answers */
} kernel[RINGS];
static uint32_t nrings;

/* ---- the kernel: a ring ---------------------------------------------------------------------- */

static struct kernel_ring *of(const struct rt_ring *r) {
    for (unsigned i = 0; i < rt_load_acquire(&nrings); i++)
        if (kernel[i].ring == r)
            return &kernel[i];
    model_fail("no such ring");
}

static void answer(struct io_uring *u, uint64_t data) {
    unsigned tail = *u->cq.ktail;
    model_assert(tail - rt_load_acquire(u->cq.khead) < MODEL_CQES);
    u->cq.entries[tail % MODEL_CQES].user_data = data;
    rt_store_release(u->cq.ktail, tail + 1);
}

static void let_go(struct kernel_ring *k, int i) {
    k->polls[i].on = false;
    rt_fetch_sub_relaxed(&k->holds, 1);
    rt_fetch_sub(&k->asks, 1);
    answer(&k->ring->u, k->polls[i].data);
}

static void ask(struct kernel_ring *k, const struct io_uring_sqe *e) {
    int i = 0;
    if (rt_fetch_add(&is_closed, 0)) { /* an error is an answer */
        answer(&k->ring->u, e->user_data);
        return;
    }
    while (k->polls[i].on)
        i++;
    model_assert(i < POLLS && e->fd == FD);
    k->polls[i].on = true;
    k->polls[i].fd = e->fd;
    k->polls[i].data = e->user_data;
    rt_fetch_add_relaxed(&k->holds, 1);
    rt_fetch_add(&k->asks, 1);
}

static void take_back(struct kernel_ring *k, const struct io_uring_sqe *e) {
    for (int i = 0; i < POLLS; i++)
        if (k->polls[i].on && (e->op == MODEL_CANCEL_ALL || e->target == k->polls[i].data))
            let_go(k, i);
    if (e->op == MODEL_CANCEL_ALL && k->bell_is_read) {
        k->bell_is_read = false;
        answer(&k->ring->u, k->bell_data);
    }
}

static void deferred_work(struct kernel_ring *k) {
    rt_fetch_and(&k->ring->u.flags, ~(unsigned)IORING_SQ_TASKRUN);
    for (int i = 0; i < POLLS; i++)
        if (k->polls[i].on && rt_fetch_add(&readable, 0) != 0)
            let_go(k, i);
    if (k->bell_is_read && rt_exchange(&k->bell, 0) != 0) {
        k->bell_is_read = false;
        answer(&k->ring->u, k->bell_data);
    }
}

static void wake(struct kernel_ring *k) {
    rt_fetch_add(&k->queue, 1);
    rt_sys_futex_wake(&k->queue, 1);
}

/* An M's, who has not lost it. */
static bool has_owner(unsigned i) {
    return rt_load_acquire(&ms[i].poller) == kernel[i].ring;
}
static bool is_held(void) {
    uint32_t n = 0;
    for (unsigned i = 0; i < rt_load_acquire(&nrings); i++)
        n += has_owner(i) ? rt_load_relaxed(&kernel[i].holds) : 0;
    return n != 0;
}
static uint32_t asked(void) {
    uint32_t n = 0;
    for (unsigned i = 0; i < nrings; i++) {
        n += has_owner(i) ? kernel[i].holds : 0;
        for (unsigned k = 0; has_owner(i) && k < kernel[i].ring->u.sq.n; k++)
            n += kernel[i].ring->u.sq.entries[k].op == MODEL_POLL_ADD;
    }
    return n;
}
static bool is_let_go(void) {
    uint32_t n = 0;
    for (unsigned i = 0; i < nrings; i++)
        n += kernel[i].holds;
    return n == 0;
}

int rt_ring_submit(struct rt_ring *r) {
    struct kernel_ring *k = of(r);
    model_assert(rt_m() && kernel[rt_m()->index].ring == r); /* or -EEXIST: SINGLE_ISSUER */
    model_assert(rt_load_relaxed(&rt_m()->in_rt) || !rt_m()->g); /* in its loop it may sleep */
    struct io_uring *u = &r->u;
    for (unsigned i = 0; i < u->sq.n; i++) {
        const struct io_uring_sqe *e = &u->sq.entries[i];
        if (e->op == MODEL_POLL_ADD) {
            ask(k, e);
        } else if (e->op == MODEL_READ) {
            k->bell_is_read = true;
            k->bell_data = e->user_data;
        } else {
            take_back(k, e);
        }
    }
    u->sq.n = 0;
    deferred_work(k);
    return 0;
}

int rt_ring_wait(struct rt_ring *r, int64_t timeout_ns) {
    struct kernel_ring *k = of(r);
    for (;;) {
        uint32_t seen = rt_fetch_add(&k->queue, 0);
        rt_ring_submit(r);
        if (io_uring_cq_ready(&r->u) != 0)
            return 0;
        if (timeout_ns == 0 || rt_sys_futex_wait(&k->queue, seen, timeout_ns) == -ETIMEDOUT)
            return -ETIME;
    }
}

int rt_ring_self_test(void) {
    return 0;
}
void rt_ring_init(struct rt_ring *r) {
    unsigned i = rt_load_relaxed(&nrings);
    *r = (struct rt_ring){.bell = BELL + (int)i};
    kernel[i].ring = r;
    rt_store_release(&nrings, i + 1);
}
int rt_ring_make(struct rt_ring *r, unsigned entries, unsigned completions) {
    (void)entries, (void)completions;
    struct kernel_ring *k = of(r);
    k->bell_is_read_by_old = false;
    rt_store_relaxed(&k->bell, 0);
    r->made = true;
    rt_store_relaxed(&r->u.flags, 0);
    rt_store_relaxed(&r->u.head, 0);
    rt_store_relaxed(&r->u.tail, 0);
    r->u.sq.kflags = &r->u.flags;
    r->u.cq.khead = &r->u.head;
    r->u.cq.ktail = &r->u.tail;
    return 0;
}
int rt_ring_enable(struct rt_ring *r) {
    (void)r;
    return 0;
}
/* Its memory goes: who looks finds nothing, if he is not seen before. */
void rt_ring_free(struct rt_ring *r) {
    struct kernel_ring *k = of(r);
    r->made = false;
    r->u.sq.kflags = r->u.cq.khead = r->u.cq.ktail = NULL;
    r->u.sq.n = 0;
    for (int i = 0; i < POLLS; i++)
        if (k->polls[i].on) {
            k->polls[i].on = false;
            rt_fetch_sub_relaxed(&k->holds, 1);
            rt_fetch_sub(&k->asks, 1);
        }
    k->bell_is_read_by_old |= k->bell_is_read;
    k->bell_is_read = false;
}
void rt_ring_end(struct rt_ring *r) {
    rt_ring_free(r);
}
void rt_sys_eventfd_add(int fd) {
    struct kernel_ring *k = &kernel[fd - BELL];
    if (k->bell_is_read_by_old) /* or nobody */
        return;
    rt_fetch_add(&k->bell, 1);
    wake(k);
}

static void tell(void) {
    for (unsigned i = 0; i < rt_load_acquire(&nrings); i++)
        if (rt_fetch_add(&kernel[i].asks, 0) != 0) {
            rt_fetch_or(&kernel[i].ring->u.flags, IORING_SQ_TASKRUN);
            wake(&kernel[i]);
        }
}

/* ---- a green thread closes, on another M ----------------------------------------------------- */

static void closes_green(void *arg) {
    (void)arg;
    closes();
}
static void two_ps_and_two_rings(void) {
    start_with(2);
    naps_are_long();
}
static void a_reader_and_a_closer(void) {
    two_ps_and_two_rings();
    queue_on(0, reads_or_is_closed);
    queue_on(1, closes_green);
}

/* ---- sysmon looks at a ring that is just being closed ---------------------------------------- */

static void looks(void) {
    for (int i = 0; i < 2; i++)
        rt_uring_poller.stuck(rt_m_of(&ps[0]));
}

static void waits_and_hogs(void *arg) {
    waits_a_little(arg);
    hogs(arg);
}
static void one_who_waits_and_a_spare(void) {
    one_p_and_a_spare();
    naps_are_long();
    queue(waits_and_hogs);
}
static void one_who_waits_and_a_late_taking(void) {
    one_who_waits_and_a_spare();
    close_is_late = true;
}
static void close_then_take(void) {
    while (!rt_load_relaxed(&hogging))
        model_wait_for_change();
    closes();
    take();
}
static void take_and_close(void) {
    take_from_the_hog();
    closes();
}

/* ---- what was taken back and answered is not counted again when the ring is closed ----------- */

static void waits_closes_and_passes(void *arg) {
    waits_a_little(arg);
    closes();
    passes(arg);
}
static void one_who_closes_and_a_spare(void) {
    one_p_and_a_spare();
    naps_are_long();
    queue(waits_closes_and_passes);
}

/* ---- a poll is just being taken back when the P goes, and its M has the ring back soon ---- */

static void waits_and_passes(void *arg) {
    waits_a_little(arg);
    passes(arg);
}
static void one_who_comes_back_and_a_spare(void) {
    one_p_and_a_spare();
    naps_are_long();
    queue(waits_and_passes);
}
/* The number is another file's, so to speak: as in a close, but nobody waits for the end of it. */
static void adopts_beside_the_hog(void) {
    while (!rt_load_relaxed(&hogging))
        model_wait_for_change();
    model_assert(rt_fd_adopt(FD, RT_FD_OURS | RT_FD_STREAM) == 0);
}
static void counted(void) {
    model_assert(nclosed == 1);
    all_are_counted();
}

const struct model_case model_cases[] = {
    MODEL_CASE("uring.read", a_reader, one_read, one_read, 2, 1, m0, sys_write),
    MODEL_CASE("uring.foreign", start, one_read, one_read, 1, 1, m0, foreign_reads, sys_write),
    MODEL_CASE("uring.taken", a_reader_and_a_spare, one_read, one_read, 1, 1, m0, m1, take_once,
               sys_write),
    MODEL_CASE("uring.taken_from_a_hog", one_who_asks_and_a_spare, one_read, one_read, 1, 1, m0, m1,
               take, sys_write),
    MODEL_CASE("uring.foreign_taken", a_hog_and_a_spare, one_read, one_read, 1, 1, m0, m1,
               take_then_write, foreign_reads),
    MODEL_CASE("uring.foreign_beside_a_spare", one_who_passes_and_a_spare, one_read, one_read, 1, 1,
               m0, m1, take_from_the_hog_then_write, foreign_reads),
    MODEL_CASE("uring.looked_at", one_who_waits_and_a_spare, closed, closed, 1, 1, m0, m1,
               take_and_close, looks),
    MODEL_CASE("uring.taken_when_closed", one_who_waits_and_a_late_taking, closed, closed, 1, 1, m0,
               m1, close_then_take),
    MODEL_CASE("uring.counted_once", one_who_closes_and_a_spare, closed, closed, 1, 1, m0, m1,
               take_from_the_hog),
    MODEL_CASE("uring.counted_by_one", one_who_comes_back_and_a_spare, counted, counted, 1, 1, m0,
               m1, take_from_the_hog, adopts_beside_the_hog),
    MODEL_CASE("uring.closed", a_reader_to_be_closed, closed, closed, 1, 1, m0, closes),
    MODEL_CASE("uring.closed_later", one_who_is_late, closed, closed, 1, 1, m0, closes),
    MODEL_CASE("uring.closed_by_green", a_reader_and_a_closer, closed, closed, 1, 1, m0, m1),
    MODEL_CASE("uring.closed_and_taken", one_to_be_closed_and_a_spare, closed, closed,
               1, 1, m0, m1, take_once, closes),
    MODEL_CASE("uring.left_behind", a_reader_and_a_hog, one_read, one_read, 1, 1, m0, m1,
               take_from_the_hog, sys_write),
    MODEL_CASE("uring.left_behind_and_closed", a_reader_to_be_closed_and_a_hog, closed, closed, 1,
               1, m0, m1, take_from_the_hog, closes),
    {0},
};
