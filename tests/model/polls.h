/* polls.h - what hangs on an M, in the place of netpoll/uring.c: a poll is armed on the ring of an
 * M that may just lose its P; then who armed it has seen that, or who comes after has found it. */
#ifndef MODEL_POLLS_H
#define MODEL_POLLS_H

#include "machine.h"

#include "sched/poller.h"

static uint32_t polls_armed[MS]; /* on the ring of each M */
static bool polls_kept;          /* armed, and the P was still there */
static bool polls_found;         /* by who came after */

/* As uring_arm does; on a green thread. */
static inline void polls_arm(void) {
    struct rt_m *m = rt_m();
    rt_store_relaxed(&polls_armed[m->index], 1);
    rt_fence_light();
    polls_kept = !rt_gate_is_shut(m);
}

static void polls_adopt(struct rt_m *m, struct rt_m *from, struct rt_glist *ready) {
    (void)m, (void)ready;
    polls_found = rt_load_relaxed(&polls_armed[from->index]);
}
static void polls_hand_on(struct rt_m *m, struct rt_glist *ready) {
    polls_adopt(NULL, m, ready);
}

static bool polls_pending(struct rt_m *m) {
    (void)m;
    return false;
}
static void polls_poll(struct rt_m *m, bool hungry, struct rt_glist *ready) {
    (void)m, (void)hungry, (void)ready;
}
static enum rt_sleep_mode polls_sleep_mode(struct rt_m *m) {
    (void)m;
    return RT_SLEEP_FUTEX;
}
static const struct rt_poller polls = {.pending = polls_pending,
                                       .poll = polls_poll,
                                       .sleep_mode = polls_sleep_mode,
                                       .adopt = polls_adopt,
                                       .hand_on = polls_hand_on};

/* m had the P, and has it no more. */
static inline void polls_are_not_lost(void) {
    model_assert(!polls_kept || polls_found);
}

#endif
