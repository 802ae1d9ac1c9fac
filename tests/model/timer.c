/* timer.c - sched/timer.c: a wait with a deadline ends, whoever fires the timer, while its G parks,
 * or is woken and parks again; and never before the deadline.
 *
 * The G waits on M 0. M 1 has nothing to do and steals what is due there, at any moment of the G's
 * way into its wait. Time stands still but for what an M sleeps for, so an entry is due from the
 * beginning, or only when everybody sleeps. */
#include "event.h"

#include "base/sys.h"
#include "sched/spawn.h"
#include "sched/switch.h"

enum { NOW = 1000, WAITS = 2 };

static struct event event;
static int64_t deadlines[WAITS];
static int waits, returned, woken;

static void wait_and_wait(void *arg) {
    (void)arg;
    for (; returned < waits; returned++) {
        int64_t deadline = deadlines[returned];
        int r = event_wait(&event, RT_WAITING, deadline);
        model_assert(r == 0 || (r == -ETIMEDOUT && rt_sys_now() >= deadline));
        woken += r == 0;
    }
    model_exit();
}

static void prepare(int n, int64_t first, int64_t second) {
    model_clock = NOW;
    machine_with_stacks(2);
    model_clock_moves();
    event_init(&event);
    waits = n;
    deadlines[0] = first;
    deadlines[1] = second;
    machine_be(0, &gs[0]);
    model_assert(go_spawn(wait_and_wait, NULL) == 0);
    model_be(NULL);
}
static void due(void) {
    prepare(1, NOW, 0);
}
static void due_then_later(void) {
    prepare(2, NOW, NOW + 1000);
}
static void due_and_due(void) {
    prepare(2, NOW, NOW);
}

/* The G runs already, and has been woken from a wait whose entry is still there and is due. */
static void old_entry(int64_t deadline) {
    prepare(1, deadline, 0);
    struct rt_g *g = ps[0].runnext;
    model_assert(rt_timer_arm_owner(&ps[0], g, NOW) == 0);
}
static void old_entry_later(void) {
    old_entry(NOW + 1000);
}
static void old_entry_for_ever(void) {
    old_entry(GO_FOREVER);
}
static void old_entry_same(void) {
    old_entry(NOW);
}
static void old_entry_earlier(void) {
    old_entry(NOW - 1);
}

/* The G with such an entry ends, and its record is used at once for one that waits. */
static void ended_later(void) {
    old_entry(NOW);
    deadlines[0] = NOW + 1000;
}
static void ended_for_ever(void) {
    old_entry(NOW);
    deadlines[0] = GO_FOREVER;
}

static void m0(void) {
    machine_run(0);
}
/* The G in runnext runs before M 0 has looked at anything else. */
static void m0_runs(void) {
    struct rt_m *m = &ms[0];
    machine_be(0, NULL);
    rt_gate_enter(m);
    m->g = rt_runq_pop_owner(m->p);
    rt_bind(m->g, rt_stack_pop_owner(m->p));
    struct rt_g *old = rt_arch_switch(&m->ctx, &m->g->ctx, NULL);
    if (old)
        rt_commit(m, old);
    rt_gate_leave(m);
    rt_proc_run(m);
}
static void m0_ends_and_spawns(void) {
    struct rt_m *m = &ms[0];
    machine_be(0, NULL);
    rt_gate_enter(m);
    struct rt_g *g = m->g = rt_runq_pop_owner(m->p);
    rt_g_end(m, g);
    m->g = NULL;
    rt_gate_leave(m);
    model_assert(go_spawn(wait_and_wait, NULL) == 0 && m->p->runnext == g);
    m0_runs();
}
static void set(void) {
    event_set(&event);
}
/* Finds nothing to run, and what is due at the other P (steal in proc.c). */
static void m1(void) {
    machine_run(1);
}

/* The same, as a thief that visits once, at any moment, and goes on only when it has found
 * something: in an execution in which nobody sees the wait, no fence of a sleep comes after it. */
