/* rwmutex.c: many readers or one writer, neither starves, and the last touch is the release. */
#include "t_sync.h"

static go_rwmutex rw;

static void is_as_new(void) {
    T_EQ(rw.rt_state, 0);
    T_ASSERT(!rw.rt_readers && !rw.rt_writers);
}

/* ---- who is inside --------------------------------------------------------------------------- */

static struct {
    int rounds, parks;         /* parks: every n-th one inside parks there */
    int written, copy;         /* plain: the sanitizer sees it, too */
    int writes;                /* by atomic adds */
    uint32_t readers, writers; /* inside */
} lib;

static void reads(int i) {
    rt_fetch_add(&lib.readers, 1);
    T_EQ(rt_load_relaxed(&lib.writers), 0);
    int seen = lib.written;
    if (lib.parks && i % lib.parks == 0)
        go_sleep(GO_MICROSECOND);
    T_EQ(lib.copy, seen);
    T_EQ(lib.written, seen);
    rt_fetch_sub(&lib.readers, 1);
    go_rwmutex_rdunlock(&rw);
}

static void writes(int i) {
    T_EQ(rt_fetch_add(&lib.writers, 1), 0);
    T_EQ(rt_load_relaxed(&lib.readers), 0);
    lib.written++;
    if (lib.parks && i % lib.parks == 0)
        go_sleep(GO_MICROSECOND);
    lib.copy++;
    rt_fetch_add(&lib.writes, 1);
    T_EQ(rt_fetch_sub(&lib.writers, 1), 1);
    go_rwmutex_wrunlock(&rw);
}

static void visit(int me) {
    uint64_t seed = (uint64_t)me + 1;
    for (int i = 0; i < lib.rounds; i++) {
        switch (t_random(&seed) % 8) {
        case 0:
            go_rwmutex_wrlock(&rw);
            writes(i);
            break;
        case 1:
            if (go_rwmutex_trywrlock(&rw) == 0)
                writes(i);
            break;
        case 2:
            if (go_rwmutex_tryrdlock(&rw) == 0)
                reads(i);
            break;
        default:
            go_rwmutex_rdlock(&rw);
            reads(i);
        }
        if (t_random(&seed) % 16 == 0)
            go_yield();
    }
}

static void visits(int rounds, int parks) {
    memset(&lib, 0, sizeof lib);
    lib.rounds = rounds;
    lib.parks = parks;
    t_crowds(visit);
    T_EQ(lib.written, lib.writes);
    T_EQ(lib.copy, lib.writes);
    is_as_new();
}

Test(rwmutex, many_readers_or_one_writer, .timeout = 120) {
    visits(t_count(8000), 0);
}

Test(rwmutex, many_readers_or_one_writer_that_park_inside, .timeout = 120) {
    visits(t_count(500), 3);
}

Test(rwmutex, a_large_crowd_gets_through, .timeout = 120) {
    memset(&lib, 0, sizeof lib);
    lib.rounds = 20;
    lib.parks = 7;
    T_EQ(go_start(NULL), 0);
    t_crowd(t_count(2000), 2, visit);
    t_stop();
    T_EQ(lib.copy, lib.writes);
    is_as_new();
}

/* ---- one by one ------------------------------------------------------------------------------ */

Test(rwmutex, try_says_busy_and_needs_no_runtime) {
    T_EQ(go_rwmutex_tryrdlock(&rw), 0);
    T_EQ(go_rwmutex_tryrdlock(&rw), 0);
    T_EQ(go_rwmutex_trywrlock(&rw), -EBUSY);
    go_rwmutex_rdunlock(&rw);
    T_EQ(go_rwmutex_trywrlock(&rw), -EBUSY);
    go_rwmutex_rdunlock(&rw);
    T_EQ(go_rwmutex_trywrlock(&rw), 0);
    T_EQ(go_rwmutex_trywrlock(&rw), -EBUSY);
    T_EQ(go_rwmutex_tryrdlock(&rw), -EBUSY);
    go_rwmutex_wrunlock(&rw);
    is_as_new();
}

