/* park.c: of all who would end a wait exactly one does, whoever comes when. */
#include "t_unit.h"

#include "base/fault.h"
#include "base/lock.h"
#include "sched/park.h"

#include <sys/syscall.h>

/* One G parks again and again; claimers read who it is and which park it is, and try. */
struct arena {
    struct rt_g *g;
    uint64_t seq;     /* of the newest park; any thread */
    uint32_t lock;    /* held by the waiter until it is parked */
    uint32_t quit;
    int wins;         /* claims that succeeded in this round */
    int winner;       /* what that claimer said */
    bool locked;      /* claimers take the lock, as wakers do; else they come at any moment */
    bool hard;
};

static struct arena arena;

static void claim_once(struct arena *a, uint64_t seq, int code) {
    if (rt_claim(rt_load_acquire(&a->g), seq, code)) {
        rt_store_relaxed(&a->winner, code);
        rt_fetch_add(&a->wins, 1);
        rt_ready(a->g);
    }
}

static void *claimer(void *arg) {
    struct arena *a = &arena;
    int code = (int)t_int(arg) + 1;
    uint64_t old = 0, seed = (uint64_t)code * 77;
    while (!rt_load_acquire(&a->quit)) {
        if (!rt_load_acquire(&a->g) || rt_load_acquire(&a->wins) != 0) {
            sched_yield(); /* nothing to claim yet: leave the CPU to the waiter */
            continue;
        }
        if (a->locked) {
            rt_lock(&a->lock);
            claim_once(a, rt_load_relaxed(&a->seq), code);
            rt_unlock(&a->lock);
        } else {
            claim_once(a, rt_load_relaxed(&a->seq), code);
        }
        claim_once(a, old, code); /* one that is out of date, or, by now and then, is not */
        old = rt_load_relaxed(&a->seq);
        for (uint64_t spin = t_random(&seed) % 300; spin > 0; spin--)
            rt_cpu_relax();
        if (t_random(&seed) % 4 == 0)
            sched_yield();
    }
    return NULL;
}

static void park_rounds(struct arena *a, int rounds, bool timed) {
    struct rt_g *g = rt_self();
    uint64_t seed = 99;
    int by_timer = 0;
    for (int i = 0; i < rounds; i++) {
        int64_t deadline = GO_FOREVER;
        if (timed && i % 2)
            deadline = go_now() + (int64_t)(t_random(&seed) % 40) * GO_MICROSECOND;
        rt_lock(&a->lock);
        rt_store_relaxed(&a->wins, 0);
        rt_store_release(&a->seq, rt_park_seq(g));
        rt_store_release(&a->g, g);
        int r = rt_park(g, &a->lock, a->hard ? RT_HARD : RT_WAITING, deadline, RT_WHY_OTHER);
        if (r == -ETIMEDOUT) {
            T_ASSERT(go_now() >= deadline);
            T_EQ(rt_load_acquire(&a->wins), 0);
            by_timer++;
        } else {
            T_ASSERT(r > 0, "%d", r);
            T_AWAIT(rt_load_acquire(&a->wins) == 1);
            T_EQ(rt_load_relaxed(&a->winner), r);
        }
        T_EQ(rt_park_seq(g), a->seq + 1);
    }
    T_ASSERT(timed || by_timer == 0);
    rt_store_release(&a->quit, 1);
}

static void timed_rounds(void *arg) {
    park_rounds(&arena, (int)t_int(arg), true);
}
static void untimed_rounds(void *arg) {
    park_rounds(&arena, (int)t_int(arg), false);
}

static void race(void (*rounds)(void *), int n, int claimers, bool locked, bool hard) {
    pthread_t t[4];
    arena = (struct arena){.locked = locked, .hard = hard};
    T_EQ(go_start(NULL), 0);
    T_SPAWN(rounds, t_ptr(n));
    t_start_threads(t, claimers, claimer);
    t_join_threads(t, claimers);
    t_stop();
}

static int rounds(int n) {
    return (int)T_SCALE(t_procs() <= 8 ? n : n / 4);
}

Test(park, one_of_the_claimers_wins, .timeout = 120) {
    race(untimed_rounds, rounds(10000), 2, true, false);
    race(untimed_rounds, rounds(20000), 2, false, false);
    race(untimed_rounds, rounds(5000), 2, true, true);
}

Test(park, the_timer_or_one_of_the_claimers_wins, .timeout = 120) {
    race(timed_rounds, rounds(5000), 2, true, false);
    race(timed_rounds, rounds(10000), 2, false, false);
    race(timed_rounds, rounds(5000), 1, false, true);
}

