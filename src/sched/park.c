/* park.c - park, commit, claim, ready. The protocol is told in sched.h (the life of a wait) and
 * park.h (what a waiter and a waker do).
 *
 * Nearly every park has one lock or none and no deadline. What the others need of the commit stands
 * in g->park_extra, behind the branch that chooses the fence anyway. */
#include "sched/park.h"

#include "base/chaos.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/sys.h"
#include "sched/globq.h"
#include "sched/idle.h"
#include "sched/retake.h"
#include "sched/runq.h"
#include "sched/switch.h"
#include "sched/timer.h"

enum { TIMER = 1, LOCKS = 2 }; /* g->park_extra: a timer is armed; g->park_locks are held */

static void unlock_all(struct rt_locks *l) {
    while (l) {
        uint32_t *lock = l->lock;
        l = l->next; /* the parker may go on, and take its frame along, after the last unlock */
        rt_unlock(lock);
    }
}

/* ---- foreign threads: a G of their own that never runs, and a futex -------------------------- */

static __thread struct rt_g thread_g __attribute__((tls_model("initial-exec")));

struct rt_g *rt_foreign_self(void) {
    struct rt_g *g = &thread_g;
    if (!(g->flags & RT_G_THREAD)) {
        g->flags = RT_G_THREAD | RT_G_NOTE | RT_G_STARTED;
        g->wait = RT_WAIT_WORD(0, RT_LIVE);
        g->limit = g->timer_when = g->wait_deadline = INT64_MAX;
    }
    return g;
}

/* Threads that share a bell are told apart by the bits of the futex; one bit is for whoever it hits
 * first. */
static const uint32_t BELL_ANYBODY = UINT32_C(1) << 31;

static uint32_t bell_bit(const struct rt_g *g) {
    return UINT32_C(1) << (uintptr_t)g / 4096 % 31;
}

void rt_bell_ring_sig(uint32_t *word) {
    rt_fetch_add_release(word, 1); /* pairs with the acquire in thread_park */
    rt_sys_futex_wake_bits(word, 1, BELL_ANYBODY);
}

static void thread_ready(struct rt_g *g) {
    /* After the store the thread may be gone with its memory: the wake may hit a stale address. */
    uint32_t *note = &g->thread_note;
    uint32_t *word = g->bell ? g->bell->word : NULL, bit = bell_bit(g);
    rt_store_release(note, 1); /* pairs with the acquire in thread_park */
    if (word) {
        rt_fetch_add_release(word, 1); /* pairs with the acquire in thread_park */
        rt_sys_futex_wake_bits(word, INT32_MAX, bit); /* a bit may be that of several */
    } else {
        rt_sys_futex_wake(note, 1);
    }
}

/* Until its note or its bell changes; `rung` is what the bell's word was before the note was looked
 * at. */
static void thread_sleep(struct rt_g *g, uint32_t rung, int64_t deadline) {
    if (g->bell) {
        rt_sys_futex_wait_bits(g->bell->word, rung, deadline, bell_bit(g) | BELL_ANYBODY);
        return;
    }
    int64_t left = deadline == INT64_MAX ? -1 : deadline - rt_sys_now();
    if (deadline == INT64_MAX || left > 0)
        rt_sys_futex_wait(&g->thread_note, 0, left);
}

static int thread_park(struct rt_g *g, uint32_t *lock, struct rt_locks *locks,
                       enum rt_g_state state, int64_t deadline) {
    uint64_t seq = rt_park_seq(g);
    rt_store_relaxed(&g->thread_note, 0);
    rt_store_release(&g->wait, RT_WAIT_WORD(seq, state)); /* pairs with the CAS in rt_claim */
    if (lock)
        rt_unlock(lock);
    unlock_all(locks);
    /* Word, then attention: pairs with the canceller's heavy fence. A light one would do, were not
     * these threads here before rt_asymmetric is set. */
    rt_fence_full();
    if (state == RT_WAITING && (rt_load_relaxed(&g->attention) & RT_ATT_CANCEL) &&
        rt_cancel_claim(g))
        return -ECANCELED;
    struct rt_bell *bell = g->bell;
    for (;;) {
        uint32_t rung = bell ? rt_load_acquire(bell->word) : 0; /* pairs with the adds to it */
        if (bell)
            bell->answer(bell->arg);
        if (rt_load_acquire(&g->thread_note) != 0) /* pairs with the release in thread_ready */
            return g->wake_result;
        if (deadline != INT64_MAX && deadline <= rt_sys_now()) {
            if (rt_claim(g, seq, -ETIMEDOUT))
                return -ETIMEDOUT;
            deadline = INT64_MAX; /* claimed by somebody who will tell us at once */
        }
        thread_sleep(g, rung, deadline);
    }
}

/* ---- park ------------------------------------------------------------------------------------ */

