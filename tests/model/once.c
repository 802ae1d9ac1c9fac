/* once.c - sync/once.c, with foreign threads: fn runs once, who returns has seen what it did, and
 * the go_once may be freed by the last who returns. */
#include "machine.h"

#include <gort/sync.h>

static go_once once;
static int runs, work;  /* plain */
static unsigned runner; /* plain: 1 + the thread that runs fn */
static int returned;    /* by relaxed atomics */

static void fn(void) {
    runs++;
    work = 1;
    runner = model_self() + 1;
}

static void begin(void) {
    machine_init(1);
}

static void call(void) {
    go_once_do(&once, fn);
    model_assert(work == 1 && runs == 1);
    rt_fetch_add_relaxed(&returned, 1);
}
static void call_twice(void) {
    call();
    call();
}
/* Of two callers the one that did not run it knows that it ran, and that nobody else will come. */
static void call_and_free(void) {
    call();
    if (runner != model_self() + 1)
        model_gone(&once, sizeof once);
}

static void all_returned(void) {
    model_assert(runs == 1 && returned >= 2);
}

#define CASE(n, b, s, ...) MODEL_CASE("once." n, begin, all_returned, NULL, b, s, __VA_ARGS__)

const struct model_case model_cases[] = {
    CASE("two", 3, 2, call, call_twice),
    CASE("freed", 3, 2, call_and_free, call_and_free),
    CASE("three", 1, 1, call, call, call),
    {0},
};
