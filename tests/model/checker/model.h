/* model.h - what a model sees of the checker.
 *
 * A model is a program: shipped files, compiled with include/base/atomic.h, and one file with
 * cases. A case has two to four threads, which call the shipped functions; the checker runs them in
 * every order and lets every load see every value that the memory model allows, up to a bound of
 * preemptions. See checker.h for how, docs/verification.md for what it means.
 *
 * A thread function must be deterministic but for what the checker decides, must come to an end,
 * and keeps what it shares in static variables: before each execution the program's static data is
 * what it was at the start. What threads share without atomics is checked for data races. */
#ifndef MODEL_H
#define MODEL_H

#include "base/atomic.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MODEL_THREADS = 4, MODEL_NO_PREEMPTION = -2 };

struct model_case {
    const char *name;
    void (*init)(void);                  /* before the threads; all they do is after it */
    void (*thread[MODEL_THREADS])(void); /* the first NULL ends the list */
    void (*end)(void);                   /* when all have returned */
    void (*rest)(void);    /* when nobody can go on, and all who are left sleep; NULL: a deadlock */
    const char *must_fail; /* the checker must find a fault whose text contains this */
    int bound;             /* of preemptions, if not the default; -1: none at all;
                            * MODEL_NO_PREEMPTION: not even by --bound, it would take too long */
    int stale;             /* of loads that see an old value, if not the default */
};

/* In the order above; check and at_rest may be NULL, b and s 0. */
#define MODEL_CASE(title, start, check, at_rest, b, s, ...) \
    { \
        .name = (title), .init = (start), .thread = {__VA_ARGS__}, .end = (check), \
        .rest = (at_rest), .bound = (b), .stale = (s) \
    }

/* Each model defines this; a case without a name ends the list. */
extern const struct model_case model_cases[];

/* The execution is wrong: stop, and print how it came to it. */
void model_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
#define model_assert(cond) \
    do { \
        if (!(cond)) \
            model_fail("%s:%d: not so: %s", __FILE__, __LINE__, #cond); \
    } while (0)

/* Which thread is this, 0..3? In `init` it is 0. */
unsigned model_self(void);

/* Go on when another thread has stored something, or nobody else can go on. For loops that try
 * again and again. */
void model_let_others(void);

/* What rt_m() says in this thread from now on. */
void model_be(void *m);

/* The thread ends here and now; as a green thread that computes for ever, outside. */
void model_exit(void) __attribute__((noreturn));

/* Memory for the i-th stack of a green thread; not set back between executions. */
char *model_stack(unsigned i, size_t bytes);

/* 0..n-1: the checker tries all. */
unsigned model_choose(unsigned n);

/* This execution is of no interest. */
void model_abandon(void) __attribute__((noreturn));

/* Wait until some value that this thread has just read may have changed. Costs no preemption. */
void model_wait_for_change(void);

/* The spin loop in this function gives up after a while: it may do so at any time. Other loops with
 * rt_cpu_relax() are taken to go on for as long as it needs. In init. */
void model_gives_up(const char *function);

/* Atomic accesses to this memory are counters that decide nothing: no orders to be tried. In init.
 */
void model_ignore(const void *p, size_t bytes);

/* The object is gone: who touches it from now on is wrong. */
void model_gone(const void *p, size_t bytes);

/* So many futex waits of an execution may return for no reason. In init. */
void model_spurious_wakes(unsigned n);

/* What rt_sys_now() says. When model_clock_moves() was called in `init`, a futex wait that times
 * out takes it to its end. */
extern int64_t model_clock;
void model_clock_moves(void);
/* The same, and it goes on by ns with each look. */
void model_clock_step(int64_t ns);

#endif
