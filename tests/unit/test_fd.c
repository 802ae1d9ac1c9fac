/* The descriptor table from inside: slots, hints, generations, and the inbox of a ring. */
#include "t_unit.h"

#include "base/fault.h"
#include "base/lock.h"
#include "netpoll/fd.h"
#include "netpoll/inbox.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>


Test(fd, masks_belong_to_directions) {
    const unsigned in = 1u << RT_IN, out = 1u << RT_OUT;
    T_EQ(rt_fd_dirs(POLLIN), in);
    T_EQ(rt_fd_dirs(POLLOUT), out);
    T_EQ(rt_fd_dirs(POLLIN | POLLOUT), in | out);
    T_EQ(rt_fd_dirs(POLLPRI | POLLRDHUP), in);
    T_EQ(rt_fd_dirs(POLLWRBAND), out);
    T_EQ(rt_fd_dirs(0), in); /* errors and hang-ups alone: somewhere they must wait */
}

static void table(void *arg) {
    (void)arg;
    int fd[2];
    char c;
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    T_EQ(go_write(fd[0], "x", 1), 1);
    struct rt_fd *s = rt_fd_at(fd[0]);
    T_ASSERT(s && rt_fd_at(fd[0]) == s && rt_fd_at(fd[1]) != s);
    T_ASSERT(rt_fd_at(-1) == NULL && rt_fd_at(INT32_MAX) == NULL);
    uint32_t gen = s->gen;
    T_EQ(go_read(fd[1], &c, 1), 1);
    T_EQ(s->gen, gen);
    T_EQ(go_close(fd[0]), 0);
    T_ASSERT(s->gen != gen && s->flags == 0 && rt_fd_at(fd[0]) == s);
    T_EQ(go_close(fd[1]), 0);
}
Test(fd, slots_stay_and_generations_move) {
    T_RUN(table, NULL);
}

/* A descriptor far out, in a part of the table that was never needed. */
static void far_out(void *arg) {
    int number = *(int *)arg;
    char c;
    T_EQ(go_read(number - 1, &c, 1), -EBADF);
    T_ASSERT(rt_fd_at(number) == NULL); /* no memory for numbers that mean nothing */
    rt_fault_arm(RT_FAULT_MMAP, 1, true, ENOMEM);
    T_EQ(go_read(number, &c, 1), -ENOMEM);
    rt_fault_disarm();
    T_EQ(go_read(number, &c, 1), 0);
    T_ASSERT(rt_fd_at(number) != NULL);
    T_EQ(go_close(number), 0);
}
Test(fd, table_grows_where_it_is_needed) {
    int number = 3 * RT_FD_CHUNK + 7;
    struct rlimit limit = {(rlim_t)number + 10, (rlim_t)number + 10};
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        T_SKIP("cannot have %d descriptors", number);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    T_EQ(dup2(null, number), number);
    T_RUN(far_out, &number);
}

/* ---- the hint that there is nothing to read -------------------------------------------------- */

static void hints(void *arg) {
    (void)arg;
    struct rt_fd_op op;
    int fd = go_listen("tcp", "127.0.0.1:0");
    T_ASSERT(fd >= 0);
    T_EQ(rt_fd_adopt(fd, RT_FD_OURS | RT_FD_STREAM), 0);
    T_EQ(rt_fd_begin(&op, fd), 0);
    T_ASSERT(rt_fd_fresh(&op, RT_IN));
    rt_fd_drained(&op, RT_IN);
    T_ASSERT(!rt_fd_fresh(&op, RT_IN) && rt_fd_fresh(&op, RT_OUT));
    struct rt_glist none = {0};
    rt_fd_event(op.slot, 1u << RT_OUT, false, &none);
    T_ASSERT(!rt_fd_fresh(&op, RT_IN));
    rt_fd_event(op.slot, 1u << RT_IN, false, &none); /* an event makes the hint void */
    T_ASSERT(rt_fd_fresh(&op, RT_IN));
    /* One between the try and the hint, too. */
    rt_fd_event(op.slot, 1u << RT_IN, false, &none);
    rt_fd_drained(&op, RT_IN);
    T_ASSERT(rt_fd_fresh(&op, RT_IN));
    /* After the end has been seen, nothing is trusted any more. */
    rt_fd_event(op.slot, 1u << RT_IN, true, &none);
    T_ASSERT(rt_fd_fresh(&op, RT_IN));
    rt_fd_drained(&op, RT_IN);
    T_ASSERT(rt_fd_fresh(&op, RT_IN));
    /* Nor on what has borders, or is not known. */
    T_EQ(rt_fd_adopt(fd, RT_FD_OURS), 0);
    T_ASSERT(rt_fd_fresh(&op, RT_IN));
    rt_fd_drained(&op, RT_IN);
    T_ASSERT(rt_fd_fresh(&op, RT_IN));
    rt_fd_end(&op);
    T_EQ(none.n, 0);
    T_EQ(go_close(fd), 0);
}
Test(fd, dry_holds_until_the_next_event) {
    T_RUN(hints, NULL);
}

