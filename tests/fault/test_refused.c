/* What a caller is told when the kernel refuses to watch a descriptor, or to make one: call by
 * call, where the table of test_running.c asks only that nothing else is reported. */
#include "net/net.h"
#include "unit/t_unit.h"

#include "base/fault.h"

enum kind { OURS, OTHERS, KINDS }; /* who has made it: it is watched in another way */

/* A pair of sockets of which nothing is known yet. */
static void fresh_pair(enum kind kind, int fd[2]) {
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
    if (kind == OURS)
        T_EQ(rt_fd_adopt(fd[0], RT_FD_OURS | RT_FD_STREAM), 0);
}

static void close_pair(const int fd[2]) {
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}

/* It waits, is told, and reads. */
static void *read_x(void *arg) {
    char c = 0;
    T_EQ(go_read((int)t_int(arg), &c, 1), 1);
    T_EQ(c, 'x');
    return NULL;
}
static void works(const int fd[2]) {
    go_task *t = go_task_spawn(read_x, t_ptr(fd[0]));
    T_ASSERT(t);
    net_wait_parked(1);
    T_EQ(write(fd[1], "x", 1), 1);
    T_JOIN(t);
}

/* ---- epoll_ctl(2) ---------------------------------------------------------------------------- */

static bool on_epoll(void) {
    return strcmp(t_stats().netpoll, "epoll") == 0;
}

static void never(void *arg) {
    (void)arg;
    T_ASSERT(false, "it was refused");
}

/* Each call that has to wait says what the kernel has said, and no other one has to. */
static void each_call_tells(enum rt_fault_site site, const int fd[2], int error) {
    char c;
    rt_fault_arm(site, 1, true, error);
    T_EQ(go_read(fd[0], &c, 1), -error);
    T_EQ(go_poll(fd[0], POLLIN), -error);
    T_EQ(go_poll_until(fd[0], POLLIN | POLLPRI, go_now() + GO_MINUTE), -error);
    T_EQ(go_spawn_when(fd[0], POLLIN, never, NULL), -error);
    T_EQ(rt_load_seq_cst(&rt_fault_points[site].hits), 4);
    T_EQ(go_write(fd[0], "x", 1), 1);
    T_EQ(go_read(fd[1], &c, 1), 1);
    rt_fault_disarm();
    net_wait_parked(0);
    works(fd);
}

static void not_added(void *arg) {
    static const int errors[] = {EBADF, ENOMEM, ENOSPC, EINVAL, ELOOP};
    int fd[2];
    (void)arg;
    for (size_t i = 0; on_epoll() && i < T_COUNT(errors); i++)
        for (enum kind kind = OURS; kind < KINDS; kind++) {
            fresh_pair(kind, fd);
            each_call_tells(RT_FAULT_EPOLL_ADD, fd, errors[i]);
            close_pair(fd);
        }
}

/* Only others' descriptors are asked for at each wait. */
static void not_changed(void *arg) {
    static const int errors[] = {EBADF, ENOMEM, EINVAL};
    int fd[2];
    (void)arg;
    for (size_t i = 0; on_epoll() && i < T_COUNT(errors); i++) {
        fresh_pair(OTHERS, fd);
        works(fd);
        each_call_tells(RT_FAULT_EPOLL_MOD, fd, errors[i]);
        close_pair(fd);
    }
}

/* The set still has it: what is known of the descriptor was forgotten, and it was not taken out. */
static void left_in_the_set(enum kind from, enum kind to, int fd[2]) {
    fresh_pair(from, fd);
    works(fd);
    rt_fault_arm(RT_FAULT_EPOLL_DEL, 1, true, ENOMEM);
    if (to == OURS)
        T_EQ(rt_fd_adopt(fd[0], RT_FD_OURS | RT_FD_STREAM), 0);
    else
        T_EQ(go_forget(fd[0]), 0);
    T_EQ(rt_load_seq_cst(&rt_fault_points[RT_FAULT_EPOLL_DEL].hits), 1);
    rt_fault_disarm();
}

/* The number of what the set has under it is changed then, and that may be refused, too. */
static void there_already(void *arg) {
    int fd[2];
    (void)arg;
    for (enum kind from = OURS; on_epoll() && from < KINDS; from++)
        for (enum kind to = OURS; to < KINDS; to++) {
            left_in_the_set(from, to, fd);
            works(fd);
            works(fd);
            close_pair(fd);
            left_in_the_set(from, to, fd);
            each_call_tells(RT_FAULT_EPOLL_MOD, fd, ENOMEM);
            close_pair(fd);
        }
}

