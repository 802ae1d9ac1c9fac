/* chan_fd.c - the descriptor by which somebody else's event loop sees a channel.
 *
 * An eventfd whose count is 1 while there is something to receive, and 0 otherwise. Who changes the
 * channel changes the count, under its lock: after the unlock the channel may be gone, and its
 * descriptor another file's. So a system call is made under the lock, but only at a change, and
 * only where somebody asked for a descriptor; RT_CHAN_FD sends such channels past the hot paths. */
#include "base/log.h"
#include "base/sys_io.h"
#include "sync/chan.h"

void rt_chan_fd_update(go_chan *c) {
    bool readable = rt_chan_recv_ready(c);
    if (readable == c->fd_readable)
        return;
    c->fd_readable = readable;
    if (readable)
        rt_sys_eventfd_add(c->fd);
    else
        rt_sys_eventfd_drain(c->fd);
}

void rt_chan_fd_close(go_chan *c) {
    rt_sys_close(c->fd);
}

int go_chan_fd(go_chan *c) {
    if (rt_unlikely(!c))
        rt_fatal("go_chan_fd: NULL channel");
    rt_lock(&c->lock);
    int fd = c->flags & RT_CHAN_FD ? c->fd : -1;
    rt_unlock(&c->lock);
    if (fd >= 0)
        return fd;
    int made = rt_sys_eventfd(true);
    if (made < 0)
        return made;
    rt_lock(&c->lock);
    if (!(c->flags & RT_CHAN_FD)) {
        c->fd = made;
        rt_store_relaxed(&c->flags, c->flags | RT_CHAN_FD);
        rt_chan_fd_update(c);
    }
    fd = c->fd;
    rt_unlock(&c->lock);
    if (fd != made) /* somebody else was first */
        rt_sys_close(made);
    return fd;
}
