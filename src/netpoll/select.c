/* select.c - which netpoll engine runs, and why.
 *
 * "auto" takes io_uring where it works and goes on with epoll where it does not, which is common:
 * the default seccomp filters of containers refuse it, and some distributions switch it off. It
 * never fails because of io_uring, and rt_poller_why keeps the reason for go_stats. A name that was
 * asked for is taken at its word: its error is the caller's. */
#include "base/log.h"
#include "netpoll/engines.h"
#include "netpoll/fd.h"
#include "netpoll/ring.h"

#include <stdio.h>
#include <string.h>

static char why[160];

void rt_poller_evict(void); /* sched/poller.h will say so */

static const char *reason(int err) {
    switch (err) {
    case -EPERM:
    case -EACCES:
        return "refused by seccomp, a security module or kernel.io_uring_disabled";
    case -ENOSYS:
        return "not in this kernel, or hidden by seccomp";
    case -EINVAL:
        return "kernel older than 6.1";
    case -EOPNOTSUPP:
        return "kernel without a feature that is needed";
    default:
        return "out of a resource";
    }
}

static int start_engine(const struct rt_poller *engine, unsigned procs) {
    int err = engine->start(procs);
    if (err == 0)
        rt_poller = engine;
    return err;
}

static int start_auto(unsigned procs) {
    int err = start_engine(&rt_uring_poller, procs);
    if (err == 0) {
        rt_poller_why = "io_uring works here";
        return 0;
    }
    snprintf(why, sizeof why, "io_uring: %s (%s)", strerror(-err), reason(err));
    rt_poller_why = why;
    return start_engine(&rt_epoll_poller, procs);
}

int rt_poller_start(const char *name, unsigned procs) {
    int err = rt_fd_start(rt.max_ms);
    if (err)
        return err;
    rt_poller_why = "asked for by name";
    if (!strcmp(name, "auto"))
        err = start_auto(procs);
    else if (!strcmp(name, "uring"))
        err = start_engine(&rt_uring_poller, procs);
    else if (!strcmp(name, "epoll"))
        err = start_engine(&rt_epoll_poller, procs);
    else
        err = -EINVAL;
    if (err)
        rt_fd_stop();
    return err;
}

void rt_poller_evict(void) {
    rt_fd_evict_foreign();
}

void rt_poller_stop(void) {
    rt_poller->stop();
    rt_poller = NULL;
    rt_fd_engine = NULL;
    rt_fd_stop();
}
