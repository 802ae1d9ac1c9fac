/* rwmutex.c - sync/rwmutex.c, with foreign threads: a writer is alone, nobody is forgotten, and
 * whoever unlocks touches the rwmutex no more. */
#include "machine.h"

#include <gort/sync.h>
#include <gort/task.h>

static struct {
    go_rwmutex rw;
    int value; /* plain: written by writers, read by readers */
    int users; /* by relaxed atomics, which order nothing */
} object;
static int all;

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
static void four(void) {
    users(4);
}
static void three_spin(void) {
    users(3);
    rt.procs = 2;
}
/* A look at the clock takes 1 ms, so a writer that was woken once and was too late is starving. */
static void starving(void) {
    users(4);
    model_clock_step(1000 * 1000 + 1);
}

/* The last one of all, if it is a writer, knows that the others have given the lock up. */
static void write_locked(void) {
    bool last = rt_fetch_add_relaxed(&object.users, 1) + 1 == all;
    object.value++;
    go_rwmutex_wrunlock(&object.rw);
    if (last)
        model_gone(&object, sizeof object);
}
static void writer(void) {
    go_rwmutex_wrlock(&object.rw);
    write_locked();
}
static void writer_twice(void) {
    writer();
    writer();
}
/* Others come and queue while it is inside, which costs no preemption. */
static void slow_writer_twice(void) {
    for (int i = 0; i < 2; i++) {
        go_rwmutex_wrlock(&object.rw);
        model_let_others();
        write_locked();
    }
}
/* A green thread, whose park has no full fence. */
static void green_writer(void *arg) {
    (void)arg;
    writer();
}
static void three_of_which_one_is_green(void) {
    machine_with_stacks(1);
    all = 3;
    machine_be(0, &gs[0]);
    model_assert(go_spawn(green_writer, NULL) == 0);
    ms[0].g = NULL;
    model_be(NULL);
}
static void m0(void) {
    machine_run(0);
}
static void try_writer(void) {
    while (go_rwmutex_trywrlock(&object.rw) != 0)
        model_wait_for_change();
    write_locked();
}

static void read_locked(void) {
    int value = object.value;
    rt_fetch_add_relaxed(&object.users, 1);
    model_assert(object.value == value);
    go_rwmutex_rdunlock(&object.rw);
}
static void reader(void) {
    go_rwmutex_rdlock(&object.rw);
    read_locked();
}
static void reader_twice(void) {
    reader();
    reader();
}
static void try_reader(void) {
    while (go_rwmutex_tryrdlock(&object.rw) != 0)
        model_wait_for_change();
    read_locked();
}
/* Both inside at once, whatever else waits: or this hangs. */
static int inside;
static void reader_meets_reader(void) {
    go_rwmutex_rdlock(&object.rw);
    rt_fetch_add(&inside, 1);
    while (rt_load_relaxed(&inside) != 2)
        model_wait_for_change();
    read_locked();
}

static void all_used(void) {
    model_assert(object.users == all);
}
static void free_again(void) {
    all_used();
    model_assert(object.rw.rt_state == 0 && !object.rw.rt_readers && !object.rw.rt_writers);
}

#define RESTING(n, start, check, at_rest, b, s, ...) \
    MODEL_CASE("rwmutex." n, start, check, at_rest, b, s, __VA_ARGS__)
#define CASE(n, start, check, b, s, ...) RESTING(n, start, check, NULL, b, s, __VA_ARGS__)

const struct model_case model_cases[] = {
    CASE("writers", two, all_used, 4, 2, writer, writer),
    CASE("writer_and_reader", two, all_used, 4, 2, writer, reader),
    CASE("readers", two, free_again, 2, 2, reader_meets_reader, reader_meets_reader),
    CASE("three_writers", three, all_used, 1, 1, writer, writer, writer),
    CASE("a_writer_between", three, all_used, 2, 1, reader, writer, reader),
    RESTING("a_green_writer", three_of_which_one_is_green, all_used, all_used, 2, 1, reader, m0,
            reader),
    CASE("two_writers_a_reader", three, all_used, 1, 1, writer, reader, writer),
    CASE("spin", three_spin, all_used, 1, 1, writer, reader, writer),
    CASE("twice", four, all_used, 2, 1, reader_twice, writer_twice),
    CASE("try", three, all_used, 1, 1, try_writer, try_reader, writer),
    CASE("starving", starving, all_used, 1, 1, slow_writer_twice, writer, reader),
    {0},
};
