/* file.h - for models of the engines: a file that has a byte to be read or not, who reads from it
 * or closes it, and a machine with one P and perhaps a spare. Before it: ENGINE, a struct
 * rt_poller. */
#ifndef MODEL_FILE_H
#define MODEL_FILE_H

#include "machine.h"
#include "read.h"

#include "base/sys.h"
#include "base/sys_io.h"
#include "netpoll/engines.h"
#include "netpoll/fd.h"
#include "sched/retake.h"
#include "sched/sysmon.h"

#include <gort/io.h>
#include <gort/time.h>

enum { FD = 3, ENGINE_MS = 2 };

static uint32_t readable; /* bytes in the file */
static uint32_t is_closed;
static uint32_t nread, nclosed;
static bool close_is_late; /* a close gives up before the P is taken */
static uint32_t hogging;

/* The engine's kernel: there is something to be read; polls that keep the file open, as far as one
 * knows; and all of them, in flight or prepared, when nobody runs. */
static void tell(void);
static bool is_held(void);
static uint32_t asked(void);
static bool is_let_go(void);

void rt_wait_ended(uint32_t *refused, const char *call, int err) {
    (void)call;
    *refused = err < 0 ? *refused + 1 : 0; /* nobody else may be at it */
}

/* ---- the kernel: the file -------------------------------------------------------------------- */

void *rt_sys_map(size_t bytes) {
    static uint32_t mapped;
    return memset(model_stack(8 + rt_fetch_add_relaxed(&mapped, 1), bytes), 0, bytes);
}
void rt_sys_unmap(void *p, size_t bytes) {
    model_gone(p, bytes);
}
int rt_sys_fd_ready(int fd, short events) {
    (void)fd;
    return rt_load_relaxed(&is_closed) ? -EBADF : rt_load_relaxed(&readable) ? events : 0;
}
/* A poll that holds it would keep it open: a peer would wait for its end. */
int rt_sys_close(int fd) {
    if (fd != FD) /* a bell's */
        return 0;
    model_assert(!is_held() || close_is_late);
    rt_store_relaxed(&is_closed, 1);
    return 0;
}

static inline int sys_read(const struct rt_fd_op *op) {
    (void)op;
    if (rt_load_relaxed(&is_closed))
        return -EBADF;
    uint32_t n = rt_load_relaxed(&readable);
    while (n > 0)
        if (rt_cas(&readable, &n, n - 1))
            return 1;
    return -EAGAIN;
}

/* The peer's: the data, then whoever polls is told. */
static inline void sys_write(void) {
    rt_fetch_add(&readable, 1);
    tell();
}

/* ---- the machine ----------------------------------------------------------------------------- */

static inline void be_made(unsigned i) {
    model_be(&ms[i]);
    model_assert(ENGINE.m_start(&ms[i]) == 0);
    model_be(NULL);
}

static inline void start_with(uint32_t procs) {
    machine_with_stacks(procs);
    rt.nms = rt.max_ms = ENGINE_MS;
    rt_poller = &ENGINE;
    model_assert(rt_fd_start(ENGINE_MS) == 0 && ENGINE.start(ENGINE_MS) == 0);
    for (unsigned i = 0; i < ENGINE_MS; i++)
        be_made(i);
    model_assert(rt_fd_adopt(FD, RT_FD_OURS | RT_FD_STREAM) == 0);
    struct rt_fd *s = rt_fd_at(FD);
    model_ignore(&s->kind, 1); /* hints; the checker knows one word per four bytes */
    model_ignore(&s->asking, 1);
}
static inline void start(void) {
    start_with(1);
}

static inline void one_p_and_a_spare(void) {
    start();
    ms[1].gate = RT_GATE_SHUT;
    ms[1].p = rt.nobody;
    rt_spares_start();
    rt_spare_keep_ns = -1; /* a time-out here and there is more than can be explored */
}

static inline void m0(void) {
    machine_run(0);
}
/* Its own thread makes it what it is. */
static inline void m1(void) {
    ms[1].tid = 1;
    machine_run(1);
}
static inline void take(void) {
    while (!rt_retake(&ps[0], rt_progress_any(&ps[0])))
        model_let_others(); /* it may have seen what was */
}

