/* gort/task.h - the runtime, green threads, and tasks that can be joined. Brings gort/time.h along,
 * for go_now and go_sleep. In a forked child: see gort.h. */
#ifndef GORT_TASK_H
#define GORT_TASK_H

#include <gort/base.h>
#include <gort/time.h>

GO_BEGIN_DECLS

/* Start with the defaults, run fn(arg) as the first green thread, and return when fn has returned:
 * whoever is left is cancelled and joined, then the runtime is stopped. The calling thread is not a
 * worker, it only waits; also for the stop of another thread that has called go_stop meanwhile.
 *
 * When every green thread is parked and nothing is left that could wake one (no timer, no I/O, no
 * other thread in the process), the green threads are named on stderr, cancelled, and the result is
 * -EDEADLK.
 *
 * Returns 0; -EALREADY when the runtime is running; -EDEADLK as above; -ETIMEDOUT when a green
 * thread has not ended within GORT_GRACE milliseconds (default 10,000): it is named on stderr and
 * the runtime stays "stopping", only go_stop may follow; -ENOMEM, -EAGAIN and what else go_start
 * reports. Not from a green thread (-EALREADY there). */
GO_API int go_run(void (*fn)(void *), void *arg);

/* Options of go_start. Zero fields mean the default; begin with GO_OPTIONS_INIT. */
struct go_options {
    size_t size; /* sizeof(struct go_options), set by GO_OPTIONS_INIT */
    /* Workers that run green threads at once, 1..1024. Default: GORT_PROCS, else the CPUs of the
     * affinity mask, bounded by the cgroup's quota (v2, its own and all above); this one follows
     * changes of them, within a second or so, until go_set_procs is called. The mask is that of the
     * threads of gort, bounded by that of the first thread of the process. */
    unsigned procs;
    /* Bytes of a green thread's stack with its guard, 16 KiB..8 MiB, rounded up to a power of two.
     * Default: GORT_STACK, else 256 KiB. */
    size_t stack_size;
    /* Threads that the runtime may start; at least procs + 1, which it starts at once. The others
     * are for go_blocking, which needs one at least, go_lock_thread, and what runs in the place of
     * green threads that hog their P: none of these while less than 17 are left. Default:
     * procs + 64, the most procs there ever were. */
    unsigned max_threads;
    /* Green threads alive at once, kept within 2 %; beyond it go_spawn says -EAGAIN. Default: what
     * the address space and the kernel's limits allow, and no more than half of the memory.max of
     * the cgroup (v2, its own and all above, at the start) is enough for: at 4,864 bytes each where
     * a page has 4 KiB and a stack 256 KiB, that is a page of stack, the record of 256 bytes and
     * page tables (a stack / 512, or 8 KiB from 2 MiB on). */
    size_t max_tasks;
    const char *netpoll; /* "auto", "uring" or "epoll"; default: GORT_NETPOLL, else "auto" */
    unsigned flags;      /* GO_STRICT */
};
#define GO_OPTIONS_INIT {sizeof(struct go_options), 0, 0, 0, 0, NULL, 0}
/* No P is taken from a green thread that hogs it: at most procs of them run at any moment, but for
 * those locked to a thread. Then go_on_long_run stays silent, and hogs hold up what waits. */
#define GO_STRICT 1u

/* Start the workers and return; opt NULL means the defaults and the environment. Values in opt win
 * over the environment.
 * Returns 0; -EALREADY when it runs or is stopping; -EINVAL for an option out of range or an
 * unknown netpoll name; -ENXIO in a forked child, unless nothing ran at the fork; -ENOMEM, -EAGAIN,
 * -EMFILE from the kernel; with netpoll "uring" the error of io_uring_setup when it is refused
 * ("auto" falls back to epoll instead). */
GO_API int go_start(const struct go_options *opt);

/* Stop: cancel every green thread, join all, end all threads, free all memory. From its start
 * spawns return -ESHUTDOWN. grace_ns bounds the wait; go_scope_enter_shielded holds the cancel off
 * for half of it.
 * Handles of tasks that nobody has joined die with it.
 * Returns 0, and go_start may be called again; -ENXIO when it is not running; -ETIMEDOUT when some
 * green thread has not ended within grace_ns: each is named on stderr and only go_stop may follow;
 * -EDEADLK on a green thread and inside go_blocking; -EALREADY while another thread stops it.
 * Blocks the calling thread. */
