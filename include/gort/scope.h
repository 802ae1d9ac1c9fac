/* gort/scope.h - cancellation, deadlines, and groups of green threads.
 *
 * A scope lives on its user's stack. While it is entered, every call that parks looks, on entry and
 * while it waits, whether the scope or one around it is cancelled (-ECANCELED) or past its deadline
 * (-ETIMEDOUT). Level-triggered: so it stays until the scope is left. An operation that has
 * happened is reported as happened; the cancel is seen by the next call. Not cancellable: locks,
 * go_close, go_task_reap, go_group_wait. Model: the cancel scopes of Trio (N. J. Smith, "Timeouts
 * and cancellation for humans", 2018). In a forked child: see gort.h. */
#ifndef GORT_SCOPE_H
#define GORT_SCOPE_H

#include <gort/base.h>
#include <gort/task.h>

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

/* A group is a scope that owns children, green threads that end before it is left: enter, spawn as
 * many as you like, wait. Each child runs inside the scope of the group: its cancel and deadline
 * and those of the scopes and shields around it count in every call of every child; a child that is
 * refused for the deadline makes the wait report it. The first child that returns something else
 * than 0 cancels the group: the other children, and the calls between enter and wait.
 *
 * Groups nest. A cancel of the group itself reaches its children at once; one of a scope around it
 * when the owner of the group waits or comes to wait, for which a cancelled owner has good reason.
 * Model: Trio's nurseries (N. J. Smith, "Notes on structured concurrency", 2018). Fields are
 * private. Must stay where it is while it is entered. */
typedef struct go_group {
    go_scope rt_scope;
    uint32_t rt_lock;
    uint32_t rt_members;      /* children, and whoever cancels it just now */
    void *rt_children;        /* the newest */
    void *rt_cursor;          /* the child that its canceller comes to next */
    uint64_t rt_owner_seq;
    uint32_t rt_flags;
    int32_t rt_error;         /* of the first child that failed */
    uint64_t rt_reserved[3];
} go_group;

/* Enter g with an absolute deadline (GO_FOREVER for none), as go_scope_enter does. The caller, a
 * green thread or another thread, owns g. Never parks. */
GO_API void go_group_enter(go_group *g, int64_t deadline);

/* Start a child of g that runs fn(arg). Allocates nothing but the green thread. It starts in any
 * case, also when g is cancelled: then its calls are refused from the beginning. It must end
 * outside of all scopes but that of g.
 * By the owner of g, by a child of g, or by any other thread as long as g is surely entered. Never
 * parks. Aborts when g is not entered.
 * Returns 0, or the errors of go_spawn: -EINVAL, -EAGAIN, -ENOMEM, -ENXIO, -ESHUTDOWN. */
GO_API int go_group_spawn(go_group *g, int (*fn)(void *), void *arg);
/* With options; o NULL is go_group_spawn. Further error: -EINVAL for a bad option. */
GO_API int go_group_spawn_with(go_group *g, const struct go_spawn_options *o, int (*fn)(void *),
                               void *arg);

/* Cancel g, as go_scope_cancel: the calls of its children and of its owner inside g are refused.
 * From any thread; g must be entered when this begins, and go_group_wait waits until it is done.
 * Never parks. */
GO_API void go_group_cancel(go_group *g);

/* Wait until all children have ended, those that children spawn meanwhile too, and leave g; by its
 * owner, and g must be the innermost scope. Anything else aborts with a message. Parks. Not
 * cancellable: a cancel from outside is passed on to the children, and they are waited for.
 * Returns what the first child returned that did not return 0; otherwise 0; -ECANCELED when g was
 * cancelled by go_group_cancel; -ETIMEDOUT when some call inside was refused for g's deadline. */
GO_API int go_group_wait(go_group *g);

GO_END_DECLS

#endif
