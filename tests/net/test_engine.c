/* Which engine runs, what happens when it cannot be set up, and what it leaves behind. */
#include "net.h"

#include "base/atomic.h"
#include "base/fault.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static struct go_stats seen;

static void look(void *arg) {
    (void)arg;
    int fd[2];
    char c;
    seen = (struct go_stats)GO_STATS_INIT;
    T_EQ(go_stats(&seen), 0);
    T_ASSERT(seen.netpoll && seen.netpoll_why && seen.netpoll_why[0]);
    net_pair(fd);
    T_EQ(go_poll_until(fd[0], POLLIN, go_now() + GO_MILLISECOND), -ETIMEDOUT);
    T_EQ(go_write(fd[1], "x", 1), 1);
    T_EQ(go_read(fd[0], &c, 1), 1);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}

Test(engine, the_one_that_was_asked_for_runs) {
    const char *asked = getenv("GORT_NETPOLL");
    RUN(look);
    if (asked && strcmp(asked, "auto") != 0)
        T_STR_EQ(seen.netpoll, asked);
}

Test(engine, unknown_name_is_einval) {
    NET_ONE_HEAP();
    struct go_options o = GO_OPTIONS_INIT;
    o.netpoll = "kqueue";
    T_EQ(go_start(&o), -EINVAL);
    struct t_usage before = t_usage();
    T_EQ(go_start(&o), -EINVAL);
    T_SAME_USAGE(before);
}

/* Make the three calls of io_uring fail with err in this process, as container runtimes do. */
static void deny_io_uring(int err) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, SYS_io_uring_setup, 0, 2),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, SYS_io_uring_register, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((unsigned)err & SECCOMP_RET_DATA)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    T_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    T_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static void falls_back(int err) {
    deny_io_uring(err);
    setenv("GORT_NETPOLL", "auto", 1);
    RUN(look);
    T_STR_EQ(seen.netpoll, "epoll");
    T_ASSERT(strstr(seen.netpoll_why, strerror(err)), "\"%s\"", seen.netpoll_why);
    struct go_options o = GO_OPTIONS_INIT;
    o.netpoll = "uring";
    T_EQ(go_start(&o), -err);
}
Test(engine, auto_falls_back_when_seccomp_says_eperm) {
    falls_back(EPERM);
}
Test(engine, auto_falls_back_when_seccomp_says_enosys) {
    falls_back(ENOSYS);
}

/* Each ring, each eventfd: whatever fails, auto starts, and a named engine reports and leaves
 * nothing. */
static void fails_at(enum rt_fault_site site, uint32_t nth, int err, const char *engine) {
    struct go_options o = GO_OPTIONS_INIT;
    o.netpoll = engine;
    struct t_usage before = t_usage();
    rt_fault_arm(site, nth, false, err);
    int r = go_start(&o);
    rt_fault_disarm();
    if (!strcmp(engine, "auto"))
        T_EQ(r, 0);
    else
        T_ASSERT(r == 0 || r == -err, "%d", r);
    if (r == 0)
        T_EQ(go_stop(GO_FOREVER), 0);
    T_SAME_USAGE(before);
}

Test(engine, set_up_may_fail_anywhere) {
    NET_ONE_HEAP();
    RUN(look); /* what libc keeps is there before the first count */
    static const char *const engines[] = {"auto", "uring", "epoll"};
    for (int e = 0; e < 3; e++)
        for (uint32_t nth = 1; nth <= 4; nth++) {
            fails_at(RT_FAULT_RING, nth, ENOMEM, engines[e]);
            if (e > 0) { /* epoll needs one, too: auto may fail then */
                fails_at(RT_FAULT_EVENTFD, nth, EMFILE, engines[e]);
                fails_at(RT_FAULT_EPOLL, nth, EMFILE, engines[e]);
            }
        }
}

Test(engine, starts_and_stops_leave_nothing) {
    NET_ONE_HEAP();
    RUN(look);
    struct t_usage before = t_usage();
    for (int i = 0; i < 20; i++)
        RUN(look);
    T_SAME_USAGE(before);
}

