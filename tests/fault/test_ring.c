/* Rings of one, two and four entries, whose completions overflow at once; waits that the kernel
 * refuses for long; and the errors after which nobody who waits could go on: the program ends with
 * a line that says so. */
#include "fault/program.h"

/* ---- tiny rings ------------------------------------------------------------------------------ */

enum { CROWD = 100 };

static struct {
    go_waitgroup ready, over;
    int in[CROWD], out[CROWD];
    uint32_t woken;
} crowd;

static void member(void *arg) {
    char c;
    int i = (int)t_int(arg);
    go_waitgroup_done(&crowd.ready);
    T_EQ(go_read(crowd.in[i], &c, 1), 1);
    T_EQ(c, (char)i);
    rt_fetch_add_relaxed(&crowd.woken, 1);
    go_waitgroup_done(&crowd.over);
}

/* All park, each on a pipe of its own, and all are answered at the same moment. */
static void crowds(void *arg) {
    (void)arg;
    for (int round = 0; round < 5; round++) {
        go_waitgroup_add(&crowd.ready, CROWD);
        go_waitgroup_add(&crowd.over, CROWD);
        for (int i = 0; i < CROWD; i++) {
            int fd[2];
            T_EQ(pipe2(fd, O_NONBLOCK | O_CLOEXEC), 0);
            crowd.in[i] = fd[0];
            crowd.out[i] = fd[1];
            T_SPAWN(member, t_ptr(i));
        }
        T_EQ(go_waitgroup_wait(&crowd.ready), 0);
        net_wait_parked(CROWD);
        for (char i = 0; i < CROWD; i++)
            T_EQ(write(crowd.out[(int)i], &i, 1), 1);
        T_EQ(go_waitgroup_wait(&crowd.over), 0);
        for (int i = 0; i < CROWD; i++) {
            T_EQ(go_close(crowd.in[i]), 0);
            T_EQ(go_close(crowd.out[i]), 0);
        }
    }
    rt_store_seq_cst(&prog.done, 1);
}

/* The rings of the workers, not the one of the self-test, which says how many entries it needs. */
static int start_tiny(int entries) {
    rt_fault_arm(RT_FAULT_TINY, 2, true, entries);
    int err = start_as("uring");
    T_ASSERT(err != 0 || rt_fault_points[RT_FAULT_TINY].hits >= (uint32_t)t_procs());
    rt_fault_disarm();
    return err;
}

/* Why the tests of tiny rings cannot run; NULL: they can. */
static const char *no_rings(void) {
    if (strcmp(asked_engine(), "epoll") == 0)
        return "epoll has no rings";
    if (start_as("uring") != 0)
        return "io_uring is denied here";
    t_stop();
    return NULL;
}

Test(ring, completions_overflow_and_none_is_lost) {
    signal(SIGPIPE, SIG_IGN);
    const char *why = no_rings();
    if (why)
        T_SKIP("%s", why);
    for (int entries = 1; entries <= 4; entries *= 2) {
        T_EQ(start_tiny(entries), 0);
        program_strict(RT_FAULT_SUBMIT);
        rt_store_seq_cst(&prog.done, 0);
        T_SPAWN(crowds, NULL);
        T_AWAIT(rt_load_seq_cst(&prog.done));
        t_stop();
    }
    T_EQ(crowd.woken, 3 * 5 * CROWD);
}

Test(ring, tiny_rings_whose_kernel_is_busy) {
    signal(SIGPIPE, SIG_IGN);
    const char *why = no_rings();
    if (why)
        T_SKIP("%s", why);
    T_EQ(start_tiny(1), 0);
    for (uint32_t nth = 1; nth < (uint32_t)T_SCALE(40); nth++) {
        program_run(RT_FAULT_SUBMIT, nth, true, EBUSY, 0, 20);
        program_run(RT_FAULT_WAIT, nth, true, EAGAIN, 0, 20);
        program_run(RT_FAULT_SHORT, nth, true, 1, 0, 20);
    }
    t_stop();
}

static struct {
    int in[2], fill[2];
    uint32_t done;
} wants;

static void wants_in(void *arg) {
    char c;
    T_EQ(go_read(t_int(arg), &c, 1), 1);
    rt_fetch_add(&wants.done, 1);
}

/* A second waiter wants more than the poll that there is asks for, and no larger one gets into the
 * ring: the first goes on to rely on the old one. */
static void wants_more(void *arg) {
    (void)arg;
    go_scope s;
    T_SPAWN(wants_in, t_ptr(wants.in[0]));
    net_wait_parked(1);
    T_EQ(go_sleep(5 * GO_MILLISECOND), 0); /* submitted */
    rt_fault_arm(RT_FAULT_SUBMIT, 1, true, EBUSY);
    T_SPAWN(wants_in, t_ptr(wants.fill[0]));
    go_yield(); /* its poll fills the queue */
    go_scope_enter(&s, go_now() + 2 * GO_MILLISECOND);
    T_EQ(go_poll(wants.in[0], POLLPRI), -ETIMEDOUT);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    rt_fault_disarm();
    T_EQ(write(wants.in[1], "x", 1), 1);
    T_EQ(write(wants.fill[1], "x", 1), 1);
    T_AWAIT(rt_load_seq_cst(&wants.done) == 2);
    rt_store_seq_cst(&prog.done, 1);
}

