/* share.c: the first user starts the runtime, the last stops it. */
#include "t_unit.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

Test(share, the_first_starts_and_the_last_stops) {
    for (int i = 0; i < 3; i++) {
        T_EQ(go_acquire(), 0);
        T_EQ(go_acquire(), 0);
        T_ASSERT(go_procs() > 0);
        T_EQ(go_release(GO_SECOND), 0);
        T_ASSERT(go_procs() > 0);
        T_EQ(go_release(GO_FOREVER), 0);
        T_EQ(go_procs(), 0);
    }
}

Test(share, what_go_start_has_started_is_not_stopped) {
    T_EQ(go_start(NULL), 0);
    T_EQ(go_acquire(), 0);
    T_EQ(go_release(0), 0);
    T_ASSERT(go_procs() > 0);
    T_EQ(go_acquire(), 0);
    t_stop(); /* its owner may */
    T_EQ(go_procs(), 0);
    T_EQ(go_acquire(), 0); /* and then it is ours */
    T_EQ(go_release(0), 0);
    T_ASSERT(go_procs() > 0);
    T_EQ(go_release(GO_FOREVER), 0);
    T_EQ(go_procs(), 0);
}

static void *release_here(void *r) {
    *(int *)r = go_release(GO_FOREVER);
    return NULL;
}
static void *release_inside(void *r) {
    T_EQ(go_blocking(release_here, r, NULL), 0);
    return NULL;
}
Test(share, no_release_of_the_last_one_inside_go_blocking) {
    int r = 0;
    T_EQ(go_acquire(), 0);
    T_EQ(go_task_join(go_task_spawn(release_inside, &r), NULL), 0);
    T_EQ(r, -EDEADLK);
    T_EQ(go_acquire(), 0); /* it has not begun to stop */
    T_EQ(go_release(0), 0);
    T_EQ(go_release(GO_FOREVER), 0);
    T_EQ(go_procs(), 0);
}

/* One stops what is ours, and starts one of his own, while we give ours back. */
enum { ROUNDS = 100 };
static uint32_t acquired, released, stopped; /* so many times */

static void wait_for(const uint32_t *count, uint32_t n) {
    while (rt_load_acquire(count) < n)
        sched_yield();
}

static void nothing(void *arg T_UNUSED) {
}

static void *takes_its_place(void *arg T_UNUSED) {
    for (uint32_t n = 1; n <= ROUNDS; n++) {
        int r;
        wait_for(&acquired, n);
        while ((r = go_stop(GO_FOREVER)) == -EALREADY) /* we are at it */
            sched_yield();
        T_ASSERT(r == 0 || r == -ENXIO, "%d", r);
        T_EQ(go_start(NULL), 0);
        for (int i = 0; i < 20; i++)
            T_SPAWN(nothing, NULL); /* it is his, and runs */
        wait_for(&released, n);
        t_stop();
        rt_store_release(&stopped, n);
    }
    return NULL;
}

Test(share, a_release_stops_nothing_that_another_has_started_meanwhile) {
    pthread_t t;
    t_start_threads(&t, 1, takes_its_place);
    for (uint32_t n = 1; n <= ROUNDS; n++) {
        int r;
        wait_for(&stopped, n - 1);
        T_EQ(go_acquire(), 0);
        rt_store_release(&acquired, n);
        while ((r = go_release(GO_FOREVER)) == -EALREADY)
            sched_yield();
        T_EQ(r, 0);
        rt_store_release(&released, n);
    }
    t_join_threads(&t, 1);
    T_EQ(go_procs(), 0);
}

Test(share, what_was_started_after_ours_is_not_ours) {
    T_EQ(go_acquire(), 0);
    t_stop();
    T_EQ(go_start(NULL), 0);
    T_EQ(go_release(0), 0);
    T_ASSERT(go_procs() > 0);
    t_stop();
}

