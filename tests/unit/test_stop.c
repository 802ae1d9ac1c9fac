/* start.c, stop: everything ends, everything is given back, as often as one likes. */
#include "t_unit.h"

#include "base/lock.h"
#include "sched/sched.h"

#include <poll.h>
#include <sys/socket.h>

static void nothing(void *arg) {
    (void)arg;
}

static void count_up(void *counter) {
    rt_fetch_add((int *)counter, 1);
}

static void spin_until(void *flag) {
    while (!rt_load_acquire((int *)flag))
        go_yield();
}

static int cycles(int wanted) {
    int procs = t_procs();
    return (int)T_SCALE(procs <= 2 ? wanted : wanted * 2 / procs + 1);
}

Test(stop, a_thousand_starts_and_stops_leave_nothing, .timeout = 120) {
    int ran = 0, n = cycles(1000);
    struct t_usage before = {0};
    for (int i = 0; i < n + 3; i++) {
        if (i == 3)
            before = t_usage(); /* warm */
        T_EQ(go_start(NULL), 0);
        T_SPAWN(count_up, &ran);
        go_waitgroup wg = {0};
        T_EQ(go_waitgroup_spawn(&wg, count_up, &ran), 0);
        if (i % 2)
            T_EQ(go_waitgroup_wait(&wg), 0);
        else
            T_AWAIT(rt_load_acquire(&wg.rt_count) == 0); /* let it end before wg is gone */
        T_EQ(go_stop(GO_FOREVER), 0);
    }
    T_EQ(ran, 2 * (n + 3)); /* also what the stop met unstarted has run */
    T_SAME_USAGE(before);
}

Test(stop, needs_a_running_runtime) {
    T_EQ(go_stop(0), -ENXIO);
    t_start_strict(1);
    T_EQ(go_stop(0), 0);
    T_EQ(go_stop(0), -ENXIO);
}

Test(stop, takes_every_grace) {
    static const int64_t grace[] = {INT64_MIN, -1, 0, 1, INT64_MAX - 1, INT64_MAX};
    for (size_t i = 0; i < T_COUNT(grace); i++) {
        t_start(2);
        T_EQ(go_stop(grace[i]), 0);
    }
}

/* ---- who is parked is cancelled -------------------------------------------------------------- */

static struct {
    go_chan *empty, *full;
    go_waitgroup never;
    go_task *endless;
    int fd[2];
    int parked, canceled;
} park;

static void report(int r) {
    T_EQ(r, -ECANCELED);
    T_EQ(go_canceled(), -ECANCELED); /* and so it stays */
    T_EQ(go_sleep(GO_SECOND), -ECANCELED);
    rt_fetch_add(&park.canceled, 1);
}

static void park_sleep(void *arg) {
    (void)arg;
    rt_fetch_add(&park.parked, 1);
    report(go_sleep(GO_FOREVER));
}
static void park_long_sleep(void *arg) {
    (void)arg;
    rt_fetch_add(&park.parked, 1);
    report(go_sleep(GO_MINUTE * 60));
}
static void park_recv(void *arg) {
    int v;
    (void)arg;
    rt_fetch_add(&park.parked, 1);
    report(go_chan_recv(park.empty, &v));
}
static void park_send(void *arg) {
    (void)arg;
    rt_fetch_add(&park.parked, 1);
    report(go_chan_send(park.full, &(int){1}));
}
static void park_waitgroup(void *arg) {
    (void)arg;
    rt_fetch_add(&park.parked, 1);
    report(go_waitgroup_wait(&park.never));
}
static void park_poll(void *arg) {
    (void)arg;
    rt_fetch_add(&park.parked, 1);
    report(go_poll(park.fd[0], POLLIN));
}
static void park_read(void *arg) {
    char byte;
    (void)arg;
    rt_fetch_add(&park.parked, 1);
    report((int)go_read(park.fd[1], &byte, 1));
}

static void *endless(void *arg) {
    (void)arg;
    report(go_sleep(GO_FOREVER));
    return NULL;
}
static void park_join(void *arg) {
    (void)arg;
    rt_fetch_add(&park.parked, 1);
    go_scope s; /* inside a scope, so that the join parks and does not run the task itself */
    go_scope_enter(&s, GO_FOREVER);
    int r = go_task_join(park.endless, NULL);
    while (r == 0 && go_canceled() == 0)
        go_yield(); /* the task is cancelled, too, and may be so first */
    report(r == 0 ? -ECANCELED : r);
    T_EQ(go_scope_leave(&s), 0);
}

