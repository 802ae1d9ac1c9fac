/* cond.c: no signal is lost, the mutex is locked when a wait returns, and the waker has left. */
#include "t_sync.h"

#include "base/fault.h"

static go_mutex m;
static go_cond c;

static void is_as_new(void) {
    T_ASSERT(!c.rt_waiters);
    T_EQ(m.rt_state, 0);
}

/* ---- a bounded buffer ------------------------------------------------------------------------ */

enum { SLOTS = 4 };
static struct {
    go_cond not_full, not_empty;
    int items[SLOTS], first, n; /* under m, plain */
    int each, producers, produced, consumed, parties;
    uint64_t sum;
    bool deadlines;
} store;

static int wait_for(go_cond *cond, uint64_t *seed) {
    if (!store.deadlines || t_random(seed) % 2)
        return go_cond_wait(cond, &m);
    return go_cond_wait_until(cond, &m, go_now() + (int64_t)(t_random(seed) % 30) * GO_MICROSECOND);
}

static void produce(int me) {
    uint64_t seed = (uint64_t)me + 1;
    for (int i = 0; i < store.each; i++) {
        go_mutex_lock(&m);
        while (store.n == SLOTS)
            wait_for(&store.not_full, &seed);
        store.items[(store.first + store.n++) % SLOTS] = me * store.each + i;
        store.produced++;
        go_cond_signal(&store.not_empty);
        go_mutex_unlock(&m);
    }
}

static void consume(int me) {
    uint64_t seed = (uint64_t)me + 100;
    int all = store.each * store.producers;
    go_mutex_lock(&m);
    while (store.consumed < all) {
        if (store.n == 0) {
            wait_for(&store.not_empty, &seed);
            continue;
        }
        store.sum += (uint64_t)store.items[store.first];
        store.first = (store.first + 1) % SLOTS;
        store.n--;
        if (++store.consumed == all)
            go_cond_broadcast(&store.not_empty);
        go_mutex_unlock(&m);
        go_cond_signal(&store.not_full); /* not under the mutex: that is allowed, too */
        if (t_random(&seed) % 16 == 0)
            go_yield();
        go_mutex_lock(&m);
    }
    go_mutex_unlock(&m);
}

static void trade(int me) {
    if (me % 2 == 0)
        produce(me / 2);
    else
        consume(me / 2);
}

static void market(int green, int threads, int each, bool deadlines) {
    memset(&store, 0, sizeof store);
    store.producers = (green + threads) / 2;
    store.each = each;
    store.deadlines = deadlines;
    t_crowd(green, threads, trade);
    uint64_t n = (uint64_t)store.producers * (uint64_t)each;
    T_EQ(store.sum, n * (n - 1) / 2);
    T_ASSERT(!store.not_full.rt_waiters && !store.not_empty.rt_waiters);
    is_as_new();
}

Test(cond, a_bounded_buffer_loses_nothing, .timeout = 120) {
    T_EQ(go_start(NULL), 0);
    for (int deadlines = 0; deadlines < 2; deadlines++) {
        market(2, 0, t_count(5000), deadlines);
        market(8, 0, t_count(1000), deadlines);
        market(40, 0, t_count(50), deadlines);
        market(2, 2, t_count(500), deadlines);
    }
    t_stop();
    market(0, 4, t_count(300), false);
    market(0, 4, t_count(300), true);
}

/* ---- whom a signal wakes --------------------------------------------------------------------- */

enum { WAITERS = 8 };
static int order[WAITERS];
static uint32_t woken;

static void waits(void *arg) {
    go_mutex_lock(&m);
    T_EQ(go_cond_wait(&c, &m), 0);
    T_EQ(go_mutex_trylock(&m), -EBUSY);
    order[woken] = (int)t_int(arg);
    rt_store_release(&woken, woken + 1);
    go_mutex_unlock(&m);
}

static void spawn_waiters(int n) {
    rt_store_relaxed(&woken, 0);
    for (int i = 0; i < n; i++) {
        T_SPAWN(waits, t_ptr(i));
        T_AWAIT(t_waiting(&c, &c.rt_waiters) == i + 1);
    }
}

