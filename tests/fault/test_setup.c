/* The table of faults while the runtime starts: for each row, and for each n, the nth call of a
 * site fails once, and from the nth on for ever. go_start reports it and has left nothing, or it
 * works all the same, and the program (program.h) shows that. "auto" goes on with epoll when
 * io_uring is the trouble, and says why; then it never fails because of io_uring.
 *
 * Older kernels, too: what each of them would say to the flags of io_uring_setup(2), one after the
 * other, back to the first that had it. */
#include "fault/program.h"

enum { MEMORY = 1, RING = 2 }; /* reported as -ENOMEM whatever failed; concerns io_uring alone */

struct row {
    enum rt_fault_site site;
    int error;
    int flags;
};

static const struct row rows[] = {
    {RT_FAULT_ALLOC, ENOMEM, MEMORY},  {RT_FAULT_MMAP, ENOMEM, MEMORY},
    {RT_FAULT_GUARD, ENOMEM, MEMORY},  {RT_FAULT_THREAD, EAGAIN, 0},
    {RT_FAULT_EPOLL, EMFILE, 0},       {RT_FAULT_EPOLL, ENOMEM, 0},
    {RT_FAULT_EVENTFD, EMFILE, 0},     {RT_FAULT_EVENTFD, ENFILE, 0},
    {RT_FAULT_EPOLL_ADD, ENOMEM, 0},   {RT_FAULT_EPOLL_ADD, ENOSPC, 0},
    {RT_FAULT_RING, EPERM, RING},      {RT_FAULT_RING, ENOSYS, RING},
    {RT_FAULT_RING, EINVAL, RING},     {RT_FAULT_RING, ENOMEM, RING},
    {RT_FAULT_RING, EMFILE, RING},     {RT_FAULT_RING, EACCES, RING},
    {RT_FAULT_ENABLE, EINVAL, RING},   {RT_FAULT_ENABLE, EBADFD, RING},
    {RT_FAULT_ENABLE, EPERM, RING},    {RT_FAULT_REGISTER, EINVAL, RING},
    {RT_FAULT_REGISTER, ENOMEM, RING}, {RT_FAULT_SUBMIT, EAGAIN, RING},
    {RT_FAULT_SUBMIT, EBUSY, RING},    {RT_FAULT_SUBMIT, EPERM, RING},
    {RT_FAULT_SHORT, 1, RING},
};

/* The start, while the fault is armed, then the program without it. Has the fault been told? */
static bool trial(const struct row *r, uint32_t nth, bool forever, const char *netpoll) {
    rt_fault_arm(r->site, nth, forever, r->error);
    int err = start_as(netpoll);
    bool told = rt_load_seq_cst(&rt_fault_points[r->site].hits) != 0;
    rt_fault_disarm();
    if (err == 0) {
        struct go_stats st = t_stats();
        T_ASSERT(st.netpoll && st.netpoll_why && st.netpoll_why[0]);
        if (strcmp(netpoll, "auto") != 0)
            T_STR_EQ(st.netpoll, netpoll);
        program_strict(r->site);
        t_stop();
    } else {
        bool expected = err == (r->flags & MEMORY ? -ENOMEM : -r->error) ||
                        (err == -EOPNOTSUPP && (r->flags & RING)); /* the self-test has failed */
        T_ASSERT(told && expected, "site %d, call %u, %s: %d", r->site, nth, netpoll, err);
        T_ASSERT(strcmp(netpoll, "auto") != 0 || !(r->flags & RING), "site %d: %d", r->site, err);
    }
    return told;
}

static void each_nth(const struct row *r, const char *netpoll) {
    struct t_usage before = t_usage();
    uint32_t step = 1;
    for (uint32_t nth = 1; trial(r, nth, false, netpoll); nth += step) {
        trial(r, nth, true, netpoll);
        step += nth >= T_SCALE(8);
        T_SAME_USAGE(before);
        if (t_procs() > 8 && nth > 1)
            break; /* the same for each worker */
    }
    T_SAME_USAGE(before);
}

static void warm_up(const char *netpoll) {
    NET_ONE_HEAP();
    signal(SIGPIPE, SIG_IGN);
    T_EQ(start_as(netpoll), 0);
    program_strict(RT_FAULT_ALLOC);
    t_stop();
}

