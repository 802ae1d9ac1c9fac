/* sem.c: units are not lost or doubled, first come is first served, and a signal handler may
 * release. */
#include "t_sync.h"

#include "base/fault.h"

#include <signal.h>
#include <sys/time.h>

static go_sem s;

static void is_as_new(unsigned units) {
    T_EQ(s.rt_count, units);
    T_ASSERT(!s.rt_waiters);
    for (int i = 0; i < RT_LOTS; i++)
        T_ASSERT(!rt_lots[i].sems, "lot %d knows a semaphore that nobody waits for", i);
}

/* ---- counting -------------------------------------------------------------------------------- */

static struct {
    int units, rounds;
    uint32_t inside, gave_up;
    bool deadlines, sig;
} room;

static void visit(int me) {
    uint64_t seed = (uint64_t)me + 1;
    for (int i = 0; i < room.rounds; i++) {
        go_scope scope;
        int64_t patience = (int64_t)(t_random(&seed) % 40) * GO_MICROSECOND;
        bool late = room.deadlines && t_random(&seed) % 2;
        go_scope_enter(&scope, late ? go_now() + patience : GO_FOREVER);
        int r = t_random(&seed) % 4 == 0 ? go_sem_try_acquire(&s) : -EAGAIN;
        if (r == -EAGAIN)
            r = go_sem_acquire(&s);
        go_scope_leave(&scope);
        if (r != 0) {
            T_EQ(r, -ETIMEDOUT);
            rt_fetch_add(&room.gave_up, 1);
            continue;
        }
        uint32_t n = rt_fetch_add(&room.inside, 1);
        T_ASSERT(n < (uint32_t)room.units, "%u", n);
        if (t_random(&seed) % 8 == 0)
            go_yield();
        rt_fetch_sub(&room.inside, 1);
        if (room.sig && t_random(&seed) % 2)
            go_sem_release_sig(&s);
        else
            go_sem_release(&s);
    }
}

static void visits(int units, int rounds, bool deadlines, bool sig) {
    memset(&room, 0, sizeof room);
    room.units = units;
    room.rounds = rounds;
    room.deadlines = deadlines;
    room.sig = sig;
    go_sem_init(&s, (unsigned)units);
    t_crowds(visit);
    is_as_new((unsigned)units);
}

Test(sem, no_more_are_inside_than_there_are_units, .timeout = 120) {
    visits(1, t_count(500), false, false);
    visits(3, t_count(1000), false, false);
    visits(100, t_count(1000), false, false);
}

Test(sem, those_who_give_up_take_no_unit_with_them, .timeout = 120) {
    visits(1, t_count(500), true, false);
    visits(3, t_count(500), true, false);
}

Test(sem, a_large_crowd_gets_through, .timeout = 120) {
    memset(&room, 0, sizeof room);
    room.units = 2;
    room.rounds = 5;
    go_sem_init(&s, 2);
    T_EQ(go_start(NULL), 0);
    t_crowd(t_count(3000), 2, visit);
    t_stop();
    is_as_new(2);
}

Test(sem, zeroed_memory_has_no_units_and_needs_no_runtime) {
    T_EQ(go_sem_try_acquire(&s), -EAGAIN);
    for (int i = 0; i < 3; i++)
        go_sem_release(&s);
    T_EQ(go_sem_acquire(&s), 0);
    T_EQ(go_sem_try_acquire(&s), 0);
    T_EQ(go_sem_acquire(&s), 0);
    T_EQ(go_sem_try_acquire(&s), -EAGAIN);
    go_sem_init(&s, INT32_MAX);
    T_EQ(go_sem_acquire(&s), 0);
    go_sem_release(&s);
    is_as_new(INT32_MAX);
}

static void release_one_too_many(void) {
    go_sem_init(&s, INT32_MAX);
    go_sem_release(&s);
}
static void release_sig_one_too_many(void) {
    go_sem_init(&s, INT32_MAX);
    go_sem_release_sig(&s);
}

