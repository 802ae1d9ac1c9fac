/* process.c - the end of a child process.
 *
 * A pidfd becomes readable when its process has ended, so the wait is one for a descriptor, and the
 * child is reaped by a wait4(2) that does not block. Until then nobody else has its number: it
 * stays a zombie, unless the host reaps it, which shows as -ECHILD. Where the kernel has no pidfd
 * (before Linux 5.3, or a seccomp filter that does not know it) a thread of the pool waits. */
#include "base/sys.h"
#include "base/sys_io.h"
#include "io/adopt.h"

#include <gort/io.h>
#include <gort/time.h>
#include <poll.h>

struct wait {
    pid_t pid;
    int *status;
    int r;
};

static void *wait_blocking(void *arg) {
    struct wait *w = arg;
    w->r = rt_sys_wait(w->pid, w->status, true);
    return NULL;
}

static int wait_on_thread(pid_t pid, int *status) {
    struct wait w = {.pid = pid, .status = status};
    int err = go_blocking(wait_blocking, &w, NULL);
    return err ? err : w.r;
}

static int wait_for(int fd, pid_t pid, int *status) {
    int64_t nap = GO_MILLISECOND;
    for (;;) {
        int r = go_poll(fd, POLLIN);
        if (r > 0)
            r = rt_sys_wait(pid, status, false);
        if (r == 0) /* it has ended, but its tracer has not seen that yet: nothing tells */
            r = go_sleep(nap);
        if (r != 0)
            return r;
        nap = nap * 2 < 100 * GO_MILLISECOND ? nap * 2 : nap;
    }
}

int go_wait_pid(pid_t pid, int *status) {
    if (pid <= 0)
        return -EINVAL;
    int r = rt_m() == NULL && rt_running() ? -ENXIO : rt_cancel_check(rt_self());
    if (r)
        return r;
    r = rt_sys_wait(pid, status, false);
    if (r == 0) {
        int fd = rt_adopt(rt_sys_pidfd(pid), RT_FD_OURS);
        if (fd >= 0) {
            r = wait_for(fd, pid, status);
            go_close(fd);
        } else if (fd == -ENOSYS || fd == -EPERM) {
            r = wait_on_thread(pid, status);
        } else {
            r = fd == -ESRCH ? -ECHILD : fd; /* reaped by somebody else just now */
        }
    }
    return r > 0 ? 0 : r;
}
