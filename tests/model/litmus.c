/* litmus.c - the checker checked: small programs whose outcomes are known.
 *
 * Each comes with the order that it needs, and then must be right in every execution, and without,
 * and then the checker must find the fault. The names are those of the literature (J. Alglave, L.
 * Maranget, M. Tautschnig, "Herding cats", 2014): SB store buffering, MP message passing, WRC
 * write-to-read causality, IRIW independent reads of independent writes, CoRR read-read
 * coherence. */
#include "model.h"

#include "base/sys.h"

static uint32_t x, y;
static uint32_t data;       /* plain */
static uint32_t seen[4][2]; /* what the threads have read */

/* ---- SB: each stores one word and reads the other's; both read 0? ---------------------------- */

#define SB(name, mine, other, store, fence, load) \
    static void name(void) { \
        store(&mine, 1); \
        fence; \
        seen[model_self()][0] = load(&other); \
    }
#define PLAIN_SB(name, mine, other, fence) \
    SB(name, mine, other, rt_store_relaxed, fence, rt_load_relaxed)

PLAIN_SB(sb_none_x, x, y, )
PLAIN_SB(sb_none_y, y, x, )
PLAIN_SB(sb_full_x, x, y, rt_fence_full())
PLAIN_SB(sb_full_y, y, x, rt_fence_full())
PLAIN_SB(sb_light_x, x, y, rt_fence_light())
PLAIN_SB(sb_light_y, y, x, rt_fence_light())
PLAIN_SB(sb_heavy_y, y, x, rt_fence_heavy())
SB(sb_sc_x, x, y, rt_store_seq_cst, , rt_load_seq_cst)
SB(sb_sc_y, y, x, rt_store_seq_cst, , rt_load_seq_cst)
SB(sb_acq_rel_x, x, y, rt_store_release, , rt_load_acquire)
SB(sb_acq_rel_y, y, x, rt_store_release, , rt_load_acquire)
SB(sb_sc_relaxed_x, x, y, rt_store_seq_cst, , rt_load_relaxed)
SB(sb_rmw_x, x, y, rt_exchange, , rt_load_relaxed)
SB(sb_rmw_y, y, x, rt_exchange, , rt_load_relaxed)
SB(sb_rmw_sc_x, x, y, rt_exchange, , rt_load_seq_cst)
SB(sb_rmw_sc_y, y, x, rt_exchange, , rt_load_seq_cst)

static void not_both_zero(void) {
    model_assert(seen[0][0] || seen[1][0]);
}

/* ---- MP: data, then a flag ------------------------------------------------------------------- */

static void mp_send_release(void) {
    data = 1;
    rt_store_release(&x, 1);
}
static void mp_send_relaxed(void) {
    data = 1;
    rt_store_relaxed(&x, 1);
}
static void mp_send_fence(void) {
    data = 1;
    rt_fence_full();
    rt_store_relaxed(&x, 1);
}
static void mp_receive_acquire(void) {
    if (rt_load_acquire(&x))
        model_assert(data == 1);
}
static void mp_receive_relaxed(void) {
    if (rt_load_relaxed(&x))
        model_assert(data == 1);
}
static void mp_receive_fence(void) {
    if (rt_load_relaxed(&x)) {
        rt_fence_full();
        model_assert(data == 1);
    }
}
static void mp_pass_on(void) { /* a read-modify-write goes on with the release before it */
    rt_fetch_add_relaxed(&x, 1);
}
static void mp_receive_passed_on(void) {
    if (rt_load_acquire(&x) == 2)
        model_assert(data == 1);
}
static void mp_overwrite(void) { /* a store does not */
    if (rt_load_relaxed(&x) == 1)
        rt_store_relaxed(&x, 2);
}

/* The same with two atomics, so that it is no race: may the old value be seen? */
static void mp_atomic_send_release(void) {
    rt_store_relaxed(&y, 1);
    rt_store_release(&x, 1);
}
static void mp_atomic_send_relaxed(void) {
    rt_store_relaxed(&y, 1);
    rt_store_relaxed(&x, 1);
}
static void mp_atomic_receive_acquire(void) {
    if (rt_load_acquire(&x))
        model_assert(rt_load_relaxed(&y) == 1);
}
static void mp_atomic_receive_relaxed(void) {
    if (rt_load_relaxed(&x))
        model_assert(rt_load_relaxed(&y) == 1);
}

/* ---- WRC, IRIW, CoRR ------------------------------------------------------------------------- */

static void write_x(void) {
    rt_store_release(&x, 1);
}
static void write_y(void) {
    rt_store_release(&y, 1);
}
static void write_x_sc(void) {
    rt_store_seq_cst(&x, 1);
}
static void write_y_sc(void) {
    rt_store_seq_cst(&y, 1);
}
static void wrc_pass_on(void) {
    if (rt_load_acquire(&x))
        rt_store_release(&y, 1);
}
static void wrc_pass_on_relaxed(void) {
    if (rt_load_acquire(&x))
        rt_store_relaxed(&y, 1);
}
static void wrc_receive(void) {
    if (rt_load_acquire(&y))
        model_assert(rt_load_relaxed(&x) == 1);
}

