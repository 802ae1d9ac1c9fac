/* What the engine on io_uring promises of its rings: how often the kernel is entered, how old an
 * unsubmitted poll gets where nothing ever runs dry, where a worker sleeps, and how many threads
 * the kernel may start for it. Calls are counted at their fault points. */
/* ctest: once */
#include "net.h"
#include "unit/t_unit.h"

#include "base/fault.h"
#include "netpoll/uring.h"
#include "sched/gate.h"
#include "sched/poller.h"

#include <sys/stat.h>

enum { PATIENCE_S = 40 };

/* What does not come within PATIENCE_S never comes. */
#define T_SOON(cond) \
    do { \
        int64_t until_ = rt_sys_now() + PATIENCE_S * GO_SECOND; \
        while (!(cond)) { \
            T_ASSERT(rt_sys_now() < until_, "%s: not in time", #cond); \
            t_relax(); \
        } \
    } while (0)

/* No P is taken from who hogs it for want of CPU time: rings stay where they are. */
static int start_strict(unsigned procs) {
    struct go_options o = GO_OPTIONS_INIT;
    o.procs = procs;
    o.netpoll = "uring";
    o.flags = GO_STRICT;
    return go_start(&o);
}

#define START_OR_SKIP(procs) \
    do { \
        int err_ = start_strict(procs); \
        if (err_) \
            T_SKIP("io_uring: %s", strerror(-err_)); \
    } while (0)

/* ---- pipes, and who reads them --------------------------------------------------------------- */

enum { CROWD = 200 };

static struct {
    int in[CROWD], out[CROWD];
    uint32_t got;
    uint32_t done;
} all;

static void open_pipes(int n) {
    for (int i = 0; i < n; i++) {
        int fd[2];
        T_EQ(pipe2(fd, O_NONBLOCK | O_CLOEXEC), 0);
        all.in[i] = fd[0];
        all.out[i] = fd[1];
    }
    rt_store_seq_cst(&all.got, 0);
    rt_store_seq_cst(&all.done, 0);
}

static void close_pipes(int n) {
    for (int i = 0; i < n; i++) {
        T_EQ(go_close(all.in[i]), 0);
        T_EQ(go_close(all.out[i]), 0);
    }
}

static void read_one(void *arg) {
    char c;
    T_EQ(go_read(net_int(arg), &c, 1), 1);
    rt_fetch_add(&all.got, 1);
}

static void write_each(int n) {
    for (int i = 0; i < n; i++)
        T_EQ(write(all.out[i], "x", 1), 1);
}

/* ---- how often the kernel is entered --------------------------------------------------------- */

static void count_from_here(void) {
    rt_fault_arm(RT_FAULT_SUBMIT, RT_FAULT_FOREVER - 1, false, EIO);
    rt_fault_arm(RT_FAULT_WAIT, RT_FAULT_FOREVER - 1, false, EIO);
}
static uint32_t counted(enum rt_fault_site site) {
    return RT_FAULT_FOREVER - 1 - rt_load_seq_cst(&rt_fault_points[site].countdown);
}
static uint32_t entered(void) {
    return counted(RT_FAULT_SUBMIT) + counted(RT_FAULT_WAIT);
}

enum { ROUNDS = 10 };

static void park_and_wake(void *arg) {
    (void)arg;
    uint32_t parking = 0, waking = 0;
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        for (int i = 0; i < CROWD; i++)
            T_SPAWN(read_one, net_ptr(all.in[i]));
        count_from_here();
        while (net_parked() != CROWD)
            go_yield();
        parking += entered();
        write_each(CROWD);
        count_from_here();
        while (rt_load_seq_cst(&all.got) != round * CROWD)
            go_yield();
        waking += entered();
    }
    rt_fault_disarm();
    T_ASSERT(parking * 10 <= ROUNDS * CROWD, "%u calls, %d parks", parking, ROUNDS * CROWD);
    T_ASSERT(waking * 10 <= ROUNDS * CROWD, "%u calls, %d wakes", waking, ROUNDS * CROWD);
    rt_store_seq_cst(&all.done, 1);
}

/* The kernel runs about twenty pieces of deferred work at a call, so a wake costs a twentieth of
 * one; a park costs what the 61st pick of its pass costs. */
Test(uring, green_threads_that_park_in_one_pass_share_their_system_calls) {
    if (getenv("GORT_CHAOS"))
        T_SKIP("chaos enters the kernel as it likes");
    START_OR_SKIP(1);
    open_pipes(CROWD);
    T_SPAWN(park_and_wake, NULL);
    T_AWAIT(rt_load_seq_cst(&all.done));
    close_pipes(CROWD);
    t_stop();
}

/* ---- a P that never runs dry ----------------------------------------------------------------- */

enum { READERS = 8 };
static const int64_t LONG_NS = 20 * 1000 * 1000;

static int64_t own_cpu(void) {
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * GO_SECOND + ts.tv_nsec;
}

/* Yields for ever; and sees how much CPU time its worker spends while one entry is unsubmitted: the
 * time that others take from it does not count. */
static void busy(void *arg) {
    int64_t prepared = INT64_MAX, since = 0;
    uint32_t index = UINT32_MAX;
    (void)arg;
    while (!rt_load_seq_cst(&all.done)) {
        go_yield();
        struct rt_m *m = rt_enter();
        int64_t first = rt_load_relaxed(&rt_urings[m->index].first_prep), now = own_cpu();
        if (first != prepared || m->index != index) {
            prepared = first;
            index = m->index;
            since = now;
        }
        rt_gate_leave(m);
        bool late = prepared != INT64_MAX && now - since > LONG_NS;
        T_ASSERT(!late, "unsubmitted for %lld ns", (long long)(now - since));
    }
}

