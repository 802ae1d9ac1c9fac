/* idle.c - who sleeps, who searches, who must be woken.
 *
 * Promise: if Gs are queued that are worth a steal and a P is idle, then an M is searching or a
 * wake is on its way, or one looks again within AGAIN_NS; only a G in runnext may lie for a tick of
 * sysmon, because its maker is most often about to park.
 *   submitter: publish G (into its own ring, or the global queue);  light fence;  read the word
 *   sleeper:   set own bit, count itself idle, drop its search;     heavy fence;  scan every queue
 * Whoever comes second sees the other. The fence of the submitter is on the path of every spawn and
 * ready, so it is the light one, and the sleeper, whose sleep costs microseconds anyway, pays. When
 * no other M is awake, only foreign threads can submit, and these use a full fence: then so does
 * the sleeper, and the last searcher, who looks for more than he found.
 *
 * A doze: who was idle for less than AGAIN_NS the last time will most likely not be so for longer
 * now, where it sleeps in a poller and its connections are busy. It does without the heavy fence,
 * which costs more than the sleep (11 us on two virtual CPUs, for the other it interrupts), and
 * looks again after AGAIN_NS; what an M that was awake queued at that moment waits so long at most.
 *
 * Waking is dear (7 us for the waker, 20 us until the sleeper runs), so: nobody is woken while one
 * searches; the last searcher that finds something wakes one more, if there is more that a thief
 * would take; at most procs/2 search at once. A woken M counts as searching from the moment it is
 * picked.
 *
 * Fine-grained work is not worth a wake or a steal (some microseconds each): 1,000 empty green
 * threads are run in the time that a second M needs to get up. So each P measures how long a G runs
 * there. While that is less than RT_COARSE_NS a second G in its queue wakes nobody; the P wakes
 * somebody when it looks around, its queues have not been empty for LAZY_NS, and a steal from them
 * may pay. Thieves pass by queues that their owner, who is awake, will have run within
 * RT_STEAL_MIN_NS, or within a millisecond when steals from there have not paid (runq.c), and
 * nobody is woken for them. Should he get stuck in one G, or in several that hand each other their
 * slice, sysmon notices at the next tick.
 *
 * Who finds work, but its owner inside the runtime or a thief at it, cannot have it now, and need
 * not: the owner is awake, the thief leaves half. Perhaps that thread has just lost its CPU, and
 * then a search without a pause keeps it from it: 32 of 64 Ms on two cores, in turn at a gate that
 * one holds who does not run, took ten seconds for what takes milliseconds. So one of them sleeps
 * AGAIN_NS (as the timekeeper), the others until somebody wakes them.
 *
 * A bit in the mask means: sleeps, or is about to, and nobody has picked it. Whoever clears a bit
 * under the lock owns that wake-up: a waker then wakes it, the sleeper itself then is awake. One of
 * the sleepers, the timekeeper, sleeps no longer than the earliest timer of all Ps; another that is
 * about to sleep takes the office over when it knows of an earlier one. While no M keeps time
 * sysmon does.
 *
 * Tried and dropped: a lock-free word with the mask beside it (three words to keep consistent; the
 * sections under the lock are a few instructions, each beside a futex call). */
#include "sched/idle.h"

#include "base/chaos.h"
#include "base/lock.h"
#include "base/sys.h"
#include "sched/gate.h"
#include "sched/globq.h"
#include "sched/poller.h"
#include "sched/runq.h"
#include "sched/sysmon.h"
#include "sched/timer.h"

static const int64_t LAZY_NS = 50 * 1000;
static const int64_t AGAIN_NS = 100 * 1000; /* some wakes, and far less than a tick of sysmon */

struct rt_idle rt_idle;

void rt_idle_start(void) {
    rt_idle = (struct rt_idle){.keeper_when = INT64_MAX, .held = rt.procs};
}

static void add_word(uint32_t delta) {
    rt_store_relaxed(&rt_idle.word, rt_idle.word + delta); /* under the lock */
}

static bool clear_bit(uint32_t index) {
    uint64_t bit = UINT64_C(1) << (index % 64);
    if (!(rt_idle.mask[index / 64] & bit))
        return false;
    rt_idle.mask[index / 64] &= ~bit;
    add_word(1 - RT_IDLE_ONE); /* not idle, searching */
    return true;
}

static void wake_m(struct rt_m *m) {
    struct rt_m *self = rt_m();
    if (self)
        rt_bump(&self->wakes);
    rt_chaos_delay("idle: picked, not woken");
    if (rt_load_relaxed(&m->sleep) == RT_SLEEP_POLLER) /* stored before the bit was set */
        rt_poller->wake(m);
    else
        rt_note_wake(&m->note);
}

/* One that sleeps on its futex if there is one: who sleeps in the poller is where events are
 * seen. */