/* The waiter is this thread: it stays until the last claimer has looked at what stands for it. */
Test(park, one_of_the_claimers_of_a_thread_wins, .timeout = 120) {
    for (int timed = 0; timed < 2; timed++) {
        pthread_t t[2];
        arena = (struct arena){.locked = timed != 0};
        t_start_threads(t, 2, claimer);
        park_rounds(&arena, rounds(10000), timed != 0);
        t_join_threads(t, 2);
    }
}

/* ---- against cancels ------------------------------------------------------------------------- */

/* Each round: a scope, a canceller that cancels it at any moment, a claimer, sometimes a timer. The
 * waiter leaves the scope when the canceller is through with it, as the contract wants. */
static struct {
    go_scope *scope; /* to be cancelled; taken by the canceller */
    uint32_t cancels;
} cancel;

static void *canceller(void *arg) {
    uint64_t seed = 5;
    while (!rt_load_acquire(&arena.quit)) {
        go_scope *s = rt_exchange(&cancel.scope, NULL);
        if (!s) {
            sched_yield();
            continue;
        }
        for (uint64_t spin = t_random(&seed) % 500; spin > 0; spin--)
            rt_cpu_relax();
        go_scope_cancel(s);
        rt_fetch_add(&cancel.cancels, 1);
    }
    return arg;
}

static void cancelled_rounds(void *arg) {
    struct rt_g *g = rt_self();
    struct arena *a = &arena;
    int by_cancel = 0, by_claim = 0, by_timer = 0;
    for (int i = 0; i < (int)t_int(arg); i++) {
        go_scope s;
        uint32_t before = rt_load_acquire(&cancel.cancels);
        go_scope_enter(&s, GO_FOREVER);
        rt_store_release(&cancel.scope, &s);
        rt_lock(&a->lock);
        rt_store_relaxed(&a->wins, 0);
        rt_store_release(&a->seq, rt_park_seq(g));
        rt_store_release(&a->g, g);
        int64_t deadline = i % 3 ? GO_FOREVER : go_now() + 20 * GO_MICROSECOND;
        int r = rt_park(g, &a->lock, RT_WAITING, deadline, RT_WHY_OTHER);
        if (r > 0)
            T_AWAIT(rt_load_acquire(&a->wins) == 1);
        else
            T_EQ(rt_load_acquire(&a->wins), 0);
        T_ASSERT(r > 0 || r == -ECANCELED || r == -ETIMEDOUT, "%d", r);
        by_claim += r > 0;
        by_cancel += r == -ECANCELED;
        by_timer += r == -ETIMEDOUT;
        while (rt_load_acquire(&cancel.cancels) == before)
            g->flags & RT_G_THREAD ? (void)sched_yield() : go_yield();
        T_EQ(go_canceled(), -ECANCELED);
        T_EQ(go_scope_leave(&s), -ECANCELED);
        T_EQ(go_canceled(), 0);
    }
    rt_store_release(&a->quit, 1);
    T_EQ(by_cancel + by_claim + by_timer, t_int(arg));
}

Test(park, the_cancel_or_the_timer_or_the_claimer_wins, .timeout = 120) {
    pthread_t t, c;
    arena = (struct arena){.locked = true};
    T_EQ(go_start(NULL), 0);
    T_SPAWN(cancelled_rounds, t_ptr(rounds(5000)));
    t_start_threads(&c, 1, canceller);
    t_start_threads(&t, 1, claimer);
    t_join_threads(&t, 1);
    t_join_threads(&c, 1);
    t_stop();
}

Test(park, the_cancel_or_the_claimer_wins_over_a_thread, .timeout = 120) {
    pthread_t t, c;
    arena = (struct arena){.locked = true};
    t_start_threads(&c, 1, canceller);
    t_start_threads(&t, 1, claimer);
    cancelled_rounds(t_ptr(rounds(5000)));
    t_join_threads(&t, 1);
    t_join_threads(&c, 1);
}

/* ---- one by one ------------------------------------------------------------------------------ */

static struct rt_g *parked;

static void park_hard(void *result) {
    struct rt_g *g = rt_self();
    rt_store_release(&parked, g);
    rt_store_release((int *)result, rt_park(g, NULL, RT_HARD, GO_FOREVER, RT_WHY_OTHER));
}

