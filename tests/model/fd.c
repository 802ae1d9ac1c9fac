/* fd.c - netpoll/fd.c, with foreign threads: no event is lost between a call that said -EAGAIN and
 * the wait; each is told once, as by epoll with EPOLLET; who waits on a descriptor that is closed
 * gets -EBADF, also when its number is somebody else's at once; whoever waits is told of the stop.
 *
 * The kernel is two words: what can be read from the file, and which file the number means. The
 * engine that has been armed is asked nothing:
 * whoever writes delivers the event himself, after it, as the collector of epoll.c does. */
#include "machine.h"
#include "read.h"

#include "base/lock.h"
#include "base/sys.h"
#include "base/sys_io.h"
#include "netpoll/fd.h"

#include <gort/scope.h>

enum {
    FD = 3,
    FIRST = 1, /* gen of the file that is open at the start */
    NEXT = 3,  /* of the one that has its number then, after a close */
};

static uint32_t readable; /* in file 1 */
static uint32_t file = 1; /* what FD means; 0: nothing */
static int first_is_open = 1; /* plain: who holds the number uses it before the close does */
static uint32_t nread, nclosed, ncanceled;
static go_scope scope;
static int reason;

/* ---- the kernel ------------------------------------------------------------------------------ */

void *rt_sys_map(size_t bytes) {
    static uint32_t mapped;
    return memset(model_stack(rt_fetch_add_relaxed(&mapped, 1), bytes), 0, bytes);
}
void rt_sys_unmap(void *p, size_t bytes) {
    model_gone(p, bytes);
}
int rt_sys_fd_ready(int fd, short events) {
    (void)fd, (void)events;
    return 0;
}
int rt_sys_close(int fd) {
    model_assert(fd == FD);
    first_is_open = 0;
    rt_exchange(&file, 0);
    return 0;
}

/* read(2) of one byte: -EAGAIN, -EBADF; 2 is the end of the other file. It looks with no order of
 * its own: that what has been told of is seen is up to fd.c. */
static int sys_read(void) {
    uint32_t which = rt_load_relaxed(&file), n;
    if (which != 1)
        return which == 0 ? -EBADF : 2;
    n = rt_load_relaxed(&readable);
    while (n > 0)
        if (rt_cas(&readable, &n, n - 1))
            return 1;
    return -EAGAIN;
}

/* ---- the engine ------------------------------------------------------------------------------ */

/* As epoll_ctl says it of a number that means nothing. */
static int arm(struct rt_fd *s, int fd) {
    model_assert(fd == FD);
    rt_store_relaxed(&s->flags, (uint16_t)(s->flags | RT_FD_ADDED));
    return rt_fetch_add(&file, 0) == 0 ? -EBADF : 0;
}
static void disarm(struct rt_fd *s, int fd) {
    (void)s, (void)fd;
}

static void deliver(void) {
    struct rt_glist ready = {0};
    struct rt_fd *s = rt_fd_at(FD);
    rt_lock(&s->lock);
    rt_fd_event(s, 1u << RT_IN, false, &ready);
    rt_unlock(&s->lock);
    for (struct rt_g *g; (g = rt_glist_pop(&ready)) != NULL;)
        rt_ready(g);
}

/* ---- threads --------------------------------------------------------------------------------- */

static void start(void) {
    static const struct rt_fd_engine engine = {.arm = arm, .disarm = disarm};
    machine_init(1);
    model_clock_moves();
    rt_fd_engine = &engine;
}
/* Not by gort, and nobody has used it yet: its slot is not there. */
static void there_are_two(void) {
    start();
    readable = 2;
}
static void open_to_be_asked(void) {
    start();
    model_assert(rt_fd_adopt(FD, RT_FD_OURS | RT_FD_STREAM) == 0 && rt_fd_at(FD)->gen == FIRST);
    model_ignore(&rt_fd_at(FD)->kind, 1); /* a hint; the checker knows one word per four bytes */
}
static void open_file(void) {
    open_to_be_asked();
    model_ignore(&rt_fd_at(FD)->asking, 1);
}
static void open_in_scope(void) {
    open_file();
    go_scope_enter(&scope, GO_FOREVER); /* of thread 0 */
}

/* Who has waited on the first file reads from no other, and before it is closed; who takes itself
 * for one that reads from the next one has not begun on the first. */
