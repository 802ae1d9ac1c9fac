/* scope.c, shields: what is outside does not reach inside, and is there again once they are left.
 */
#include "t_unit.h"

#include "sched/sched.h"

/* ---- what a shield holds off ----------------------------------------------------------------- */

GTest(shield, an_outer_cancel_waits_until_it_is_left) {
    go_scope outer, shield;
    go_scope_enter(&outer, GO_FOREVER);
    go_scope_cancel(&outer);
    T_EQ(go_sleep(1), -ECANCELED);
    go_scope_enter_shielded(&shield, GO_FOREVER);
    T_EQ(go_canceled(), 0);
    T_EQ(go_sleep(GO_MICROSECOND), 0);
    T_EQ(go_scope_leave(&shield), 0);
    T_EQ(go_canceled(), -ECANCELED);
    T_EQ(go_sleep(1), -ECANCELED);
    go_scope_enter_shielded(&shield, GO_FOREVER); /* as often as one likes */
    T_EQ(go_sleep(GO_MICROSECOND), 0);
    T_EQ(go_scope_leave(&shield), 0);
    T_EQ(go_scope_leave(&outer), -ECANCELED);
    T_EQ(go_canceled(), 0);
}

GTest(shield, an_outer_cancel_that_comes_inside_waits_too) {
    go_scope outer, shield;
    go_scope_enter(&outer, GO_FOREVER);
    go_scope_enter_shielded(&shield, GO_FOREVER);
    go_scope_cancel(&outer);
    T_EQ(go_canceled(), 0);
    T_EQ(go_sleep(GO_MICROSECOND), 0);
    T_EQ(go_scope_leave(&shield), 0);
    T_EQ(go_canceled(), -ECANCELED);
    T_EQ(go_scope_leave(&outer), -ECANCELED);
}

GTest(shield, an_outer_deadline_waits_until_it_is_left) {
    go_scope outer, shield;
    go_scope_enter(&outer, go_now());
    go_scope_enter_shielded(&shield, GO_FOREVER);
    T_EQ(go_canceled(), 0);
    T_EQ(go_sleep(GO_MICROSECOND), 0);
    T_EQ(go_scope_leave(&shield), 0);
    T_EQ(go_scope_leave(&outer), 0); /* so far it has refused nothing */

    go_scope_enter(&outer, go_now());
    go_scope_enter_shielded(&shield, GO_FOREVER);
    T_EQ(go_sleep(1), 0);
    T_EQ(go_scope_leave(&shield), 0);
    T_EQ(go_sleep(1), -ETIMEDOUT);
    T_EQ(go_scope_leave(&outer), -ETIMEDOUT);
}

GTest(shield, its_own_deadline_counts_and_is_not_the_outer_ones) {
    go_scope outer, shield;
    go_scope_enter(&outer, go_now() + GO_MINUTE);
    go_scope_enter_shielded(&shield, go_now() + GO_MILLISECOND);
    T_EQ(go_sleep(GO_FOREVER), -ETIMEDOUT);
    T_ASSERT(go_now() >= shield.rt_deadline);
    T_EQ(go_scope_leave(&shield), -ETIMEDOUT);
    T_EQ(go_canceled(), 0);
    T_EQ(go_sleep(1), 0);
    T_EQ(go_scope_leave(&outer), 0);

    go_scope_enter(&outer, go_now()); /* both are late; only the shield has refused something */
    go_scope_enter_shielded(&shield, go_now());
    T_EQ(go_sleep(1), -ETIMEDOUT);
    T_EQ(go_scope_leave(&shield), -ETIMEDOUT);
    T_EQ(go_scope_leave(&outer), 0);
}

GTest(shield, its_deadline_may_be_later_than_the_outer_one) {
    go_scope outer, shield;
    int64_t early = go_now() + 100 * GO_MICROSECOND, late = early + GO_MILLISECOND;
    go_scope_enter(&outer, early);
    int r = go_sleep(1); /* arms a timer for the early one, unless it is over */
    T_ASSERT(r == 0 || r == -ETIMEDOUT);
    go_scope_enter_shielded(&shield, late);
    T_EQ(go_sleep(GO_FOREVER), -ETIMEDOUT);
    T_ASSERT(go_now() >= late);
    T_EQ(go_scope_leave(&shield), -ETIMEDOUT);
    T_EQ(go_scope_leave(&outer), r);
}

