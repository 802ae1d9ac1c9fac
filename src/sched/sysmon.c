/* sysmon.c - a thread without a P, which notices what nobody else does.
 *
 * Every tick, 1 ms while some M is awake, 2.5 ms while all that are awake go from G to G so often
 * that nobody waits long (a tick costs 24 us, nearly all of them the kernel's timer and wake-up):
 *   - a P whose slice began more than 10 ms ago gets RT_P_PREEMPT: its G yields at the next call
 *     that parks, go_yield or go_checkpoint;
 *   - each P gets RT_P_LOOK: timers, completions and the global queue are seen at its next pick,
 *     also when each of its picks takes long;
 *   - the netpoller is looked at, in case every M is busy with one G; when one has passed its
 *     scheduler loop since the last tick it knows better whether it can serve more, so then only
 *     if nobody has looked for 3 ms;
 *   - a P in which nothing has begun or parked since the last tick is marked stale: what waits
 *     behind its G, in runnext too, is worth stealing; an M that sleeps is woken for this, for any
 *     ring that is not empty, or for a timer that nobody keeps;
 *   - a P whose G makes no progress while something waits behind it goes to another M (retake.c);
 *   - stacks that nobody has needed for a while go back to the system (stack.c).
 * After IDLE_TICKS ticks with all Ms asleep it sleeps until one wakes: an idle runtime uses no CPU.
 * The M that wakes up looks at rt_sysmon_asleep: sysmon sets it, heavy fence, looks at the idle
 * count again.
 *
 * A signal handler that has released a semaphore wakes it up, and it does what the handler could
 * not (sync/sem.c).
 *
 * It also tells a deadlock, for go_run alone: at DEADLOCK_TICKS ticks in a row every M sleeps,
 * nothing is queued, nobody waits with a deadline, for a descriptor, for a blocking call, or for a
 * semaphore (a signal handler may release it), nothing was spawned or has parked since the tick
 * before, and no thread is in the process that is not ours or the one waiting in go_run, who could
 * wake anybody. One look would not do: between its parts a foreign thread may have come and
 * spawned. A foreign thread that leaves the runtime, or a semaphore's queue, wakes sysmon for this
 * (rt_sysmon_look), which looks once more when it has announced its sleep. */
#include "sched/sysmon.h"

#include "base/lock.h"
#include "base/sys.h"
#include "sched/globq.h"
#include "sched/idle.h"
#include "sched/poller.h"
#include "sched/pool.h"
#include "sched/procs.h"
#include "sched/retake.h"
#include "sched/runq.h"
#include "sched/stack.h"
#include "sched/start.h"
#include "sched/timer.h"

#include <errno.h>

#ifndef RT_SYSMON_IDLE_TICKS
#define RT_SYSMON_IDLE_TICKS 20 /* tests/model has fewer */
#endif
enum { IDLE_TICKS = RT_SYSMON_IDLE_TICKS, DEADLOCK_TICKS = 3 };
enum { LIVELY = 100 }; /* slices and parks in a tick */
static const int64_t LIVELY_TICK_NS = 2500 * 1000;
static const int64_t SLOW_NS = 2500 * 1000; /* two ticks, late as they are */
static const int64_t MIN_SLEEP_NS = 50 * 1000;
static const int64_t THREADS_NS = 50 * 1000 * 1000;

int64_t rt_sysmon_tick_ns = 1000 * 1000;
uint32_t rt_sysmon_asleep;

struct seen {
    uint32_t ticks;       /* p->ticks, last time */
    int64_t since;        /* when it was first seen */
    uint64_t progress;    /* slices and parks, last time */
    struct rt_hog hog;
};

static const size_t SEEN_BYTES = RT_MAX_PROCS * sizeof(struct seen);

static struct {
    pthread_t thread;
    struct seen *seen;    /* of each P that there may be */
    uint32_t note;
    uint32_t stop;
    uint64_t suspicion;   /* of the last tick */
    int suspicious_ticks;
} mon;

static bool p_is_awake(const struct rt_p *p) {
    const struct rt_m *m = rt_m_of(p);
    return rt_load_relaxed(&m->sleep) == RT_AWAKE;
}

/* How much has begun and parked since the last tick in the Ps that are awake. */
struct pace {
    uint64_t least, most;
};

