/* start.c - boot and stop.
 *
 * Promise: after a failed go_start nothing is left, after go_stop returned 0 no thread, descriptor
 * or mapping is left, and both may be done again and again.
 *
 * State: STOPPED -> STARTING -> RUNNING -> STOPPING -> STOPPED. A child that is forked in any other
 * state than STOPPED is FORKED for ever: it has the memory of a runtime, and none of its threads.
 *
 * The stop: (1) state = STOPPING, no spawn begins any more; (2) every G gets RT_ATT_STOP and is
 * claimed if it is parked, again and again, because some were just on their way, and from half of
 * the grace on inside a shield, too; (3) all have ended, and what they left to the pool; (4)
 * foreign threads have left; (5) the threads of the pool, sysmon and the Ms are told, woken and
 * joined; (6) memory is freed. A stop whose grace is over leaves after (2), and the next go_stop
 * goes on there. */
#include "sched/start.h"

#include "base/chaos.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/sys.h"
#include "sched/env.h"
#include "sched/g.h"
#include "sched/idle.h"
#include "sched/park.h"
#include "sched/poller.h"
#include "sched/pool.h"
#include "sched/proc.h"
#include "sched/procs.h"
#include "sched/retake.h"
#include "sched/spawn.h"
#include "sched/stack.h"
#include "sched/sysmon.h"
#include "sched/timer.h"
#include "sched/worker.h"

#include <stdio.h>
#include <string.h>

enum { MOST_MS = RT_MAX_PROCS + 1024 };
static const size_t DEFAULT_STACK = 256 * 1024;
static const int64_t STOP_NAP_MIN_NS = 20 * 1000, STOP_NAP_MAX_NS = 1000 * 1000;

struct rt_sched rt;
__thread struct rt_m *rt_tls_m __attribute__((tls_model("initial-exec")));

static uint32_t stopper; /* 1 while a thread is in go_stop */
static bool registered;  /* for membarrier; whoever has made the state STARTING looks */
static uint32_t ending;  /* 1 from when the stop takes down what foreign threads may touch */

static struct {
    uint32_t done;      /* futex word: the first green thread has ended, or a deadlock was found */
    void (*fn)(void *);
    void *arg;
} run;

/* ---- who may come in ------------------------------------------------------------------------- */

int rt_not_running(void) {
    return rt_load_relaxed(&rt.state) == RT_STOPPING ? -ESHUTDOWN : -ENXIO;
}

int rt_foreign_enter(void) {
    rt_fetch_add(&rt.foreign, 1); /* then the state: the stop changes it, then waits for 0 */
    if (rt_load_seq_cst(&rt.state) == RT_RUNNING)
        return 0;
    int err = rt_not_running();
    rt_foreign_leave();
    return err;
}

/* `ending` is read first: who has read 0 is counted since before the stop sets it, and so waited
 * for, whichever state it reads then. */
int rt_foreign_enter_to_close(void) {
    rt_fetch_add(&rt.foreign, 1);
    bool whole = rt_load_seq_cst(&ending) == 0;
    uint32_t state = rt_load_acquire(&rt.state); /* pairs with the last store in start */
    if (state == RT_RUNNING || (state == RT_STOPPING && whole))
        return 0;
    int err = rt_not_running();
    rt_foreign_leave();
    return err;
}

void rt_foreign_leave(void) {
    rt_fetch_sub_release(&rt.foreign, 1); /* pairs with the looks in stop */
    rt_sysmon_look();
}

/* ---- boot ------------------------------------------------------------------------------------ */

static const size_t PS_BYTES = (RT_MAX_PROCS + 1) * sizeof(struct rt_p);

static size_t ms_bytes(void) {
    return (rt.max_ms + 2) * sizeof(struct rt_m);
}