GTest(cond, a_signal_wakes_the_one_that_waits_longest_and_no_other) {
    spawn_waiters(WAITERS);
    for (int i = 0; i < WAITERS; i++) {
        T_EQ(go_sleep(20 * GO_MICROSECOND), 0);
        T_EQ(rt_load_acquire(&woken), i);
        go_cond_signal(&c);
        T_AWAIT(rt_load_acquire(&woken) == (uint32_t)i + 1);
        T_EQ(order[i], i);
        T_EQ(t_waiting(&c, &c.rt_waiters), WAITERS - 1 - i);
    }
    go_mutex_lock(&m);
    go_mutex_unlock(&m);
    is_as_new();
}

GTest(cond, a_signal_or_broadcast_for_nobody_is_not_kept) {
    go_cond_signal(&c);
    go_cond_broadcast(&c);
    go_mutex_lock(&m);
    T_EQ(go_cond_wait_until(&c, &m, go_now() + 100 * GO_MICROSECOND), -ETIMEDOUT);
    go_mutex_unlock(&m);
    is_as_new();
}

GTest(cond, a_broadcast_wakes_all) {
    for (int round = 0; round < t_count(20); round++) {
        spawn_waiters(WAITERS);
        if (round % 2)
            go_mutex_lock(&m); /* then they queue up for it */
        go_cond_broadcast(&c);
        T_EQ(t_waiting(&c, &c.rt_waiters), 0);
        if (round % 2) {
            T_EQ(rt_load_acquire(&woken), 0);
            go_mutex_unlock(&m);
        }
        T_AWAIT(rt_load_acquire(&woken) == WAITERS);
        go_mutex_lock(&m);
        go_mutex_unlock(&m);
        is_as_new();
    }
}

static void *signals(void *arg) {
    T_AWAIT(t_waiting(&c, &c.rt_waiters) == 1);
    go_mutex_lock(&m);
    go_cond_signal(&c);
    go_mutex_unlock(&m);
    return arg;
}

Test(cond, threads_need_no_runtime) {
    pthread_t t;
    for (int i = 0; i < t_count(100); i++) {
        T_EQ(pthread_create(&t, NULL, signals, NULL), 0);
        go_mutex_lock(&m);
        T_EQ(go_cond_wait(&c, &m), 0);
        go_mutex_unlock(&m);
        T_EQ(pthread_join(t, NULL), 0);
    }
    is_as_new();
}

/* Somebody queues for the mutex when it is given up: then the unlock is the long one. */
static void takes_the_mutex(void *arg T_UNUSED) {
    go_mutex_lock(&m);
    go_cond_signal(&c);
    go_mutex_unlock(&m);
}

GTest(cond, who_queues_for_the_mutex_gets_it_when_the_wait_begins) {
    for (int i = 0; i < t_count(300); i++) {
        go_mutex_lock(&m);
        T_SPAWN(takes_the_mutex, NULL);
        if (i % 3 == 0)
            T_SPAWN(takes_the_mutex, NULL);
        T_AWAIT(rt_load_acquire(&m.rt_waiters));
        T_EQ(go_cond_wait(&c, &m), 0);
        go_mutex_unlock(&m);
        T_AWAIT(t_stats().tasks_live == 1);
    }
    is_as_new();
}

static void wait_unlocked(void) {
    go_cond_wait(&c, &m);
}

Test(cond, a_wait_without_the_mutex_is_told_and_aborts) {
    T_DIES(SIGABRT, "gort: go_cond_wait: the mutex is not locked", wait_unlocked());
}

/* ---- cancels and deadlines ------------------------------------------------------------------- */

static void cancels(void *scope) {
    T_AWAIT(t_waiting(&c, &c.rt_waiters) == 1);
    T_EQ(go_mutex_trylock(&m), 0); /* the waiter has let it go */
    go_scope_cancel(scope);
    go_sleep(50 * GO_MICROSECOND);
    go_mutex_unlock(&m); /* not before this does the wait return */
}