static int not_parked(uint32_t *lock, struct rt_locks *locks, int err) {
    if (lock)
        rt_unlock(lock);
    unlock_all(locks);
    return err;
}

/* The P of this thread was taken (retake.c). */
static __attribute__((noinline)) int park_away(struct rt_g *g, uint32_t *lock,
                                               struct rt_locks *locks, int64_t deadline) {
    int err = deadline != INT64_MAX ? rt_timer_arm_any(g, deadline) : 0;
    if (err)
        return not_parked(lock, locks, err);
    rt_fetch_add_relaxed(&rt.nobody->parks, 1);
    rt_leave(rt_m(), g, NULL, g);
    rt_gate_leave(rt_m());
    return g->wake_result;
}

/* One of lock and locks, or neither. */
static inline __attribute__((always_inline)) int park(struct rt_g *g, uint32_t *lock,
                                                      struct rt_locks *locks,
                                                      enum rt_g_state state, int64_t deadline,
                                                      enum rt_why why, bool io) {
    rt_store_relaxed(&g->waiting_for, why);
    rt_store_relaxed(&g->wait_deadline, deadline);
    if (rt_unlikely(g->flags & RT_G_NOTE))
        return thread_park(g, lock, locks, state, deadline);
    rt_chaos_delay("park: the node is queued, g is not parked");
    g->park_lock = lock;
    g->park_state = (uint8_t)state;
    g->park_extra = (deadline != INT64_MAX ? TIMER : 0) | (locks ? LOCKS : 0);
    if (locks)
        g->park_locks = locks;
    if (rt_chaos_flip("park: the P leaves the thread"))
        rt_retake_own(rt_m());
    struct rt_m *m = rt_gate_enter(rt_m());
    if (rt_unlikely(!m))
        return park_away(g, lock, locks, deadline);
    if (deadline != INT64_MAX) {
        int err = rt_timer_arm_owner(m->p, g, deadline);
        if (rt_unlikely(err)) {
            rt_gate_leave(m);
            return not_parked(lock, locks, err);
        }
    }
    rt_bump(&m->p->parks);
    struct rt_g *next = rt_runq_pick_owner(m->p);
    if (io)
        rt_runq_touch_owner(m->p);
    rt_leave(m, g, next, g);
    rt_gate_leave(rt_m());
    return g->wake_result;
}

int rt_park(struct rt_g *g, uint32_t *lock, enum rt_g_state state, int64_t deadline,
            enum rt_why why) {
    return park(g, lock, NULL, state, deadline, why, false);
}

int rt_park_io(struct rt_g *g, uint32_t *lock, int64_t deadline, enum rt_why why) {
    return park(g, lock, NULL, RT_WAITING, deadline, why, true);
}

int rt_park_many(struct rt_g *g, struct rt_locks *locks, enum rt_g_state state, int64_t deadline,
                 enum rt_why why) {
    return park(g, NULL, locks, state, deadline, why, false);
}

/* The park of old is over before it began; old is ours when a claim succeeds. Between the commit
 * and here somebody else may have claimed it, so nothing but its word, its attention and its
 * shields is looked at. */
static __attribute__((noinline)) void commit_void(struct rt_m *m, struct rt_g *old, uint64_t seq,
                                                  enum rt_g_state state, uint32_t extra) {
    uint32_t attention = rt_load_relaxed(&old->attention);
    bool mine = false;
    if (state == RT_WAITING && (attention & RT_ATT_CANCEL) &&
        rt_cancel_reaches(attention, rt_load_relaxed(&old->shields)))
        mine = rt_claim_soft(old, seq, -ECANCELED);
    bool away = rt_gate_is_shut(m);
    if (!mine && (extra & TIMER) && (attention & RT_ATT_TIMER))
        mine = rt_timer_missed(away ? NULL : m->p, old, seq);
    if (mine && away)
        rt_ready(old);
    else if (mine)
        rt_ready_in(m, old);
}

void rt_commit(struct rt_m *m, struct rt_g *old) {
    uint64_t seq = rt_park_seq(old);
    uint32_t *lock = old->park_lock;
    enum rt_g_state state = (enum rt_g_state)old->park_state;
    uint32_t extra = old->park_extra;
    rt_chaos_delay("park: saved, not visible");
    rt_store_release(&old->wait, RT_WAIT_WORD(seq, state)); /* pairs with the CAS in rt_claim */
    rt_chaos_delay("park: visible, still locked");
    if (lock)
        rt_unlock(lock);
    if (rt_likely(extra == 0)) {
        rt_fence_light(); /* word, then attention: pairs with a canceller's heavy fence */
    } else {
        if (extra & LOCKS) /* claimed or not, old does not get past these locks */
            unlock_all(old->park_locks);
        rt_fence_full(); /* the same against a timer's read-modify-writes */
    }
    if (rt_unlikely(rt_load_relaxed(&old->attention) != 0))
        commit_void(m, old, seq, state, extra);
}

