/* Kernels that lack one thing that the engine on io_uring needs, and a ring whose completions
 * overflow. What liburing says to the runtime is changed in between: the linker leads three of its
 * calls through here (tests/CMakeLists.txt). */
/* ctest: once */
#include "fault/program.h"

#include "netpoll/uring.h"

static struct {
    void (*made)(struct io_uring *u, struct io_uring_params *p);
    void (*submitting)(struct io_uring *u);
    uint32_t tampered;   /* entries that were changed */
    uint32_t overflows;  /* calls after which the kernel held completions back */
    uint32_t waits, counted_as_disk; /* waits in a ring; those that monitors see as iowait */
} tamper;

int __real_io_uring_queue_init_params(unsigned n, struct io_uring *u, struct io_uring_params *p);
int __wrap_io_uring_queue_init_params(unsigned n, struct io_uring *u, struct io_uring_params *p);
int __real_io_uring_submit_and_get_events(struct io_uring *u);
int __wrap_io_uring_submit_and_get_events(struct io_uring *u);
int __real_io_uring_enter2(unsigned fd, unsigned n, unsigned least, unsigned flags, void *arg,
                           size_t size);
int __wrap_io_uring_enter2(unsigned fd, unsigned n, unsigned least, unsigned flags, void *arg,
                           size_t size);

/* Of the first worker: other rings do not matter here. */
static void look_for_overflow(int fd) {
    if (!rt_urings || !rt_urings[0].ring.made || rt_urings[0].ring.u.ring_fd != fd)
        return;
    const struct io_uring *u = &rt_urings[0].ring.u;
    if (rt_load_relaxed(u->sq.kflags) & IORING_SQ_CQ_OVERFLOW)
        rt_fetch_add(&tamper.overflows, 1);
}

int __wrap_io_uring_queue_init_params(unsigned n, struct io_uring *u, struct io_uring_params *p) {
    int err = __real_io_uring_queue_init_params(n, u, p);
    if (err == 0 && tamper.made)
        tamper.made(u, p);
    return err;
}

int __wrap_io_uring_submit_and_get_events(struct io_uring *u) {
    if (tamper.submitting)
        tamper.submitting(u);
    int r = __real_io_uring_submit_and_get_events(u);
    look_for_overflow(u->ring_fd);
    return r;
}

int __wrap_io_uring_enter2(unsigned fd, unsigned n, unsigned least, unsigned flags, void *arg,
                           size_t size) {
    rt_fetch_add(&tamper.waits, 1);
    if (!(flags & 1u << 7)) /* IORING_ENTER_NO_IOWAIT */
        rt_fetch_add(&tamper.counted_as_disk, 1);
    int r = __real_io_uring_enter2(fd, n, least, flags, arg, size);
    look_for_overflow((int)fd);
    return r;
}

static bool uring_is_here(void) {
    if (start_as("uring") != 0)
        return false;
    t_stop();
    return true;
}

/* ---- something is missing -------------------------------------------------------------------- */

static uint32_t missing; /* a feature, or what becomes of an entry */

static void hide_feature(struct io_uring *u, struct io_uring_params *p) {
    (void)u;
    tamper.tampered += (p->features & missing) != 0;
    p->features &= ~missing;
}

/* The flag that shows deferred work never rises. */
static void hide_flags(struct io_uring *u, struct io_uring_params *p) {
    static unsigned none;
    (void)p;
    u->sq.kflags = &none;
    tamper.tampered++;
}

/* The prepared entries with this opcode: where older kernels do not know it they answer -EINVAL. */
static void change(struct io_uring *u, uint8_t opcode, void (*fn)(struct io_uring_sqe *)) {
    for (unsigned i = u->sq.sqe_head; i != u->sq.sqe_tail; i++) {
        struct io_uring_sqe *sqe = &u->sq.sqes[i & u->sq.ring_mask];
        if (sqe->opcode != opcode)
            continue;
        tamper.tampered++;
        fn(sqe);
    }
}

static void unknown(struct io_uring_sqe *sqe) {
    sqe->opcode = 255;
}
static void no_nop(struct io_uring *u) {
    change(u, IORING_OP_NOP, unknown);
}
static void no_poll(struct io_uring *u) {
    change(u, IORING_OP_POLL_ADD, unknown);
}

