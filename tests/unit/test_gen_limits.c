/* gen.c: its stack, its limits, and what it refuses. */
#include "t_gen.h"

#include "base/fault.h"

#include <string.h>

/* ---- stacks -----------------------------------------------------------------------------------
 */

static void fill_some_stack(void *arg) {
    volatile char some[4096];
    memset((void *)(uintptr_t)some, 0x55, sizeof some);
    go_yield();
    T_EQ(some[4000], 0x55);
    go_waitgroup_done(arg);
}

/* The same few stacks go round between green threads and generators. */
GTest(gen_limits, green_threads_and_generators_share_stacks, .timeout = 120) {
    go_gen *g[20];
    for (int round = 0; round < crowd(200); round++) {
        go_waitgroup wg = {0};
        go_waitgroup_add(&wg, 20);
        for (int i = 0; i < 20; i++)
            g[i] = new_gen(count_to, t_ptr(3));
        for (int i = 0; i < 20; i++)
            T_SPAWN(fill_some_stack, &wg);
        for (int i = 0; i < 20; i++)
            for (int k = 1; k <= round % 5; k++)
                T_EQ(go_gen_next(g[i], NULL), k <= 3 ? 0 : -EPIPE);
        T_EQ(go_waitgroup_wait(&wg), 0);
        for (int i = 0; i < 20; i++)
            T_EQ(go_gen_close(g[i]), 0);
    }
}

static void make_and_close(void *arg) {
    enum { TOGETHER = 80 }; /* more than a P keeps */
    go_gen *g[TOGETHER];
    size_t mapped = 0;
    (void)arg;
    for (int round = 0; round < 2 + T_SCALE(8); round++) {
        for (int i = 0; i < TOGETHER; i++)
            g[i] = new_gen(count_to, t_ptr(3));
        for (int i = 0; i < TOGETHER; i++)
            for (int k = 1; k <= i % 5; k++)
                T_EQ(go_gen_next(g[i], NULL), k <= 3 ? 0 : -EPIPE);
        for (int i = 0; i < TOGETHER; i++)
            T_EQ(go_gen_close(g[i]), 0);
        if (round == 0)
            mapped = t_stats().stacks_mapped;
    }
    T_EQ(t_stats().stacks_mapped, mapped);
}

static void *make_and_close_thread(void *arg) {
    make_and_close(arg);
    return NULL;
}

Test(gen_limits, a_closed_one_gives_its_stack_back) {
    t_start_strict(1);
    T_JOIN(go_task_spawn(make_and_close_thread, NULL));
    make_and_close(NULL);
    t_stop();
}

static uintptr_t frame; /* of the generator */

static void *where(void *arg) {
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    *(bool *)arg = here < frame && here > frame - 64 * 1024;
    return NULL;
}

static void join_inside(go_gen *g, void *arg) {
    frame = (uintptr_t)__builtin_frame_address(0);
    T_JOIN(go_task_spawn(where, arg)); /* outside it would be run in place */
    go_gen_yield(g, NULL);
}

GTest(gen_limits, no_task_is_run_in_place_on_its_stack) {
    for (int i = 0; i < 100; i++) {
        bool inside = true;
        go_gen *g = new_gen(join_inside, &inside);
        next_of(g);
        T_ASSERT(!inside);
        must_be_over(g);
        T_EQ(go_gen_close(g), 0);
    }
}

/* ---- limits and failures ----------------------------------------------------------------------
 */

static int done;

static void up_to_the_limit(void *arg) {
    static go_gen *g[300];
    (void)arg;
    for (int round = 0; round < 3; round++) {
        int n = 0;
        while (n < 300 && (g[n] = go_gen_new(count_to, t_ptr(1))) != NULL)
            n++;
        T_ASSERT(n >= 60 && n < 110, "%d", n); /* records may lie with other Ps */
        T_EQ(go_spawn(fill_some_stack, NULL), -EAGAIN);
        while (n > 0)
            T_EQ(go_gen_close(g[--n]), 0);
    }
    rt_store_release(&done, 1);
}

Test(gen_limits, each_counts_for_the_limit_on_tasks) {
    struct go_options o = GO_OPTIONS_INIT;
    o.procs = 1;
    o.max_tasks = 100;
    T_EQ(go_start(&o), 0);
    T_SPAWN(up_to_the_limit, NULL);
    T_AWAIT(rt_load_acquire(&done));
    t_stop();
}

static int made_while_out_of(enum rt_fault_site site) {
    static go_gen *g[2000];
    int n = 0;
    rt_fault_arm(site, 1, true, ENOMEM);
    while (n < 2000 && (g[n] = go_gen_new(count_to, t_ptr(1))) != NULL)
        n++;
    rt_fault_disarm();
    go_gen *after = new_gen(count_to, t_ptr(1));
    T_EQ(t_int(next_of(after)), 1);
    T_EQ(go_gen_close(after), 0);
    for (int i = 0; i < n; i++) {
        if (i % 16 == 0)
            T_EQ(t_int(next_of(g[i])), 1);
        T_EQ(go_gen_close(g[i]), 0);
    }
    return n;
}