/* One P. True: somebody who sleeps could help. */
static bool look_at(struct rt_p *p, struct seen *seen, int64_t now, struct pace *pace) {
    uint32_t ticks = rt_load_relaxed(&p->ticks);
    bool help = rt_runq_len_any(p) != 0;
    if (!p_is_awake(p))
        return rt_load_relaxed(&p->timer_when) <= now;
    if (ticks != seen->ticks) {
        seen->ticks = ticks;
        seen->since = now;
    } else {
        if (help && now - seen->since >= SLOW_NS)
            rt_store_relaxed(&p->slow, ticks + 1);
        if (now - seen->since >= RT_SLICE_NS) {
            rt_store_relaxed(&go_checkpoint_due, 1);
            rt_fetch_or_relaxed(&p->attention, RT_P_PREEMPT);
        }
    }
    uint64_t progress = rt_progress_any(p);
    if (progress == seen->progress && (help || rt_load_relaxed(&p->runnext))) {
        rt_store_relaxed(&p->stale, ticks + 1);
        help = true;
    }
    uint64_t begun = progress - seen->progress;
    pace->least = begun < pace->least ? begun : pace->least;
    pace->most = begun > pace->most ? begun : pace->most;
    seen->progress = progress;
    return help || rt_load_relaxed(&p->timer_when) <= now;
}

/* go_checkpoint_due: does any checkpoint have to look closer? Nobody but sysmon writes it, so it is
 * sure to be set while a P's bit is, which sysmon alone sets; an M that has just lost its P, by
 * sysmon, had that bit. For the others it costs a call more until it is cleared. */
static void tell_checkpoints(void) {
    bool due = rt_retake_owed();
    for (uint32_t i = 0; i < rt.procs && !due; i++)
        due = rt_load_relaxed(&rt.ps[i].attention) & RT_P_PREEMPT;
    if (due != rt_load_relaxed(&go_checkpoint_due)) /* not a line that all would read anew */
        rt_store_relaxed(&go_checkpoint_due, due);
}

static int64_t tick(struct seen *seen) {
    int64_t now = rt_sys_now();
    bool help = rt_load_relaxed(&rt.nobody->timer_when) <= now;
    struct pace pace = {.least = UINT64_MAX};
    uint32_t procs = rt_procs();
    for (uint32_t i = 0; i < procs; i++)
        help |= look_at(&rt.ps[i], &seen[i], now, &pace);
    if (rt_poller) {
        struct rt_glist ready = {0};
        bool nobody = pace.most <= 2 * RT_PICKS; /* a slice counts, and its park */
        rt_poller->poll(NULL, nobody, &ready);
        rt_globq_push(&ready);
    }
    help |= rt_globq_size() != 0;
    if (help)
        rt_idle_wake_foreign();
    bool lively = pace.least >= LIVELY && pace.least != UINT64_MAX;
    int64_t next = rt_load_relaxed(&rt_sysmon_tick_ns), when = rt_timer_earliest_any();
    if (lively && next < LIVELY_TICK_NS)
        next = LIVELY_TICK_NS;
    int64_t again = INT64_MAX;
    for (uint32_t i = 0; i < procs; i++)
        if (p_is_awake(&rt.ps[i])) {
            if (!(rt_load_relaxed(&rt.ps[i].attention) & RT_P_LOOK)) /* what was queued here, too */
                rt_fetch_or_relaxed(&rt.ps[i].attention, RT_P_LOOK);
            int64_t ns = rt_retake_look(&rt.ps[i], &seen[i].hog, now);
            again = ns < again ? ns : again;
        }
    rt_retake_spare();
    tell_checkpoints();
    bool kept = rt_load_relaxed(&rt_idle.keeper_when) <= when; /* by an M that sleeps until then */
    if (!kept && when - now < next)
        next = when - now;
    if (again < next)
        next = again;
    return next > MIN_SLEEP_NS ? next : MIN_SLEEP_NS;
}

static bool all_idle(void) {
    return rt_idle_count(rt_load_relaxed(&rt_idle.word)) == rt_load_relaxed(&rt_idle.held);
}

