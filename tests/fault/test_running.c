/* The table of faults while the program runs: for each row, and for each n, the nth call of a site
 * fails once, and from the nth on until it was told a few times. Each time the program (program.h)
 * ends, with nothing reported but what the row says, then it works with nothing reported at all,
 * and after the stop nothing is left. */
#include "fault/program.h"

enum engine { BOTH, URING, EPOLL };

struct row {
    enum rt_fault_site site;
    int error;
    int says; /* the errno that the calls of the program may report; 0: they work */
    enum engine engine;
    bool fresh;      /* a runtime for each trial: the later ones need no more of it */
    uint32_t enough; /* of `forever`; 0: that is nothing that could happen */
};

#define SAME(site, error)  RT_FAULT_##site, error, error
#define WORKS(site, error) RT_FAULT_##site, error, 0

static const struct row memory[] = {
    {SAME(ALLOC, ENOMEM), BOTH, true, 50},
    {SAME(MMAP, ENOMEM), BOTH, true, 50},
    {SAME(GUARD, ENOMEM), BOTH, true, 50},
};
static const struct row others[] = {
    {SAME(THREAD, EAGAIN), BOTH, true, 50},
    {SAME(EVENTFD, EMFILE), BOTH, false, 50},
    {SAME(SOCKET, EAFNOSUPPORT), BOTH, false, 50},
    {SAME(SOCKET, EMFILE), BOTH, false, 4}, /* go_accept tries again, later and later */
    {SAME(SOCKET, ENFILE), BOTH, false, 4},
    {SAME(SOCKET, ENOBUFS), BOTH, false, 4},
};
static const struct row ring[] = {
    {WORKS(SUBMIT, EINTR), URING, false, 50}, {WORKS(SUBMIT, EAGAIN), URING, false, 50},
    {WORKS(SUBMIT, EBUSY), URING, false, 50}, {WORKS(SUBMIT, ENOMEM), URING, false, 50},
    {WORKS(WAIT, EINTR), URING, false, 50},   {WORKS(WAIT, EAGAIN), URING, false, 50},
    {WORKS(WAIT, EBUSY), URING, false, 50},   {WORKS(WAIT, ENOMEM), URING, false, 50},
    {WORKS(WAIT, ETIME), URING, false, 50},   {WORKS(SHORT, 1), URING, false, 500},
};
static const struct row set[] = {
    {SAME(EPOLL_ADD, ENOMEM), EPOLL, false, 50},
    {SAME(EPOLL_ADD, EBADF), EPOLL, false, 50},
    {SAME(EPOLL_ADD, ENOSPC), EPOLL, false, 50},  /* max_user_watches */
    {WORKS(EPOLL_ADD, EPERM), EPOLL, false, 500}, /* it cannot be polled: it counts as ready */
    {SAME(EPOLL_MOD, ENOMEM), EPOLL, false, 50},
    {WORKS(EPOLL_MOD, ENOENT), EPOLL, false, 0}, /* the number was closed by a plain close(2) */
    {WORKS(EPOLL_DEL, ENOENT), EPOLL, false, 50},
    {WORKS(EPOLL_DEL, EBADF), EPOLL, false, 50},
    {WORKS(EPOLL_DEL, ENOMEM), EPOLL, false, 50},
    {WORKS(EPOLL_WAIT, EINTR), EPOLL, false, 50},
    {WORKS(EPOLL_WAIT, ENOMEM), EPOLL, false, 50},
};
/* Said once, it is believed as long as the process lives. */
static const struct row before_5_11 = {WORKS(PWAIT2, ENOSYS), EPOLL, false, 50};
static const struct row filtered = {WORKS(PWAIT2, EPERM), EPOLL, false, 50};

static void begin(void) {
    T_EQ(start_as(asked_engine()), 0);
}

/* How often was somebody told? */
static uint32_t trial(const struct row *r, uint32_t nth, bool forever) {
    if (r->fresh)
        begin();
    uint32_t enough = forever ? r->enough : UINT32_MAX; /* once is over by itself */
    program_run(r->site, nth, forever, r->error, r->says, enough);
    uint32_t told = rt_load_seq_cst(&rt_fault_points[r->site].hits);
    program_strict(r->site);
    if (r->fresh)
        t_stop();
    return told;
}

/* 1, 2, 3, ... 24, 26, 28, ...; fewer where there are many Ps, for time. */
static uint32_t next(uint32_t nth) {
    return nth + 1 + nth / T_SCALE(t_procs() > 8 ? 4 : 24);
}

/* False: it is for the other engine. */
static bool each_nth(const struct row *r) {
    begin();
    if ((r->engine == URING && !runs("uring")) || (r->engine == EPOLL && !runs("epoll"))) {
        t_stop();
        return false;
    }
    uint32_t calls = 0; /* of a wait: which worker falls asleep, and how, is a matter of chance */
    for (int times = 1; calls == 0; times++) {
        calls = program_strict(r->site);
        T_ASSERT(times < 1000, "site %d is never reached", (int)r->site);
    }
    if (r->fresh)
        t_stop();
    uint32_t told = 0;
    for (uint32_t nth = 1; nth <= calls; nth = next(nth)) {
        told += trial(r, nth, false);
        if (r->enough)
            told += trial(r, nth, true);
    }
    for (int times = 0; told == 0; times++) { /* by chance as above, or the row says nothing */
        T_ASSERT(times < 100, "site %d, error %d: nobody was told", (int)r->site, r->error);
        told = trial(r, 1, r->enough != 0);
    }
    if (!r->fresh)
        t_stop();
    return true;
}

/* And what there was before a runtime ran is there after it, no more. False: no row was for this
 * engine. */
static bool each(const struct row *rows, size_t n) {
    bool any = false;
    NET_ONE_HEAP();
    signal(SIGPIPE, SIG_IGN);
    begin();
    program_strict(RT_FAULT_ALLOC);
    t_stop();
    struct t_usage before = t_usage();
    for (size_t i = 0; i < n; i++) {
        any |= each_nth(&rows[i]);
        T_SAME_USAGE(before);
    }
    return any;
}

Test(running, memory_fails_for_a_moment_and_longer) {
    T_ASSERT(each(memory, T_COUNT(memory)));
}

Test(running, threads_and_descriptors_fail) {
    T_ASSERT(each(others, T_COUNT(others)));
}

Test(running, entering_a_ring_fails) {
    if (!each(ring, T_COUNT(ring)))
        T_SKIP("epoll has no rings");
}

Test(running, the_calls_of_epoll_fail) {
    if (!each(set, T_COUNT(set)))
        T_SKIP("io_uring has no set");
}

Test(running, epoll_has_no_wait_in_nanoseconds) {
    if (!each(&before_5_11, 1))
        T_SKIP("io_uring waits by another call");
}

Test(running, a_filter_does_not_know_epoll_pwait2) {
    if (!each(&filtered, 1))
        T_SKIP("io_uring waits by another call");
}
