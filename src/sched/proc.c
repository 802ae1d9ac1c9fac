/* proc.c - the life of a G on its stack, and the loop in which an M looks for the next one.
 *
 * Most switches never come here: a parking G goes straight to the next one of its P (switch.h), and
 * one that ends hands its stack, still hot, to the next that has not started, which is called on
 * it: no switch at all. The loop runs when that is not possible: nothing queued, no stack at hand,
 * or somebody left a bit in p->attention, or RT_PICKS picks have been made. Order of the search:
 *
 *   due timers; completions; the global queue, once per visit; runnext; ring and fresh; a batch of
 *   the global queue; timers of others; half of another's queues; sleep in the netpoller or on a
 *   futex. */
#include "sched/proc.h"

#include "base/chaos.h"
#include "base/log.h"
#include "base/random.h"
#include "base/sys.h"
#include "sched/g.h"
#include "sched/gate.h"
#include "sched/globq.h"
#include "sched/idle.h"
#include "sched/park.h"
#include "sched/poller.h"
#include "sched/procs.h"
#include "sched/retake.h"
#include "sched/runq.h"
#include "sched/switch.h"
#include "sched/timer.h"

const struct rt_poller *rt_poller;
const char *rt_poller_why;

static const int64_t NO_STACK_NAP_NS = 1000 * 1000;
enum { GLOBQ_BATCH = 32, TIMERS_BATCH = 32, CROWDED_POLL = 8 };

/* ---- the life of a G ------------------------------------------------------------------------- */

static __attribute__((noinline)) void clean_touched(struct rt_g *g) {
    if (g->scope)
        rt_fatal("a green thread (id %llu) ended inside a scope", (unsigned long long)g->id);
    rt_timer_forget(g);
    rt_store_relaxed(&g->name, NULL); /* the stop may just be telling it */
    g->touched = 0;
}

static inline void count_end(struct rt_p *p) {
    rt_store_release(&p->ended, p->ended + 1); /* pairs with the acquire in rt_live */
}

void rt_g_over(struct rt_m *m, struct rt_g *g) {
    if (rt_unlikely(g->touched))
        clean_touched(g);
    count_end(m->p);
}

/* Counted last: who sees that nobody lives finds the record at a limit. */
static inline void free_and_count(struct rt_m *m, struct rt_g *g) {
    /* Seq + 1: claims of waits that are long over must fail on the next one that uses this
     * struct. */
    rt_store_relaxed(&g->wait, RT_WAIT_WORD(rt_park_seq(g) + 1, RT_DEAD));
    rt_g_free_owner(m->p, g);
    count_end(m->p);
}

static __attribute__((noinline)) void end_of_child(struct rt_m *m, struct rt_g *g) {
    go_group *group = rt_group_unlink(g);
    free_and_count(m, g);
    rt_group_left(m, group);
}

void rt_g_end(struct rt_m *m, struct rt_g *g) {
    if (g->flags & RT_G_TASK) {
        rt_g_over(m, g);
        rt_task_ended(m, g);
        return;
    }
    if (rt_unlikely(g->touched))
        clean_touched(g);
    if (g->flags & RT_G_CHILD)
        end_of_child(m, g);
    else
        free_and_count(m, g);
}

static inline struct rt_m *enter_to_end(void) {
    struct rt_m *m = rt_m();
    if (rt_unlikely(!m))
        rt_fatal("a green thread returned in a forked child: call exec or _exit there");
    return rt_enter_with_p(m);
}

#if RT_ASAN || RT_TSAN

/* The first frame of every stack. Between two Gs it waits in its own context. */
void rt_g_main(void *carry) {
    for (;;) {
        struct rt_m *m = rt_m();
        struct rt_g *g = m->g;
        rt_san_arrive(g->san);
        if (carry)
            rt_commit(m, carry);
        rt_gate_leave(m);
        rt_g_call(g);
        m = enter_to_end();
        g = m->g;
        struct rt_stack *stack = g->stack;
        m->dead = g;
        m->g = NULL;
        rt_san_leave(&stack->san, &m->san);
        carry = rt_arch_switch(&stack->ctx, &m->ctx, NULL);
    }
}

#else

/* The first frame of every stack: runs its G, then each unstarted one that is next in line. */
void rt_g_main(void *carry) {
    struct rt_m *m = rt_m();
    struct rt_g *g = m->g;
    struct rt_stack *stack = g->stack;
    if (carry)
        rt_commit(m, carry);
    for (;;) {
        rt_gate_leave(m);
        rt_g_call(g);
        m = enter_to_end();
        rt_g_end(m, m->g);
        struct rt_g *next = rt_runq_pick_owner(m->p);
        if (next && !(next->flags & RT_G_STARTED) && next->stack_class == stack->size_class &&
            !next->stack) {
            next->stack = stack;
            next->flags |= RT_G_STARTED;
            m->g = g = next;
            continue;
        }
        /* Nobody takes the stack from this P before we have left it: our gate is closed. A stack of
         * another class goes to a shared depot, so the loop must put it there. */
        bool odd = stack->size_class != rt.stack_class;
        if (odd)
            m->odd_stack = stack;
        else
            rt_stack_push_owner(m->p, stack);
        if (next && !odd && (next->flags & RT_G_STARTED)) {
            m->g = next;
            rt_arch_jump(&next->ctx, NULL);
        }
        m->g = NULL;
        m->pending = next;
        rt_arch_jump(&m->ctx, NULL);
    }
}

