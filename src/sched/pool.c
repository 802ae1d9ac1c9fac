/* pool.c - go_blocking: ordinary threads for what would hold up a worker.
 *
 * Promise: fn runs on a thread with a stack of 8 MiB while its green thread is parked and the
 * workers go on. As many threads as there are calls at once, up to a bound; beyond it calls wait in
 * the order in which they came. A thread without work for 10 s ends; an idle pool costs nothing.
 *
 * A JOB lives in the caller's frame, so a call allocates nothing but, at times, a thread.
 *   queued   in pool.queue. A cancel takes it off again, and fn is never called.
 *   running  taken by a thread. What fn uses is lent to it, so the caller stays until it has
 *            returned: a cancel finds the job gone from the queue, and parks again, HARD. Who has
 *            given a job with `drop`, whose memory is its own, leaves at once instead and the job
 *            is an orphan.
 *   over     set under the lock, together with the claim of the caller. A caller that was on its
 *            way, because it was just cancelled or not yet parked, finds `over` under the lock. The
 *            thread touches the job no more, unless it is an orphan, which it drops.
 *
 * WHO SERVES A JOB. Whoever queues one wakes the idle thread that went to sleep last (so the others
 * get old), or starts a thread when none is idle. It names no job: threads take the first of the
 * queue, and one that comes too late goes to sleep again. `coming` counts the threads that are on
 * their way to the queue: called, being started, or done with a job and making its caller ready.
 * While there are as many of them as jobs nobody is called, so there are never more threads than
 * there were calls at once. No job is left behind: each that comes takes one, and a thread looks at
 * the queue in the section in which it becomes idle or ends. When a thread cannot be started the
 * job waits for those that are there; when there are none (each of those just being started counts,
 * and may fail after us), all who wait are told -EAGAIN.
 *
 * AN IDLE THREAD sleeps on `called` in its own record. Who takes it off the list owes it one store
 * there, after the lock is released, so a thread whose time is over in that very moment waits for
 * the store before it goes on: its record must not go away first.
 *
 * THE END. A thread that ends joins the one that ended before it, so at most one is not joined; the
 * stop joins that one. It comes when no green thread is left, hence no job, but orphans: for those
 * it waits, as for green threads. A deadlock (sysmon.c) is none while somebody waits for a job: one
 * that is over counts until its caller has been made ready.
 *
 * Rejected: handing a job to a thread (a cancel would have to fetch it back from there); one futex
 * for all idle threads (wakes the wrong one, and the kernel's order is first in, first out: none
 * would get old); stopping a thread that hangs (pthread_cancel runs nobody's clean-up). */
#include "sched/pool.h"

#include "base/chaos.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/sys.h"
#include "sched/park.h"
#include "sched/start.h"
#include "sched/worker.h"

enum { STACK_BYTES = 8 * 1024 * 1024, ALT_STACK_BYTES = 64 * 1024, RECORD_BYTES = 4096 };

/* On top of its alternate signal stack, in one mapping. */
struct thread {
    struct rt_node idle; /* under the lock; next == NULL: not idle, or called */
    struct rt_node all;  /* under the lock, while it runs */
    pthread_t self;      /* written by itself, then under the lock */
    uint32_t called;     /* futex word */
};
_Static_assert(sizeof(struct thread) <= RECORD_BYTES, "in its mapping");

static struct {
    uint32_t lock;
    unsigned threads; /* with those that are just being started */
    unsigned queued, running, orphans;
    unsigned coming; /* threads that will look at the queue before long */
    bool stop;
    void *queue;          /* of jobs */
    void *idle;           /* of threads, the latest first */
    void *all;            /* likewise, in any order */
    struct thread *ended; /* the latest that has, not joined yet */
    uint32_t empty;       /* a note for the stop: the last thread has ended */
} pool;

int64_t rt_pool_keep_ns = INT64_C(10) * 1000 * 1000 * 1000;

/* ---- jobs, under the lock -------------------------------------------------------------------- */

static void enqueue(struct rt_job *job) {
    rt_queue_push(&pool.queue, &job->node);
    pool.queued++;
}

static void take_off(struct rt_job *job) {
    rt_queue_remove(&pool.queue, &job->node);
    pool.queued--;
}

static struct rt_job *dequeue(void) {
    if (!pool.queue)
        return NULL;
    struct rt_job *job = rt_container_of(pool.queue, struct rt_job, node);
    take_off(job);
    return job;
}

/* The last touch of a job that is no orphan. Who is returned must be made ready. */
static struct rt_g *finish(struct rt_job *job, int err) {
    struct rt_g *g = job->g;
    job->err = err;
    job->over = true;
    return g && rt_claim(g, job->seq, 0) ? g : NULL;
}

/* ---- threads --------------------------------------------------------------------------------- */

