/* signal.c - waiting for a signal: a signalfd for the length of the call. Signals that are blocked
 * stay pending in the process, so none is lost between two calls, and one that is cancelled has
 * taken none. */
#include "base/sys_io.h"
#include "io/adopt.h"

#include <gort/io.h>
#include <sys/signalfd.h>

/* But for those that nobody can wait for. */
static bool is_empty(const sigset_t *set) {
    for (int n = 1; n < NSIG; n++)
        if (n != SIGKILL && n != SIGSTOP && sigismember(set, n) == 1)
            return false;
    return true;
}

int go_signal_wait(const sigset_t *set) {
    struct signalfd_siginfo info;
    if (!set || is_empty(set))
        return -EINVAL;
    int err = rt_m() == NULL && rt_running() ? -ENXIO : rt_cancel_check(rt_self());
    if (err)
        return err;
    int fd = rt_adopt(rt_sys_signalfd(set), RT_FD_OURS);
    if (fd < 0)
        return fd;
    ssize_t n = go_read(fd, &info, sizeof info);
    go_close(fd);
    return n < 0 ? (int)n : (int)info.ssi_signo;
}