static void free_all(void) {
    for (uint32_t i = 0; rt.ps && i < rt.procs_ever; i++)
        rt_sys_free(rt.ps[i].timers);
    if (rt.nobody)
        rt_sys_free(rt.nobody->timers);
    rt_sys_free_sparse(rt.ps, PS_BYTES);
    rt_sys_free_sparse(rt.ms, ms_bytes());
    rt.ps = rt.nobody = NULL;
    rt.ms = NULL;
    rt_g_stop();
    rt_stack_stop();
}

/* The P that nobody holds, and the Ms that never run. */
static void make_nobody(void) {
    rt.nobody = &rt.ps[RT_MAX_PROCS];
    rt.nobody->index = RT_MAX_PROCS;
    rt.nobody->timer_when = INT64_MAX;
    rt.nobody->attention = RT_P_PREEMPT; /* so whoever has no P gives way at each checkpoint */
    rt.nobody->m = &rt.ms[rt.max_ms];
    rt.nobody->m->index = rt.max_ms;
    rt.nobody->m->p = rt.nobody;
    rt.absent = &rt.ms[rt.max_ms + 1];
    rt_m_init(rt.absent, rt.max_ms + 1);
    rt.absent->sleep = RT_SLEEP_FUTEX; /* so sysmon does not look at its Ps */
}

static int make_ps_and_ms(void) {
    rt.ps = rt_sys_alloc_sparse(PS_BYTES);
    rt.ms = rt_sys_alloc_sparse(ms_bytes());
    if (!rt.ps || !rt.ms)
        return -ENOMEM;
    make_nobody();
    for (uint32_t i = 0; i < rt.nms; i++)
        rt_m_init(&rt.ms[i], i);
    for (uint32_t i = 0; i < rt.procs; i++) {
        struct rt_p *p = &rt.ps[i];
        rt_p_init(p, i);
        p->m = &rt.ms[i];
        p->m->p = p;
        p->m->gate = RT_GATE_OPEN;
    }
    return 0;
}

/* How many Ms there may be, and are at first. */
static void plan_threads(void) {
    rt.threads_left = rt.max_threads - rt.procs - 1; /* one is sysmon */
    rt.nms = rt.procs;
    uint32_t most = rt.threads_asked ? rt.max_threads - 1 : RT_MAX_PROCS + RT_MORE_THREADS;
    rt.max_ms = most < MOST_MS ? most : MOST_MS;
    if (!(rt.flags & GO_STRICT) && rt.threads_left >= RT_ROOM_FOR_A_SPARE) {
        rt.nms++;
        rt.threads_left--;
    }
}

/* Half of what the cgroup allows, at what a task needs when it waits: the page of its stack that it
 * has touched, its record, and its part of the page tables. A table is a page and maps 512 of them;
 * a slot that is longer than that has two for itself, one below the guard's end and one at the top.
 * The other half is for what tasks use besides, and for the rest of the program. */
static size_t default_max_tasks(void) {
    uint64_t limit = rt_sys_memory_limit();
    if (limit == UINT64_MAX)
        return SIZE_MAX;
    size_t page = rt_sys_page_size(), slot = rt_stack_slot_bytes(rt.stack_class);
    size_t tables = slot / 512 < page ? slot / 512 : 2 * page;
    uint64_t n = limit / 2 / (page + sizeof(struct rt_g) + tables);
    return n == 0 ? 1 : n < SIZE_MAX ? (size_t)n : SIZE_MAX;
}

