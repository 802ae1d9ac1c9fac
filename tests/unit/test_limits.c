/* ctest: once */
/* limits: what the machine allows, as files of cgroup v2 in a directory of our own say it, and the
 * runtime that follows. The affinity mask is changed for real. */
#include "t_unit.h"

#include "sched/procs.h"
#include "sched/sched.h"
#include "sched/sysmon.h"

#include <limits.h>
#include <string.h>
#include <sys/stat.h>

static char dir[] = "/tmp/gort-limits-XXXXXX";

static void put(const char *path, const char *text) {
    char full[PATH_MAX], next[PATH_MAX + 8];
    snprintf(full, sizeof full, "%s/%s", dir, path);
    snprintf(next, sizeof next, "%s.next", full);
    FILE *f = fopen(next, "w");
    T_ASSERT(f != NULL, "%s", next);
    fputs(text, f);
    fclose(f);
    T_EQ(rename(next, full), 0); /* never seen half written */
}

static void remove_dir(void) {
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    T_EQ(system(command), 0);
}

/* A group a/b, as the process sees it. */
static void make_groups(void) {
    static char root[64], own[64];
    char path[64];
    T_ASSERT(mkdtemp(dir) != NULL);
    atexit(remove_dir);
    snprintf(root, sizeof root, "%s/fs", dir);
    snprintf(own, sizeof own, "%s/own", dir);
    T_EQ(mkdir(root, 0700), 0);
    snprintf(path, sizeof path, "%s/fs/a", dir);
    T_EQ(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/fs/a/b", dir);
    T_EQ(mkdir(path, 0700), 0);
    put("own", "1:name=systemd:/x\n0::/a/b\n");
    rt_sys_cgroup_root = root;
    rt_sys_cgroup_own = own;
    unsetenv("GORT_PROCS");
}

static unsigned machine_cpus(void) {
    cpu_set_t set;
    T_EQ(sched_getaffinity(0, sizeof set, &set), 0);
    return (unsigned)CPU_COUNT(&set);
}

/* ---- reading --------------------------------------------------------------------------------- */

Test(limits, the_tightest_of_all_groups_counts) {
    unsigned cpus = machine_cpus();
    make_groups();
    T_EQ(rt_sys_cpus(), cpus);
    T_EQ(rt_sys_memory_limit(), UINT64_MAX);
    put("fs/a/b/cpu.max", "max 100000\n");
    put("fs/a/b/memory.max", "max\n");
    T_EQ(rt_sys_cpus(), cpus);
    T_EQ(rt_sys_memory_limit(), UINT64_MAX);
    put("fs/a/memory.max", "1000000\n");
    T_EQ(rt_sys_memory_limit(), 1000000);
    put("fs/a/b/memory.max", "2000000\n");
    T_EQ(rt_sys_memory_limit(), 1000000);
    put("fs/memory.max", "3000\n"); /* a namespace's root is a group, too */
    T_EQ(rt_sys_memory_limit(), 3000);
    put("fs/a/cpu.max", "100000 100000\n");
    T_EQ(rt_sys_cpus(), 1);
    put("fs/a/cpu.max", "1000 100000\n");
    T_EQ(rt_sys_cpus(), 1);
    put("fs/a/cpu.max", "100001 100000\n");
    T_EQ(rt_sys_cpus(), cpus < 2 ? cpus : 2);
    put("fs/a/cpu.max", "nonsense\n");
    put("own", "0::/../a\n");
    T_ASSERT(rt_sys_cpus() >= 1);
}

Test(limits, without_groups_there_are_none) {
    make_groups();
    put("fs/memory.max", "3000\n");
    put("own", "2:cpu:/x\n");
    T_EQ(rt_sys_memory_limit(), UINT64_MAX);
    rt_sys_cgroup_own = "/does/not/exist";
    T_EQ(rt_sys_memory_limit(), UINT64_MAX);
    T_EQ(rt_sys_cpus(), machine_cpus());
}

/* ---- procs follow ---------------------------------------------------------------------------- */

static uint32_t over;

/* The runtime is busy: it does not look while it is idle. */
static void be_busy(void *arg T_UNUSED) {
    while (!rt_load_acquire(&over))
        go_sleep(100 * GO_MICROSECOND);
}

static void start_busy(void) {
    rt_store_relaxed(&rt_procs_follow_ns, GO_MILLISECOND);
    rt_store_relaxed(&over, 0);
    T_EQ(go_start(NULL), 0);
    T_SPAWN(be_busy, NULL);
}

static void stop_busy(void) {
    rt_store_release(&over, 1);
    t_stop();
}

Test(limits, procs_follow_the_quota) {
    unsigned cpus = machine_cpus();
    if (cpus < 2)
        T_SKIP("one CPU");
    make_groups();
    start_busy();
    T_EQ(go_procs(), cpus);
    for (int i = 0; i < 3; i++) {
        put("fs/a/cpu.max", "50000 100000\n");
        T_AWAIT(go_procs() == 1);
        put("fs/a/cpu.max", "max 100000\n");
        T_AWAIT(go_procs() == cpus);
    }
    stop_busy();
}

Test(limits, procs_follow_the_affinity_mask) {
    cpu_set_t all, one;
    T_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    if (CPU_COUNT(&all) < 2)
        T_SKIP("one CPU");
    make_groups();
    CPU_ZERO(&one);
    for (int i = 0; CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &one);
    start_busy();
    T_EQ(sched_setaffinity(getpid(), sizeof one, &one), 0);
    T_AWAIT(go_procs() == 1);
    T_EQ(sched_setaffinity(getpid(), sizeof all, &all), 0);
    T_AWAIT((int)go_procs() == CPU_COUNT(&all));
    stop_busy();
}

static void must_stay(unsigned procs) {
    int64_t until = go_now() + 20 * GO_MILLISECOND; /* some looks */
    put("fs/a/cpu.max", "50000 100000\n");
    while (go_now() < until) {
        T_EQ(go_procs(), procs);
        t_relax();
    }
    stop_busy();
    put("fs/a/cpu.max", "max 100000\n");
}

Test(limits, procs_that_were_asked_for_stay) {
    make_groups();
    start_busy();
    T_EQ(go_set_procs(3), 0);
    must_stay(3);

    rt_store_relaxed(&over, 0);
    t_start(4);
    T_SPAWN(be_busy, NULL);
    must_stay(4);

    setenv("GORT_PROCS", "5", 1);
    start_busy();
    must_stay(5);
}

static uint32_t woken;

static void count_wake(void *arg T_UNUSED) {
    rt_fetch_add(&woken, 1);
}

static void wake_until_procs_are(unsigned n) {
    while (go_procs() != n) {
        T_SPAWN(count_wake, NULL);
        t_relax();
    }
}

/* It does not look, and does so when it wakes up. That may be at any moment, since chaos wakes who
 * sleeps for no reason: so it is asked until it has slept; where it never does the time limit ends
 * it. */
Test(limits, an_idle_runtime_sleeps_on) {
    unsigned cpus = machine_cpus();
    if (cpus < 2)
        T_SKIP("one CPU");
    make_groups();
    rt_store_relaxed(&rt_procs_follow_ns, GO_MILLISECOND);
    T_EQ(go_start(NULL), 0);
    for (bool slept = false; !slept;) {
        put("fs/a/cpu.max", "max 100000\n");
        wake_until_procs_are(cpus);
        T_AWAIT(rt_load_seq_cst(&rt_sysmon_asleep));
        put("fs/a/cpu.max", "50000 100000\n");
        nanosleep(&(struct timespec){.tv_nsec = 20 * 1000000}, NULL);
        slept = go_procs() == cpus && rt_load_seq_cst(&rt_sysmon_asleep);
    }
    wake_until_procs_are(1);
    t_stop();
}

/* ---- tasks and memory ------------------------------------------------------------------------ */

static go_sem may_end;

static void wait_to_end(void *arg T_UNUSED) {
    go_sem_acquire(&may_end);
}

static long spawn_all(long most) {
    long n = 0;
    int err = 0;
    while (n < most && (err = go_spawn(wait_to_end, NULL)) == 0)
        n++;
    T_ASSERT(n == most || err == -EAGAIN, "%d", err);
    for (long i = 0; i < n; i++)
        go_sem_release(&may_end);
    T_AWAIT(t_stats().tasks_live == 0);
    return n;
}

Test(limits, tasks_are_no_more_than_memory_is_there_for) {
    make_groups();
    put("fs/a/memory.max", "33554432\n"); /* 32 MiB */
    struct go_options o = GO_OPTIONS_INIT;
    o.procs = 2;
    T_EQ(go_start(&o), 0);
    long cost = (long)rt_sys_page_size() + 256 + 256 * 1024 / 512;
    long most = 32 * 1024 * 1024 / 2 / cost;
    T_EQ(rt.max_tasks, most);
    long n = spawn_all(2 * most);
    T_ASSERT(n <= most && n >= most - most / 50, "%ld of %ld", n, most);
    t_stop();

    o.max_tasks = (size_t)most + 1000; /* who asks gets it */
    T_EQ(go_start(&o), 0);
    T_EQ(rt.max_tasks, most + 1000);
    T_ASSERT(spawn_all(2 * most) > most);
    t_stop();

    put("fs/a/memory.max", "max\n");
    o.max_tasks = 0;
    T_EQ(go_start(&o), 0);
    T_EQ(rt.max_tasks, SIZE_MAX);
    t_stop();

    put("fs/memory.max", "1\n");
    T_EQ(go_start(&o), 0);
    T_EQ(spawn_all(10), 1);
    t_stop();
}