/* By go_start, beside an acquire: one of them starts it, and the other is not refused. */
static pthread_barrier_t both;
static void *start_or_be_late(void *arg) {
    for (int i = 0; i < T_SCALE(100); i++) {
        pthread_barrier_wait(&both);
        int err = go_start(NULL);
        T_ASSERT(err == 0 || err == -EALREADY, "%d", err);
        pthread_barrier_wait(&both);
        pthread_barrier_wait(&both);
        if (err == 0)
            t_stop();
    }
    return arg;
}
Test(share, an_acquire_waits_for_the_start_of_another, .timeout = 120) {
    pthread_t starter;
    T_EQ(pthread_barrier_init(&both, NULL, 2), 0);
    T_EQ(pthread_create(&starter, NULL, start_or_be_late, NULL), 0);
    for (int i = 0; i < T_SCALE(100); i++) {
        pthread_barrier_wait(&both);
        T_EQ(go_acquire(), 0);
        pthread_barrier_wait(&both);
        T_ASSERT(go_procs() > 0);
        T_EQ(go_release(GO_FOREVER), 0);
        pthread_barrier_wait(&both);
    }
    T_EQ(pthread_join(starter, NULL), 0);
    T_EQ(go_procs(), 0);
}

static void add_one(void *n) {
    rt_fetch_add((uint32_t *)n, 1);
}

static void *use_often(void *arg) {
    (void)arg;
    for (int i = 0; i < T_SCALE(100); i++) {
        int r;
        while ((r = go_acquire()) == -EALREADY)
            sched_yield();
        T_EQ(r, 0);
        uint32_t ran = 0;
        T_SPAWN(add_one, &ran); /* it runs as long as we are users */
        T_AWAIT(rt_load_seq_cst(&ran) == 1);
        while ((r = go_release(GO_FOREVER)) == -EALREADY)
            sched_yield();
        T_EQ(r, 0);
    }
    return NULL;
}

Test(share, users_come_and_go, .timeout = 120) {
    t_threads(4, use_often);
    T_EQ(go_procs(), 0);
}

static struct {
    uint32_t acquired, refused, end;
    int released;
} green;

static void from_green(void *arg) {
    (void)arg;
    T_EQ(go_acquire(), 0);
    T_EQ(go_release(0), 0);
    green.released = go_release(0); /* of the last one, who must not stop it from inside */
    rt_store_seq_cst(&green.acquired, 1);
    while (go_spawn(nothing, NULL) != -ESHUTDOWN)
        go_yield();
    T_EQ(go_acquire(), -EALREADY);
    rt_store_seq_cst(&green.refused, 1);
    while (!rt_load_seq_cst(&green.end))
        go_yield();
}

Test(share, a_green_thread_is_refused_during_the_stop_and_holds_it_up) {
    char text[4096];
    T_EQ(go_acquire(), 0);
    T_SPAWN(from_green, NULL);
    T_AWAIT(rt_load_seq_cst(&green.acquired));
    T_EQ(green.released, -EDEADLK);
    struct t_stderr err = t_stderr_begin();
    T_EQ(go_release(GO_MILLISECOND), -ETIMEDOUT);
    T_AWAIT(rt_load_seq_cst(&green.refused));
    T_EQ(go_acquire(), -EALREADY);
    rt_store_seq_cst(&green.end, 1);
    T_EQ(go_release(GO_FOREVER), 0);
    t_stderr_end(err, text, sizeof text);
    T_ASSERT(strstr(text, "these have not ended"), "%s", text);
    T_EQ(go_procs(), 0);
}

Test(share, a_forked_child_has_no_part_in_it) {
    T_EQ(go_acquire(), 0);
    pid_t child = fork();
    if (child == 0)
        _exit(go_acquire() == -ENXIO && go_release(0) == -ENXIO ? 0 : 1);
    int status;
    T_EQ(waitpid(child, &status, 0), child);
    T_EQ(status, 0);
    T_EQ(go_release(GO_FOREVER), 0);
}
Test(share, a_release_too_many_aborts) {
    T_DIES(SIGABRT, "go_release: more often than go_acquire", go_release(0));
}