static int settings(const struct go_options *opt, const struct rt_env *env, const char **netpoll) {
    static const struct go_options defaults = GO_OPTIONS_INIT;
    if (!opt)
        opt = &defaults;
    if (opt->size < sizeof *opt || opt->procs > RT_MAX_PROCS || (opt->flags & ~GO_STRICT))
        return -EINVAL;
    uint32_t procs = opt->procs ? opt->procs : env->procs ? env->procs : rt_sys_cpus();
    rt.procs_asked = opt->procs || env->procs;
    rt_store_relaxed(&rt.procs, procs < RT_MAX_PROCS ? procs : RT_MAX_PROCS); /* spin.h reads it */
    rt_store_relaxed(&rt.procs_ever, rt.procs);
    rt.threads_asked = opt->max_threads != 0;
    rt.max_threads = opt->max_threads ? opt->max_threads : rt.procs + RT_MORE_THREADS;
    if (rt.max_threads < rt.procs + 1)
        return -EINVAL;
    size_t stack = opt->stack_size ? opt->stack_size : env->stack ? env->stack : DEFAULT_STACK;
    int size_class = rt_stack_class(stack);
    if (size_class < 0)
        return size_class;
    rt.stack_class = (uint8_t)size_class;
    rt.max_tasks = opt->max_tasks ? opt->max_tasks : default_max_tasks();
    rt.flags = opt->flags;
    plan_threads();
    *netpoll = opt->netpoll ? opt->netpoll : env->netpoll ? env->netpoll : "auto";
    return 0;
}

/* Netpoller and workers. With "auto", an engine that cannot be set up on some worker is
 * replaced. */
static int start_engine(const char *netpoll) {
    int err = rt_poller_start(netpoll, rt.nms);
    if (err)
        return err;
    err = rt_workers_start();
    if (err == 0)
        return 0;
    bool retry = !strcmp(netpoll, "auto") && rt_poller && strcmp(rt_poller->name, "epoll") != 0 &&
                 err != -EAGAIN;
    rt_poller_stop();
    if (!retry)
        return err;
    err = rt_poller_start("epoll", rt.nms);
    if (err)
        return err;
    rt_poller_why = "io_uring failed on a worker";
    err = rt_workers_start();
    if (err)
        rt_poller_stop();
    return err;
}

static void end_workers(void) {
    for (uint32_t i = 0; i < rt.procs_ever; i++)
        rt_fetch_or_relaxed(&rt.ps[i].attention, RT_P_STOP);
    rt_workers_release(true);
    rt_idle_wake_all(); /* takes a lock that a worker takes before it sleeps, and then looks */
    rt_spares_end();
    rt_workers_join(rt.nms);
}

/* In the only thread of the child. What the others were doing outside a runtime ends half-way: one
 * that was being refused, or was about to return from go_stop. */
static void fork_child(void) {
    rt_tls_m = NULL;
    rt_lot_fork_child();
    rt_local_fork_child();
    rt_long_run_fork_child();
    rt_store_relaxed(&stopper, 0);
    if (rt_load_relaxed(&rt.state) != RT_STOPPED) {
        rt_store_relaxed(&rt.state, RT_FORKED);
        return;
    }
    rt_share_fork_child();
    rt_pool_fork_child();
    rt_store_relaxed(&rt.foreign, 0);
    registered = false;
}

/* At the first start would be too late: a fork that has begun by then does not call it, and the
 * child would find a runtime that is STARTING. */
static __attribute__((constructor)) void at_load(void) {
    pthread_atfork(NULL, NULL, fork_child);
}

uint32_t rt_starts;