static void m1_visits(void) {
    struct rt_m *m = &ms[1];
    struct rt_glist ready = {0};
    machine_be(1, NULL);
    rt_gate_enter(m);
    rt_timer_run(m->p, &ps[0], rt_sys_now(), &ready, 1);
    rt_ready_all_in(m, &ready);
    bool found = rt_runq_len_any(m->p) != 0 || m->p->ntimers != 0;
    rt_gate_leave(m);
    if (found)
        machine_run(1);
}

/* ---- a start at a later time ----------------------------------------------------------------- */

/* The record that comes next has a live entry in another P's heap: a thief has set it again when
 * the G of that record had just been woken, and was about to end. */
static uint32_t started;
static int64_t starts_at = NOW + 1000;

static void entry_of_a_free_record(void) {
    model_clock = NOW;
    machine_with_stacks(2);
    model_clock_moves();
    model_assert(rt_timer_arm_owner(&ps[1], ps[0].gfree, NOW) == 0);
}
static void start(void *arg) {
    (void)arg;
    model_assert(rt_sys_now() >= starts_at);
    rt_fetch_add_relaxed(&started, 1);
}
static void m0_spawns_later(void) {
    struct rt_g *g, *record = ps[0].gfree;
    uint64_t seq;
    machine_be(0, NULL);
    model_assert(rt_spawn_at(start, NULL, starts_at, NULL, &g, &seq) == 0 && g == record);
    machine_run(0);
}
/* From a foreign thread, and due: it may fire before it waits, and end with what came behind the
 * entry. */
static void due_at_once(void) {
    model_clock = NOW;
    starts_at = NOW;
    machine_with_stacks(1);
    model_clock_moves();
}
static void foreign_spawns_later(void) {
    struct rt_g *g;
    uint64_t seq;
    model_assert(rt_spawn_at(start, NULL, starts_at, "late", &g, &seq) == 0);
}
static void has_started(void) {
    model_assert(started == 1);
}

/* ---- the entries alone -----------------------------------------------------------------------
 *
 * Thread 0 has the G, whose wait with sequence number 1 is on when the case begins, and parks it
 * again as rt_park does; the others fire what is due in their own heaps, on other Ms. In the end,
 * when nobody is at it any more, a wait that goes on has an entry that fires in time. */
static struct rt_g *const record = &gs[0];
static const int64_t LATER = NOW + 1000, LATEST = NOW + 2000;

static void waits_with_due_entry(int64_t deadline) {
    machine_init(3);
    model_clock = NOW;
    model_assert(rt_timer_arm_owner(&ps[1], record, NOW) == 0);
    record->wait_deadline = deadline;
    record->wait = RT_WAIT_WORD(1, RT_WAITING);
}
static void is_late(void) {
    waits_with_due_entry(NOW);
}
static void has_time(void) {
    waits_with_due_entry(LATER);
}
/* The second is of a fire that found the first one's generation when it set its own again. */
static void has_two_entries(void) {
    has_time();
    model_clock = NOW - 1;
    record->timer_when = INT64_MAX;
    record->wait_deadline = NOW;
    model_assert(!rt_timer_missed(&ps[2], record, 1));
    model_clock = NOW;
    record->wait_deadline = LATER;
}

