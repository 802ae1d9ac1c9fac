/* retake.c - hogs: a P is taken from a thread that does not come back.
 *
 * C has no safe points, so a G that computes, or sleeps in a system call, cannot be made to leave
 * its thread: it may be inside malloc. But the P can leave. Then the G runs on, untouched, on a
 * thread without a P, and another thread with that P runs what has waited behind it.
 *
 * Promise: while something waits behind a G that has not called the runtime for a while, and there
 * is a spare M, the P of that G goes to the spare. From then on its thread touches no P until its G
 * has left it. Nothing is interrupted and no signal is sent.
 *
 * THE TAKING. sysmon passes the gate of the M (gate.h), so its thread is outside and stays there.
 * If it still runs the G that it ran a while ago, p->m becomes the spare and the gate is shut
 * instead of opened: what the thread finds when it comes back, on the slow side of a branch that it
 * has anyway. So the fast paths know nothing of all this. sysmon takes; any thread may.
 *   AWAY   gate shut, the G is on the thread. It calls the runtime as a foreign thread does
 *          (rt_enter answers NULL): spawns and wakes go through the global queue.
 *   SPARE  gate shut, no G: asleep on m->note, in the list.
 *   else   m->p->m == m, gate not shut.
 *
 * HOW IT COMES BACK.
 *   It parks: the commit needs no P, so it is made as ever on the loop of its own thread, and
 *   whoever wakes the G takes it along. A deadline goes to the heap of rt.nobody, the P that has
 *   no M and whose timers everybody fires. No lock is given up on the way, so it may hold some.
 *   It yields, or its function returns: it queues for a P in the global queue (rt_regain).
 * Then the thread is a spare.
 * go_lock_thread makes a G AWAY for as long as it likes: it does not come back when it parks, but
 * sleeps on a note of its own, as a foreign thread does (RT_G_NOTE).
 *
 * WHAT HANGS ON THE THREAD. Timers, queues and caches are the P's and go with it. So does the
 * thread's ring: the heir issues its polls again (poller->adopt), and the thread has it back, or
 * another, before it becomes a spare (poller->m_start). If it cannot it ends.
 *
 * HOW MANY. A thread that computes without a P is one more that wants a CPU. While there are as
 * many of these as Ps the next hog keeps its P until its slice is over; those that sleep in the
 * kernel do not count. max_threads bounds all: when there is no spare, a hog keeps its P. A spare
 * is started before it is needed: pthread_create may wait for a lock that a hog holds. The last
 * RT_ROOM_FOR_A_SPARE threads that max_threads allows are the pool's and go_lock_thread's. A spare
 * that nobody has needed for ten seconds ends, unless it is the last one.
 *
 * Rejected: a signal that switches away from the hog (no library is safe against that); to give the
 * hog its old P back (it would have to be taken from who has it now). */
#include "sched/retake.h"

#include "base/chaos.h"
#include "base/check.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/sys.h"
#include "sched/globq.h"
#include "sched/idle.h"
#include "sched/long_run.h"
#include "sched/park.h"
#include "sched/poller.h"
#include "sched/procs.h"
#include "sched/switch.h"
#include "sched/timer.h"
#include "sched/worker.h"

static const int64_t HOG_NS = 500 * 1000;   /* without progress */
static const int64_t GRACE_NS = 100 * 1000; /* from the request to give way to the taking */
static const int64_t COUNT_NS = 1000 * 1000;
static const int64_t TRY_AGAIN_NS = INT64_C(1000) * 1000 * 1000;

int64_t rt_spare_keep_ns = INT64_C(10) * 1000 * 1000 * 1000;

static struct {
    uint32_t lock;
    struct rt_m *list; /* through m->next_spare */
    bool stop;
    bool wanted;       /* by go_lock_thread, and there was none; any thread */
    uint32_t gone;     /* Ms that have ended, or could not begin */
    int64_t failed_at; /* when one could not; any thread */
    uint32_t change;   /* the latest of procs.c; sysmon's */
    uint32_t failed;   /* the latest change in which one was started that could not; lock */
    int err;           /* why; lock */
    uint32_t counted;  /* what computing() has found; these two are sysmon's */
    int64_t counted_at;
} spares;

/* ---- the list -------------------------------------------------------------------------------- */

static void push(struct rt_m *m) {
    m->next_spare = spares.list;
    rt_store_relaxed(&spares.list, m);
}