static void a_busy_runtime_reads(unsigned procs) {
    open_pipes(READERS);
    count_from_here();
    for (unsigned i = 0; i < 3 * procs; i++)
        T_SPAWN(busy, NULL);
    for (uint32_t round = 1; round <= 20; round++) {
        for (int i = 0; i < READERS; i++)
            T_SPAWN(read_one, net_ptr(all.in[i]));
        T_SOON(net_parked() == READERS);
        if (procs == 1 && round == 1)
            count_from_here(); /* it has gone to work, and sleeps no more */
        write_each(READERS);
        T_SOON(rt_load_seq_cst(&all.got) == round * READERS);
    }
    if (procs == 1)
        T_EQ(counted(RT_FAULT_WAIT), 0);
    rt_fault_disarm();
    rt_store_seq_cst(&all.done, 1);
    close_pipes(READERS);
}

Test(uring, who_parks_where_others_yield_for_ever_is_told) {
    for (unsigned procs = 1; procs <= 4; procs *= 2) {
        START_OR_SKIP(procs);
        a_busy_runtime_reads(procs);
        t_stop();
    }
}

/* ---- where a worker sleeps ------------------------------------------------------------------- */

static uint32_t sleepers(uint32_t mode) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < rt_load_relaxed(&rt.nms); i++)
        n += rt_load_relaxed(&rt.ms[i].sleep) == mode;
    return n;
}

/* One of them has the poll in flight, and sleeps in its ring; the others on their futexes. */
static void sleeps_where_it_should(unsigned procs) {
    open_pipes(1);
    for (uint32_t round = 1; round <= 5; round++) {
        T_SOON(sleepers(RT_SLEEP_FUTEX) == procs);
        T_SPAWN(read_one, net_ptr(all.in[0]));
        T_SOON(net_parked() == 1 && sleepers(RT_SLEEP_POLLER) == 1 &&
               sleepers(RT_SLEEP_FUTEX) == procs - 1);
        write_each(1);
        T_SOON(rt_load_seq_cst(&all.got) == round);
    }
    close_pipes(1);
}

Test(uring, a_worker_sleeps_in_its_ring_when_something_is_in_flight_there_and_else_not) {
    for (unsigned procs = 1; procs <= 4; procs *= 2) {
        START_OR_SKIP(procs);
        sleeps_where_it_should(procs);
        t_stop();
    }
}

/* ---- threads of the kernel ------------------------------------------------------------------- */

/* The workers of io_uring carry the name of the thread whose they are: iou-wrk-TID. */
static int helpers(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    T_ASSERT(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[300], name[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", e->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && read(fd, name, sizeof name - 1) > 0)
            n += strncmp(name, "iou-wrk", 7) == 0;
        if (fd >= 0)
            close(fd);
    }
    closedir(d);
    return n;
}

enum { OPENS = 12 };
static char fifo[64];

/* Each of these blocks a thread until somebody writes there: only bounds hold them back. */
static void open_on_the_ring(void *arg) {
    struct rt_m *m = rt_enter();
    struct rt_uring *u = m->poller;
    (void)arg;
    for (int i = 0; i < OPENS; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring.u);
        T_ASSERT(sqe);
        io_uring_prep_openat(sqe, AT_FDCWD, fifo, O_RDONLY | O_CLOEXEC, 0);
        sqe->flags = IOSQE_ASYNC;
        sqe->user_data = (uint64_t)RT_TAG_NONE << 60;
    }
    T_EQ(rt_ring_submit(&u->ring), 0);
    rt_gate_leave(m);
    rt_store_seq_cst(&all.done, 1);
}

/* One for work that is sure to end and one for work that is not; and this is the first. */
Test(uring, the_kernel_starts_one_thread_for_the_work_of_a_ring) {
    START_OR_SKIP(1);
    snprintf(fifo, sizeof fifo, "/tmp/gort-uring-%d.fifo", (int)getpid());
    unlink(fifo); /* of a test that was killed and had our number */
    T_EQ(mkfifo(fifo, 0600), 0);
    rt_store_seq_cst(&all.done, 0);
    T_SPAWN(open_on_the_ring, NULL);
    T_SOON(rt_load_seq_cst(&all.done) && helpers() != 0);
    for (int looks = 0; looks < 50; looks++) {
        T_EQ(helpers(), 1);
        t_relax();
    }
    int both = open(fifo, O_RDWR | O_CLOEXEC); /* lets all of them go on */
    T_ASSERT(both >= 0);
    T_SOON(net_open_fds(fifo) == OPENS + 1);
    T_EQ(close(both), 0);
    T_EQ(unlink(fifo), 0);
    t_stop();
}

/* Readiness is asked for, and the bell is read, without any. */
Test(uring, polls_and_bells_need_no_thread_of_the_kernel) {
    START_OR_SKIP(2);
    open_pipes(CROWD);
    for (uint32_t round = 1; round <= 10; round++) {
        for (int i = 0; i < CROWD; i++)
            T_SPAWN(read_one, net_ptr(all.in[i]));
        T_SOON(net_parked() == CROWD && sleepers(RT_SLEEP_POLLER) != 0);
        T_EQ(helpers(), 0);
        write_each(CROWD);
        T_SOON(rt_load_seq_cst(&all.got) == round * CROWD);
    }
    close_pipes(CROWD);
    t_stop();
}
