/* gen.c - task/gen.c, asked by foreign threads one after the other. They hand it on once; from then
 * on they tell each other whose turn it is by relaxed words alone, and each sees what the one
 * before, and the generator, have done, and may give its stack away. Compiled as for sanitizers,
 * where C gives the generator back and not assembly. */
#include "machine.h"

#include "sched/stack.h"

#include <gort/gen.h>

enum { STACK_BYTES = 16 * 1024 };

static go_gen *gen; /* handed over, then known to each thread */
static go_gen *known[2];
static uint32_t turn;
static int value; /* plain: the generator's, whoever runs it */

struct rt_stack *rt_stack_get(unsigned size_class) {
    (void)size_class;
    char *low = model_stack(0, STACK_BYTES);
    struct rt_stack *s = (struct rt_stack *)(void *)(low + STACK_BYTES) - 1;
    *s = (struct rt_stack){.low = low};
    return s;
}
/* It is somebody else's at once. */
void rt_stack_put(struct rt_stack *s) {
    model_gone((char *)s - 2048, 2048);
}

static void two_values(go_gen *self, void *arg) {
    model_assert(arg == &value);
    for (int i = 0; i < 2 && !go_gen_closed(self); i++) {
        value++; /* whoever asks */
        go_gen_yield(self, &value);
    }
    value = -1;
}

static void start(void) {
    machine_init(1);
}

static void make_gen(void) {
    go_gen *made = go_gen_new(two_values, &value);
    model_assert(made != NULL);
    known[0] = made;
    rt_store_release(&gen, made);
}
static void take_it(void) {
    while ((known[1] = rt_load_acquire(&gen)) == NULL)
        model_wait_for_change();
}
static void next(bool has_one) {
    void *got = &turn;
    int r = go_gen_next(known[model_self()], &got);
    if (has_one)
        model_assert(r == 0 && got == &value);
    else
        model_assert(r == -EPIPE && got == NULL);
}
static void close_it(void) {
    model_assert(go_gen_close(known[model_self()]) == 0);
}
static void wait_for_turn(uint32_t n) {
    while (rt_load_relaxed(&turn) < n)
        model_wait_for_change();
}
static void give_turn(uint32_t n) {
    rt_store_relaxed(&turn, n);
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void ask_when_made(void) {
    take_it();
    next(true);
    close_it();
}
static void close_when_made(void) {
    take_it();
    close_it();
}

static void make_and_ask(void) {
    make_gen();
    next(true);
    give_turn(1);
}
static void close_next(void) {
    take_it();
    wait_for_turn(1);
    close_it();
}

static void first_and_third(void) {
    make_gen();
    next(true);
    give_turn(1);
    wait_for_turn(2);
    next(false);
    give_turn(3);
}
static void second_and_last(void) {
    take_it();
    wait_for_turn(1);
    next(true);
    give_turn(2);
    wait_for_turn(3);
    next(false);
    close_it();
}
static void first_and_last(void) {
    make_gen();
    next(true);
    next(true);
    next(false);
    give_turn(1);
    wait_for_turn(2);
    close_it();
}
static void after_the_end(void) {
    take_it();
    wait_for_turn(1);
    next(false);
    give_turn(2);
}

static void over(void) {
    model_assert(value == -1);
}
static void not_begun(void) {
    model_assert(value == 0);
}

#define CASE(n, check, ...) \
    { .name = "gen." n, .init = start, .thread = {__VA_ARGS__}, .end = (check), .bound = -1 }

const struct model_case model_cases[] = {
    CASE("handed_on", over, make_gen, ask_when_made),
    CASE("closed_unused", not_begun, make_gen, close_when_made),
    CASE("closed_by_another", over, make_and_ask, close_next),
    CASE("in_turn", over, first_and_third, second_and_last),
    CASE("over", over, first_and_last, after_the_end),
    {0},
};