Test(sem, too_many_units_are_told_and_abort) {
    T_DIES(SIGABRT, "gort: go_sem_init: more than 2^31 - 1 units", go_sem_init(&s, 1u << 31));
    T_DIES(SIGABRT, "gort: go_sem_release: more than 2^31 - 1 units", release_one_too_many());
    T_DIES(SIGABRT, "gort: go_sem_release: more than 2^31 - 1 units", release_sig_one_too_many());
}

/* ---- turns ----------------------------------------------------------------------------------- */

enum { WAITERS = 8 };
static int order[WAITERS], results[WAITERS];
static uint32_t through;
static go_scope scopes[WAITERS];

static void waits(void *arg) {
    go_scope *scope = &scopes[t_int(arg)];
    go_scope_enter(scope, GO_FOREVER);
    int r = go_sem_acquire(&s);
    go_scope_leave(scope);
    uint32_t at = rt_fetch_add(&through, 1);
    order[at] = (int)t_int(arg);
    results[t_int(arg)] = r;
    rt_fetch_add(&room.inside, 1);
}
static void *waits_thread(void *arg) {
    waits(arg);
    return NULL;
}

static uint32_t all_through(void) {
    return rt_load_acquire(&room.inside);
}

static void spawn_waiters(int n) {
    rt_store_relaxed(&through, 0);
    rt_store_relaxed(&room.inside, 0);
    for (int i = 0; i < n; i++) {
        T_SPAWN(waits, t_ptr(i));
        T_AWAIT(t_waiting(&s, &s.rt_waiters) == i + 1);
    }
}

static void first_come_first_served(void (*release)(go_sem *)) {
    spawn_waiters(WAITERS);
    for (int i = 0; i < WAITERS; i++) {
        T_EQ(all_through(), i);
        release(&s);
        T_EQ(go_sem_try_acquire(&s), -EAGAIN); /* it is not ours */
        T_AWAIT(all_through() == (uint32_t)i + 1);
        T_EQ(order[i], i);
    }
    is_as_new(0);
}

GTest(sem, first_come_is_first_served) {
    first_come_first_served(go_sem_release);
}

GTest(sem, first_come_is_first_served_by_a_signal_handler_too) {
    first_come_first_served(go_sem_release_sig);
}

GTest(sem, who_is_cancelled_leaves_the_queue_and_no_trace) {
    for (int victim = 0; victim < 4; victim++) {
        spawn_waiters(4);
        go_scope_cancel(&scopes[victim]);
        T_AWAIT(all_through() == 1);
        T_EQ(order[0], victim);
        T_EQ(results[victim], -ECANCELED);
        for (int i = 0, next = 1; i < 4; i++) {
            if (i == victim)
                continue;
            go_sem_release(&s);
            T_AWAIT(all_through() == (uint32_t)next + 1);
            T_EQ(order[next++], i);
            T_EQ(results[i], 0);
        }
        is_as_new(0);
    }
}

/* The unit that comes right after a cancel is for the next, whether the cancelled one is still on
 * the queue or not. */
static void unit_after_a_cancel(void (*release)(go_sem *)) {
    for (int i = 0; i < t_count(300); i++) {
        spawn_waiters(2);
        go_scope_cancel(&scopes[0]);
        release(&s);
        T_AWAIT(all_through() == 2); /* or it hangs */
        T_EQ(results[0], -ECANCELED);
        T_EQ(results[1], 0);
        is_as_new(0);
    }
}

GTest(sem, a_unit_after_a_cancel_is_for_the_next) {
    unit_after_a_cancel(go_sem_release);
    unit_after_a_cancel(go_sem_release_sig);
}