GTest(cond, a_cancelled_wait_returns_with_the_mutex_locked) {
    go_scope s;
    for (int i = 0; i < t_count(100); i++) {
        go_mutex_lock(&m);
        go_scope_enter(&s, GO_FOREVER);
        T_SPAWN(cancels, &s);
        T_EQ(i % 2 ? go_cond_wait(&c, &m) : go_cond_wait_until(&c, &m, go_now() + T_NEVER),
             -ECANCELED);
        T_EQ(go_mutex_trylock(&m), -EBUSY);
        T_EQ(go_cond_wait(&c, &m), -ECANCELED); /* a state; and still locked */
        T_EQ(go_cond_wait_until(&c, &m, GO_NOW), -ECANCELED);
        T_EQ(go_mutex_trylock(&m), -EBUSY);
        T_EQ(go_scope_leave(&s), -ECANCELED);
        go_mutex_unlock(&m);
        T_AWAIT(t_stats().tasks_live == 1);
        is_as_new();
    }
}

static void check_deadlines(void *arg T_UNUSED) {
    go_scope s;
    go_mutex_lock(&m);
    T_EQ(go_cond_wait_until(&c, &m, GO_NOW), -ETIMEDOUT);
    T_EQ(go_cond_wait_until(&c, &m, INT64_MIN), -ETIMEDOUT);
    for (int i = 0; i < 5; i++) {
        int64_t deadline = go_now() + i * 200 * GO_MICROSECOND;
        T_EQ(go_cond_wait_until(&c, &m, deadline), -ETIMEDOUT);
        T_ASSERT(go_now() >= deadline);
        T_EQ(go_mutex_trylock(&m), -EBUSY);

        deadline = go_now() + i * 200 * GO_MICROSECOND;
        go_scope_enter(&s, deadline); /* the scope's: a call that has none says late, ... */
        T_EQ(go_cond_wait(&c, &m), -ETIMEDOUT);
        T_ASSERT(go_now() >= deadline);
        T_EQ(go_mutex_trylock(&m), -EBUSY);
        T_EQ(go_scope_leave(&s), -ETIMEDOUT);

        go_scope_enter(&s, go_now() + i * 200 * GO_MICROSECOND); /* ... one that has: cancelled */
        T_EQ(go_cond_wait_until(&c, &m, go_now() + T_NEVER), -ECANCELED);
        T_EQ(go_cond_wait_until(&c, &m, GO_FOREVER), -ECANCELED);
        T_EQ(go_scope_leave(&s), -ETIMEDOUT);
        go_scope_enter(&s, go_now() + i * 200 * GO_MICROSECOND);
        T_EQ(go_cond_wait_until(&c, &m, GO_FOREVER), -ECANCELED);
        T_EQ(go_scope_leave(&s), -ETIMEDOUT);

        go_scope_enter(&s, go_now() + T_NEVER); /* both, and its own comes first */
        T_EQ(go_cond_wait_until(&c, &m, go_now() + i * 100 * GO_MICROSECOND), -ETIMEDOUT);
        T_EQ(go_scope_leave(&s), 0);
    }
    go_mutex_unlock(&m);
    is_as_new();
}

Test(cond, whose_deadline_it_was_is_told) {
    T_RUN(check_deadlines, NULL);
    check_deadlines(NULL); /* on a thread, without a runtime */
}

GTest(cond, without_room_for_a_timer_it_says_so_with_the_mutex_locked) {
    go_mutex_lock(&m);
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM);
    T_EQ(go_cond_wait_until(&c, &m, go_now() + T_NEVER), -ENOMEM);
    rt_fault_disarm();
    T_EQ(go_mutex_trylock(&m), -EBUSY);
    go_mutex_unlock(&m);
    is_as_new();
}

/* One is cancelled, and the signal that comes right after finds it on the queue still, or not any
 * more: it is for the other. */
static go_scope scope;
static int first_result, second_result;
static uint32_t cancelled; /* the canceller is through with the scope */