GTest(shield, cancels_inside_it_and_of_itself_count) {
    go_scope outer, shield, inner;
    go_scope_enter(&outer, GO_FOREVER);
    go_scope_enter_shielded(&shield, GO_FOREVER);
    go_scope_enter(&inner, GO_FOREVER);
    go_scope_cancel(&inner);
    T_EQ(go_sleep(1), -ECANCELED);
    T_EQ(go_scope_leave(&inner), -ECANCELED);
    T_EQ(go_sleep(1), 0);
    go_scope_cancel(&shield);
    T_EQ(go_sleep(1), -ECANCELED);
    T_EQ(go_scope_leave(&shield), -ECANCELED);
    T_EQ(go_canceled(), 0);
    T_EQ(go_scope_leave(&outer), 0);
}

/* ---- chains against a model ------------------------------------------------------------------ */

enum { DEEP = 24 };

struct model {
    go_scope scope[DEEP];
    bool shield[DEEP], cancelled[DEEP], over[DEEP], late[DEEP]; /* over: its deadline */
    int n;
    bool task_cancelled;
};

/* What a call must say, by walking; and it marks who is late. */
static int expected(struct model *m) {
    bool timed_out = false;
    int i;
    for (i = m->n; i-- > 0;) {
        if (m->cancelled[i])
            return -ECANCELED;
        if (m->shield[i])
            break;
    }
    if (i < 0 && m->task_cancelled)
        return -ECANCELED;
    for (i = m->n; i-- > 0;) {
        timed_out |= m->over[i];
        m->late[i] |= m->over[i];
        if (m->shield[i])
            break;
    }
    return timed_out ? -ETIMEDOUT : 0;
}

static void model_enter(struct model *m, uint64_t random) {
    int i = m->n++;
    bool over = random / 2 % 6 == 0;
    int64_t deadline = over         ? go_now() - (int64_t)(random % 1000)
                       : random % 3 ? GO_FOREVER
                                    : go_now() + GO_MINUTE;
    m->shield[i] = random / 12 % 3 == 0;
    m->over[i] = over;
    m->cancelled[i] = m->late[i] = false;
    if (m->shield[i])
        go_scope_enter_shielded(&m->scope[i], deadline);
    else
        go_scope_enter(&m->scope[i], deadline);
}

static void model_leave(struct model *m) {
    int i = --m->n;
    T_EQ(go_scope_leave(&m->scope[i]), m->cancelled[i] ? -ECANCELED : m->late[i] ? -ETIMEDOUT : 0);
}

static void walk_at_random(uint64_t seed, int steps, go_task *self) {
    struct model m = {0};
    for (int step = 0; step < steps; step++) {
        uint64_t random = t_random(&seed);
        if (m.n == 0 || (m.n < DEEP && random % 8 < 3)) {
            model_enter(&m, random >> 8);
        } else if (random % 8 < 6) {
            model_leave(&m);
        } else {
            int i = (int)((random >> 8) % (uint64_t)m.n);
            go_scope_cancel(&m.scope[i]);
            m.cancelled[i] = true;
        }
        if (self && step == steps / 2) {
            T_EQ(go_task_cancel(self), 0);
            m.task_cancelled = true;
        }
        if (random % 5 == 0) {
            int say = expected(&m);
            T_EQ(go_sleep(random % 10 == 0), say);
        }
        if (random % 3)
            T_EQ(go_canceled(), expected(&m));
    }
    while (m.n > 0)
        model_leave(&m);
    T_EQ(go_canceled(), self ? -ECANCELED : 0);
}

static go_task *walker;

static void *walk_as_task(void *arg) {
    T_AWAIT(rt_load_acquire(&walker));
    walk_at_random((uint64_t)t_int(arg), 300, walker);
    return NULL;
}

GTest(shield, any_chain_does_what_a_walk_along_it_would) {
    for (int i = 1; i <= (int)T_SCALE(300); i++)
        walk_at_random((uint64_t)i * 77, 200, NULL);
    for (int i = 1; i <= (int)T_SCALE(100); i++) {
        rt_store_release(&walker, NULL);
        go_scope s; /* so that the join does not run it in place: it waits for its handle */
        go_scope_enter(&s, GO_FOREVER);
        go_task *t = go_task_spawn(walk_as_task, t_ptr(i));
        rt_store_release(&walker, t);
        T_JOIN(t);
        T_EQ(go_scope_leave(&s), 0);
    }
}

static void *walk_as_thread(void *arg) {
    walk_at_random((uint64_t)t_int(arg) + 5, 2000, NULL);
    return NULL;
}