static void hold_for_reading(void) {
    memset(&rw, 0, sizeof rw);
    go_rwmutex_rdlock(&rw);
}
static void hold_for_writing(void) {
    memset(&rw, 0, sizeof rw);
    go_rwmutex_wrlock(&rw);
}

static void rdunlock_too_often(void) {
    hold_for_reading();
    go_rwmutex_rdunlock(&rw);
    go_rwmutex_rdunlock(&rw);
}
static void rdunlock_of_a_writer(void) {
    hold_for_writing();
    go_rwmutex_rdunlock(&rw);
}
static void wrunlock_of_a_reader(void) {
    hold_for_reading();
    go_rwmutex_wrunlock(&rw);
}
static void wrunlock_too_often(void) {
    hold_for_writing();
    go_rwmutex_wrunlock(&rw);
    go_rwmutex_wrunlock(&rw);
}

static void *wants_to_write(void *arg) {
    go_rwmutex_wrlock(&rw);
    return arg;
}
static void wrunlock_of_a_reader_beside_a_writer(void) {
    pthread_t t;
    hold_for_reading();
    T_EQ(pthread_create(&t, NULL, wants_to_write, NULL), 0);
    T_AWAIT(t_waiting(&rw, &rw.rt_writers) == 1);
    go_rwmutex_wrunlock(&rw);
}
static void rdunlock_of_a_writer_beside_a_writer(void) {
    pthread_t t;
    hold_for_writing();
    T_EQ(pthread_create(&t, NULL, wants_to_write, NULL), 0);
    T_AWAIT(t_waiting(&rw, &rw.rt_writers) == 1);
    go_rwmutex_rdunlock(&rw);
}

Test(rwmutex, the_wrong_unlock_is_told_and_aborts) {
    const char *rd = "gort: go_rwmutex_rdunlock: not locked for reading";
    const char *wr = "gort: go_rwmutex_wrunlock: not locked for writing";
    T_DIES(SIGABRT, rd, go_rwmutex_rdunlock(&rw));
    T_DIES(SIGABRT, rd, rdunlock_too_often());
    T_DIES(SIGABRT, rd, rdunlock_of_a_writer());
    T_DIES(SIGABRT, rd, rdunlock_of_a_writer_beside_a_writer());
    T_DIES(SIGABRT, wr, go_rwmutex_wrunlock(&rw));
    T_DIES(SIGABRT, wr, wrunlock_of_a_reader());
    T_DIES(SIGABRT, wr, wrunlock_of_a_reader_beside_a_writer());
    T_DIES(SIGABRT, wr, wrunlock_too_often());
}

static void unlock_other(void *arg) {
    if (arg)
        go_rwmutex_wrunlock(&rw);
    else
        go_rwmutex_rdunlock(&rw);
}

GTest(rwmutex, may_be_unlocked_by_another) {
    for (int i = 0; i < 10; i++) {
        go_rwmutex_wrlock(&rw);
        T_SPAWN(unlock_other, &rw);
        go_rwmutex_rdlock(&rw);
        T_SPAWN(unlock_other, NULL);
        go_rwmutex_wrlock(&rw);
        go_rwmutex_wrunlock(&rw);
    }
    is_as_new();
}

static go_scope scope;
static uint32_t through;

static void lock_in_a_dead_scope(void *write) {
    go_scope_enter(&scope, go_now() + GO_MICROSECOND);
    if (write)
        go_rwmutex_wrlock(&rw);
    else
        go_rwmutex_rdlock(&rw);
    rt_store_release(&through, 1);
    unlock_other(write);
    T_EQ(go_canceled(), -ECANCELED);
    T_EQ(go_scope_leave(&scope), -ECANCELED);
    rt_store_release(&through, 2);
}

GTest(rwmutex, a_wait_cannot_be_cancelled_and_knows_no_deadline) {
    for (int write = 0; write < 2; write++) {
        rt_store_relaxed(&through, 0);
        go_rwmutex_wrlock(&rw);
        T_SPAWN(lock_in_a_dead_scope, write ? &rw : NULL);
        T_AWAIT(t_waiting(&rw, write ? &rw.rt_writers : &rw.rt_readers) == 1);
        go_scope_cancel(&scope);
        T_EQ(go_sleep(GO_MILLISECOND), 0);
        T_EQ(rt_load_acquire(&through), 0);
        T_EQ(t_waiting(&rw, write ? &rw.rt_writers : &rw.rt_readers), 1);
        go_rwmutex_wrunlock(&rw);
        T_AWAIT(rt_load_acquire(&through) == 2);
    }
}