static void park_until(int64_t deadline) {
    uint64_t seq = rt_park_seq(record);
    rt_store_relaxed(&record->wait_deadline, deadline);
    model_assert(rt_timer_arm_owner(&ps[0], record, deadline) == 0);
    rt_store_release(&record->wait, RT_WAIT_WORD(seq, RT_WAITING));
    rt_fence_full();
    if (rt_load_relaxed(&record->attention) & RT_ATT_TIMER)
        rt_timer_missed(&ps[0], record, seq);
}
static void inside(unsigned i) {
    machine_be(i, NULL);
    rt_gate_enter(&ms[i]);
}
static void claimed(void) {
    inside(0);
    if (rt_claim(record, 1, 0))
        park_until(LATER);
}
static void canceled(void) {
    inside(0);
    rt_fetch_or_release(&record->attention, RT_ATT_STOP);
    if (rt_cancel_claim(record))
        park_until(LATER);
}
/* An entry of its own, which is not late, between. */
static void claimed_twice(void) {
    inside(0);
    if (!rt_claim(record, 1, 0))
        return;
    park_until(LATEST);
    if (rt_claim(record, 2, 0))
        park_until(LATER);
}
/* The last one relies on the entry of the second. */
static void waits_long(void) {
    waits_with_due_entry(LATEST);
}
static void claimed_for_a_shorter_wait(void) {
    inside(0);
    if (rt_claim(record, 1, 0)) {
        park_until(NOW);
        if (rt_claim(record, 2, 0))
            park_until(LATER);
    }
    rt_gate_leave(&ms[0]);
}
static void fires_of_m0(void) {
    struct rt_glist ready = {0};
    if (!rt_gate_try_p(&ps[0]))
        return;
    rt_timer_run(&ps[0], &ps[0], NOW, &ready, 1);
    rt_gate_open(&ms[0]);
}
/* It ends, and its record is used again. */
static void ended(void) {
    inside(0);
    if (!rt_claim(record, 1, 0))
        return;
    rt_timer_forget(record);
    park_until(LATER);
}
static void fires(unsigned i) {
    struct rt_glist ready = {0};
    inside(i);
    rt_timer_run(&ps[i], &ps[i], NOW, &ready, 1);
}
static void m1_fires(void) {
    fires(1);
}
static void m2_fires(void) {
    fires(2);
}

static void has_an_entry(void) {
    bool found = RT_WAIT_STATE(record->wait) != RT_WAITING;
    for (const struct rt_p *p = ps; p < ps + PROCS; p++)
        for (const struct rt_timer *t = p->timers; t < p->timers + p->ntimers; t++)
            found |= t->gen == record->timer_gen && t->when <= record->wait_deadline;
    model_assert(found);
}

/* A wait without a deadline may have used up the event before it, and goes on. */
static void all_returned(void) {
    model_assert(returned == waits || deadlines[returned] == GO_FOREVER);
    model_assert(event_waited_for(&event) == (returned != waits));
}

#define CHECKED(n, init_, check, b, s, ...) \
    MODEL_CASE("timer." n, init_, check, check, b, s, __VA_ARGS__)
#define CASE(n, init_, b, s, ...) CHECKED(n, init_, all_returned, b, s, __VA_ARGS__)

const struct model_case model_cases[] = {
    CASE("due", due, 2, 2, m0, m1),
    CASE("due_or_woken", due, 1, 1, m0, m1, set),
    CASE("due_and_due", due_and_due, 2, 1, m0, m1),
    CASE("due_then_later", due_then_later, 1, 1, m0, m1),
    CASE("old_entry_then_later", old_entry_later, 1, 2, m0_runs, m1),
    CASE("old_entry_then_for_ever", old_entry_for_ever, 2, 1, m0_runs, m1),
    CASE("old_entry_then_same", old_entry_same, 2, 1, m0_runs, m1_visits),
    CASE("old_entry_then_earlier", old_entry_earlier, 2, 2, m0_runs, m1_visits),
    CASE("later_and_a_visit", old_entry_later, 2, 1, m0_runs, m1_visits),
    CASE("ended_then_later", ended_later, 2, 1, m0_ends_and_spawns, m1_visits),
    CASE("ended_then_for_ever", ended_for_ever, 2, 1, m0_ends_and_spawns, m1),
    CHECKED("start_later", entry_of_a_free_record, has_started, 1, 2, m0_spawns_later, m1),
    CHECKED("start_at_once", due_at_once, has_started, 2, 2, foreign_spawns_later, m0),
    CHECKED("claimed", is_late, has_an_entry, 2, 2, claimed, m1_fires),
    CHECKED("canceled", is_late, has_an_entry, 2, 2, canceled, m1_fires),
    CHECKED("record_ended", has_time, has_an_entry, 2, 2, ended, m1_fires),
    CHECKED("shorter_wait", waits_long, has_an_entry, 2, 2, claimed_for_a_shorter_wait, m1_fires,
            fires_of_m0),
    CHECKED("two_entries", has_two_entries, has_an_entry, 2, 2, claimed_twice, m1_fires, m2_fires),
    {0},
};
