/* fault.c - the nth call of a site fails, and nothing else does. */
#include "gotest.h"

#include "base/fault.h"
#include "base/sys.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

Test(fault, nothing_fails_unless_a_test_says_so) {
    for (int site = 0; site < RT_FAULT_SITES; site++)
        T_EQ(rt_fault((enum rt_fault_site)site), 0);
}

Test(fault, the_nth_call_fails_once) {
    for (uint32_t nth = 1; nth <= 4; nth++) {
        rt_fault_arm(RT_FAULT_ALLOC, nth, false, ENOMEM);
        for (uint32_t call = 1; call <= 8; call++)
            T_EQ(rt_fault(RT_FAULT_ALLOC), call == nth ? -ENOMEM : 0);
        T_EQ(rt_fault_points[RT_FAULT_ALLOC].hits, 1);
    }
    rt_fault_disarm();
}

Test(fault, forever_is_from_the_nth_call_on) {
    rt_fault_arm(RT_FAULT_GUARD, 3, true, EAGAIN);
    for (int call = 1; call <= 100; call++)
        T_EQ(rt_fault(RT_FAULT_GUARD), call >= 3 ? -EAGAIN : 0);
    rt_fault_disarm();
    for (int call = 1; call <= 10; call++)
        T_EQ(rt_fault(RT_FAULT_GUARD), 0);
}

Test(fault, sites_do_not_know_each_other) {
    rt_fault_arm(RT_FAULT_RING, 2, false, EPERM);
    rt_fault_arm(RT_FAULT_EPOLL, 1, true, EMFILE);
    for (int i = 0; i < 5; i++) {
        T_EQ(rt_fault(RT_FAULT_ALLOC), 0);
        T_EQ(rt_fault(RT_FAULT_SOCKET), 0);
    }
    T_EQ(rt_fault(RT_FAULT_RING), 0);
    T_EQ(rt_fault(RT_FAULT_EPOLL), -EMFILE);
    T_EQ(rt_fault(RT_FAULT_RING), -EPERM);
    T_EQ(rt_fault(RT_FAULT_RING), 0);
    T_EQ(rt_fault(RT_FAULT_EPOLL), -EMFILE);
    rt_fault_disarm();
    T_EQ(rt_fault(RT_FAULT_EPOLL), 0);
}

Test(fault, a_disarmed_countdown_is_forgotten) {
    rt_fault_arm(RT_FAULT_MMAP, 2, true, ENOMEM);
    T_EQ(rt_fault(RT_FAULT_MMAP), 0);
    rt_fault_disarm();
    rt_fault_arm(RT_FAULT_ALLOC, 1, false, ENOMEM); /* armed again, but for another site */
    for (int i = 0; i < 5; i++)
        T_EQ(rt_fault(RT_FAULT_MMAP), 0);
    rt_fault_disarm();
}

Test(fault, an_older_kernel_lacks_what_came_later) {
    if (getenv("GOTEST_KERNEL")) /* tests/CMakeLists.txt: GORT_TEST_OLD */
        T_ASSERT(rt_fault_before(RT_KERNEL(99, 0)));
    rt_fault_kernel = 0;
    T_ASSERT(!rt_fault_before(RT_KERNEL(99, 0)));
    rt_fault_kernel = RT_KERNEL(6, 1);
    T_ASSERT(rt_fault_before(RT_KERNEL(6, 13)) && rt_fault_before(RT_KERNEL(10, 0)));
    T_ASSERT(!rt_fault_before(RT_KERNEL(6, 1)) && !rt_fault_before(RT_KERNEL(5, 19)));
    rt_fault_kernel = 0;
}

enum { THREADS = 4 };

static void *count_failures(void *arg) {
    long failed = 0;
    for (long i = 0; i < (long)(intptr_t)arg; i++)
        failed += rt_fault(RT_FAULT_SOCKET) != 0;
    return (void *)failed;
}

static long failures_of_threads(uint32_t nth, bool forever, long calls) {
    pthread_t t[THREADS];
    long sum = 0;
    rt_fault_arm(RT_FAULT_SOCKET, nth, forever, ENOBUFS);
    for (int i = 0; i < THREADS; i++)
        T_EQ(pthread_create(&t[i], NULL, count_failures, (void *)calls), 0);
    for (int i = 0; i < THREADS; i++) {
        void *failed;
        T_EQ(pthread_join(t[i], &failed), 0);
        sum += (long)failed;
    }
    rt_fault_disarm();
    return sum;
}

Test(fault, threads_count_together) {
    long calls = T_SCALE(100000), all = THREADS * calls;
    T_EQ(failures_of_threads((uint32_t)all / 2, false, calls), 1);
    T_EQ(failures_of_threads((uint32_t)all, true, calls), 1);
    T_EQ(failures_of_threads((uint32_t)all + 1, true, calls), 0);
    T_EQ(failures_of_threads((uint32_t)all / 2 + 1, true, calls), all - all / 2);
}

/* ---- what the calls make of it --------------------------------------------------------------- */

static void *nothing(void *arg) {
    return arg;
}

Test(fault, memory_calls_say_null_and_then_work_again) {
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM);
    T_ASSERT(rt_sys_alloc(8) == NULL);
    T_ASSERT(rt_sys_alloc_aligned(8, 64) == NULL);
    rt_fault_arm(RT_FAULT_MMAP, 1, true, ENOMEM);
    T_ASSERT(rt_sys_map(4096) == NULL);
    T_ASSERT(rt_sys_map_stacks(65536, 65536) == NULL);
    rt_fault_disarm();
    void *p = rt_sys_alloc(8), *q = rt_sys_alloc_aligned(8, 64);
    T_ASSERT(p && q);
    rt_sys_free(p);
    rt_sys_free(q);
    p = rt_sys_map(4096);
    T_ASSERT(p);
    rt_sys_unmap(p, 4096);
}

Test(fault, guards_and_threads_say_the_error) {
    bool light = true;
    pthread_t t;
    size_t page = rt_sys_page_size();
    char *p = rt_sys_map(page);
    T_ASSERT(p);
    rt_fault_arm(RT_FAULT_GUARD, 1, false, ENOMEM);
    T_EQ(rt_sys_guard(p, page, &light), -ENOMEM);
    T_ASSERT(light); /* nothing was learnt about the kernel */
    *p = 1;          /* and nothing was done */
    rt_sys_unmap(p, page);
    rt_fault_arm(RT_FAULT_THREAD, 2, false, EAGAIN);
    T_EQ(rt_sys_thread(&t, nothing, NULL, "t"), 0);
    T_EQ(pthread_join(t, NULL), 0);
    T_EQ(rt_sys_thread(&t, nothing, NULL, "t"), -EAGAIN);
    T_EQ(rt_sys_thread(&t, nothing, NULL, "t"), 0);
    T_EQ(pthread_join(t, NULL), 0);
}
