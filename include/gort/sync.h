/* gort/sync.h - locks and friends, between green threads and other threads alike.
 *
 * Zeroed memory is a valid object of each type. They are plain structs that may be put anywhere,
 * need no running runtime, and may be freed by whoever their release lets go. Fields are
 * private. */
#ifndef GORT_SYNC_H
#define GORT_SYNC_H

#include <gort/base.h>

GO_BEGIN_DECLS

typedef struct go_mutex {
    uint32_t rt_state;
    uint32_t rt_lock;
    void *rt_waiters;
} go_mutex;

/* Lock m. Parks. Not cancellable. Not recursive: a second lock by its holder waits for ever. */
GO_API void go_mutex_lock(go_mutex *m);
/* 0, or -EBUSY when it is locked. Never parks. */
GO_API int go_mutex_trylock(go_mutex *m);
/* As lock, but gives up at the absolute deadline: 0, -ETIMEDOUT. GO_NOW polls. Not cancellable. */
GO_API int go_mutex_lock_until(go_mutex *m, int64_t deadline);
/* Unlock m; whoever holds it may be unlocked by another green thread. Aborts when it is not locked.
 * Never parks. */
GO_API void go_mutex_unlock(go_mutex *m);

typedef struct go_waitgroup {
    uint32_t rt_count; /* low 31 bits; the top bit: somebody waits */
    uint32_t rt_lock;
    void *rt_waiters;
} go_waitgroup;

/* Add n (may be negative) to the count. When it becomes 0 all waiters go on. A count below 0 or
 * above 2^31 - 1 aborts. Never parks. */
GO_API void go_waitgroup_add(go_waitgroup *wg, int n);
/* add(-1) */
GO_API void go_waitgroup_done(go_waitgroup *wg);
/* Wait until the count is 0. When it has become 0 while somebody waits, nothing may be added before
 * all waits have returned. Parks. 0; -ECANCELED, -ETIMEDOUT from the scope. */
GO_API int go_waitgroup_wait(go_waitgroup *wg);
/* add(1), then spawn fn(arg) and done when it has returned. Errors as go_spawn, -ENOMEM; the count
 * is then as it was. */
GO_API int go_waitgroup_spawn(go_waitgroup *wg, void (*fn)(void *), void *arg);

GO_END_DECLS

#endif