/* 0 once called; -ETIMEDOUT. */
static int sleep_until_called(struct thread *t, int64_t deadline) {
    while (rt_load_acquire(&t->called) == 0) { /* pairs with the release in call */
        int64_t left = deadline == INT64_MAX ? -1 : deadline - rt_sys_now();
        if (deadline != INT64_MAX && left <= 0)
            return -ETIMEDOUT;
        rt_sys_futex_wait(&t->called, 0, left);
    }
    return 0;
}

/* For whoever took t off the list, without the lock. */
static void call(struct thread *t) {
    uint32_t *word = &t->called;
    rt_chaos_delay("pool: off the list, not called");
    rt_store_release(word, 1); /* from here on t may be gone */
    rt_sys_futex_wake(word, 1);
}

/* Under the lock, which is given up meanwhile. False: nobody has needed t for a while. */
static bool be_idle(struct thread *t) {
    rt_store_relaxed(&t->called, 0);
    rt_queue_push_front(&pool.idle, &t->idle);
    rt_unlock(&pool.lock);
    int err = sleep_until_called(t, rt_sys_now() + rt_load_relaxed(&rt_pool_keep_ns));
    rt_lock(&pool.lock);
    if (err == 0)
        return true;
    if (t->idle.next) {
        rt_queue_remove(&pool.idle, &t->idle);
        return false;
    }
    rt_unlock(&pool.lock); /* called just now */
    sleep_until_called(t, INT64_MAX);
    rt_lock(&pool.lock);
    return true;
}

/* Under the lock, which is given up meanwhile. */
static void run(struct rt_job *job) {
    pool.running++;
    rt_unlock(&pool.lock);
    rt_chaos_delay("pool: taken, not begun");
    job->result = job->fn(job->arg);
    if (rt_foreign_self()->scope)
        rt_fatal("go_blocking: a scope was entered and not left");
    rt_lock(&pool.lock);
    pool.coming++;
    bool orphan = job->g == NULL;
    struct rt_g *g = finish(job, 0);
    if (orphan)
        pool.orphans--, pool.running--;
    rt_unlock(&pool.lock);
    if (orphan)
        job->drop(job);
    if (g)
        rt_ready(g);
    rt_lock(&pool.lock);
    if (!orphan)
        pool.running--; /* after its caller has been made ready: sysmon looks at it */
}

static void reap(struct thread *t) {
    if (!t)
        return;
    pthread_join(t->self, NULL);
    rt_sys_unmap((char *)t - ALT_STACK_BYTES, ALT_STACK_BYTES + RECORD_BYTES);
}

static void *thread_main(void *arg) {
    struct thread *t = arg;
    rt_sys_thread_name("gort-blk");
    rt_sys_alt_stack((char *)t - ALT_STACK_BYTES, ALT_STACK_BYTES);
    t->self = pthread_self();
    rt_lock(&pool.lock);
    rt_queue_push(&pool.all, &t->all);
    for (;;) {
        pool.coming--;
        struct rt_job *job = dequeue();
        if (job)
            run(job);
        else if (pool.stop)
            break;
        else if (!be_idle(t)) {
            if (!pool.queue)
                break;
            pool.coming++; /* too late to be called, not to look */
        }
    }
    rt_queue_remove(&pool.all, &t->all);
    struct thread *before = pool.ended;
    pool.ended = t;
    bool last = --pool.threads == 0;
    rt_thread_give();
    rt_unlock(&pool.lock);
    rt_sys_alt_stack(NULL, 0);
    if (last)
        rt_note_wake(&pool.empty);
    reap(before);
    return NULL;
}

static int start_thread(void) {
    char *base = rt_sys_map(ALT_STACK_BYTES + RECORD_BYTES);
    if (!base)
        return -ENOMEM;
    int err = rt_sys_thread_sized(thread_main, base + ALT_STACK_BYTES, STACK_BYTES);
    if (err)
        rt_sys_unmap(base, ALT_STACK_BYTES + RECORD_BYTES);
    return err;
}

/* ---- the call -------------------------------------------------------------------------------- */

/* Under the lock, and there is no thread: nobody will come. */
static void fail_queue(void) {
    struct rt_glist gone = {0};
    for (struct rt_job *job; (job = dequeue()) != NULL;) {
        struct rt_g *g = finish(job, -EAGAIN);
        if (g)
            rt_glist_push(&gone, g);
    }
    rt_unlock(&pool.lock);
    rt_ready_all(&gone);
    rt_lock(&pool.lock);
}

/* Under the lock, which is given up meanwhile: call an idle thread. False: there is none. */
static bool call_idle(void) {
    struct rt_node *n = rt_queue_pop(&pool.idle);
    if (!n)
        return false;
    pool.coming++;
    rt_unlock(&pool.lock);
    call(rt_container_of(n, struct thread, idle));
    rt_lock(&pool.lock);
    return true;
}