Test(shield, foreign_threads_have_them_with_and_without_a_runtime) {
    t_threads(2, walk_as_thread);
    T_EQ(go_start(NULL), 0);
    t_threads(4, walk_as_thread);
    t_stop();
    t_threads(2, walk_as_thread);
}

/* ---- cancels at any moment ------------------------------------------------------------------- */

/* Behind the shield comes a value that is always had, after it one that never comes. */
struct victim {
    go_chan *value, *nothing;
    go_scope outer;
    uint32_t entered, done;
};

static void be_cancelled(struct victim *v, bool by_scope) {
    go_scope shield, inner;
    int got = 0;
    go_scope_enter(&v->outer, GO_FOREVER);
    rt_store_release(&v->entered, 1);
    for (int i = 0; i < 3; i++) {
        go_scope_enter_shielded(&shield, i == 1 ? go_now() + GO_MINUTE : GO_FOREVER);
        go_scope_enter(&inner, GO_FOREVER);
        T_EQ(go_chan_recv(v->value, &got), 0);
        T_EQ(got, i);
        T_EQ(go_scope_leave(&inner), 0);
        T_EQ(go_scope_leave(&shield), 0);
    }
    T_EQ(go_chan_recv(v->nothing, NULL), -ECANCELED);
    go_scope_enter_shielded(&shield, GO_FOREVER);
    while (rt_load_acquire(&v->entered) != 2) /* the canceller is through with the scope */
        T_EQ(go_sleep(GO_MICROSECOND), 0);
    T_EQ(go_scope_leave(&shield), 0);
    T_EQ(go_sleep(0), -ECANCELED);
    T_EQ(go_scope_leave(&v->outer), by_scope ? -ECANCELED : 0);
}

static void *victim_task(void *arg) {
    be_cancelled(arg, false);
    return NULL;
}

static void *victim_thread(void *arg) {
    be_cancelled(arg, true);
    T_EQ(go_canceled(), 0);
    return NULL;
}

static void victim_green(void *arg) {
    victim_thread(arg);
    rt_store_release(&((struct victim *)arg)->done, 1);
}

static void spin(uint64_t n) {
    while (n-- > 0)
        rt_cpu_relax();
}

/* Three values, and the cancel somewhere between them. */
static void feed_and_cancel(struct victim *v, go_task *task, uint64_t *seed) {
    int when = (int)(t_random(seed) % 4);
    for (int i = 0; i <= 3; i++) {
        spin(t_random(seed) % 2000);
        if (i == when && task)
            T_EQ(go_task_cancel(task), 0);
        else if (i == when)
            go_scope_cancel(&v->outer);
        if (i < 3)
            T_EQ(go_chan_send(v->value, &i), 0);
    }
    rt_store_release(&v->entered, 2);
}

enum who { GREEN, TASK, THREAD };

static void cancel_at_any_moment(enum who who, int rounds) {
    uint64_t seed = (uint64_t)who + 9;
    struct victim v = {.value = go_chan_new(sizeof(int), 3), .nothing = go_chan_new(0, 0)};
    for (int i = 0; i < rounds; i++) {
        pthread_t thread;
        go_task *task = NULL;
        v.entered = v.done = 0;
        if (who == GREEN)
            T_SPAWN(victim_green, &v);
        else if (who == TASK)
            T_ASSERT(task = go_task_spawn(victim_task, &v));
        else
            T_EQ(pthread_create(&thread, NULL, victim_thread, &v), 0);
        if (who != TASK)
            T_AWAIT(rt_load_acquire(&v.entered));
        else
            while (!rt_load_acquire(&v.entered))
                spin(100);
        feed_and_cancel(&v, task, &seed);
        if (who == GREEN)
            T_AWAIT(rt_load_acquire(&v.done));
        else if (who == TASK)
            T_JOIN(task);
        else
            T_EQ(pthread_join(thread, NULL), 0);
    }
    go_chan_free(v.value);
    go_chan_free(v.nothing);
}

Test(shield, holds_off_a_cancel_at_any_moment_until_it_is_left, .timeout = 120) {
    T_EQ(go_start(NULL), 0);
    cancel_at_any_moment(GREEN, (int)T_SCALE(500));
    cancel_at_any_moment(TASK, (int)T_SCALE(500));
    cancel_at_any_moment(THREAD, (int)T_SCALE(200));
    t_stop();
}

/* ---- the stop -------------------------------------------------------------------------------- */

static struct {
    uint32_t inside;
    int64_t begun, refused_at;
    int result;
} stopped;

