/* once.c: fn runs once, and nobody goes on before it has returned. */
#include "t_sync.h"

static go_once once;
static uint32_t runs, returned, parked;
static int effect; /* plain: whoever returns must see it */

static uint32_t ways; /* fn parks at every second time */

static void slow_fn(void) {
    T_EQ(rt_fetch_add(&runs, 1), 0);
    if (ways++ % 2 == 0)
        go_sleep(20 * GO_MICROSECOND);
    else
        t_spin(200);
    effect = 42;
    rt_store_relaxed(&returned, 1);
}

static void calls_it(int me) {
    t_spin((uint64_t)me * 50);
    go_once_do(&once, slow_fn);
    T_EQ(rt_load_relaxed(&returned), 1);
    T_EQ(effect, 42);
}

Test(once, all_wait_for_the_one_that_runs_it, .timeout = 120) {
    for (int i = 0; i < t_count(100); i++) {
        once = (go_once){0};
        runs = returned = 0;
        effect = 0;
        if (i % 4 == 0) {
            t_crowd(0, 4, calls_it);
        } else {
            T_EQ(go_start(NULL), 0);
            t_crowd(i % 4 == 1 ? 50 : 6, i % 4 == 2 ? 3 : 0, calls_it);
            t_stop();
        }
        T_EQ(runs, 1);
        go_once_do(&once, abort); /* not any more */
    }
}

/* They are parked while fn runs; cancels and deadlines do not let them go. */
static go_chan *may_return;
static go_scope scope;

static void waits_fn(void) {
    int token;
    T_EQ(go_chan_recv(may_return, &token), 0);
    rt_store_release(&returned, 1);
}
static void runner(void *arg T_UNUSED) {
    go_once_do(&once, waits_fn);
}
static void waiter(void *arg T_UNUSED) {
    go_scope_enter(&scope, go_now() + GO_MICROSECOND);
    rt_store_release(&parked, 1);
    go_once_do(&once, abort);
    T_EQ(rt_load_acquire(&returned), 1);
    T_EQ(go_scope_leave(&scope), -ECANCELED);
    rt_store_release(&parked, 2);
}

GTest(once, a_wait_cannot_be_cancelled_and_knows_no_deadline) {
    T_ASSERT(may_return = go_chan_new(sizeof(int), 0));
    T_SPAWN(runner, NULL);
    T_AWAIT(t_waiting(&once, (void **)(void *)&once.rt_state) == 1); /* who runs it counts, too */
    T_SPAWN(waiter, NULL);
    T_AWAIT(t_waiting(&once, (void **)(void *)&once.rt_state) == 2);
    go_scope_cancel(&scope);
    T_EQ(go_sleep(GO_MILLISECOND), 0);
    T_EQ(rt_load_acquire(&parked), 1);
    T_EQ(go_chan_send(may_return, &(int){1}), 0);
    T_AWAIT(rt_load_acquire(&parked) == 2);
    go_chan_free(may_return);
}

/* ---- fn calls once again --------------------------------------------------------------------- */

static go_once other;

static void nothing(void) {
    runs++;
}
static void calls_the_other(void) {
    go_once_do(&other, nothing);
    runs++;
}
static void calls_itself(void) {
    go_once_do(&once, nothing);
}
static void calls_itself_through_the_other(void) {
    go_once_do(&other, calls_itself);
}

static void late_comer(void *arg T_UNUSED) {
    go_once_do(&once, abort);
}
static void calls_itself_beside_waiters(void) {
    for (int i = 0; i < 3; i++)
        T_SPAWN(late_comer, NULL);
    T_AWAIT(t_waiting(&once, (void **)(void *)&once.rt_state) == 4);
    go_once_do(&once, nothing);
}
static void green_calls_itself(void *arg T_UNUSED) {
    go_once_do(&once, calls_itself_beside_waiters);
}

Test(once, fn_may_call_another_once_but_not_its_own) {
    const char *text = "gort: go_once_do: fn calls it for its own go_once";
    go_once_do(&once, calls_the_other);
    T_EQ(runs, 2);
    once = other = (go_once){0};
    T_DIES(SIGABRT, text, go_once_do(&once, calls_itself));
    T_DIES(SIGABRT, text, go_once_do(&once, calls_itself_through_the_other));
    T_DIES(SIGABRT, text, go_run(green_calls_itself, NULL));
}

/* ---- many, and their memory ------------------------------------------------------------------ */

enum { MANY = 1000 };
static go_once many[MANY];
static uint32_t many_runs[MANY];
static int many_effects[MANY];
static __thread int at; /* fn has no argument; it does not park */

static void fn_at(void) {
    rt_fetch_add(&many_runs[at], 1);
    many_effects[at] = at + 1;
}
static void calls_many(int me) {
    for (int i = 0; i < MANY; i++) {
        int k = me % 2 ? i : i ^ 1; /* more than one at each, now and then */
        at = k;
        go_once_do(&many[k], fn_at);
        T_EQ(many_effects[k], k + 1);
    }
}

Test(once, each_of_many_is_run_once) {
    for (int round = 0; round < t_count(20); round++) {
        memset(many, 0, sizeof many);
        memset(many_runs, 0, sizeof many_runs);
        memset(many_effects, 0, sizeof many_effects);
        t_crowd(0, 4, calls_many);
        for (int i = 0; i < MANY; i++)
            T_EQ(many_runs[i], 1);
    }
}

/* Who waited unmaps it at once: the one that ran fn must have left. */
static struct {
    go_once *once;
    uint32_t round, running, done;
    int rounds;
} page;

static void run_page(void) {
    rt_store_release(&page.running, page.round);
    t_spin(300);
    if (page.round % 3 == 0)
        go_yield();
}
static void run_or_take_away(int me) {
    for (uint32_t round = 1; round <= (uint32_t)page.rounds; round++) {
        if (me == 0) {
            go_once *o = t_page();
            rt_store_relaxed(&page.once, o);
            rt_store_release(&page.round, round);
            go_once_do(o, run_page);
            T_AWAIT(rt_load_acquire(&page.done) == round);
        } else {
            for (int i = 0; i < 1000 && rt_load_acquire(&page.running) != round; i++)
                rt_cpu_relax();
            T_AWAIT(rt_load_acquire(&page.running) == round);
            go_once *o = rt_load_relaxed(&page.once);
            go_once_do(o, abort);
            t_page_gone(o);
            rt_store_release(&page.done, round);
        }
    }
}

static void take_away(int green, int threads) {
    page.round = page.running = page.done = 0;
    page.rounds = t_count(400);
    t_crowd(green, threads, run_or_take_away);
}

Test(once, who_has_waited_may_free_it, .timeout = 120) {
    T_EQ(go_start(NULL), 0);
    take_away(2, 0);
    take_away(1, 1);
    t_stop();
    take_away(0, 2);
}