/* Under the lock, with a job in the queue; the lock may be given up meanwhile. */
static void get_help(void) {
    if (pool.queued <= pool.coming || call_idle())
        return;
    if (rt_thread_take()) {
        pool.threads++;
        pool.coming++;
        rt_unlock(&pool.lock);
        rt_chaos_delay("pool: counted as coming, not started");
        int err = start_thread();
        rt_lock(&pool.lock);
        if (err) {
            pool.threads--;
            pool.coming--;
            rt_thread_give();
            if (pool.queued > pool.coming)
                call_idle(); /* who came meanwhile has counted on this one */
        }
    }
    if (pool.threads == 0)
        fail_queue();
}

/* Under the lock: the wait ended before the job was over. 0: fn has been called after all; or the
 * park's error, and the job is nobody's or the pool's. The lock is released. */
static int give_up(struct rt_job *job, int err) {
    struct rt_g *g = job->g;
    bool queued = job->node.next != NULL;
    if (queued) {
        take_off(job);
    } else if (job->over) {
        err = 0;
    } else if (job->drop) {
        job->g = NULL;
        pool.orphans++;
    } else {
        job->seq = rt_park_seq(g);
        err = rt_park(g, &pool.lock, RT_HARD, GO_FOREVER, RT_WHY_BLOCKING); /* unlocks */
        return err;
    }
    rt_unlock(&pool.lock);
    if (queued && job->drop)
        job->drop(job);
    return err;
}

static int dropped(struct rt_job *job, int err) {
    if (err && job->drop)
        job->drop(job);
    return err;
}

int rt_pool_run(struct rt_job *job) {
    struct rt_g *g = rt_self();
    int err = rt_cancel_check(g);
    if (err)
        return dropped(job, err);
    job->g = g;
    job->seq = rt_park_seq(g);
    rt_lock(&pool.lock);
    enqueue(job);
    get_help();
    if (job->over) {
        rt_unlock(&pool.lock);
        return dropped(job, job->err);
    }
    rt_chaos_delay("pool: queued, not parked");
    err = rt_park(g, &pool.lock, RT_WAITING, g->limit, RT_WHY_BLOCKING);
    if (err == 0)
        return dropped(job, job->err);
    rt_lock(&pool.lock);
    err = give_up(job, err);
    return err == 0 ? dropped(job, job->err) : rt_cancel_result(g, err, GO_FOREVER);
}

int go_blocking(void *(*fn)(void *), void *arg, void **result) {
    struct rt_g *g = rt_self();
    struct rt_job job = {.fn = fn, .arg = arg};
    int err;
    if (!fn)
        return -EINVAL;
    if (g->flags & RT_G_THREAD) {
        err = rt_running() ? -ENXIO : rt_cancel_check(g);
        if (err == 0)
            job.result = fn(arg);
    } else {
        err = rt_pool_run(&job);
    }
    if (err == 0 && result)
        *result = job.result;
    return err;
}

/* ---- start, stop, questions ------------------------------------------------------------------ */

struct rt_pool_counts rt_pool_counts(void) {
    rt_lock(&pool.lock);
    struct rt_pool_counts c = {.threads = pool.threads,
                               .queued = pool.queued,
                               .waits = pool.queued + pool.running - pool.orphans,
                               .orphans = pool.orphans};
    rt_unlock(&pool.lock);
    return c;
}

bool rt_pool_is_ours(void) {
    pthread_t self = pthread_self();
    bool found = false;
    rt_lock(&pool.lock);
    struct rt_node *first = pool.all, *n = first;
    if (n)
        do {
            found = pthread_equal(rt_container_of(n, struct thread, all)->self, self);
            n = n->next;
        } while (n != first && !found);
    rt_unlock(&pool.lock);
    return found;
}

/* Another thread may have been asking whether it is one of the pool. */
void rt_pool_fork_child(void) {
    rt_store_relaxed(&pool.lock, 0);
}

void rt_pool_start(void) {
    rt_lock(&pool.lock);
    pool.threads = pool.queued = pool.running = pool.orphans = pool.coming = 0;
    pool.stop = false;
    pool.empty = 0;
    pool.ended = NULL;
    pool.queue = pool.idle = pool.all = NULL;
    rt_unlock(&pool.lock);
}

void rt_pool_stop(void) {
    rt_lock(&pool.lock);
    pool.stop = true;
    while (call_idle())
        ;
    while (pool.threads != 0) {
        rt_unlock(&pool.lock);
        rt_note_wait(&pool.empty, -1);
        rt_lock(&pool.lock);
    }
    struct thread *last = pool.ended;
    pool.ended = NULL;
    rt_unlock(&pool.lock);
    reap(last);
}
