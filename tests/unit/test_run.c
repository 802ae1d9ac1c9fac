/* start.c and sysmon.c, go_run: it returns when its function has, and tells a deadlock. */
#include "t_unit.h"

#include <poll.h>
#include <sys/socket.h>

static void nothing(void *arg) {
    (void)arg;
}

static void count_up(void *counter) {
    rt_fetch_add((int *)counter, 1);
}

static int canceled;

static void park_until_cancelled(void *arg) {
    (void)arg;
    T_EQ(go_sleep(GO_FOREVER), -ECANCELED);
    rt_fetch_add(&canceled, 1);
}

/* go_run and what it said on stderr. */
static int run_and_listen(void (*fn)(void *), void *arg, char *text, size_t size) {
    struct t_stderr err = t_stderr_begin();
    int r = go_run(fn, arg);
    t_stderr_end(err, text, size);
    return r;
}

Test(run, wants_a_function) {
    T_EQ(go_run(NULL, NULL), -EINVAL);
    T_EQ(go_run(nothing, NULL), 0);
}

static pthread_t caller;

static void check_first(void *arg) {
    T_EQ(t_int(arg), 42);
    T_ASSERT(go_id() > 0);
    T_ASSERT(go_procs() > 0);
    T_ASSERT(!pthread_equal(pthread_self(), caller));
}

Test(run, passes_the_argument_to_a_green_thread_on_another_thread) {
    caller = pthread_self();
    T_EQ(go_run(check_first, t_ptr(42)), 0);
    T_EQ(go_procs(), 0);
}

static void leave_others_behind(void *arg) {
    (void)arg;
    for (int i = 0; i < 10; i++)
        T_SPAWN(park_until_cancelled, NULL);
}

Test(run, cancels_and_joins_who_is_left) {
    for (int i = 1; i <= 5; i++) {
        T_EQ(go_run(leave_others_behind, NULL), 0);
        T_EQ(canceled, 10 * i);
    }
}

/* It takes its time to end, so a stop by another thread is under way for a while. */
static uint32_t first_waits, slow_one_ended;
static void end_slowly(void *arg) {
    park_until_cancelled(arg);
    int64_t until = go_now() + 20 * GO_MILLISECOND;
    while (go_now() < until)
        go_yield();
    rt_store_seq_cst(&slow_one_ended, 1);
}
static void wait_beside_a_slow_one(void *arg) {
    T_SPAWN(end_slowly, NULL);
    rt_store_seq_cst(&first_waits, 1);
    park_until_cancelled(arg);
}
static void *stop_it(void *arg) {
    T_AWAIT(rt_load_seq_cst(&first_waits));
    int err = go_stop(GO_FOREVER);
    T_ASSERT(err == 0 || err == -EALREADY || err == -ENXIO, "%d", err);
    return arg;
}
Test(run, waits_for_the_stop_of_another_thread) {
    for (int i = 0; i < T_SCALE(10); i++) {
        pthread_t stopper;
        first_waits = slow_one_ended = 0;
        T_EQ(pthread_create(&stopper, NULL, stop_it, NULL), 0);
        T_EQ(go_run(wait_beside_a_slow_one, NULL), 0);
        T_EQ(rt_load_seq_cst(&slow_one_ended), 1);
        T_EQ(go_procs(), 0);
        T_EQ(pthread_join(stopper, NULL), 0);
    }
}

static int spin_flag;

static void spin(void *arg) {
    (void)arg;
    while (!rt_load_acquire(&spin_flag))
        go_yield();
}

static void leave_a_spinner(void *arg) {
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    (void)arg;
    o.name = "mule";
    T_EQ(go_spawn_with(&o, spin, NULL), 0);
}

Test(run, names_who_does_not_end_within_the_grace) {
    char text[4096];
    setenv("GORT_GRACE", "20", 1);
    int r = run_and_listen(leave_a_spinner, NULL, text, sizeof text);
    T_EQ(r, -ETIMEDOUT);
    T_ASSERT(strstr(text, "mule"), "%s", text);
    T_EQ(go_run(nothing, NULL), -EALREADY);
    rt_store_release(&spin_flag, 1);
    t_stop();
    unsetenv("GORT_GRACE"); /* the first green thread may need longer to end */
    T_EQ(go_run(nothing, NULL), 0);
}

/* ---- deadlocks ------------------------------------------------------------------------------- */

static go_chan *silent;

static void recv_for_ever(void *arg) {
    int v;
    T_EQ(go_chan_recv(silent, &v), -ECANCELED);
    count_up(arg);
}

static void deadlock_two(void *arg) {
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    o.name = "left over";
    T_EQ(go_spawn_with(&o, recv_for_ever, arg), 0);
    recv_for_ever(arg);
}

static void name_the_deadlocked(void) {
    char text[4096];
    silent = go_chan_new(sizeof(int), 0);
    for (int i = 0; i < 3; i++) {
        int ended = 0;
        int r = run_and_listen(deadlock_two, &ended, text, sizeof text);
        T_EQ(r, -EDEADLK);
        T_EQ(ended, 2);
        T_ASSERT(strstr(text, "deadlock"), "%s", text);
        T_ASSERT(strstr(text, "left over: channel receive"), "%s", text);
        T_ASSERT(strstr(text, "go_run: channel receive"), "%s", text);
        T_EQ(go_procs(), 0);
    }
    go_chan_free(silent);
}