static void each(const char *netpoll) {
    warm_up(netpoll);
    for (size_t i = 0; i < T_COUNT(rows); i++)
        each_nth(&rows[i], netpoll);
}

Test(setup, a_named_engine_reports_what_fails_and_leaves_nothing) {
    each(asked_engine());
}

Test(setup, auto_reports_what_fails_or_finds_another_way) {
    each("auto");
}

/* ---- why it is epoll ------------------------------------------------------------------------- */

static bool uring_is_here(void) {
    if (start_as("uring") != 0)
        return false;
    t_stop();
    return true;
}

/* auto is epoll, for this reason, and works. */
static void falls_back(const char *why) {
    T_EQ(start_as("auto"), 0);
    struct go_stats st = t_stats();
    T_STR_EQ(st.netpoll, "epoll");
    T_ASSERT(strstr(st.netpoll_why, why), "\"%s\", not \"%s\"", st.netpoll_why, why);
    program_strict(RT_FAULT_RING);
    t_stop();
}

Test(setup, auto_says_why_it_is_epoll) {
    static const struct {
        enum rt_fault_site site;
        int error;
        uint32_t nth;
        const char *why;
    } cases[] = {
        {RT_FAULT_RING, EPERM, 1, "refused by seccomp"},
        {RT_FAULT_RING, EACCES, 1, "refused by seccomp"},
        {RT_FAULT_RING, ENOSYS, 1, "not in this kernel"},
        {RT_FAULT_RING, EINVAL, 1, "older than 6.1"},
        {RT_FAULT_RING, ENOMEM, 2, "out of a resource"}, /* of a worker, not of the self-test */
        {RT_FAULT_RING, EMFILE, 2, "out of a resource"},
        {RT_FAULT_ENABLE, EINVAL, 1, "older than 6.1"},
        {RT_FAULT_ENABLE, EBADFD, 2, "failed on a worker"},
        {RT_FAULT_WAIT, EINVAL, 1, "without a feature that is needed"},
    };
    warm_up("epoll");
    if (!uring_is_here())
        T_SKIP("io_uring is denied here");
    for (size_t i = 0; i < T_COUNT(cases); i++) {
        rt_fault_arm(cases[i].site, cases[i].nth, true, cases[i].error);
        int left = start_as("auto");
        T_EQ(left, 0);
        struct go_stats st = t_stats();
        T_STR_EQ(st.netpoll, "epoll");
        T_ASSERT(strstr(st.netpoll_why, cases[i].why), "\"%s\"", st.netpoll_why);
        t_stop();
        rt_fault_disarm();
    }
}

Test(setup, older_kernels_say_einval_to_flags_they_do_not_know) {
    static const uint32_t without[] = {RT_KERNEL(5, 1),  RT_KERNEL(5, 4),  RT_KERNEL(5, 5),
                                       RT_KERNEL(5, 6),  RT_KERNEL(5, 10), RT_KERNEL(5, 18),
                                       RT_KERNEL(5, 19), RT_KERNEL(6, 0)};
    warm_up("epoll");
    if (!uring_is_here())
        T_SKIP("io_uring is denied here");
    rt_fault_kernel = RT_KERNEL(4, 18);
    T_EQ(start_as("uring"), -ENOSYS);
    falls_back("not in this kernel");
    for (size_t i = 0; i < T_COUNT(without); i++) {
        rt_fault_kernel = without[i];
        T_EQ(start_as("uring"), -EINVAL);
        falls_back("kernel older than 6.1");
    }
}

Test(setup, kernels_from_6_1_on_run_the_ring) {
    static const uint32_t with[] = {RT_KERNEL(6, 1), RT_KERNEL(6, 12), RT_KERNEL(6, 14), 0};
    warm_up("epoll");
    if (!uring_is_here())
        T_SKIP("io_uring is denied here");
    struct t_usage before = t_usage();
    for (size_t i = 0; i < T_COUNT(with); i++) {
        rt_fault_kernel = with[i];
        T_EQ(start_as("auto"), 0);
        T_STR_EQ(t_stats().netpoll, "uring");
        program_strict(RT_FAULT_RING);
        t_stop();
    }
    T_SAME_USAGE(before);
}
