/* chan_fd.c: the descriptor is readable while the channel has something to receive, and not else.
 */
#include "t_unit.h"

#include "base/fault.h"
#include "sched/park.h"

#include <fcntl.h>
#include <poll.h>

static go_chan *new_chan(size_t capacity) {
    go_chan *c = go_chan_new(sizeof(int), capacity);
    T_ASSERT(c);
    return c;
}

static bool readable(go_chan *c) {
    struct pollfd p = {.fd = go_chan_fd(c), .events = POLLIN};
    T_ASSERT(p.fd >= 0);
    int n = poll(&p, 1, 0);
    T_ASSERT(n >= 0 && (n == 0 || p.revents == POLLIN), "%d, %#x", n, (unsigned)p.revents);
    return n == 1;
}

static void wait_readable(go_chan *c) {
    struct pollfd p = {.fd = go_chan_fd(c), .events = POLLIN};
    int n;
    do
        n = poll(&p, 1, -1);
    while (n < 0 && errno == EINTR);
    T_EQ(n, 1);
}

Test(chan_fd, follows_a_buffer) {
    go_chan *c = new_chan(2);
    int v;
    T_ASSERT(!readable(c));
    for (int i = 0; i < 3; i++) {
        T_EQ(go_chan_send(c, &i), 0);
        T_ASSERT(readable(c));
        T_EQ(go_chan_try_send(c, &i), 0);
        T_ASSERT(readable(c));
        T_EQ(go_chan_try_send(c, &i), -EAGAIN);
        T_EQ(go_chan_recv(c, &v), 0);
        T_ASSERT(readable(c));
        T_EQ(go_chan_try_recv(c, &v), 0);
        T_ASSERT(!readable(c));
        T_EQ(go_chan_try_recv(c, &v), -EAGAIN);
        T_ASSERT(!readable(c));
    }
    T_EQ(go_chan_send(c, &v), 0);
    T_EQ(go_chan_close(c), 0);
    for (int i = 0; i < 3; i++) {
        T_ASSERT(readable(c)); /* drained or not */
        T_EQ(go_chan_try_recv(c, &v), i ? -EPIPE : 0);
    }
    go_chan_free(c);
}

Test(chan_fd, shows_the_close_of_an_empty_channel) {
    for (size_t capacity = 0; capacity < 2; capacity++) {
        go_chan *c = new_chan(capacity);
        T_ASSERT(!readable(c));
        T_EQ(go_chan_close(c), 0);
        T_ASSERT(readable(c));
        go_chan_free(c);
    }
}

Test(chan_fd, may_come_late) {
    go_chan *full = new_chan(1), *closed = new_chan(0);
    T_EQ(go_chan_send(full, &(int){1}), 0);
    T_ASSERT(readable(full));
    T_EQ(go_chan_close(closed), 0);
    T_ASSERT(readable(closed));
    go_chan_free(full);
    go_chan_free(closed);
}

