/* mutex.c - sync/mutex.c, with foreign threads: one at a time, nobody is forgotten, and whoever
 * unlocks touches the mutex no more. */
#include "machine.h"

#include <gort/sync.h>

static struct {
    go_mutex mutex;
    int users; /* plain, behind the mutex */
} object;
static int all;
static int64_t deadline;

static void users(int n) {
    machine_init(1);
    all = n;
}
static void two(void) {
    users(2);
}
static void three(void) {
    users(3);
}
static void three_spin(void) {
    users(3);
    rt.procs = 2;
}
static void four_times(void) {
    users(4);
}
/* A look at the clock takes 1 ms, so who was woken once and was too late is starving. */
static void starving(void) {
    users(4);
    model_clock_step(1000 * 1000 + 1);
}
static void late(void) {
    users(2);
    model_clock_moves();
    deadline = 1000;
}

static void use(void) {
    bool last = ++object.users == all;
    go_mutex_unlock(&object.mutex);
    if (last)
        model_gone(&object, sizeof object);
}
static void lock(void) {
    go_mutex_lock(&object.mutex);
    use();
}
static void lock_twice(void) {
    lock();
    lock();
}
static void trylock(void) {
    while (go_mutex_trylock(&object.mutex) != 0)
        model_wait_for_change();
    use();
}
/* One of them may be too late: the other one then is the last. */
static void lock_until(void) {
    if (go_mutex_lock_until(&object.mutex, deadline) != 0)
        return;
    object.users++;
    go_mutex_unlock(&object.mutex);
}
static void free_again(void) {
    model_assert(object.mutex.rt_state == 0 && object.mutex.rt_lock == 0);
    model_assert(!object.mutex.rt_waiters);
}
static void all_used(void) {
    model_assert(object.users == all);
}
static void all_but_late(void) {
    free_again();
    model_assert(object.users >= 1);
}

#define CASE(n, start, check, b, s, ...) \
    MODEL_CASE("mutex." n, start, check, NULL, b, s, __VA_ARGS__)

const struct model_case model_cases[] = {
    CASE("two", two, all_used, 4, 3, lock, lock),
    CASE("three", three, all_used, 2, 2, lock, lock, lock),
    CASE("three_spin", three_spin, all_used, 2, 1, lock, lock, lock),
    CASE("twice", four_times, all_used, 2, 2, lock_twice, lock_twice),
    CASE("trylock", three, all_used, 2, 2, lock, lock, trylock),
    CASE("starving", starving, all_used, 2, 1, lock_twice, lock, lock),
    CASE("late", late, all_but_late, 3, 2, lock_until, lock_until),
    CASE("late_three", late, all_but_late, 1, 2, lock_until, lock_until, lock_until),
    {0},
};