GO_API int go_stop(int64_t grace_ns);

/* For libraries that share the runtime of a process: start it, with the defaults and the
 * environment, or be one more user of it. Returns 0, and go_release must follow; -EALREADY while it
 * is being stopped; else as go_start. Any thread, also a green one. Never parks; may block the
 * thread while another starts it. */
GO_API int go_acquire(void);
/* The last user stops the runtime, as go_stop(grace_ns), unless somebody has started it by go_start
 * or go_run. Returns 0; of the last user: -ETIMEDOUT, he is counted still and calls go_release
 * again, nobody else gets in; -EDEADLK on a green thread and inside go_blocking, and nothing has
 * changed; -EALREADY while another thread stops it by go_stop; -ENXIO in a forked child. Aborts
 * when called more often than go_acquire. */
GO_API int go_release(int64_t grace_ns);

/* Start a green thread that runs fn(arg). Never parks, any thread.
 * It gets its stack when it first runs, but a spawn that returned 0 is sure to get one.
 * Returns 0; -EINVAL when fn is NULL; -EAGAIN at the limit of green threads or stacks; -ENOMEM;
 * -ENXIO when the runtime is not running; -ESHUTDOWN when it is stopping. */
GO_API int go_spawn(void (*fn)(void *), void *arg);

/* Options of go_spawn_with. Zero fields mean the default; begin with GO_SPAWN_OPTIONS_INIT. */
struct go_spawn_options {
    size_t size;       /* sizeof(struct go_spawn_options) */
    const char *name;  /* shown in dumps; not copied: it must outlive the green thread */
    size_t stack_size; /* bytes, as in go_options; -EINVAL when out of range */
};
#define GO_SPAWN_OPTIONS_INIT {sizeof(struct go_spawn_options), NULL, 0}

/* As go_spawn, with options; o NULL is go_spawn. Further error: -EINVAL for a bad option. */
GO_API int go_spawn_with(const struct go_spawn_options *o, void (*fn)(void *), void *arg);

/* Let others run. Parks; on another thread it is sched_yield(2). Nothing refuses it: in a cancelled
 * scope, and past its deadline, it yields as ever. A loop that only yields asks go_canceled. */
GO_API void go_yield(void);

/* Identity of the calling green thread, > 0 and never used twice in a process; 0 on another
 * thread. */
GO_API uint64_t go_id(void);

/* Number of processors (P) of the running runtime; 0 when it is not running. */
GO_API unsigned go_procs(void);

/* Change that number, at any time and load; from then on it does not follow the machine any more
 * (go_options.procs). When this returns 0 the new number holds. What was queued, slept or waited
 * for a descriptor on a P that goes is handed on. A green thread that keeps its P for longer than a
 * slice (10 ms) loses it and runs on beside the others until it next parks, yields or reaches a
 * checkpoint; under GO_STRICT it keeps it, and go_set_procs waits until then. Threads that are too
 * many end after ten seconds. Two calls at once take effect one after the other.
 * Parks, any thread, locked ones too.
 * Returns 0; -EINVAL when n is 0, more than 1024, or not less than the max_threads that go_start
 * was given; -EAGAIN, -ENOMEM, -EMFILE when the threads and stacks for more Ps cannot be had, and
 * then nothing has changed; -ECANCELED, -ETIMEDOUT from the scope: a change that had begun goes on;
 * -ENXIO when the runtime is not running, and in a forked child; -ESHUTDOWN when it is stopping. */
GO_API int go_set_procs(unsigned n);

/* A preemption point for loops that compute: yields when the time slice (10 ms) is over, or others
 * have waited for a while; a load and a branch otherwise. May park; leaves errno as it was. Does
 * nothing on other threads, in signal handlers on an alternate stack, after vfork, and in what gort
 * itself calls, as a malloc of yours. A compiler flag puts one into every loop: see
 * docs/checkpoints.md. */
