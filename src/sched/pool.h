/* pool.h - threads for what blocks: go_blocking, and what src/io gives them. */
#ifndef RT_POOL_H
#define RT_POOL_H

#include "base/queue.h"
#include "sched/sched.h"

/* One call of fn(arg) on a thread of the pool. It lives in the frame of the green thread that waits
 * for it, or, with `drop`, in memory of its own. */
struct rt_job {
    void *(*fn)(void *);
    void *arg;
    void *result;
    /* NULL: once started it is waited for, whatever happens. Else whoever is cancelled meanwhile
     * goes on at once, and this gets the job when it is over, on the thread of the pool. */
    void (*drop)(struct rt_job *job);
    /* Under the lock of the pool. */
    struct rt_node node; /* in the queue; next == NULL: it is not */
    struct rt_g *g;      /* who waits; NULL: nobody any more */
    uint64_t seq;        /* of its park */
    int err;             /* 0, or why fn was not called */
    bool over;
};

/* Have job->fn called, and park until it has returned: on a green thread alone. 0, and the result
 * is in the job. Otherwise fn was not called, or is of no interest any more: -ECANCELED, -ETIMEDOUT
 * by the scope; -ENOMEM; -EAGAIN, there is no thread. Then a job with `drop` was given to it, or
 * will be: it is not the caller's any more. */
int rt_pool_run(struct rt_job *job);

struct rt_pool_counts {
    unsigned threads; /* busy and idle */
    unsigned queued;  /* jobs that no thread has taken */
    unsigned waits;   /* green threads that wait for a job */
    unsigned orphans; /* jobs that run and that nobody waits for */
};
struct rt_pool_counts rt_pool_counts(void);

/* Is the calling thread one of the pool? While the runtime runs or stops. */
bool rt_pool_is_ours(void);

/* No thread yet. Then, without jobs: end them all. */
void rt_pool_start(void);
void rt_pool_stop(void);

extern int64_t rt_pool_keep_ns; /* how long an idle thread stays; tests change it */

#endif
