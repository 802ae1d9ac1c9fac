/* gort/gen.h - generators: functions that hand out one value after another, on demand.
 *
 * A generator has a stack of its own, and runs as whoever asks it for a value: its id, locals,
 * scope, deadline and cancellation are the caller's, and when it parks, the caller parks. There is
 * no scheduler in between: go_gen_next is a function call that goes on where the generator's last
 * go_gen_yield stopped. It may be passed on between two calls, to another green thread or a foreign
 * one, also on another OS thread: what is per thread (errno, pthread locals) may change at a yield,
 * as it does at a park.
 *
 *   static void count(go_gen *g, void *arg) {
 *       for (intptr_t i = 0; i < (intptr_t)arg; i++)
 *           go_gen_yield(g, (void *)i);
 *   }
 *   go_gen *g = go_gen_new(count, (void *)10);
 *   for (void *v; go_gen_next(g, &v) == 0;)
 *       use(v);
 *   go_gen_close(g);
 *
 * Misuse aborts with one line: two who use a generator at once, one that asks itself, a yield
 * elsewhere than in its function or the functions that this calls, a scope or group that is entered
 * inside and not left before a yield or the end. In a forked child: see gort.h. */
#ifndef GORT_GEN_H
#define GORT_GEN_H

#include <gort/base.h>

GO_BEGIN_DECLS

typedef struct go_gen go_gen;

/* A generator that will run fn(g, arg) from the first go_gen_next on. It takes a stack of the
 * default size at once, and counts as a green thread for max_tasks until it is closed. Never parks,
 * any thread. NULL when fn is NULL, at a limit, out of memory, or when the runtime is not running;
 * of the stopping one, only its green threads get any. Close it before the runtime is stopped: a
 * stop frees all stacks. */
GO_API go_gen *go_gen_new(void (*fn)(go_gen *g, void *arg), void *arg);

/* Run g until it yields; *value (may be NULL) becomes what it yielded. Its go_gen_yield has
 * returned NULL. Parks when the generator parks. Any thread, one at a time.
 * Returns 0; -EPIPE when its function has returned (*value is NULL then), and always from then on;
 * -EINVAL when g is NULL. */
GO_API int go_gen_next(go_gen *g, void **value);

/* As next, and its go_gen_yield returns `in`. The first one has no yield to return from: its `in`
 * is dropped. */
GO_API int go_gen_send(go_gen *g, void *in, void **value);

/* Inside the generator: hand out value, and wait for the next go_gen_next (returns NULL),
 * go_gen_send (returns its `in`) or go_gen_close (returns NULL, and go_gen_closed says 1). Goes on
 * as whoever made that call. On any other stack than g's it aborts. NULL is not looked for, and is
 * a SIGSEGV. */
GO_API void *go_gen_yield(go_gen *g, void *value);

/* Inside the generator: 1 when it was closed and has to clean up and return, else 0. Elsewhere 0 as
 * long as g is there. NULL is a SIGSEGV, as above. */
GO_API int go_gen_closed(go_gen *g);

/* End g and free it. One that was never asked is not run. One that waits in a yield goes on once
 * with go_gen_closed() = 1, and aborts when it yields again. Parks when the generator parks. Any
 * thread; it must not be running. NULL is allowed. Returns 0. */
GO_API int go_gen_close(go_gen *g);

GO_END_DECLS

#endif
