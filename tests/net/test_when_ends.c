/* How the wait of a go_spawn_when ends when nothing is ready, and on whose threads. */
#include "when.h"

#include "sched/g.h"
#include "sched/sched.h"

#include <pthread.h>
#include <sys/eventfd.h>

/* ---- the other ends -------------------------------------------------------------------------- */

static void closed(void *arg) {
    (void)arg;
    int fresh = eventfd(1, EFD_CLOEXEC);
    T_ASSERT(fresh >= 0);
    for (int i = 0; i < 100; i++) {
        int fd[2];
        make_high_pair(i % 2, fd);
        runs = 0;
        when(fd[0], POLLIN, -EBADF);
        if (i % 3)
            net_wait_parked(1);
        if (i % 4 == 0) {
            T_EQ(go_forget(fd[0]), 0);
            T_EQ(go_write(fd[1], "x", 1), 1); /* open and readable, but not ours to tell */
            await_runs(1);
            T_EQ(go_close(fd[0]), 0);
        } else {
            T_EQ(go_close(fd[0]), 0);
            T_EQ(dup2(fresh, fd[0]), fd[0]); /* the number again, and readable */
            await_runs(1);
            T_EQ(go_close(fd[0]), 0);
        }
        T_EQ(go_close(fd[1]), 0);
    }
    T_EQ(close(fresh), 0);
}
Test(when, closed_and_forgotten_is_ebadf) {
    RUN(closed);
}

/* On its way already when the file is closed, and the number is another file's when it runs. With
 * one P, that is not taken from us, nobody else can have run it before. */
static void closed_on_its_way(void *arg) {
    int fresh = eventfd(1, EFD_CLOEXEC);
    for (int i = 0; i < 20; i++) {
        int fd[2];
        make_high_pair(i % 2, fd);
        runs = 0;
        T_EQ(go_write(fd[1], "x", 1), 1);
        when(fd[0], POLLIN, t_procs() == 1 ? -EBADF : ANY);
        T_EQ(go_close(fd[0]), 0);
        T_EQ(dup2(fresh, fd[0]), fd[0]);
        await_runs(1);
        T_ASSERT(last_result == POLLIN || last_result == -EBADF, "%d", last_result);
        close_pair(fd);
    }
    T_EQ(close(fresh), 0);
    __atomic_store_n((int *)arg, 1, __ATOMIC_RELEASE);
}
Test(when, closed_before_it_begins_is_ebadf) {
    struct go_options o = GO_OPTIONS_INIT;
    int done = 0;
    o.flags = GO_STRICT;
    T_EQ(go_start(&o), 0);
    T_EQ(go_spawn(closed_on_its_way, &done), 0);
    while (__atomic_load_n(&done, __ATOMIC_ACQUIRE) == 0)
        T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
    T_EQ(go_stop(GO_FOREVER), 0);
}

/* What its record was lent for does not show in the next that gets it. */
static void *twice(void *arg) {
    go_yield();
    return net_ptr(2 * net_int(arg));
}

static void recycles(void *arg) {
    (void)arg;
    enum { TASKS = 20 };
    int fd[2];
    make_pair(0, fd);
    for (int i = 0; i < 50; i++) {
        runs = 0;
        when(fd[0], POLLIN, POLLIN);
        T_EQ(go_write(fd[1], "x", 1), 1);
        await_runs(1);
        drain(fd[0], 1);
        T_EQ(go_spawn_when_until(fd[0], POLLIN, GO_NOW, note, net_ptr(-ETIMEDOUT)), 0);
        await_runs(2);
        go_task *task[TASKS];
        for (int n = 0; n < TASKS; n++)
            T_ASSERT((task[n] = go_task_spawn(twice, net_ptr(n))) != NULL);
        for (int n = 0; n < TASKS; n++) {
            void *result;
            T_EQ(go_task_join(task[n], &result), 0);
            T_EQ(net_int(result), 2 * n);
        }
    }
    close_pair(fd);
}
Test(when, its_record_is_as_any_other_after_it) {
    RUN(recycles);
}