/* It succeeds, and tells. */
static void tell(struct io_uring_sqe *sqe) {
    sqe->flags &= (uint8_t)~IOSQE_CQE_SKIP_SUCCESS;
}
static void no_silence(struct io_uring *u) {
    change(u, IORING_OP_ASYNC_CANCEL, tell);
}

/* It succeeds, and removes nothing. */
static void in_vain(struct io_uring_sqe *sqe) {
    sqe->addr = UINT64_MAX;
}
static void no_removal(struct io_uring *u) {
    change(u, IORING_OP_ASYNC_CANCEL, in_vain);
}

/* Asked for by its name it says so, and leaves nothing; auto goes on with epoll, which works. */
static void is_refused(const char *what) {
    struct t_usage before = t_usage();
    tamper.tampered = 0;
    int err = start_as("uring");
    T_ASSERT(tamper.tampered != 0, "%s: nothing was changed", what);
    T_ASSERT(err == -EOPNOTSUPP, "%s: %d", what, err);
    T_SAME_USAGE(before);
    T_EQ(start_as("auto"), 0);
    struct go_stats st = t_stats();
    T_STR_EQ(st.netpoll, "epoll");
    T_ASSERT(strstr(st.netpoll_why, "without a feature that is needed"), "%s: \"%s\"", what,
             st.netpoll_why);
    program_strict(RT_FAULT_RING);
    t_stop();
    T_SAME_USAGE(before);
}

static void warm_up(void) {
    NET_ONE_HEAP();
    signal(SIGPIPE, SIG_IGN);
    T_EQ(start_as("epoll"), 0);
    program_strict(RT_FAULT_RING);
    t_stop();
}

Test(kernel, each_feature_of_a_ring_that_is_needed_is_asked_for) {
    static const struct {
        uint32_t feature;
        const char *name;
    } needed[] = {{IORING_FEAT_SINGLE_MMAP, "one mapping for both queues"},
                  {IORING_FEAT_NODROP, "completions are kept when the queue is full"},
                  {IORING_FEAT_EXT_ARG, "a wait with a time-out"}};
    if (!uring_is_here())
        T_SKIP("io_uring is denied here");
    warm_up();
    for (size_t i = 0; i < T_COUNT(needed); i++) {
        missing = needed[i].feature;
        tamper.made = hide_feature;
        is_refused(needed[i].name);
    }
}

Test(kernel, each_operation_that_is_needed_is_tried) {
    static const struct {
        void (*fn)(struct io_uring *u);
        const char *name;
    } without[] = {{no_nop, "an operation that does nothing"},
                   {no_poll, "polls"},
                   {no_silence, "success without a completion"},
                   {no_removal, "the removal of a poll"}};
    if (!uring_is_here())
        T_SKIP("io_uring is denied here");
    warm_up();
    for (size_t i = 0; i < T_COUNT(without); i++) {
        tamper.submitting = without[i].fn;
        is_refused(without[i].name);
    }
}

Test(kernel, a_ring_that_does_not_show_its_deferred_work_is_refused) {
    if (!uring_is_here())
        T_SKIP("io_uring is denied here");
    warm_up();
    tamper.made = hide_flags;
    is_refused("the flag for deferred work");
}

/* ---- iowait ---------------------------------------------------------------------------------- */

static uint32_t features;
static void note_features(struct io_uring *u, struct io_uring_params *p) {
    (void)u;
    features = p->features;
}

static void wait_in_a_ring(void) {
    int fd[2];
    T_EQ(start_as("uring"), 0);
    T_EQ(pipe2(fd, O_NONBLOCK | O_CLOEXEC), 0);
    uint32_t before = rt_load_seq_cst(&tamper.waits);
    go_task *t = go_task_spawn(read_one, &fd[0]);
    T_ASSERT(t);
    T_AWAIT(net_parked() == 1 && rt_load_seq_cst(&tamper.waits) > before);
    T_EQ(write(fd[1], "x", 1), 1);
    T_JOIN(t);
    t_stop();
    T_EQ(close(fd[0]), 0);
    T_EQ(close(fd[1]), 0);
}

