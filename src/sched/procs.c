/* procs.c - go_set_procs: Ps come and go while the runtime runs.
 *
 * Promise: when go_set_procs(n) has returned 0, the Ps 0..n-1 are in use and no other; no G, timer,
 * poll, record or stack of a P that went is lost, none waits for longer than it takes to hand it
 * on, and nobody has paid for it but who was concerned. When a P cannot come, because no thread can
 * be had for it, none has.
 *
 * There is room for RT_MAX_PROCS Ps from the start, and it costs nothing until it is used. P 0
 * never goes. rt.procs says how many are in use; loops over all Ps ask for it once and may be a
 * moment late: they miss a P that has just come, as they would miss a G that is queued behind them,
 * or look at one that has gone, in which there is nothing. The M of such a P is rt.absent, whose
 * gate is shut.
 *
 * WHO DOES IT. sysmon, one change after the other, so rt.procs and the list of Ms have one writer,
 * the same that starts spares and takes Ps from hogs. Callers queue a request, wake sysmon and
 * park. A caller that is cancelled takes its request back if it still waits for its turn; else the
 * change goes on without it. Once the runtime stops all are refused.
 *
 * GROWING. Ms first: spares are started until there are enough; if one cannot be, the change fails
 * and those that came stay spares, which end by themselves. Then, at once: each new P gets a spare;
 * they are counted as held (idle.c); rt.procs says so; the gates of these Ms are opened.
 *
 * SHRINKING. Each P that has to go gets RT_P_LEAVE, which stays in its attention, so that its M
 * comes to the scheduler loop at its next pick, wakes up, or does not fall asleep. In the loop the
 * M passes its own gate as a thief does: then no other thief is there and none comes. From a G that
 * has not let its M go for a slice sysmon takes the P, as from any hog (retake.c), but for nobody;
 * under GO_STRICT it waits for the G instead. Whoever has passed the gate puts the P away:
 *   one P less is held, and m does not search (idle.c)
 *   p->m = absent; m has no P; its gate is shut
 *       The P is the putter's alone now. m is AWAY if a G is on it, else it becomes a spare.
 *   runnext, ring, fresh   to the global queue, in this order
 *   timers                 to the heap of rt.nobody, which everybody fires
 *   records, stacks        to their depots
 *   polls on m's ring      others are asked (poller->adopt). Who would post a letter to m finds its
 *                          inbox closed, or we find the letter
 *   a wake, and a kick for P 0
 *       m may have been the one who sleeps until the next timer, or for all in the netpoller, or
 *       was woken for what somebody has queued. A wake is enough for the queue; for the two
 *       offices some M must come by rt_idle_sleep after m has left it, and the kick is a bit that
 *       the M of P 0 cannot miss, wherever it is.
 *   counters               stay with the P and are summed up still (rt.procs_ever)
 * When all are put away rt.procs says so, and the caller is answered. Until then the loops look at
 * those that are on their way out, so what lies there is stolen as ever.
 *
 * FOLLOWING THE MACHINE. Unless the program has said how many it wants, sysmon looks once a second
 * at the affinity mask and the cgroup's quota, as long as it is awake for other reasons, and when
 * they have changed begins a change of its own. An idle runtime looks when it wakes up.
 *
 * A spare has nothing to do with P indices, and a G that ran on through all this finds its gate
 * shut, as one from whom a P was taken: so there is no new state of a G or an M, and no fast path
 * knows of any of this.
 *
 * Rejected: to stop the world (Go): it waits for every G to come by, which in C may be never; to
 * let the caller do it (two at once, and it may be on the P that goes); to leave a P that goes with
 * its timers and counters in all loops (they would be as long as the longest there ever was). */
#include "sched/procs.h"

#include "base/chaos.h"
#include "base/lock.h"
#include "base/queue.h"
#include "base/random.h"
#include "base/sys.h"
#include "sched/g.h"
#include "sched/globq.h"
#include "sched/idle.h"
#include "sched/park.h"
#include "sched/poller.h"
#include "sched/retake.h"
#include "sched/runq.h"
#include "sched/stack.h"
#include "sched/start.h"
#include "sched/sysmon.h"
#include "sched/timer.h"