Test(chan_fd, is_one_and_goes_with_the_channel) {
    struct t_usage before = t_usage();
    go_chan *c = new_chan(0), *without = new_chan(0);
    int fd = go_chan_fd(c);
    T_EQ(go_chan_fd(c), fd);
    T_EQ(t_usage().fds, before.fds + 1);
    T_ASSERT(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    go_chan_free(c);
    go_chan_free(without);
    T_EQ(fcntl(fd, F_GETFD), -1);
    T_SAME_USAGE(before);
}

enum { ASKERS = 4 };
static go_chan *shared;
static int shared_fd[ASKERS], here;

static void *ask(void *arg) {
    rt_fetch_add(&here, 1);
    while (rt_load_acquire(&here) < ASKERS)
        sched_yield(); /* all at once, or the first has it long before the others come */
    shared_fd[t_int(arg)] = go_chan_fd(shared);
    return NULL;
}

Test(chan_fd, threads_that_ask_at_once_get_the_same) {
    struct t_usage before = {0};
    for (int round = 0; round < (int)T_SCALE(100); round++) {
        shared = new_chan(1);
        here = 0;
        t_threads(ASKERS, ask);
        for (int i = 0; i < ASKERS; i++)
            T_EQ(shared_fd[i], shared_fd[0]);
        go_chan_free(shared);
        if (round == 0) /* libc has warmed up */
            before = t_usage();
    }
    T_SAME_USAGE(before);
}

Test(chan_fd, no_descriptor_is_an_error_and_no_more) {
    go_chan *c = new_chan(1);
    int v = 4;
    rt_fault_arm(RT_FAULT_EVENTFD, 1, false, EMFILE);
    T_EQ(go_chan_fd(c), -EMFILE);
    rt_fault_disarm();
    T_EQ(go_chan_send(c, &v), 0);
    T_ASSERT(readable(c));
    go_chan_free(c);
    T_DIES(SIGABRT, "gort: go_chan_fd: NULL channel", go_chan_fd(NULL));
}

/* ---- senders that wait ----------------------------------------------------------------------- */

struct sender {
    go_chan *c, *other;
    go_scope scope;
    int expected, done;
};

static void send_waiting(void *arg) {
    struct sender *s = arg;
    go_scope_enter(&s->scope, GO_FOREVER);
    T_EQ(go_chan_send(s->c, &(int){6}), s->expected);
    rt_store_release(&s->done, 1);
    while (rt_load_acquire(&s->done) == 1)
        go_yield();
    go_scope_leave(&s->scope);
    rt_store_release(&s->done, 3);
}

static void select_waiting(void *arg) {
    struct sender *s = arg;
    struct go_case k[] = {GO_CASE_SEND(s->c, &(int){6}), GO_CASE_RECV(s->other, NULL),
                          GO_CASE_RECV(s->c, NULL)};
    T_EQ(go_select(k, 3, GO_FOREVER), s->expected);
    rt_store_release(&s->done, 3);
}

Test(chan_fd, a_sender_that_waits_makes_it_readable) {
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < (int)T_SCALE(100); i++) {
        struct sender s = {.c = new_chan(0), .expected = i % 2 ? -ECANCELED : 0};
        int v = 0;
        T_ASSERT(!readable(s.c));
        T_SPAWN(send_waiting, &s);
        wait_readable(s.c);
        T_ASSERT(readable(s.c));
        if (i % 2)
            go_scope_cancel(&s.scope);
        else
            T_EQ(go_chan_try_recv(s.c, &v), 0);
        T_EQ(v, i % 2 ? 0 : 6);
        T_AWAIT(rt_load_acquire(&s.done) == 1);
        T_ASSERT(!readable(s.c));
        rt_store_release(&s.done, 2);
        T_AWAIT(rt_load_acquire(&s.done) == 3);
        go_chan_free(s.c);
    }
    t_stop();
}

Test(chan_fd, a_select_that_offers_makes_it_readable_until_it_took_another) {
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < (int)T_SCALE(100); i++) {
        struct sender s = {.c = new_chan(0), .other = new_chan(0), .expected = i % 3};
        int v = 0;
        T_ASSERT(!readable(s.c));
        T_SPAWN(select_waiting, &s);
        wait_readable(s.c);
        if (i % 3 == 0)
            T_EQ(go_chan_recv(s.c, &v), 0);
        else
            T_EQ(go_chan_send(i % 3 == 1 ? s.other : s.c, &v), 0);
        T_AWAIT(rt_load_acquire(&s.done));
        T_ASSERT(!readable(s.c));
        go_chan_free(s.c);
        go_chan_free(s.other);
    }
    t_stop();
}

static void recv_parked(void *arg) {
    int v;
    T_EQ(go_chan_recv(arg, &v), 0);
    T_EQ(v, 3);
}

Test(chan_fd, what_goes_straight_to_a_receiver_does_not_show) {
    go_chan *c = new_chan(1);
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < 20; i++) {
        uint64_t parks = t_stats().parks;
        T_SPAWN(recv_parked, c);
        T_AWAIT(t_stats().parks > parks);
        T_ASSERT(!readable(c));
        T_EQ(go_chan_send(c, &(int){3}), 0);
        T_AWAIT(t_stats().tasks_live == 0);
        T_ASSERT(!readable(c));
    }
    t_stop();
    go_chan_free(c);
}

/* ---- the loop of a host ---------------------------------------------------------------------- */

enum { PRODUCERS = 3 };
static int each;

static void produce(void *arg) {
    for (int i = 1; i <= each; i++)
        T_EQ(go_chan_send(arg, &i), 0);
}

static void host_loop(go_chan *c) {
    int v, r;
    int64_t got = 0, sum = 0;
    while (got < (int64_t)PRODUCERS * each) {
        wait_readable(c);
        while ((r = go_chan_try_recv(c, &v)) == 0) {
            got++;
            sum += v;
        }
        T_EQ(r, -EAGAIN);
    }
    T_EQ(sum, PRODUCERS * ((int64_t)each * (each + 1) / 2));
    T_ASSERT(!readable(c));
}

Test(chan_fd, a_host_loop_misses_nothing, .timeout = 120) {
    each = (int)T_SCALE(3000);
    T_EQ(go_start(NULL), 0);
    for (size_t capacity = 0; capacity < 10; capacity += 3) {
        go_chan *c = new_chan(capacity);
        T_EQ(go_chan_fd(c) < 0, 0);
        for (int i = 0; i < PRODUCERS; i++)
            T_SPAWN(produce, c);
        host_loop(c);
        T_AWAIT(t_stats().tasks_live == 0);
        go_chan_free(c);
    }
    t_stop();
}
