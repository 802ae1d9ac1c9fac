/* ctest: once */
/* runq.c and globq.c from inside: a P made by hand, its owner's moves one by one, and thieves. */
#include "t_unit.h"

#include "base/sys.h"
#include "sched/gate.h"
#include "sched/globq.h"
#include "sched/runq.h"

enum { HALF = RT_RING / 2 };

static struct rt_p ps[2];
static struct rt_m ms[2];
static struct rt_g gs[2 * RT_FRESH];

/* Two Ps and no runtime. Head and tail begin at `at`. */
static void make_ps(uint32_t at) {
    rt.procs = 2;
    rt.ps = ps;
    rt.ms = ms;
    memset(ps, 0, sizeof ps);
    memset(ms, 0, sizeof ms);
    for (uint32_t i = 0; i < 2; i++) {
        ps[i].m = &ms[i];
        ps[i].index = ms[i].index = i;
        ms[i].p = &ps[i];
        ps[i].head = ps[i].tail = ps[i].fresh_head = ps[i].fresh_tail = at;
        ps[i].budget = RT_PICKS;
        ps[i].slice_ns = 1000 * 1000;
    }
    rt_globq = (struct rt_globq){0};
    rt_asymmetric = rt_sys_membarrier_register();
    for (size_t i = 0; i < T_COUNT(gs); i++) {
        gs[i].id = i;
        gs[i].flags = RT_G_STARTED;
    }
}

static void make_fresh(int from, int to) {
    for (int i = from; i < to; i++)
        gs[i].flags = 0;
}

static void push(struct rt_p *p, int from, int to) {
    for (int i = from; i < to; i++)
        rt_runq_push_owner(p, &gs[i]);
}

static void pops(struct rt_p *p, int from, int to) {
    for (int i = from; i < to; i++)
        T_ASSERT(rt_runq_pop_owner(p) == &gs[i], "not G %d", i);
}

/* The places from which a ring is walked: it begins, wraps, and its indices overflow. */
static const uint32_t starts[] = {0, 1, RT_RING - 1, RT_RING, UINT32_MAX, UINT32_MAX - 1,
                                  UINT32_MAX - HALF, UINT32_MAX - RT_RING + 1};
#define EACH_START for (size_t s_ = 0; s_ < T_COUNT(starts); s_++, make_ps(starts[s_ % 8]))

Test(runq, is_first_in_first_out) {
    make_ps(starts[0]);
    EACH_START {
        T_ASSERT(!rt_runq_pop_owner(&ps[0]));
        push(&ps[0], 0, 10);
        T_EQ(rt_runq_len_any(&ps[0]), 10);
        pops(&ps[0], 0, 5);
        push(&ps[0], 10, RT_RING);
        T_EQ(rt_runq_room_owner(&ps[0]), 5);
        pops(&ps[0], 5, RT_RING);
        T_ASSERT(!rt_runq_pop_owner(&ps[0]));
        T_EQ(rt_runq_len_any(&ps[0]), 0);
    }
}

Test(runq, the_newest_ready_one_runs_next_and_kicks_the_one_before_to_the_end) {
    make_ps(starts[0]);
    EACH_START {
        T_ASSERT(!rt_runq_put_next_owner(&ps[0], &gs[0])); /* alone: nobody need be woken */
        T_ASSERT(rt_runq_put_next_owner(&ps[0], &gs[1]));
        T_ASSERT(rt_runq_put_next_owner(&ps[0], &gs[2]));
        T_ASSERT(rt_runq_pop_owner(&ps[0]) == &gs[2]);
        pops(&ps[0], 0, 2);
        T_ASSERT(!rt_runq_pop_owner(&ps[0]));
        push(&ps[0], 5, 6);
        T_ASSERT(rt_runq_put_next_owner(&ps[0], &gs[6])); /* a second one waits */
    }
}

Test(runq, a_full_ring_spills_its_newest_half) {
    make_ps(starts[0]);
    EACH_START {
        push(&ps[0], 0, RT_RING);
        T_EQ(rt_runq_room_owner(&ps[0]), 0);
        T_EQ(rt_globq_size(), 0);
        push(&ps[0], RT_RING, RT_RING + 1);
        T_EQ(rt_globq_size(), HALF);
        T_EQ(rt_runq_len_any(&ps[0]), HALF + 1);
        pops(&ps[0], 0, HALF);
        pops(&ps[0], RT_RING, RT_RING + 1); /* the one that did not fit stayed here */
        T_ASSERT(!rt_runq_pop_owner(&ps[0]));
        rt.procs = 1;
        for (int i = HALF; i < RT_RING; i++)
            T_ASSERT(rt_globq_take(&ps[0], 1) == &gs[i], "not G %d", i);
        T_EQ(rt_globq_size(), 0);
        rt.procs = 2;
    }
}

