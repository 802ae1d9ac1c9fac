/* locks.c - what many tasks want at once, and what two hand to and fro. */
#include "bench.h"

enum {
    LOCKERS = 64,
    PAIRS_PER_YIELD = 100,
    PAIRS_PER_WRITE = 100,
};

/* mutex: the counter is a plain integer; only the lock keeps it right. */

struct locked {
    go_mutex lock;
    int64_t counter; /* protected by lock */
    int64_t pairs;   /* for each task */
    go_waitgroup done;
};

static void locker(void *arg)
{
    struct locked *l = arg;

    for (int64_t i = 1; i <= l->pairs; i++) {
        go_mutex_lock(&l->lock);
        l->counter++;
        go_mutex_unlock(&l->lock);
        if (i % PAIRS_PER_YIELD == 0)
            go_yield();
    }
    go_waitgroup_done(&l->done);
}

static void bench_run_mutex(struct bench_run *run)
{
    struct locked l = {.pairs = (run->n + LOCKERS - 1) / LOCKERS};
    int64_t total = l.pairs * LOCKERS;

    go_waitgroup_add(&l.done, LOCKERS);
    bench_begin(run);
    for (int i = 0; i < LOCKERS; i++)
        MUST(go_spawn(locker, &l));
    MUST(go_waitgroup_wait(&l.done));
    bench_end(run, total);
    if (l.counter != total)
        bench_die("mutex: counted %lld instead of %lld", (long long)l.counter, (long long)total);
}

/* waiters: n tasks queue up for a mutex that is held; an operation is one of them that gets it. */

struct queue {
    go_mutex lock;
    int64_t came; /* by atomic adds */
    int64_t had;  /* protected by lock */
    go_waitgroup done;
};

static void queuer(void *arg)
{
    struct queue *q = arg;

    __atomic_fetch_add(&q->came, 1, __ATOMIC_RELAXED);
    go_mutex_lock(&q->lock);
    q->had++;
    go_mutex_unlock(&q->lock);
    go_waitgroup_done(&q->done);
}

static void bench_run_waiters(struct bench_run *run)
{
    struct queue q = {.had = 0};

    go_waitgroup_add(&q.done, (int)run->n);
    go_mutex_lock(&q.lock);
    for (int64_t i = 0; i < run->n; i++)
        MUST(go_spawn(queuer, &q));
    while (__atomic_load_n(&q.came, __ATOMIC_RELAXED) < run->n)
        go_yield();
    MUST(go_sleep(10 * GO_MILLISECOND)); /* the last ones get from there to their park */
    bench_begin(run);
    go_mutex_unlock(&q.lock);
    MUST(go_waitgroup_wait(&q.done));
    bench_end(run, run->n);
    if (q.had != run->n)
        bench_die("waiters: %lld had the mutex instead of %lld", (long long)q.had,
                  (long long)run->n);
}

/* rwmutex: as mutex, but most pairs only look. What a writer leaves is always the same twice. */

struct shelf {
    go_rwmutex lock;
    int64_t written, copy; /* protected by lock */
    int64_t pairs;         /* for each task */
    go_waitgroup done;
};

static void reader_and_writer(void *arg)
{
    struct shelf *s = arg;

    for (int64_t i = 1; i <= s->pairs; i++) {
        if (i % PAIRS_PER_WRITE == 0) {
            go_rwmutex_wrlock(&s->lock);
            s->written++;
            s->copy++;
            go_rwmutex_wrunlock(&s->lock);
        } else {
            go_rwmutex_rdlock(&s->lock);
            if (s->written != s->copy)
                bench_die("rwmutex: a reader saw a write that was not finished");
            go_rwmutex_rdunlock(&s->lock);
        }
        if (i % PAIRS_PER_YIELD == PAIRS_PER_YIELD / 2)
            go_yield();
    }
    go_waitgroup_done(&s->done);
}

static void bench_run_rwmutex(struct bench_run *run)
{
    struct shelf s = {.pairs = (run->n + LOCKERS - 1) / LOCKERS};

    go_waitgroup_add(&s.done, LOCKERS);
    bench_begin(run);
    for (int i = 0; i < LOCKERS; i++)
        MUST(go_spawn(reader_and_writer, &s));
    MUST(go_waitgroup_wait(&s.done));
    bench_end(run, s.pairs * LOCKERS);
    if (s.written != s.pairs / PAIRS_PER_WRITE * LOCKERS)
        bench_die("rwmutex: %lld writes instead of %lld", (long long)s.written,
                  (long long)(s.pairs / PAIRS_PER_WRITE * LOCKERS));
}