GTest(gen_limits, without_memory_there_is_none, .timeout = 120) {
    T_ASSERT(made_while_out_of(RT_FAULT_ALLOC) < 2000);
    T_ASSERT(made_while_out_of(RT_FAULT_MMAP) < 2000);
    T_ASSERT(made_while_out_of(RT_FAULT_GUARD) < 2000);
}

Test(gen_limits, without_memory_a_foreign_thread_gets_none, .timeout = 120) {
    t_start_strict(1);
    T_ASSERT(made_while_out_of(RT_FAULT_GUARD) < 2000);
    t_stop();
}

Test(gen_limits, there_is_none_without_a_runtime) {
    T_ASSERT(!go_gen_new(count_to, NULL));
    t_start_strict(1);
    T_EQ(go_gen_close(new_gen(count_to, NULL)), 0);
    t_stop();
    T_ASSERT(!go_gen_new(count_to, NULL));
}

Test(gen_limits, a_forked_child_may_go_on_with_one_but_make_none) {
#ifdef T_TSAN
    T_SKIP("TSan cannot fork beside threads");
#endif
    t_start(2);
    go_gen *g = new_gen(count_to, t_ptr(3));
    T_EQ(t_int(next_of(g)), 1);
    pid_t pid = fork();
    T_ASSERT(pid >= 0);
    if (pid == 0) {
        bool good = t_int(next_of(g)) == 2 && !go_gen_new(count_to, NULL) && go_gen_close(g) == 0;
        if (good)
            raise(SIGKILL); /* an exit would have Valgrind look for leaks */
        _exit(1);
    }
    int status;
    T_EQ(waitpid(pid, &status, 0), pid);
    T_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %#x", (unsigned)status);
    T_EQ(t_int(next_of(g)), 2);
    T_EQ(go_gen_close(g), 0);
    t_stop();
}

/* ---- misuse ------------------------------------------------------------------------------------
 */

static void ask_itself(go_gen *g, void *arg) {
    (void)arg;
    go_gen_next(g, NULL);
}
static void close_itself(go_gen *g, void *arg) {
    (void)arg;
    go_gen_close(g);
}
static void yield_again(go_gen *g, void *arg) {
    (void)arg;
    for (;;)
        go_gen_yield(g, NULL);
}
static void yield_in_scope(go_gen *g, void *arg) {
    (void)arg;
    go_scope s;
    go_scope_enter(&s, GO_FOREVER);
    go_gen_yield(g, NULL);
}
static void return_in_scope(go_gen *g, void *arg) {
    static go_scope s;
    (void)g, (void)arg;
    go_scope_enter(&s, GO_FOREVER);
}
static void yield_for_another(go_gen *g, void *arg) {
    (void)g;
    go_gen_yield(arg, NULL);
}

static void (*misuser)(go_gen *, void *);

static void misuse(void *arg) {
    (void)arg;
    go_gen *g = go_gen_new(misuser, NULL);
    go_gen_next(g, NULL);
    go_gen_close(g);
}

static void yield_outside(void *arg) {
    (void)arg;
    go_gen *g = go_gen_new(count_to, t_ptr(3));
    go_gen_next(g, NULL);
    go_gen_yield(g, NULL);
}

static void yield_of_the_consumer(void *arg) {
    (void)arg;
    go_gen *g = go_gen_new(count_to, t_ptr(3));
    go_gen_next(g, NULL);
    go_gen_next(go_gen_new(yield_for_another, g), NULL);
}

static void wait_inside(go_gen *g, void *arg) {
    (void)g;
    go_chan_recv(arg, NULL);
}

static go_gen *shared;

static void ask_shared(void *arg) {
    (void)arg;
    go_gen_next(shared, NULL);
}

static void close_shared(void *arg) {
    (void)arg;
    go_gen_close(shared);
}

static void two_at_once(void *arg) {
    shared = go_gen_new(wait_inside, go_chan_new(0, 0));
    go_spawn(ask_shared, NULL);
    while (t_stats().parks == 0)
        go_yield();
    ((void (*)(void *))arg)(NULL);
}

static void run_misuse(void (*fn)(go_gen *, void *)) {
    misuser = fn;
    go_run(misuse, NULL);
}

Test(gen_limits, misuse_aborts, .timeout = 120) {
    T_DIES(SIGABRT, "gort: go_gen_next: the generator is running", run_misuse(ask_itself));
    T_DIES(SIGABRT, "gort: go_gen_close: the generator is running", run_misuse(close_itself));
    T_DIES(SIGABRT, "gort: go_gen_yield: the generator was closed", run_misuse(yield_again));
    T_DIES(SIGABRT, "gort: go_gen_yield: inside a scope", run_misuse(yield_in_scope));
    T_DIES(SIGABRT, "gort: go_gen: return inside a scope", run_misuse(return_in_scope));
    T_DIES(SIGABRT, "gort: go_gen_yield: not inside this", go_run(yield_outside, NULL));
    T_DIES(SIGABRT, "gort: go_gen_yield: not inside this", go_run(yield_of_the_consumer, NULL));
    T_DIES(SIGABRT, "two at once", go_run(two_at_once, (void *)ask_shared));
    T_DIES(SIGABRT, "two at once", go_run(two_at_once, (void *)close_shared));
}