/* A busy number gets there in days: no count of events may look like a hint that nobody left. */
static void round_the_clock(void *arg) {
    (void)arg;
    struct rt_fd_op op;
    struct rt_glist none = {0};
    int fd = go_listen("tcp", "127.0.0.1:0");
    T_EQ(rt_fd_adopt(fd, RT_FD_OURS | RT_FD_STREAM), 0);
    T_EQ(rt_fd_begin(&op, fd), 0);
    T_ASSERT(rt_fd_fresh(&op, RT_IN));
    rt_fd_drained(&op, RT_IN); /* a hint of one round ago */
    uint32_t then = op.slot->edge[RT_IN];
    for (uint32_t edge = UINT32_MAX - 3, i = 0; i < 6; i++) {
        if (i == 0)
            op.slot->edge[RT_IN] = edge;
        rt_fd_event(op.slot, 1u << RT_IN, false, &none);
        T_ASSERT(rt_fd_fresh(&op, RT_IN));
    }
    op.slot->edge[RT_IN] = then;
    T_ASSERT(rt_fd_fresh(&op, RT_IN));
    rt_fd_end(&op);
    T_EQ(go_close(fd), 0);
}
Test(fd, the_count_of_events_may_go_round) {
    T_RUN(round_the_clock, NULL);
}

/* ---- a wait that no event ends --------------------------------------------------------------- */

static int napped;

static void nap_for_ever(void *fd) {
    struct rt_fd_op op;
    int64_t ns = T_NEVER;
    T_EQ(rt_fd_begin(&op, t_int(fd)), 0);
    napped = rt_fd_back_off(&op, &ns);
    rt_fd_end(&op);
}

static bool waited_for(struct rt_fd *s) {
    rt_lock(&s->lock);
    bool yes = s->waiters != NULL;
    rt_unlock(&s->lock);
    return yes;
}

