/* gort/chan.h - channels: typed by the size of their elements, shared by green and other threads.
 *
 * A channel needs no running runtime: threads may use one before go_start and after go_stop. In a
 * forked child: see gort.h. */
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
 * Returns 0; -EPIPE when c is or becomes closed; -ECANCELED, -ETIMEDOUT from the scope, -ENOMEM
 * when there is no room for the timer of its deadline, and then nothing was sent. A NULL channel
 * aborts. */
GO_API int go_chan_send(go_chan *c, const void *elem);

/* Receive into *elem (may be NULL: drop the value). Parks until there is something.
 * Returns 0; -EPIPE when c is closed and drained (elem is zeroed); -ECANCELED, -ETIMEDOUT from the
 * scope, -ENOMEM as above, and then nothing was taken. A NULL channel aborts. */
GO_API int go_chan_recv(go_chan *c, void *elem);

/* As send and recv but they never park: -EAGAIN when they would have to. Not cancellable. A NULL
 * channel aborts. */
GO_API int go_chan_try_send(go_chan *c, const void *elem);
GO_API int go_chan_try_recv(go_chan *c, void *elem);

/* Close c: senders, also parked ones, get -EPIPE; receivers drain what is buffered, then get
 * -EPIPE. Returns 0, -EALREADY when it was closed. Never parks. A NULL channel aborts. */
GO_API int go_chan_close(go_chan *c);

/* Elements buffered now, and room for how many in all; both 0 for NULL. Never park. */
GO_API size_t go_chan_len(const go_chan *c);
GO_API size_t go_chan_cap(const go_chan *c);

/* A descriptor that polls as readable (POLLIN) while c has something to receive: a value, a sender
 * that waits, or the end of a closed channel. For the event loop of a host program, which then
 * calls go_chan_try_recv until that says -EAGAIN. It belongs to c: made by the first call, the same
 * in every later one, closed by go_chan_free; never read, write or close it, and do not use such a
 * channel in a forked child. A channel that has one pays a system call each time it becomes
 * readable or stops being so.
 * Returns the descriptor (close-on-exec); -EMFILE, -ENFILE, -ENOMEM. Never parks, any thread. A
 * NULL channel aborts. */
GO_API int go_chan_fd(go_chan *c);

/* One case of a select. Made by the initialisers below, as in
 *     struct go_case cases[] = {GO_CASE_RECV(in, &value), GO_CASE_SEND(out, &answer)};
 *     cases[1] = (struct go_case)GO_CASE_SEND(other, &answer); */
struct go_case {
    go_chan *chan; /* NULL: never ready */
    void *elem;    /* as for go_chan_send and go_chan_recv; read or written when the case happens */
    int send;
    int result;    /* of the case that happened: 0, or -EPIPE: the channel was closed */
};
#define GO_CASE_SEND(chan, ptr) {(chan), (void *)(uintptr_t)(ptr), 1, 0}
#define GO_CASE_RECV(chan, ptr) {(chan), (ptr), 0, 0}

/* Wait until one of the n cases can be done, do it, and return its index. When several can, each
 * has the same chance. A case on a closed channel can always be done: its result is -EPIPE (a
 * receive drains what is buffered first; then *elem is zeroed). A channel may be in several cases,
 * in both directions, too: a select never meets itself. n = 0, or none but NULL channels: waits for
 * the deadline or the scope; cases may be NULL when n is 0.
 * deadline: absolute; GO_FOREVER: none; GO_NOW: do not wait. Parks, any thread.
 * The cases and what they point to must stay until it has returned, and so must the channels, but
 * for the one whose case happens: that may be freed by whoever made it happen.
 * Without waiting it costs a few loads for each case and one operation on a channel; each wait
 * takes the locks of all the channels, in the order of their addresses.
 * Returns the index; -EAGAIN: none could be done, with GO_NOW; -ETIMEDOUT: past the deadline;
 * -ECANCELED from the scope, also for the scope's deadline; -ENOMEM when it has to wait for, or has
 * polled in vain, more than 8 cases, or has a deadline; -EINVAL when n is above INT_MAX. Unless it
 * is an index nothing was sent or received, and no result was written. */
GO_API int go_select(struct go_case *cases, size_t n, int64_t deadline);

GO_END_DECLS

#endif
