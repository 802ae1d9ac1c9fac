/* No G waits for ever: how many others have their turn before it has, at most.
 *
 * N green threads on P Ps. A slice is what a P hands out: ticks counts those begun, and what goes
 * on in runnext belongs to the slice of its maker. So the delay is at most
 *
 *     slices that come first  x  what a slice takes
 *
 * A SLICE takes s = RT_SLICE_NS and a tick of sysmon, which then sends the chain of runnext to the
 * end of the queue and asks the G to give way at its next call; and P/C times that when C CPUs are
 * fewer than Ps. That is a time, and is only told here. The slices that come first are a number,
 * and that is what decides.
 *
 * ON ONE P. Who yields goes to the end of the ring, behind at most N - 1. The ring is first in,
 * first out, and none gets in before him: due timers and polls bring theirs to the end, a thief
 * takes the oldest, ageing appends. But he may have to wait for a round of the F that have not
 * started (runq.h): for one, since the next round of the ring has as many turns as the ring has Gs,
 * him included. So
 *
 *     own = N + F
 *
 * as long as the global queue is empty: a look around, one in RT_PICKS picks and one at each tick,
 * lets one from there go first. Where each slice takes a tick each pick is a look, and then one of
 * the ring must come in between: twice as many. Under GORT_CHAOS some are sent there, too.
 *
 * MOVED. A thief takes the older half, so each move halves what is before him, and on the other P
 * there may be another round of fresh ones: log2(N) + 1 stays of `own` at most. No count of any one
 * P says how long these took: while a thread has no CPU the others may have a million slices. So a
 * round is over when each P that is awake has begun a slice since the one before was. While he
 * waits in a P, that P is awake, and has begun a slice in each round:
 *
 *     rounds = (log2(N) + 2) own
 *
 * THE GLOBAL QUEUE has at most N, and each P that is awake takes one at its look around, after
 * RT_PICKS picks at most. A full ring sends its newest half there, and whom a batch has brought may
 * be among them. No count excludes that it is the same one again and again, but it is rare: a batch
 * comes when there is room, and has moved up by RT_PICKS before the next one. In a crowd, then,
 * with one who is sent back twice,
 *
 *     rounds = 3 RT_PICKS N + (log2(N) + 2) own
 *
 * The bounds do not get less with P: each G has fewer before it then, but all of them may be on one
 * P until a thief comes. Ps are not taken from hogs (GO_STRICT), so that a G stays where its count
 * is until it has left; once more all of it runs without that, where only the end counts.
 *
 * Where somebody starves the count says so, as long as others have turns. When nobody has, as
 * behind a pair that is never sent from runnext, or when ageing is what fails, the test hangs until
 * its time limit ends it. */
#include "t_unit.h"

#include "sched/globq.h"
#include "sched/poller.h"
#include "sched/retake.h"
#include "sched/sched.h"

enum { PROBES = 8, PAIRS = 2, MOST_PAIRS = 65, SLEEPERS = 8, PARENTS = 2, BIRTHS = 5 };
enum { FLOOD = 64, CROWD = T_CROWD(1000) };

struct mix {
    const char *name;
    int hogs, pairs, flood, sleepers, crowd, served, sleepy;
    int procs; /* 0: as the environment says */
    unsigned flags;
    int turns; /* of each probe */
};

/* One who waits, and when that began. */
static struct probe {
    uint32_t waits; /* the round in which it began to, plus one; 0: it does not. All read it */
    uint32_t turns, moved;
    uint32_t most_slices, most_rounds;
    int64_t most_ns;
} probes[PROBES];

static const struct mix *mix;
static uint32_t own_bound, rounds_bound;
static uint32_t stop, unsatisfied, live, unborn;
static go_waitgroup home;

/* ---- rounds ---------------------------------------------------------------------------------- */