/* ---- turns ----------------------------------------------------------------------------------- */

static uint32_t inside, order[16], entered;

static void enter(uint32_t who) {
    order[rt_fetch_add(&entered, 1)] = who;
}

/* Stays inside until `arg` of them are. */
static void read_together(void *arg) {
    go_rwmutex_rdlock(&rw);
    rt_fetch_add(&inside, 1);
    enter('r');
    T_AWAIT(rt_load_acquire(&inside) >= (uint32_t)t_int(arg));
    go_rwmutex_rdunlock(&rw);
    go_waitgroup_done(&t_crowd_.done);
}
static void *read_together_thread(void *arg) {
    read_together(arg);
    return NULL;
}
static void write_once(void *arg T_UNUSED) {
    go_rwmutex_wrlock(&rw);
    enter('w');
    go_rwmutex_wrunlock(&rw);
    go_waitgroup_done(&t_crowd_.done);
}

static void spawn_counted(void (*fn)(void *), void *arg) {
    go_waitgroup_add(&t_crowd_.done, 1);
    T_SPAWN(fn, arg);
}

GTest(rwmutex, readers_are_inside_together) {
    for (int i = 0; i < 5; i++)
        spawn_counted(read_together, t_ptr(5));
    T_EQ(go_waitgroup_wait(&t_crowd_.done), 0);
    is_as_new();
}

/* The next writer waits already, or none does. */
static void after_a_writer(int next_writers) {
    enum { READERS = 6 };
    pthread_t t;
    rt_store_relaxed(&inside, 0);
    rt_store_relaxed(&entered, 0);
    go_rwmutex_wrlock(&rw);
    for (int i = 0; i < next_writers; i++)
        spawn_counted(write_once, NULL);
    T_AWAIT(t_waiting(&rw, &rw.rt_writers) == next_writers);
    for (int i = 0; i < READERS - 1; i++)
        spawn_counted(read_together, t_ptr(READERS));
    go_waitgroup_add(&t_crowd_.done, 1);
    T_EQ(pthread_create(&t, NULL, read_together_thread, t_ptr(READERS)), 0);
    T_AWAIT(t_waiting(&rw, &rw.rt_readers) == READERS);
    go_rwmutex_wrunlock(&rw);
    T_EQ(go_waitgroup_wait(&t_crowd_.done), 0);
    T_EQ(pthread_join(t, NULL), 0);
    T_EQ(entered, READERS + next_writers);
    for (int i = 0; i < READERS; i++)
        T_EQ(order[i], 'r');
    is_as_new();
}

GTest(rwmutex, readers_that_waited_for_a_writer_go_in_together_before_the_next_one) {
    for (int i = 0; i < t_count(100); i++)
        for (int next = 0; next < 4; next++)
            after_a_writer(next);
}

GTest(rwmutex, a_writer_that_waits_stops_new_readers) {
    for (int i = 0; i < t_count(200); i++) {
        rt_store_relaxed(&inside, 0);
        rt_store_relaxed(&entered, 0);
        go_rwmutex_rdlock(&rw);
        go_rwmutex_rdlock(&rw);
        spawn_counted(write_once, NULL);
        T_AWAIT(t_waiting(&rw, &rw.rt_writers) == 1);
        T_EQ(go_rwmutex_tryrdlock(&rw), -EBUSY);
        T_EQ(go_rwmutex_trywrlock(&rw), -EBUSY);
        for (int k = 0; k < 3; k++)
            spawn_counted(read_together, t_ptr(3));
        T_AWAIT(t_waiting(&rw, &rw.rt_readers) == 3);
        go_rwmutex_rdunlock(&rw);
        T_EQ(rt_load_acquire(&entered), 0);
        go_rwmutex_rdunlock(&rw);
        T_EQ(go_waitgroup_wait(&t_crowd_.done), 0);
        T_EQ(entered, 4);
        T_EQ(order[0], 'w');
        is_as_new();
    }
}