/* cond: two tasks take turns; an operation is one hand-over. */

struct game {
    go_mutex lock;
    go_cond moved;
    int64_t move; /* protected by lock: even ones are the first player's */
    int64_t moves;
    go_waitgroup done;
};

static void play(struct game *g, int64_t mine)
{
    go_mutex_lock(&g->lock);
    for (; mine < g->moves; mine += 2) {
        while (g->move != mine)
            MUST(go_cond_wait(&g->moved, &g->lock));
        g->move++;
        go_cond_signal(&g->moved);
    }
    go_mutex_unlock(&g->lock);
}

static void second_player(void *arg)
{
    struct game *g = arg;

    play(g, 1);
    go_waitgroup_done(&g->done);
}

static void bench_run_cond(struct bench_run *run)
{
    struct game g = {.moves = run->n};

    go_waitgroup_add(&g.done, 1);
    MUST(go_spawn(second_player, &g));
    bench_begin(run);
    play(&g, 0);
    MUST(go_waitgroup_wait(&g.done));
    bench_end(run, g.moves);
    if (g.move != g.moves)
        bench_die("cond: %lld moves instead of %lld", (long long)g.move, (long long)g.moves);
}

/* broadcast: a crowd waits for each step of a counter; an operation is one waiter that goes on. */

enum { CROWD = 1000 };

struct crowd {
    go_mutex lock;
    go_cond stepped;
    go_cond all_wait;
    int64_t step, steps; /* protected by lock */
    int64_t waiting;     /* for the next step; protected by lock */
    go_waitgroup done;
};

static void follower(void *arg)
{
    struct crowd *c = arg;

    go_mutex_lock(&c->lock);
    for (int64_t step = 0; step < c->steps; step++) {
        if (++c->waiting == CROWD)
            go_cond_signal(&c->all_wait);
        while (c->step == step)
            MUST(go_cond_wait(&c->stepped, &c->lock));
    }
    go_mutex_unlock(&c->lock);
    go_waitgroup_done(&c->done);
}

static void bench_run_broadcast(struct bench_run *run)
{
    struct crowd c = {.steps = (run->n + CROWD - 1) / CROWD};

    go_waitgroup_add(&c.done, CROWD);
    for (int i = 0; i < CROWD; i++)
        MUST(go_spawn(follower, &c));
    bench_begin(run);
    go_mutex_lock(&c.lock);
    for (int64_t step = 0; step < c.steps; step++) {
        while (c.waiting != CROWD)
            MUST(go_cond_wait(&c.all_wait, &c.lock));
        c.waiting = 0;
        c.step++;
        go_cond_broadcast(&c.stepped);
    }
    go_mutex_unlock(&c.lock);
    MUST(go_waitgroup_wait(&c.done));
    bench_end(run, c.steps * CROWD);
}

const struct bench bench_locks[] = {
    {.name = "mutex",
     .what = "64 tasks lock, increment, unlock; yield every 100",
     .n = 10000000,
     .n_max = INT64_C(1) << 40,
     .run = bench_run_mutex},
    {.name = "waiters",
     .what = "n tasks wait for one mutex, then each gets it",
     .n = 40000,
     .n_max = 10000000,
     .warm_full = true,
     .run = bench_run_waiters},
    {.name = "rwmutex",
     .what = "64 tasks read-lock, look, unlock, 1 in 100 writes; yield every 100",
     .n = 10000000,
     .n_max = INT64_C(1) << 40,
     .run = bench_run_rwmutex},
    {.name = "cond",
     .what = "2 tasks take turns by a mutex and a condition variable (n hand-overs)",
     .n = 3000000,
     .n_max = INT64_C(1) << 40,
     .run = bench_run_cond},
    {.name = "broadcast",
     .what = "1000 tasks wait for each broadcast of a condition variable (n wakes)",
     .n = 1000000,
     .n_max = INT64_C(1) << 40,
     .run = bench_run_broadcast},
    {0},
};