static void naps(void *arg) {
    (void)arg;
    static go_waitgroup wg;
    int fd = go_listen("udp", "127.0.0.1:0");
    struct rt_glist none = {0};
    unsigned n = 1;
    T_EQ(go_waitgroup_spawn(&wg, nap_for_ever, t_ptr(fd)), 0);
    T_AWAIT(rt_fd_at(fd) && waited_for(rt_fd_at(fd)));
    struct rt_fd *s = rt_fd_at(fd);
    rt_lock(&s->lock);
    rt_fd_event(s, RT_BOTH, false, &none);
    T_EQ(rt_fd_wanted(s, RT_BOTH, &n), 0); /* an engine is asked for nothing */
    T_EQ(n, 0);
    T_ASSERT(none.n == 0 && s->waiters);
    rt_unlock(&s->lock);
    T_EQ(go_close(fd), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(napped, -EBADF);
}
Test(fd, a_nap_ends_with_its_descriptor_and_with_no_event) {
    T_RUN(naps, NULL);
}

static void short_naps(void *arg) {
    (void)arg;
    struct rt_fd_op op;
    int64_t ns = 1;
    int fd = go_listen("udp", "127.0.0.1:0");
    T_EQ(rt_fd_begin(&op, fd), 0);
    T_EQ(rt_fd_back_off(&op, &ns), 0);
    T_EQ(ns, 2);
    T_ASSERT(!op.slot->waiters && op.held);
    go_scope scope;
    ns = T_NEVER;
    go_scope_enter(&scope, go_now() + 1);
    T_EQ(rt_fd_back_off(&op, &ns), -ETIMEDOUT);
    T_EQ(ns, GO_SECOND);
    T_EQ(go_scope_leave(&scope), -ETIMEDOUT);
    go_scope_enter(&scope, GO_FOREVER);
    go_scope_cancel(&scope);
    T_EQ(rt_fd_back_off(&op, &ns), -ECANCELED);
    T_EQ(go_scope_leave(&scope), -ECANCELED);
    T_ASSERT(!op.slot->waiters);
    rt_fd_end(&op);
    T_EQ(go_close(fd), 0);
}
Test(fd, a_nap_ends_with_its_time_and_with_its_scope) {
    T_RUN(short_naps, NULL);
}

static void old_generation(void *arg) {
    (void)arg;
    struct rt_fd_op op;
    int fd = go_listen("udp", "127.0.0.1:0");
    T_EQ(rt_fd_begin(&op, fd), 0);
    rt_fd_fresh(&op, RT_IN);
    T_EQ(rt_fd_adopt(fd, RT_FD_OURS), 0); /* the number has changed hands */
    T_EQ(rt_fd_wait(&op, POLLIN, GO_FOREVER, RT_WHY_IO_READ), -EBADF);
    T_EQ(rt_fd_begin(&op, fd), 0);
    rt_fd_fresh(&op, RT_IN);
    struct rt_glist none = {0};
    rt_fd_event(op.slot, 1u << RT_IN, false, &none);
    T_EQ(rt_fd_wait(&op, POLLIN, GO_FOREVER, RT_WHY_IO_READ), 0); /* an event came: try again */
    rt_fd_end(&op);
    T_EQ(go_close(fd), 0);
}
Test(fd, wait_refuses_another_generation_and_a_missed_event) {
    T_RUN(old_generation, NULL);
}

/* ---- inbox ----------------------------------------------------------------------------------- */

static uint64_t take_all(struct rt_inbox *b) {
    uint64_t seen = 0, letter;
    while (rt_inbox_take(b, &letter)) {
        T_ASSERT(!(seen & UINT64_C(1) << letter), "twice: %d", (int)letter);
        seen |= UINT64_C(1) << letter;
        rt_inbox_done(b);
    }
    T_ASSERT(!rt_inbox_any(b));
    return seen;
}

Test(fd, inbox_gives_each_letter_once_and_grows) {
    struct rt_inbox b;
    uint64_t letter;
    rt_inbox_init(&b);
    T_EQ(rt_inbox_post(&b, 1), -ESHUTDOWN);
    rt_inbox_open(&b);
    T_ASSERT(!rt_inbox_any(&b));
    T_ASSERT(!rt_inbox_take(&b, &letter));
    for (uint64_t i = 0; i < 60; i++)
        T_EQ(rt_inbox_post(&b, i), 0);
    T_EQ(take_all(&b), (UINT64_C(1) << 60) - 1);
    rt_inbox_free(&b);
    rt_inbox_open(&b);
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM);
    for (uint64_t i = 0; i < RT_INBOX_FIRST; i++)
        T_EQ(rt_inbox_post(&b, i), 0);
    T_EQ(rt_inbox_post(&b, 1), -ENOMEM);
    T_EQ(rt_inbox_keep(&b, 1), -ENOMEM);
    rt_fault_disarm();
    T_EQ(rt_inbox_post(&b, 20), 0);
    T_EQ(take_all(&b), (UINT64_C(1) << RT_INBOX_FIRST) - 1 + (UINT64_C(1) << 20));
    rt_inbox_free(&b);
}

/* Somebody waits for each letter: what the owner takes and cannot serve must not be lost because
 * others have filled the inbox meanwhile and there is no memory. */
Test(fd, inbox_takes_a_letter_back_without_memory) {
    struct rt_inbox b;
    uint64_t letter, posted;
    rt_inbox_init(&b);
    rt_inbox_open(&b);
    for (posted = 0; posted < RT_INBOX_FIRST; posted++)
        T_EQ(rt_inbox_post(&b, posted), 0);
    T_ASSERT(rt_inbox_take(&b, &letter));
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM);
    T_EQ(rt_inbox_post(&b, 60), -ENOMEM);
    rt_inbox_put_back(&b, letter);
    T_ASSERT(rt_inbox_take(&b, &letter));
    T_EQ(rt_inbox_post(&b, 60), -ENOMEM);
    rt_inbox_keep_taken(&b, letter);
    T_EQ(rt_inbox_post(&b, 60), -ENOMEM); /* it has its room still */
    T_ASSERT(rt_inbox_forget(&b, letter));
    T_EQ(rt_inbox_post(&b, letter), 0);
    rt_fault_disarm();
    T_EQ(rt_inbox_post(&b, posted++), 0); /* grows now, and loses nothing */
    T_EQ(take_all(&b), (UINT64_C(1) << posted) - 1);
    rt_inbox_free(&b);
}

