/* gort/scope.h - cancellation and deadlines.
 *
 * A scope lives on its user's stack. While it is entered, every call that parks looks, on entry and
 * while it waits, whether the scope or one around it is cancelled (-ECANCELED) or past its deadline
 * (-ETIMEDOUT). Level-triggered: so it stays until the scope is left. An operation that has
 * happened is reported as happened; the cancel is seen by the next call. Not cancellable: locks,
 * go_close, go_task_reap. Model: the cancel scopes of Trio (N. J. Smith, "Timeouts and cancellation
 * for humans", 2018). */
#ifndef GORT_SCOPE_H
#define GORT_SCOPE_H

#include <gort/base.h>

GO_BEGIN_DECLS

/* Fields are private. Must stay where it is while it is entered. */
typedef struct go_scope {
    struct go_scope *rt_parent;
    void *rt_owner;
    int64_t rt_deadline;      /* its own */
    int64_t rt_outer_limit;   /* the earliest of those around it */
    uint32_t rt_state;
    uint32_t rt_entered;
    uint32_t rt_level;        /* shields around it, itself included */
    uint32_t rt_reserved32;
    uint64_t rt_reserved[2];
} go_scope;

/* Enter s with an absolute deadline (GO_FOREVER for none). A deadline later than one around it has
 * no effect of its own. Never parks, any thread; each thread or green thread has its own chain. */
GO_API void go_scope_enter(go_scope *s, int64_t deadline);

/* The same, but nothing from outside reaches inside until s is left: no cancel and no deadline of a
 * scope around it, no go_task_cancel, and of a go_stop only the second half of its grace. Its own
 * deadline counts. For clean-up that has to wait, so give it a deadline. What was held off is there
 * again once s is left. */
GO_API void go_scope_enter_shielded(go_scope *s, int64_t deadline);

/* Leave s, which must be the innermost scope of the caller; anything else aborts with a message.
 * Returns 0; -ECANCELED when it was cancelled; -ETIMEDOUT when some call inside was refused for its
 * deadline. Never parks. */
GO_API int go_scope_leave(go_scope *s);

/* Cancel s: from any thread, while s is entered, and it must stay so until this has returned. Who
 * is parked inside is woken. Never parks. */
GO_API void go_scope_cancel(go_scope *s);

/* What a cancellable call would say now: 0, -ECANCELED or -ETIMEDOUT. Never parks, any thread. */
GO_API int go_canceled(void);

GO_END_DECLS

#endif