Test(run, names_the_green_threads_of_a_deadlock) {
    T_IN_CHILD_ALONE(name_the_deadlocked);
}

static void wait_for_nothing(void *arg) {
    (void)arg;
    go_waitgroup wg = {0};
    go_waitgroup_add(&wg, 1);
    T_EQ(go_waitgroup_wait(&wg), -ECANCELED);
}

static void sleep_for_ever(void *arg) {
    (void)arg;
    T_EQ(go_sleep(GO_FOREVER), -ECANCELED);
}

static void other_deadlocks(void) {
    char text[4096];
    T_EQ(run_and_listen(wait_for_nothing, NULL, text, sizeof text), -EDEADLK);
    T_EQ(run_and_listen(sleep_for_ever, NULL, text, sizeof text), -EDEADLK);
}

Test(run, tells_a_deadlock_on_anything_without_an_end) {
    T_IN_CHILD_ALONE(other_deadlocks);
}

static struct {
    go_mutex m[2];
    uint32_t locked;
} crossed;

static void lock_mine_then_yours(void *arg) {
    int me = *(int *)arg;
    go_mutex_lock(&crossed.m[me]);
    rt_fetch_add(&crossed.locked, 1);
    while (rt_load_acquire(&crossed.locked) != 2)
        go_yield();
    go_mutex_lock(&crossed.m[1 - me]); /* for ever */
}

static void cross(void *arg) {
    static int us[] = {0, 1};
    (void)arg;
    for (int i = 0; i < 2; i++)
        T_SPAWN(lock_mine_then_yours, &us[i]);
    while (rt_load_acquire(&crossed.locked) != 2)
        go_yield();
    go_mutex_lock(&crossed.m[0]); /* a third, behind them */
}

/* A wait for a mutex is not cancelled, so the runtime cannot stop either. */
static void deadlock_of_mutexes(void) {
    char text[4096], *at;
    unsigned long long who[2], holder[2], third, first;
    setenv("GORT_PROCS", "1", 1);
    setenv("GORT_GRACE", "20", 1);
    T_EQ(run_and_listen(cross, NULL, text, sizeof text), -EDEADLK);
    T_ASSERT(at = strstr(text, "deadlock!"), "%s", text);
    int read = sscanf(at,
                      "deadlock!\n"
                      "gort:   green thread %llu go_run: mutex lock, held by green thread %llu\n"
                      "gort:   green thread %llu: mutex lock, held by green thread %llu\n"
                      "gort:   green thread %llu: mutex lock, held by green thread %llu\n",
                      &third, &first, &who[0], &holder[0], &who[1], &holder[1]);
    T_ASSERT(read == 6, "%s", text);
    T_EQ(holder[0], who[1]);
    T_EQ(holder[1], who[0]);
    T_ASSERT(third != first && (first == who[0] || first == who[1]));
}

Test(run, names_who_holds_the_mutex_of_a_deadlock) {
    T_IN_CHILD_ALONE(deadlock_of_mutexes);
}

/* A deadline that was in force earlier, and is not any more, keeps nobody alive. */
static void deadlock_after_a_deadline(void *arg) {
    go_scope s;
    int v;
    go_scope_enter(&s, go_now() + 60 * GO_MINUTE);
    T_EQ(go_chan_recv((go_chan *)arg, &v), 0); /* parks with the deadline */
    T_EQ(go_scope_leave(&s), 0);
    T_EQ(go_chan_recv((go_chan *)arg, &v), -ECANCELED);
}

static void send_one(void *arg) {
    T_EQ(go_chan_send((go_chan *)arg, &(int){1}), 0);
}

static void run_deadlock_after_a_deadline(void *arg) {
    T_SPAWN(deadlock_after_a_deadline, arg);
    go_yield();
    T_SPAWN(send_one, arg);
    sleep_for_ever(NULL);
}

static void stale_deadline(void) {
    char text[4096];
    silent = go_chan_new(sizeof(int), 0);
    T_EQ(run_and_listen(run_deadlock_after_a_deadline, silent, text, sizeof text), -EDEADLK);
    go_chan_free(silent);
}

Test(run, deadlock_is_told_beside_a_deadline_that_is_over) {
    T_IN_CHILD_ALONE(stale_deadline);
}

/* A foreign thread was the last who could have woken somebody, and it goes without a word. */
static void go_on_alone(void *arg) {
    pthread_t t;
    silent = go_chan_new(sizeof(int), 0);
    T_EQ(pthread_create(&t, NULL, (void *(*)(void *))arg, NULL), 0);
    T_EQ(pthread_detach(t), 0);
    int v;
    T_EQ(go_chan_recv(silent, &v), -ECANCELED);
}

static void *poll_in_vain(void *arg) {
    int end[2];
    T_EQ(pipe(end), 0);
    T_EQ(go_poll_until(end[0], POLLIN, go_now() + 100 * GO_MILLISECOND), -ETIMEDOUT);
    return arg;
}

