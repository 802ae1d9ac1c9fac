/* read.h - a call on a descriptor, as io/rw.c makes it, whose system call is a model's. */
#ifndef MODEL_READ_H
#define MODEL_READ_H

#include "netpoll/fd.h"

#include <gort/time.h>

/* take(op) is the system call: its result, or -EAGAIN. */
static inline int read_by(int fd, int (*take)(const struct rt_fd_op *op)) {
    struct rt_fd_op op;
    int r = rt_fd_begin(&op, fd);
    if (r)
        return r;
    for (;;) {
        r = -EAGAIN;
        if (rt_fd_fresh(&op, RT_IN)) {
            r = take(&op);
            if (r == -EAGAIN)
                rt_fd_drained(&op, RT_IN);
        }
        if (r != -EAGAIN)
            break;
        r = rt_fd_wait(&op, POLLIN, GO_FOREVER, RT_WHY_IO_READ);
        if (r != 0)
            break;
    }
    rt_fd_end(&op);
    return r;
}

#endif
