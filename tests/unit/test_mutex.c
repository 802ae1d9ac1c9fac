/* mutex.c: one at a time, nobody starves, and the last touch is the release. */
#include "t_unit.h"

#include <sys/mman.h>

static int count(int n) {
    return (int)T_SCALE(t_procs() <= 8 ? n : n / 2);
}

/* ---- mutual exclusion ------------------------------------------------------------------------ */

static struct {
    go_mutex m;
    int inside;        /* plain: the sanitizer sees it, too */
    uint64_t total;    /* plain */
    int rounds, parks; /* parks: every n-th holder parks inside */
} shop;

static void visit(uint64_t i) {
    T_EQ(shop.inside++, 0);
    uint64_t before = shop.total;
    if (shop.parks && i % (unsigned)shop.parks == 0)
        go_sleep(GO_MICROSECOND);
    shop.total = before + 1;
    T_EQ(--shop.inside, 0);
    go_mutex_unlock(&shop.m);
}

static void visitor(void *arg) {
    uint64_t seed = (uint64_t)t_int(arg) + 1;
    for (int i = 0; i < shop.rounds; i++) {
        switch (t_random(&seed) % 4) {
        case 0:
            if (go_mutex_trylock(&shop.m) != 0)
                go_mutex_lock(&shop.m);
            break;
        case 1:
            while (go_mutex_lock_until(&shop.m, go_now() + 50 * GO_MICROSECOND) != 0)
                go_yield();
            break;
        default:
            go_mutex_lock(&shop.m);
        }
        visit((uint64_t)i);
    }
}
static void *visitor_thread(void *arg) {
    visitor(arg);
    return NULL;
}

static void one_at_a_time(int green, int threads, int rounds, int parks) {
    pthread_t t[8];
    memset(&shop, 0, sizeof shop);
    shop.rounds = rounds;
    shop.parks = parks;
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < green; i++)
        T_SPAWN(visitor, t_ptr(i));
    t_start_threads(t, threads, visitor_thread);
    t_join_threads(t, threads);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    T_EQ(shop.total, (green + threads) * rounds);
    T_EQ(shop.m.rt_state, 0);
    T_EQ(shop.m.rt_lock, 0);
    T_ASSERT(!shop.m.rt_waiters);
}

Test(mutex, lets_one_green_thread_in, .timeout = 120) {
    one_at_a_time(8, 0, count(5000), 0);
    one_at_a_time(8, 0, count(500), 3);
    one_at_a_time(200, 0, count(50), 2);
}

Test(mutex, lets_one_thread_in, .timeout = 120) {
    one_at_a_time(0, 4, count(2000), 0);
    one_at_a_time(0, 4, count(200), 3);
}

Test(mutex, lets_one_of_all_kinds_in, .timeout = 120) {
    one_at_a_time(4, 3, count(1000), 0);
    one_at_a_time(4, 3, count(200), 3);
}

/* ---- one by one ------------------------------------------------------------------------------ */

GTest(mutex, trylock_says_busy) {
    go_mutex m = {0};
    T_EQ(go_mutex_trylock(&m), 0);
    T_EQ(go_mutex_trylock(&m), -EBUSY);
    go_mutex_unlock(&m);
    go_mutex_lock(&m);
    T_EQ(go_mutex_trylock(&m), -EBUSY);
    go_mutex_unlock(&m);
    T_EQ(go_mutex_trylock(&m), 0);
    go_mutex_unlock(&m);
}

static void check_lock_until(void *arg) {
    (void)arg;
    go_mutex m = {0};
    T_EQ(go_mutex_lock_until(&m, GO_NOW), 0); /* free: the deadline does not matter */
    T_EQ(go_mutex_lock_until(&m, GO_NOW), -ETIMEDOUT);
    T_EQ(go_mutex_lock_until(&m, INT64_MIN), -ETIMEDOUT);
    for (int i = 0; i < 5; i++) {
        int64_t deadline = go_now() + i * 300 * GO_MICROSECOND;
        T_EQ(go_mutex_lock_until(&m, deadline), -ETIMEDOUT);
        T_ASSERT(go_now() >= deadline);
    }
    T_EQ(go_mutex_trylock(&m), -EBUSY);
    go_mutex_unlock(&m);
    T_EQ(m.rt_state, 0); /* those who gave up have left nothing */
    T_ASSERT(!m.rt_waiters);
    T_EQ(go_mutex_lock_until(&m, GO_FOREVER), 0);
    go_mutex_unlock(&m);
}

Test(mutex, lock_until_gives_up_at_its_deadline_and_not_before) {
    T_RUN(check_lock_until, NULL);
    check_lock_until(NULL); /* without a runtime */
}

