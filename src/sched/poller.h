/* poller.h - what the scheduler needs of a netpoll engine. src/netpoll/{uring,epoll}.c implement
 * it; netpoll registers itself, so that sched never includes netpoll.
 *
 * All calls but wake and waits are made by a worker thread on its own scheduler stack, inside the
 * runtime, with a P unless said otherwise. None may park. Green threads whose wait is over are
 * claimed by the engine (rt_claim) and appended to `ready`; the scheduler queues them and wakes who
 * is needed, once, after the batch. */
#ifndef RT_POLLER_H
#define RT_POLLER_H

#include <stdbool.h>
#include <stdint.h>

struct rt_m;
struct rt_glist;

enum rt_sleep_mode {
    RT_AWAKE = 0,        /* the worker runs */
    RT_SLEEP_FUTEX = 1,  /* sleeps on its own futex word */
    RT_SLEEP_POLLER = 2, /* sleeps in the poller's sleep() */
};

struct rt_poller {
    const char *name;

    /* Before the first worker starts, and after the last has ended. 0 or -errno. */
    int (*start)(unsigned procs);
    void (*stop)(void);

    /* On the worker's own thread: before it gets a P, the first and each other one (0 or -errno;
     * nothing if it has m->poller still), and before it ends. */
    int (*m_start)(struct rt_m *m);
    void (*m_stop)(struct rt_m *m);

    /* Two plain loads: would poll() find completions or something that must be submitted by now? */
    bool (*pending)(struct rt_m *m);

    /* Does somebody wait in a call for what only m's poll() does? Then it is due although there is
     * more to do here already than it may bring. May be NULL. */
    bool (*urgent)(struct rt_m *m);

    /* Submit what waits and collect what is there; never waits. Called by the scheduler when it
     * runs out of work, every 61st pick and when pending(). `hungry`: nothing else is to be done,
     * so a system call is welcome; otherwise the engine limits how often it makes one. sysmon calls
     * it with m NULL, for engines whose events any thread may collect; the others do nothing then.
     * `hungry`: no M that is awake comes by. */
    void (*poll)(struct rt_m *m, bool hungry, struct rt_glist *ready);

    /* How should m sleep now? RT_SLEEP_POLLER obliges the scheduler to call sleep() or
     * sleep_undo(). */
    enum rt_sleep_mode (*sleep_mode)(struct rt_m *m);
    void (*sleep_undo)(struct rt_m *m);

    /* Submit, then wait until an event, wake(m), or timeout_ns (< 0: for ever). May return early.
     * dozes: it keeps to a time-out of some 10 us, too (idle.c). */
    bool dozes;
    void (*sleep)(struct rt_m *m, int64_t timeout_ns, struct rt_glist *ready);

    /* End the sleep() of m; any thread, once for each sleep. */
    void (*wake)(struct rt_m *m);

    /* When a P is taken from an M that runs on, or is put away (sched/retake.c, procs.c), m->poller
     * goes with it, and is NULL until m_start is called again; each of these may be NULL.
     * stuck: would what hangs on m want it to come by now? sysmon. adopt: `from` was the poller of
     * one that has lost its P: what was asked there is asked on m, or of others when m is NULL,
     * then on any thread and without a P. */
    bool (*stuck)(struct rt_m *m);
    void (*adopt)(struct rt_m *m, void *from, struct rt_glist *ready);

    /* Green threads parked on descriptors now. */
    uint64_t (*waits)(void);
};

/* Defined here by sched, set by src/netpoll/select.c. */
extern const struct rt_poller *rt_poller; /* the engine; valid while the runtime runs */
extern const char *rt_poller_why;         /* why it was chosen: a line for a log */

/* name: "auto", "uring", "epoll". Sets rt_poller and rt_poller_why and calls its start. 0 or
 * -errno: -EINVAL for an unknown name. "auto" falls back to epoll. Implemented in
 * src/netpoll/select.c. */
int rt_poller_start(const char *name, unsigned procs);
void rt_poller_stop(void);

/* Claim with -ECANCELED every foreign thread that is parked on a descriptor: the runtime stops. */
void rt_poller_evict(void);

#endif
