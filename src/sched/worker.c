/* worker.c - the threads of the Ms: those that there are at first, and spares (retake.c).
 *
 * The first ones are started together. Each sets up its netpoller and reports; when all have, they
 * are let into the scheduler loop, or all are ended again. A spare that comes later and cannot set
 * up its netpoller just ends, as one that is not needed any more does: the place of such an M is
 * used again for the next. */
#include "sched/worker.h"

#include "base/chaos.h"
#include "base/lock.h"
#include "base/sys.h"
#include "sched/gate.h"
#include "sched/poller.h"
#include "sched/proc.h"
#include "sched/retake.h"

#include <errno.h>
#include <stdio.h>

enum { ALT_STACK_BYTES = 64 * 1024 };
enum { WAIT, RUN, END };

static struct {
    uint32_t note;      /* woken by each worker that is up, or not */
    uint32_t up;        /* workers that have reported */
    int err;            /* of the first that failed; under lock */
    uint32_t lock;
    uint32_t go;        /* futex word: WAIT, RUN or END */
} boot;

bool rt_thread_take(void) {
    uint32_t left = rt_load_relaxed(&rt.threads_left);
    while (left != 0)
        if (rt_cas_relaxed(&rt.threads_left, &left, left - 1)) /* a count */
            return true;
    return false;
}

void rt_thread_give(void) {
    rt_fetch_add_relaxed(&rt.threads_left, 1);
}

void rt_m_init(struct rt_m *m, uint32_t index) {
    m->index = index;
    m->p = rt.nobody;
    m->gate = RT_GATE_SHUT;
}

/* 0, or why it cannot run anything. */
static int worker_begin(struct rt_m *m) {
    rt_sys_alt_stack(m->alt_stack, ALT_STACK_BYTES);
    pthread_attr_t attr;
    void *low = NULL;
    size_t bytes = 0;
    if (pthread_getattr_np(pthread_self(), &attr) == 0) {
        pthread_attr_getstack(&attr, &low, &bytes);
        pthread_attr_destroy(&attr);
    }
    rt_san_init_thread(&m->san, low, bytes);
    rt_tls_m = m;
    m->tid = rt_sys_tid();
    return rt_poller && rt_poller->m_start ? rt_poller->m_start(m) : 0;
}

static void worker_end(struct rt_m *m, bool up) {
    if (up && rt_poller && rt_poller->m_stop)
        rt_poller->m_stop(m);
    rt_sys_alt_stack(NULL, 0);
    rt_tls_m = NULL;
}

/* Not at the stop: the place is free. */
static void worker_is_gone(struct rt_m *m) {
    rt_chaos_delay("worker: counted as gone (retake.c), but there");
    rt_thread_give();
    rt_store_release(&m->gone, 1); /* pairs with the acquires of it */
}

static void *worker_main(void *arg) {
    struct rt_m *m = arg;
    int err = worker_begin(m);
    rt_lock(&boot.lock);
    if (err && !boot.err)
        boot.err = err;
    boot.up++;
    rt_unlock(&boot.lock);
    rt_note_wake(&boot.note);
    while (rt_load_acquire(&boot.go) == 0) /* pairs with the release in rt_workers_release */
        rt_sys_futex_wait(&boot.go, 0, -1);
    bool gone = rt_load_relaxed(&boot.go) == RUN && rt_proc_run(m);
    worker_end(m, err == 0);
    if (gone)
        worker_is_gone(m);
    return NULL;
}

static void *spare_main(void *arg) {
    struct rt_m *m = arg;
    int err = worker_begin(m);
    bool gone = err != 0 || rt_proc_run(m);
    worker_end(m, err == 0);
    if (err)
        rt_spare_failed(m, err);
    if (gone)
        worker_is_gone(m);
    return NULL;
}

static int start_thread(struct rt_m *m, void *(*fn)(void *)) {
    char name[16];
    snprintf(name, sizeof name, "gort-%u", m->index);
    m->alt_stack = rt_sys_map(ALT_STACK_BYTES);
    int err = m->alt_stack ? rt_sys_thread(&m->thread, fn, m, name) : -ENOMEM;
    if (err && m->alt_stack)
        rt_sys_unmap(m->alt_stack, ALT_STACK_BYTES);
    m->joined = err != 0;
    return err;
}

static void join(struct rt_m *m) {
    if (m->joined)
        return;
    pthread_join(m->thread, NULL);
    rt_sys_unmap(m->alt_stack, ALT_STACK_BYTES);
    m->joined = true;
}

static struct rt_m *free_place(void) {
    for (uint32_t i = 0; i < rt.nms; i++)
        if (rt_load_acquire(&rt.ms[i].gone)) /* pairs with the release in worker_is_gone */
            return &rt.ms[i];
    return NULL;
}

int rt_worker_start_spare(uint32_t change) {
    struct rt_m *m = free_place();
    bool again = m != NULL;
    if (!again && rt.nms == rt.max_ms)
        return -EAGAIN;
    if (!rt_thread_take())
        return -EAGAIN;
    if (again)
        join(m);
    else
        rt_m_init(m = &rt.ms[rt.nms], rt.nms);
    rt_store_relaxed(&m->gone, 0);
    m->started_in = change;
    if (!again) /* first: it may be in a wait before we go on */
        rt_store_relaxed(&rt.nms, rt.nms + 1);
    int err = start_thread(m, spare_main);
    if (err) {
        rt_store_relaxed(&m->gone, again);
        if (!again)
            rt_store_relaxed(&rt.nms, rt.nms - 1);
        rt_thread_give();
        return err;
    }
    return again ? RT_WORKER_AGAIN : 0;
}

void rt_workers_release(bool run) {
    rt_store_release(&boot.go, run ? RUN : END);
    rt_sys_futex_wake(&boot.go, INT32_MAX);
}

static uint32_t workers_up(void) {
    rt_lock(&boot.lock);
    uint32_t n = boot.up;
    rt_unlock(&boot.lock);
    return n;
}

void rt_workers_join(uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        join(&rt.ms[i]);
}

int rt_workers_start(void) {
    boot.note = boot.up = boot.go = 0;
    boot.err = 0;
    uint32_t started = 0;
    int err = 0;
    for (; err == 0 && started < rt.nms; started += err == 0)
        err = start_thread(&rt.ms[started], worker_main);
    while (workers_up() < started)
        rt_note_wait(&boot.note, -1);
    if (err == 0)
        err = boot.err;
    if (err) {
        rt_workers_release(false);
        rt_workers_join(started);
    }
    return err;
}