static void unlock_other(void *arg) {
    go_mutex_unlock(arg);
}

GTest(mutex, may_be_unlocked_by_another) {
    go_mutex m = {0};
    go_mutex_lock(&m);
    T_SPAWN(unlock_other, &m);
    go_mutex_lock(&m);
    go_mutex_unlock(&m);
}

static void unlock_twice(void) {
    go_mutex m = {0};
    go_mutex_lock(&m);
    go_mutex_unlock(&m);
    go_mutex_unlock(&m);
}

Test(mutex, unlock_of_an_unlocked_one_is_told_and_aborts) {
    T_DIES(SIGABRT, "gort: go_mutex_unlock: not locked", go_mutex_unlock(&(go_mutex){0}));
    T_DIES(SIGABRT, "gort: go_mutex_unlock: not locked", unlock_twice());
}

/* ---- fairness -------------------------------------------------------------------------------- */

static struct {
    go_mutex m;
    uint32_t quit, had_it;
    uint64_t hammered;
} fair;

/* Takes the lock again at once, always; without a rule nobody else would ever get it. */
static void hammer(void *arg) {
    (void)arg;
    while (!rt_load_relaxed(&fair.quit)) {
        go_mutex_lock(&fair.m);
        fair.hammered++;
        for (int i = 0; i < 50; i++)
            rt_cpu_relax();
        go_mutex_unlock(&fair.m);
        go_checkpoint();
    }
}
static void *hammer_thread(void *arg) {
    hammer(arg);
    return NULL;
}
static void wants_it(void *arg) {
    for (int i = 0; i < (int)t_int(arg); i++) {
        go_mutex_lock(&fair.m);
        go_mutex_unlock(&fair.m);
    }
    rt_fetch_add(&fair.had_it, 1);
}

static void nobody_starves(int green_hammers, int thread_hammers) {
    enum { MODEST = 20 };
    pthread_t t[4];
    memset(&fair, 0, sizeof fair);
    T_EQ(go_start(NULL), 0);
    t_start_threads(t, thread_hammers, hammer_thread);
    for (int i = 0; i < green_hammers; i++)
        T_SPAWN(hammer, NULL);
    for (int i = 0; i < MODEST; i++)
        T_SPAWN(wants_it, t_ptr(3));
    T_AWAIT(rt_load_acquire(&fair.had_it) == MODEST); /* or it hangs */
    rt_store_relaxed(&fair.quit, 1);
    t_join_threads(t, thread_hammers);
    t_stop();
}

Test(mutex, nobody_starves_beside_those_who_always_want_it) {
    nobody_starves(2, 0);
    nobody_starves(0, 2);
    nobody_starves(2, 1);
}

/* Waiters that give up do not take the turn of those who stay. */
static void impatient(void *arg) {
    (void)arg;
    while (!rt_load_relaxed(&fair.quit)) {
        if (go_mutex_lock_until(&fair.m, go_now() + 30 * GO_MICROSECOND) == 0)
            go_mutex_unlock(&fair.m);
        go_checkpoint();
    }
}

Test(mutex, those_who_give_up_lose_nobodys_turn) {
    enum { PATIENT = 4 };
    memset(&fair, 0, sizeof fair);
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < 4; i++)
        T_SPAWN(impatient, NULL);
    for (int i = 0; i < PATIENT; i++)
        T_SPAWN(wants_it, t_ptr(count(1000)));
    T_AWAIT(rt_load_acquire(&fair.had_it) == PATIENT);
    rt_store_relaxed(&fair.quit, 1);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    T_EQ(fair.m.rt_state, 0);
}

/* Who was woken, lost, and has waited for more than 1 ms is handed the mutex: it holds it before it
 * runs. */
static void stays_inside(void *arg) {
    go_mutex_lock(&fair.m);
    rt_store_release(&fair.had_it, 1);
    T_AWAIT(rt_load_acquire(&fair.quit));
    go_mutex_unlock(&fair.m);
    go_waitgroup_done(arg);
}

static bool waits_again(void) {
    T_AWAIT(rt_load_acquire(&fair.m.rt_waiters));
    return true;
}

GTest(mutex, who_was_woken_in_vain_is_handed_it) {
    bool lost = false;
    for (int tries = 0; tries < 50 && !lost; tries++) {
        go_waitgroup wg = {0};
        memset(&fair, 0, sizeof fair);
        go_mutex_lock(&fair.m);
        go_waitgroup_add(&wg, 1);
        T_SPAWN(stays_inside, &wg);
        T_AWAIT(rt_load_acquire(&fair.m.rt_waiters));
        T_EQ(go_sleep(2 * GO_MILLISECOND), 0);
        go_mutex_unlock(&fair.m);
        lost = go_mutex_trylock(&fair.m) == 0 && waits_again();
        if (lost) {
            go_mutex_unlock(&fair.m);
            T_EQ(go_mutex_trylock(&fair.m), -EBUSY);
            T_AWAIT(rt_load_acquire(&fair.had_it));
        }
        rt_store_release(&fair.quit, 1);
        T_EQ(go_waitgroup_wait(&wg), 0);
    }
}