static struct rt_m *pop(void) {
    struct rt_m *m = spares.list;
    if (m)
        rt_store_relaxed(&spares.list, m->next_spare);
    return m;
}

static struct rt_m *take_spare(void) {
    rt_lock(&spares.lock);
    struct rt_m *m = pop();
    rt_unlock(&spares.lock);
    return m;
}

/* Nobody has needed m for a while; one spare stays, and all while Ps come, which may need them. */
static bool leave(struct rt_m *m) {
    bool left = false;
    rt_lock(&spares.lock);
    if (spares.list && spares.list->next_spare && !rt_procs_changes()) {
        struct rt_m **at = &spares.list;
        while (*at && *at != m)
            at = &(*at)->next_spare;
        left = *at != NULL; /* else it was taken just now */
        if (left)
            rt_store_relaxed(at, m->next_spare);
    }
    rt_unlock(&spares.lock);
    if (left)
        rt_fetch_add_relaxed(&spares.gone, 1);
    return left;
}

bool rt_spare_wait(struct rt_m *m) {
    int err = rt_poller && rt_poller->m_start ? rt_poller->m_start(m) : 0;
    rt_store_relaxed(&m->away, RT_AWAY_NOT);
    if (err) { /* another is started when it is needed */
        rt_spare_failed(m, err);
        return false;
    }
    rt_lock(&spares.lock);
    if (spares.stop)
        rt_store_relaxed(&m->end, 1);
    else
        push(m);
    rt_unlock(&spares.lock);
    rt_procs_spare_came();
    while (rt_gate_is_shut(m) && !rt_load_relaxed(&m->end))
        if (rt_note_wait(&m->note, rt_load_relaxed(&rt_spare_keep_ns)) != 0 && leave(m))
            return false;
    return !rt_gate_is_shut(m);
}

void rt_spares_start(void) {
    spares.list = NULL;
    spares.stop = spares.wanted = false;
    spares.gone = 0;
    spares.counted_at = INT64_MIN / 2;
    spares.failed_at = INT64_MIN / 2;
}

/* It may be slow to tell, and the change for which it was started over. */
void rt_spare_failed(const struct rt_m *m, int err) {
    rt_store_relaxed(&spares.failed_at, rt_sys_now());
    rt_lock(&spares.lock);
    if (m->started_in >= spares.failed) {
        spares.failed = m->started_in;
        spares.err = err;
    }
    rt_unlock(&spares.lock);
    rt_fetch_add_relaxed(&spares.gone, 1); /* not there any more: see rt_spares_there */
    rt_procs_spare_came();
}

uint32_t rt_spares_change(void) {
    return ++spares.change;
}

int rt_spares_failed(uint32_t change) {
    rt_lock(&spares.lock);
    int err = spares.failed == change ? spares.err : 0;
    rt_unlock(&spares.lock);
    return err;
}

uint32_t rt_spares_there(void) {
    uint32_t gone = rt_load_relaxed(&spares.gone);
    return rt.nms - rt_load_relaxed(&rt_idle.held) - rt_retake_away() - gone;
}

uint32_t rt_spares_given_back(void) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < rt.nms; i++)
        n += rt_load_acquire(&rt.ms[i].gone); /* its thread was given back: see rt_spares_ending */
    return n;
}

bool rt_spares_ending(uint32_t given_back) {
    return rt_load_relaxed(&spares.gone) != given_back; /* in this order: never less */
}

int rt_spare_start(void) {
    int err = rt_worker_start_spare(spares.change);
    if (err == RT_WORKER_AGAIN)
        rt_fetch_add_relaxed(&spares.gone, -1u);
    return err < 0 ? err : 0;
}

struct rt_m *rt_spares_take(uint32_t n) {
    rt_lock(&spares.lock);
    struct rt_m *first = spares.list, *last = first;
    for (uint32_t i = 1; last && i < n; i++)
        last = last->next_spare;
    if (last) {
        rt_store_relaxed(&spares.list, last->next_spare);
        last->next_spare = NULL;
    }
    rt_unlock(&spares.lock);
    return last ? first : NULL;
}

void rt_spares_end(void) {
    rt_lock(&spares.lock);
    spares.stop = true;
    for (struct rt_m *m; (m = pop()) != NULL;) {
        rt_store_relaxed(&m->end, 1);
        rt_note_wake(&m->note);
    }
    rt_unlock(&spares.lock);
}