static struct {
    uint32_t lock, round;
    uint32_t at;     /* Ps before this one have begun a slice, or sleep */
    uint32_t *began; /* ticks of each when the round began; these two under the lock */
} now;

static bool has_moved(uint32_t i) {
    const struct rt_p *p = &rt.ps[i];
    return rt_load_relaxed(&p->ticks) != now.began[i] ||
           rt_load_relaxed(&rt_m_of(p)->sleep) != RT_AWAKE;
}

static void look_at_the_ps(void) {
    uint32_t free = 0;
    if (!rt_cas(&now.lock, &free, 1))
        return;
    while (now.at < rt_procs() && has_moved(now.at))
        now.at++;
    if (now.at == rt_procs()) {
        for (now.at = 0; now.at < rt_procs(); now.at++)
            now.began[now.at] = rt_load_relaxed(&rt.ps[now.at].ticks);
        now.at = 0;
        rt_store_release(&now.round, now.round + 1);
    }
    rt_store_release(&now.lock, 0);
}

/* Everybody does so at each turn: those who wait for ever cannot. */
static void look_around(void) {
    look_at_the_ps();
    if (mix->flags != GO_STRICT)
        return;
    uint32_t round = rt_load_acquire(&now.round); /* first: who begins to wait later is not late */
    for (int i = 0; i < PROBES; i++) {
        uint32_t since = rt_load_acquire(&probes[i].waits);
        int32_t waited = (int32_t)(round + 1 - since);
        T_ASSERT(since == 0 || waited <= (int32_t)rounds_bound,
                 "%s: probe %d has waited for %d rounds, at most %u are right", mix->name, i,
                 waited, rounds_bound);
    }
}

/* ---- those who wait and count ---------------------------------------------------------------- */

static void most(uint32_t *of, uint32_t n) {
    *of = n > *of ? n : *of;
}

static void take_turn(struct probe *me) {
    struct rt_p *p = rt_load_relaxed(&rt_m()->p);
    uint32_t ticks = rt_load_relaxed(&p->ticks), round = rt_load_acquire(&now.round);
    uint64_t steals = rt_load_relaxed(&p->steals);
    int64_t since = go_now();
    rt_store_release(&me->waits, round + 1);
    go_yield();
    rt_store_release(&me->waits, 0);
    int64_t ns = go_now() - since;
    me->most_ns = ns > me->most_ns ? ns : me->most_ns;
    most(&me->most_rounds, rt_load_acquire(&now.round) - round);
    /* Away and back again is by a theft of p, as long as no ring overflows. */
    bool stayed = rt_load_relaxed(&rt_m()->p) == p && rt_load_relaxed(&p->steals) == steals;
    me->turns++;
    me->moved += !stayed;
    if (!stayed || mix->flags != GO_STRICT || mix->crowd)
        return;
    uint32_t slices = rt_load_relaxed(&p->ticks) - ticks;
    most(&me->most_slices, slices);
    T_ASSERT(slices <= own_bound, "%s: %u slices came first, at most %u are right", mix->name,
             slices, own_bound);
}

/* When all have the others end: until then N stays what it is. */
static void has_had_enough(void) {
    if (rt_fetch_sub(&unsatisfied, 1) == 1)
        rt_store_release(&stop, 1);
}

static void probe(void *arg) {
    struct probe *me = arg;
    for (int i = 0; i < mix->turns; i += rt_load_acquire(&unborn) == 0) {
        take_turn(me);
        look_around();
    }
    has_had_enough();
    while (!rt_load_acquire(&stop)) {
        go_yield();
        look_around();
    }
    go_waitgroup_done(&home);
}

/* ---- those who are in the way ---------------------------------------------------------------- */

/* Turns are counted from when all are there. */
static void begin(void) {
    rt_fetch_sub(&unborn, 1);
}

static void hog(void *arg T_UNUSED) {
    begin();
    while (!rt_load_acquire(&stop)) {
        go_checkpoint();
        look_around();
    }
    go_waitgroup_done(&home);
}