Test(park, a_hard_wait_is_claimed_by_no_cancel) {
    int result = 0;
    t_start(2);
    T_SPAWN(park_hard, &result);
    T_AWAIT(rt_load_acquire(&parked));
    T_AWAIT(RT_WAIT_STATE(rt_load_acquire(&parked->wait)) == RT_HARD);
    uint64_t seq = RT_WAIT_SEQ(rt_load_acquire(&parked->wait));
    T_ASSERT(!rt_claim_soft(parked, seq, -ECANCELED));
    T_ASSERT(!rt_claim(parked, seq - 1, 1));
    T_ASSERT(!rt_claim(parked, seq + 1, 1));
    T_ASSERT(rt_claim(parked, seq, 7));
    T_ASSERT(!rt_claim(parked, seq, 8));
    T_ASSERT(!rt_claim(parked, seq + 1, 8)); /* not parked: claimed, not yet ready */
    rt_ready(parked);
    T_AWAIT(rt_load_acquire(&result) == 7);
    t_stop();
}

static void park_cancelled(void *arg) {
    struct rt_g *g = rt_self();
    uint32_t lock = 0;
    rt_fetch_or(&g->attention, RT_ATT_TASK); /* as if it came between the check and the park */
    for (int i = 0; i < 3; i++) {
        rt_lock(&lock);
        T_EQ(rt_park(g, &lock, RT_WAITING, GO_FOREVER, RT_WHY_OTHER), -ECANCELED);
        T_EQ(lock, 0);
        rt_lock(&lock);
        T_EQ(rt_park(g, &lock, RT_WAITING, go_now() + GO_MINUTE, RT_WHY_OTHER), -ECANCELED);
        T_EQ(lock, 0);
        T_EQ(rt_park(g, NULL, RT_HARD, go_now() + GO_MILLISECOND, RT_WHY_OTHER), -ETIMEDOUT);
    }
    rt_store_release((int *)arg, 1);
}

Test(park, a_cancel_right_before_the_park_is_seen_by_the_commit) {
    int done = 0;
    t_start(2);
    T_SPAWN(park_cancelled, &done);
    T_AWAIT(rt_load_acquire(&done));
    t_stop();
}

static void park_without_memory(void *arg) {
    struct rt_g *g = rt_self();
    uint32_t lock = 0;
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM);
    rt_lock(&lock);
    T_EQ(rt_park(g, &lock, RT_WAITING, go_now() + GO_MILLISECOND, RT_WHY_OTHER), -ENOMEM);
    T_EQ(lock, 0);
    T_EQ(go_sleep(GO_MILLISECOND), -ENOMEM);
    rt_fault_disarm();
    int64_t begin = go_now();
    T_EQ(go_sleep(GO_MILLISECOND), 0);
    T_ASSERT(go_now() >= begin + GO_MILLISECOND);
    rt_store_release((int *)arg, 1);
}

Test(park, without_memory_for_a_timer_it_says_so_and_does_not_park) {
    int done = 0;
    t_start_strict(1); /* whose heap is empty yet */
    T_SPAWN(park_without_memory, &done);
    T_AWAIT(rt_load_acquire(&done));
    t_stop();
}

/* ---- migration ------------------------------------------------------------------------------- */

static __attribute__((noinline)) int swap_errno(int value) {
    int before = errno;
    errno = value;
    return before;
}

/* Not pthread_self(): it is a const function to the compiler, which keeps its value across a park.
 * */
static __attribute__((noinline)) pid_t thread_id(void) {
    return (pid_t)syscall(SYS_gettid);
}

static void hog_until(void *flag) {
    while (!rt_load_acquire((int *)flag))
        rt_cpu_relax();
    rt_store_release((int *)flag, 2);
}

/* It knows itself wherever it runs, and what belongs to the thread is the thread's. The hog takes
 * its P, so that another must take it. */
GTest(park, a_green_thread_knows_itself_on_every_thread, .timeout = 120) {
    uint64_t id = go_id();
    struct rt_g *self = rt_self();
    int moved = 0;
    T_ASSERT(id > 0 && self->id == id);
    for (int i = 0; i < rounds(200); i++) {
        int flag = t_procs() == 1;
        pid_t before = thread_id();
        T_SPAWN(hog_until, &flag);
        go_yield();
        swap_errno((int)id);
        T_EQ(swap_errno(0), (int)id);
        T_EQ(go_id(), id);
        T_ASSERT(rt_self() == self && rt_m()->g == self);
        moved += thread_id() != before;
        if (t_procs() > 1)
            rt_store_release(&flag, 1);
        while (rt_load_acquire(&flag) != 2)
            go_yield();
    }
    T_ASSERT(moved > 0 || t_procs() == 1);
}
