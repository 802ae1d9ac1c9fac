/* gort/sync.h - locks and friends, between green threads and other threads alike.
 *
 * Zeroed memory is a valid object of each type but go_barrier; a go_sem has no units then. They are
 * plain structs that may be put anywhere, need no running runtime, and may be freed by whoever
 * their release lets go. Fields are private. In a forked child: see gort.h. */
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
/* As lock, but gives up at the absolute deadline: 0, -ETIMEDOUT; -ENOMEM when there is no room for
 * its timer. GO_NOW polls. Not cancellable. */
GO_API int go_mutex_lock_until(go_mutex *m, int64_t deadline);
/* Unlock m; whoever holds it may be unlocked by another green thread. Aborts when it is not locked.
 * Never parks. */
GO_API void go_mutex_unlock(go_mutex *m);

typedef struct go_waitgroup {
    uint32_t rt_count; /* low 31 bits; the top bit: somebody waits */
    uint32_t rt_reserved;
    void *rt_waiters;
} go_waitgroup;

/* Add n (may be negative) to the count. When it becomes 0 all waiters go on. A count below 0 or
 * above 2^31 - 1 aborts. Never parks. */
GO_API void go_waitgroup_add(go_waitgroup *wg, int n);
/* add(-1) */
GO_API void go_waitgroup_done(go_waitgroup *wg);
/* Wait until the count is 0. When it has become 0 while somebody waits, nothing may be added before
 * all waits have returned. Parks. 0; -ECANCELED, -ETIMEDOUT from the scope; -ENOMEM when there is
 * no room for the timer of its deadline. */
GO_API int go_waitgroup_wait(go_waitgroup *wg);
/* add(1), then spawn fn(arg) and done when it has returned. Errors as go_spawn, -ENOMEM; the count
 * is then as it was. */
GO_API int go_waitgroup_spawn(go_waitgroup *wg, void (*fn)(void *), void *arg);

/* Many readers or one writer. A writer that waits for readers to leave stops new ones; readers that
 * waited while a writer held it go in together, before the next writer that waits. One that comes
 * just when the lock is free may be faster than those who wait, but not twice than the same reader:
 * neither side starves. A reader that locks again while it holds it may wait for ever, for a writer
 * that came between. Not upgradable. The calls that park are not cancellable. */
typedef struct go_rwmutex {
    uint32_t rt_state;
    uint32_t rt_reserved;
    void *rt_readers;
    void *rt_writers;
    uint64_t rt_reserved2;
} go_rwmutex;

/* Lock for reading. Parks while a writer holds it, or waits for readers to leave. */
GO_API void go_rwmutex_rdlock(go_rwmutex *rw);
/* 0, or -EBUSY when rdlock would park. Never parks. */
GO_API int go_rwmutex_tryrdlock(go_rwmutex *rw);
/* Undo one rdlock, perhaps another green thread's. Aborts when it is not locked for reading. Never
 * parks. */
GO_API void go_rwmutex_rdunlock(go_rwmutex *rw);
/* Lock for writing. Parks while anybody holds it. */
GO_API void go_rwmutex_wrlock(go_rwmutex *rw);
/* 0, or -EBUSY when anybody holds it. Never parks. */
GO_API int go_rwmutex_trywrlock(go_rwmutex *rw);
/* Undo wrlock, perhaps another green thread's. Aborts when it is not locked for writing. Never
 * parks. */
GO_API void go_rwmutex_wrunlock(go_rwmutex *rw);

/* A condition variable. As ever: the condition is data that the mutex protects; wait in a loop that
 * looks at it. */
typedef struct go_cond {
    void *rt_waiters;
    uint64_t rt_reserved;
} go_cond;

/* Unlock m, which the caller holds, wait for a signal, and lock m again: it is locked whenever this
 * returns, whatever it returns. No signal given after m was unlocked is missed. Parks. 0 signalled;
 * -ECANCELED, -ETIMEDOUT from the scope, which m's locking again does not heed; -ENOMEM when there
 * is no room for the timer of a deadline. Aborts when m is not locked. */
GO_API int go_cond_wait(go_cond *c, go_mutex *m);
/* As wait, until the absolute deadline: -ETIMEDOUT for it, and -ECANCELED when the scope was
 * cancelled or is past its own. A deadline that has passed already does not unlock m. */
GO_API int go_cond_wait_until(go_cond *c, go_mutex *m, int64_t deadline);
/* Let the one go on that waits longest, or nobody when nobody waits. One that is cancelled or late
 * at that moment does not use the signal up. With or without the mutex held. Never parks. */
GO_API void go_cond_signal(go_cond *c);
/* Let all go on that wait now. Never parks. */
GO_API void go_cond_broadcast(go_cond *c);

/* Runs a function once. */
typedef struct go_once {
    uint64_t rt_state;
} go_once;

/* The first call runs fn, on the caller, all others return when it has returned, and see what it
 * did. Parks. Not cancellable. Aborts when fn calls it for the same once, which would wait for
 * itself. */
GO_API void go_once_do(go_once *o, void (*fn)(void));

/* A counting semaphore. First come, first served: who comes when others wait does not pass them. */
typedef struct go_sem {
    uint32_t rt_count; /* low 31 bits; the top bit: somebody waits */
    uint32_t rt_reserved;
    void *rt_waiters;
} go_sem;

/* Begin with n units, at most 2^31 - 1: more aborts. Nobody may use it yet. */
GO_API void go_sem_init(go_sem *s, unsigned n);
/* Take one unit, or wait for it. Parks. 0; -ECANCELED, -ETIMEDOUT from the scope; -ENOMEM when
 * there is no room for the timer of the scope's deadline. While a green thread waits here, go_run
 * does not tell a deadlock: a signal handler may release. */
GO_API int go_sem_acquire(go_sem *s);
/* 0, or -EAGAIN when there is no unit, or others wait for it. Never parks. */
GO_API int go_sem_try_acquire(go_sem *s);
/* Give one unit back, or a new one, on any green thread or thread. More than 2^31 - 1 abort. Never
 * parks. */
GO_API void go_sem_release(go_sem *s);
/* The same, and the only call of gort that a signal handler may make, on any thread, wherever it
 * was interrupted. It takes no lock and enters the kernel for futex wakes alone. A waiter goes on
 * after a helper, sysmon or a thread that waits for a semaphore itself, has been scheduled: some
 * 50 us later than with go_sem_release where that was measured. */
GO_API void go_sem_release_sig(go_sem *s);

/* Where n come together. */
typedef struct go_barrier {
    uint32_t rt_n;
    uint32_t rt_arrived;
    void *rt_waiters;
    uint64_t rt_reserved[2];
} go_barrier;

/* For n parties: 0 aborts. Nobody may use it yet. */
GO_API void go_barrier_init(go_barrier *b, unsigned n);
/* Wait until n have come, then all of them go on and the barrier is as new. Parks. 1 for the one
 * that came last, 0 for the others; -ECANCELED, -ETIMEDOUT from the scope, -ENOMEM when there is no
 * room for the timer of its deadline: then the caller does not count as having come. Who is
 * cancelled or late when the n-th has come already returns 0. Aborts before go_barrier_init. */
GO_API int go_barrier_wait(go_barrier *b);

GO_END_DECLS

#endif
