/* group.c: many children, cancels that go round, and groups that are freed at once. */
#include "t_unit.h"

#include "base/lock.h"
#include "sched/sched.h"

static uint32_t ran;

static struct {
    go_group *group;
    uint32_t begun, stop;
} shared;

static int count(void *arg) {
    rt_fetch_add(&ran, 1);
    return (int)t_int(arg);
}

static int until_refused(void *arg) {
    int r = go_sleep(GO_FOREVER);
    rt_fetch_add(&ran, 1);
    return arg ? r : 0;
}

static void spawn(go_group *g, int n, int (*fn)(void *), void *arg) {
    for (int i = 0; i < n; i++)
        T_EQ(go_group_spawn(g, fn, arg), 0);
}

/* ---- freed at once --------------------------------------------------------------------------- */

static go_group *new_page(void) {
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    T_ASSERT(page != MAP_FAILED);
    return page;
}

GTest(group_many, nobody_touches_it_after_the_wait, .timeout = 120) {
    for (int i = 0; i < (int)T_SCALE(3000); i++) {
        go_group *g = new_page();
        go_group_enter(g, GO_FOREVER);
        spawn(g, i % 7, count, t_ptr(i % 13 == 0));
        if (i % 5 == 0)
            go_yield();
        go_group_wait(g);
        T_EQ(munmap(g, 4096), 0);
    }
}

static bool told(go_group *g) {
    rt_lock(&g->rt_lock);
    bool yes = g->rt_flags & 1;
    rt_unlock(&g->rt_lock);
    return yes;
}

/* Ends as soon as the canceller has begun, and with it the group. */
static int until_told(void *g) {
    while (!told(g))
        go_yield();
    return 0;
}

static void *cancel_thread(void *arg) {
    rt_store_release(&shared.begun, 1);
    go_group_cancel(arg);
    return NULL;
}

GTest(group_many, not_even_a_canceller_touches_it_after_the_wait, .timeout = 120) {
    for (int i = 0; i < (int)T_SCALE(200); i++) {
        pthread_t thread;
        go_group *g = new_page();
        go_group_enter(g, GO_FOREVER);
        spawn(g, 1 + i % 3, until_told, g);
        spawn(g, i % 2, until_refused, NULL);
        T_EQ(pthread_create(&thread, NULL, cancel_thread, g), 0);
        T_EQ(go_group_wait(g), -ECANCELED);
        T_EQ(munmap(g, 4096), 0);
        T_EQ(pthread_join(thread, NULL), 0);
    }
}

/* ---- many ------------------------------------------------------------------------------------ */

static int wait_for_ever(void *started) {
    rt_fetch_add((uint32_t *)started, 1);
    int r = go_sleep(GO_FOREVER);
    rt_fetch_add(&ran, 1);
    return r;
}

GTest(group_many, a_hundred_thousand_are_cancelled_at_once, .timeout = 120) {
    int n = (int)t_parked(T_SCALE(t_procs() <= 2 ? 100000 : 5000));
    uint32_t started = 0;
    go_group g;
    go_group_enter(&g, GO_FOREVER);
    spawn(&g, n, wait_for_ever, &started);
    go_group_cancel(&g); /* most have not begun */
    T_EQ(go_group_wait(&g), -ECANCELED);
    T_EQ(ran, n);
    T_EQ(started, n);
}

/* Its children: nobody spawns, and nobody ends. */
static bool all_wait(go_group *group, int n) {
    int waiting = 0;
    rt_lock(&group->rt_lock);
    for (struct rt_g *g = group->rt_children; g; g = g->sibling)
        waiting += RT_WAIT_STATE(rt_load_acquire(&g->wait)) == RT_WAITING;
    rt_unlock(&group->rt_lock);
    return waiting == n;
}

static int must_be_cancelled(void *started) {
    T_EQ(wait_for_ever(started), -ECANCELED);
    return 0; /* so the result is the cancel's */
}

GTest(group_many, a_hundred_thousand_that_all_wait_are_cancelled_at_once, .timeout = 120) {
    int n = (int)t_parked(T_CROWD(T_SCALE(t_procs() <= 2 ? 100000 : 5000)));
    uint32_t started = 0;
    go_group g;
    go_group_enter(&g, GO_FOREVER);
    spawn(&g, n, must_be_cancelled, &started);
    T_AWAIT(rt_load_acquire(&started) == (uint32_t)n);
    T_AWAIT(all_wait(&g, n));
    T_EQ(ran, 0);
    go_group_cancel(&g);
    T_EQ(go_group_wait(&g), -ECANCELED);
    T_EQ(ran, n);
    T_EQ(started, n);
}