/* A number that changes with each spawn and park; 0: not even suspicious. */
static uint64_t suspicion(bool *but_for_threads) {
    struct rt_pool_counts pool = rt_pool_counts();
    uint64_t spawned, ended;
    if (rt_live(&spawned, &ended) == 0) /* a first one may be spawned while we look around here */
        return 0;
    if ((rt_poller && rt_poller->waits() != 0) || rt_load_relaxed(&rt.foreign) != 0 ||
        rt_globq_size() != 0 || rt_sem_waited() || pool.waits != 0 || rt_procs_changes())
        return 0;
    *but_for_threads = rt_retake_away() != 0; /* nobody tells when it comes back and parks */
    if (*but_for_threads)
        return 0;
    if (rt_timer_awaited_any())
        return 0;
    uint64_t n = 1 + rt_load_relaxed(&rt.foreign_spawned);
    n += rt_load_relaxed(&rt.nobody->parks);
    for (uint32_t i = 0; i < rt.procs_ever; i++) {
        struct rt_p *p = &rt.ps[i];
        if (rt_runq_len_any(p) != 0 || rt_load_relaxed(&p->runnext))
            return 0;
        n += rt_load_relaxed(&p->spawned) + rt_load_relaxed(&p->parks);
    }
    /* The Ms, sysmon, who is in go_run, TSan's own, and idle ones of the pool. */
    int ours = (int)(rt_retake_threads() + pool.threads) + 2 + RT_TSAN;
    *but_for_threads = rt_sys_thread_count() != ours;
    return *but_for_threads ? 0 : n;
}

/* True: look again before long. Threads end without telling anybody, and so do those without a P
 * that park; and a suspicion wants its ticks. */
static bool watch_deadlock(bool idle) {
    bool again = false;
    uint64_t now = idle ? suspicion(&again) : 0;
    mon.suspicious_ticks = now != 0 && now == mon.suspicion ? mon.suspicious_ticks + 1 : 0;
    mon.suspicion = now;
    if (mon.suspicious_ticks >= DEADLOCK_TICKS)
        rt_start_deadlock();
    return again || (now != 0 && mon.suspicious_ticks < DEADLOCK_TICKS);
}

/* Once more, now that whoever changes it wakes sysmon: has nothing changed since? */
static bool still_the_same(bool *again) {
    bool but_for_threads = false;
    uint64_t now = suspicion(&but_for_threads);
    *again |= but_for_threads;
    return now == mon.suspicion;
}

static int64_t idle_sleep(bool watch_threads, int64_t scavenge_ns) {
    if (scavenge_ns != INT64_MAX)
        return scavenge_ns > MIN_SLEEP_NS ? scavenge_ns : MIN_SLEEP_NS;
    return watch_threads ? THREADS_NS : -1;
}

static void *sysmon_main(void *arg) {
    struct seen *seen = mon.seen;
    int idle_ticks = 0;
    (void)arg;
    while (!rt_load_relaxed(&mon.stop)) {
        rt_sem_answer_all();
        int64_t sleep_ns = tick(seen);
        int64_t scavenge_ns = rt_stack_scavenge(rt_sys_now());
        int64_t change_ns = rt_procs_look(rt_sys_now());
        idle_ticks = all_idle() ? idle_ticks + 1 : 0;
        bool again = rt.watch_deadlock && watch_deadlock(idle_ticks != 0);
        if (idle_ticks >= IDLE_TICKS) {
            rt_store_relaxed(&rt_sysmon_asleep, 1);
            rt_fence_heavy(); /* pairs with the light one in rt_sysmon_awake */
            if (all_idle() && (!rt.watch_deadlock || still_the_same(&again)))
                sleep_ns = idle_sleep(again, scavenge_ns);
            idle_ticks = 0;
        }
        if (change_ns >= 0 && (sleep_ns < 0 || change_ns < sleep_ns))
            sleep_ns = change_ns;
        rt_note_wait(&mon.note, sleep_ns);
        rt_store_relaxed(&rt_sysmon_asleep, 0);
    }
    return NULL;
}

void rt_sysmon_wake_slow(void) {
    if (rt_exchange_relaxed(&rt_sysmon_asleep, 0)) /* who wakes it; the note orders */
        rt_note_wake(&mon.note);
}

void rt_sysmon_call_sig(void) {
    rt_note_wake(&mon.note);
}

int rt_sysmon_start(void) {
    mon.seen = rt_sys_alloc_sparse(SEEN_BYTES);
    if (!mon.seen)
        return -ENOMEM;
    mon.stop = rt_sysmon_asleep = 0;
    rt_store_relaxed(&mon.note, 0); /* a signal handler may call just now, for nobody here */
    mon.suspicion = 0;
    mon.suspicious_ticks = 0;
    int err = rt_sys_thread(&mon.thread, sysmon_main, NULL, "gort-sysmon");
    if (err)
        rt_sys_free_sparse(mon.seen, SEEN_BYTES);
    return err;
}

void rt_sysmon_stop(void) {
    rt_store_relaxed(&mon.stop, 1);
    rt_note_wake(&mon.note);
    pthread_join(mon.thread, NULL);
    rt_store_relaxed(&go_checkpoint_due, 0);
    rt_sys_free_sparse(mon.seen, SEEN_BYTES);
}
