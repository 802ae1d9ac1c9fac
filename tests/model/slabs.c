/* slabs.c - sched/g.c: a record of the depot is had by one, with what was written there before; and
 * who looks at all of them while more come sees records, not memory. */
#include "machine.h"

#include "sched/g.h"
#include "sched/stack.h"

#include <errno.h>

int rt_stack_reserve(size_t n) {
    (void)n;
    return 0;
}
void rt_stack_unreserve(size_t n) {
    (void)n;
}

static struct rt_g *got[2];

static void take(unsigned i) {
    int err = 0;
    got[i] = rt_g_get(&err);
    model_assert(err == 0 && got[i] && got[i]->limit == INT64_MAX);
    got[i]->arg = got;
}

/* ---- one P gives its own back, or somebody his, and others take them ------------------------- */

static void two_of_a_p(void) {
    machine_init(1);
    rt_g_start(2);
    take(0);
    take(1);
    rt_g_cache = 100;
    for (unsigned i = 0; i < 2; i++) {
        got[i]->arg = NULL;
        rt_g_free_owner(&ps[0], got[i]);
        got[i] = NULL;
    }
}
static void flush_and_take(void) {
    rt_g_flush(&ps[0]);
    take(0);
}
static void take_or_none(void) {
    int err = 0;
    struct rt_g *g = rt_g_get(&err);
    model_assert(g || err == -EAGAIN);
    if (g) {
        g->arg = got;
        got[1] = g;
    }
}
static void put_and_take(void) {
    take_or_none();
    if (got[1])
        rt_g_put(got[1]);
}
static void had_by_one(void) {
    model_assert(got[0] && ps[0].gfree == NULL && ps[0].ngfree == 0);
}

/* ---- a new slab, and a look at all ----------------------------------------------------------- */

static unsigned seen;

static void nobody(void) {
    machine_init(1);
    rt_g_start(2);
}
static void grow(void) {
    take(0);
}
static bool see(struct rt_g *g, void *arg) {
    (void)arg;
    model_assert(rt_load_relaxed(&g->wait_deadline) == INT64_MAX);
    seen++;
    return true;
}
static void look_at_all(void) {
    rt_g_each(see, NULL);
}
static void seen_all_or_none(void) {
    model_assert(seen == 0 || seen == 2);
}

const struct model_case model_cases[] = {
    {.name = "slabs.flush", .init = two_of_a_p, .thread = {flush_and_take, put_and_take},
     .end = had_by_one},
    {.name = "slabs.each", .init = nobody, .thread = {grow, look_at_all}, .end = seen_all_or_none},
    {0},
};
