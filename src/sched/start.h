/* start.h - is the runtime there? And may a foreign thread come in? */
#ifndef RT_START_H
#define RT_START_H

#include "sched/sched.h"

#include <errno.h>

int rt_not_running(void); /* the reason: -ENXIO or -ESHUTDOWN */

/* May new green threads be made? 0 or -errno. */
static inline int rt_running(void) {
    return rt_likely(rt_load_relaxed(&rt.state) == RT_RUNNING) ? 0 : rt_not_running();
}

/* A foreign thread that touches the scheduler holds a reference, which the stop waits for: 0 or the
 * reason why it may not. */
int rt_foreign_enter(void);
/* The same for who ends the waits of others on a descriptor, and waits for nothing: also while the
 * runtime stops, until no green thread is left. */
int rt_foreign_enter_to_close(void);
void rt_foreign_leave(void);

/* go_start, and the number of this start, unless NULL. How many there have been; set before
 * rt.state says RUNNING. */
int rt_start(const struct go_options *opt, uint32_t *number);
extern uint32_t rt_starts;

/* go_stop in two steps, of which the first does not wait. number: of the only start that shall be
 * stopped, 0: any. 0, and rt_stop_end must follow, which returns 0 or -ETIMEDOUT; -ENXIO: nothing
 * runs, or another start; -EALREADY: another thread is between the two; -EDEADLK. */
int rt_stop_begin(uint32_t number);
int rt_stop_end(int64_t grace_ns);

/* Green threads that have not ended; never too few. Any thread, while the runtime is there. */
uint64_t rt_live(uint64_t *spawned, uint64_t *ended);

/* In a forked child: the locks of waiting objects start anew (src/sync/lot.c), those of the list of
 * locals (src/task/local.c) and of the hook (long_run.c), and, when no runtime was there, the count
 * of who shares one (share.c), and the lock of the pool. */
void rt_lot_fork_child(void);
void rt_local_fork_child(void);
void rt_share_fork_child(void);
void rt_pool_fork_child(void);
void rt_long_run_fork_child(void);

/* Nobody runs: is the mutex whose lock this is held by the green thread of that id?
 * src/sync/mutex.c. */
bool rt_mutex_held(const uint32_t *lock, uint64_t id);

/* Every green thread is parked for ever (sysmon.c): end go_run. */
void rt_start_deadlock(void);

#endif