static void late(void *arg) {
    (void)arg;
    for (int kind = 0; kind < 2; kind++) {
        int fd[2];
        make_pair(kind, fd);
        runs = 0;
        int64_t deadline = go_now() + 5 * GO_MILLISECOND;
        T_EQ(go_spawn_when_until(fd[0], POLLIN, deadline, note, net_ptr(-ETIMEDOUT)), 0);
        await_runs(1);
        T_ASSERT(go_now() >= deadline);
        T_EQ(go_spawn_when_until(fd[0], POLLIN, GO_NOW, note, net_ptr(-ETIMEDOUT)), 0);
        await_runs(2);
        T_EQ(go_spawn_when_until(fd[0], POLLOUT, GO_NOW, note, net_ptr(POLLOUT)), 0);
        await_runs(3);
        deadline = go_now() + GO_MINUTE;
        T_EQ(go_spawn_when_until(fd[0], POLLIN, deadline, note, net_ptr(POLLIN)), 0);
        T_EQ(go_write(fd[1], "x", 1), 1);
        await_runs(4);
        drain(fd[0], 1);
        for (int i = 0; i < 100; i++) { /* both at once: it runs once all the same */
            deadline = go_now() + 50 * GO_MICROSECOND;
            T_EQ(go_spawn_when_until(fd[0], POLLIN, deadline, note, net_ptr(ANY)), 0);
            if (i % 2)
                go_yield();
            T_EQ(go_write(fd[1], "x", 1), 1);
            await_runs(5 + i);
            int r = last_result;
            T_ASSERT(r == POLLIN || r == -ETIMEDOUT, "%d", r);
            drain(fd[0], 1);
        }
        close_pair(fd);
    }
}
Test(when, deadline) {
    RUN(late);
}

/* A scope of the spawner does not reach it. */
static void no_scope(void *arg) {
    (void)arg;
    int fd[2];
    make_pair(0, fd);
    runs = 0;
    go_scope s;
    go_scope_enter(&s, go_now());
    go_scope_cancel(&s);
    when(fd[0], POLLIN, POLLIN);
    T_EQ(go_scope_leave(&s), -ECANCELED);
    T_EQ(go_write(fd[1], "x", 1), 1);
    await_runs(1);
    close_pair(fd);
}
Test(when, is_not_in_its_spawners_scope) {
    RUN(no_scope);
}

static int kept[8][2];

static void note_and_close(void *arg) {
    int *fd = arg;
    int r = go_when_result();
    T_ASSERT(r == -ECANCELED, "%d", r);
    T_EQ(go_read(fd[0], &(char){0}, 1), -ECANCELED);
    close_pair(fd);
    __atomic_fetch_add(&runs, 1, __ATOMIC_RELEASE);
}

static void leaves_them(void *arg) {
    (void)arg;
    for (int i = 0; i < 8; i++) {
        make_pair(i % 2, kept[i]);
        int64_t deadline = i % 4 < 2 ? GO_FOREVER : go_now() + GO_MINUTE;
        T_EQ(go_spawn_when_until(kept[i][0], POLLIN, deadline, note_and_close, kept[i]), 0);
    }
}
Test(when, stop_runs_each_once_with_ecanceled) {
    NET_ONE_HEAP();
    RUN(leaves_them);
    T_EQ(runs, 8);
    struct t_usage before = t_usage();
    for (int i = 0; i < 20; i++) {
        runs = 0;
        RUN(leaves_them);
        T_EQ(runs, 8);
    }
    T_SAME_USAGE(before);
}

/* ---- foreign threads ------------------------------------------------------------------------- */

static int thread_done;

