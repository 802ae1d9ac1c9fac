/* Deadlines and cancels of I/O, and what they leave behind. */
#include "net.h"

#include <pthread.h>
#include <sys/ioctl.h>

static go_waitgroup wg;
static go_scope *shared; /* stays entered until its canceller is through and makes this NULL */

static void deadline(void *arg) {
    (void)arg;
    int fd[2];
    char c;
    net_pair(fd);
    go_scope s;
    int64_t end = go_now() + 20 * GO_MILLISECOND;
    go_scope_enter(&s, end);
    T_EQ(go_read(fd[0], &c, 1), -ETIMEDOUT);
    T_ASSERT(go_now() >= end);
    T_EQ(go_write(fd[0], "x", 1), -ETIMEDOUT); /* it stays so */
    T_EQ(go_poll(fd[0], POLLOUT), -ETIMEDOUT);
    T_EQ(go_poll_until(fd[0], POLLOUT, GO_FOREVER), -ECANCELED);
    T_EQ(go_accept(fd[0], NULL, NULL), -ETIMEDOUT);
    T_EQ(go_dial("tcp", "127.0.0.1:1"), -ETIMEDOUT);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    T_EQ(go_write(fd[1], "x", 1), 1);
    T_EQ(go_read(fd[0], &c, 1), 1);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}
Test(late, scope_deadline) {
    RUN(deadline);
}

static void cancelled(void *arg) {
    char c;
    go_scope s;
    go_scope_enter(&s, GO_FOREVER);
    __atomic_store_n(&shared, &s, __ATOMIC_RELEASE);
    T_EQ(go_read(net_int(arg), &c, 1), -ECANCELED);
    T_EQ(go_read(net_int(arg), &c, 1), -ECANCELED);
    T_EQ(go_poll_until(net_int(arg), POLLIN, go_now() + GO_SECOND), -ECANCELED);
    while (__atomic_load_n(&shared, __ATOMIC_ACQUIRE))
        go_yield();
    T_EQ(go_scope_leave(&s), -ECANCELED);
}

static void cancel(void *arg) {
    (void)arg;
    int fd[2];
    net_pair(fd);
    for (int i = 0; i < 100; i++) {
        T_EQ(go_waitgroup_spawn(&wg, cancelled, net_ptr(fd[0])), 0);
        if (i % 2)
            net_wait_parked(1);
        while (!__atomic_load_n(&shared, __ATOMIC_ACQUIRE))
            go_yield();
        go_scope_cancel(shared);
        __atomic_store_n(&shared, NULL, __ATOMIC_RELEASE);
        T_EQ(go_waitgroup_wait(&wg), 0);
    }
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}
Test(late, cancel) {
    RUN(cancel);
}

static void own_deadline(void *arg) {
    (void)arg;
    int fd[2];
    net_pair(fd);
    T_EQ(go_poll_until(fd[0], POLLIN, GO_NOW), -ETIMEDOUT);
    T_EQ(go_poll_until(fd[0], POLLIN, go_now() + 5 * GO_MILLISECOND), -ETIMEDOUT);
    T_EQ(go_poll_until(fd[0], POLLOUT, GO_NOW), POLLOUT);
    T_EQ(go_poll(fd[0], POLLIN | POLLOUT), POLLOUT);
    go_scope s;
    go_scope_enter(&s, go_now() + 5 * GO_MILLISECOND);
    T_EQ(go_poll_until(fd[0], POLLIN, go_now() + GO_MINUTE), -ECANCELED);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    T_EQ(go_write(fd[1], "x", 1), 1);
    T_EQ(go_poll_until(fd[0], POLLIN, go_now() + GO_MINUTE), POLLIN);
    T_EQ(go_close(fd[1]), 0);
    T_EQ(go_poll(fd[0], POLLRDHUP), POLLRDHUP);
    T_EQ(go_close(fd[0]), 0);
}
Test(late, poll_until) {
    RUN(own_deadline);
}

/* A wait that timed out leaves its poll in flight, and the next one relies on it. */
enum { TIMEOUTS = 10000 };

static void times_out(void *arg) {
    char c;
    for (long i = 0, n = T_SCALE(TIMEOUTS) / 4; i < n; i++) {
        go_scope s;
        go_scope_enter(&s, go_now() + 50 * GO_MICROSECOND);
        T_EQ(go_read(net_int(arg), &c, 1), -ETIMEDOUT);
        T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    }
}