GO_API void go_checkpoint(void);

/* Not 0 while somebody may have to give way; the runtime alone writes it. One word for all threads:
 * a thread-local one must not be looked at in code that may go on on another thread. */
GO_API extern unsigned go_checkpoint_due;
GO_API void go_checkpoint_slow(void); /* the rest of go_checkpoint */

/* The function itself is in the library too, for pointers to it and for other languages. */
extern inline __attribute__((gnu_inline, always_inline)) void go_checkpoint(void) {
    if (__builtin_expect(__atomic_load_n(&go_checkpoint_due, __ATOMIC_RELAXED) != 0, 0))
        go_checkpoint_slow();
}

/* Between begin and end, which nest, go_checkpoint does nothing. On a green thread only; elsewhere
 * they do nothing. An end without a begin aborts. */
GO_API void go_nopreempt_begin(void);
GO_API void go_nopreempt_end(void);

/* A green thread has kept its P for half a millisecond or more while something waited behind it. */
struct go_long_run {
    size_t size;      /* of this struct */
    uint64_t id;      /* its go_id() */
    const char *name; /* of its go_spawn_options, cut to 31 bytes; NULL */
    void *fn;         /* what it was spawned to run */
    int64_t ns;       /* for how long it has been seen to run */
    int blocked;      /* it slept in the kernel; else it computed */
    int taken;        /* its P was given to another thread, beside which it runs on */
    uint64_t missed;  /* times that were not reported since the last report */
};

/* Call hook(what, arg) for green threads that hog their P: for a log line, in which a name is found
 * that wants go_blocking, go_checkpoint or a break. It runs on a green thread of its own, ten times
 * a second at most, one at a time as long as it does not park. *what is valid until it returns.
 * NULL: no more, but a report that is on its way may still come; go_stop waits for it. May be
 * called before the runtime starts, and stays. Under GO_STRICT it is never called. Never parks, any
 * thread. Returns 0. */
GO_API int go_on_long_run(void (*hook)(const struct go_long_run *what, void *arg), void *arg);

/* Between the two, which nest, the calling green thread stays on one OS thread and has it for
 * itself: for libraries that keep state by thread. It does not count among the procs that run at
 * once, and needs one more of go_options.max_threads; while there is none left go_lock_thread
 * waits. To wait while locked costs what it costs a thread of the host, some microseconds. A green
 * thread that ends is unlocked. Both may park, and cannot be cancelled. On a foreign thread they do
 * nothing; an unlock without a lock aborts. While one is locked go_run reports no deadlock. */
GO_API void go_lock_thread(void);
GO_API void go_unlock_thread(void);

/* Call fn(arg) where it holds nobody up: on a thread of a pool, with a stack of 8 MiB, while the
 * caller is parked. For what blocks in the kernel or computes for long inside code that knows
 * nothing of gort. *result (may be NULL) becomes what fn has returned.
 *
 * Threads are started as needed, up to go_options.max_threads in all; beyond that calls wait in the
 * order in which they came. A thread without work ends after 10 s. They block the same signals as
 * the workers. To gort fn is on a foreign thread: its calls block that thread, and what it keeps
 * per thread (errno, __thread, go_local, scopes) is not the caller's. It must not end the thread,
 * and must leave the scopes that it enters.
 *
 * Once fn has begun it is not cancelled: what it uses is lent to it, so the caller waits for its
 * end, whatever becomes of the scope, and reports 0. go_stop waits for it, too, as for a green
 * thread, and ends gort's I/O calls inside fn with -ECANCELED. Parks. On a foreign thread, and so
 * inside another fn, fn is called right there.
 * Returns 0; else fn was not called: -ECANCELED, -ETIMEDOUT from the scope; -EAGAIN when no thread
 * can be started and there is none; -ENOMEM; -EINVAL when fn is NULL; -ENXIO when the runtime is
 * not running. */
GO_API int go_blocking(void *(*fn)(void *), void *arg, void **result);

/* A green thread with a result that somebody collects. */
typedef struct go_task go_task;