enum { UNDER_WAY = 1 };
static const int64_t LOOK_NS = 1000 * 1000; /* while one is under way; notes come before */

/* In its caller's frame. */
struct request {
    struct rt_node node; /* under the lock; next == NULL: it has its turn, or has had it */
    struct rt_g *g;
    uint64_t seq;
    uint32_t n;
    int result; /* written under the lock, before the claim */
};

static struct {
    uint32_t lock;
    void *queue;            /* of requests; peeked at without the lock */
    struct request *caller; /* who waits for the change under way; under the lock */
    uint32_t on;            /* one is; sysmon writes */
    uint32_t put_away;      /* Ps, so far; any thread */
    /* sysmon's */
    uint32_t before;      /* put_away when it began */
    uint32_t target;
    bool own;             /* it follows the machine */
    unsigned cpus;        /* of the machine, as last followed */
    unsigned cpus_wanted; /* and as it is being followed */
    int64_t followed_at;
    int64_t since;
    uint32_t number;   /* spares that are started are told it */
} change;

void rt_p_init(struct rt_p *p, uint32_t index) {
    p->index = index;
    p->budget = RT_PICKS;
    rt_store_relaxed(&p->timer_when, INT64_MAX);
    /* Until it is known: better a wake too many. */
    rt_store_relaxed(&p->slice_ns, 10 * RT_COARSE_NS);
    p->looked_at = p->empty_at = rt_sys_now();
    p->rng = (rt.seed + index) * UINT64_C(0x9E3779B97F4A7C15) | 1;
}

int64_t rt_procs_follow_ns = INT64_C(1000) * 1000 * 1000;

void rt_procs_start(void) {
    change.queue = change.caller = NULL;
    change.on = 0;
    change.followed_at = rt_sys_now();
    change.cpus = rt.procs_asked ? 0 : rt_sys_cpus_now();
}

bool rt_procs_changes(void) {
    return rt_load_relaxed(&change.on) || rt_load_relaxed(&change.queue);
}

/* ---- a P is put away ------------------------------------------------------------------------- */

static void hand_on_queues(struct rt_p *p) {
    struct rt_glist all = {0};
    if (p->runnext)
        rt_glist_push(&all, p->runnext);
    rt_store_relaxed(&p->runnext, NULL);
    for (uint32_t i = p->head; i != p->tail; i++)
        rt_glist_push(&all, p->ring[i % RT_RING]);
    rt_store_relaxed(&p->head, p->tail);
    for (uint32_t i = p->fresh_head; i != p->fresh_tail; i++)
        rt_glist_push(&all, p->fresh[i % RT_FRESH]);
    rt_store_relaxed(&p->fresh_head, p->fresh_tail);
    rt_globq_push(&all);
}

static void hand_on_polls(void *poller) {
    struct rt_glist ready = {0};
    if (poller)
        rt_poller->adopt(NULL, poller, &ready);
    rt_ready_all(&ready);
}

/* The last touch of p is the count: it may come back at once. */
static void count_put_away(void) {
    rt_fetch_add_release(&change.put_away, 1); /* pairs with the acquire in shrink */
    rt_sysmon_call_sig();
}

/* Behind m's gate, which stays shut; any thread. */
static void put_away(struct rt_p *p, struct rt_m *m) {
    rt_idle_less(m);
    void *poller = m->poller;
    rt_store_relaxed(&m->poller, NULL);
    rt_store_relaxed(&m->away, m->g ? RT_AWAY_HOG : RT_AWAY_NOT);
    rt_store_relaxed(&p->m, rt.absent); /* which was there from the start */
    rt_store_relaxed(&m->p, rt.nobody);
    rt_chaos_delay("procs: gone, not shut");
    rt_gate_shut(m);
    rt_chaos_delay("procs: shut, nothing handed on");
    hand_on_queues(p);
    rt_timer_hand_on(p);
    rt_g_flush(p);
    rt_stack_flush(p);
    hand_on_polls(poller);
    count_put_away();
    rt_chaos_delay("procs: queued, nobody woken");
    rt_idle_wake_foreign();
    rt_idle_kick(&rt.ps[0], rt_m_of(&rt.ps[0]));
}