static void *arms(void *arg) {
    int *fd = arg;
    when(fd[0], POLLIN, POLLIN);
    T_EQ(go_spawn_when(fd[0], POLLIN, note, NULL), -EBUSY);
    when(fd[0], POLLOUT, POLLOUT);
    T_EQ(go_spawn_when_until(fd[1], POLLIN, go_now() + 5 * GO_MILLISECOND, note,
                             net_ptr(-ETIMEDOUT)), 0);
    T_EQ(go_spawn_when(999, POLLIN, note, NULL), -EBADF);
    T_EQ(go_when_result(), -EINVAL);
    __atomic_store_n(&thread_done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void foreign(void *arg) {
    (void)arg;
    for (int i = 0; i < 20; i++) {
        int fd[2];
        pthread_t t;
        make_pair(i % 2, fd);
        runs = thread_done = 0;
        T_EQ(pthread_create(&t, NULL, arms, fd), 0);
        while (!__atomic_load_n(&thread_done, __ATOMIC_ACQUIRE))
            T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
        T_EQ(pthread_join(t, NULL), 0); /* it is about to end */
        await_runs(2); /* writable, and late */
        T_EQ(go_write(fd[1], "x", 1), 1);
        await_runs(3);
        close_pair(fd);
    }
}
Test(when, foreign_threads) {
    RUN(foreign);
}

/* Those that wait before their first run. */
#ifndef T_TSAN /* it looks at what belongs to others */
static bool count_unstarted(struct rt_g *g, void *arg) {
    *(int *)arg +=
        RT_WAIT_STATE(rt_load_acquire(&g->wait)) == RT_WAITING && !(g->flags & RT_G_STARTED);
    return true;
}
#endif

static void when_until(int fd, int64_t deadline, int expected) {
    T_EQ(go_spawn_when_until(fd, POLLIN, deadline, note, net_ptr(expected)), 0);
}

/* Nobody but its timer wakes the runtime. */
Test(when, foreign_threads_with_a_deadline) {
    int fd[2];
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    for (int i = 0; i < 5; i++) {
        T_EQ(go_start(NULL), 0);
        for (int n = 1; n <= 10; n++) {
            int64_t deadline = go_now() + (n % 3) * GO_MILLISECOND;
            runs = n - 1;
            when_until(fd[0], deadline, -ETIMEDOUT);
            await_runs(n);
            T_ASSERT(go_now() >= deadline);
        }
        runs = 0;
        when_until(fd[0], go_now() + GO_MINUTE, i % 2 ? POLLIN : -ECANCELED);
        T_EQ(go_spawn_when_until(fd[0], POLLIN, go_now() + GO_MINUTE, note, NULL), -EBUSY);
#ifndef T_TSAN
        int n = 0;
        rt_g_each(count_unstarted, &n);
        T_EQ(n, 1);
#endif
        if (i % 2) {
            T_EQ(write(fd[1], "x", 1), 1);
            await_runs(1);
            T_EQ(read(fd[0], &(char){0}, 1), 1);
        }
        T_EQ(go_stop(GO_FOREVER), 0);
        T_EQ(runs, 1);
    }
    T_EQ(close(fd[0]), 0);
    T_EQ(close(fd[1]), 0);
}

/* Threads and a green thread arm what is due at once. Half of them are not closed before they ran,
 * so nothing but their timer ends their wait. */
static void tell(void *arg) {
    __atomic_fetch_add((int *)arg, 1, __ATOMIC_RELEASE);
}

static void await_told(const int *told) {
    while (__atomic_load_n(told, __ATOMIC_ACQUIRE) == 0)
        T_EQ(go_sleep(20 * GO_MICROSECOND), 0);
}

static void *arms_many(void *arg) {
    (void)arg;
    for (long i = 0, n = T_SCALE(300); i < n; i++) {
        int fd[2], told = 0;
        make_pair(1, fd);
        int64_t deadline = go_now() + i % 7 * 10 * GO_MICROSECOND;
        T_EQ(go_spawn_when_until(fd[0], POLLIN, deadline, tell, &told), 0);
        if (i % 2)
            await_told(&told);
        else if (i % 3 == 0)
            T_EQ(go_write(fd[1], "x", 1), 1);
        close_pair(fd);
        await_told(&told);
        T_EQ(__atomic_load_n(&told, __ATOMIC_RELAXED), 1);
    }
    __atomic_fetch_add(&thread_done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void foreign_storm(void *arg) {
    pthread_t t[2];
    thread_done = 0;
    for (int i = 0; i < 2; i++)
        T_EQ(pthread_create(&t[i], NULL, arms_many, NULL), 0);
    arms_many(arg);
    while (__atomic_load_n(&thread_done, __ATOMIC_ACQUIRE) < 3)
        T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
    for (int i = 0; i < 2; i++)
        T_EQ(pthread_join(t[i], NULL), 0);
}
Test(when, foreign_storm) {
    RUN(foreign_storm);
}

Test(when, foreign_threads_alone) {
    int fd[2];
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    T_EQ(go_spawn_when(fd[0], POLLIN, note, NULL), -ENXIO);
    for (int i = 0; i < 5; i++) {
        runs = 0;
        T_EQ(go_start(NULL), 0);
        when(fd[0], POLLIN, i % 2 ? POLLIN : -ECANCELED);
        if (i % 2) {
            T_EQ(write(fd[1], "x", 1), 1);
            while (runs_now() == 0)
                T_EQ(go_sleep(GO_MILLISECOND), 0);
            T_EQ(read(fd[0], &(char){0}, 1), 1);
        }
        T_EQ(go_stop(GO_FOREVER), 0);
        T_EQ(runs, 1);
        T_EQ(go_spawn_when(fd[0], POLLIN, note, NULL), -ENXIO);
    }
    T_EQ(close(fd[0]), 0);
    T_EQ(close(fd[1]), 0);
}
