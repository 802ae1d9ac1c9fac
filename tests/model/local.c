/* local.c - task/local.c: who sets a go_local, however he came to know it, finds its destructor at
 * his end; each is had by one; and threads that set their first ones at once make one pthread key,
 * which tells each of them of its end. */
#include "machine.h"

#include "sched/proc.h"

#include <gort/task.h>

#include <errno.h>
#include <pthread.h>

static uintptr_t locals[2];
static int values[2];
static uint32_t destroyed[2], set[2];

static void destroy_0(void *value) {
    model_assert(value == &values[0]);
    rt_fetch_add_relaxed(&destroyed[0], 1);
}
static void destroy_1(void *value) {
    model_assert(value == &values[1]);
    rt_fetch_add_relaxed(&destroyed[1], 1);
}
static void make_local(unsigned i) {
    go_local local = go_local_new(i ? destroy_1 : destroy_0);
    model_assert(local != NULL);
    rt_store_release(&locals[i], (uintptr_t)local);
}
static int set_local(unsigned i) {
    go_local local = (go_local)rt_load_acquire(&locals[i]);
    int err = go_local_set(local, &values[i]);
    model_assert(go_local_get(local) == (err ? NULL : &values[i]));
    rt_fetch_add_relaxed(&set[i], err == 0);
    return err;
}
/* As rt_g_call does. */
static void end_green(void) {
    struct rt_g *g = rt_self();
    if (g->touched & RT_TOUCHED_LOCALS)
        rt_local_end(g);
}

/* ---- green threads, on Ms of their own ------------------------------------------------------- */

static void two(void) {
    machine_init(2);
}
static void make_first(void) {
    make_local(0);
}
/* Told without order: it may not be known here yet, but not half. */
static void set_when_told(void) {
    uintptr_t local;
    machine_be(0, &gs[0]);
    while ((local = rt_load_relaxed(&locals[0])) == 0)
        model_wait_for_change();
    int err = go_local_set((go_local)local, &values[0]);
    model_assert(err == 0 || err == -EINVAL);
    set[0] = err == 0;
    end_green();
}
static void make_and_set(unsigned i) {
    machine_be(i, &gs[i]);
    make_local(i);
    model_assert(set_local(i) == 0);
    int err = set_local(1 - i);
    model_assert(err == 0 || err == -EINVAL); /* it may not be there yet */
    end_green();
}
static void make_and_set_0(void) {
    make_and_set(0);
}
static void make_and_set_1(void) {
    make_and_set(1);
}
static void all_destroyed(void) {
    model_assert(locals[0] != locals[1]);
    for (unsigned i = 0; i < 2; i++)
        model_assert(destroyed[i] == set[i]);
}

/* ---- threads that are not ours --------------------------------------------------------------- */

static unsigned keys;
static void (*end_of_thread)(void *);
static void *specific[MODEL_THREADS];

int __wrap_pthread_key_create(pthread_key_t *key, void (*destructor)(void *));
int __wrap_pthread_key_create(pthread_key_t *key, void (*destructor)(void *)) {
    *key = ++keys;
    end_of_thread = destructor;
    return 0;
}
int __wrap_pthread_setspecific(pthread_key_t key, const void *value);
int __wrap_pthread_setspecific(pthread_key_t key, const void *value) {
    model_assert(key == 1);
    specific[model_self()] = (void *)(uintptr_t)value;
    return 0;
}

static void for_threads(void) {
    two();
    model_ignore(&errno, sizeof errno); /* each thread has its own */
    make_local(0);
}
static void set_and_end(void) {
    model_assert(set_local(0) == 0);
    end_of_thread(specific[model_self()]);
}
static void two_destroyed(void) {
    all_destroyed();
    model_assert(keys == 1 && destroyed[0] == 2);
}

const struct model_case model_cases[] = {
    {.name = "local.told", .init = two, .thread = {make_first, set_when_told},
     .end = all_destroyed},
    {.name = "local.two", .init = two, .thread = {make_and_set_0, make_and_set_1},
     .end = all_destroyed},
    {.name = "local.threads", .init = for_threads, .thread = {set_and_end, set_and_end},
     .end = two_destroyed},
    {0},
};
