/* join.c - tasks: green threads with a result.
 *
 * The handle is the struct rt_g itself, which is freed by the join and not by the end; nothing is
 * allocated. End and join meet under g->task_lock: whoever comes second finds the other. So do end
 * and detach: whoever comes second frees the task.
 *
 * Join in place: a task that has not started and stands where its spawn has put it, in runnext or
 * at the newest end of the joiner's own fresh ones, is taken back and called on the joiner's stack:
 * fork and join without a single switch, depth first, and what thieves get is the oldest, biggest
 * work (the order of Cilk's continuation stealing, M. Frigo et al. 1998, turned to children). It
 * has its own G, so parks, ids and locals are its own. Not when the joiner is inside a scope (its
 * end must be able to end the join without the task), not on the second half of a stack or on one
 * that is smaller than the task's, not when its P shall look around (others want their turn, and
 * this never passes the scheduler), and not under a sanitizer, where each G has a shadow stack of
 * its own. A joiner that is cancelled as a whole (go_task_cancel) shares this with the task that
 * runs in its place, since it cannot return before that. g->in_place says which it is:
 *   canceller, under cancel_lock:  attention |= TASK;  heavy fence;  in_place? that one, too
 *   joiner:                        in_place = t;       light fence;  attention? then not in place
 *                                  in_place = NULL;    light fence;  attention? pass cancel_lock
 * so the canceller never touches a task that its joiner has freed. */
#include "base/lock.h"
#include "base/log.h"
#include "sched/g.h"
#include "sched/idle.h"
#include "sched/park.h"
#include "sched/proc.h"
#include "sched/retake.h"
#include "sched/runq.h"
#include "sched/spawn.h"
#include "sched/stack.h"
#include "sched/start.h"

enum { RUNS, DONE, DETACHED }; /* task_done */

/* m: inside; NULL on a foreign thread. */
static inline void free_task(struct rt_m *m, struct rt_g *t) {
    t->joiner = NULL;
    t->task_done = RUNS;
    rt_store_relaxed(&t->wait, RT_WAIT_WORD(rt_park_seq(t) + 1, RT_DEAD));
    if (m)
        rt_g_free_owner(m->p, t);
    else
        rt_g_put(t);
}

void rt_task_ended(struct rt_m *m, struct rt_g *g) {
    rt_lock(&g->task_lock);
    bool detached = g->task_done == DETACHED;
    g->task_done = DONE;
    struct rt_g *joiner = g->joiner;
    uint64_t seq = g->joiner_seq;
    bool mine = joiner && rt_claim(joiner, seq, 0); /* he may be a thread that ends soon */
    rt_unlock(&g->task_lock);
    if (detached)
        free_task(m, g);
    else if (mine)
        rt_ready_in(m, joiner);
}

static go_task *task_spawn(const struct go_spawn_options *o, void *(*fn)(void *), void *arg) {
    struct rt_g *g;
    return rt_spawn(o, (void *)fn, arg, RT_G_TASK, &g) == 0 ? (go_task *)g : NULL;
}

go_task *go_task_spawn(void *(*fn)(void *), void *arg) {
    return task_spawn(NULL, fn, arg);
}

go_task *go_task_spawn_with(const struct go_spawn_options *o, void *(*fn)(void *), void *arg) {
    return task_spawn(o, fn, arg);
}

/* The caller stands on the stack of its G, not on a generator's, and half of it is free. */
static bool roomy(const struct rt_g *self) {
    const char *here = __builtin_frame_address(0);
    const char *low = self->stack->low, *high = (const char *)self->stack;
    return here < high && here - low > (high - low) / 2;
}

static uint32_t cancel_lock;