/* ---- taking ---------------------------------------------------------------------------------- */

/* Behind m's gate. */
static void hand_over(struct rt_p *p, struct rt_m *m, struct rt_m *heir) {
    heir->adopts = m->poller;
    rt_store_relaxed(&m->poller, NULL);
    rt_store_relaxed(&m->away, RT_AWAY_HOG);
    rt_store_relaxed(&heir->p, p);
    rt_store_release(&p->m, heir); /* pairs with the acquire in rt_m_of */
    rt_store_relaxed(&m->p, rt.nobody);
    rt_chaos_delay("retake: given away, not shut");
    rt_gate_shut(m);
    rt_gate_open(heir); /* a thief may be there before it is awake */
    rt_chaos_delay("retake: given, not called");
    rt_note_wake(&heir->note);
}

bool rt_retake(struct rt_p *p, uint64_t progress) {
    struct rt_m *m = rt_load_relaxed(&spares.list) ? rt_gate_try_p(p) : NULL;
    if (!m)
        return false;
    bool hogs = m->g && rt_progress_any(p) == progress;
    struct rt_m *heir = hogs ? take_spare() : NULL;
    if (heir)
        hand_over(p, m, heir);
    else
        rt_gate_open(m);
    return heir != NULL;
}

void rt_retake_own(const struct rt_m *m) {
    struct rt_p *p = m->p;
    if (!(rt.flags & GO_STRICT) && !rt_gate_is_shut(m))
        rt_retake(p, rt_progress_any(p));
}

/* Does something wait behind the G of p that nobody else is going to do? */
static bool waited_for(const struct rt_p *p, int64_t now) {
    if (rt_poller && rt_poller->stuck && rt_poller->stuck(rt_m_of(p)))
        return true;
    if (rt_idle_count(rt_load_relaxed(&rt_idle.word)) != 0)
        return false; /* they steal, and fire timers of others */
    return rt_runq_len_any(p) != 0 || rt_load_relaxed(&p->runnext) || rt_globq_size() != 0 ||
           rt_load_relaxed(&p->timer_when) <= now ||
           rt_load_relaxed(&rt.nobody->timer_when) <= now;
}

static bool sleeps(char state) {
    return state == 'S' || state == 'D' || state == 'T' || state == 't';
}

/* Threads that want a CPU but have no P; those of which nothing is known are taken to. */
static uint32_t computing(int64_t now) {
    if (now - spares.counted_at < COUNT_NS)
        return spares.counted;
    spares.counted = 0;
    spares.counted_at = now;
    for (uint32_t i = 0; i < rt.nms; i++)
        if (rt_load_relaxed(&rt.ms[i].away) && !sleeps(rt_sys_thread_state(rt.ms[i].tid)))
            spares.counted++;
    return spares.counted;
}

/* A thread that has used no CPU either sleeps in the kernel, or was not given one: then another
 * would not get one either. */
enum hog { NO_CPU, COMPUTES, SLEEPS };

static enum hog kind_of_hog(const struct rt_m *m, int64_t cpu_before) {
    if (rt_sys_thread_cpu(m->thread) - cpu_before >= GRACE_NS / 2)
        return COMPUTES;
    char state = rt_sys_thread_state(m->tid);
    return state == 'R' ? NO_CPU : sleeps(state) ? SLEEPS : COMPUTES;
}

static void take_from_hog(struct rt_p *p, struct rt_hog *h, int64_t now) {
    enum hog kind = kind_of_hog(rt_m_of(p), h->cpu);
    if (kind == NO_CPU)
        return;
    bool noted = !h->told && rt_long_run_note(p, h->progress, &h->told);
    bool room = kind == SLEEPS || now - h->since >= RT_SLICE_NS ||
                rt_retake_away() < rt_procs() || computing(now) < rt_procs();
    bool taken = room && rt_retake(p, h->progress);
    if (noted)
        rt_long_run_tell(now - h->since, kind == SLEEPS, taken);
    else if (taken && !h->told)
        rt_long_run_miss();
    h->told |= noted;
    spares.counted += taken && kind == COMPUTES;
    if (taken)
        *h = (struct rt_hog){0};
}