static void waits_first(void *arg T_UNUSED) {
    go_scope_enter(&scope, GO_FOREVER);
    go_mutex_lock(&m);
    first_result = go_cond_wait(&c, &m);
    go_mutex_unlock(&m);
    T_AWAIT(rt_load_acquire(&cancelled));
    go_scope_leave(&scope);
}
static void waits_second(void *arg T_UNUSED) {
    go_mutex_lock(&m);
    second_result = go_cond_wait(&c, &m);
    go_mutex_unlock(&m);
}

GTest(cond, a_signal_after_a_cancel_is_for_the_next) {
    for (int i = 0; i < t_count(500); i++) {
        first_result = second_result = 1;
        rt_store_relaxed(&cancelled, 0);
        T_SPAWN(waits_first, NULL);
        T_AWAIT(t_waiting(&c, &c.rt_waiters) == 1);
        T_SPAWN(waits_second, NULL);
        T_AWAIT(t_waiting(&c, &c.rt_waiters) == 2);
        go_scope_cancel(&scope);
        rt_store_release(&cancelled, 1);
        go_cond_signal(&c);
        T_AWAIT(t_stats().tasks_live == 1); /* or it hangs */
        T_EQ(first_result, -ECANCELED);
        T_EQ(second_result, 0);
    }
    is_as_new();
}

/* Each signal wakes one, also one that comes when a wait has just begun. */
static struct { uint32_t signals, wakes, quit; } bell;

static void sleeps_and_counts(int me) {
    go_mutex_lock(&m);
    while (!rt_load_relaxed(&bell.quit)) {
        T_EQ(go_cond_wait(&c, &m), 0);
        rt_fetch_add(&bell.wakes, 1);
        if (me % 2) {
            go_mutex_unlock(&m);
            go_mutex_lock(&m);
        }
    }
    go_mutex_unlock(&m);
}

static void rings_or_counts(int me) {
    if (me > 0) {
        sleeps_and_counts(me);
        return;
    }
    uint64_t seed = 51;
    for (int i = 0; i < t_count(5000);) {
        if (t_waiting(&c, &c.rt_waiters) == 0) {
            go_yield();
            continue;
        }
        bool locked = t_random(&seed) % 2;
        if (locked)
            go_mutex_lock(&m);
        rt_store_relaxed(&bell.signals, (uint32_t)++i);
        go_cond_signal(&c); /* for somebody: there is no other who signals */
        if (locked)
            go_mutex_unlock(&m);
        uint32_t wakes = rt_load_seq_cst(&bell.wakes);
        T_ASSERT(wakes <= (uint32_t)i, "%u wakes by %d signals", wakes, i);
    }
    T_AWAIT(rt_load_seq_cst(&bell.wakes) >= bell.signals);
    T_EQ(bell.wakes, bell.signals);
    go_mutex_lock(&m);
    rt_store_relaxed(&bell.quit, 1);
    go_cond_broadcast(&c);
    go_mutex_unlock(&m);
}

Test(cond, each_signal_wakes_exactly_one, .timeout = 120) {
    T_EQ(go_start(NULL), 0);
    memset(&bell, 0, sizeof bell);
    t_crowd(8, 0, rings_or_counts);
    memset(&bell, 0, sizeof bell);
    t_crowd(4, 3, rings_or_counts);
    t_stop();
    is_as_new();
}

/* Each ticket comes with one signal. The impatient take no ticket, and signal on if they were
 * woken; so a signal that one of them swallowed leaves a ticket and all patient ones asleep. */
static struct {
    int tickets; /* under m */
    uint32_t taken;
    uint32_t quit;
} booth;

static void impatient(void *arg) {
    uint64_t seed = (uint64_t)t_int(arg) + 3;
    while (!rt_load_relaxed(&booth.quit)) {
        go_mutex_lock(&m);
        int64_t patience = (int64_t)(t_random(&seed) % 20) * GO_MICROSECOND;
        int r = go_cond_wait_until(&c, &m, go_now() + patience);
        go_mutex_unlock(&m);
        if (r == 0)
            go_cond_signal(&c);
        go_yield();
    }
}
static void *impatient_thread(void *arg) {
    impatient(arg);
    return NULL;
}
static void patient(void *arg T_UNUSED) {
    go_mutex_lock(&m);
    while (!rt_load_relaxed(&booth.quit)) {
        if (booth.tickets > 0) {
            booth.tickets--;
            rt_fetch_add(&booth.taken, 1);
        }
        if (booth.tickets == 0)
            T_EQ(go_cond_wait(&c, &m), 0);
    }
    go_mutex_unlock(&m);
}