/* Nobody else is left: then it stays. */
GTest(sem, a_unit_after_the_cancel_of_the_only_waiter_stays) {
    for (int i = 0; i < t_count(300); i++) {
        spawn_waiters(1);
        go_scope_cancel(&scopes[0]);
        (i % 2 ? go_sem_release_sig : go_sem_release)(&s);
        T_AWAIT(all_through() == 1);
        T_EQ(results[0], -ECANCELED);
        T_EQ(go_sem_acquire(&s), 0);
        is_as_new(0);
    }
}

GTest(sem, deadlines_and_cancels_of_the_scope_end_a_wait) {
    go_scope scope;
    for (int i = 0; i < 5; i++) {
        int64_t deadline = go_now() + i * 100 * GO_MICROSECOND;
        go_scope_enter(&scope, deadline);
        T_EQ(go_sem_acquire(&s), -ETIMEDOUT);
        T_ASSERT(go_now() >= deadline);
        T_EQ(go_scope_leave(&scope), -ETIMEDOUT);
    }
    go_sem_release(&s);
    go_scope_enter(&scope, GO_FOREVER);
    go_scope_cancel(&scope);
    T_EQ(go_sem_acquire(&s), -ECANCELED); /* although there is one */
    T_EQ(go_sem_try_acquire(&s), 0);      /* which never waits, and is not cancelled */
    T_EQ(go_scope_leave(&scope), -ECANCELED);
    is_as_new(0);
}

GTest(sem, without_room_for_a_timer_it_says_so_and_takes_nothing) {
    go_scope scope;
    go_scope_enter(&scope, go_now() + GO_MINUTE);
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM);
    T_EQ(go_sem_acquire(&s), -ENOMEM);
    rt_fault_disarm();
    T_EQ(go_scope_leave(&scope), 0);
    is_as_new(0);
}

/* ---- whose memory ---------------------------------------------------------------------------- */

/* Who gets the unit unmaps the page at once. With deadlines it tries again and again; the helper of
 * a handler must then not look at it either. */
static struct {
    go_sem *s;
    uint32_t round, done;
    int rounds;
    bool sig, deadlines;
} page;

static void release_or_take_away(int me) {
    uint64_t seed = (uint64_t)me + 31;
    for (uint32_t round = 1; round <= (uint32_t)page.rounds; round++) {
        if (me == 0) {
            go_sem *at = t_page();
            rt_store_relaxed(&page.s, at);
            rt_store_release(&page.round, round);
            t_spin(t_random(&seed) % 500);
            if (t_random(&seed) % 4 == 0)
                go_yield();
            (page.sig ? go_sem_release_sig : go_sem_release)(at);
            T_AWAIT(rt_load_acquire(&page.done) == round);
        } else {
            T_AWAIT(rt_load_acquire(&page.round) == round);
            go_sem *at = rt_load_relaxed(&page.s);
            int r;
            do {
                go_scope scope;
                int64_t patience = (int64_t)(t_random(&seed) % 20) * GO_MICROSECOND;
                go_scope_enter(&scope, page.deadlines ? go_now() + patience : GO_FOREVER);
                r = go_sem_acquire(at);
                go_scope_leave(&scope);
            } while (r == -ETIMEDOUT);
            T_EQ(r, 0);
            t_page_gone(at);
            rt_store_release(&page.done, round);
        }
    }
}

static void pages(int green, int threads) {
    for (int how = 0; how < 4; how++) {
        memset(&page, 0, sizeof page);
        page.rounds = t_count(150);
        page.sig = how / 2;
        page.deadlines = how % 2;
        t_crowd(green, threads, release_or_take_away);
    }
}

Test(sem, who_gets_a_unit_may_free_it, .timeout = 120) {
    T_EQ(go_start(NULL), 0);
    pages(2, 0);
    pages(1, 1);
    t_stop();
    pages(0, 2);
    is_as_new(0);
}

/* ---- signal handlers ------------------------------------------------------------------------- */

static uint32_t handled;

static void releases(int sig T_UNUSED) {
    rt_fetch_add(&handled, 1);
    go_sem_release_sig(&s);
}

