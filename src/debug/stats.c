/* stats.c - counters and facts. */
#include "sched/poller.h"
#include "sched/pool.h"
#include "sched/globq.h"
#include "sched/retake.h"
#include "sched/runq.h"
#include "sched/sched.h"
#include "sched/stack.h"
#include "sched/start.h"

#include <gort/debug.h>
#include <string.h>

#ifndef GORT_VERSION
#define GORT_VERSION "0.1.0"
#endif

static void count(struct go_stats *s) {
    s->procs = rt_procs();
    struct rt_pool_counts pool = rt_pool_counts();
    s->threads = rt_retake_threads() + 1 + pool.threads; /* one is sysmon */
    s->blocking_threads = pool.threads;
    s->blocking_queued = pool.queued;
    s->runnable = rt_globq_size();
    for (uint32_t i = 0, n = rt_load_relaxed(&rt.procs_ever); i < n; i++) {
        struct rt_p *p = &rt.ps[i];
        s->parks += rt_load_relaxed(&p->parks);
        s->steals += rt_load_relaxed(&p->steals);
        s->polls += rt_load_relaxed(&p->polls);
        s->runnable += rt_runq_len_any(p) + (rt_load_relaxed(&p->runnext) != NULL);
    }
    for (uint32_t i = 0, n = rt_load_relaxed(&rt.nms); i < n; i++)
        s->wakes += rt_load_relaxed(&rt.ms[i].wakes);
    s->parks += rt_load_relaxed(&rt.nobody->parks);
    s->tasks_live = rt_live(&s->spawned, &s->ended);
    rt_stack_stats(&s->stacks_mapped, &s->stacks_cached);
    if (rt_poller) {
        s->netpoll = rt_poller->name;
        s->netpoll_why = rt_poller_why;
        s->fd_waits = rt_poller->waits();
    }
}

int go_stats(struct go_stats *out) {
    if (!out || out->size < sizeof(size_t) || out->size > sizeof *out)
        return -EINVAL;
    bool foreign = rt_m() == NULL;
    int err = foreign ? rt_foreign_enter() : 0;
    if (err)
        return err;
    struct go_stats s = {.size = out->size};
    count(&s);
    memcpy(out, &s, out->size);
    if (foreign)
        rt_foreign_leave();
    return 0;
}

const char *go_version(void) {
    return GORT_VERSION;
}
