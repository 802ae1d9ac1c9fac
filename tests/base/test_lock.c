/* lock.c - one holder at a time, and nobody sleeps through his wake. */
#include "gotest.h"

#include "base/lock.h"
#include "base/sys.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>

enum { THREADS = 4 };

static void run_threads(int n, void *(*fn)(void *), void *arg) {
    pthread_t t[THREADS];
    T_ASSERT(n <= THREADS);
    for (int i = 0; i < n; i++)
        T_EQ(pthread_create(&t[i], NULL, fn, arg), 0);
    for (int i = 0; i < n; i++)
        T_EQ(pthread_join(t[i], NULL), 0);
}

#define AWAIT(cond) \
    do { \
        while (!(cond)) \
            rt_sys_nap(100 * 1000); \
    } while (0)

/* ---- rt_lock --------------------------------------------------------------------------------- */

/* What a lock guards: two plain numbers that are equal whenever nobody is inside. */
static struct {
    uint32_t lock;
    long a, b;
    uint32_t inside;
} shared;

static void work_inside(void) {
    T_EQ(rt_fetch_add(&shared.inside, 1), 0);
    T_EQ(shared.a, shared.b);
    shared.a++;
    rt_cpu_relax();
    shared.b++;
    T_EQ(rt_fetch_sub(&shared.inside, 1), 1);
}

static void *lock_often(void *arg) {
    for (long i = 0, n = (long)(intptr_t)arg; i < n; i++) {
        rt_lock(&shared.lock);
        work_inside();
        if (i % 4096 == 0)
            sched_yield(); /* the holder loses its CPU */
        rt_unlock(&shared.lock);
    }
    return NULL;
}

static void *trylock_often(void *arg) {
    for (long done = 0, n = (long)(intptr_t)arg; done < n;) {
        if (!rt_trylock(&shared.lock)) {
            sched_yield();
            continue;
        }
        work_inside();
        rt_unlock(&shared.lock);
        done++;
    }
    return NULL;
}

Test(lock, one_holder_at_a_time) {
    long n = T_SCALE(200000);
    run_threads(THREADS, lock_often, (void *)n);
    T_EQ(shared.a, THREADS * n);
    run_threads(THREADS, trylock_often, (void *)n);
    T_EQ(shared.b, 2 * THREADS * n);
    T_EQ(shared.lock, 0);
}

Test(lock, a_trylock_fails_while_it_is_held) {
    uint32_t lock = 0;
    T_ASSERT(rt_trylock(&lock));
    T_ASSERT(!rt_trylock(&lock));
    T_ASSERT(!rt_trylock(&lock));
    rt_unlock(&lock);
    rt_lock(&lock);
    T_ASSERT(!rt_trylock(&lock));
    rt_unlock(&lock);
    T_EQ(lock, 0);
}

static void *lock_once(void *arg) {
    (void)arg;
    rt_fetch_add(&shared.inside, 1);
    rt_lock(&shared.lock);
    shared.a++;
    rt_unlock(&shared.lock);
    return NULL;
}

/* Through the spins and the yields down to the naps. */
Test(lock, a_holder_that_sleeps_is_waited_for) {
    pthread_t t;
    rt_lock(&shared.lock);
    T_EQ(pthread_create(&t, NULL, lock_once, NULL), 0);
    AWAIT(rt_load_acquire(&shared.inside) == 1);
    rt_sys_nap(20 * 1000 * 1000);
    T_EQ(shared.a, 0);
    rt_unlock(&shared.lock);
    T_EQ(pthread_join(t, NULL), 0);
    T_EQ(shared.a, 1);
}

/* A green thread takes it, the commit on another thread releases it. */
static void *unlock_it(void *arg) {
    rt_unlock(arg);
    return NULL;
}

Test(lock, another_thread_may_release_it) {
    rt_lock(&shared.lock);
    run_threads(1, unlock_it, &shared.lock);
    rt_lock(&shared.lock);
    rt_unlock(&shared.lock);
}

/* ---- rt_futex_lock --------------------------------------------------------------------------- */

static void *futex_lock_often(void *arg) {
    for (long i = 0, n = (long)(intptr_t)arg; i < n; i++) {
        rt_futex_lock(&shared.lock);
        work_inside();
        if (i % 64 == 0)
            sched_yield(); /* others go to sleep */
        rt_futex_unlock(&shared.lock);
    }
    return NULL;
}

Test(futex_lock, one_holder_at_a_time) {
    long n = T_SCALE(50000);
    run_threads(THREADS, futex_lock_often, (void *)n);
    T_EQ(shared.a, THREADS * n);
    T_EQ(shared.b, THREADS * n);
    T_EQ(shared.lock, 0);
}