/* From Linux 6.15 on a wait in a ring can be told apart from one for a disk, and is. */
Test(kernel, who_sleeps_in_a_ring_does_not_wait_for_a_disk) {
    if (!uring_is_here())
        T_SKIP("io_uring is denied here");
    rt_fault_kernel = RT_KERNEL(6, 14);
    rt_store_seq_cst(&tamper.waits, 0);
    rt_store_seq_cst(&tamper.counted_as_disk, 0);
    wait_in_a_ring();
    T_EQ(tamper.counted_as_disk, tamper.waits); /* it would refuse the flag */
    rt_fault_kernel = 0;
    tamper.made = note_features;
    wait_in_a_ring();
    if (!(features & 1u << 17)) /* IORING_FEAT_NO_IOWAIT */
        T_SKIP("a kernel before 6.15");
    rt_store_seq_cst(&tamper.waits, 0);
    rt_store_seq_cst(&tamper.counted_as_disk, 0);
    wait_in_a_ring();
    T_ASSERT(tamper.waits > 1);
    T_EQ(tamper.counted_as_disk, 0);
}

/* ---- completions overflow -------------------------------------------------------------------- */

enum { CROWD = 100, ROUNDS = 5 };

static struct {
    int in[CROWD], out[CROWD];
    uint32_t told, done;
} crowd;

static void *member(void *arg) {
    char c;
    int i = (int)t_int(arg);
    T_EQ(go_read(crowd.in[i], &c, 1), 1);
    T_EQ(c, (char)i);
    rt_fetch_add(&crowd.told, 1);
    return NULL;
}

static void yields_for_ever(void *arg) {
    (void)arg;
    while (!rt_load_seq_cst(&crowd.done))
        go_yield();
}

/* All of them are answered while the only worker, which has to enter the kernel for that, is
 * here. */
static void answer_all(void *arg) {
    (void)arg;
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        go_task *t[CROWD];
        for (int i = 0; i < CROWD; i++)
            T_ASSERT((t[i] = go_task_spawn(member, t_ptr(i))));
        net_wait_parked(CROWD);
        T_EQ(go_sleep(GO_MILLISECOND), 0); /* submitted */
        for (char i = 0; i < CROWD; i++)
            T_EQ(write(crowd.out[(int)i], &i, 1), 1);
        int64_t until = go_now() + 40 * GO_SECOND;
        while (rt_load_seq_cst(&crowd.told) != round * CROWD) {
            T_ASSERT(go_now() < until, "%u of %d were told", crowd.told, (int)round * CROWD);
            go_yield();
        }
        for (int i = 0; i < CROWD; i++)
            T_JOIN(t[i]);
    }
    rt_store_seq_cst(&crowd.done, 1);
}

/* On a ring with that many entries and twice as many completions. False: none overflowed. */
static bool overflows(int entries, bool beside_others) {
    struct go_options o = GO_OPTIONS_INIT;
    o.procs = 1;
    o.netpoll = "uring";
    o.flags = GO_STRICT; /* no P is taken, with its ring */
    rt_fault_arm(RT_FAULT_TINY, 2, true, entries); /* the first is that of the self-test */
    T_EQ(go_start(&o), 0);
    rt_fault_disarm();
    T_EQ(rt_urings[0].ring.u.cq.ring_entries, 2 * entries);
    for (int i = 0; i < CROWD; i++) {
        int fd[2];
        T_EQ(pipe2(fd, O_NONBLOCK | O_CLOEXEC), 0);
        crowd.in[i] = fd[0];
        crowd.out[i] = fd[1];
    }
    rt_store_seq_cst(&tamper.overflows, 0);
    rt_store_seq_cst(&crowd.told, 0);
    rt_store_seq_cst(&crowd.done, 0);
    for (int i = 0; beside_others && i < 2; i++)
        T_SPAWN(yields_for_ever, NULL);
    T_SPAWN(answer_all, NULL);
    T_AWAIT(rt_load_seq_cst(&crowd.done));
    T_EQ(rt_load_relaxed(rt_urings[0].ring.u.cq.koverflow), 0); /* dropped */
    for (int i = 0; i < CROWD; i++) {
        T_EQ(go_close(crowd.in[i]), 0);
        T_EQ(go_close(crowd.out[i]), 0);
    }
    t_stop();
    return rt_load_seq_cst(&tamper.overflows) != 0;
}

Test(kernel, completions_that_overflow_are_told) {
    if (!uring_is_here())
        T_SKIP("io_uring is denied here");
    for (int entries = 1; entries <= 4; entries *= 2)
        for (int others = 0; others < 2; others++)
            if (!overflows(entries, others))
                T_SKIP("with %d entries nothing has overflowed", entries);
}