static int start(const struct go_options *opt, const struct rt_env *env, bool watch_deadlock,
                 uint32_t *number) {
    uint32_t state = RT_STOPPED;
    if (rt_tls_m || !rt_cas_acquire(&rt.state, &state, RT_STARTING)) /* with go_stop's release */
        return state == RT_FORKED ? -ENXIO : -EALREADY;
    if (!registered)
        rt_store_relaxed(&rt_asymmetric, rt_sys_membarrier_register());
    registered = true;
    const char *netpoll;
    int err = settings(opt, env, &netpoll);
    if (err) {
        rt_store_release(&rt.state, RT_STOPPED);
        return err;
    }
    rt_chaos_start(env->chaos, env->seed, env->chaos_at);
    rt.seed = env->seed ? env->seed : rt_sys_random();
    rt.pid = rt_sys_pid();
    rt_store_relaxed(&rt.watch_deadlock, watch_deadlock);
    rt.deadlocked = 0;
    rt_store_release(&ending, 0); /* who reads it does not read the state of before */
    rt.foreign_spawned = rt.foreign_ended = 0;
    rt_idle_start();
    rt_g_start(rt.max_tasks);
    rt_pool_start();
    rt_spares_start();
    rt_procs_start();
    err = rt_stack_start(rt.procs, rt.stack_class);
    if (err == 0)
        err = make_ps_and_ms();
    if (err == 0)
        err = start_engine(netpoll);
    if (err == 0) {
        err = rt_sysmon_start();
        if (err) {
            rt_workers_release(false);
            rt_workers_join(rt.nms);
            rt_poller_stop();
        }
    }
    if (err) {
        free_all();
        rt_store_release(&rt.state, RT_STOPPED);
        return err;
    }
    rt_workers_release(true);
    rt_store_relaxed(&rt_starts, rt_starts + 1);
    if (number)
        *number = rt_starts;
    rt_store_release(&rt.state, RT_RUNNING); /* last: now somebody may stop and start anew */
    return 0;
}

int rt_start(const struct go_options *opt, uint32_t *number) {
    struct rt_env env;
    rt_env_read(&env);
    return start(opt, &env, false, number);
}

int go_start(const struct go_options *opt) {
    return rt_start(opt, NULL);
}

/* ---- stop ------------------------------------------------------------------------------------ */

/* Green threads that have not ended. All ends are read first: the spawn of whoever is counted as
 * ended is seen then, so nobody who lives is missed, and who reads 0 after spawns have ceased sees
 * what they all have done. */
uint64_t rt_live(uint64_t *spawned, uint64_t *ended) {
    uint64_t e = rt_load_acquire(&rt.foreign_ended), s = 0; /* pairs with rt_spawn_undo */
    uint32_t n = rt_load_relaxed(&rt.procs_ever);
    for (uint32_t i = 0; i < n; i++)
        e += rt_load_acquire(&rt.ps[i].ended); /* pairs with the release in rt_g_over */
    n = rt_load_relaxed(&rt.procs_ever); /* no less than it was when these ended */
    for (uint32_t i = 0; i < n; i++)
        s += rt_load_relaxed(&rt.ps[i].spawned);
    s += rt_load_relaxed(&rt.foreign_spawned);
    *spawned = s;
    *ended = e;
    return s - e;
}

static uint64_t live(void) {
    uint64_t spawned, ended;
    return rt_live(&spawned, &ended);
}

static bool mark_stopping(struct rt_g *g, void *bits) {
    if (RT_WAIT_STATE(rt_load_relaxed(&g->wait)) != RT_DEAD)
        rt_fetch_or_release(&g->attention, *(const uint32_t *)bits); /* with rt_cancel_slow's */
    return true;
}

static bool wake_stopping(struct rt_g *g, void *arg) {
    (void)arg;
    if (rt_cancel_claim(g))
        rt_ready(g);
    return true;
}

static const char *why_text(uint32_t why) {
    static const char *const text[] = {
        [RT_WHY_NONE] = "running or runnable", [RT_WHY_CHAN_SEND] = "channel send",
        [RT_WHY_CHAN_RECV] = "channel receive", [RT_WHY_MUTEX] = "mutex lock",
        [RT_WHY_WAITGROUP] = "waitgroup wait",  [RT_WHY_JOIN] = "task join",
        [RT_WHY_SLEEP] = "sleep",               [RT_WHY_IO_READ] = "I/O: readable",
        [RT_WHY_IO_WRITE] = "I/O: writable",    [RT_WHY_SELECT] = "select",
        [RT_WHY_OTHER] = "parked",              [RT_WHY_RWMUTEX] = "rwmutex lock",
        [RT_WHY_COND] = "cond wait",            [RT_WHY_ONCE] = "once",
        [RT_WHY_SEM] = "semaphore acquire",     [RT_WHY_BARRIER] = "barrier wait",
        [RT_WHY_GROUP] = "group wait",         [RT_WHY_BLOCKING] = "blocking call",
        [RT_WHY_PROCS] = "set procs"};
    return why < sizeof text / sizeof *text ? text[why] : "?";
}

