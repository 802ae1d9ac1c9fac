/* polls.h - what hangs on an M, in the place of netpoll/uring.c: a poll is armed on the ring of an
 * M that may just lose its P; then it was not armed, or who comes after has found it. */
#ifndef MODEL_POLLS_H
#define MODEL_POLLS_H

#include "machine.h"

#include "sched/poller.h"

static uint32_t polls_ring[MS]; /* of each M: polls armed there; nobody else is at it */
static bool polls_armed;
static bool polls_found; /* by who came after */

/* As uring_arm does; on a green thread. */
static inline void polls_arm(void) {
    struct rt_m *m = rt_enter();
    if (!m)
        return;
    uint32_t *ring = m->poller;
    *ring = 1;
    polls_armed = true;
    rt_gate_leave(m);
}

static int polls_m_start(struct rt_m *m) {
    m->poller = &polls_ring[m->index]; /* not the one it had, if it had one: nobody arms twice */
    return 0;
}
static void polls_adopt(struct rt_m *m, void *from, struct rt_glist *ready) {
    (void)m, (void)ready;
    polls_found = *(uint32_t *)from;
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
static const struct rt_poller polls = {.m_start = polls_m_start,
                                       .pending = polls_pending,
                                       .poll = polls_poll,
                                       .sleep_mode = polls_sleep_mode,
                                       .adopt = polls_adopt};

static inline void polls_on_all(void) {
    rt_poller = &polls;
    for (unsigned i = 0; i < MS; i++)
        polls_m_start(&ms[i]);
}

/* m had the P, and has it no more. */
static inline void polls_are_not_lost(void) {
    model_assert(!polls_armed || polls_found);
}

#endif