Test(futex_lock, without_waiters_the_word_is_0_or_1) {
    uint32_t lock = 0;
    for (int i = 0; i < 3; i++) {
        rt_futex_lock(&lock);
        T_EQ(lock, 1);
        rt_futex_unlock(&lock);
        T_EQ(lock, 0);
    }
}

static void *futex_lock_once(void *arg) {
    (void)arg;
    rt_futex_lock(&shared.lock);
    shared.a++;
    rt_futex_unlock(&shared.lock);
    return NULL;
}

Test(futex_lock, each_of_many_sleepers_is_woken) {
    for (int round = 0; round < 20; round++) {
        pthread_t t[THREADS];
        rt_futex_lock(&shared.lock);
        for (int i = 0; i < THREADS; i++)
            T_EQ(pthread_create(&t[i], NULL, futex_lock_once, NULL), 0);
        AWAIT(rt_load_acquire(&shared.lock) == 2);
        rt_sys_nap(500 * 1000); /* most of them sleep now */
        T_EQ(shared.a, round * THREADS);
        rt_futex_unlock(&shared.lock);
        for (int i = 0; i < THREADS; i++)
            T_EQ(pthread_join(t[i], NULL), 0);
        T_EQ(shared.a, (round + 1) * THREADS);
    }
    T_EQ(shared.lock, 0);
}

/* ---- rt_note --------------------------------------------------------------------------------- */

enum { MS = 1000 * 1000 };

Test(note, a_wake_before_the_wait_is_kept) {
    uint32_t note = 0;
    rt_note_wake(&note);
    T_EQ(rt_note_wait(&note, -1), 0);
    T_EQ(note, 0);
}

Test(note, many_wakes_are_one) {
    uint32_t note = 0;
    for (int i = 0; i < 3; i++)
        rt_note_wake(&note);
    T_EQ(rt_note_wait(&note, -1), 0);
    T_EQ(rt_note_wait(&note, 1 * MS), -ETIMEDOUT);
    T_EQ(note, 0);
}

Test(note, a_wait_ends_at_its_timeout_and_not_before) {
    uint32_t note = 0;
    T_EQ(rt_note_wait(&note, 0), -ETIMEDOUT);
    for (int64_t timeout = 1; timeout <= 20 * MS; timeout *= 20) {
        int64_t begin = rt_sys_now();
        T_EQ(rt_note_wait(&note, timeout), -ETIMEDOUT);
        T_ASSERT(rt_sys_now() - begin >= timeout);
    }
    rt_note_wake(&note); /* the late one: only the next wait sees it */
    T_EQ(rt_note_wait(&note, 0), 0);
    T_EQ(rt_note_wait(&note, 0), -ETIMEDOUT);
}

/* Two threads pass a turn to and fro. A wake that gets lost hangs it. */
static struct {
    uint32_t note[2], turn;
    long rounds;
    bool timed; /* wait with timeouts that race with the wakes */
} game;

static void *play(void *arg) {
    uint32_t me = arg != NULL;
    for (long i = 0; i < game.rounds; i++) {
        while (rt_load_acquire(&game.turn) != me) {
            int r = rt_note_wait(&game.note[me], game.timed ? i % 50 * 1000 : -1);
            T_ASSERT(r == 0 || (game.timed && r == -ETIMEDOUT), "%d", r);
        }
        rt_store_release(&game.turn, 1 - me);
        rt_note_wake(&game.note[1 - me]);
    }
    return NULL;
}

static void play_game(long rounds, bool timed) {
    pthread_t other;
    game.rounds = rounds;
    game.timed = timed;
    T_EQ(pthread_create(&other, NULL, play, &game), 0);
    play(NULL);
    T_EQ(pthread_join(other, NULL), 0);
    T_EQ(game.turn, 0);
}

Test(note, no_wake_is_lost) {
    play_game(T_SCALE(50000), false);
}

Test(note, no_wake_is_lost_beside_a_timeout) {
    play_game(T_SCALE(20000), true);
}

static void *wait_for_turn(void *arg) {
    int *waits = arg;
    while (rt_load_acquire(&game.turn) == 0) {
        T_EQ(rt_note_wait(&game.note[0], -1), 0);
        rt_fetch_add(waits, 1);
    }
    return NULL;
}

/* The memory of a note may be another's when its waker gets to the kernel. */
Test(note, a_stale_wake_is_no_more_than_a_second_look) {
    int waits = 0;
    pthread_t t;
    T_EQ(pthread_create(&t, NULL, wait_for_turn, &waits), 0);
    AWAIT((rt_sys_futex_wake(&game.note[0], INT_MAX), rt_load_acquire(&waits) >= 10));
    rt_store_release(&game.turn, 1);
    rt_note_wake(&game.note[0]);
    T_EQ(pthread_join(t, NULL), 0);
}