static struct rt_m *pick_sleeper(void) {
    struct rt_m *best = NULL;
    for (uint32_t w = 0, procs = rt_procs(); w * 64 < procs; w++)
        for (uint64_t bits = rt_idle.mask[w]; bits; bits &= bits - 1) {
            struct rt_p *p = &rt.ps[w * 64 + (uint32_t)__builtin_ctzll(bits)];
            struct rt_m *m = rt_m_of(p); /* asleep, so nobody takes its P */
            if (rt_load_relaxed(&m->sleep) == RT_SLEEP_FUTEX) {
                clear_bit(p->index);
                return m;
            }
            best = m;
        }
    if (best)
        clear_bit(best->p->index);
    return best;
}

void rt_idle_wake_slow(void) {
    struct rt_m *m = NULL;
    rt_lock(&rt_idle.lock);
    if (rt_idle_searching(rt_idle.word) == 0)
        m = pick_sleeper();
    rt_unlock(&rt_idle.lock);
    if (m)
        wake_m(m);
}

void rt_idle_wake_coarse(const struct rt_p *p) {
    if (rt_runq_worth_stealing_any(p))
        rt_idle_wake_slow();
}

void rt_idle_measure(struct rt_p *p, int64_t now) {
    uint32_t picks = (uint32_t)RT_PICKS - p->budget;
    int64_t ns = (now - p->looked_at) / (picks ? picks : 1);
    uint32_t clamped = ns < 1000000000 ? (uint32_t)ns : 1000000000;
    rt_store_relaxed(&p->slice_ns, (p->slice_ns + clamped) / 2);
    p->looked_at = now;
    if (rt_runq_len_any(p) == 0)
        p->was_empty = true;
    rt_runq_ease_owner(p, now);
    rt_idle_backlog(p, now);
}

void rt_idle_backlog(struct rt_p *p, int64_t now) {
    if (p->was_empty) {
        p->was_empty = false;
        p->empty_at = now;
    }
    if (now - p->empty_at > LAZY_NS) {
        p->empty_at = now;
        if (rt_runq_worth_stealing_any(p) || rt_globq_size() != 0)
            rt_idle_wake();
    }
}

void rt_idle_wake_foreign(void) {
    rt_fence_full();
    rt_idle_wake();
}

/* A sleeper reads the timers in the section in which it sets its bit: either it has seen this one,
 * or it is seen here. Who is awake looks at them before it sleeps. */
void rt_idle_wake_for_timer(int64_t when) {
    struct rt_m *m = NULL;
    rt_lock(&rt_idle.lock);
    if (when < rt_idle.keeper_when)
        m = pick_sleeper();
    rt_unlock(&rt_idle.lock);
    if (m)
        wake_m(m);
}

void rt_idle_more(uint32_t n) {
    rt_lock(&rt_idle.lock);
    rt_store_relaxed(&rt_idle.held, rt_idle.held + n);
    rt_unlock(&rt_idle.lock);
}

void rt_idle_less(struct rt_m *m) {
    rt_lock(&rt_idle.lock);
    rt_store_relaxed(&rt_idle.held, rt_idle.held - 1);
    add_word(m->searching ? -1u : 0);
    m->searching = 0;
    rt_unlock(&rt_idle.lock);
}

/* The bit, then the look at m's sleep; m says that it sleeps, then looks at the bit. */
void rt_idle_kick(struct rt_p *p, struct rt_m *m) {
    rt_fetch_or(&p->attention, RT_P_LOOK);
    uint32_t mode = rt_load_seq_cst(&m->sleep);
    if (mode == RT_SLEEP_POLLER)
        rt_poller->wake(m);
    else if (mode == RT_SLEEP_FUTEX)
        rt_note_wake(&m->note);
}

void rt_idle_wake_all(void) {
    for (;;) {
        rt_lock(&rt_idle.lock);
        struct rt_m *m = pick_sleeper();
        rt_unlock(&rt_idle.lock);
        if (!m)
            return;
        wake_m(m);
    }
}

bool rt_idle_begin_search(struct rt_m *m) {
    if (m->searching)
        return true;
    uint32_t procs = rt_procs(), most = procs > 3 ? procs / 2 : 1;
    if (rt_idle_searching(rt_load_relaxed(&rt_idle.word)) >= most)
        return false;
    rt_lock(&rt_idle.lock);
    if (rt_idle_searching(rt_idle.word) < most) {
        add_word(1);
        m->searching = 1;
    }
    rt_unlock(&rt_idle.lock);
    return m->searching != 0;
}

static bool work_for_owner(const struct rt_p *p) {
    return rt_load_relaxed(&p->attention) != 0 || rt_runq_len_any(p) != 0 || p->runnext;
}

/* What a thief would take, m another's or another m's. Timers that are due are work, too. BUSY:
 * there is some, but its owner or a thief is at it right now. */
enum work { NONE, BUSY, WORK };