/* ---- ready ----------------------------------------------------------------------------------- */

/* Through the global queue, for whoever comes first. */
static void ready_anywhere(struct rt_g *g) {
    struct rt_glist one = {0};
    rt_glist_push(&one, g);
    rt_globq_push(&one);
    rt_chaos_delay("park: queued, nobody woken");
    rt_idle_wake_foreign();
}

void rt_ready_in(struct rt_m *m, struct rt_g *g) {
    if (rt_unlikely(g->flags & RT_G_NOTE))
        thread_ready(g);
    else if (rt_chaos_flip("park: through the global queue"))
        ready_anywhere(g);
    else if (rt_runq_put_next_owner(m->p, g))
        rt_idle_wake_for(m->p);
}

void rt_ready(struct rt_g *g) {
    struct rt_m *m = rt_enter();
    if (rt_likely(m != NULL)) {
        rt_ready_in(m, g);
        rt_gate_leave(m);
        return;
    }
    if (g->flags & RT_G_NOTE) {
        thread_ready(g);
        return;
    }
    rt_fetch_add_relaxed(&rt.foreign, 1); /* until g runs it holds the runtime; then this does */
    ready_anywhere(g);
    rt_fetch_sub_release(&rt.foreign, 1); /* pairs with the looks in stop */
}

void rt_ready_all_in(struct rt_m *m, struct rt_glist *l) {
    for (struct rt_g *g; (g = rt_glist_pop(l)) != NULL;) {
        if (g->flags & RT_G_NOTE)
            thread_ready(g);
        else
            rt_runq_push_owner(m->p, g);
    }
    if (rt_runq_len_any(m->p) + (m->p->runnext != NULL) > 1)
        rt_idle_wake_for(m->p);
}

void rt_ready_all(struct rt_glist *l) {
    struct rt_m *m = l->n > 1 ? rt_enter() : NULL;
    if (m) {
        rt_ready_all_in(m, l);
        if (rt_runq_len_any(m->p) == 1) /* our caller goes on */
            rt_idle_wake_for(m->p);
        rt_gate_leave(m);
        return;
    }
    for (struct rt_g *g; (g = rt_glist_pop(l)) != NULL;)
        rt_ready(g);
}

/* ---- calls that only yield ------------------------------------------------------------------- */

/* Without a P. */
static __attribute__((noinline)) void yield_away(void) {
    struct rt_m *m = rt_m();
    if (m && !m->locked)
        rt_gate_leave(rt_regain(m));
    else
        rt_sys_yield();
}

void go_yield(void) {
    struct rt_m *m = rt_enter();
    if (rt_unlikely(!m)) {
        yield_away();
        return;
    }
    struct rt_g *g = m->g;
    struct rt_p *p = m->p;
    struct rt_g *next = rt_runq_pick_owner(p);
    if (!next && p->budget != 0 && rt_load_relaxed(&p->attention) == 0) {
        rt_gate_leave(m); /* nobody else is here */
        return;
    }
    if (next) /* nobody sees g before we have left: the gate is closed */
        rt_runq_push_yielder_owner(p, g);
    else
        m->yielder = g;
    if (next)
        rt_idle_wake_for(p);
    rt_leave(m, g, next, NULL);
    rt_gate_leave(rt_m());
}

unsigned go_checkpoint_due; /* sysmon's, see there */

/* A compiler puts checkpoints where nobody thought of one: into a malloc that we call, into the
 * handler of a SIGSEGV, between vfork and exec, between a system call and the look at its errno. */
static __attribute__((noinline)) void slice_over(struct rt_m *m) {
    if (m->in_rt || !m->g || m->g->nopreempt != 0 || m->locked || !rt_sys_may_switch(rt.pid))
        return;
    int saved = rt_sys_errno();
    go_yield();
    rt_sys_set_errno(saved); /* perhaps on another thread */
}

void go_checkpoint_slow(void) {
    struct rt_m *m = rt_m();
    if (!m)
        return;
    struct rt_p *p = rt_load_relaxed(&m->p); /* it may just be taken; nobody's wants to, always */
    if (rt_load_relaxed(&p->attention) & RT_P_PREEMPT)
        slice_over(m);
}

void go_checkpoint(void) {
    if (rt_unlikely(rt_load_relaxed(&go_checkpoint_due) != 0))
        go_checkpoint_slow();
}

void go_nopreempt_begin(void) {
    struct rt_m *m = rt_m();
    if (m && ++m->g->nopreempt == 0)
        rt_fatal("go_nopreempt_begin: nested too deeply");
}

void go_nopreempt_end(void) {
    struct rt_m *m = rt_m();
    if (m && m->g->nopreempt-- == 0)
        rt_fatal("go_nopreempt_end: no go_nopreempt_begin before it");
}