Test(stop, whoever_is_parked_is_cancelled) {
    static void (*const ways[])(void *) = {park_sleep, park_long_sleep, park_recv, park_send,
                                           park_waitgroup, park_poll,   park_read, park_join};
    enum { EACH = 20, WAYS = T_COUNT(ways) };
    park.empty = go_chan_new(sizeof(int), 0);
    park.full = go_chan_new(sizeof(int), 1);
    T_EQ(go_chan_send(park.full, &(int){0}), 0);
    go_waitgroup_add(&park.never, 1);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, park.fd), 0);
    for (int round = 0; round < 2; round++) {
        park.parked = park.canceled = 0;
        T_EQ(go_start(NULL), 0);
        T_ASSERT(park.endless = go_task_spawn(endless, NULL));
        int joiners = 0;
        for (int i = 0; i < EACH; i++)
            for (int w = 0; w < (int)WAYS; w++)
                if (ways[w] != park_join || joiners++ == 0)
                    T_SPAWN(ways[w], NULL);
        int all = EACH * ((int)WAYS - 1) + 1;
        if (round == 0)
            T_AWAIT(rt_load_acquire(&park.parked) == all); /* else some have not even begun */
        t_stop();
        T_EQ(park.canceled, all + 1);
    }
    close(park.fd[0]);
    close(park.fd[1]);
    go_chan_free(park.empty);
    go_chan_free(park.full);
}

/* ---- spawns and stops meet ------------------------------------------------------------------- */

static struct {
    int stop, ok, ran, refused;
} storm;

static void storm_ran(void *arg) {
    (void)arg;
    rt_fetch_add(&storm.ran, 1);
}

static void *storm_foreign(void *arg) {
    while (!rt_load_relaxed(&storm.stop)) {
        int r = go_spawn(storm_ran, NULL);
        T_ASSERT(r == 0 || r == -ENXIO || r == -ESHUTDOWN || r == -EAGAIN, "%d", r);
        rt_fetch_add(r == 0 ? &storm.ok : &storm.refused, 1);
        if (r == -ENXIO)
            sched_yield();
        while (rt_load_relaxed(&storm.ok) - rt_load_relaxed(&storm.ran) > 10000)
            sched_yield(); /* should nobody stop it for a while, it ends in no lack of memory */
    }
    return arg;
}

Test(stop, every_spawn_that_said_0_has_run_after_it, .timeout = 120) {
    enum { THREADS = 3 };
    pthread_t t[THREADS];
    t_start_threads(t, THREADS, storm_foreign);
    for (int i = 0; i < cycles(100); i++) {
        T_EQ(go_start(NULL), 0);
        int before = rt_load_relaxed(&storm.ok);
        T_AWAIT(rt_load_relaxed(&storm.ok) > before + i % 3);
        t_stop();
        T_EQ(go_procs(), 0);
    }
    rt_store_relaxed(&storm.stop, 1);
    t_join_threads(t, THREADS);
    T_EQ(storm.ran, storm.ok);
}

static void storm_green(void *arg) {
    int r;
    while ((r = go_spawn(storm_ran, NULL)) == 0 || r == -EAGAIN) {
        rt_fetch_add(&storm.ok, r == 0);
        go_yield();
    }
    T_EQ(r, -ESHUTDOWN);
    T_EQ(go_spawn(storm_green, arg), -ESHUTDOWN);
    T_ASSERT(!go_task_spawn(endless, NULL));
    rt_fetch_add(&storm.refused, 1);
}

Test(stop, spawns_are_refused_from_its_start) {
    enum { SPAWNERS = 8 };
    for (int i = 0; i < cycles(50); i++) {
        memset(&storm, 0, sizeof storm);
        T_EQ(go_start(NULL), 0);
        for (int k = 0; k < SPAWNERS; k++)
            T_SPAWN(storm_green, NULL);
        T_AWAIT(rt_load_relaxed(&storm.ok) > 100);
        t_stop();
        T_EQ(storm.refused, SPAWNERS);
        T_EQ(storm.ran, storm.ok);
    }
}

/* ---- who may stop ---------------------------------------------------------------------------- */

static void stop_inside(void *arg) {
    T_EQ(go_stop(GO_SECOND), -EDEADLK);
    count_up(arg);
}

Test(stop, a_green_thread_cannot) {
    int ran = 0;
    T_EQ(go_run(stop_inside, &ran), 0);
    T_EQ(ran, 1);
}

static int release, stopper_result = 1;

static void *stopper(void *arg) {
    rt_store_release(&stopper_result, go_stop(GO_FOREVER));
    return arg;
}

Test(stop, a_second_stopper_is_told_so) {
    pthread_t t;
    t_start(2);
    T_SPAWN(spin_until, &release);
    t_start_threads(&t, 1, stopper);
    T_AWAIT(go_spawn(nothing, NULL) == -ESHUTDOWN);
    T_EQ(go_stop(GO_FOREVER), -EALREADY);
    T_EQ(go_start(NULL), -EALREADY);
    rt_store_release(&release, 1);
    t_join_threads(&t, 1);
    T_EQ(stopper_result, 0);
    T_EQ(go_stop(0), -ENXIO);
}