struct naming {
    unsigned left;
    bool at_rest; /* nobody runs: what they wait for can be looked at */
};

struct search {
    const uint32_t *lock;
    uint64_t holder;
};

static bool is_holder(struct rt_g *g, void *arg) {
    struct search *s = arg;
    uint64_t id = rt_load_relaxed(&g->id);
    if (RT_WAIT_STATE(rt_load_relaxed(&g->wait)) != RT_DEAD && rt_mutex_held(s->lock, id))
        s->holder = id;
    return s->holder == 0;
}

static bool name_one(struct rt_g *g, void *arg) {
    struct naming *n = arg;
    uint64_t word = rt_load_acquire(&g->wait);
    if (RT_WAIT_STATE(word) == RT_DEAD)
        return true;
    /* It may be about to end, or go on: relaxed, and each once. */
    uint32_t why =
        RT_WAIT_STATE(word) >= RT_WAITING ? rt_load_relaxed(&g->waiting_for) : RT_WHY_NONE;
    unsigned long long id = rt_load_relaxed(&g->id);
    const char *name = rt_load_relaxed(&g->name);
    char held[48] = "";
    if (n->at_rest && why == RT_WHY_MUTEX) {
        struct search s = {g->park_lock, 0};
        rt_g_each(is_holder, &s);
        if (s.holder)
            snprintf(held, sizeof held, ", held by green thread %llu",
                     (unsigned long long)s.holder);
    }
    rt_log("  green thread %llu%s%s: %s%s", id, name ? " " : "", name ? name : "", why_text(why),
           held);
    return --n->left != 0;
}

static void name_all(bool at_rest) {
    struct naming n = {100, at_rest};
    rt_g_each(name_one, &n);
    if (n.left == 0)
        rt_log("  ... (%llu in all)", (unsigned long long)live());
    unsigned orphans = rt_pool_counts().orphans;
    if (orphans != 0)
        rt_log("  lookups of names that were given up and still run: %u", orphans);
}

static bool all_over(void) {
    return live() == 0 && rt_pool_counts().orphans == 0;
}

/* Steps (2) and (3). From pierce_at on shields do not help. */
static bool cancel_all_until(int64_t pierce_at, int64_t deadline) {
    int64_t nap = STOP_NAP_MIN_NS;
    while (!all_over()) {
        uint32_t bits = RT_ATT_STOP;
        if (rt_sys_now() >= pierce_at)
            bits |= RT_ATT_PIERCE;
        rt_g_each(mark_stopping, &bits);
        rt_fence_heavy(); /* attention, then the word: pairs with the light fence in rt_commit */
        rt_g_each(wake_stopping, NULL);
        if (rt_pool_counts().waits != 0)
            rt_poller_evict(); /* they wait for what a foreign thread of ours may wait for */
        if (all_over())
            break;
        if (rt_sys_now() >= deadline)
            return false;
        rt_sys_nap(nap);
        nap = nap * 2 < STOP_NAP_MAX_NS ? nap * 2 : STOP_NAP_MAX_NS;
    }
    return true;
}