static void *acquire_in_vain(void *arg) {
    static go_sem none;
    go_scope s;
    go_scope_enter(&s, go_now() + 100 * GO_MILLISECOND);
    T_EQ(go_sem_acquire(&none), -ETIMEDOUT);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    return arg;
}

static void never(void *arg) {
    (void)arg;
    T_ASSERT(false, "an hour");
}

static void *stop_the_last_timer(void *arg) {
    go_timer *timer = go_timer_after(60 * GO_MINUTE, never, NULL);
    T_ASSERT(timer);
    nanosleep(&(struct timespec){.tv_nsec = 100 * 1000000}, NULL);
    T_EQ(go_timer_stop(timer), 0);
    return arg;
}

static void left_alone(void *(*fn)(void *)) {
    char text[4096];
    T_EQ(run_and_listen(go_on_alone, (void *)fn, text, sizeof text), -EDEADLK);
    go_chan_free(silent);
}

static void deadlock_by_a_poll(void) {
    left_alone(poll_in_vain);
}

static void deadlock_by_a_semaphore(void) {
    left_alone(acquire_in_vain);
}

static void deadlock_by_a_timer(void) {
    left_alone(stop_the_last_timer);
}

Test(run, a_deadlock_that_a_foreign_thread_leaves_behind_is_told) {
    T_IN_CHILD_ALONE(deadlock_by_a_poll);
    T_IN_CHILD_ALONE(deadlock_by_a_semaphore);
    T_IN_CHILD_ALONE(deadlock_by_a_timer);
}

/* ---- no deadlocks ---------------------------------------------------------------------------- */

static void *send_later(void *arg) {
    nanosleep(&(struct timespec){.tv_nsec = 100 * 1000000}, NULL);
    T_EQ(go_chan_send(silent, &(int){5}), 0);
    return arg;
}

static void recv_one(void *arg) {
    int v;
    (void)arg;
    T_EQ(go_chan_recv(silent, &v), 0);
    T_EQ(v, 5);
}

Test(run, a_foreign_thread_that_may_wake_somebody_is_no_deadlock) {
    pthread_t t;
    silent = go_chan_new(sizeof(int), 0);
    t_start_threads(&t, 1, send_later);
    T_EQ(go_run(recv_one, NULL), 0);
    t_join_threads(&t, 1);
    go_chan_free(silent);
}

static void sleep_a_while(void *arg) {
    (void)arg;
    T_EQ(go_sleep(100 * GO_MILLISECOND), 0);
}

Test(run, a_sleep_is_no_deadlock) {
    T_EQ(go_run(sleep_a_while, NULL), 0);
}

static int ends[2];

static void wait_for_byte(void *arg) {
    char byte;
    (void)arg;
    T_EQ(go_read(ends[0], &byte, 1), 1);
}

Test(run, a_read_that_another_process_ends_is_no_deadlock) {
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    pid_t pid = fork();
    T_ASSERT(pid >= 0);
    if (pid == 0) {
        nanosleep(&(struct timespec){.tv_nsec = 100 * 1000000}, NULL);
        _exit(write(ends[1], "x", 1) == 1 ? 0 : 1);
    }
    T_EQ(go_run(wait_for_byte, NULL), 0);
    T_EQ(waitpid(pid, NULL, 0), pid);
}

static void quick(void *arg) {
    int *ran = arg;
    go_waitgroup wg = {0};
    for (int i = 0; i < 3; i++)
        T_EQ(go_waitgroup_spawn(&wg, count_up, ran), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
}

Test(run, never_cries_deadlock_over_those_who_run, .timeout = 120) {
    int ran = 0, n = (int)T_SCALE(t_procs() <= 2 ? 1000 : 2000 / t_procs() + 20);
    for (int i = 0; i < n; i++)
        T_EQ(go_run(quick, &ran), 0);
    T_EQ(ran, 3 * n);
}

/* All but one always parked, and that one changes: never a moment without a runnable green thread.
 * */
static void ring_member(void *arg) {
    go_chan **at = arg;
    uint64_t v;
    while (go_chan_recv(at[0], &v) == 0 && v > 0) {
        v--;
        T_EQ(go_chan_send(at[1], &v), 0);
    }
    go_chan_close(at[1]);
}

static void ring(void *arg) {
    enum { MEMBERS = 50 };
    go_chan *c[MEMBERS + 1];
    (void)arg;
    for (int i = 0; i < MEMBERS; i++)
        c[i] = go_chan_new(sizeof(uint64_t), 0);
    c[MEMBERS] = c[0];
    go_waitgroup wg = {0};
    for (int i = 0; i < MEMBERS; i++)
        T_EQ(go_waitgroup_spawn(&wg, ring_member, &c[i]), 0);
    T_EQ(go_chan_send(c[0], &(uint64_t){(uint64_t)T_SCALE(100000)}), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    for (int i = 0; i < MEMBERS; i++)
        go_chan_free(c[i]);
}

Test(run, a_token_that_wanders_is_no_deadlock, .timeout = 120) {
    T_EQ(go_run(ring, NULL), 0);
}