static go_chan *balls[MOST_PAIRS];

static void serve(void *arg) {
    go_chan *ball = arg;
    int n = 0;
    begin();
    while (!rt_load_acquire(&stop)) {
        T_EQ(go_chan_send(ball, &n), 0);
        T_EQ(go_chan_recv(ball, &n), 0);
        look_around();
    }
    T_EQ(go_chan_close(ball), 0);
    go_waitgroup_done(&home);
}

static void give_back(void *arg) {
    go_chan *ball = arg;
    int n;
    begin();
    while (go_chan_recv(ball, &n) == 0 && go_chan_send(ball, &n) == 0)
        ;
    go_waitgroup_done(&home);
}

static void spawn_child(void (*fn)(void *), void *arg) {
    go_waitgroup_add(&home, 1);
    T_SPAWN(fn, arg);
}

/* Three of four have two children, as long as there is room: they never die out, and the newest
 * always comes first. */
static void child(void *arg) {
    bool fertile = (go_id() * UINT64_C(0x9e3779b97f4a7c15)) >> 62 != 0;
    for (int i = 0; i < 2 && fertile && !rt_load_acquire(&stop); i++)
        if (rt_fetch_add(&live, 1) < FLOOD)
            spawn_child(child, arg);
        else
            rt_fetch_sub(&live, 1);
    look_around();
    rt_fetch_sub(&live, 1);
    go_waitgroup_done(&home);
}

static void spawner(void *arg T_UNUSED) {
    begin();
    while (!rt_load_acquire(&stop)) {
        while (rt_fetch_add(&live, 1) < FLOOD)
            spawn_child(child, NULL);
        rt_fetch_sub(&live, 1);
        go_yield();
        look_around();
    }
    go_waitgroup_done(&home);
}

static void newborn(void *arg) {
    go_waitgroup_done(arg);
}

/* Who has not started when younger ones come first: ageing lets him, and that is by time. */
static void parent(void *arg T_UNUSED) {
    begin();
    for (int i = 0; !rt_load_acquire(&stop); i++) {
        go_waitgroup born = {0};
        go_waitgroup_add(&born, 2);
        T_SPAWN(newborn, &born);
        T_SPAWN(newborn, &born); /* sends the first one from runnext to the others */
        T_EQ(go_waitgroup_wait(&born), 0);
        look_around();
        if (i == BIRTHS)
            has_had_enough();
    }
    go_waitgroup_done(&home);
}

static void sleeper(void *arg T_UNUSED) {
    begin();
    while (!rt_load_acquire(&stop)) {
        T_EQ(go_sleep(GO_MILLISECOND), 0);
        look_around();
    }
    go_waitgroup_done(&home);
}

static void crowd_member(void *arg T_UNUSED) {
    begin();
    for (unsigned i = 0; !rt_load_acquire(&stop); i++) {
        go_yield();
        if (i % 16 == 0)
            look_around();
        else
            look_at_the_ps();
    }
    go_waitgroup_done(&home);
}

/* The next two are never without another one of them in the global queue when they leave. */
static bool is_waited_for(void) {
    return rt_globq_size() != 0 || rt_load_acquire(&stop);
}

static go_chan *requests;

/* Whom a thread makes ready goes to the global queue; until the tick, so that the next pick is a
 * look around. */
static void served(void *arg T_UNUSED) {
    for (int i = 0; go_chan_recv(requests, NULL) == 0; i++) {
        if (i == 0)
            begin();
        const struct rt_p *p = rt_load_relaxed(&rt_m()->p);
        while (!is_waited_for() || !(rt_load_relaxed(&p->attention) & RT_P_LOOK))
            if (rt_load_acquire(&stop))
                break;
        look_around();
    }
    go_waitgroup_done(&home);
}