#endif

/* ---- the loop -------------------------------------------------------------------------------- */

/* A context has come back to the loop: end what could not be ended on its own stack. */
static void clean_up_after(struct rt_m *m) {
    struct rt_g *g = m->dead;
    if (g) {
        struct rt_stack *s = g->stack;
        m->dead = NULL;
        rt_g_end(m, g);
        rt_stack_put(s);
    }
    if (m->odd_stack) {
        rt_stack_put(m->odd_stack);
        m->odd_stack = NULL;
    }
}

static struct rt_stack *stack_for(struct rt_m *m, struct rt_g *g) {
    if (g->stack_class != rt.stack_class)
        return g->stack; /* bound by the spawn */
    struct rt_stack *s = rt_stack_pop_owner(m->p);
    return s ? s : rt_stack_get_owner(m->p);
}

static uint32_t coprime_step(uint64_t r, uint32_t procs) {
    uint32_t step = (uint32_t)(r % procs) + 1;
    for (;; step++) {
        uint32_t a = procs, b = step;
        while (b) {
            uint32_t t = a % b;
            a = b;
            b = t;
        }
        if (a == 1)
            return step;
    }
}

static struct rt_g *steal(struct rt_m *m) {
    struct rt_p *p = m->p;
    uint64_t r = rt_random_next(&p->rng);
    uint32_t procs = rt_procs();
    uint32_t at = (uint32_t)(r >> 32) % procs, step = coprime_step(r & 0xffffffff, procs);
    int64_t earliest = rt_timer_earliest_any();
    int64_t now = earliest != INT64_MAX ? rt_sys_now() : 0;
    for (uint32_t i = 0; i < procs; i++, at = (at + step) % procs) {
        struct rt_p *victim = &rt.ps[at];
        if (victim == p)
            continue;
        if (earliest <= now && rt_load_relaxed(&victim->timer_when) <= now) {
            struct rt_glist ready = {0};
            rt_timer_run(p, victim, now, &ready, TIMERS_BATCH);
            rt_ready_all_in(m, &ready);
            struct rt_g *g = rt_runq_pop_owner(p); /* none, if all of them sleep on a note */
            if (g)
                return g;
        }
        if (rt_runq_worth_stealing_any(victim)) {
            struct rt_g *g = rt_runq_steal(p, victim);
            if (g)
                return g;
        }
    }
    return NULL;
}

/* What waits in the global queue comes before what a poll would bring in, or each poll would fill
 * the ring and push the rest back there for ever. Now and then the poll is due all the same. */
static bool poll_is_due(struct rt_m *m, uint32_t len) {
    if (!rt_poller || !rt_poller->pending(m))
        return false;
    bool crowded = rt_globq_size() != 0 || len >= RT_RING / 2;
    return !crowded || ++m->p->visits % CROWDED_POLL == 0 ||
           (rt_poller->urgent && rt_poller->urgent(m));
}

/* What is due apart from the own queue; then a G of the global queue, if there is one. */
static struct rt_g *look_around(struct rt_m *m) {
    struct rt_p *p = m->p;
    uint32_t attention = rt_load_relaxed(&p->attention);
    if (attention & ~(uint32_t)(RT_P_STOP | RT_P_LEAVE))
        attention = rt_fetch_and_acquire(&p->attention, RT_P_STOP | RT_P_LEAVE); /* rt_idle_kick */
    if (rt_chaos_flip("proc: runnext dropped"))
        attention |= RT_P_PREEMPT;
    if ((attention & RT_P_PREEMPT) && p->runnext) {
        struct rt_g *g = p->runnext;
        rt_store_relaxed(&p->runnext, NULL);
        rt_runq_push_owner(p, g);
    }
    int64_t now = rt_sys_now();
    rt_idle_measure(p, now);
    rt_runq_age_owner(p, now);
    bool regular = p->budget == 0; /* not called by a bit */
    p->budget = RT_PICKS;
    struct rt_glist ready = {0};
    if (p->timer_when <= now)
        rt_timer_run(p, p, now, &ready, TIMERS_BATCH);
    if (rt_unlikely(rt_load_relaxed(&rt.nobody->timer_when) <= now))
        rt_timer_run(p, rt.nobody, now, &ready, TIMERS_BATCH);
    uint32_t len = rt_runq_len_any(p);
    if (poll_is_due(m, len)) {
        rt_bump(&p->polls);
        rt_poller->poll(m, false, &ready);
    }
    if (ready.n)
        rt_ready_all_in(m, &ready);
    bool others = rt_runq_len_any(p) || p->runnext || m->yielder;
    /* A batch when more wait there than here; but while timers are due, new Gs that sleep again
     * would only make all of them later, and while there are fresh ones here these come first: the
     * batch would be pushed out again before it ran, each time through cold memory. */
    bool hurry = rt_globq_size() > len && p->timer_when > now && rt_runq_fresh_any(p) == 0;
    /* Where each slice takes a tick each pick is a look: then one of the ring comes in between. */
    if (!others || (!regular && p->ticks == p->globq_tick))
        return NULL;
    struct rt_g *g = rt_globq_take(p, hurry ? GLOBQ_BATCH : 1);
    if (g)
        p->globq_tick = p->ticks + 1; /* the slice that begins with it */
    return g;
}