static int take(const struct rt_fd_op *op) {
    int r = sys_read();
    if (op->held && op->gen == FIRST)
        model_assert(first_is_open && (r == 1 || r == -EAGAIN));
    model_assert(op->gen != NEXT || r == 2);
    return r;
}
static int read_one(void) {
    return read_by(FD, take);
}
static void read_byte(void) {
    model_assert(read_one() == 1);
    rt_fetch_add_relaxed(&nread, 1);
}
static void read_two(void) {
    read_byte();
    read_byte();
}
static void write_byte(void) {
    rt_fetch_add(&readable, 1);
    deliver();
}
static void write_two(void) {
    write_byte();
    write_byte();
}
/* Two bytes come at once, and one edge. */
static void write_both(void) {
    rt_fetch_add(&readable, 2);
    deliver();
}

static void read_or_closed(void) {
    int r = read_one();
    model_assert(r == 1 || r == 2 || r == -EBADF);
    rt_fetch_add_relaxed(&nread, r == 1);
    rt_fetch_add_relaxed(&nclosed, r != 1);
}
static void close_file(void) {
    model_assert(rt_fd_close(FD) == 0);
}
/* Somebody is given the number as soon as it is free. */
static void open_another(void) {
    uint32_t none = 0;
    while (!rt_cas(&file, &none, 2)) {
        none = 0;
        model_wait_for_change();
    }
    model_assert(rt_fd_adopt(FD, RT_FD_OURS) == 0);
}

static void write_and_open_another(void) {
    write_byte();
    open_another();
}

static void read_or_canceled(void) {
    int r = read_one();
    model_assert(r == 1 || (r == -ECANCELED && reason == 1));
    rt_fetch_add_relaxed(&nread, r == 1);
    rt_fetch_add_relaxed(&ncanceled, r != 1);
}
static void cancel(void) {
    reason = 1;
    go_scope_cancel(&scope);
}

/* As the stop does it, while foreign threads are inside. */
static void evict(void) {
    reason = 1;
    while (rt_load_relaxed(&nread) + rt_load_relaxed(&ncanceled) == 0) {
        rt_fd_evict_foreign();
        model_let_others();
    }
}

/* ---- a call that first asks poll(2), on a descriptor that others may read from, too ---------- */

static int transfers; /* plain: one after the other, or of two who were told one would wait */

static void ask_and_take(void) {
    struct rt_fd_op op = {.slot = rt_fd_at(FD)};
    for (int tries = 0; tries < 2; tries++)
        if (rt_fd_ask(&op)) {
            transfers++;
            rt_fd_asked(&op);
        }
}
static void not_asked_any_more(void) {
    model_assert(transfers >= 2 && transfers <= 4 && rt_fd_at(FD)->asking == 0);
}

/* ---- at the end ------------------------------------------------------------------------------ */

static void nobody_waits(void) {
    model_assert(!rt_fd_at(FD)->waiters);
}
static void one_read(void) {
    model_assert(nread == 1 && readable == 0);
    nobody_waits();
}
static void two_read(void) {
    model_assert(nread == 2 && readable == 0);
    nobody_waits();
}
static void closed(void) {
    model_assert(nread + nclosed == 1 && !(rt_fd_at(FD)->flags & RT_FD_CLOSING));
    nobody_waits();
}
static void other_is_open(void) {
    closed();
    model_assert(file == 2 && rt_fd_at(FD)->flags == RT_FD_OURS);
}
static void nothing_read(void) {
    model_assert(ncanceled == 1);
    nobody_waits();
}
static void read_or_not(void) {
    model_assert(nread + ncanceled == 1 && readable == ncanceled);
    nobody_waits();
}

#define CASE(n, start, check, b, ...) \
    { .name = "fd." n, .init = (start), .thread = {__VA_ARGS__}, .end = (check), .bound = (b) }

const struct model_case model_cases[] = {
    CASE("read", open_file, one_read, 4, read_byte, write_byte),
    CASE("read_two", open_file, two_read, 3, read_two, write_two),
    CASE("one_edge", open_file, two_read, 3, read_two, write_both),
    CASE("two_readers", open_file, two_read, 1, read_byte, read_byte, write_both),
    CASE("first_use", there_are_two, two_read, 3, read_byte, read_byte),
    CASE("closed", open_file, closed, 3, read_or_closed, close_file),
    CASE("closed_or_read", open_file, closed, 1, read_or_closed, close_file, write_byte),
    CASE("woken_and_closed", open_file, other_is_open, 1, read_or_closed, close_file,
         write_and_open_another),
    CASE("number_used_again", open_file, other_is_open, 1, read_or_closed, close_file,
         open_another),
    CASE("ask", open_to_be_asked, not_asked_any_more, 3, ask_and_take, ask_and_take),
    CASE("cancel", open_in_scope, read_or_not, 2, read_or_canceled, write_byte, cancel),
    CASE("evicted", open_file, nothing_read, 3, read_or_canceled, evict),
    CASE("evicted_at_first_use", start, nothing_read, 3, read_or_canceled, evict),
    {0},
};