#define READ_TWO(name, first, fence, second, load) \
    static void name(void) { \
        seen[model_self()][0] = load(&first); \
        fence; \
        seen[model_self()][1] = load(&second); \
    }
READ_TWO(read_xy, x, , y, rt_load_acquire)
READ_TWO(read_yx, y, , x, rt_load_acquire)
READ_TWO(read_xy_sc, x, , y, rt_load_seq_cst)
READ_TWO(read_yx_sc, y, , x, rt_load_seq_cst)
READ_TWO(read_xy_fence, x, rt_fence_full(), y, rt_load_relaxed)
READ_TWO(read_yx_fence, y, rt_fence_full(), x, rt_load_relaxed)
READ_TWO(read_xx, x, , x, rt_load_relaxed)

static void same_order_for_all(void) {
    model_assert(!(seen[2][0] && !seen[2][1] && seen[3][0] && !seen[3][1]));
}
static void never_backwards(void) {
    model_assert(!(seen[1][0] && !seen[1][1]));
}

/* ---- read-modify-writes ---------------------------------------------------------------------- */

static void add_atomically(void) {
    rt_fetch_add_relaxed(&x, 1);
}
static void add_in_two_steps(void) {
    rt_store_relaxed(&x, rt_load_relaxed(&x) + 1);
}
static void is_three(void) {
    model_assert(x == 3);
}

static void lock_and_count(void) {
    uint32_t unlocked = 0;
    while (!rt_cas_acquire(&x, &unlocked, 1)) {
        unlocked = 0;
        rt_cpu_relax();
    }
    data++;
    rt_store_release(&x, 0);
}
static void is_counted(void) {
    model_assert(data == 2);
}
static void lock_badly(void) {
    uint32_t unlocked = 0;
    while (!rt_cas_acquire(&x, &unlocked, 1)) {
        unlocked = 0;
        rt_cpu_relax();
    }
    data++;
    rt_store_relaxed(&x, 0);
}

static union {
    struct {
        uint32_t lo, hi;
    };
    uint64_t both;
} pair __attribute__((aligned(8)));

/* One store of eight bytes to two words: who sees the one half sees the other. */
static void pair_write(void) {
    rt_store_relaxed(&pair.lo, 1);
    rt_store_release(&pair.both, UINT64_C(2) << 32 | 2);
}
static void pair_read(void) {
    if (rt_load_acquire(&pair.lo) == 2)
        model_assert(rt_load_relaxed(&pair.hi) == 2);
}

/* ---- sleeping and spinning ------------------------------------------------------------------- */

static void futex_wake(void) {
    rt_store_relaxed(&x, 1);
    rt_sys_futex_wake(&x, 1);
}
static void futex_wait(void) {
    while (rt_load_relaxed(&x) == 0)
        rt_sys_futex_wait(&x, 0, -1);
}
static void futex_wake_too_early(void) {
    rt_sys_futex_wake(&x, 1);
    rt_store_relaxed(&x, 1);
}
static void spin_for_y(void) {
    while (rt_load_relaxed(&y) == 0)
        rt_cpu_relax();
    rt_store_relaxed(&x, 1);
}
static void spin_for_x(void) {
    while (rt_load_relaxed(&x) == 0)
        rt_cpu_relax();
}
static void spin_a_while(void) {
    for (int i = 0; i < 50; i++) {
        if (rt_load_relaxed(&x))
            return;
        rt_cpu_relax();
    }
    seen[0][0] = 1;
}
static void may_give_up(void) {
    model_gives_up("spin_a_while");
}
static void never_gave_up(void) {
    model_assert(!seen[0][0]);
}

/* ---- plain memory ---------------------------------------------------------------------------- */

static char bytes[4];
static void write_byte(void) {
    bytes[model_self()]++;
}
static void write_first_byte(void) {
    bytes[0]++;
}
static void make_gone(void) {
    if (rt_load_acquire(&x))
        model_gone(&data, sizeof data);
}
static void write_after(void) {
    rt_store_release(&x, 1);
    data++;
}

/* Must be interrupted twice, and the other once between its two steps. */
static void twice(void) {
    for (int i = 0; i < 2; i++) {
        uint32_t before = rt_fetch_add(&x, 0);
        seen[0][0] += rt_fetch_add(&x, 0) != before;
    }
}
static void add_twice(void) {
    rt_fetch_add(&x, 1);
    rt_fetch_add(&x, 1);
}
static void not_twice(void) {
    model_assert(seen[0][0] < 2);
}

#define GOOD(n, at_end, ...) \
    { .name = (n), .thread = {__VA_ARGS__}, .end = (at_end), .bound = -1 }
