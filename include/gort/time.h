/* gort/time.h - the clock, sleeping, timers and tickers. In a forked child: see gort.h. */
#ifndef GORT_TIME_H
#define GORT_TIME_H

#include <gort/base.h>
#include <gort/chan.h>

GO_BEGIN_DECLS

/* Nanoseconds of CLOCK_MONOTONIC: the clock of every deadline. Never parks, any thread. */
GO_API int64_t go_now(void);

/* Sleep for ns nanoseconds (<= 0: only look whether the scope is cancelled, and yield). Parks.
 * Never returns early with 0. 0; -ECANCELED or -ETIMEDOUT from the scope; -ENOMEM when there is no
 * room for the timer. */
GO_API int go_sleep(int64_t ns);

/* A function that is called at a later time, once, on a green thread of its own. Until then it has
 * no stack, some 350 bytes in all, but counts as a green thread (go_stats, max_tasks). A stop of
 * the runtime cancels it: what has not begun by then never will. */
typedef struct go_timer go_timer;

/* Call fn(arg) in ns nanoseconds (<= 0: as soon as possible), never earlier. Every timer must be
 * given to go_timer_stop or go_timer_stop_wait once, before or after it has run, also after the
 * runtime was stopped. Never parks, any thread. NULL when fn is NULL, at the limit of green
 * threads, out of memory, or when the runtime is not running. */
GO_API go_timer *go_timer_after(int64_t ns, void (*fn)(void *), void *arg);

/* Stop t and free it. Never parks, any thread, also inside fn. -EINVAL when t is NULL. 0 when it
 * had not begun and never will; -EALREADY when it has, and then it may still be running; -ENXIO in
 * a forked child. */
GO_API int go_timer_stop(go_timer *t);

/* The same, and when fn is running wait until it has returned. Parks. Not cancellable: it is for
 * clean-up, when what fn uses is about to go. Further error: -EDEADLK inside fn (t stays valid). */
GO_API int go_timer_stop_wait(go_timer *t);

/* A channel (int64_t, capacity 1) that receives go_now() every period_ns nanoseconds, the first
 * time after one period. The times do not drift; a tick that finds the last one not yet received is
 * dropped. It needs no stack. To go_run it is somebody who sleeps: no deadlock is reported. When
 * the runtime stops the channel is closed; you may close it too, to end the ticks. Never parks, any
 * thread. NULL when period_ns <= 0, and as go_timer_after. */
GO_API go_chan *go_ticker_new(int64_t period_ns);

/* Stop the ticker and free its channel, on which nobody may wait. Never parks, any thread, also
 * after the runtime was stopped. NULL is allowed; another channel aborts, and so does go_chan_free
 * of a ticker's. */
GO_API void go_ticker_free(go_chan *c);

GO_END_DECLS

#endif
