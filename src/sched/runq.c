/* runq.c - overflow, ageing and stealing.
 *
 * Of those that have started the overflow moves the newest half, as tokio does since 1.52: Go moves
 * the oldest, and a G that came from the global queue may then bounce back before it ran. Fresh
 * ones are taken newest first, so there it is the oldest that would wait longest.
 *
 * IS A STEAL WORTH IT? It costs the thief a fence and the victim an interruption by that, and what
 * was in one cache is then in two: some microseconds. How much work there is in a queue can only be
 * guessed from the past (slice_ns), and Gs that want the same lock, or hand each other values, are
 * not faster on two Ps but slower. So a thief that has nothing left to do looks back: was it busy
 * for longer than the steal has cost, each lock that somebody had to park for counted as
 * LOCK_COST_NS? If not, whom it has robbed gets a doubt, which doubles what has to lie there before
 * it is worth another steal, or a wake when its owner looks around, up to a millisecond; if so, one
 * less. Each doubt lasts EASE_NS, so there is another try soon. (64 tasks at one mutex, two Ps, ns
 * for a lock and unlock: 19 without this, 9 with it; at a rwmutex 36 and 12; chan_mpmc 46 and 13.
 * On one P they take 7, 8 and 12.)
 *
 * A queue of which sysmon says that the slice before it lasts (rt_runq_slow_any) is worth a steal
 * whatever the measure says, while there is no doubt, but that steal has to pay for longer: of
 * pairs that talk each P gets its own, while producers whose one consumer takes from another just
 * now had better wait. */
#include "sched/runq.h"

#include "base/sys.h"

#include "sched/gate.h"
#include "sched/globq.h"
#include "sched/idle.h"

static const int64_t AGE_NS = 1000 * 1000, EASE_NS = 1000 * 1000;
static const int64_t STEAL_COST_NS = 10 * 1000, SLOW_STEAL_COST_NS = 200 * 1000;
static const int64_t LOCK_COST_NS = 10 * 1000;
static const uint32_t DOUBT_MOST = 6; /* a millisecond */
enum { AGE_PART = 16 };

void rt_runq_spill_owner(struct rt_p *p) {
    struct rt_glist batch = {0};
    uint32_t from = p->tail - RT_RING / 2;
    for (uint32_t i = from; i != p->tail; i++)
        rt_glist_push(&batch, p->ring[i % RT_RING]);
    rt_store_relaxed(&p->tail, from);
    rt_globq_push(&batch);
    rt_idle_backlog(p, rt_sys_now()); /* who only spawns does not look around */
}

void rt_runq_spill_fresh_owner(struct rt_p *p) {
    struct rt_glist batch = {0};
    uint32_t head = p->fresh_head;
    for (uint32_t i = 0; i < RT_FRESH / 2; i++)
        rt_glist_push(&batch, p->fresh[(head + i) % RT_FRESH]);
    rt_store_relaxed(&p->fresh_head, head + RT_FRESH / 2);
    rt_globq_push(&batch);
    rt_idle_backlog(p, rt_sys_now());
}

void rt_runq_age_owner(struct rt_p *p, int64_t now) {
    uint32_t n = p->fresh_tail - p->fresh_head;
    if (n == 0 || now - p->aged_at < AGE_NS)
        return;
    p->aged_at = now;
    n = (n + AGE_PART - 1) / AGE_PART;
    uint32_t room = RT_RING - (p->tail - p->head);
    if (n > room)
        n = room;
    for (uint32_t i = 0; i < n; i++)
        rt_runq_push_ring_owner(p, p->fresh[(p->fresh_head + i) % RT_FRESH]);
    rt_store_relaxed(&p->fresh_head, p->fresh_head + n);
}

static uint32_t half_of(uint32_t n, uint32_t room) {
    n -= n / 2;
    return n < room ? n : room;
}

/* Behind the victim's gate. The oldest comes out, the others go to the thief. */
static struct rt_g *take_half(struct rt_p *thief, struct rt_p *victim, uint64_t *taken) {
    uint32_t room = rt_runq_room_owner(thief) / 2; /* all may be of one kind */
    uint32_t n = half_of(victim->tail - victim->head, room);
    uint32_t fresh = half_of(victim->fresh_tail - victim->fresh_head, room);
    struct rt_g *first = NULL;
    for (uint32_t i = 0; i < n + fresh; i++) {
        struct rt_g *g = i < n ? victim->ring[(victim->head + i) % RT_RING]
                               : victim->fresh[(victim->fresh_head + i - n) % RT_FRESH];
        if (!first)
            first = g;
        else
            rt_runq_push_batch_owner(thief, g);
    }
    rt_store_relaxed(&victim->head, victim->head + n);
    rt_store_relaxed(&victim->fresh_head, victim->fresh_head + fresh);
    *taken = n + fresh;
    return first;
}

struct rt_g *rt_runq_steal(struct rt_p *thief, struct rt_p *victim) {
    struct rt_m *m = rt_gate_try_p(victim);
    if (!m)
        return NULL;
    bool stale = rt_runq_stale_any(victim); /* then nobody doubts that it was time */
    bool slow = rt_runq_slow_any(victim);
    uint64_t n;
    struct rt_g *first = take_half(thief, victim, &n);
    if (n == 0 && stale && victim->runnext) {
        first = victim->runnext;
        rt_store_relaxed(&victim->runnext, NULL);
        n = 1;
    }
    rt_gate_open(m);
    rt_store_relaxed(&thief->steals, thief->steals + n);
    if (n != 0 && !stale) {
        thief->robbed = victim;
        thief->pays_at = rt_sys_now() + (slow ? SLOW_STEAL_COST_NS : STEAL_COST_NS);
        thief->contended_then = rt_load_relaxed(&thief->contended);
    }
    return first;
}

void rt_runq_judge_steal_owner(struct rt_p *thief) {
    struct rt_p *victim = thief->robbed;
    uint32_t locks = rt_load_relaxed(&thief->contended) - thief->contended_then;
    uint32_t doubt = rt_load_relaxed(&victim->doubt);
    thief->robbed = NULL;
    if (thief->looked_at < thief->pays_at + locks * LOCK_COST_NS)
        rt_store_relaxed(&victim->doubt, doubt < DOUBT_MOST ? doubt + 1 : doubt);
    else if (doubt != 0)
        rt_store_relaxed(&victim->doubt, doubt - 1);
}

void rt_runq_ease_owner(struct rt_p *p, int64_t now) {
    uint32_t doubt = rt_load_relaxed(&p->doubt);
    int64_t steps = (now - p->eased_at) / EASE_NS;
    if (doubt != 0 && steps == 0)
        return;
    p->eased_at = now;
    if (doubt != 0)
        rt_store_relaxed(&p->doubt, steps < doubt ? doubt - (uint32_t)steps : 0);
}