/* A model of two sets beside it: what waits, and what is kept. */
Test(fd, inbox_keeps_what_it_shall_until_it_is_closed) {
    struct rt_inbox b;
    uint64_t waits = 0, kept = 0, letter, rng = 88172645463325252u;
    rt_inbox_init(&b);
    rt_inbox_open(&b);
    for (int i = 0; i < 20000; i++) {
        rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
        uint64_t l = rng >> 32 & 63, bit = UINT64_C(1) << l;
        bool there = (waits | kept) & bit;
        switch (rng % 5) {
        case 0:
            if (!there) {
                T_EQ(rt_inbox_post(&b, l), 0);
                waits |= bit;
            }
            break;
        case 1:
            if (!there) {
                T_EQ(rt_inbox_keep(&b, l), 0);
                kept |= bit;
            }
            break;
        case 2:
            T_EQ(rt_inbox_forget(&b, l), there);
            waits &= ~bit;
            kept &= ~bit;
            break;
        default:
            T_EQ(rt_inbox_take(&b, &letter), waits != 0);
            if (waits) {
                T_ASSERT(waits & UINT64_C(1) << letter);
                waits &= ~(UINT64_C(1) << letter);
                if (rng % 5 == 3) {
                    rt_inbox_keep_taken(&b, letter);
                    kept |= UINT64_C(1) << letter;
                } else {
                    rt_inbox_done(&b);
                }
            }
        }
        T_EQ(rt_inbox_any(&b), waits != 0);
    }
    for (uint64_t l = 0; l < 64; l++) /* all are somewhere */
        if (!((waits | kept) & UINT64_C(1) << l))
            T_EQ(l % 2 ? rt_inbox_post(&b, l) : rt_inbox_keep(&b, l), 0);
    rt_inbox_close(&b);
    T_EQ(rt_inbox_post(&b, 1), -ESHUTDOWN);
    T_EQ(take_all(&b), UINT64_MAX); /* for the heir */
    rt_inbox_free(&b);
}

/* What was in flight when the owner went is noted: who closes a file asks for it. */
Test(fd, inbox_knows_what_it_was_left_with) {
    struct rt_inbox b;
    uint64_t letter;
    const uint64_t fd7 = 7, fd8 = 8, fd9 = 9, other = UINT64_C(1) << 40, mask = 0xff;
    rt_inbox_init(&b);
    rt_inbox_open(&b);
    T_EQ(rt_inbox_post_or_note(&b, fd7), 0);
    T_ASSERT(!rt_inbox_want(&b, fd8, mask) && !rt_inbox_wanted(&b));
    T_ASSERT(rt_inbox_want(&b, fd7 | other, mask));
    rt_inbox_close(&b);
    T_ASSERT(rt_inbox_wanted(&b));
    T_ASSERT(rt_inbox_take(&b, &letter));
    T_ASSERT(rt_inbox_want(&b, fd7, mask)); /* it is only lent */
    rt_inbox_keep_taken(&b, letter);
    T_ASSERT(rt_inbox_want(&b, fd7, mask));
    rt_inbox_open(&b);
    rt_inbox_close(&b);
    T_ASSERT(!rt_inbox_want(&b, fd7, mask) && !rt_inbox_wanted(&b));
    rt_inbox_note(&b, fd8);
    T_EQ(rt_inbox_post_or_note(&b, fd9), -ESHUTDOWN);
    T_ASSERT(!rt_inbox_any(&b)); /* neither waits */
    T_ASSERT(!rt_inbox_want(&b, fd7, mask) && !rt_inbox_wanted(&b));
    T_ASSERT(rt_inbox_want(&b, fd8, mask) && rt_inbox_want(&b, fd9, mask));
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM); /* then it could be any */
    for (uint64_t i = 2; i < RT_INBOX_FIRST; i++)
        rt_inbox_note(&b, fd8);
    T_ASSERT(!rt_inbox_want(&b, fd7, mask));
    T_EQ(rt_inbox_post_or_note(&b, fd9), -ESHUTDOWN);
    rt_fault_disarm();
    T_ASSERT(rt_inbox_want(&b, fd7, mask));
    rt_inbox_open(&b);
    T_EQ(rt_inbox_post(&b, fd7), 0);
    T_ASSERT(rt_inbox_forget(&b, fd7) && !rt_inbox_forget(&b, fd7));
    rt_inbox_free(&b);
}