void rt_procs_leave(struct rt_m *m) {
    if (m->yielder) {
        rt_runq_push_yielder_owner(m->p, m->yielder);
        m->yielder = NULL;
    }
    rt_gate_leave(m);
    while (!rt_gate_try(m)) /* a thief is here, for a moment */
        rt_sys_yield();
    put_away(m->p, m);
}

/* Its G has not let it go: take it. Who is in the scheduler loop, or asleep, comes by himself. */
static void take(struct rt_p *p) {
    struct rt_m *m = rt_gate_try_p(p);
    if (m && m->g)
        put_away(p, m);
    else if (m)
        rt_gate_open(m);
}

static int shrink(int64_t now) {
    uint32_t procs = rt.procs;
    bool taking = !(rt.flags & GO_STRICT) && now - change.since >= RT_SLICE_NS;
    for (uint32_t i = change.target; i < procs; i++) {
        struct rt_p *p = &rt.ps[i];
        if (rt_m_of(p) == rt.absent)
            continue;
        rt_store_relaxed(&go_checkpoint_due, 1);
        rt_fetch_or_relaxed(&p->attention, RT_P_LEAVE | RT_P_PREEMPT);
        rt_idle_kick(p, rt_m_of(p));
        if (taking)
            take(p);
    }
    if (rt_load_acquire(&change.put_away) - change.before != procs - change.target)
        return UNDER_WAY;
    rt_store_release(&rt.procs, change.target); /* with rt_procs: what admit stored before */
    rt_g_share(change.target);
    return 0;
}

/* ---- Ps come --------------------------------------------------------------------------------- */

/* What a P needs that there never was. Once had it stays. */
static int provide(uint32_t n) {
    if (n <= rt.procs_ever)
        return 0;
    int err = rt_stack_reserve((size_t)(n - rt.procs_ever) * RT_STACK_CACHE);
    if (err)
        return err;
    for (uint32_t i = rt.procs_ever; i < n; i++) {
        rt_p_init(&rt.ps[i], i);
        rt_store_relaxed(&rt.ps[i].m, rt.absent); /* nobody looks before admit */
    }
    rt_store_relaxed(&rt.procs_ever, n); /* for readers of counters, which are zero */
    return 0;
}

/* 0: enough are there, or begin. */
static int start_spares(uint32_t need) {
    uint32_t more = change.target + RT_MORE_THREADS;
    if (!rt.threads_asked && more > rt.max_threads) {
        rt_fetch_add_relaxed(&rt.threads_left, more - rt.max_threads);
        rt.max_threads = more;
    }
    int err = rt_spares_failed(change.number);
    uint32_t given_back = rt_spares_given_back();
    for (uint32_t there = rt_spares_there(); err == 0 && there < need; there++) {
        given_back = rt_spares_given_back(); /* what is given back later counts as well, */
        err = rt_spare_start();
    }
    return err == -EAGAIN && rt_spares_ending(given_back) ? UNDER_WAY : err; /* and who goes now */
}

static void admit(struct rt_m *spares) {
    uint32_t i = rt.procs;
    for (struct rt_m *m = spares; m; m = m->next_spare, i++) {
        struct rt_p *p = &rt.ps[i];
        rt_store_relaxed(&p->attention, 0);
        rt_bump(&p->ticks); /* sysmon has not seen it hog */
        p->looked_at = p->empty_at = rt_sys_now();
        rt_store_relaxed(&m->p, p);
        rt_store_release(&p->m, m); /* pairs with the acquire in rt_m_of */
    }
    rt_idle_more(i - rt.procs);
    rt_chaos_delay("procs: counted, not seen");
    rt_store_release(&rt.procs, i); /* pairs with the acquire in rt_procs */
    for (struct rt_m *m = spares, *next; m; m = next) {
        next = m->next_spare;
        rt_gate_open(m);
        rt_chaos_delay("procs: a thief may be there before it is awake");
        rt_note_wake(&m->note);
    }
}

static int grow(void) {
    uint32_t need = change.target - rt.procs;
    int err = provide(change.target);
    if (err == 0)
        err = start_spares(need);
    if (err)
        return err;
    struct rt_m *spares = rt_spares_take(need);
    if (!spares) /* they are coming */
        return UNDER_WAY;
    rt_g_share(change.target);
    admit(spares);
    return 0;
}