/* Out of work: submit and collect before the M goes through the idle protocol, whose heavy fence
 * costs more than a second system call would. A single P has no such fence, and its sleep submits.
 * */
static struct rt_g *poll_hungry(struct rt_m *m) {
    struct rt_glist ready = {0};
    if (!rt_poller)
        return NULL;
    rt_bump(&m->p->polls);
    rt_poller->poll(m, true, &ready);
    rt_ready_all_in(m, &ready);
    return rt_runq_pop_owner(m->p); /* if foreign threads alone had waited, there is none */
}

/* The next G to run; NULL when the worker shall end, or its P shall be put away. */
static struct rt_g *find_runnable(struct rt_m *m) {
    struct rt_p *p = m->p;
    struct rt_g *g = m->pending;
    m->pending = NULL;
    while (!g) {
        if (rt_load_relaxed(&p->attention) & (RT_P_STOP | RT_P_LEAVE))
            return NULL;
        g = look_around(m);
        if (m->yielder) { /* behind all that this has brought */
            rt_runq_push_yielder_owner(p, m->yielder);
            m->yielder = NULL;
        }
        if (!g && (g = rt_runq_pop_owner(p)) != NULL)
            break;
        if (!g)
            g = rt_globq_take(p, GLOBQ_BATCH);
        if (!g && p->robbed)
            rt_runq_judge_steal_owner(p);
        if (!g && rt_procs() > 1)
            g = poll_hungry(m);
        if (!g && rt_procs() > 1 && rt_idle_begin_search(m))
            g = steal(m);
        if (g)
            rt_bump(&p->ticks); /* a slice begins, as with a pop from the ring */
        if (!g) {
            struct rt_glist ready = {0};
            rt_idle_sleep(m, &ready);
            rt_bump(&p->polls);
            rt_ready_all_in(m, &ready);
        }
    }
    rt_idle_found(m);
    return g;
}

/* What was asked of the netpoller where the P was until now. */
static void take_over(struct rt_m *m) {
    struct rt_glist ready = {0};
    rt_poller->adopt(m, m->adopts, &ready);
    m->adopts = NULL;
    rt_ready_all_in(m, &ready);
}

/* Run Gs until the runtime stops: false; or the P is gone: true. */
static bool serve(struct rt_m *m) {
    rt_gate_enter(m); /* no G, so nobody takes the P now */
    if (m->adopts)
        take_over(m);
    for (struct rt_g *g; (g = find_runnable(m)) != NULL;) {
        if (!(g->flags & RT_G_STARTED)) {
            struct rt_stack *s = stack_for(m, g);
            if (!s) { /* the kernel has no memory for a guard right now: later */
                struct rt_glist later = {0};
                rt_glist_push(&later, g);
                rt_globq_push(&later);
                /* One of our own may have a stack, and give it back. */
                m->pending = rt_runq_pop_owner(m->p);
                if (!m->pending) {
                    rt_gate_leave(m);
                    rt_sys_nap(NO_STACK_NAP_NS);
                    rt_gate_enter(m);
                }
                continue;
            }
            rt_bind(g, s);
        }
        m->g = g;
        rt_san_leave(&m->san, g->san);
        struct rt_g *old = rt_arch_switch(&m->ctx, &g->ctx, NULL);
        rt_san_arrive(&m->san);
        if (old)
            rt_commit(m, old);
        if (rt_unlikely(rt_gate_is_shut(m))) {
            rt_retake_left(m);
            return true;
        }
        clean_up_after(m);
    }
    if (!(rt_load_relaxed(&m->p->attention) & RT_P_STOP)) {
        rt_procs_leave(m);
        return true;
    }
    rt_gate_leave(m);
    return false;
}

bool rt_proc_run(struct rt_m *m) {
    for (;;) {
        if (rt_gate_is_shut(m) && !rt_spare_wait(m))
            return !rt_load_relaxed(&m->end);
        if (!serve(m))
            return false;
    }
}