static int stops_won;

static void *race_to_stop(void *arg) {
    int r = go_stop(GO_FOREVER);
    T_ASSERT(r == 0 || r == -EALREADY || r == -ENXIO, "%d", r);
    rt_fetch_add(&stops_won, r == 0);
    return arg;
}

Test(stop, of_many_stoppers_one_wins) {
    for (int i = 0; i < cycles(100); i++) {
        stops_won = 0;
        t_start(2);
        T_SPAWN(park_sleep, NULL);
        t_threads(4, race_to_stop);
        T_EQ(stops_won, 1);
    }
}

/* ---- who does not end ------------------------------------------------------------------------ */

static go_mutex held;

static void lock_held(void *arg) {
    count_up(arg);
    go_mutex_lock(&held); /* not cancellable */
    go_mutex_unlock(&held);
}

static bool is_waited_for(go_mutex *m) {
    rt_lock(&m->rt_lock);
    bool waited = m->rt_waiters != NULL;
    rt_unlock(&m->rt_lock);
    return waited;
}

Test(stop, names_who_does_not_end_and_goes_on_later) {
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    int flag = 0, begun = 0;
    char text[4096];
    t_start(2);
    struct t_usage running = t_usage();
    o.name = "mule";
    T_EQ(go_spawn_with(&o, spin_until, &flag), 0);
    go_mutex_lock(&held);
    o.name = "waiter";
    T_EQ(go_spawn_with(&o, lock_held, &begun), 0);
    T_AWAIT(rt_load_acquire(&begun) == 1 && is_waited_for(&held));

    struct t_stderr err = t_stderr_begin();
    int r = go_stop(10 * GO_MILLISECOND), again = go_stop(0);
    t_stderr_end(err, text, sizeof text);
    T_EQ(r, -ETIMEDOUT);
    T_EQ(again, -ETIMEDOUT);
    T_ASSERT(strstr(text, "mule") && strstr(text, "waiter"), "%s", text);
    T_ASSERT(strstr(text, "waiter: mutex lock"), "%s", text);
    T_ASSERT(t_usage().threads >= running.threads); /* it is still there; a spare M may have come */

    T_EQ(go_spawn(nothing, NULL), -ESHUTDOWN);
    T_EQ(go_start(NULL), -EALREADY);
    T_EQ(go_run(nothing, NULL), -EALREADY);
    rt_store_release(&flag, 1);
    go_mutex_unlock(&held);
    T_EQ(go_stop(GO_FOREVER), 0);
    T_EQ(go_run(nothing, NULL), 0);
}

Test(stop, names_no_more_than_a_screenful) {
    enum { MANY = 1000 };
    int flag = 0, lines = 0;
    char text[65536];
    t_start(2);
    for (int i = 0; i < MANY; i++)
        T_SPAWN(spin_until, &flag);
    struct t_stderr err = t_stderr_begin();
    int r = go_stop(0);
    t_stderr_end(err, text, sizeof text);
    T_EQ(r, -ETIMEDOUT);
    for (char *p = text; (p = strchr(p, '\n')); p++)
        lines++;
    T_ASSERT(lines > 10 && lines < 200, "%d lines", lines);
    T_ASSERT(strstr(text, "1000"), "%s", text);
    rt_store_release(&flag, 1);
    t_stop();
}

/* ---- foreign threads inside ------------------------------------------------------------------ */

static go_task *joined_by_thread;
static void *join_by_thread(void *arg) {
    void *result = NULL;
    T_EQ(go_task_join(joined_by_thread, &result), 0);
    T_EQ(t_int(result), 42);
    return arg;
}

static void *until_cancelled(void *arg) {
    T_EQ(go_sleep(GO_FOREVER), -ECANCELED);
    return arg;
}

Test(stop, lets_a_foreign_joiner_have_its_result) {
    for (int i = 0; i < cycles(100); i++) {
        pthread_t t;
        t_start(2);
        T_ASSERT(joined_by_thread = go_task_spawn(until_cancelled, t_ptr(42)));
        t_start_threads(&t, 1, join_by_thread);
        T_AWAIT(rt_load_acquire(&rt.foreign) == 1); /* the joiner is inside */
        t_stop();
        t_join_threads(&t, 1);
    }
}

Test(stop, tasks_that_nobody_joined_are_freed) {
    for (int i = 0; i < 3; i++) {
        t_start(2);
        for (int k = 0; k < 100; k++)
            T_ASSERT(go_task_spawn(until_cancelled, NULL));
        t_stop();
    }
}