Test(runq, runnext_spills_too_and_nothing_is_lost) {
    make_ps(UINT32_MAX - 3);
    bool seen[2 * RT_RING + 10] = {false};
    for (size_t i = 0; i < T_COUNT(seen); i++)
        rt_runq_put_next_owner(&ps[0], &gs[i]);
    size_t n = 0;
    for (struct rt_g *g; (g = rt_runq_pop_owner(&ps[0])) || (g = rt_globq_take(&ps[0], 1)); n++) {
        T_ASSERT(!seen[g->id], "G %d twice", (int)g->id);
        seen[g->id] = true;
    }
    T_EQ(n, T_COUNT(seen));
}

Test(runq, pick_stops_for_attention_and_when_the_budget_is_spent) {
    make_ps(0);
    push(&ps[0], 0, RT_RING);
    for (int i = 0; i < RT_PICKS - 1; i++)
        T_ASSERT(rt_runq_pick_owner(&ps[0]) == &gs[i]);
    T_ASSERT(!rt_runq_pick_owner(&ps[0])); /* the last of the budget is a look around */
    ps[0].budget = RT_PICKS;
    T_ASSERT(rt_runq_pick_owner(&ps[0]) == &gs[RT_PICKS - 1]);
    ps[0].attention = RT_P_LOOK;
    T_ASSERT(!rt_runq_pick_owner(&ps[0]));
    ps[0].attention = 0;
    T_ASSERT(rt_runq_pick_owner(&ps[0]) == &gs[RT_PICKS]);
}

Test(runq, a_slice_begins_with_the_ring_and_not_with_runnext) {
    make_ps(0);
    push(&ps[0], 0, 1);
    rt_runq_put_next_owner(&ps[0], &gs[1]);
    uint32_t ticks = ps[0].ticks;
    T_ASSERT(rt_runq_pop_owner(&ps[0]) == &gs[1]);
    T_EQ(ps[0].ticks, ticks);
    T_ASSERT(rt_runq_pop_owner(&ps[0]) == &gs[0]);
    T_EQ(ps[0].ticks, ticks + 1);
}

Test(runq, its_maker_takes_back_from_runnext_and_the_newest_end_only) {
    make_ps(starts[0]);
    EACH_START {
        make_fresh(0, 20);
        push(&ps[0], 0, 3);
        rt_runq_put_next_owner(&ps[0], &gs[9]);
        T_ASSERT(!rt_runq_take_back_owner(&ps[0], &gs[0]));
        T_ASSERT(!rt_runq_take_back_owner(&ps[0], &gs[1]));
        T_ASSERT(!rt_runq_take_back_owner(&ps[0], &gs[20]));
        T_ASSERT(rt_runq_take_back_owner(&ps[0], &gs[2]));
        T_ASSERT(!rt_runq_take_back_owner(&ps[0], &gs[2]));
        T_ASSERT(rt_runq_take_back_owner(&ps[0], &gs[9]));
        T_ASSERT(rt_runq_take_back_owner(&ps[0], &gs[1]));
        pops(&ps[0], 0, 1);
        T_ASSERT(!rt_runq_take_back_owner(&ps[0], &gs[0])); /* empty: the slot is old */
    }
}

/* ---- those that have not started ------------------------------------------------------------- */

static void pops_down(struct rt_p *p, int from, int to) {
    for (int i = from; i > to; i--)
        T_ASSERT(rt_runq_pop_owner(p) == &gs[i], "not G %d", i);
}

Test(runq, of_the_fresh_ones_the_newest_comes_first) {
    make_ps(starts[0]);
    EACH_START {
        make_fresh(0, RT_FRESH);
        push(&ps[0], 0, RT_FRESH);
        T_EQ(rt_runq_len_any(&ps[0]), RT_FRESH);
        T_EQ(rt_runq_room_owner(&ps[0]), 0);
        pops_down(&ps[0], RT_FRESH - 1, -1);
        T_ASSERT(!rt_runq_pop_owner(&ps[0]));
    }
}

