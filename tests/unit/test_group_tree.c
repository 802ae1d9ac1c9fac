/* group.c, scope.c: random trees of groups with scopes and shields in them, while others cancel.
 *
 * Every inner node enters a group, spawns children and waits. One of the children is the warden: it
 * may show the group to threads that cancel whatever they are shown, takes it back, and cancels it
 * in the end, so that every tree ends. What must hold whatever happens: all children that were
 * spawned have run and ended when the wait returns; its result is that of a child, or fits the
 * group; and no cancel leaves anything behind. The groups are freed at once after the wait. */
#include "t_unit.h"

#include "sched/sched.h"

enum { SLOTS = 8, CANCELLERS = 2, FAMILY = 5, DEPTH = 4, SOMETHING = 1000 };

/* What the cancellers are shown; a cancel is made with the lock held. */
static struct slot {
    pthread_mutex_t lock;
    go_group *group;
} slots[SLOTS];

static struct {
    uint32_t stop;
    uint32_t leaves, cancels, refused, failed;
    uint32_t begun, ended; /* roots */
} storm;

struct family {
    go_group group;
    uint64_t seed, warden_seed;
    struct slot *slot;
    uint32_t spawned, begun, ended;
    uint32_t errors;
    int error[FAMILY + 1];
    struct member {
        struct family *family;
        uint64_t seed;
        int depth;
    } member[FAMILY + 1];
};

static int node(uint64_t seed, int depth);

static int shielded(uint64_t seed) {
    go_scope s;
    go_scope_enter_shielded(&s, seed % 2 ? GO_FOREVER : go_now() + T_NEVER);
    T_EQ(go_canceled(), 0);
    T_EQ(go_sleep((int64_t)(seed % 30) * GO_MICROSECOND), 0);
    if (seed % 5 == 0)
        node(seed, 1);
    T_EQ(go_scope_leave(&s), 0);
    return go_canceled();
}

static int leaf(uint64_t seed) {
    go_scope s;
    int r = 0;
    rt_fetch_add(&storm.leaves, 1);
    switch (seed % 8) {
    case 0:
        r = go_sleep(GO_FOREVER);
        T_ASSERT(r == -ECANCELED || r == -ETIMEDOUT);
        T_ASSERT(go_canceled() != 0);
        break;
    case 1:
        r = go_sleep((int64_t)(seed / 8 % 100) * GO_MICROSECOND);
        break;
    case 2:
        return shielded(seed / 8);
    case 3: /* a scope of its own, cancelled by itself: over when it is left */
        r = go_canceled();
        go_scope_enter(&s, GO_FOREVER);
        go_scope_cancel(&s);
        T_EQ(go_sleep(GO_FOREVER), -ECANCELED);
        T_EQ(go_scope_leave(&s), -ECANCELED);
        if (r == -ECANCELED)
            T_EQ(go_canceled(), r);
        return 0;
    case 4:
        go_scope_enter(&s, go_now() + (int64_t)(seed / 8 % 100) * GO_MICROSECOND);
        T_ASSERT(go_sleep(GO_FOREVER) != 0);
        r = go_scope_leave(&s);
        T_ASSERT(r == 0 || r == -ETIMEDOUT);
        return 0;
    case 5:
        return seed / 8 % 4 ? 0 : SOMETHING + (int)(seed / 32 % 100);
    default:
        go_yield();
        return 0;
    }
    rt_fetch_add(&storm.refused, r != 0);
    return seed / 64 % 2 ? r : 0;
}

static int member(void *arg) {
    struct member *me = arg;
    struct family *f = me->family;
    rt_fetch_add(&f->begun, 1);
    bool is_leaf = me->depth == 1 || me->seed % 4 == 0;
    int r = is_leaf ? leaf(me->seed / 4) : node(me->seed, me->depth - 1);
    if (r != 0)
        f->error[rt_fetch_add(&f->errors, 1)] = r;
    rt_fetch_add(&f->ended, 1);
    return r;
}

static int warden(void *arg) {
    struct family *f = arg;
    uint64_t seed = f->warden_seed;
    rt_fetch_add(&f->begun, 1);
    if (f->slot) {
        pthread_mutex_lock(&f->slot->lock);
        f->slot->group = &f->group;
        pthread_mutex_unlock(&f->slot->lock);
    }
    go_sleep((int64_t)(seed % 300) * GO_MICROSECOND);
    if (f->slot) {
        pthread_mutex_lock(&f->slot->lock);
        if (f->slot->group == &f->group)
            f->slot->group = NULL;
        pthread_mutex_unlock(&f->slot->lock);
    }
    if (seed % 7)
        go_group_cancel(&f->group);
    else
        f->error[rt_fetch_add(&f->errors, 1)] = SOMETHING;
    rt_fetch_add(&f->ended, 1);
    return seed % 7 ? 0 : SOMETHING;
}

static void spawn_family(struct family *f, int n, int depth) {
    for (int i = 0; i <= n; i++) {
        f->member[i] = (struct member){f, t_random(&f->seed), depth};
        int r = i == n ? go_group_spawn(&f->group, warden, f)
                       : go_group_spawn(&f->group, member, &f->member[i]);
        T_ASSERT(r == 0 || r == -ESHUTDOWN);
        if (r == 0)
            f->spawned++;
        else if (i == n)
            go_group_cancel(&f->group); /* no warden during a stop */
    }
}

