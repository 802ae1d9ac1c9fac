/* retake.h - a P is taken from a thread that does not come back, and what that thread does then.
 * The protocol is in retake.c. */
#ifndef RT_RETAKE_H
#define RT_RETAKE_H

#include "sched/gate.h"
#include "sched/sched.h"

/* What sysmon remembers of each P; zeroes at first. */
struct rt_hog {
    uint64_t progress;
    int64_t since;  /* when that was first seen */
    int64_t warned; /* when its G was asked to give way; 0: it was not */
    int64_t cpu;    /* what its thread had used by then */
    bool told;      /* go_on_long_run has been */
};

/* sysmon, at each tick, for a P whose M is awake: has its G hogged it while something waits? Then
 * ask it to give way, and a little later take the P. Returns in how many ns to look again;
 * INT64_MAX: with the next tick. */
int64_t rt_retake_look(struct rt_p *p, struct rt_hog *h, int64_t now);
/* sysmon, after that: the next spare is started before it is needed, as long as so many more
 * threads may be. */
enum { RT_ROOM_FOR_A_SPARE = 16 };
void rt_retake_spare(void);

/* Give p to a spare M, if its G has made no other progress than that. False: not now. */
bool rt_retake(struct rt_p *p, uint64_t progress);

/* For chaos: the P of this thread, which is outside, goes to a spare. */
void rt_retake_own(const struct rt_m *m);

/* It changes when a slice begins, and when a G parks. */
static inline uint64_t rt_progress_any(const struct rt_p *p) {
    return rt_load_relaxed(&p->ticks) + rt_load_relaxed(&p->parks);
}

/* Ms whose P was taken and whose G runs on or sleeps in the kernel. Any thread. */
uint32_t rt_retake_away(void);
/* Is one of them not locked to its thread, so that it gives way at its next checkpoint? */
bool rt_retake_owed(void);

/* Threads of Ms, whatever they do. Any thread. */
uint32_t rt_retake_threads(void);

/* m has lost its P, and its G has left it: serve as a spare. Own thread, outside, scheduler stack.
 * True: it has a P. False: the runtime stops, it is not needed, or it cannot be one. */
bool rt_spare_wait(struct rt_m *m);
void rt_spares_start(void);
/* m cannot have what a spare needs; on its own thread, which ends. */
void rt_spare_failed(const struct rt_m *m, int err);

/* For procs.c, on sysmon. Spares that are there, or will be. */
uint32_t rt_spares_there(void);
/* One more; it comes later. 0 or -errno. */
int rt_spare_start(void);
/* How many have given back their place and their thread; asked before rt_spare_start. After it: was
 * one counted as gone that had not? Then -EAGAIN is not the last word. */
uint32_t rt_spares_given_back(void);
bool rt_spares_ending(uint32_t given_back);
/* A change begins, which has this number; and of those that were started since then, can one not
 * begin, and why: 0 or -errno. */
uint32_t rt_spares_change(void);
int rt_spares_failed(uint32_t change);
/* n of them, through next_spare; NULL: there are not so many yet. */
struct rt_m *rt_spares_take(uint32_t n);
extern int64_t rt_spare_keep_ns; /* how long one without work stays; tests make it less */
/* The runtime stops: all spares end. */
void rt_spares_end(void);

/* A G without a P, which holds no lock, queues for one: another M goes on with it, and this thread
 * becomes a spare. Returns the M that it runs on now, inside. */
struct rt_m *rt_regain(struct rt_m *m);

/* Enter the runtime and insist on a P; on a green thread that holds no lock. */
static inline __attribute__((always_inline)) struct rt_m *rt_enter_with_p(struct rt_m *m) {
    struct rt_m *in = rt_gate_enter(m);
    return rt_likely(in != NULL) ? in : rt_regain(m);
}

/* In the scheduler loop of m, whose G has just left it, without a P: is there one that regains? */
void rt_retake_left(struct rt_m *m);

#endif
