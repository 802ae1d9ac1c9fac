/* gort/chan.h - channels: typed by the size of their elements, shared by green and other threads.
 *
 * A channel needs no running runtime: threads may use one before go_start and after go_stop. */
#ifndef GORT_CHAN_H
#define GORT_CHAN_H

#include <gort/base.h>

GO_BEGIN_DECLS

typedef struct go_chan go_chan;

/* A channel of elements of elem_size bytes (0: signals only). capacity 0 means rendezvous: a send
 * waits for its receiver. NULL when out of memory or when elem_size * capacity overflows. */
GO_API go_chan *go_chan_new(size_t elem_size, size_t capacity);

/* Free c, and drop what is buffered. Aborts when somebody waits on it. NULL is allowed. */
GO_API void go_chan_free(go_chan *c);

/* Send *elem (may be NULL when elem_size is 0). Parks until there is room or a receiver.
 * Returns 0; -EPIPE when c is or becomes closed; -ECANCELED, -ETIMEDOUT from the scope, and then
 * nothing was sent. A NULL channel aborts. */
GO_API int go_chan_send(go_chan *c, const void *elem);

/* Receive into *elem (may be NULL: drop the value). Parks until there is something.
 * Returns 0; -EPIPE when c is closed and drained (elem is zeroed); -ECANCELED, -ETIMEDOUT from the
 * scope, and then nothing was taken. A NULL channel aborts. */
GO_API int go_chan_recv(go_chan *c, void *elem);

/* As send and recv but they never park: -EAGAIN when they would have to. Not cancellable. */
GO_API int go_chan_try_send(go_chan *c, const void *elem);
GO_API int go_chan_try_recv(go_chan *c, void *elem);

/* Close c: senders, also parked ones, get -EPIPE; receivers drain what is buffered, then get
 * -EPIPE. Returns 0, -EALREADY when it was closed. Never parks. */
GO_API int go_chan_close(go_chan *c);

/* Elements buffered now, and room for how many in all. */
GO_API size_t go_chan_len(const go_chan *c);
GO_API size_t go_chan_cap(const go_chan *c);

GO_END_DECLS

#endif