/* t is ours alone to run, unless somebody else joins it already or we have been cancelled. */
static bool take_place(struct rt_g *self, struct rt_g *t) {
    rt_lock(&t->task_lock);
    bool ok = t->joiner == NULL;
    if (ok)
        t->joiner = self;
    rt_unlock(&t->task_lock);
    if (!ok)
        return false;
    rt_store_relaxed(&self->in_place, t);
    rt_fence_light();
    if (rt_likely(!(rt_load_relaxed(&self->attention) & RT_ATT_TASK)))
        return true;
    rt_store_relaxed(&self->in_place, NULL);
    rt_futex_lock(&cancel_lock); /* the canceller may have seen t: then it is cancelled, too */
    rt_futex_unlock(&cancel_lock);
    rt_lock(&t->task_lock);
    t->joiner = NULL;
    rt_unlock(&t->task_lock);
    return false;
}

int go_task_cancel(go_task *t) {
    if (!t)
        return -EINVAL;
    if (rt_load_relaxed(&rt.state) == RT_FORKED)
        return -ENXIO;
    rt_futex_lock(&cancel_lock);
    for (struct rt_g *g = (struct rt_g *)t; g; g = rt_load_relaxed(&g->in_place))
        rt_cancel_g(g, RT_ATT_TASK); /* its fence stands before the next in_place is read */
    rt_futex_unlock(&cancel_lock);
    return 0;
}

/* It may have been in runnext, for which nobody is woken. */
static __attribute__((noinline)) void put_back(struct rt_m *m, struct rt_g *t) {
    rt_runq_push_owner(m->p, t);
    rt_idle_wake_for(m->p);
}

/* Inside on the way in and out. True: t has run and is over. */
static bool run_in_place(struct rt_m *m, struct rt_g *self, struct rt_g *t) {
    if (RT_ASAN || RT_TSAN || self->scope || t->stack_class != rt.stack_class ||
        self->stack_class < rt.stack_class || !roomy(self) ||
        rt_load_relaxed(&m->p->attention) != 0 || !rt_runq_take_back_owner(m->p, t))
        return false;
    if (!take_place(self, t)) {
        put_back(m, t);
        return false;
    }
    t->stack = self->stack; /* borrowed */
    t->flags |= RT_G_STARTED;
    m->g = t;
    rt_gate_leave(m);
    /* No handler of the joiner's catches what leaves the task. */
    RT_ARCH_OUTERMOST(t->result = ((void *(*)(void *))t->fn)(t->arg));
    if (rt_unlikely(t->touched & RT_TOUCHED_LOCALS))
        rt_local_end(t);
    m = rt_enter_with_p(rt_m());
    m->g = self;
    rt_store_relaxed(&self->in_place, NULL);
    rt_fence_light();
    if (rt_unlikely(rt_load_relaxed(&self->attention) & RT_ATT_TASK)) {
        rt_futex_lock(&cancel_lock); /* a canceller may be at t */
        rt_futex_unlock(&cancel_lock);
    }
    rt_g_over(m, t);
    return true;
}

/* t, which nobody else joins, and locked; not so on -EBUSY. */
static int lock_for(struct rt_g *t, const char *call) {
    rt_lock(&t->task_lock);
    if (t->task_done == DETACHED)
        rt_fatal("%s: the task (id %llu) was detached", call, (unsigned long long)t->id);
    if (!t->joiner)
        return 0;
    rt_unlock(&t->task_lock);
    return -EBUSY;
}

static int wait_for(struct rt_g *self, struct rt_g *t) {
    int r = lock_for(t, "go_task_join");
    if (r)
        return r;
    if (t->task_done) {
        rt_unlock(&t->task_lock);
        return 0;
    }
    t->joiner = self;
    t->joiner_seq = rt_park_seq(self);
    r = rt_park(self, &t->task_lock, RT_WAITING, self->limit, RT_WHY_JOIN);
    if (r == 0)
        return 0;
    rt_lock(&t->task_lock);
    t->joiner = NULL; /* it may have ended meanwhile: the next join finds it done */
    rt_unlock(&t->task_lock);
    return rt_cancel_result(self, r, GO_FOREVER);
}