Test(engine, socket_may_fail) {
    struct go_options o = GO_OPTIONS_INIT;
    o.netpoll = getenv("GORT_NETPOLL");
    T_EQ(go_start(&o), 0);
    rt_fault_arm(RT_FAULT_SOCKET, 1, false, EMFILE);
    T_EQ(go_listen("tcp", "127.0.0.1:0"), -EMFILE);
    rt_fault_arm(RT_FAULT_SOCKET, 1, false, ENFILE);
    T_EQ(go_dial("tcp", "127.0.0.1:1"), -ENFILE);
    rt_fault_disarm();
    T_EQ(go_stop(GO_FOREVER), 0);
}

/* Does a line of /proc/self/maps name an io_uring? Allocates nothing: also for a forked child. */
static bool maps_a_ring(void) {
    static char text[1 << 20];
    size_t n = 0;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    for (ssize_t r = 1; r > 0 && n < sizeof text - 1; n += r > 0 ? (size_t)r : 0)
        r = read(fd, text + n, sizeof text - 1 - n);
    close(fd);
    text[n] = 0;
    return strstr(text, "[io_uring]") != NULL;
}

Test(engine, a_forked_child_does_not_map_the_rings) {
#ifdef T_TSAN
    T_SKIP("TSan cannot fork beside threads");
#endif
    struct go_options o = GO_OPTIONS_INIT;
    o.netpoll = getenv("GORT_NETPOLL");
    T_EQ(go_start(&o), 0);
    struct go_stats st = GO_STATS_INIT;
    T_EQ(go_stats(&st), 0);
    T_EQ(maps_a_ring(), !strcmp(st.netpoll, "uring"));
    pid_t pid = fork();
    T_ASSERT(pid >= 0);
    if (pid == 0)
        _exit(maps_a_ring());
    int status;
    T_EQ(waitpid(pid, &status, 0), pid);
    T_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
    T_EQ(go_stop(GO_FOREVER), 0);
}

/* ---- waits that are not ours ----------------------------------------------------------------- */

enum { ROUNDS = 20 };
static struct {
    int pair[2], event;
    uint32_t round, got;
} guest;

static void read_each(void *arg) {
    char c;
    (void)arg;
    while (go_read(guest.pair[0], &c, 1) == 1)
        rt_fetch_add(&guest.got, 1);
}

/* What the worker's poll waits for comes first, then what the library waits for. */
static void *wake_both(void *arg) {
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        while (rt_load_seq_cst(&guest.round) < i)
            usleep(50);
        usleep(500);
        T_EQ(write(guest.pair[1], "x", 1), 1);
        usleep(500);
        T_EQ(eventfd_write(guest.event, 1), 0);
    }
    return arg;
}

static void wait_as_a_library(void *arg) {
    struct epoll_event e = {.events = EPOLLIN};
    eventfd_t count;
    pthread_t t;
    (void)arg;
    guest.event = eventfd(0, EFD_CLOEXEC);
    int set = epoll_create1(EPOLL_CLOEXEC);
    T_EQ(epoll_ctl(set, EPOLL_CTL_ADD, guest.event, &e), 0);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, guest.pair), 0);
    T_EQ(pthread_create(&t, NULL, wake_both, NULL), 0);
    SPAWN(read_each, NULL);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        while (rt_load_seq_cst(&guest.got) < i)
            go_sleep(100 * GO_MICROSECOND);
        net_wait_parked(1);
        T_EQ(go_sleep(100 * GO_MICROSECOND), 0); /* its poll is submitted */
        rt_store_seq_cst(&guest.round, i + 1);
        T_EQ(epoll_wait(set, &e, 1, -1), 1); /* without EINTR */
        T_EQ(eventfd_read(guest.event, &count), 0);
    }
    T_EQ(pthread_join(t, NULL), 0);
    T_EQ(close(set), 0);
    T_EQ(close(guest.event), 0);
    T_EQ(go_close(guest.pair[1]), 0);
    T_EQ(go_close(guest.pair[0]), 0);
}

/* A ring whose completions interrupt their owner would end nearly each of these waits by EINTR. */
Test(engine, what_becomes_ready_interrupts_no_wait_of_a_library) {
    RUN(wait_as_a_library);
}
