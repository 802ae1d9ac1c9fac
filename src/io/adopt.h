/* adopt.h - the table is told of a descriptor that was made on behalf of a call. */
#ifndef RT_ADOPT_H
#define RT_ADOPT_H

#include "base/sys_io.h"
#include "netpoll/fd.h"

/* fd, or -errno, and then it is closed. An fd below 0 stays what it is. For a green thread, and for
 * a foreign one without a reference: when the runtime stops just now, its table is not told. */
static inline int rt_adopt(int fd, unsigned flags) {
    bool thread = rt_m() == NULL;
    if (fd < 0 || (thread && rt_foreign_enter() != 0))
        return fd;
    int err = rt_fd_adopt(fd, flags);
    if (err)
        rt_sys_close(fd);
    if (thread)
        rt_foreign_leave();
    return err ? err : fd;
}

#endif