/* Inside, or on a foreign thread (m NULL); outside afterwards. */
static int take_result(struct rt_m *m, struct rt_g *t, void **result) {
    void *value = t->result;
    free_task(m, t);
    if (m)
        rt_gate_leave(m);
    if (result)
        *result = value;
    return 0;
}

static int join(struct rt_g *self, struct rt_g *t, void **result) {
    int err = rt_cancel_check(self);
    if (err)
        return err;
    struct rt_m *m = rt_enter();
    if (m && run_in_place(m, self, t)) {
        m = rt_m();
    } else {
        if (m)
            rt_gate_leave(m);
        err = wait_for(self, t);
        if (err)
            return err;
        m = rt_enter();
    }
    return take_result(m, t, result);
}

/* Cancel and join. First the place of the joiner is taken: nobody else frees t then. Ended before
 * we park, t fails to claim us, because the number is that of the park to come. */
static int reap(struct rt_g *self, struct rt_g *t, void **result) {
    int err = lock_for(t, "go_task_reap");
    if (err)
        return err;
    t->joiner = self;
    t->joiner_seq = rt_park_seq(self);
    rt_unlock(&t->task_lock);
    go_task_cancel((go_task *)t);
    rt_lock(&t->task_lock);
    if (t->task_done)
        rt_unlock(&t->task_lock);
    else
        rt_park(self, &t->task_lock, RT_HARD, GO_FOREVER, RT_WHY_JOIN);
    return take_result(rt_enter(), t, result);
}

/* A foreign thread keeps the stop from freeing a task under it. Relaxed: when the task is not over,
 * its M ends it after the joiner has held its lock, and the stop joins that M before its last look.
 * Of one that is over the caller knows that the stop does not come before his join. */
static inline bool hold_runtime(const struct rt_g *self) {
    bool foreign = (self->flags & RT_G_THREAD) != 0;
    if (rt_unlikely(foreign))
        rt_fetch_add_relaxed(&rt.foreign, 1);
    return foreign;
}

/* Nobody runs a task there, and its lock may be that of a thread which is not there either. A
 * child has no green threads, so that the paths of those do not ask. */
static inline bool in_forked_child(const struct rt_g *self) {
    return rt_unlikely(self->flags & RT_G_THREAD) && rt_load_relaxed(&rt.state) == RT_FORKED;
}

static inline int end_by(int (*how)(struct rt_g *, struct rt_g *, void **), go_task *task,
                         void **result) {
    struct rt_g *t = (struct rt_g *)task;
    struct rt_g *self = rt_self();
    if (!t)
        return -EINVAL;
    if (t == self)
        return -EDEADLK;
    if (in_forked_child(self))
        return -ENXIO;
    bool held = hold_runtime(self);
    int err = how(self, t, result);
    if (held)
        rt_foreign_leave();
    return err;
}

int go_task_join(go_task *task, void **result) {
    return end_by(join, task, result);
}

int go_task_reap(go_task *task, void **result) {
    return end_by(reap, task, result);
}

int go_gather(go_task *tasks[], size_t n, void *results[]) {
    if (!tasks && n != 0)
        return -EINVAL;
    int err = rt_cancel_check(rt_self());
    for (size_t i = 0; i < n && err == 0; i++) {
        if (!tasks[i])
            continue;
        err = go_task_join(tasks[i], results ? &results[i] : NULL);
        if (err == 0)
            tasks[i] = NULL;
    }
    return err;
}

int go_task_detach(go_task *task) {
    struct rt_g *t = (struct rt_g *)task;
    if (!t)
        return -EINVAL;
    if (in_forked_child(rt_self()))
        return -ENXIO;
    bool held = hold_runtime(rt_self());
    int err = lock_for(t, "go_task_detach");
    if (err == 0) {
        bool done = t->task_done;
        t->task_done = DETACHED;
        rt_unlock(&t->task_lock); /* one that has not ended may end now: the last access */
        if (done) {
            struct rt_m *m = rt_enter();
            free_task(m, t);
            if (m)
                rt_gate_leave(m);
        }
    }
    if (held)
        rt_foreign_leave();
    return err;
}