void rt_procs_spare_came(void) {
    if (rt_load_relaxed(&change.on)) /* if it is set later the spare is seen in the list */
        rt_sysmon_call_sig();
}

/* ---- one change after the other; sysmon ------------------------------------------------------ */

static bool begin(int64_t now) {
    change.since = now;
    change.before = rt_load_relaxed(&change.put_away); /* never set: no count can be lost */
    change.number = rt_spares_change();
    rt_store_relaxed(&change.on, 1);
    return true;
}

static bool begin_request(int64_t now) {
    if (!rt_load_relaxed(&change.queue))
        return false;
    rt_lock(&change.lock);
    struct rt_node *first = rt_queue_pop(&change.queue);
    struct request *r = first ? rt_container_of(first, struct request, node) : NULL;
    change.caller = r;
    if (r)
        change.target = r->n;
    rt_unlock(&change.lock);
    change.own = false;
    return r ? begin(now) : false; /* taken back */
}

static uint32_t at_most(uint32_t n) {
    uint32_t most = rt.threads_asked ? rt.max_threads - 1 : RT_MAX_PROCS;
    return n < most && n < RT_MAX_PROCS ? n : most < RT_MAX_PROCS ? most : RT_MAX_PROCS;
}

/* Has the machine changed? A change that fails is tried again. */
static bool begin_to_follow(int64_t now) {
    if (rt.procs_asked || now - change.followed_at < rt_load_relaxed(&rt_procs_follow_ns) ||
        rt_load_relaxed(&rt.state) != RT_RUNNING)
        return false;
    change.followed_at = now;
    unsigned cpus = rt_sys_cpus_now();
    if (cpus == change.cpus)
        return false;
    change.target = at_most(cpus);
    change.own = true;
    change.cpus_wanted = cpus;
    return begin(now);
}

static int go_on(int64_t now) {
    if (rt_load_relaxed(&rt.state) == RT_STOPPING)
        return -ESHUTDOWN;
    if (change.target > rt.procs)
        return grow();
    return change.target < rt.procs ? shrink(now) : 0;
}

static void end(int result) {
    struct rt_g *g = NULL;
    rt_store_relaxed(&change.on, 0);
    if (result == 0 && change.own)
        change.cpus = change.cpus_wanted;
    else if (result == 0)
        rt.procs_asked = true;
    rt_lock(&change.lock);
    struct request *r = change.caller;
    change.caller = NULL;
    if (r) {
        r->result = result;
        g = rt_claim(r->g, r->seq, 0) ? r->g : NULL;
    }
    rt_unlock(&change.lock);
    if (g)
        rt_ready(g);
}

int64_t rt_procs_look(int64_t now) {
    while (rt_load_relaxed(&change.on) || begin_request(now) || begin_to_follow(now)) {
        int result = go_on(now);
        if (result == UNDER_WAY)
            return LOOK_NS;
        end(result);
    }
    return -1;
}

/* ---- the call -------------------------------------------------------------------------------- */

static int ask(struct rt_g *g, unsigned n) {
    struct request r = {.g = g, .seq = rt_park_seq(g), .n = n};
    rt_lock(&change.lock);
    rt_queue_push(&change.queue, &r.node);
    rt_sysmon_call_sig(); /* under the lock: it is sysmon's and ours alone */
    int parked = rt_park(g, &change.lock, RT_WAITING, g->limit, RT_WHY_PROCS);
    if (parked == 0)
        return r.result;
    rt_lock(&change.lock);
    if (r.node.next)
        rt_queue_remove(&change.queue, &r.node);
    else if (change.caller == &r)
        change.caller = NULL;
    rt_unlock(&change.lock);
    return rt_cancel_result(g, parked, GO_FOREVER);
}

int go_set_procs(unsigned n) {
    bool foreign = rt_m() == NULL;
    int err = foreign ? rt_foreign_enter() : rt_running();
    if (err)
        return err;
    struct rt_g *g = rt_self();
    if (n == 0 || n > RT_MAX_PROCS || (rt.threads_asked && n >= rt.max_threads))
        err = -EINVAL;
    if (err == 0)
        err = rt_cancel_check(g);
    if (err == 0)
        err = ask(g, n);
    if (foreign)
        rt_foreign_leave();
    return err;
}