Test(ring, a_poll_that_cannot_be_widened_stays) {
    const char *why = no_rings();
    if (why)
        T_SKIP("%s", why);
    struct go_options o = GO_OPTIONS_INIT;
    o.procs = 1;
    o.netpoll = "uring";
    rt_fault_arm(RT_FAULT_TINY, 2, true, 1);
    T_EQ(go_start(&o), 0);
    rt_fault_disarm();
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, wants.in), 0);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, wants.fill), 0);
    rt_store_seq_cst(&prog.done, 0);
    T_SPAWN(wants_more, NULL);
    T_AWAIT(rt_load_seq_cst(&prog.done));
    t_stop();
    for (int i = 0; i < 2; i++) {
        T_EQ(close(wants.in[i]), 0);
        T_EQ(close(wants.fill[i]), 0);
    }
}

/* ---- what passes, but not soon --------------------------------------------------------------- */

static int line[2];
static uint32_t got_it;

static void reader(void *arg) {
    char c = 0;
    (void)arg;
    T_EQ(go_read(line[0], &c, 1), 1);
    T_EQ(c, 'x');
    rt_store_seq_cst(&got_it, 1);
}

/* 300 refusals take a while, because the M naps, and after them all is as before. A nap is a
 * millisecond; between two of them the set may be looked at twice more. */
static void refuse(enum rt_fault_site site, int error, int entries) {
    enum { REFUSALS = 300 };
    struct go_options o = GO_OPTIONS_INIT;
    o.procs = 1;
    o.netpoll = asked_engine();
    rt_fault_arm(RT_FAULT_TINY, 2, true, entries);
    T_EQ(go_start(&o), 0);
    rt_fault_disarm();
    T_EQ(pipe2(line, O_NONBLOCK | O_CLOEXEC), 0);
    int64_t from = rt_sys_now();
    rt_fault_arm(site, 1, true, error);
    rt_store_seq_cst(&got_it, 0);
    T_SPAWN(reader, NULL);
    T_AWAIT(rt_load_seq_cst(&rt_fault_points[site].hits) >= REFUSALS);
    T_ASSERT(rt_sys_now() - from > 20 * GO_MILLISECOND, "no nap");
    T_EQ(rt_load_seq_cst(&got_it), 0);
    rt_fault_disarm();
    T_EQ(write(line[1], "x", 1), 1);
    T_AWAIT(rt_load_seq_cst(&got_it));
    t_stop();
    T_EQ(close(line[0]), 0);
    T_EQ(close(line[1]), 0);
}

/* Of all refusals one is told. */
static void said_once(const char *call) {
    char text[1024], want[128];
    struct t_stderr s = t_stderr_begin();
    bool uring = strcmp(asked_engine(), "uring") == 0;
    refuse(uring ? RT_FAULT_WAIT : RT_FAULT_EPOLL_WAIT, ENOMEM, 512);
    if (uring) /* the queue is full and stays so: not even the bell gets in */
        refuse(RT_FAULT_SUBMIT, EBUSY, 1);
    else
        refuse(RT_FAULT_EPOLL_WAIT, ENOMEM, 512);
    t_stderr_end(s, text, sizeof text);
    int len = snprintf(want, sizeof want, "gort: %s has failed 64 times in a row: ", call);
    T_ASSERT(len > 0 && strncmp(text, want, (size_t)len) == 0, "\"%s\"", text);
    bool why = strncmp(text + len, "Cannot", 6) == 0;
    if (getenv("GORT_CHAOS")) /* which interrupts waits, perhaps the 64th */
        why |= strncmp(text + len, "Interrupted", 11) == 0;
    T_ASSERT(why, "\"%s\"", text);
    T_ASSERT(strchr(text, '\n') == text + strlen(text) - 1, "\"%s\"", text);
}

Test(ring, a_wait_that_is_refused_for_long_neither_spins_nor_is_silent) {
    if (strcmp(asked_engine(), "uring") == 0)
        said_once("io_uring_enter(2)");
    else if (strcmp(asked_engine(), "epoll") == 0)
        said_once("epoll_wait(2)");
    else
        T_SKIP("no engine was asked for by its name");
}

/* ---- what does not pass ---------------------------------------------------------------------- */

static void run_with(enum rt_fault_site site, int error) {
    T_EQ(start_as(asked_engine()), 0);
    program_run(site, 1, false, error, 0, UINT32_MAX);
}

/* A forked child must not have seen the runtime run, so the name must do. */
Test(ring, a_ring_that_somebody_closed_ends_the_program_with_a_line) {
    if (strcmp(asked_engine(), "uring") != 0)
        T_SKIP("io_uring was not asked for by its name");
    T_DIES(SIGABRT, "io_uring_enter(2) worked at the start and fails now: Bad file descriptor",
           run_with(RT_FAULT_SUBMIT, EBADF));
    T_DIES(SIGABRT, "io_uring_enter(2) worked at the start and fails now: Bad file descriptor",
           run_with(RT_FAULT_WAIT, EBADF));
    T_DIES(SIGABRT, "late seccomp filter", run_with(RT_FAULT_WAIT, EPERM));
    T_DIES(SIGABRT, "a completion and has lost it", run_with(RT_FAULT_WAIT, EBADR));
}

Test(ring, a_set_that_somebody_closed_ends_the_program_with_a_line) {
    if (strcmp(asked_engine(), "epoll") != 0)
        T_SKIP("epoll was not asked for by its name");
    T_DIES(SIGABRT, "epoll_wait(2) worked at the start and fails now: Bad file descriptor",
           run_with(RT_FAULT_EPOLL_WAIT, EBADF));
    T_DIES(SIGABRT, "late seccomp filter", run_with(RT_FAULT_EPOLL_WAIT, EPERM));
}