static void stale_polls(void *arg) {
    (void)arg;
    int fd[2];
    net_pair(fd);
    for (int i = 0; i < 4; i++)
        T_EQ(go_waitgroup_spawn(&wg, times_out, net_ptr(fd[0])), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    int rings, polls = net_polls_in_flight(&rings);
    T_ASSERT(polls <= 2 * rings + 2, "%d on %d rings", polls, rings);
    T_EQ(go_write(fd[1], "abcd", 4), 4);
    char buf[4];
    T_EQ(go_read(fd[0], buf, 4), 4);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}
Test(late, stale_polls_do_not_accumulate) {
    RUN(stale_polls);
}

/* ---- data, deadlines and cancels at once ----------------------------------------------------- */

enum { RACERS = 3 };

static struct racer {
    go_mutex lock; /* while a canceller holds it an open scope stays entered */
    bool open;
    go_scope scope;
} racers[RACERS];

static struct {
    int fd[2];
    bool over;
    long bytes, sum;      /* that arrived */
    long late, cancelled; /* calls that ended so */
} race;

static void race_enter(struct racer *r) {
    go_mutex_lock(&r->lock);
    go_scope_enter(&r->scope, go_now() + 100 * GO_MICROSECOND);
    r->open = true;
    go_mutex_unlock(&r->lock);
}

/* After a call that returned n. */
static void race_leave(struct racer *r, ssize_t n) {
    go_mutex_lock(&r->lock);
    r->open = false;
    int end = go_scope_leave(&r->scope);
    go_mutex_unlock(&r->lock);
    T_ASSERT(n >= 0 || n == end || (n == -ETIMEDOUT && end == -ECANCELED), "%zd, %d", n, end);
    if (n < 0)
        __atomic_fetch_add(n == -ETIMEDOUT ? &race.late : &race.cancelled, 1, __ATOMIC_RELAXED);
}

static void race_canceller(void *arg) {
    (void)arg;
    for (int i = 0; !__atomic_load_n(&race.over, __ATOMIC_ACQUIRE); i++) {
        struct racer *r = &racers[i % RACERS];
        go_mutex_lock(&r->lock);
        if (r->open)
            go_scope_cancel(&r->scope);
        go_mutex_unlock(&r->lock);
        T_EQ(go_sleep(i * 37 % 120 * GO_MICROSECOND), 0);
    }
}

/* Enough of both have ended a call. */
static bool race_is_rich(void) {
    return __atomic_load_n(&race.late, __ATOMIC_RELAXED) >= 20 &&
           __atomic_load_n(&race.cancelled, __ATOMIC_RELAXED) >= 20;
}

static void racing_reader(void *arg) {
    struct racer *r = arg;
    for (ssize_t n = -1; n != 0;) {
        unsigned char c[2];
        struct iovec iov[] = {{&c[0], 1}, {&c[1], 1}};
        race_enter(r);
        n = r == racers ? go_readv(race.fd[0], iov, 2) : go_read(race.fd[0], c, 2);
        race_leave(r, n);
        for (ssize_t i = 0; i < n; i++)
            __atomic_fetch_add(&race.sum, c[i], __ATOMIC_RELAXED);
        __atomic_fetch_add(&race.bytes, n > 0 ? n : 0, __ATOMIC_RELAXED);
    }
}

/* What arrived is reported, or stays for the next reader. */
static void readers_race(void *arg) {
    (void)arg;
    long n, sum = 0, most = T_SCALE(3000);
    go_waitgroup canceller = {0};
    memset(&race, 0, sizeof race);
    net_pair(race.fd);
    for (int i = 0; i < RACERS; i++)
        T_EQ(go_waitgroup_spawn(&wg, racing_reader, &racers[i]), 0);
    T_EQ(go_waitgroup_spawn(&canceller, race_canceller, NULL), 0);
    for (n = 0; n < most || !race_is_rich(); n++) {
        unsigned char c = (unsigned char)(n % 251);
        T_EQ(go_write(race.fd[1], &c, 1), 1);
        sum += c;
        if (n % 7 == 0)
            T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
    }
    T_EQ(go_close(race.fd[1]), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    __atomic_store_n(&race.over, true, __ATOMIC_RELEASE);
    T_EQ(go_waitgroup_wait(&canceller), 0);
    T_EQ(race.bytes, n);
    T_EQ(race.sum, sum);
    T_EQ(go_close(race.fd[0]), 0);
}
Test(late, nothing_is_lost_when_data_deadline_and_cancel_race) {
    RUN(readers_race);
}

/* What went out is reported: the next write goes on behind it. */
static void racing_writer(void *arg) {
    static unsigned char text[251 * 40];
    (void)arg;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (unsigned char)(i % 251);
    for (long at = 0, k = 0, most = T_SCALE(1000000); at < most || !race_is_rich(); k++) {
        unsigned char *from = text + at % 251;
        struct iovec iov[] = {{from, 100}, {from + 100, 8000}};
        race_enter(racers);
        ssize_t n = k % 3 == 0   ? go_writev(race.fd[1], iov, 2)
                    : k % 3 == 1 ? go_send(race.fd[1], from, 8100, 0)
                                 : go_write(race.fd[1], from, 8100);
        race_leave(racers, n);
        at += n > 0 ? n : 0;
        race.sum = at; /* of the writer here */
    }
    T_EQ(go_close(race.fd[1]), 0);
}

static void writers_race(void *arg) {
    (void)arg;
    static unsigned char buf[5000];
    ssize_t n;
    go_waitgroup canceller = {0};
    memset(&race, 0, sizeof race);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, race.fd), 0); /* TCP is slow with little room */
    T_EQ(setsockopt(race.fd[1], SOL_SOCKET, SO_SNDBUF, &(int){1}, sizeof(int)), 0);
    T_EQ(go_waitgroup_spawn(&wg, racing_writer, NULL), 0);
    T_EQ(go_waitgroup_spawn(&canceller, race_canceller, NULL), 0);
    for (int k = 0; (n = go_read(race.fd[0], buf, sizeof buf)) > 0; k++) {
        for (ssize_t i = 0; i < n; i++, race.bytes++)
            T_EQ(buf[i], race.bytes % 251);
        if (k % 5 == 0)
            T_EQ(go_sleep(k % 7 * 50 * GO_MICROSECOND), 0);
    }
    T_EQ(n, 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    __atomic_store_n(&race.over, true, __ATOMIC_RELEASE);
    T_EQ(go_waitgroup_wait(&canceller), 0);
    T_EQ(race.bytes, race.sum);
    T_EQ(go_close(race.fd[0]), 0);
}
Test(late, what_is_written_goes_out_once_when_it_races_with_cancels) {
    RUN(writers_race);
}

/* ---- a part of what MSG_WAITALL wants -------------------------------------------------------- */

static struct part {
    int fd, expected;
    bool message;
    int entered, refused, through, done;
    go_scope scope;
} part;

static ssize_t recv_all(struct part *p, char *buf, size_t n) {
    struct iovec iov = {buf, n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    return p->message ? go_recvmsg(p->fd, &msg, MSG_WAITALL) : go_recv(p->fd, buf, n, MSG_WAITALL);
}

static void take_part(void *arg) {
    struct part *p = arg;
    char buf[10];
    ssize_t n;
    for (int64_t ns = 5 * GO_MILLISECOND;; ns *= 2) { /* until the part is there in time */
        go_scope_enter(&p->scope, p->expected == -ETIMEDOUT ? go_now() + ns : GO_FOREVER);
        __atomic_store_n(&p->entered, 1, __ATOMIC_RELEASE);
        n = recv_all(p, buf, sizeof buf);
        if (n != -ETIMEDOUT)
            break;
        T_EQ(go_scope_leave(&p->scope), -ETIMEDOUT);
    }
    T_EQ(n, 4);
    T_EQ(memcmp(buf, "abcd", 4), 0);
    T_EQ(recv_all(p, buf, sizeof buf), p->expected);
    __atomic_store_n(&p->refused, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&p->through, __ATOMIC_ACQUIRE))
        go_yield(); /* a sleep would be refused */
    T_EQ(go_scope_leave(&p->scope), p->expected);
    T_EQ(recv_all(p, buf, 6), 6);
    T_EQ(memcmp(buf, "efghij", 6), 0);
    __atomic_store_n(&p->done, 1, __ATOMIC_RELEASE);
}

static void *take_part_thread(void *arg) {
    take_part(arg);
    return NULL;
}

/* It has taken what was there, and waits for the rest. */
static void await_part(int fd) {
    for (int n = 1; n > 0; go_sleep(100 * GO_MICROSECOND))
        T_EQ(ioctl(fd, FIONREAD, &n), 0);
    net_wait_parked(1);
}

static void parts(void *arg) {
    (void)arg;
    for (int i = 0; i < 16; i++) {
        bool cancels = i & 1, thread = i & 4;
        int fd[2];
        pthread_t t;
        net_pair(fd);
        part = (struct part){
            .fd = fd[0], .expected = cancels ? -ECANCELED : -ETIMEDOUT, .message = i & 2};
        if (i & 8)
            T_EQ(go_write(fd[1], "abcd", 4), 4);
        if (thread)
            T_EQ(pthread_create(&t, NULL, take_part_thread, &part), 0);
        else
            SPAWN(take_part, &part);
        if (!(i & 8)) /* when it has parked for the first, or not yet */
            T_EQ(go_write(fd[1], "abcd", 4), 4);
        if (cancels) {
            net_await(&part.entered);
            await_part(fd[0]);
            go_scope_cancel(&part.scope);
        }
        __atomic_store_n(&part.through, 1, __ATOMIC_RELEASE);
        net_await(&part.refused);
        T_EQ(go_write(fd[1], "efghij", 6), 6);
        net_await(&part.done);
        if (thread)
            T_EQ(pthread_join(t, NULL), 0); /* it is about to end */
        T_EQ(go_close(fd[0]), 0);
        T_EQ(go_close(fd[1]), 0);
    }
}
Test(late, waitall_returns_the_part_that_came_before_the_end) {
    RUN(parts);
}

/* ---- the buffer of a call that was late ------------------------------------------------------ */

enum { LENT = 64 };
enum { READ, READV, RECV, RECVFROM, RECVMSG, RECV_ALL, HOWS };
static const char early_bytes[] = "what comes right behind the end of the call is for the next one";

static struct loan {
    int fd, peer, how, expected;
    int entered, through, done;
    go_scope scope;
} loan;
static int64_t loan_patience = 2 * GO_MILLISECOND;

static ssize_t take_into(const struct loan *l, char *buf) {
    struct iovec iov[] = {{buf, 9}, {buf + 9, LENT - 9}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    switch (l->how) {
    case READ:
        return go_read(l->fd, buf, LENT);
    case READV:
        return go_readv(l->fd, iov, 2);
    case RECV:
        return go_recv(l->fd, buf, LENT, 0);
    case RECVFROM:
        return go_recvfrom(l->fd, buf, LENT, 0, NULL, NULL);
    case RECVMSG:
        return go_recvmsg(l->fd, &msg, 0);
    default:
        return go_recv(l->fd, buf, LENT, MSG_WAITALL);
    }
}

/* One whole wait beside it: what the engine has in flight has come up. */
static void wait_for_all(const struct loan *l) {
    int n = 0;
    T_EQ(go_poll(l->fd, POLLIN), POLLIN);
    T_EQ(go_sleep(200 * GO_MICROSECOND), 0);
    T_EQ(ioctl(l->fd, FIONREAD, &n), 0);
    T_EQ(n, LENT);
}

static void is_late(void *arg) {
    struct loan *l = arg;
    char lent[LENT], own[LENT], mine[LENT];
    bool parked = false;
    memset(mine, '#', LENT);
    while (!parked) { /* a deadline that was over before shows nothing */
        memset(lent, '#', LENT);
        bool cancels = l->expected == -ECANCELED;
        uint64_t seq = rt_park_seq(rt_self());
        go_scope_enter(&l->scope, cancels ? GO_FOREVER : go_now() + loan_patience);
        __atomic_store_n(&l->entered, 1, __ATOMIC_RELEASE);
        T_EQ(take_into(l, lent), l->expected);
        parked = rt_park_seq(rt_self()) != seq;
        if (parked)
            T_EQ(write(l->peer, early_bytes, LENT), LENT);
        T_EQ(memcmp(lent, mine, LENT), 0);
        while (cancels && !__atomic_load_n(&l->through, __ATOMIC_ACQUIRE))
            go_yield();
        T_EQ(go_scope_leave(&l->scope), l->expected);
        loan_patience += parked ? 0 : loan_patience;
    }
    wait_for_all(l);
    T_EQ(memcmp(lent, mine, LENT), 0);
    T_EQ(take_into(l, own), LENT);
    T_EQ(memcmp(own, early_bytes, LENT), 0);
    T_EQ(memcmp(lent, mine, LENT), 0);
    __atomic_store_n(&l->done, 1, __ATOMIC_RELEASE);
}

static void *is_late_thread(void *arg) {
    is_late(arg);
    return NULL;
}

static void lend(int fd, int peer, int how, bool cancels, bool thread) {
    pthread_t t;
    loan = (struct loan){
        .fd = fd, .peer = peer, .how = how, .expected = cancels ? -ECANCELED : -ETIMEDOUT};
    if (thread)
        T_EQ(pthread_create(&t, NULL, is_late_thread, &loan), 0);
    else
        SPAWN(is_late, &loan);
    if (cancels) {
        net_await(&loan.entered);
        net_wait_parked(1);
        go_scope_cancel(&loan.scope);
        __atomic_store_n(&loan.through, 1, __ATOMIC_RELEASE);
    }
    net_await(&loan.done);
    if (thread)
        T_EQ(pthread_join(t, NULL), 0); /* it is about to end */
}

static void loans(void *arg) {
    (void)arg;
    for (int i = 0; i < HOWS * 4; i++) {
        int how = i / 4, fd[2];
        net_pair(fd);
        lend(fd[0], fd[1], how, i & 1, i & 2);
        T_EQ(go_close(fd[0]), 0);
        T_EQ(go_close(fd[1]), 0);
        T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
        lend(fd[0], fd[1], how, i & 1, i & 2);
        T_EQ(go_close(fd[0]), 0);
        T_EQ(go_close(fd[1]), 0);
        if (how > READV)
            continue;
        T_EQ(pipe(fd), 0);
        lend(fd[0], fd[1], how, i & 1, i & 2);
        T_EQ(go_close(fd[0]), 0);
        T_EQ(go_close(fd[1]), 0);
    }
}
Test(late, the_buffer_of_a_late_call_is_the_callers_and_the_next_read_has_all) {
    RUN(loans);
}

/* ---- a deadline that does not come ----------------------------------------------------------- */

static struct timed {
    int fd, done;
    long reads, got;
} timed;

/* Each of these reads waits: the other side writes when it sees the next one parked. */
static void read_parked(struct timed *t, long n) {
    char c;
    for (long i = 0; i < n; i++) {
        uint64_t seq = rt_park_seq(rt_self());
        T_EQ(go_read(t->fd, &c, 1), 1);
        T_ASSERT(rt_park_seq(rt_self()) != seq);
        __atomic_fetch_add(&t->got, 1, __ATOMIC_RELEASE);
    }
}

/* The generation counts what was put into a heap for this green thread. */
static void reads_in_time(void *arg) {
    struct timed *t = arg;
    struct rt_g *g = rt_self();
    go_scope s;
    int64_t deadline = go_now() + 60 * GO_MINUTE;
    uint32_t before = rt_load_relaxed(&g->timer_gen);
    go_scope_enter(&s, deadline);
    read_parked(t, t->reads);
    T_EQ(rt_load_relaxed(&g->timer_gen), before + 1); /* the first of them */
    T_EQ(rt_load_relaxed(&g->timer_when), deadline);
    T_EQ(go_scope_leave(&s), 0);
    for (long i = 0; i < t->reads; i++) { /* one that moves on with each read */
        go_scope_enter(&s, go_now() + 60 * GO_MINUTE);
        read_parked(t, 1);
        T_EQ(go_scope_leave(&s), 0);
    }
    read_parked(t, t->reads); /* none */
    T_EQ(rt_load_relaxed(&g->timer_gen), before + 1);
    T_EQ(rt_load_relaxed(&g->timer_when), deadline);
    go_scope_enter(&s, go_now() + 30 * GO_MINUTE); /* an earlier one does */
    read_parked(t, t->reads);
    T_EQ(go_scope_leave(&s), 0);
    T_EQ(rt_load_relaxed(&g->timer_gen), before + 2);
    __atomic_store_n(&t->done, 1, __ATOMIC_RELEASE);
}

static void in_time(void *arg) {
    (void)arg;
    int fd[2];
    net_pair(fd);
    timed = (struct timed){.fd = fd[0], .reads = T_SCALE(100)};
    SPAWN(reads_in_time, &timed);
    for (long i = 0; i < 4 * timed.reads; i++) {
        while (__atomic_load_n(&timed.got, __ATOMIC_ACQUIRE) != i)
            T_EQ(go_sleep(10 * GO_MICROSECOND), 0);
        net_wait_parked(1);
        T_EQ(go_write(fd[1], "x", 1), 1);
    }
    net_await(&timed.done);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}
Test(late, a_deadline_that_does_not_come_is_put_into_a_heap_once_for_all_reads) {
    RUN(in_time);
}

/* ---- the end of the runtime ------------------------------------------------------------------ */

/* Whoever is parked when main returns is cancelled, and may still clean up. */
static void left_behind(void *arg) {
    int fd = net_int(arg);
    char c;
    ssize_t n = go_read(fd, &c, 1);
    T_ASSERT(n == -ECANCELED || n == 0, "%zd", n); /* 0: the other one was quicker */
    T_EQ(go_close(fd), 0);
}

static void leaves(void *arg) {
    (void)arg;
    for (int i = 0; i < 20; i++) {
        int fd[2];
        net_pair(fd);
        SPAWN(left_behind, net_ptr(fd[0]));
        SPAWN(left_behind, net_ptr(fd[1]));
    }
}
Test(late, stop_cancels_io) {
    NET_ONE_HEAP();
    RUN(leaves);
    struct t_usage before = t_usage();
    for (int i = 0; i < 5; i++)
        RUN(leaves);
    T_SAME_USAGE(before);
}
