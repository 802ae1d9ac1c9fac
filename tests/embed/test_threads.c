/* The threads of a host beside the green threads: a pool of its own that spawns, sends, receives
 * and locks, and a signal handler that releases a semaphore, the one call that it may make. */
#include "unit/t_unit.h"

#include <sys/time.h>

enum { THREADS = 4, GREENS = 4 };

static struct {
    go_chan *requests, *answers;
    go_mutex mutex;
    go_cond all_in;
    go_barrier barrier;
    int64_t guarded, each;
    int served, spawned, ran;
} pool;

static void serve(void *arg) {
    int64_t n;
    (void)arg;
    while (go_chan_recv(pool.requests, &n) == 0) {
        n = 2 * n + 1;
        T_EQ(go_chan_send(pool.answers, &n), 0);
        go_mutex_lock(&pool.mutex);
        pool.guarded++;
        go_mutex_unlock(&pool.mutex);
        rt_fetch_add(&pool.served, 1);
    }
}

static void ran(void *arg) {
    (void)arg;
    go_mutex_lock(&pool.mutex);
    if (++pool.ran == pool.spawned)
        go_cond_broadcast(&pool.all_in);
    go_mutex_unlock(&pool.mutex);
}

static void ran_late(void *arg) {
    T_EQ(go_sleep(GO_MILLISECOND), 0); /* somebody waits for it by then */
    ran(arg);
}

/* A worker of the host's pool: it asks, spawns, and waits, by gort's objects. */
static void *pool_thread(void *arg) {
    int64_t sum = 0, n;
    go_barrier_wait(&pool.barrier);
    for (int64_t i = 0; i < pool.each; i++) {
        int64_t asked = i * THREADS + t_int(arg);
        T_EQ(go_chan_send(pool.requests, &asked), 0);
        go_mutex_lock(&pool.mutex);
        pool.spawned++;
        go_mutex_unlock(&pool.mutex);
        T_EQ(go_spawn(i == pool.each - 1 ? ran_late : ran, NULL), 0);
        T_EQ(go_chan_recv(pool.answers, &n), 0); /* perhaps another one's */
        sum += n;
    }
    go_barrier_wait(&pool.barrier);
    go_mutex_lock(&pool.mutex);
    while (pool.ran != pool.spawned)
        T_EQ(go_cond_wait(&pool.all_in, &pool.mutex), 0);
    go_mutex_unlock(&pool.mutex);
    return t_ptr(sum);
}

static void use_pool(void) {
    pthread_t t[THREADS];
    int64_t sum = 0, n = pool.each * THREADS;
    go_waitgroup wg = {0};
    pool.requests = go_chan_new(sizeof(int64_t), 2);
    pool.answers = go_chan_new(sizeof(int64_t), THREADS);
    pool.guarded = pool.served = pool.spawned = pool.ran = 0;
    go_barrier_init(&pool.barrier, THREADS);
    T_EQ(go_start(NULL), 0);
    t_start_threads(t, THREADS, pool_thread);
    for (int i = 0; i < GREENS; i++)
        T_EQ(go_waitgroup_spawn(&wg, serve, NULL), 0);
    for (int i = 0; i < THREADS; i++) {
        void *part;
        T_EQ(pthread_join(t[i], &part), 0);
        sum += t_int(part);
    }
    T_EQ(go_chan_close(pool.requests), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    t_stop();
    T_EQ(sum, n * (n - 1) + n);
    T_EQ(pool.guarded, n);
    T_EQ(pool.served, n);
    T_EQ(pool.ran, n);
    go_chan_free(pool.requests);
    go_chan_free(pool.answers);
}

Test(threads, a_pool_of_the_host_works_with_green_threads) {
    pool.each = T_SCALE(500);
    for (int i = 0; i < 3; i++)
        use_pool();
}

/* ---- a signal handler ------------------------------------------------------------------------ */

static struct {
    go_sem sem;
    int handled, acquired, end;
} bell;

static void on_signal(int sig) {
    (void)sig;
    rt_fetch_add(&bell.handled, 1);
    go_sem_release_sig(&bell.sem);
}

static void acquirer(void *arg) {
    (void)arg;
    while (go_sem_acquire(&bell.sem) == 0)
        rt_fetch_add(&bell.acquired, 1);
}

static void *acquiring_thread(void *arg) {
    while (go_sem_acquire(&bell.sem) == 0 && !rt_load_acquire(&bell.end))
        rt_fetch_add(&bell.acquired, 1);
    return arg;
}

static void sends_one(void *chan) {
    go_chan_try_send(chan, &(int){1});
}

/* The timer's signal comes to the host's threads alone, in the middle of what they do: gort's block
 * it. What they do is to use gort. */
Test(threads, a_signal_handler_releases_a_semaphore, .timeout = 120) {
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
    pthread_t t;
    go_chan *c;
    T_EQ(sigaction(SIGALRM, &sa, NULL), 0);
    T_EQ(go_start(NULL), 0);
    T_ASSERT(c = go_chan_new(sizeof(int), 1));
    for (int i = 0; i < 3; i++)
        T_SPAWN(acquirer, NULL);
    t_start_threads(&t, 1, acquiring_thread);
    T_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
    int wanted = (int)T_SCALE(1000);
    while (rt_load_acquire(&bell.handled) < wanted) {
        int v = 1;
        go_waitgroup wg = {0};
        T_EQ(go_waitgroup_spawn(&wg, sends_one, c), 0);
        T_EQ(go_waitgroup_wait(&wg), 0);
        go_chan_try_recv(c, &v);
    }
    T_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
    T_AWAIT(rt_load_acquire(&bell.acquired) == rt_load_acquire(&bell.handled));
    rt_store_release(&bell.end, 1);
    go_sem_release(&bell.sem);
    while (pthread_tryjoin_np(t, NULL) != 0) {
        go_sem_release(&bell.sem); /* a green thread may have had the first */
        t_relax();
    }
    t_stop();
    go_chan_free(c);
}