static void *request(void *arg) {
    while (!rt_load_acquire(&stop))
        if (go_chan_try_send(requests, NULL) != 0) /* nobody is parked there now */
            sched_yield();
    T_EQ(go_chan_close(requests), 0);
    return arg;
}

/* It calls something that sleeps in the kernel, so its P is taken and it comes back without. */
static void sleepy(void *arg T_UNUSED) {
    begin();
    while (!rt_load_acquire(&stop)) {
        struct rt_m *m = rt_m();
        while (!is_waited_for() && !rt_gate_is_shut(m))
            rt_sys_yield();
        while (!rt_gate_is_shut(m) && !rt_load_acquire(&stop)) {
            struct rt_p *p = rt_load_relaxed(&m->p);
            rt_retake(p, rt_progress_any(p));
        }
        go_yield();
    }
    go_waitgroup_done(&home);
}

/* ---- a mix ----------------------------------------------------------------------------------- */

static void spawn_some(int n, void (*fn)(void *)) {
    for (int i = 0; i < n; i++)
        spawn_child(fn, NULL);
}

static void spawn_all(void *arg T_UNUSED) {
    spawn_some(mix->hogs, hog);
    for (int i = 0; i < mix->pairs; i++) {
        spawn_child(give_back, balls[i]);
        spawn_child(serve, balls[i]);
    }
    spawn_some(mix->flood ? 1 : 0, spawner);
    spawn_some(mix->flood ? PARENTS : 0, parent);
    spawn_some(mix->sleepers, sleeper);
    spawn_some(mix->served, served);
    spawn_some(mix->sleepy, sleepy);
    spawn_some(mix->crowd / 2, crowd_member);
    for (int i = 0; i < PROBES; i++)
        spawn_child(probe, &probes[i]);
    spawn_some(mix->crowd / 2, crowd_member);
    go_waitgroup_done(&home);
}

static uint32_t log2_above(uint32_t n) {
    return n > 1 ? 32 - (uint32_t)__builtin_clz(n - 1) : 0;
}

/* Of the delay in ns only what was is told: how much CPU the machine gave decides it. */
static void report(int n) {
    struct probe all = {0};
    for (int i = 0; i < PROBES; i++) {
        most(&all.most_slices, probes[i].most_slices);
        most(&all.most_rounds, probes[i].most_rounds);
        all.turns += probes[i].turns;
        all.moved += probes[i].moved;
        if (probes[i].most_ns > all.most_ns)
            all.most_ns = probes[i].most_ns;
    }
    double cpus = (double)rt_sys_cpus(), share = rt.procs > cpus ? rt.procs / cpus : 1;
    printf("%s, %u Ps%s, N %d: %u waits, %u moved; longest: %u slices of %u, %u rounds of %u, "
           "%.2f ms of %.0f\n",
           mix->name, rt.procs, mix->flags == GO_STRICT ? "" : ", taken from hogs", n, all.turns,
           all.moved, all.most_slices, own_bound, all.most_rounds, rounds_bound,
           (double)all.most_ns / GO_MILLISECOND,
           share * own_bound * ((double)RT_SLICE_NS / GO_MILLISECOND + 2.5)); /* sysmon.c */
}

