/* What the engine on io_uring asks of the kernel, and when. One worker that keeps its P, so that
 * what it does can be counted. */
#include "net.h"

#include "base/fault.h"
#include "netpoll/uring.h"
#include "sched/sched.h"

enum { MANY = 64, FAR = RT_FAULT_FOREVER / 2 };

static go_waitgroup wg;

/* False: another engine runs here. */
static bool started(void) {
    struct go_options o = GO_OPTIONS_INIT;
    struct go_stats s = GO_STATS_INIT;
    o.procs = 1;
    o.flags = GO_STRICT;
    T_EQ(go_start(&o), 0);
    T_EQ(go_stats(&s), 0);
    if (strcmp(s.netpoll, "uring") == 0)
        return true;
    T_EQ(go_stop(GO_FOREVER), 0);
    return false;
}

#define START()                           \
    do {                                  \
        if (!started())                   \
            T_SKIP("not on this engine"); \
    } while (0)

static void run(void (*fn)(void *), void *arg) {
    T_EQ(go_waitgroup_spawn(&wg, fn, arg), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
}

/* A fault point that does not fail for a thousand million calls counts them. */
static void count_calls(void) {
    rt_fault_arm(RT_FAULT_SUBMIT, FAR, false, EIO);
    rt_fault_arm(RT_FAULT_WAIT, FAR, false, EIO);
}
static uint32_t calls(void) {
    return 2 * FAR - rt_load_relaxed(&rt_fault_points[RT_FAULT_SUBMIT].countdown) -
           rt_load_relaxed(&rt_fault_points[RT_FAULT_WAIT].countdown);
}

/* ---- many parks, one call -------------------------------------------------------------------- */

static int fds[MANY][2];
static uint32_t calls_for_all;

static void read_byte(void *arg) {
    char c;
    T_EQ(go_read(net_int(arg), &c, 1), 1);
}

/* All park in one pass, and all bytes are there when the next one begins. */
static void all_read(void *arg) {
    (void)arg;
    go_waitgroup readers = {0};
    count_calls();
    for (int i = 0; i < MANY; i++)
        T_EQ(go_waitgroup_spawn(&readers, read_byte, net_ptr(fds[i][0])), 0);
    net_wait_parked(MANY);
    for (int i = 0; i < MANY; i++)
        T_EQ(write(fds[i][1], "x", 1), 1);
    T_EQ(go_waitgroup_wait(&readers), 0);
    calls_for_all = calls();
    rt_fault_disarm();
}

Test(uring, many_parks_and_wakes_share_a_system_call) {
    START();
    uint32_t least = UINT32_MAX;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < MANY; i++)
            T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds[i]), 0);
        run(all_read, NULL);
        least = calls_for_all < least ? calls_for_all : least;
        for (int i = 0; i < 2 * MANY; i++)
            close(fds[i / 2][i % 2]);
    }
    T_ASSERT(least != 0 && least <= MANY / 4, "%u calls for %d", least, MANY);
    T_EQ(go_stop(GO_FOREVER), 0);
}

/* ---- a P that never runs dry ----------------------------------------------------------------- */

static bool told;

static void read_and_tell(void *arg) {
    read_byte(arg);
    told = true;
}
static void never_parks(void *arg) {
    (void)arg;
    bool written = false;
    while (!told) {
        if (!written && net_parked() == 1)
            written = write(fds[0][1], "x", 1) == 1;
        go_yield();
    }
}

Test(uring, what_waits_to_be_submitted_ages_on_a_busy_p) {
    START();
    for (int round = 0; round < 50; round++) {
        T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds[0]), 0);
        told = false;
        T_EQ(go_waitgroup_spawn(&wg, never_parks, NULL), 0);
        T_EQ(go_waitgroup_spawn(&wg, never_parks, NULL), 0);
        run(read_and_tell, net_ptr(fds[0][0])); /* or it hangs */
        close(fds[0][0]);
        close(fds[0][1]);
    }
    T_EQ(go_stop(GO_FOREVER), 0);
}

/* ---- where it sleeps ------------------------------------------------------------------------- */

static void await_sleep(enum rt_sleep_mode mode) {
    while (rt_load_seq_cst(&rt.ms[0].sleep) != (uint32_t)mode) /* or it hangs */
        usleep(100);
}

Test(uring, a_worker_sleeps_in_its_ring_only_while_something_is_in_flight) {
    START();
    await_sleep(RT_SLEEP_FUTEX);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds[0]), 0);
    T_EQ(go_waitgroup_spawn(&wg, read_byte, net_ptr(fds[0][0])), 0);
    await_sleep(RT_SLEEP_POLLER);
    T_EQ(write(fds[0][1], "x", 1), 1);
    T_EQ(go_waitgroup_wait(&wg), 0);
    await_sleep(RT_SLEEP_FUTEX);
    T_EQ(go_stop(GO_FOREVER), 0);
    close(fds[0][0]);
    close(fds[0][1]);
}