Test(cond, one_that_gives_up_swallows_no_signal, .timeout = 120) {
    pthread_t t;
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < 6; i++)
        T_SPAWN(i % 2 ? patient : impatient, t_ptr(i));
    T_EQ(pthread_create(&t, NULL, impatient_thread, t_ptr(9)), 0);
    int n = t_count(3000);
    for (int i = 1; i <= n; i++) {
        go_mutex_lock(&m);
        booth.tickets++;
        go_mutex_unlock(&m);
        go_cond_signal(&c);
        if (i % 4 == 0 || i == n)
            T_AWAIT(rt_load_acquire(&booth.taken) == (uint32_t)i);
    }
    go_mutex_lock(&m);
    rt_store_relaxed(&booth.quit, 1);
    go_mutex_unlock(&m);
    while (t_stats().tasks_live != 0) {
        go_cond_broadcast(&c);
        t_relax();
    }
    T_EQ(pthread_join(t, NULL), 0);
    t_stop();
    is_as_new();
}

/* ---- whose memory ---------------------------------------------------------------------------- */

/* The waker may free the condition variable right after a broadcast, or the waiter when it has been
 * woken, also when the other waiter was just giving up. The mutex stays. */
static struct {
    go_cond *c;
    uint32_t round, done;
    int rounds, parties;
    bool waker_frees, deadlines;
    bool over, gone; /* under m */
} page;

static void wait_at_page(int me, uint64_t *seed) {
    go_cond *at = page.c;
    go_mutex_lock(&m);
    while (!page.over) {
        int64_t patience = (int64_t)(t_random(seed) % 30) * GO_MICROSECOND;
        if (page.deadlines && me != 1)
            go_cond_wait_until(at, &m, go_now() + patience);
        else
            T_EQ(go_cond_wait(at, &m), 0);
    }
    if (!page.gone)
        t_page_gone(at);
    page.gone = true;
    go_mutex_unlock(&m);
    rt_fetch_add(&page.done, 1);
}

static void wake_or_wait(int me) {
    uint64_t seed = (uint64_t)me + 21;
    for (uint32_t round = 1; round <= (uint32_t)page.rounds; round++) {
        if (me != 0) {
            T_AWAIT(rt_load_acquire(&page.round) == round);
            wait_at_page(me, &seed);
            continue;
        }
        page.c = t_page();
        page.over = page.gone = false;
        rt_store_release(&page.round, round);
        T_AWAIT(t_waiting(page.c, &page.c->rt_waiters) > 0);
        t_spin(t_random(&seed) % 300);
        go_mutex_lock(&m);
        page.over = true;
        page.gone = page.waker_frees;
        go_cond_broadcast(page.c);
        if (page.waker_frees)
            t_page_gone(page.c);
        go_mutex_unlock(&m);
        T_AWAIT(rt_load_acquire(&page.done) == round * (uint32_t)(page.parties - 1));
    }
}

static void pages(int green, int threads, bool waker_frees, bool deadlines) {
    memset(&page, 0, sizeof page);
    page.parties = green + threads;
    page.rounds = t_count(150);
    page.waker_frees = waker_frees;
    page.deadlines = deadlines;
    t_crowd(green, threads, wake_or_wait);
}

Test(cond, it_may_be_freed_when_all_have_been_woken, .timeout = 120) {
    T_EQ(go_start(NULL), 0);
    for (int how = 0; how < 4; how++) {
        pages(3, 0, how / 2, how % 2);
        pages(2, 1, how / 2, how % 2);
    }
    t_stop();
    for (int how = 0; how < 4; how++)
        pages(0, 2, how / 2, how % 2);
}