static void handle(int sig, void (*handler)(int)) {
    struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};
    T_EQ(sigaction(sig, &sa, NULL), 0);
}

static void let_through(int sig) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, sig);
    T_EQ(pthread_sigmask(SIG_UNBLOCK, &set, NULL), 0);
}

Test(sem, a_handler_wakes_threads_without_a_runtime) {
    pthread_t t[4];
    handle(SIGUSR1, releases);
    for (int round = 0; round < t_count(20); round++) {
        rt_store_relaxed(&room.inside, 0);
        rt_store_relaxed(&through, 0);
        t_start_threads(t, 4, waits_thread);
        T_AWAIT(t_waiting(&s, &s.rt_waiters) == 4);
        for (uint32_t i = 0; i < 4; i++) {
            raise(SIGUSR1);
            if (round % 2)
                T_AWAIT(all_through() == i + 1);
        }
        t_join_threads(t, 4);
        is_as_new(0);
    }
}

/* Nobody but sysmon is there to help, and it sleeps for good when nothing runs. */
static void *raises(void *arg) {
    let_through(SIGUSR1); /* a thread inherits the mask of its maker, a worker here */
    raise(SIGUSR1);
    return arg;
}

GTest(sem, a_handler_wakes_green_threads_of_a_runtime_that_sleeps) {
    pthread_t t;
    handle(SIGUSR1, releases);
    for (int round = 0; round < 5; round++) {
        spawn_waiters(4);
        T_EQ(go_sleep(round * 10 * GO_MILLISECOND), 0);
        for (uint32_t i = 0; i < 4; i++) {
            T_EQ(pthread_create(&t, NULL, raises, NULL), 0);
            T_AWAIT(all_through() == i + 1);
            T_EQ(order[i], (int)i);
            T_EQ(pthread_join(t, NULL), 0);
        }
        is_as_new(0);
    }
}

/* A thread began to wait while the runtime ran, or before it, and waits on when it has stopped. */
Test(sem, a_handler_wakes_threads_whatever_the_runtime_does) {
    pthread_t t[4];
    handle(SIGUSR1, releases);
    for (int round = 0; round < 3; round++) {
        rt_store_relaxed(&room.inside, 0);
        rt_store_relaxed(&through, 0);
        T_EQ(pthread_create(&t[0], NULL, waits_thread, t_ptr(0)), 0);
        T_AWAIT(t_waiting(&s, &s.rt_waiters) == 1);
        T_EQ(go_start(NULL), 0);
        for (int i = 1; i < 4; i++)
            T_EQ(pthread_create(&t[i], NULL, waits_thread, t_ptr(i)), 0);
        T_AWAIT(t_waiting(&s, &s.rt_waiters) == 4);
        raise(SIGUSR1);
        T_AWAIT(all_through() == 1);
        t_stop();
        for (uint32_t i = 1; i < 4; i++) {
            raise(SIGUSR1);
            T_AWAIT(all_through() == i + 1);
        }
        t_join_threads(t, 4);
        is_as_new(0);
    }
}

static go_sem alarm_sem;
static void on_alarm(int sig T_UNUSED) {
    go_sem_release_sig(&alarm_sem);
}

/* All are asleep, and it is no deadlock. */
static void wait_for_alarm(void *arg T_UNUSED) {
    struct itimerval in = {.it_value.tv_usec = 150000};
    handle(SIGALRM, on_alarm);
    T_EQ(setitimer(ITIMER_REAL, &in, NULL), 0);
    T_EQ(go_sem_acquire(&alarm_sem), 0);
}
Test(sem, who_waits_for_a_handler_is_not_in_a_deadlock) {
#ifdef T_TSAN
    T_SKIP("TSan runs handlers at the next call that it knows, and the main thread makes none");
#endif
    T_EQ(go_run(wait_for_alarm, NULL), 0);
}

/* The handler interrupts whoever holds the lock that an ordinary release would take, and a worker
 * inside the runtime. */