Test(runq, fresh_ones_and_started_ones_take_turns_by_rounds) {
    make_ps(starts[0]);
    EACH_START {
        make_fresh(100, 200);
        push(&ps[0], 0, 4);
        push(&ps[0], 100, 103);
        pops_down(&ps[0], 102, 101);
        push(&ps[0], 103, 110); /* they do not make the round longer */
        push(&ps[0], 4, 6);
        pops_down(&ps[0], 109, 107);
        push(&ps[0], 110, 112);
        pops(&ps[0], 0, 6);
        pops_down(&ps[0], 111, 109);
        pops_down(&ps[0], 107, 102);
        pops_down(&ps[0], 101, 99);
        T_ASSERT(!rt_runq_pop_owner(&ps[0]));
    }
}

Test(runq, who_yields_alone_in_the_ring_lets_the_fresh_ones_run_first) {
    make_ps(0);
    make_fresh(100, 200);
    for (int i = 0; i < 2; i++) {
        ps[0].fresh_round = i != 0;
        ps[0].round = 5;
        push(&ps[0], 100, 103);
        rt_runq_push_yielder_owner(&ps[0], &gs[0]);
        pops_down(&ps[0], 102, 99);
        pops(&ps[0], 0, 1);
    }
}

Test(runq, of_too_many_fresh_ones_the_oldest_half_goes_to_the_global_queue) {
    make_ps(starts[0]);
    EACH_START {
        make_fresh(0, RT_FRESH + 1);
        push(&ps[0], 0, RT_FRESH + 1);
        T_EQ(rt_globq_size(), RT_FRESH / 2);
        pops_down(&ps[0], RT_FRESH, RT_FRESH / 2 - 1);
        T_ASSERT(!rt_runq_pop_owner(&ps[0]));
        rt.procs = 1;
        for (int i = 0; i < RT_FRESH / 2; i++)
            T_ASSERT(rt_globq_take(&ps[0], 1) == &gs[i], "not G %d", i);
        rt.procs = 2;
    }
}

Test(runq, a_batch_of_the_global_queue_is_run_in_its_order) {
    make_ps(starts[0]);
    EACH_START {
        struct rt_glist l = {0};
        make_fresh(0, 31);
        for (int i = 0; i < 30; i++)
            rt_glist_push(&l, &gs[i]);
        push(&ps[0], 30, 31);
        rt_globq_push(&l);
        rt.procs = 1;
        T_ASSERT(rt_globq_take(&ps[0], RT_RING) == &gs[0]);
        rt.procs = 2;
        pops(&ps[0], 30, 31); /* what was spawned here comes before it */
        pops(&ps[0], 1, 30);
        T_ASSERT(!rt_runq_pop_owner(&ps[0]));
    }
}

Test(runq, the_oldest_fresh_ones_have_their_turn_after_a_while) {
    make_ps(0);
    make_fresh(0, 100);
    push(&ps[0], 0, 100);
    rt_runq_age_owner(&ps[0], 1); /* not yet */
    T_EQ(ps[0].tail, ps[0].head);
    for (int round = 1; rt_runq_fresh_any(&ps[0]) != 0; round++) {
        uint32_t n = rt_runq_fresh_any(&ps[0]);
        rt_runq_age_owner(&ps[0], round * GO_SECOND);
        T_EQ(rt_runq_fresh_any(&ps[0]), n - (n + 15) / 16);
    }
    pops(&ps[0], 0, 100); /* first in, first out again */
}

Test(runq, a_full_ring_takes_no_aged_ones) {
    make_ps(0);
    make_fresh(RT_RING, RT_RING + 10);
    push(&ps[0], 0, RT_RING);
    push(&ps[0], RT_RING, RT_RING + 10);
    rt_runq_age_owner(&ps[0], GO_SECOND);
    T_EQ(rt_runq_len_any(&ps[0]), RT_RING + 10);
    ps[0].round = RT_RING;
    pops(&ps[0], 0, RT_RING);
}

/* ---- stealing -------------------------------------------------------------------------------- */

Test(runq, steal_takes_the_oldest_half_rounded_up) {
    static const int lengths[] = {1, 2, 3, 7, 64, HALF - 1, HALF, RT_RING - 1, RT_RING};
    for (size_t k = 0; k < T_COUNT(lengths); k++) {
        make_ps(starts[0]);
        EACH_START {
            int n = lengths[k], taken = (n + 1) / 2;
            push(&ps[0], 0, n);
            ps[1].head = ps[1].tail = starts[(s_ + 3) % T_COUNT(starts)];
            T_ASSERT(rt_runq_steal(&ps[1], &ps[0]) == &gs[0]);
            T_EQ(rt_runq_len_any(&ps[1]), taken - 1);
            T_EQ(rt_runq_len_any(&ps[0]), n - taken);
            pops(&ps[1], 1, taken);
            pops(&ps[0], taken, n);
            T_EQ(ms[0].gate, 0);
            T_EQ(ps[1].steals, taken);
        }
    }
}