static void clean_up(void *arg) {
    T_EQ(go_sleep(GO_FOREVER), -ECANCELED);
    go_scope shield;
    go_scope_enter_shielded(&shield, GO_FOREVER);
    T_EQ(go_sleep(2 * GO_MILLISECOND), 0);
    T_EQ(go_chan_recv(arg, NULL), 0);
    T_EQ(go_scope_leave(&shield), 0);
    T_EQ(go_sleep(1), -ECANCELED);
    rt_fetch_add(&stopped.inside, 1);
}

Test(shield, lets_clean_up_be_done_during_a_stop) {
    enum { MANY = 20 };
    go_chan *c = go_chan_new(0, MANY);
    for (int i = 0; i < MANY; i++)
        T_EQ(go_chan_send(c, NULL), 0);
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < MANY; i++)
        T_SPAWN(clean_up, c);
    T_EQ(go_stop(GO_FOREVER), 0);
    T_EQ(stopped.inside, MANY);
    go_chan_free(c);
}

static int sleep_often(void *arg T_UNUSED) {
    rt_fetch_add(&stopped.inside, 1);
    for (int i = 0; i < 30; i++)
        T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
    return 0;
}

static void shielded_group(void *arg T_UNUSED) {
    go_scope shield;
    go_group g;
    go_scope_enter_shielded(&shield, GO_FOREVER);
    go_group_enter(&g, GO_FOREVER);
    for (int i = 0; i < 10; i++)
        T_EQ(go_group_spawn(&g, sleep_often, NULL), 0);
    T_EQ(go_group_wait(&g), 0);
    T_EQ(go_scope_leave(&shield), 0);
}

Test(shield, holds_off_a_stop_for_the_children_of_a_group_inside) {
    T_EQ(go_start(NULL), 0);
    T_SPAWN(shielded_group, NULL);
    T_AWAIT(rt_load_acquire(&stopped.inside) == 10);
    T_EQ(go_stop(GO_FOREVER), 0);
}

static void wait_shielded(void *arg) {
    go_scope shields[3];
    for (int i = 0; i < 3; i++)
        go_scope_enter_shielded(&shields[i], GO_FOREVER);
    rt_store_release(&stopped.inside, 1);
    stopped.result = go_chan_recv(arg, NULL);
    stopped.refused_at = go_now();
    T_EQ(go_sleep(1), -ECANCELED);
    for (int i = 3; i-- > 0;)
        T_EQ(go_scope_leave(&shields[i]), 0);
}

/* A shielded wait in a runtime that stops with this grace, and again until the stop is through: the
 * grace of the first try may be over before the green thread has had its turn. */
static void stop_around_a_shield(int64_t grace, int64_t grace_after) {
    char text[4096];
    go_chan *c = go_chan_new(0, 0);
    T_EQ(go_start(NULL), 0);
    T_SPAWN(wait_shielded, c);
    T_AWAIT(rt_load_acquire(&stopped.inside));
    struct t_stderr err = t_stderr_begin();
    stopped.begun = go_now();
    int r = go_stop(grace);
    while (r == -ETIMEDOUT) {
        sched_yield();
        r = go_stop(grace_after);
    }
    t_stderr_end(err, text, sizeof text);
    T_EQ(r, 0);
    T_EQ(stopped.result, -ECANCELED);
    go_chan_free(c);
}

Test(shield, holds_for_half_the_grace_of_a_stop_and_no_longer) {
    const int64_t grace = 60 * GO_MILLISECOND;
    stop_around_a_shield(grace, GO_FOREVER);
    T_ASSERT(stopped.refused_at - stopped.begun >= grace / 2);
}

Test(shield, a_stop_without_grace_pierces_it_at_once) {
    stop_around_a_shield(0, 0);
}

/* ---- misuse ---------------------------------------------------------------------------------- */

static void leave_outer_first(void) {
    go_scope outer, shield;
    go_scope_enter(&outer, GO_FOREVER);
    go_scope_enter_shielded(&shield, GO_FOREVER);
    go_scope_leave(&outer);
}
static go_scope forgotten;
static void end_inside(void *arg T_UNUSED) {
    go_scope_enter_shielded(&forgotten, GO_FOREVER);
}

Test(shield, is_left_in_order_like_any_scope) {
    T_DIES(SIGABRT, "gort: go_scope_leave", leave_outer_first());
    T_DIES(SIGABRT, "inside a scope", go_run(end_inside, NULL));
}
