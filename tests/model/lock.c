/* lock.c - base/lock.{h,c}: the spin lock, the futex lock, the note. */
#include "model.h"

#include "base/lock.h"

#include <errno.h>

static uint32_t word, note, flag;
static int counter; /* plain, behind the lock */
static uint32_t go[2];

/* ---- locks ----------------------------------------------------------------------------------- */

static void spin_count(void) {
    rt_lock(&word);
    counter++;
    rt_unlock(&word);
}
static void try_count(void) {
    if (rt_trylock(&word)) {
        counter++;
        rt_unlock(&word);
    }
}
static void futex_count(void) {
    rt_futex_lock(&word);
    counter++;
    rt_futex_unlock(&word);
}
static void futex_count_twice(void) {
    futex_count();
    futex_count();
}
static void all_counted(void) {
    model_assert(counter == 3 && word == 0);
}
static void two_or_three_counted(void) {
    model_assert((counter == 2 || counter == 3) && word == 0);
}

/* The last one frees the lock: the wake of the one before it may come late, and hit nothing. */
static struct {
    uint32_t lock;
    int users;
} object;

static void use_and_free(void) {
    rt_futex_lock(&object.lock);
    bool last = ++object.users == 3;
    rt_futex_unlock(&object.lock);
    if (last)
        model_gone(&object, sizeof object);
}
static void spin_use_and_free(void) {
    rt_lock(&object.lock);
    bool last = ++object.users == 3;
    rt_unlock(&object.lock);
    if (last)
        model_gone(&object, sizeof object);
}

/* ---- the note -------------------------------------------------------------------------------- */

/* What was stored before the wake is seen after the wait; the waiter looks again and again. */
static void wait_for_flag(void) {
    while (!rt_load_relaxed(&flag))
        model_assert(rt_note_wait(&note, -1) == 0);
}
static void set_flag(void) {
    rt_store_relaxed(&flag, 1);
    rt_note_wake(&note);
}
static void wait_for_both(void) {
    while (!rt_load_relaxed(&go[0]) || !rt_load_relaxed(&go[1]))
        model_assert(rt_note_wait(&note, -1) == 0);
}
static void set_mine(void) {
    rt_store_relaxed(&go[model_self() - 1], 1);
    rt_note_wake(&note);
}

/* Told in time or not: a wake is never reported as a time-out and left behind. */
static int told, timed_out;
static void wait_twice_for_a_while(void) {
    for (int i = 0; i < 2; i++)
        if (rt_note_wait(&note, 1000) == 0)
            told++;
        else
            timed_out++;
}
static void wake(void) {
    rt_note_wake(&note);
}
static void told_or_left(void) {
    model_assert(told + (int)note >= 1 && told + timed_out == 2);
}

static void spurious(void) {
    model_spurious_wakes(2);
}

#define CASE(n, at_end, ...) \
    {.name = "lock." n, .end = (at_end), .thread = {__VA_ARGS__}}, { \
        .name = "lock." n ".spurious", .init = spurious, .end = (at_end), .thread = { \
            __VA_ARGS__ \
        } \
    }

const struct model_case model_cases[] = {
    {.name = "lock.spin", .end = all_counted, .thread = {spin_count, spin_count, spin_count}},
    {.name = "lock.try",
     .end = two_or_three_counted,
     .thread = {spin_count, spin_count, try_count}},
    {.name = "lock.spin_freed",
     .thread = {spin_use_and_free, spin_use_and_free, spin_use_and_free}},
    CASE("futex", all_counted, futex_count, futex_count_twice),
    CASE("futex_three", all_counted, futex_count, futex_count, futex_count),
    CASE("futex_freed", NULL, use_and_free, use_and_free, use_and_free),
    CASE("note", NULL, wait_for_flag, set_flag),
    CASE("note_two_wakers", NULL, wait_for_both, set_mine, set_mine),
    CASE("note_timed", told_or_left, wait_twice_for_a_while, wake),
    {0},
};