/* Start a task that runs fn(arg). NULL when it cannot be started (the reasons of go_spawn). Never
 * parks, any thread. Every task must be joined, reaped or detached once. */
GO_API go_task *go_task_spawn(void *(*fn)(void *), void *arg);
GO_API go_task *go_task_spawn_with(const struct go_spawn_options *o, void *(*fn)(void *),
                                   void *arg);

/* Wait until t has ended; *result (may be NULL) becomes what its function returned. Frees t on 0
 * and leaves it valid otherwise. Parks, any thread. A task that has not started yet may be run on
 * the joiner's stack, with its own id and scopes. It then finds half of a default stack free, at
 * least, and a go_task_cancel of the joiner cancels it, too. Never one whose stack_size is not the
 * default, nor inside a scope.
 * Returns 0; -EDEADLK on itself; -EBUSY when another one is joining it; -EINVAL when t is NULL;
 * -ECANCELED, -ETIMEDOUT from the scope; -ENOMEM when there is no room for the timer of its
 * deadline; -ENXIO in a forked child. */
GO_API int go_task_join(go_task *t, void **result);

/* Ask t to end: every cancellable call inside it returns -ECANCELED from now on, but for those in a
 * go_scope_enter_shielded. Never parks, any thread, only before t was joined or detached. Returns
 * 0; -EINVAL when t is NULL; -ENXIO in a forked child. */
GO_API int go_task_cancel(go_task *t);

/* go_task_cancel, and then a join that nothing refuses: neither a cancelled scope, nor a deadline,
 * nor a stop. For clean-up. Parks, any thread.
 * Returns 0, and t is freed; -EDEADLK on itself; -EBUSY when another one is joining it, and then it
 * is not cancelled; -EINVAL when t is NULL; -ENXIO in a forked child. */
GO_API int go_task_reap(go_task *t, void **result);

/* Nobody will join t: it is freed when it ends, at once if it has ended. The handle must not be
 * used afterwards. A task may detach itself. Never parks, any thread.
 * Returns 0; -EBUSY when somebody is joining it, and then nothing has changed; -EINVAL when t is
 * NULL; -ENXIO in a forked child. */
GO_API int go_task_detach(go_task *t);

/* Join tasks[0..n-1] in this order; results[i] (results may be NULL) becomes what tasks[i] has
 * returned. Parks, any thread. Entries that have been joined are set to NULL, and NULL entries are
 * passed over: so after an error those that are not NULL are still valid and wait for another
 * go_gather or for go_task_reap, and the results of the others are there.
 * Returns 0, or the first error of a join: -EDEADLK, -EBUSY; -ECANCELED, -ETIMEDOUT from the
 * scope; -ENOMEM; -EINVAL when tasks is NULL and n is not 0; -ENXIO in a forked child. */
GO_API int go_gather(go_task *tasks[], size_t n, void *results[]);

/* A place for one pointer in every green thread, and in every other thread. In a forked child: see
 * gort.h. */
typedef struct go_local_key *go_local;

enum { GO_LOCAL_MAX = 1024 }; /* places that a process may make */

/* A new place, NULL everywhere. Where its value is not NULL when a green thread ends, dtor(value)
 * is called there, as the last thing that the green thread does and before it counts as ended: dtor
 * may park, and may use locals itself; the value is NULL by then. What destructors set is destroyed
 * in up to 4 rounds in all, as with pthread_key_create. On other threads destructors run when the
 * thread ends, but not by exit(3). dtor may be NULL.
 * Places are never given back: make them once. Others must be handed one in order (by a lock, a
 * channel, a spawn), as any object. Returns NULL when all GO_LOCAL_MAX are used. Never parks, any
 * thread, with or without a runtime. */
GO_API go_local go_local_new(void (*dtor)(void *));

/* The value of the calling green thread or thread; NULL when it was never set. Never parks. */
GO_API void *go_local_get(go_local local);

/* Set it. The value before is not destroyed. Never parks.
 * Returns 0; -ENOMEM: the first set in a green thread allocates, 8 bytes for each place; -EINVAL
 * when local is not from go_local_new. */
GO_API int go_local_set(go_local local, void *value);

GO_END_DECLS

#endif