Test(runq, steal_takes_no_more_than_the_thief_has_room_for) {
    make_ps(0);
    push(&ps[0], 0, 100);
    push(&ps[1], 300, 300 + RT_RING - 10);
    T_ASSERT(rt_runq_steal(&ps[1], &ps[0]) == &gs[0]);
    T_EQ(rt_runq_len_any(&ps[1]), RT_RING - 10 + 4);
    T_EQ(rt_runq_len_any(&ps[0]), 100 - 5);
    T_EQ(rt_globq_size(), 0);
    pops(&ps[0], 5, 100);
}

Test(runq, steal_takes_the_oldest_half_of_the_fresh_ones_too) {
    make_ps(starts[0]);
    EACH_START {
        make_fresh(100, 109);
        push(&ps[0], 0, 5);
        push(&ps[0], 100, 109);
        T_ASSERT(rt_runq_steal(&ps[1], &ps[0]) == &gs[0]);
        T_EQ(ps[1].steals, 3 + 5);
        pops(&ps[1], 100, 105); /* as they came */
        pops(&ps[1], 1, 3);
        T_ASSERT(!rt_runq_pop_owner(&ps[1]));
        pops_down(&ps[0], 108, 104);
        pops(&ps[0], 3, 5);
        T_ASSERT(!rt_runq_pop_owner(&ps[0]));
    }
}

Test(runq, steal_takes_no_more_than_half_a_ring_of_each_kind) {
    make_ps(7);
    make_fresh(0, 2 * RT_FRESH); /* as many wait in the ring that were aged */
    for (int i = 0; i < RT_RING; i++)
        rt_runq_push_ring_owner(&ps[0], &gs[i]);
    push(&ps[0], RT_RING, RT_RING + RT_FRESH);
    T_ASSERT(rt_runq_steal(&ps[1], &ps[0]) == &gs[0]);
    T_EQ(rt_runq_len_any(&ps[1]), RT_RING - 1);
    T_EQ(rt_runq_len_any(&ps[0]), RT_FRESH);
    pops(&ps[1], 1, HALF);
    pops(&ps[1], RT_RING, RT_RING + HALF);
}

Test(runq, steal_leaves_runnext_alone_unless_it_was_seen_lying) {
    make_ps(0);
    T_ASSERT(!rt_runq_steal(&ps[1], &ps[0]));
    rt_runq_put_next_owner(&ps[0], &gs[0]);
    T_ASSERT(!rt_runq_steal(&ps[1], &ps[0]));
    T_ASSERT(!rt_runq_worth_stealing_any(&ps[0]));
    ps[0].stale = ps[0].ticks + 1; /* as sysmon does */
    T_ASSERT(rt_runq_worth_stealing_any(&ps[0]));
    push(&ps[0], 1, 2);
    T_ASSERT(rt_runq_steal(&ps[1], &ps[0]) == &gs[1]); /* the ring first */
    T_ASSERT(rt_runq_steal(&ps[1], &ps[0]) == &gs[0]);
    T_ASSERT(!ps[0].runnext);
    T_ASSERT(!rt_runq_steal(&ps[1], &ps[0]));
    T_ASSERT(!rt_runq_worth_stealing_any(&ps[0]));
}

Test(runq, steal_respects_the_owner_inside) {
    make_ps(0);
    push(&ps[0], 0, 10);
    ms[0].in_rt = 1;
    T_ASSERT(!rt_runq_steal(&ps[1], &ps[0]));
    T_EQ(ms[0].gate, 0); /* and gives up the gate */
    ms[0].in_rt = 0;
    ms[0].gate = 1; /* another thief is there */
    T_ASSERT(!rt_runq_steal(&ps[1], &ps[0]));
    T_EQ(ms[0].gate, 1);
    T_EQ(rt_runq_len_any(&ps[0]), 10);
}

Test(runq, what_the_owner_runs_in_no_time_is_not_worth_a_visit) {
    make_ps(0);
    ps[0].slice_ns = 100;
    push(&ps[0], 0, 2);
    T_ASSERT(!rt_runq_worth_stealing_any(&ps[0]));
    ps[0].slice_ns = RT_STEAL_MIN_NS;
    T_ASSERT(rt_runq_worth_stealing_any(&ps[0]));
    pops(&ps[0], 0, 2);
    T_ASSERT(!rt_runq_worth_stealing_any(&ps[0]));
}