static void check_result(const struct family *f, int r) {
    T_EQ(f->begun, f->spawned);
    T_EQ(f->ended, f->spawned);
    bool found = f->errors == 0 && (r == 0 || r == -ECANCELED || r == -ETIMEDOUT);
    for (uint32_t i = 0; i < f->errors; i++)
        found |= f->error[i] == r;
    T_ASSERT(found, "%d, errors %u", r, f->errors);
    rt_fetch_add(&storm.failed, f->errors != 0);
}

/* Only inside a group somebody may wait for ever. */
static int node(uint64_t seed, int depth) {
    seed = seed * 2 + 1;
    t_random(&seed);
    int before = go_canceled();
    struct family *f = calloc(1, sizeof *f);
    T_ASSERT(f);
    f->seed = seed;
    f->warden_seed = t_random(&f->seed) / 3;
    f->slot = t_random(&f->seed) % 2 ? &slots[t_random(&f->seed) % SLOTS] : NULL;
    int64_t deadline = GO_FOREVER;
    if (t_random(&f->seed) % 4 == 0)
        deadline = go_now() + (int64_t)(t_random(&f->seed) % 300) * GO_MICROSECOND;
    int n = (int)(t_random(&f->seed) % FAMILY);
    go_group_enter(&f->group, deadline);
    spawn_family(f, n, depth);
    if (t_random(&f->seed) % 4 == 0)
        shielded(t_random(&f->seed) / 5 * 5 + 1);
    int r = go_group_wait(&f->group);
    check_result(f, r);
    free(f);
    if (before == -ECANCELED)
        T_EQ(go_canceled(), before);
    return r;
}

/* ---- who disturbs ---------------------------------------------------------------------------- */

static void *canceller(void *arg) {
    uint64_t seed = (uint64_t)t_int(arg) + 11;
    while (!rt_load_acquire(&storm.stop)) {
        struct slot *s = &slots[t_random(&seed) % SLOTS];
        pthread_mutex_lock(&s->lock);
        if (s->group) {
            go_group_cancel(s->group);
            s->group = NULL;
            rt_fetch_add(&storm.cancels, 1);
        }
        pthread_mutex_unlock(&s->lock);
        if (t_random(&seed) % 2)
            nanosleep(&(struct timespec){.tv_nsec = (long)(t_random(&seed) % 50000)}, NULL);
        else
            sched_yield();
    }
    return NULL;
}

static void *root(void *arg) {
    rt_fetch_add(&storm.begun, 1);
    node((uint64_t)t_int(arg), DEPTH);
    rt_fetch_add(&storm.ended, 1);
    return t_ptr(go_canceled());
}

static void green_root(void *arg) {
    root(arg);
}

static void *thread_root(void *arg) {
    T_EQ(t_int(root(arg)), 0);
    return NULL;
}

static int rounds(int n) {
    return (int)T_SCALE(t_procs() <= 8 ? n : n / 4);
}

Test(group_tree, any_tree_ends_whole_whoever_cancels_what, .timeout = 120) {
    pthread_t threads[CANCELLERS], owner;
    uint64_t seed = 99;
    T_EQ(go_start(NULL), 0);
    t_start_threads(threads, CANCELLERS, canceller);
    for (int i = 0; i < rounds(60); i++) {
        go_task *tasks[4];
        void *results[4];
        for (int k = 0; k < 4; k++)
            T_ASSERT(tasks[k] = go_task_spawn(root, t_ptr((intptr_t)(t_random(&seed) >> 20))));
        T_EQ(pthread_create(&owner, NULL, thread_root, t_ptr((intptr_t)(t_random(&seed) >> 20))),
             0);
        if (i % 2)
            T_EQ(go_task_cancel(tasks[i % 4]), 0);
        T_EQ(go_gather(tasks, 4, results), 0);
        for (int k = 0; k < 4; k++) /* 0 also when it had ended before the cancel */
            T_ASSERT(t_int(results[k]) == 0 ||
                     (t_int(results[k]) == -ECANCELED && i % 2 && k == i % 4));
        T_EQ(pthread_join(owner, NULL), 0);
    }
    T_EQ(t_stats().tasks_live, 0);
    rt_store_release(&storm.stop, 1);
    t_join_threads(threads, CANCELLERS);
    t_stop();
    T_EQ(storm.begun, storm.ended);
    T_ASSERT(storm.leaves > 0 && storm.refused > 0 && storm.failed > 0);
}

Test(group_tree, a_stop_at_any_moment_ends_every_tree, .timeout = 120) {
    pthread_t threads[CANCELLERS];
    uint64_t seed = 7;
    t_start_threads(threads, CANCELLERS, canceller);
    for (int i = 0; i < rounds(40); i++) {
        T_EQ(go_start(NULL), 0);
        for (int k = 0; k < 8; k++)
            T_SPAWN(green_root, t_ptr((intptr_t)(t_random(&seed) >> 20)));
        nanosleep(&(struct timespec){.tv_nsec = (long)(t_random(&seed) % 300000)}, NULL);
        T_EQ(go_stop(GO_FOREVER), 0); /* nor shall it ever pierce a shield */
        T_EQ(storm.begun, storm.ended);
    }
    T_EQ(storm.begun, 8 * rounds(40));
    rt_store_release(&storm.stop, 1);
    t_join_threads(threads, CANCELLERS);
}