static enum work work_for_thief(const struct rt_m *m, int64_t now) {
    enum work found = NONE;
    if (rt_globq_size() != 0)
        return WORK;
    for (uint32_t i = 0, procs = rt_procs(); i <= procs; i++) {
        struct rt_p *other = i < procs ? &rt.ps[i] : rt.nobody;
        struct rt_m *owner = rt_m_of(other);
        bool due = rt_load_relaxed(&other->timer_when) <= now;
        if (!due && !rt_runq_worth_stealing_any(other))
            continue;
        if (owner == m || rt_load_relaxed(&owner->in_rt) + rt_load_relaxed(&owner->gate) == 0)
            return WORK;
        found = BUSY;
    }
    return found;
}

/* Between the word and the look at the queues. Who is counted awake later has been in the lock
 * since then, and finds the word as it was left. */
static void fence_of_looker(bool others_awake) {
    if (others_awake)
        rt_fence_heavy();
    else
        rt_fence_full(); /* only foreign threads submit, with a full one, too */
}

void rt_idle_found(struct rt_m *m) {
    m->idle_since = 0;
    if (!m->searching)
        return;
    m->searching = 0;
    rt_lock(&rt_idle.lock);
    add_word(-1u);
    bool last = rt_idle_searching(rt_idle.word) == 0;
    uint32_t sleepers = rt_idle_count(rt_idle.word);
    bool others_awake = sleepers + 1 < rt_idle.held;
    rt_unlock(&rt_idle.lock);
    if (!last || !sleepers)
        return;
    fence_of_looker(others_awake); /* a submitter that saw us search did not wake */
    if (work_for_thief(m, m->p->looked_at) != NONE) /* a keeper's own, or another's timer, too */
        rt_idle_wake();
}

/* Under the lock: how long may m sleep? */
static int64_t keep_time(struct rt_m *m, int64_t now) {
    int64_t when = rt_timer_earliest_any();
    if (when >= rt_idle.keeper_when)
        return -1;
    rt_idle.keeper = m->p->index + 1;
    rt_store_relaxed(&rt_idle.keeper_when, when);
    return when > now ? when - now : 0;
}

/* Under the lock: m keeps the time until somebody must look again. */
static int64_t look_again(struct rt_m *m, int64_t now) {
    rt_idle.keeper = m->p->index + 1;
    rt_store_relaxed(&rt_idle.keeper_when, now + AGAIN_NS);
    return AGAIN_NS;
}

void rt_idle_sleep(struct rt_m *m, struct rt_glist *ready) {
    enum rt_sleep_mode mode = rt_poller ? rt_poller->sleep_mode(m) : RT_SLEEP_FUTEX;
    rt_store_relaxed(&m->sleep, mode); /* ordered by the idle lock */
    int64_t now = rt_sys_now();
    if (m->idle_since == 0)
        m->idle_since = now;
    uint32_t index = m->p->index; /* it keeps its P: none is taken from who runs no G */
    rt_lock(&rt_idle.lock);
    rt_idle.mask[index / 64] |= UINT64_C(1) << (index % 64);
    add_word(RT_IDLE_ONE - (m->searching ? 1 : 0));
    m->searching = 0;
    int64_t timeout = keep_time(m, now);
    bool others_awake = rt_idle_count(rt_idle.word) < rt_idle.held;
    rt_unlock(&rt_idle.lock);
    bool doze = others_awake && mode == RT_SLEEP_POLLER && rt_poller->dozes && m->slept_short;
    if (doze && (timeout < 0 || timeout > AGAIN_NS))
        timeout = AGAIN_NS;

    rt_chaos_delay("idle: counted idle, queues not looked at");
    fence_of_looker(others_awake && !doze);
    bool woken = false;
    enum work work = work_for_owner(m->p) ? WORK : work_for_thief(m, now);
    if (work == NONE && timeout == 0) /* the timer that was due is gone: what is the next? */
        work = WORK;
    if (work != NONE) {
        rt_lock(&rt_idle.lock);
        if (work == WORK)
            woken = clear_bit(index); /* else a waker is on its way: take its wake-up below */
        else if (timeout == 0 || now + AGAIN_NS < rt_idle.keeper_when)
            timeout = look_again(m, now);
        rt_unlock(&rt_idle.lock);
    }
    rt_chaos_delay("idle: looked, not asleep");
    rt_gate_leave(m); /* our P may be visited while we sleep */
    if (mode == RT_SLEEP_POLLER) {
        if (woken)
            rt_poller->sleep_undo(m);
        else
            rt_poller->sleep(m, timeout, ready);
    } else if (!woken) {
        rt_note_wait(&m->note, timeout);
    }
    rt_store_relaxed(&m->sleep, RT_AWAKE);
    rt_gate_enter(m);
    m->p->looked_at = m->p->empty_at = rt_sys_now();
    m->slept_short = m->p->looked_at - m->idle_since < AGAIN_NS;

    rt_lock(&rt_idle.lock);
    if (!woken)
        clear_bit(index);
    if (rt_idle.keeper == index + 1) {
        rt_idle.keeper = 0;
        rt_store_relaxed(&rt_idle.keeper_when, INT64_MAX);
    }
    rt_unlock(&rt_idle.lock);
    m->searching = 1; /* counted by whoever cleared the bit */
    rt_sysmon_awake();
}
