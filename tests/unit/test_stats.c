/* stats.c: the numbers agree with what has happened. */
#include "t_unit.h"

#include <ctype.h>
#include <dirent.h>
#include <poll.h>
#include <sys/socket.h>

static void nothing(void *arg) {
    (void)arg;
}

Test(stats, sizes_it_does_not_know_are_refused) {
    struct go_stats s = GO_STATS_INIT;
    T_EQ(go_stats(&s), -ENXIO);
    T_EQ(go_start(NULL), 0);
    T_EQ(go_stats(NULL), -EINVAL);
    s.size = 0;
    T_EQ(go_stats(&s), -EINVAL);
    s.size = sizeof s + 1;
    T_EQ(go_stats(&s), -EINVAL);
    s.size = sizeof s;
    T_EQ(go_stats(&s), 0);
    T_EQ(s.size, sizeof s);
    t_stop();
}

Test(stats, a_program_built_with_an_older_header_gets_what_it_knows) {
    T_EQ(go_start(NULL), 0);
    struct go_stats s;
    memset(&s, 0xee, sizeof s);
    s.size = offsetof(struct go_stats, tasks_live);
    T_EQ(go_stats(&s), 0);
    T_EQ(s.size, offsetof(struct go_stats, tasks_live));
    T_EQ(s.procs, t_procs());
    T_EQ(s.tasks_live, 0xeeeeeeeeeeeeeeee);
    t_stop();
}

static int count_threads(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    T_ASSERT(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[300], name[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", e->d_name);
        FILE *f = e->d_name[0] != '.' ? fopen(path, "re") : NULL;
        if (f && fgets(name, sizeof name, f))
            n += strncmp(name, "gort", 4) == 0;
        if (f)
            fclose(f);
    }
    closedir(d);
    return n;
}

Test(stats, facts_are_facts) {
    T_EQ(go_start(NULL), 0);
    struct go_stats s = t_stats();
    T_EQ(s.procs, t_procs());
    T_EQ(s.procs, go_procs());
    T_AWAIT(t_stats().threads == (unsigned)count_threads()); /* a spare may just have come */
    T_ASSERT(s.stacks_mapped > 0);
    T_ASSERT(s.netpoll_why && *s.netpoll_why);
    const char *wanted = getenv("GORT_NETPOLL");
    if (wanted && strcmp(wanted, "auto") != 0)
        T_STR_EQ(s.netpoll, wanted);
    t_stop();
}

static void park_once(void *arg) {
    T_EQ(go_chan_recv(arg, NULL), -EPIPE);
}

static void yield_some(void *arg) {
    for (int i = 0; i < 10; i++)
        go_yield();
    (void)arg;
}

Test(stats, spawned_is_live_and_ended) {
    enum { N = 500 };
    go_chan *c = go_chan_new(0, 0);
    T_EQ(go_start(NULL), 0);
    T_EQ(t_stats().spawned, 0);
    for (int i = 0; i < N; i++) {
        T_SPAWN(park_once, c);
        T_SPAWN(nothing, NULL);
        T_SPAWN(yield_some, NULL);
    }
    T_AWAIT(t_stats().tasks_live == N);
    T_AWAIT(t_stats().parks == N); /* yields are none */
    struct go_stats s = t_stats();
    T_EQ(s.spawned, 3 * N);
    T_EQ(s.ended, 2 * N);
    T_EQ(s.runnable, 0);
    T_EQ(go_chan_close(c), 0);
    T_AWAIT(t_stats().tasks_live == 0);
    s = t_stats();
    T_EQ(s.ended, 3 * N);
    T_EQ(s.parks, N);
    T_ASSERT(s.stacks_cached > 0);
    t_stop();
    go_chan_free(c);
    T_EQ(go_start(NULL), 0); /* they begin anew */
    s = t_stats();
    T_EQ(s.spawned + s.ended + s.parks, 0);
    t_stop();
}

static int hogging, quit;

static void hog(void *arg) {
    (void)arg;
    rt_store_release(&hogging, 1);
    while (!rt_load_acquire(&quit))
        rt_cpu_relax();
}

Test(stats, runnable_counts_who_waits_for_a_p) {
    t_start_strict(1);
    T_SPAWN(hog, NULL);
    T_AWAIT(rt_load_acquire(&hogging));
    for (int i = 0; i < 700; i++) {
        T_EQ(t_stats().runnable, i);
        T_SPAWN(nothing, NULL);
    }
    rt_store_release(&quit, 1);
    T_AWAIT(t_stats().tasks_live == 0);
    T_EQ(t_stats().runnable, 0);
    t_stop();
}

static int fd[2];

static void poll_fd(void *arg) {
    (void)arg;
    T_ASSERT(go_poll(fd[0], POLLIN) > 0);
}

Test(stats, fd_waits_counts_who_is_parked_on_a_descriptor) {
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < 5; i++)
        T_SPAWN(poll_fd, NULL);
    T_AWAIT(t_stats().fd_waits == 5);
    T_EQ(write(fd[1], "x", 1), 1);
    T_AWAIT(t_stats().tasks_live == 0);
    T_EQ(t_stats().fd_waits, 0);
    t_stop();
}

static uint32_t monotone_quit;

static void churn(void *arg) {
    while (!rt_load_relaxed(&monotone_quit)) {
        T_SPAWN(nothing, NULL);
        T_EQ(go_sleep(GO_MICROSECOND), 0);
    }
    (void)arg;
}

Test(stats, counters_only_grow_and_never_contradict_each_other) {
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < 4; i++)
        T_SPAWN(churn, NULL);
    struct go_stats last = t_stats();
    for (int i = 0; i < (int)T_SCALE(20000); i++) {
        struct go_stats s = t_stats();
        T_ASSERT(s.spawned >= last.spawned && s.ended >= last.ended && s.parks >= last.parks &&
                 s.steals >= last.steals && s.wakes >= last.wakes && s.polls >= last.polls);
        T_ASSERT(s.tasks_live <= s.spawned && s.tasks_live < 1 << 20);
        last = s;
    }
    rt_store_relaxed(&monotone_quit, 1);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
}

Test(version, is_three_numbers) {
    const char *v = go_version();
    int dots = 0;
    for (const char *p = v; *p; p++) {
        T_ASSERT(isdigit((unsigned char)*p) || *p == '.', "%s", v);
        dots += *p == '.';
    }
    T_EQ(dots, 2);
    T_ASSERT(isdigit((unsigned char)v[0]), "%s", v);
}