/* An owner and two thieves on threads of their own: each G comes out once. */
static struct {
    uint32_t quit;
    uint64_t taken;
    uint8_t times[4 * RT_RING];
} heist;

static void *thief(void *arg) {
    struct rt_p own = {.slice_ns = 1};
    (void)arg;
    while (!rt_load_acquire(&heist.quit)) {
        struct rt_g *g = rt_runq_steal(&own, &ps[0]);
        for (; g; g = rt_runq_pop_owner(&own)) {
            rt_fetch_add(&heist.times[g->id], 1);
            rt_fetch_add(&heist.taken, 1);
        }
        sched_yield();
    }
    return NULL;
}

Test(runq, thieves_and_owner_get_each_one_once) {
    enum { BATCH = 200 };
    pthread_t t[2];
    make_ps(UINT32_MAX - 1000);
    t_start_threads(t, 2, thief);
    uint64_t expected = 0;
    for (int round = 0; round < (int)T_SCALE(3000); round++) {
        rt_gate_enter(&ms[0]);
        make_fresh(0, BATCH / 2); /* some of each kind */
        push(&ps[0], 0, BATCH);
        rt_gate_leave(&ms[0]);
        expected += BATCH;
        for (uint64_t mine = 0;;) {
            rt_gate_enter(&ms[0]);
            struct rt_g *g = rt_runq_pop_owner(&ps[0]);
            bool empty = !g && rt_runq_len_any(&ps[0]) == 0;
            rt_gate_leave(&ms[0]);
            if (empty)
                break;
            rt_fetch_add(&heist.times[g->id], 1);
            rt_fetch_add(&heist.taken, 1);
            if (++mine % 8 == 0)
                sched_yield();
        }
        while (rt_load_acquire(&heist.taken) != expected)
            sched_yield();
        for (int i = 0; i < BATCH; i++)
            T_EQ(heist.times[i], (uint8_t)(round + 1));
    }
    rt_store_release(&heist.quit, 1);
    t_join_threads(t, 2);
}

/* ---- the global queue ------------------------------------------------------------------------ */

static struct rt_glist list_of(int from, int to) {
    struct rt_glist l = {0};
    for (int i = from; i < to; i++)
        rt_glist_push(&l, &gs[i]);
    return l;
}

Test(globq, is_first_in_first_out_and_counts) {
    make_ps(0);
    struct rt_glist none = {0}, a = list_of(0, 3), b = list_of(3, 4);
    T_ASSERT(!rt_globq_take(&ps[0], 10));
    rt_globq_push(&none);
    T_EQ(rt_globq_size(), 0);
    rt_globq_push(&a);
    T_ASSERT(!a.head && !a.tail && a.n == 0);
    rt_globq_push(&b);
    T_EQ(rt_globq_size(), 4);
    for (int i = 0; i < 4; i++)
        T_ASSERT(rt_globq_take(&ps[0], 1) == &gs[i]);
    T_ASSERT(!rt_globq_take(&ps[0], 1));
    T_EQ(rt_runq_len_any(&ps[0]), 0);
    a = list_of(0, 1); /* after it was empty */
    rt_globq_push(&a);
    T_ASSERT(rt_globq_take(&ps[0], 1) == &gs[0]);
}

Test(globq, gives_each_p_its_share) {
    make_ps(0);
    struct rt_glist l = list_of(0, 100);
    rt_globq_push(&l);
    T_ASSERT(rt_globq_take(&ps[0], 1000) == &gs[0]); /* 100 / 2 + 1 */
    T_EQ(rt_runq_len_any(&ps[0]), 50);
    T_EQ(rt_globq_size(), 49);
    T_ASSERT(rt_globq_take(&ps[1], 10) == &gs[51]);
    T_EQ(rt_runq_len_any(&ps[1]), 9);
    pops(&ps[0], 1, 51);
    pops(&ps[1], 52, 61);
    T_EQ(rt_globq_size(), 39);
}

Test(globq, gives_no_more_than_there_is_room_for) {
    make_ps(0);
    push(&ps[0], 600, 600 + RT_RING - 2);
    struct rt_glist l = list_of(0, 100);
    rt_globq_push(&l);
    T_ASSERT(rt_globq_take(&ps[0], 100) == &gs[0]);
    T_EQ(rt_runq_len_any(&ps[0]), RT_RING);
    T_EQ(rt_globq_size(), 97);
    T_ASSERT(rt_globq_take(&ps[0], 100) == &gs[3]); /* a full ring takes none, but one runs */
    T_EQ(rt_runq_len_any(&ps[0]), RT_RING);
    T_EQ(rt_globq_size(), 96);
}
