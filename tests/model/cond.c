/* cond.c - sync/cond.c with sync/mutex.c, with foreign threads: no signal is lost, not on one that
 * is cancelled or late either, the mutex is held after the wait, and who has let all go may free
 * the condition variable. */
#include "machine.h"

#include <gort/scope.h>
#include <gort/sync.h>

static struct {
    go_mutex mutex;
    int tickets; /* plain, behind the mutex, as all here */
    int waits, done;
} object;
static go_cond cond;
static int canceled, reason;
static int64_t deadline = GO_FOREVER;
static go_scope scope;

static void begin(void) {
    machine_init(1);
}
static void in_scope(void) {
    machine_init(1);
    go_scope_enter(&scope, GO_FOREVER); /* of thread 0 */
}
static void late(void) {
    machine_init(1);
    model_clock_moves();
    deadline = 1000;
}

static void take(void) {
    go_mutex_lock(&object.mutex);
    object.waits++;
    while (object.tickets == 0)
        model_assert(go_cond_wait(&cond, &object.mutex) == 0);
    object.tickets--;
    object.done++;
    go_mutex_unlock(&object.mutex);
}
static void take_twice(void) {
    take();
    take();
}
static void give(int n) {
    go_mutex_lock(&object.mutex);
    object.tickets += n;
    go_mutex_unlock(&object.mutex);
}
static void give_one(void) {
    give(1);
    go_cond_signal(&cond);
}
static void give_two(void) {
    give(2);
    go_cond_signal(&cond);
    go_cond_signal(&cond);
}
static void give_inside(void) {
    go_mutex_lock(&object.mutex);
    object.tickets++;
    go_cond_signal(&cond);
    go_mutex_unlock(&object.mutex);
}
static void give_two_to_all(void) {
    give(2);
    go_cond_broadcast(&cond);
}
/* Nobody will come to it any more: all who wait have been seen to wait. */
static void give_and_free(int n) {
    go_mutex_lock(&object.mutex);
    while (object.waits < n) {
        go_mutex_unlock(&object.mutex);
        model_wait_for_change();
        go_mutex_lock(&object.mutex);
    }
    object.tickets += n;
    go_cond_broadcast(&cond);
    model_gone(&cond, sizeof cond);
    go_mutex_unlock(&object.mutex);
}
static void give_one_and_free(void) {
    give_and_free(1);
}
static void give_two_and_free(void) {
    give_and_free(2);
}

/* One who gives up; the ticket is for somebody else then. */
static void take_or_give_up(void) {
    go_mutex_lock(&object.mutex);
    int r = 0;
    while (object.tickets == 0 && r == 0)
        r = go_cond_wait_until(&cond, &object.mutex, deadline);
    model_assert(r == 0 || r == -ETIMEDOUT || (r == -ECANCELED && reason == 1));
    if (object.tickets != 0 && r == 0) {
        object.tickets--;
        object.done++;
    } else {
        canceled = 1;
    }
    go_mutex_unlock(&object.mutex);
}
static void cancel_and_take(void) {
    reason = 1;
    go_scope_cancel(&scope);
    take();
}

static void one_done(void) {
    model_assert(object.done == 1 && object.tickets == 0);
}
static void two_done(void) {
    model_assert(object.done == 2 && object.tickets == 0);
}
static void all_served(void) {
    model_assert(object.done + object.tickets == 1 && (canceled || object.done == 1));
}
/* The other one sleeps: then the first has the ticket. */
static void taken_by_first(void) {
    model_assert(object.done == 1 && object.tickets == 0 && !canceled);
}

#define CASE(n, start, check, b, s, ...) \
    MODEL_CASE("cond." n, start, check, NULL, b, s, __VA_ARGS__)
#define GIVES_UP(n, start, b, s, ...) \
    { \
        .name = "cond." n, .init = (start), .thread = {__VA_ARGS__}, .end = all_served, \
        .rest = taken_by_first, .bound = (b), .stale = (s) \
    }

const struct model_case model_cases[] = {
    CASE("signal", begin, one_done, 3, 2, take, give_one),
    CASE("inside", begin, one_done, 3, 2, take, give_inside),
    CASE("two_signals", begin, two_done, 1, 1, take, take, give_two),
    CASE("two_givers", begin, two_done, 1, 1, take_twice, give_one, give_inside),
    CASE("broadcast", begin, two_done, 1, 1, take, take, give_two_to_all),
    CASE("freed", begin, one_done, 2, 1, take, give_one_and_free),
    CASE("freed_by_two", begin, two_done, 1, 1, take, take, give_two_and_free),
    GIVES_UP("canceled", in_scope, 1, 1, take_or_give_up, cancel_and_take, give_one),
    GIVES_UP("late", late, 1, 1, take_or_give_up, take, give_one),
    {0},
};