static void run_mix(const struct mix *this_one) {
    mix = this_one;
    uint32_t fresh = mix->flood ? FLOOD + 2 * PARENTS : 0;
    int n = mix->hogs + 2 * mix->pairs + mix->sleepers + mix->crowd +
            mix->served + mix->sleepy;
    n += mix->flood ? 1 + PARENTS : 0;
    rt_store_relaxed(&unborn, (uint32_t)n);
    n += PROBES + (int)fresh + 1;
    T_ASSERT(mix->crowd || n < RT_RING); /* no ring overflows */
    own_bound = ((uint32_t)n + fresh) * (mix->served || getenv("GORT_CHAOS") ? 2 : 1);
    rounds_bound = (log2_above((uint32_t)n) + 2) * own_bound;
    if (mix->crowd)
        rounds_bound += 3 * (uint32_t)RT_PICKS * (uint32_t)n;
    rt_store_relaxed(&unsatisfied, PROBES + (mix->flood ? PARENTS : 0));
    T_ASSERT(now.began = calloc(RT_MAX_PROCS, sizeof *now.began));
    for (int i = 0; i < mix->pairs; i++)
        T_ASSERT(balls[i] = go_chan_new(sizeof(int), 0));
    struct go_options o = GO_OPTIONS_INIT;
    o.procs = (unsigned)(mix->procs ? mix->procs : t_procs());
    o.flags = mix->flags;
    T_EQ(go_start(&o), 0);
    go_waitgroup_add(&home, 1);
    pthread_t t;
    T_ASSERT(requests = go_chan_new(0, 0));
    t_start_threads(&t, mix->served ? 1 : 0, request);
    T_SPAWN(spawn_all, NULL);
    T_EQ(go_waitgroup_wait(&home), 0);
    t_join_threads(&t, mix->served ? 1 : 0);
    go_chan_free(requests);
    report(n);
    t_stop();
    for (int i = 0; i < mix->pairs; i++)
        go_chan_free(balls[i]);
    free(now.began);
}

#define MIX(...) run_mix(&(struct mix){__VA_ARGS__})
/* One more than there are Ps: then no P is idle and helps. */
#define EACH_P   (t_procs() < MOST_PAIRS ? t_procs() + 1 : MOST_PAIRS)
#define A_FEW_PS (t_procs() < 8 ? t_procs() + 1 : 9) /* a thread for each leaves others some CPU */

Test(fair, those_who_yield_take_turns) {
    MIX(.name = "yields", .flags = GO_STRICT, .turns = (int)T_SCALE(20000));
}

Test(fair, hogs_with_checkpoints_keep_their_slice_and_no_more, .timeout = 120) {
    MIX(.name = "hogs", .flags = GO_STRICT, .hogs = EACH_P,
        .turns = t_procs() < 8 ? 5 : 1);
}

Test(fair, pairs_that_hand_each_other_runnext_go_behind_the_others, .timeout = 120) {
    MIX(.name = "pairs", .flags = GO_STRICT, .pairs = EACH_P, .turns = t_procs() < 8 ? 5 : 1);
}

Test(fair, a_flood_of_spawns_has_its_rounds_and_no_more) {
    MIX(.name = "flood", .flags = GO_STRICT, .flood = FLOOD, .turns = (int)T_SCALE(4000));
}

Test(fair, due_timers_go_behind_those_who_wait) {
    MIX(.name = "timers", .flags = GO_STRICT, .sleepers = SLEEPERS, .turns = (int)T_SCALE(20000));
}

Test(fair, of_a_crowd_that_overflows_all_get_their_turn) {
    MIX(.name = "crowd", .flags = GO_STRICT, .crowd = CROWD, .turns = (int)T_SCALE(500));
}

Test(fair, the_global_queue_is_not_all_there_is_when_each_slice_takes_a_tick) {
    MIX(.name = "served", .procs = 1, .flags = GO_STRICT, .served = 3, .turns = 20);
}

Test(fair, those_who_come_back_without_a_p_are_not_all_there_is) {
    MIX(.name = "sleepy", .procs = 1, .sleepy = 4, .turns = 20);
}

Test(fair, all_that_together, .timeout = 120) {
    MIX(.name = "all", .flags = GO_STRICT, .hogs = A_FEW_PS, .pairs = PAIRS, .flood = FLOOD,
        .sleepers = SLEEPERS, .turns = 3);
}

Test(fair, all_that_together_while_ps_are_taken_from_hogs, .timeout = 120) {
    MIX(.name = "all", .hogs = A_FEW_PS, .pairs = PAIRS, .flood = FLOOD, .sleepers = SLEEPERS,
        .turns = 5);
}