static void interrupted_everywhere(void) {
    uint32_t *lock = &rt_lot_of(&s)->lock;
    let_through(SIGUSR1);
    rt_lock(lock);
    raise(SIGUSR1);
    rt_unlock(lock);
    struct rt_m *me = rt_m();
    if (me) {
        rt_gate_enter(me);
        raise(SIGUSR1);
        rt_lock(lock);
        raise(SIGUSR1);
        rt_unlock(lock);
        rt_gate_leave(me);
    }
}

GTest(sem, a_handler_may_interrupt_a_worker_anywhere) {
    pthread_t t;
    handle(SIGUSR1, releases);
    for (int round = 0; round < t_count(50); round++) {
        rt_store_relaxed(&handled, 0);
        spawn_waiters(2);
        T_EQ(pthread_create(&t, NULL, waits_thread, t_ptr(2)), 0);
        T_AWAIT(t_waiting(&s, &s.rt_waiters) == 3);
        interrupted_everywhere();
        T_AWAIT(all_through() == 3);
        T_EQ(handled, 3);
        T_EQ(pthread_join(t, NULL), 0);
        is_as_new(0);
    }
}

Test(sem, a_handler_may_interrupt_a_thread_anywhere) {
    pthread_t t;
    handle(SIGUSR1, releases);
    for (int round = 0; round < t_count(20); round++) {
        rt_store_relaxed(&room.inside, 0);
        rt_store_relaxed(&through, 0);
        T_EQ(pthread_create(&t, NULL, waits_thread, t_ptr(0)), 0);
        T_AWAIT(t_waiting(&s, &s.rt_waiters) == 1);
        interrupted_everywhere();
        T_EQ(pthread_join(t, NULL), 0);
        is_as_new(0);
    }
}

/* A storm: a timer's signals hit whoever runs, while all take and give. */
static struct { uint32_t taken, quit; } storm;

static void weathers(int me) {
    uint64_t seed = (uint64_t)me + 41;
    let_through(SIGALRM);
    while (!rt_load_relaxed(&storm.quit)) {
        go_scope scope;
        int64_t patience = (int64_t)(t_random(&seed) % 300) * GO_MICROSECOND;
        go_scope_enter(&scope, go_now() + patience);
        int r = go_sem_acquire(&s);
        go_scope_leave(&scope);
        if (r != 0)
            continue;
        if (t_random(&seed) % 2)
            go_sem_release(&s);
        else
            rt_fetch_add(&storm.taken, 1);
        let_through(SIGALRM); /* perhaps on another worker now */
    }
}

/* Nothing is set back between two storms: a late signal may still be on its way. */
static void in_a_storm(int green, int threads) {
    struct itimerval each = {.it_value.tv_usec = 100, .it_interval.tv_usec = 100}, off = {0};
    pthread_t t[4];
    uint32_t taken = rt_load_relaxed(&storm.taken) + (uint32_t)t_count(100);
    uint32_t enough = rt_load_relaxed(&handled) + (uint32_t)t_count(1000);
    rt_store_relaxed(&storm.quit, 0);
    T_EQ(setitimer(ITIMER_REAL, &each, NULL), 0);
    go_waitgroup_add(&t_crowd_.done, green);
    t_crowd_.fn = weathers;
    for (int i = 0; i < green; i++)
        T_SPAWN(t_crowd_green, t_ptr(i));
    t_start_threads(t, threads, t_crowd_thread);
    T_AWAIT(rt_load_relaxed(&handled) >= enough && rt_load_relaxed(&storm.taken) >= taken);
    T_EQ(setitimer(ITIMER_REAL, &off, NULL), 0);
    rt_store_relaxed(&storm.quit, 1);
    t_join_threads(t, threads);
    T_EQ(go_waitgroup_wait(&t_crowd_.done), 0);
    T_AWAIT(rt_load_seq_cst(&s.rt_count) + storm.taken == rt_load_seq_cst(&handled));
    T_ASSERT(!s.rt_waiters);
}

