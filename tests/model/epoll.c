/* epoll.c - netpoll/epoll.c with fd.c and the scheduler loop as shipped: who waits on a descriptor
 * is told when it can be read, whoever has put it into the set and whoever sleeps there or falls
 * asleep just then.
 *
 * In the place of the kernel: a set with one file and a bell. What happens before the file is
 * watched is told when it comes into the set, each event once; the bell until it is emptied. */
#define ENGINE rt_epoll_poller
#include "file.h"

#include <sys/epoll.h>

enum { SET = 10, BELL = 11 };
enum { UNKNOWN, EVERY_EDGE, ONCE, NOT_NOW }; /* watched, that is in the set: how */

static struct {
    uint32_t watched;
    uint32_t gen; /* what the event carries for it */
    uint32_t event;
    uint32_t rung;
    uint32_t queue; /* where it is waited for events */
} set;

static void wake(void) {
    rt_fetch_add(&set.queue, 1);
    rt_sys_futex_wake(&set.queue, 1);
}

static void tell(void) {
    uint32_t watched = rt_fetch_add(&set.watched, 0);
    if (watched != EVERY_EDGE && watched != ONCE)
        return;
    rt_exchange(&set.event, 1);
    wake();
}

/* A set holds no file. */
static bool is_held(void) {
    return false;
}
static uint32_t asked(void) {
    return 0;
}
static bool is_let_go(void) {
    return true;
}

int rt_sys_epoll_create(void) {
    return SET;
}
int rt_sys_epoll_ctl(int epfd, int op, int fd, uint32_t events, uint64_t data) {
    model_assert(epfd == SET);
    if (fd == BELL)
        return 0;
    if (rt_fetch_add(&is_closed, 0))
        return -EBADF;
    bool known = rt_fetch_add(&set.watched, 0) != UNKNOWN;
    if (known != (op != EPOLL_CTL_ADD))
        return known ? -EEXIST : -ENOENT;
    rt_exchange(&set.gen, (uint32_t)(data >> 32));
    rt_exchange(&set.watched,
                op == EPOLL_CTL_DEL ? UNKNOWN : (events & EPOLLET) ? EVERY_EDGE : ONCE);
    if (op != EPOLL_CTL_DEL && rt_fetch_add(&readable, 0) != 0)
        tell();
    return 0;
}

static int happened(struct epoll_event *out) {
    int n = 0;
    if (rt_exchange(&set.event, 0)) {
        uint64_t gen = rt_fetch_add(&set.gen, 0);
        uint32_t once = ONCE;
        rt_cas(&set.watched, &once, NOT_NOW);
        out[n++] = (struct epoll_event){.events = EPOLLIN, .data.u64 = gen << 32 | FD};
    }
    if (rt_fetch_add(&set.rung, 0))
        out[n++] = (struct epoll_event){.events = EPOLLIN, .data.u64 = UINT64_MAX};
    return n;
}

int rt_sys_epoll_wait(int epfd, struct epoll_event *out, int max, int64_t timeout_ns) {
    model_assert(epfd == SET && max >= 2);
    for (;;) {
        uint32_t seen = rt_fetch_add(&set.queue, 0);
        int n = happened(out);
        if (n != 0 || timeout_ns == 0 ||
            rt_sys_futex_wait(&set.queue, seen, timeout_ns) == -ETIMEDOUT)
            return n;
    }
}

int rt_sys_eventfd(bool nonblocking) {
    (void)nonblocking;
    return BELL;
}
void rt_sys_eventfd_add(int fd) {
    model_assert(fd == BELL);
    rt_fetch_add(&set.rung, 1);
    wake();
}
void rt_sys_eventfd_drain(int fd) {
    model_assert(fd == BELL);
    rt_exchange(&set.rung, 0);
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void ends(void *arg) {
    (void)arg;
}
/* The sleeper is called away. */
static void spawn_and_write(void) {
    model_assert(go_spawn(ends, NULL) == 0);
    sys_write();
}
static void two_ps(void) {
    start_with(2);
}

/* What is the sleeper's is nobody else's. */
static void sleeps(unsigned i) {
    struct rt_glist ready = {0};
    machine_be(i, NULL);
    for (int round = 0; round < 2; round++)
        if (rt_epoll_poller.sleep_mode(&ms[i]) == RT_SLEEP_POLLER)
            rt_epoll_poller.sleep(&ms[i], 0, &ready);
}
static void m0_sleeps(void) {
    sleeps(0);
}
static void m1_sleeps(void) {
    sleeps(1);
}
static void nobody_sleeps(void) {
    model_assert(rt_epoll_poller.sleep_mode(&ms[0]) == RT_SLEEP_POLLER);
}

const struct model_case model_cases[] = {
    MODEL_CASE("epoll.read", a_reader, one_read, one_read, 3, 2, m0, sys_write),
    MODEL_CASE("epoll.sleepers", two_ps, nobody_sleeps, NULL, 0, 0, m0_sleeps, m1_sleeps),
    MODEL_CASE("epoll.foreign", start, one_read, one_read, 2, 2, m0, foreign_reads, sys_write),
    MODEL_CASE("epoll.called_away", start, one_read, one_read, 2, 1, m0, foreign_reads,
               spawn_and_write),
    MODEL_CASE("epoll.one_of_two", two_ps, one_read, one_read, 1, 1, m0, m1, foreign_reads,
               sys_write),
    MODEL_CASE("epoll.taken", a_reader_and_a_spare, one_read, one_read, 1, 1, m0, m1, take_once,
               sys_write),
    MODEL_CASE("epoll.taken_from_a_hog", one_who_asks_and_a_spare, one_read, one_read, 1, 1, m0, m1,
               take, sys_write),
    MODEL_CASE("epoll.foreign_taken", a_hog_and_a_spare, one_read, one_read, 1, 1, m0, m1,
               take_then_write, foreign_reads),
    MODEL_CASE("epoll.closed", a_reader_to_be_closed, closed, closed, 1, 1, m0, closes),
    {0},
};