/* What 40,000 waiters cost must not grow with their number: each is woken, and may lose a few times
 * to those who are awake. Go 1.26 has been quadratic here. */
static void waits_once(void *arg) {
    go_mutex_lock(&fair.m);
    fair.hammered++;
    go_mutex_unlock(&fair.m);
    go_waitgroup_done(arg);
}

GTest(mutex, many_waiters_are_work_for_each_but_not_for_each_other, .timeout = 120) {
    go_waitgroup wg = {0};
    uint64_t n = (uint64_t)t_parked(T_CROWD(count(40000))), before = t_stats().parks;
    go_mutex_lock(&fair.m);
    go_waitgroup_add(&wg, (int)n);
    for (uint64_t i = 0; i < n; i++)
        T_SPAWN(waits_once, &wg);
    while (t_stats().parks - before < n)
        go_yield(); /* which is no park */
    before = t_stats().parks;
    go_mutex_unlock(&fair.m);
    T_EQ(go_waitgroup_wait(&wg), 0);
    uint64_t parks = t_stats().parks - before;
    T_EQ(fair.hammered, n);
    T_ASSERT(parks <= 3 * n + 100, "%llu parks for %llu waiters", (unsigned long long)parks,
             (unsigned long long)n);
    T_EQ(fair.m.rt_state, 0);
}

/* ---- whose memory ---------------------------------------------------------------------------- */

/* An object that its last user frees: each of USERS locks it, counts down, unlocks; the one that
 * comes to 0 unmaps the page after its unlock. Whoever touched it later would die. */
enum { USERS = 4 };
struct object {
    go_mutex m;
    int users;
};

static void use_and_free(void *arg) {
    struct object *o = arg;
    go_mutex_lock(&o->m);
    bool last = --o->users == 0;
    go_mutex_unlock(&o->m);
    if (last)
        T_EQ(munmap(o, 4096), 0);
}
static void *use_and_free_thread(void *arg) {
    use_and_free(arg);
    return NULL;
}

static struct object *new_object(void) {
    struct object *o =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    T_ASSERT(o != MAP_FAILED);
    o->users = USERS;
    return o;
}

Test(mutex, is_not_touched_after_the_unlock_that_frees_it, .timeout = 120) {
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < count(3000); i++) {
        struct object *o = new_object();
        for (int k = 0; k < USERS; k++)
            T_SPAWN(use_and_free, o);
        if (i % 16 == 0)
            T_AWAIT(t_stats().tasks_live < 100);
    }
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

Test(mutex, is_not_touched_after_the_unlock_of_a_thread_that_frees_it, .timeout = 120) {
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < count(500); i++) {
        struct object *o = new_object();
        pthread_t t;
        T_EQ(pthread_create(&t, NULL, use_and_free_thread, o), 0);
        for (int k = 0; k < USERS - 2; k++)
            T_SPAWN(use_and_free, o);
        use_and_free(o);
        T_EQ(pthread_join(t, NULL), 0);
    }
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

/* The mutex stands on a stack that is gone when the owner has returned. */
struct borrowed {
    go_mutex m;
    int waiting;
};

static void lock_borrowed(void *arg) {
    struct borrowed *b = arg;
    rt_fetch_add(&b->waiting, 1);
    go_mutex_lock(&b->m);
    int left = --b->waiting;
    go_mutex_unlock(&b->m);
    (void)left;
}

static void lend(void *arg) {
    for (int i = 0; i < 200; i++) {
        struct borrowed b = {0};
        go_mutex_lock(&b.m);
        T_SPAWN(lock_borrowed, &b);
        while (rt_load_acquire(&b.waiting) == 0)
            go_yield();
        go_mutex_unlock(&b.m);
        for (bool gone = false; !gone;) {
            go_mutex_lock(&b.m);
            gone = b.waiting == 0;
            go_mutex_unlock(&b.m);
            if (!gone)
                go_yield();
        }
    }
    go_waitgroup_done(arg);
}

GTest(mutex, may_stand_on_a_stack) {
    go_waitgroup wg = {0};
    go_waitgroup_add(&wg, 4);
    for (int i = 0; i < 4; i++)
        T_SPAWN(lend, &wg);
    T_EQ(go_waitgroup_wait(&wg), 0);
}