int64_t rt_retake_look(struct rt_p *p, struct rt_hog *h, int64_t now) {
    uint64_t progress = rt_progress_any(p);
    if (rt_load_relaxed(&p->attention) & RT_P_LEAVE) /* procs.c looks after it; it may have gone */
        return INT64_MAX;
    if (!(rt.flags & GO_STRICT) && rt_chaos_flip("retake: taken without a reason"))
        rt_retake(p, progress);
    if (progress != h->progress || h->since == 0) {
        *h = (struct rt_hog){.progress = progress, .since = now};
        return INT64_MAX;
    }
    if (now - h->since < HOG_NS || (rt.flags & GO_STRICT) || !waited_for(p, now))
        return INT64_MAX;
    if (h->warned == 0) {
        rt_store_relaxed(&go_checkpoint_due, 1);
        rt_fetch_or_relaxed(&p->attention, RT_P_PREEMPT);
        h->warned = now;
        h->cpu = rt_sys_thread_cpu(rt_m_of(p)->thread);
        return GRACE_NS;
    }
    if (now - h->warned < GRACE_NS)
        return GRACE_NS - (now - h->warned);
    take_from_hog(p, h, now);
    return INT64_MAX;
}

void rt_retake_spare(void) {
    bool strict = rt.flags & GO_STRICT; /* then they are for go_lock_thread alone */
    bool plenty = !strict && rt_load_relaxed(&rt.threads_left) >= RT_ROOM_FOR_A_SPARE;
    if (rt_spares_there() != 0 || (!rt_load_relaxed(&spares.wanted) && !plenty))
        return;
    int64_t now = rt_sys_now();
    rt_store_relaxed(&spares.wanted, false); /* the next who wants one says so again */
    if (now - rt_load_relaxed(&spares.failed_at) < TRY_AGAIN_NS)
        return;
    if (rt_spare_start() != 0)
        rt_store_relaxed(&spares.failed_at, now);
}

uint32_t rt_retake_away(void) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < rt_load_relaxed(&rt.nms); i++)
        n += rt_load_relaxed(&rt.ms[i].away) != RT_AWAY_NOT;
    return n;
}

bool rt_retake_owed(void) {
    for (uint32_t i = 0; i < rt_load_relaxed(&rt.nms); i++)
        if (rt_load_relaxed(&rt.ms[i].away) == RT_AWAY_HOG)
            return true;
    return false;
}

uint32_t rt_retake_threads(void) {
    return rt_load_relaxed(&rt.nms) - rt_load_relaxed(&spares.gone);
}

/* ---- go_lock_thread: a G that has given its P away, and sleeps on its note ------------------- */

static const int64_t NO_SPARE_NS = 1000 * 1000;

void go_lock_thread(void) {
    struct rt_m *m = rt_m();
    if (!m || m->locked++ != 0)
        return;
    struct rt_g *g = m->g;
    m->locked = 0; /* it may move until it has no P */
    for (;;) {
        struct rt_p *p = rt_load_relaxed(&m->p);
        if (rt_gate_is_shut(m) || rt_retake(p, rt_progress_any(p)))
            break;
        rt_store_relaxed(&spares.wanted, true);
        rt_park(g, NULL, RT_HARD, rt_time_add(rt_sys_now(), NO_SPARE_NS), RT_WHY_OTHER);
        m = rt_m();
    }
    m->locked = 1;
    rt_store_relaxed(&m->away, RT_AWAY_LOCKED);
    g->flags |= RT_G_NOTE;
    if (rt_poller && rt_poller->m_start) /* it may never come back: nothing is left there */
        (void)rt_poller->m_start(m);
}

void go_unlock_thread(void) {
    struct rt_m *m = rt_m();
    if (m && m->locked == 0)
        rt_fatal("go_unlock_thread: no go_lock_thread before it");
    if (m && --m->locked == 0)
        rt_gate_leave(rt_regain(m));
}

/* ---- coming back ----------------------------------------------------------------------------- */

struct rt_m *rt_regain(struct rt_m *m) {
    struct rt_g *g = m->g;
    m->locked = 0;
    g->flags &= ~(uint32_t)RT_G_NOTE;
    m->yielder = g;
    rt_leave(m, g, NULL, NULL);
    return rt_m();
}

void rt_retake_left(struct rt_m *m) {
    struct rt_glist one = {0};
    if (!m->yielder)
        return;
    rt_glist_push(&one, m->yielder);
    m->yielder = NULL;
    rt_globq_push(&one);
    rt_chaos_delay("retake: queued, nobody woken");
    rt_idle_wake_foreign();
}
