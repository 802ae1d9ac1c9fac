/* gort/time.h - the clock and sleeping. */
#ifndef GORT_TIME_H
#define GORT_TIME_H

#include <gort/base.h>

GO_BEGIN_DECLS

/* Nanoseconds of CLOCK_MONOTONIC: the clock of every deadline. Never parks, any thread. */
GO_API int64_t go_now(void);

/* Sleep for ns nanoseconds (<= 0: only look whether the scope is cancelled, and yield). Parks.
 * Never returns early with 0. 0; -ECANCELED or -ETIMEDOUT from the scope. */
GO_API int go_sleep(int64_t ns);

GO_END_DECLS

#endif
