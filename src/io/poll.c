/* poll.c - waiting for readiness alone, and the end of a descriptor.
 *
 * go_poll answers from poll(2) at that moment and parks only when it says nothing: so what it
 * returns is never an event of the past. */
#include "base/sys.h"
#include "base/sys_io.h"
#include "io/poll.h"

#include <gort/io.h>

int rt_poll_until(struct rt_fd_op *op, unsigned mask, int64_t deadline) {
    enum rt_why why = rt_poll_why(mask);
    for (;;) {
        rt_fd_fresh(op, RT_IN);
        rt_fd_fresh(op, RT_OUT);
        int ready = rt_sys_fd_ready(op->fd, (short)mask);
        if (ready != 0)
            return ready;
        if (deadline != GO_FOREVER && (deadline == GO_NOW || rt_sys_now() >= deadline))
            return -ETIMEDOUT;
        int err = rt_fd_wait(op, mask, deadline, why);
        if (err)
            return err;
    }
}

int go_poll(int fd, short events) {
    struct rt_fd_op op;
    int r = rt_fd_begin(&op, fd);
    if (r == 0) {
        r = rt_poll_until(&op, rt_poll_mask(events), GO_FOREVER);
        rt_fd_end(&op);
    }
    return r;
}

int go_poll_until(int fd, short events, int64_t deadline) {
    struct rt_fd_op op;
    int r = rt_fd_begin(&op, fd);
    if (r == 0) {
        r = rt_poll_until(&op, rt_poll_mask(events), deadline);
        rt_fd_end(&op);
    } else if (r == -ETIMEDOUT) {
        r = -ECANCELED; /* the scope's deadline, not ours */
    }
    return r;
}

/* Run on the table when there is one: a green thread has it, a foreign thread while it holds a
 * reference. While the runtime stops, too: some may be parked on fd yet, behind a shield, and open
 * the number anew. */
static bool table_enter(bool *thread) {
    *thread = rt_m() == NULL;
    return !*thread || rt_foreign_enter_to_close() == 0;
}

int go_close(int fd) {
    bool thread;
    if (!table_enter(&thread))
        return rt_sys_close(fd);
    int err = rt_fd_close(fd);
    if (thread)
        rt_foreign_leave();
    return err;
}

int go_forget(int fd) {
    bool thread;
    int open = rt_sys_fd_ready(fd, 0);
    if (open < 0)
        return open;
    if (!table_enter(&thread))
        return 0;
    rt_fd_forget(fd);
    if (thread)
        rt_foreign_leave();
    return 0;
}