/* Readers that overlap, always; writers that come again at once; each kind beside a few of the
 * other, which must get through. */
static uint32_t quit;

static void reads_always(int me T_UNUSED) {
    while (!rt_load_relaxed(&quit)) {
        go_rwmutex_rdlock(&rw);
        uint32_t n = rt_fetch_add(&inside, 1);
        for (int i = 0; i < 100 && rt_load_relaxed(&inside) == n + 1; i++)
            go_yield(); /* until another reader has come, so that one is always inside */
        rt_fetch_sub(&inside, 1);
        go_rwmutex_rdunlock(&rw);
        go_checkpoint();
    }
}
static void writes_always(int me T_UNUSED) {
    while (!rt_load_relaxed(&quit)) {
        go_rwmutex_wrlock(&rw);
        t_spin(20);
        go_rwmutex_wrunlock(&rw);
        go_checkpoint();
    }
}
static void modest(int me T_UNUSED) {
    for (int i = 0; i < 20; i++) {
        go_rwmutex_wrlock(&rw);
        go_rwmutex_wrunlock(&rw);
        go_rwmutex_rdlock(&rw);
        go_rwmutex_rdunlock(&rw);
        go_yield();
    }
    if (rt_fetch_add(&through, 1) == 3)
        rt_store_relaxed(&quit, 1);
}
static void reads_always_or_is_modest(int me) {
    (me < 4 ? reads_always : modest)(me);
}
static void writes_always_or_is_modest(int me) {
    (me < 4 ? writes_always : modest)(me);
}
static void threads_read_always(int me) {
    (me >= 4 ? reads_always : modest)(me);
}
static void threads_write_always(int me) {
    (me >= 4 ? writes_always : modest)(me);
}

static void nobody_starves(int green, int threads, void (*fn)(int)) {
    rt_store_relaxed(&quit, 0);
    rt_store_relaxed(&through, 0);
    rt_store_relaxed(&inside, 0);
    T_EQ(go_start(NULL), 0);
    t_crowd(green, threads, fn); /* or it hangs */
    t_stop();
    is_as_new();
}

Test(rwmutex, nobody_starves_beside_those_who_always_read) {
    nobody_starves(8, 0, reads_always_or_is_modest);
    nobody_starves(4, 2, threads_read_always);
}

Test(rwmutex, nobody_starves_beside_those_who_always_write) {
    nobody_starves(8, 0, writes_always_or_is_modest);
    nobody_starves(4, 2, threads_write_always);
}

/* Who has been woken and lost is handed the lock the next time: then it holds it before it runs. */
static uint32_t may_leave;

static void stay_inside(void *write) {
    if (write)
        go_rwmutex_wrlock(&rw);
    else
        go_rwmutex_rdlock(&rw);
    rt_fetch_add(&inside, 1);
    T_AWAIT(rt_load_acquire(&may_leave));
    unlock_other(write);
    go_waitgroup_done(&t_crowd_.done);
}

/* Held for writing: wake those who wait, and be faster than they. False: they were not asleep. */
static bool lose_once(int writers, int readers) {
    go_sleep(2 * GO_MILLISECOND); /* a writer must have waited for 1 ms */
    go_rwmutex_wrunlock(&rw);
    bool first = go_rwmutex_trywrlock(&rw) == 0;
    if (first)
        T_AWAIT(t_waiting(&rw, &rw.rt_writers) == writers &&
                t_waiting(&rw, &rw.rt_readers) == readers);
    return first;
}

