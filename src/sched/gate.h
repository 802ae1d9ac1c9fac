/* gate.h - the biased lock around a P: free for its owner, dear for everybody else.
 *
 * Promise: between rt_gate_try(m) == true and rt_gate_open(m), m's thread is not inside the runtime
 * and does not get in, so the caller may use m->p as if it held it. At most one caller at a time.
 *
 *   owner, entering:  in_rt = 1;  light fence;  read gate     (1: step back, wait, begin again)
 *   thief, sees it outside:
 *                     gate = 1;   heavy fence;  read in_rt    (1: give it a moment, else give up)
 *
 * Either the owner sees the gate closed or the thief sees the owner inside: the two cannot miss
 * each other. The heavy fence is membarrier(2), so the owner pays a store, a load and a branch.
 * Asymmetric Dekker: D. Dice, M. Moir, W. Scherer, "Quickly reacquirable locks" (2010); the same
 * idea protects the entries of a language runtime in Java's biased locking and in .NET's
 * suspension.
 *
 * What passes from owner to thief and back: the owner's stores before in_rt = 0 (release) are seen
 * by a thief that reads 0 (acquire); the thief's before gate = 0 (release) by an owner that reads 0
 * (acquire).
 *
 * A gate may stay shut for good (rt_gate_shut): then the P is somebody else's from there on, and
 * the owner, when it comes, gets NULL and goes on without one (retake.c). The owner pays nothing
 * for that: it is on the far side of the branch that it has anyway.
 *
 * A thief never waits for ever for an owner, because that one may be a thief itself, at our gate.
 * An owner does wait for a thief: a visit is short, and a thief holds one gate at a time and waits
 * for nothing inside. Rejected: a CAS on each pop (tokio, Go: 2 ns a time here, 5 on others), and
 * batches claimed into a private buffer (work in them cannot be stolen from a hog). */
#ifndef RT_GATE_H
#define RT_GATE_H

#include "sched/sched.h"

enum { RT_GATE_OPEN = 0, RT_GATE_VISITED = 1, RT_GATE_SHUT = 2 };

struct rt_m *rt_gate_wait(struct rt_m *m);

/* Own thread, outside. m: this thread may use its P now. NULL: it has none, and stays outside. */
static inline __attribute__((always_inline)) struct rt_m *rt_gate_enter(struct rt_m *m) {
    rt_store_relaxed(&m->in_rt, 1); /* ordered before the load by the light fence */
    rt_fence_light();
    if (rt_unlikely(rt_load_acquire(&m->gate) != 0)) /* pairs with the release in rt_gate_open */
        return rt_gate_wait(m);
    return m;
}

static inline __attribute__((always_inline)) void rt_gate_leave(struct rt_m *m) {
    rt_store_release(&m->in_rt, 0); /* pairs with the acquire in rt_gate_try */
}

/* Any other thread. */
bool rt_gate_try(struct rt_m *m);
void rt_gate_open(struct rt_m *m);
/* Instead of rt_gate_open: nobody gets in any more until it is opened. */
void rt_gate_shut(struct rt_m *m);

/* The M of p, whose gate the caller has passed; NULL. */
struct rt_m *rt_gate_try_p(struct rt_p *p);

/* Enter the runtime from a green thread. NULL: on a foreign thread, or on one whose P was taken,
 * which does as foreign ones do. */
static inline __attribute__((always_inline)) struct rt_m *rt_enter(void) {
    struct rt_m *m = rt_m();
    if (rt_likely(m != NULL))
        m = rt_gate_enter(m);
    return m;
}

/* Own thread, inside or outside: has its P been taken? Outside an answer "no" may be old. */
static inline bool rt_gate_is_shut(const struct rt_m *m) {
    return rt_load_acquire(&m->gate) == RT_GATE_SHUT; /* pairs with the release in rt_gate_shut */
}

#endif