/* A number that was closed by a plain close(2): the kernel knows it no more, or not at all. */
static void closed(void *arg) {
    int fd[2];
    char c;
    (void)arg;
    fresh_pair(OTHERS, fd);
    works(fd);
    int high = net_raise(fd[0], false);
    works((int[]){high, fd[1]});
    T_EQ(close(high), 0);
    T_EQ(go_read(high, &c, 1), -EBADF);
    T_EQ(go_poll(high, POLLIN), -EBADF);
    T_EQ(go_spawn_when(high, POLLIN, never, NULL), -EBADF);
    T_EQ(go_close(fd[1]), 0);
}

Test(refused, a_descriptor_that_the_set_does_not_take) {
    T_RUN(not_added, NULL);
}

Test(refused, a_descriptor_that_the_set_does_not_change) {
    T_RUN(not_changed, NULL);
}

Test(refused, a_descriptor_that_the_set_has_already_is_watched_all_the_same) {
    T_RUN(there_already, NULL);
}

Test(refused, a_number_that_is_closed_is_ebadf) {
    T_RUN(closed, NULL);
}

/* ---- socket(2), accept4(2) ------------------------------------------------------------------- */

static void no_socket(void *arg) {
    static const int errors[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES};
    (void)arg;
    for (size_t i = 0; i < T_COUNT(errors); i++) {
        rt_fault_arm(RT_FAULT_SOCKET, 1, true, errors[i]);
        T_EQ(go_listen("tcp", "127.0.0.1:0"), -errors[i]);
        T_EQ(go_dial("tcp", "127.0.0.1:1"), -errors[i]);
        T_EQ(go_listen("unix", "/tmp/gort-refused.sock"), -errors[i]);
        T_EQ(go_dial("unix", "/tmp/gort-refused.sock"), -errors[i]);
        T_EQ(rt_load_seq_cst(&rt_fault_points[RT_FAULT_SOCKET].hits), 4);
        rt_fault_disarm();
    }
}

Test(refused, who_listens_or_dials_is_told_why_there_is_no_socket) {
    T_RUN(no_socket, NULL);
}

static uint32_t answered;

static void *accept_one(void *listener) {
    int fd = go_accept((int)t_int(listener), NULL, NULL);
    rt_store_seq_cst(&answered, 1);
    return t_ptr(fd);
}

/* A connection waits in the queue, and what accept4(2) says is this, until `enough` were told. */
static int accept_while(int error, bool forever, uint32_t enough) {
    char address[32];
    int listener = net_listen(address), client = go_dial("tcp", address);
    T_ASSERT(client >= 0);
    rt_store_seq_cst(&answered, 0);
    rt_fault_arm(RT_FAULT_SOCKET, 1, forever, error);
    go_task *t = go_task_spawn(accept_one, t_ptr(listener));
    T_ASSERT(t);
    T_AWAIT(rt_load_seq_cst(&answered) ||
            rt_load_seq_cst(&rt_fault_points[RT_FAULT_SOCKET].hits) >= enough);
    rt_fault_disarm();
    int fd = (int)t_int(T_JOIN(t));
    if (fd >= 0) {
        T_EQ(go_write(client, "x", 1), 1);
        read_x(t_ptr(fd));
        T_EQ(go_close(fd), 0);
    }
    T_EQ(go_close(client), 0);
    T_EQ(go_close(listener), 0);
    return fd;
}

static void no_connection(void *arg) {
    static const int later[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM};
    static const int next[] = {ECONNABORTED, EPROTO, ENETDOWN, ENOPROTOOPT,
                               EHOSTDOWN, ENONET, EHOSTUNREACH, ENETUNREACH};
    (void)arg;
    for (size_t i = 0; i < T_COUNT(later); i++)
        T_ASSERT(accept_while(later[i], true, 3) >= 0); /* after 5 ms, 10 ms */
    for (size_t i = 0; i < T_COUNT(next); i++)
        T_ASSERT(accept_while(next[i], false, 1) >= 0);
    T_EQ(accept_while(EPERM, false, 1), -EPERM); /* a firewall: accept(2) has it */
    T_EQ(accept_while(EINVAL, false, 1), -EINVAL);
}

Test(refused, who_accepts_waits_for_descriptors_and_skips_what_died_in_the_queue) {
    T_RUN(no_connection, NULL);
}
