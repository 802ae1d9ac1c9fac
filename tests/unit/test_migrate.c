/* What is a thread's own, errno and __thread variables, is not carried to another thread by a call
 * that parks: neither written there nor through an address that was taken before the park.
 *
 * Each thread has a variable that says what its errno is. A green thread sets both, parks, and may
 * find itself on another thread: there, too, both must agree, so no call has written errno, and
 * none has restored on the new thread what it had saved on the old one. The same program is built
 * once more at -O3 and with LTO (CMakeLists.txt), where the compiler sees all of it. */
#include "t_unit.h"

#include "sched/sched.h"

#include <sys/socket.h>

static __thread int shadow;

/* Whatever is the thread's own is reached in a function of its own: in one that parks the compiler
 * may keep its address, which docs/per-thread.md tells. */
#ifdef __clang__
#define APART __attribute__((noinline, optnone))
#else
#define APART __attribute__((noipa))
#endif

static APART void set_both(int value) {
    errno = value;
    shadow = value;
}
static APART int difference(void) {
    return errno - shadow;
}

static struct {
    go_chan *there, *back;
    go_mutex mutex;
    uint64_t moves, wanted;
} us;

static APART int thread_index(void) {
    return (int)rt_m()->index;
}

static APART void check(int round, const char *call) {
    int d = difference();
    T_ASSERT(d == 0, "round %d, %s: errno is not the thread's own, %d", round, call, d);
    set_both(1 + round % 100);
}

static void *same(void *arg) {
    set_both((int)t_int(arg));
    go_yield();
    return arg;
}

static void call_each(int round, int fd) {
    uint64_t v = (uint64_t)round;
    char byte = 'x';
    go_yield();
    check(round, "go_yield");
    T_EQ(go_chan_send(us.there, &v), 0);
    check(round, "go_chan_send");
    T_EQ(go_chan_recv(us.back, &v), 0);
    check(round, "go_chan_recv");
    go_mutex_lock(&us.mutex);
    check(round, "go_mutex_lock");
    go_mutex_unlock(&us.mutex);
    T_EQ(go_write(fd, &byte, 1), 1);
    check(round, "go_write");
    T_EQ(go_read(fd, &byte, 1), 1); /* the first try says EAGAIN, most often */
    check(round, "go_read");
    T_EQ(t_int(T_JOIN(go_task_spawn(same, t_ptr(round)))), round);
    check(round, "go_task_join");
    if (round % 16 == 0)
        T_EQ(go_sleep(50 * GO_MICROSECOND), 0);
    check(round, "go_sleep");
    T_EQ(go_close(-1), -EBADF);
    check(round, "go_close");
}

static void wander(void *arg) {
    int *fd = arg;
    set_both(1);
    for (int round = 0; round < (int)T_SCALE(400) || rt_load_relaxed(&us.moves) < us.wanted;
         round++) {
        int before = thread_index();
        call_each(round, *fd);
        if (thread_index() != before)
            rt_fetch_add(&us.moves, 1);
    }
}

/* Foreign threads answer, so whom they make ready is taken by the worker that comes first. */
static void *answer(void *arg) {
    uint64_t v;
    while (go_chan_recv(us.there, &v) == 0 && go_chan_send(us.back, &v) == 0)
        ;
    return arg;
}
static void *echo_bytes(void *arg) {
    char byte;
    while (read(*(int *)arg, &byte, 1) == 1 && write(*(int *)arg, &byte, 1) == 1)
        ;
    return NULL;
}

Test(migrate, neither_errno_nor_a_threads_variable_goes_along, .timeout = 120) {
    enum { WANDERERS = 8 };
    int pair[WANDERERS][2];
    pthread_t answerers[2], echo[WANDERERS];
    us.wanted = getenv("T_MOVES") ? 100 : 0; /* with chaos they must move; else the test hangs */
    us.there = go_chan_new(sizeof(uint64_t), 0);
    us.back = go_chan_new(sizeof(uint64_t), 2);
    T_EQ(go_start(NULL), 0);
    t_start_threads(answerers, 2, answer);
    for (int i = 0; i < WANDERERS; i++) {
        T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair[i]), 0);
        T_EQ(pthread_create(&echo[i], NULL, echo_bytes, &pair[i][1]), 0);
        T_SPAWN(wander, &pair[i][0]);
    }
    T_AWAIT(t_stats().tasks_live == 0);
    go_chan_close(us.there);
    t_join_threads(answerers, 2);
    for (int i = 0; i < WANDERERS; i++) {
        T_EQ(go_close(pair[i][0]), 0);
        T_EQ(pthread_join(echo[i], NULL), 0);
        close(pair[i][1]);
    }
    t_stop();
    go_chan_free(us.there);
    go_chan_free(us.back);
}