GTest(group_many, many_that_wait_are_cancelled_by_one_that_fails, .timeout = 120) {
    uint32_t n = (uint32_t)T_SCALE(t_procs() <= 8 ? 4000 : 1000), started = 0;
    go_group g;
    go_group_enter(&g, GO_FOREVER);
    spawn(&g, (int)n, wait_for_ever, &started);
    T_AWAIT(rt_load_acquire(&started) == n);
    spawn(&g, 1, count, t_ptr(77));
    T_EQ(go_group_wait(&g), 77);
    T_EQ(ran, n + 1);
}

/* Children that end while the canceller goes over the list, and others that are born. */
static int end_or_spawn(void *arg) {
    if (t_int(arg) % 4 == 0)
        T_EQ(go_group_spawn(shared.group, until_refused, NULL), 0);
    if (t_int(arg) % 2)
        T_EQ(go_sleep(GO_FOREVER), -ECANCELED);
    return count(NULL);
}

GTest(group_many, a_cancel_among_births_and_deaths_misses_nobody, .timeout = 120) {
    go_group g;
    shared.group = &g;
    for (int i = 0; i < (int)T_SCALE(100); i++) {
        ran = 0;
        go_group_enter(&g, GO_FOREVER);
        for (int k = 0; k < 400; k++) {
            T_EQ(go_group_spawn(&g, end_or_spawn, t_ptr(k)), 0);
            if (k == 4 * i)
                go_group_cancel(&g);
        }
        go_group_cancel(&g);
        T_EQ(go_group_wait(&g), -ECANCELED);
        T_EQ(ran, 500);
    }
}

static int await_flag(void *flag) {
    T_AWAIT(rt_load_acquire((uint32_t *)flag));
    return 0;
}

/* The canceller's place in the list, between two batches: whoever leaves moves it on. */
GTest(group_many, a_child_that_ends_moves_the_canceller_on) {
    enum { N = 5 };
    static const int order[N] = {2, 1, 4, 0, 3}; /* in which they end */
    uint32_t flag[N] = {0};
    struct rt_g *child[N];
    go_group g;
    go_group_enter(&g, GO_FOREVER);
    for (int i = 0; i < N; i++) {
        spawn(&g, 1, await_flag, &flag[i]);
        child[i] = g.rt_children; /* the newest is the first; nobody else spawns, nobody ends */
    }
    rt_lock(&g.rt_lock);
    for (int i = 0; i < N; i++) {
        int who = order[i], older = who - 1;
        while (older >= 0 && flag[older])
            older--;
        g.rt_cursor = child[who];
        rt_unlock(&g.rt_lock);
        rt_store_release(&flag[who], 1);
        T_AWAIT(t_stats().tasks_live == (uint64_t)(N - i));
        rt_lock(&g.rt_lock);
        T_ASSERT(g.rt_cursor == (older < 0 ? NULL : child[older]), "%d", who);
    }
    T_EQ(g.rt_children, NULL);
    rt_unlock(&g.rt_lock);
    T_EQ(go_group_wait(&g), 0);
}

/* While a foreign thread goes over the list, waking those that wait, others on it end by
 * themselves, and their records are used again for the children of groups that nobody cancels. */
static int innocent(void *arg T_UNUSED) {
    T_EQ(go_canceled(), 0);
    go_yield();
    T_EQ(go_canceled(), 0);
    return 0;
}

static void churn(void *arg) {
    while (!rt_load_acquire(&shared.stop)) {
        go_group g;
        go_group_enter(&g, GO_FOREVER);
        spawn(&g, 3, innocent, NULL);
        T_EQ(go_group_wait(&g), 0);
    }
    go_waitgroup_done(arg);
}

static int end_or_wait(void *arg) {
    if (t_int(arg) % 3 == 0)
        return go_sleep(GO_FOREVER) == -ECANCELED ? 0 : 1;
    while (!rt_load_acquire(&shared.begun))
        go_yield();
    for (intptr_t i = t_int(arg) % 50; i > 0; i--)
        go_yield();
    return 0;
}

GTest(group_many, a_cancel_that_goes_round_touches_nobody_else, .timeout = 120) {
    go_waitgroup wg = {0};
    go_waitgroup_add(&wg, 8);
    for (int i = 0; i < 8; i++)
        T_SPAWN(churn, &wg);
    for (int i = 0; i < (int)T_SCALE(t_procs() <= 8 ? 20 : 4); i++) {
        pthread_t thread;
        go_group g;
        rt_store_release(&shared.begun, 0);
        go_group_enter(&g, GO_FOREVER);
        spawn(&g, 1, until_told, &g);
        for (intptr_t k = 0; k < 300; k++)
            T_EQ(go_group_spawn(&g, end_or_wait, t_ptr(k)), 0);
        T_EQ(pthread_create(&thread, NULL, cancel_thread, &g), 0);
        T_EQ(go_group_wait(&g), -ECANCELED);
        T_EQ(pthread_join(thread, NULL), 0);
    }
    rt_store_release(&shared.stop, 1);
    T_EQ(go_waitgroup_wait(&wg), 0);
}