static int stop(int64_t grace_ns) {
    int64_t now = rt_sys_now(), deadline;
    if (__builtin_add_overflow(now, grace_ns, &deadline))
        deadline = grace_ns > 0 ? INT64_MAX : now;
    int64_t pierce_at = now + (deadline - now) / 2;
    do {
        if (!cancel_all_until(pierce_at, deadline)) {
            rt_log("stop: these have not ended:");
            name_all(false);
            return -ETIMEDOUT;
        }
        while (rt_load_seq_cst(&rt.foreign) != 0) { /* some may be parked on descriptors */
            rt_poller_evict();
            rt_sys_nap(STOP_NAP_MIN_NS);
        }
    } while (!all_over()); /* a foreign thread had come in before the stop, and spawned */
    rt_store_seq_cst(&ending, 1); /* then the count: see rt_foreign_enter_to_close */
    while (rt_load_seq_cst(&rt.foreign) != 0) /* those that close, and wait for nothing */
        rt_sys_nap(STOP_NAP_MIN_NS);
    rt_pool_stop();
    rt_sysmon_stop(); /* which starts threads */
    end_workers();
    rt_poller_stop();
    while (rt_load_acquire(&rt.foreign) != 0) /* who joins a task that was just ending: join.c */
        rt_sys_nap(STOP_NAP_MIN_NS);
    free_all(); /* who comes in from now on counts himself, reads the state, and goes */
    return 0;
}

/* Until rt_stop_end only who has the stopper decides what becomes of the start that runs. */
int rt_stop_begin(uint32_t number) {
    if (number && number != rt_load_relaxed(&rt_starts))
        return -ENXIO;
    uint32_t state = rt_load_relaxed(&rt.state), idle = 0;
    if (rt_m() || ((state == RT_RUNNING || state == RT_STOPPING) && rt_pool_is_ours()))
        return -EDEADLK;
    if (!rt_cas_acquire(&stopper, &idle, 1)) /* pairs with the release in rt_stop_end */
        return -EALREADY;
    state = rt_load_acquire(&rt.state); /* then the number, which is set before: start */
    bool there = state == RT_RUNNING || state == RT_STOPPING;
    there &= number == 0 || number == rt_load_relaxed(&rt_starts);
    rt_chaos_delay("start: known which, not stopped");
    if (there && (rt_cas(&rt.state, &state, RT_STOPPING) || state == RT_STOPPING))
        return 0;
    rt_store_relaxed(&stopper, 0); /* nothing was done under it */
    return -ENXIO;
}

int rt_stop_end(int64_t grace_ns) {
    int err = stop(grace_ns);
    if (err == 0)
        rt_store_release(&rt.state, RT_STOPPED); /* pairs with the CAS in start */
    rt_store_release(&stopper, 0);
    return err;
}

int go_stop(int64_t grace_ns) {
    int err = rt_stop_begin(0);
    return err ? err : rt_stop_end(grace_ns);
}

/* ---- go_run ---------------------------------------------------------------------------------- */

static void run_done(void) {
    rt_store_release(&run.done, 1);
    rt_sys_futex_wake(&run.done, 1);
}

static void run_first(void *arg) {
    (void)arg;
    run.fn(run.arg);
    run_done();
}

void rt_start_deadlock(void) {
    if (rt_load_relaxed(&run.done) == 0 && live() != 0 &&
        rt_exchange_relaxed(&rt.deadlocked, 1) == 0)
        run_done();
}

int go_run(void (*fn)(void *), void *arg) {
    if (!fn)
        return -EINVAL;
    struct rt_env env;
    rt_env_read(&env);
    int err = start(NULL, &env, true, NULL);
    if (err)
        return err;
    run.fn = fn;
    run.arg = arg;
    rt_store_relaxed(&run.done, 0);
    struct rt_g *g;
    static const struct go_spawn_options name = {sizeof name, "go_run", 0};
    err = rt_spawn(&name, (void *)run_first, NULL, 0, &g);
    while (err == 0 && rt_load_acquire(&run.done) == 0) /* pairs with the release in run_done */
        rt_sys_futex_wait(&run.done, 0, -1);
    if (err == 0 && rt_load_relaxed(&rt.deadlocked)) {
        rt_log("all green threads are asleep - deadlock!");
        name_all(true);
        err = -EDEADLK;
    }
    int stopped;
    while ((stopped = go_stop(env.grace_ns)) == -EALREADY) /* it must be over when we return */
        rt_sys_nap(STOP_NAP_MAX_NS);
    if (stopped == -ENXIO) /* another thread has done it */
        stopped = 0;
    return err ? err : stopped;
}