#define BAD(n, at_end, text, ...) \
    { .name = (n), .thread = {__VA_ARGS__}, .end = (at_end), .bound = -1, .must_fail = (text) }

const struct model_case model_cases[] = {
    BAD("SB", not_both_zero, "not so", sb_none_x, sb_none_y),
    GOOD("SB+full+full", not_both_zero, sb_full_x, sb_full_y),
    GOOD("SB+light+heavy", not_both_zero, sb_light_x, sb_heavy_y),
    GOOD("SB+full+heavy", not_both_zero, sb_full_x, sb_heavy_y),
    BAD("SB+light+light", not_both_zero, "not so", sb_light_x, sb_light_y),
    BAD("SB+light+full", not_both_zero, "not so", sb_light_x, sb_full_y),
    BAD("SB+none+heavy", not_both_zero, "not so", sb_none_x, sb_heavy_y),
    BAD("SB+none+full", not_both_zero, "not so", sb_none_x, sb_full_y),
    BAD("SB+acq_rel", not_both_zero, "not so", sb_acq_rel_x, sb_acq_rel_y),
    GOOD("SB+sc", not_both_zero, sb_sc_x, sb_sc_y),
    BAD("SB+sc+relaxed_load", not_both_zero, "not so", sb_sc_relaxed_x, sb_sc_y),
    BAD("SB+rmw+relaxed_load", not_both_zero, "not so", sb_rmw_x, sb_rmw_y),
    GOOD("SB+rmw+sc_load", not_both_zero, sb_rmw_sc_x, sb_rmw_sc_y),

    GOOD("MP+release+acquire", NULL, mp_send_release, mp_receive_acquire),
    GOOD("MP+fence+fence", NULL, mp_send_fence, mp_receive_fence),
    GOOD("MP+fence+acquire", NULL, mp_send_fence, mp_receive_acquire),
    BAD("MP+relaxed+acquire", NULL, "data race", mp_send_relaxed, mp_receive_acquire),
    BAD("MP+release+relaxed", NULL, "data race", mp_send_release, mp_receive_relaxed),
    GOOD("MP+release+rmw+acquire", NULL, mp_send_release, mp_pass_on, mp_receive_passed_on),
    BAD("MP+release+store+acquire", NULL, "data race", mp_send_release, mp_overwrite,
        mp_receive_passed_on),
    GOOD("MP+atomic+release+acquire", NULL, mp_atomic_send_release, mp_atomic_receive_acquire),
    BAD("MP+atomic+relaxed+acquire", NULL, "not so", mp_atomic_send_relaxed,
        mp_atomic_receive_acquire),
    BAD("MP+atomic+release+relaxed", NULL, "not so", mp_atomic_send_release,
        mp_atomic_receive_relaxed),

    GOOD("WRC+release+acquire", NULL, write_x, wrc_pass_on, wrc_receive),
    BAD("WRC+relaxed", NULL, "not so", write_x, wrc_pass_on_relaxed, wrc_receive),
    BAD("IRIW+acquire", same_order_for_all, "not so", write_x, write_y, read_xy, read_yx),
    GOOD("IRIW+sc", same_order_for_all, write_x_sc, write_y_sc, read_xy_sc, read_yx_sc),
    GOOD("IRIW+full", same_order_for_all, write_x, write_y, read_xy_fence, read_yx_fence),
    GOOD("CoRR", never_backwards, write_x, read_xx),

    GOOD("add", is_three, add_atomically, add_atomically, add_atomically),
    BAD("add_in_two_steps", is_three, "not so", add_in_two_steps, add_atomically, add_atomically),
    GOOD("lock", is_counted, lock_and_count, lock_and_count),
    BAD("lock+relaxed_unlock", is_counted, "data race", lock_and_count, lock_badly),
    GOOD("pair", NULL, pair_write, pair_read),

    GOOD("futex", NULL, futex_wake, futex_wait),
    BAD("futex+wake_too_early", NULL, "deadlock", futex_wake_too_early, futex_wait),
    GOOD("spin", NULL, spin_for_x, futex_wake),
    BAD("spin_for_each_other", NULL, "deadlock", spin_for_x, spin_for_y),
    {.name = "spin_a_while", .init = may_give_up, .thread = {spin_a_while, futex_wake}},
    {.name = "spin_gives_up",
     .init = may_give_up,
     .thread = {spin_a_while, futex_wake},
     .end = never_gave_up,
     .must_fail = "not so"},

    GOOD("bytes", NULL, write_byte, write_byte, write_byte, write_byte),
    BAD("one_byte", NULL, "data race", write_first_byte, write_first_byte),
    BAD("gone", NULL, "", make_gone, write_after),

    {.name = "bound_3",
     .thread = {twice, add_twice},
     .end = not_twice,
     .must_fail = "not so",
     .bound = 3},
    {.name = "bound_2", .thread = {twice, add_twice}, .end = not_twice, .bound = 2},
    {0},
};