/* Not from the reader. */
static inline void take_from_the_hog(void) {
    while (!rt_load_relaxed(&hogging))
        model_wait_for_change();
    take();
}
static inline void take_once(void) {
    rt_retake(&ps[0], rt_progress_any(&ps[0]));
}
static inline void take_from_the_hog_then_write(void) {
    take_from_the_hog();
    sys_write();
}
static inline void take_then_write(void) {
    take();
    sys_write();
}

static inline void queue_on(unsigned i, void (*fn)(void *)) {
    machine_be(i, &gs[i]);
    model_assert(go_spawn(fn, NULL) == 0);
    ms[i].g = NULL;
    model_be(NULL);
}
static inline void queue(void (*fn)(void *)) {
    queue_on(0, fn);
}

static inline int read_one(void) {
    return read_by(FD, sys_read);
}

static inline void reads(void *arg) {
    (void)arg;
    model_assert(read_one() == 1);
    rt_fetch_add_relaxed(&nread, 1);
}
static inline void foreign_reads(void) {
    reads(NULL);
}
static inline void hogs(void *arg) {
    (void)arg;
    rt_store_relaxed(&hogging, 1);
    model_exit();
}
/* Polls for another, and does not come back. */
static inline void asks_and_hogs(void *arg) {
    (void)arg;
    model_assert(go_spawn_when(FD, POLLIN, reads, NULL) == 0);
    model_exit();
}
static inline void reads_or_is_closed(void *arg) {
    (void)arg;
    int r = read_one();
    model_assert(r == 1 || r == -EBADF);
    rt_fetch_add_relaxed(r == 1 ? &nread : &nclosed, 1);
}
/* What it has asked stays asked when it is late. */
static inline void waits_a_little(void *arg) {
    (void)arg;
    int r = go_poll_until(FD, POLLIN, rt_sys_now() + 1000);
    model_assert(r == -ETIMEDOUT || r == -EBADF);
    rt_fetch_add_relaxed(&nclosed, 1);
}
static inline void closes(void) {
    model_assert(rt_fd_close(FD) == 0);
}

static inline void a_reader(void) {
    start();
    queue(reads);
}
static inline void a_reader_and_a_spare(void) {
    one_p_and_a_spare();
    queue(reads);
}
static inline void a_hog_and_a_spare(void) {
    one_p_and_a_spare();
    queue(hogs);
}
/* Who loses his P, and ends. */
static inline void passes(void *arg) {
    (void)arg;
    const struct rt_m *m = rt_m();
    rt_store_relaxed(&hogging, 1);
    while (!rt_gate_is_shut(m))
        model_wait_for_change();
}
static inline void one_who_passes_and_a_spare(void) {
    one_p_and_a_spare();
    queue(passes);
}
static inline void one_who_asks_and_a_spare(void) {
    one_p_and_a_spare();
    queue(asks_and_hogs);
}
static inline void a_reader_and_a_hog(void) {
    one_p_and_a_spare();
    queue(hogs); /* the newest runs first */
    queue(reads);
}
static inline void a_reader_to_be_closed_and_a_hog(void) {
    one_p_and_a_spare();
    model_clock_moves();
    queue(hogs);
    queue(reads_or_is_closed);
}
static inline void a_reader_to_be_closed(void) {
    start();
    model_clock_moves(); /* who comes between the end of the waiters and close(2) naps */
    queue(reads_or_is_closed);
}

/* The naps of a close end when nobody else can go on: no M may stand aside (machine.c). */
static inline void naps_are_long(void) {
    model_clock_moves();
    rt_sysmon_asleep = 0;
}
static inline void one_to_be_closed_and_a_spare(void) {
    one_p_and_a_spare();
    naps_are_long();
    queue(reads_or_is_closed);
}
static inline void one_who_is_late(void) {
    start();
    naps_are_long();
    queue(waits_a_little);
}

static inline void all_are_counted(void) {
    const struct rt_fd *s = rt_fd_at(FD);
    model_assert(!s->waiters && s->polls == asked());
}
static inline void one_read(void) {
    model_assert(nread == 1 && readable == 0);
    all_are_counted();
}
static inline void closed(void) {
    model_assert(nread + nclosed == 1 && is_closed && is_let_go());
    all_are_counted();
}

#endif