Test(sem, a_storm_of_signals_loses_no_unit, .timeout = 120) {
    handle(SIGALRM, releases);
    T_EQ(go_start(NULL), 0);
    in_a_storm(8, 0);
    in_a_storm(4, 2);
    t_stop();
    in_a_storm(0, 3);
}

/* ---- many in one lot ------------------------------------------------------------------------- */

enum { SHARERS = 4, EACH = 3 };
static go_sem pool[RT_LOTS * 64];
static go_sem *sharers[SHARERS];
static uint32_t got[SHARERS];

static void takes_from(void *arg) {
    T_EQ(go_sem_acquire(sharers[t_int(arg)]), 0);
    rt_fetch_add(&got[t_int(arg)], 1);
}

static void find_sharers(void) {
    struct rt_lot *lot = rt_lot_of(&pool[0]);
    int n = 0;
    for (size_t i = 0; i < T_COUNT(pool) && n < SHARERS; i++)
        if (rt_lot_of(&pool[i]) == lot)
            sharers[n++] = &pool[i];
    T_EQ(n, SHARERS);
}

static int sharers_in_lot(void) {
    return t_waiting(sharers[0], &rt_lot_of(sharers[0])->sems);
}

GTest(sem, semaphores_that_share_a_lot_do_not_share_units) {
    find_sharers();
    for (int round = 0; round < 4; round++) {
        memset(got, 0, sizeof got);
        for (int i = 0; i < SHARERS * EACH; i++)
            T_SPAWN(takes_from, t_ptr(i % SHARERS));
        for (int i = 0; i < SHARERS; i++)
            T_AWAIT(t_waiting(sharers[i], &sharers[i]->rt_waiters) == EACH);
        T_EQ(sharers_in_lot(), SHARERS);
        for (int i = 0; i < SHARERS; i++) { /* two by two: the helper has more than one to do */
            go_sem *a = sharers[(i + round) % SHARERS], *b = sharers[(i + round + 1) % SHARERS];
            (round % 2 ? go_sem_release_sig : go_sem_release)(a);
            go_sem_release_sig(b);
        }
        for (int i = 0; i < SHARERS; i++)
            T_AWAIT(rt_load_acquire(&got[i]) == 2);
        T_EQ(sharers_in_lot(), SHARERS);
        for (int i = 0; i < SHARERS; i++) {
            T_EQ(rt_load_acquire(&got[i]), 2);
            go_sem_release_sig(sharers[i]);
        }
        for (int i = 0; i < SHARERS; i++)
            T_AWAIT(rt_load_acquire(&got[i]) == EACH);
        T_EQ(sharers_in_lot(), 0);
        for (int i = 0; i < SHARERS; i++)
            T_EQ(sharers[i]->rt_count, 0);
    }
}

/* ---- fork ------------------------------------------------------------------------------------ */

/* In the child nobody holds a lot, whoever did so in the parent. */
Test(sem, a_forked_child_may_use_and_wait_for_fresh_ones) {
#if defined(T_ASAN) || defined(T_TSAN)
    T_SKIP("a child of a process with threads may hang in the sanitizer itself");
#endif
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < RT_LOTS; i++)
        rt_lock(&rt_lots[i].lock);
    pid_t pid = fork();
    T_ASSERT(pid >= 0);
    for (int i = 0; pid != 0 && i < RT_LOTS; i++)
        rt_unlock(&rt_lots[i].lock);
    if (pid == 0) {
        go_scope scope;
        go_scope_enter(&scope, go_now() + 100 * GO_MICROSECOND);
        int r = go_sem_acquire(&s);
        go_scope_leave(&scope);
        go_sem_release_sig(&s);
        _exit(r == -ETIMEDOUT && go_sem_try_acquire(&s) == 0 ? 0 : 1);
    }
    int status;
    T_EQ(waitpid(pid, &status, 0), pid);
    T_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
    t_stop();
}