/* True: it was possible to lose, and what must be was so. */
static bool loser_is_next(bool writer, bool reader) {
    rt_store_relaxed(&inside, 0);
    rt_store_relaxed(&may_leave, 0);
    go_rwmutex_wrlock(&rw);
    if (writer)
        spawn_counted(stay_inside, &rw);
    T_AWAIT(t_waiting(&rw, &rw.rt_writers) == writer);
    if (reader && !writer)
        spawn_counted(stay_inside, NULL);
    T_AWAIT(t_waiting(&rw, &rw.rt_readers) == (reader && !writer));
    bool lost = lose_once(writer, reader && !writer);
    if (lost && writer && reader) { /* a reader that comes now goes in before the writer */
        spawn_counted(stay_inside, NULL);
        T_AWAIT(t_waiting(&rw, &rw.rt_readers) == 1);
    }
    if (lost) {
        go_rwmutex_wrunlock(&rw);
        T_EQ(go_rwmutex_trywrlock(&rw), -EBUSY);
        T_EQ(go_rwmutex_tryrdlock(&rw), writer ? -EBUSY : 0);
        if (!writer)
            go_rwmutex_rdunlock(&rw);
        T_AWAIT(rt_load_acquire(&inside) == 1);
    }
    rt_store_relaxed(&may_leave, 1);
    T_EQ(go_waitgroup_wait(&t_crowd_.done), 0);
    is_as_new();
    return lost;
}

GTest(rwmutex, who_was_woken_in_vain_is_handed_the_lock) {
    for (int how = 1; how < 4; how++)
        for (int tries = 0; tries < 50 && !loser_is_next(how & 2, how & 1); tries++)
            go_yield();
}

/* ---- whose memory ---------------------------------------------------------------------------- */

/* One holds it, the other waits for it, and unmaps it when it gets it: by a fast path, by a
 * hand-over, or woken to compete. */
static struct {
    go_rwmutex *rw;
    uint32_t round, done;
    int rounds;
} pair;

static void release_or_take_away(int me) {
    uint64_t seed = (uint64_t)me + 5;
    for (uint32_t round = 1; round <= (uint32_t)pair.rounds; round++) {
        bool reader_holds = round % 3 == 0, reader_takes = round % 3 == 1;
        if (me == 0) {
            go_rwmutex *l = t_page();
            if (reader_holds)
                go_rwmutex_rdlock(l);
            else
                go_rwmutex_wrlock(l);
            rt_store_relaxed(&pair.rw, l);
            rt_store_release(&pair.round, round);
            t_spin(t_random(&seed) % 200);
            if (t_random(&seed) % 4 == 0)
                go_yield();
            if (reader_holds)
                go_rwmutex_rdunlock(l);
            else
                go_rwmutex_wrunlock(l);
            T_AWAIT(rt_load_acquire(&pair.done) == round);
        } else {
            T_AWAIT(rt_load_acquire(&pair.round) == round);
            go_rwmutex *l = rt_load_relaxed(&pair.rw);
            t_spin(t_random(&seed) % 100);
            if (reader_takes)
                go_rwmutex_rdlock(l);
            else
                go_rwmutex_wrlock(l);
            t_page_gone(l);
            rt_store_release(&pair.done, round);
        }
    }
}

static void take_away(int green, int threads) {
    rt_store_relaxed(&pair.round, 0);
    rt_store_relaxed(&pair.done, 0);
    pair.rounds = t_count(400);
    t_crowd(green, threads, release_or_take_away);
}

Test(rwmutex, who_is_let_in_may_free_it, .timeout = 120) {
    T_EQ(go_start(NULL), 0);
    take_away(2, 0);
    take_away(1, 1);
    t_stop();
    take_away(0, 2);
}

/* The last of many users frees it, after its unlock. */
struct object {
    go_rwmutex rw;
    int users;
};
static struct object *object;

static void use_and_free(int me T_UNUSED) {
    struct object *o = object;
    go_rwmutex_rdlock(&o->rw);
    T_ASSERT(o->users > 0);
    go_rwmutex_rdunlock(&o->rw);
    go_rwmutex_wrlock(&o->rw);
    bool last = --o->users == 0;
    go_rwmutex_wrunlock(&o->rw);
    if (last)
        t_page_gone(o);
}

Test(rwmutex, the_last_user_may_free_it, .timeout = 120) {
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < t_count(400); i++) {
        object = t_page();
        object->users = 6;
        t_crowd(6, 0, use_and_free);
        if (i % 8 == 0) {
            object = t_page();
            object->users = 4;
            t_crowd(2, 2, use_and_free);
        }
    }
    t_stop();
}
