/* sched.h - the shared structs of the scheduler, and who may touch what.
 *
 * Words: G green thread (struct rt_g); M worker OS thread (struct rt_m); P processor, the right to
 * run Gs, with its queue, timers and caches (struct rt_p). Foreign: a thread that is no M. Park: a
 * G gives up its M until something makes it ready.
 *
 * OWNERSHIP OF A P. Everything in struct rt_p that is not marked otherwise belongs to the M that
 * holds the P *while that M is inside the runtime* (m->in_rt != 0). Everybody else must pass the
 * gate of that M first (gate.h): then the M is outside and stays outside. So the owner's queue
 * operations are plain loads and stores: no locked instruction, no release and acquire; the rare
 * thief pays. A P in use always has an M (procs.c: how Ps come and go). An M may have no P: then it
 * is a spare, or runs on with a G whose P was taken (retake.c), and m->p is rt.nobody, of which
 * nothing but the attention and the queues, which stay empty, is looked at without passing its
 * gate.
 *
 * THE LIFE OF A WAIT. A G has one wait word: a sequence number and a state.
 *   DEAD      on a free list. Whoever allocates it owns it.
 *   LIVE      in a run queue, or running. A queued G belongs to its queue, a running one to itself.
 *   WAITING   parked, its registers saved; whoever moves the word to LIVE by CAS with the right
 *             sequence (rt_claim) owns the G and must make it ready. Nobody else may.
 *   HARD      as WAITING, but cancels do not claim it (locks).
 * The word becomes WAITING on the *next* context, after the registers are saved (rt_commit), and
 * the lock of the object that the G waits on is released after that: a waker that holds the lock
 * therefore never sees a half-parked G. Who has no such lock (timers, cancels) leaves a bit in
 * g->attention before it looks at the word, and the commit looks at g->attention after it has set
 * the word: one of the two sees the other. struct rt_g memory is never unmapped while the runtime
 * runs, so a late claim with a stale sequence just fails. */
#ifndef RT_SCHED_H
#define RT_SCHED_H

#include "arch/arch.h"
#include "base/atomic.h"
#include "base/san.h"

#include <gort/scope.h>
#include <gort/task.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#ifndef RT_RING_SLOTS /* tests/model has them smaller */
#define RT_RING_SLOTS 256
#define RT_FRESH_SLOTS 1024
#define RT_PROCS_SLOTS 1024
#endif
enum {
    RT_RING = RT_RING_SLOTS,      /* slots of a P's ring; a power of two */
    RT_FRESH = RT_FRESH_SLOTS,    /* and of those that have not started */
    RT_MAX_PROCS = RT_PROCS_SLOTS, /* a multiple of 64 */
    RT_PICKS = 61,         /* picks between two looks at everything else */
    RT_STACK_MIN_SHIFT = 14,
    RT_STACK_CLASSES = 10, /* 16 KiB .. 8 MiB */
};
static const int64_t RT_SLICE_NS = 10 * 1000 * 1000;
/* A G that runs for less than this on average is finer than a wake or a steal is worth; see
 * idle.c. */
static const uint32_t RT_COARSE_NS = 2000;

/* ---- G --------------------------------------------------------------------------------------- */

enum rt_g_state { RT_DEAD = 0, RT_LIVE = 1, RT_WAITING = 2, RT_HARD = 3 };
#define RT_WAIT_WORD(seq, state) ((uint64_t)(seq) << 2 | (state))
#define RT_WAIT_STATE(word)      ((enum rt_g_state)((word) & 3))
#define RT_WAIT_SEQ(word)        ((word) >> 2)

/* g->attention: bits that others leave; the parking G and its commit look at them. */
enum {
    RT_ATT_PIERCE = 1, /* the runtime stops, and shields do not help any more; stays */
    RT_ATT_TASK = 2,  /* the whole G is cancelled (go_task_cancel); stays */
    RT_ATT_STOP = 4,  /* the runtime stops; stays */
    RT_ATT_TIMER = 8, /* a timer fired while the G was not (yet) parked */
    /* The rest is a number: 1 + the highest level, in shields around it, of a cancelled scope in
     * the chain; 0: none is cancelled. See task/scope.c. */
    RT_ATT_LEVEL_SHIFT = 8,
    RT_ATT_BITS = (1 << RT_ATT_LEVEL_SHIFT) - 1,
    RT_ATT_CANCEL = ~RT_ATT_TIMER, /* look closer: rt_cancel_reaches */
};

/* g->flags: constant after the spawn, unless said. */
enum {
    RT_G_TASK = 1,    /* somebody will join it */
    RT_G_THREAD = 2,  /* stands for a foreign thread; then RT_G_NOTE is set, too */
    RT_G_STARTED = 4, /* has a context to switch to; owner only */
    RT_G_WAITED = 8,  /* waits before its start (spawn.c): queued as one that has started */
    RT_G_CHILD = 16,  /* belongs to g->group, which waits for it */
    RT_G_NOTE = 32,   /* parks by sleeping on its note: foreign, or locked to its thread; owner */
};

enum { RT_TOUCHED_SCOPE = 1, RT_TOUCHED_TIMER = 2, RT_TOUCHED_NAME = 4, RT_TOUCHED_LOCALS = 8 };

struct rt_stack;

struct rt_g {
    /* Line 0: all that a G touches which never parks. */
    uint64_t wait;          /* the wait word, see above */
    struct rt_g *next;      /* link of lists: whoever holds the list */
    void *fn;               /* void (*)(void *), or void *(*)(void *) for a task */
    void *arg;
    uint64_t id;
    struct rt_stack *stack; /* bound at the first run; NULL for a thread and on a borrowed stack */
    uint32_t attention;     /* any thread sets bits */
    uint32_t flags;
    uint8_t stack_class;
    uint8_t nopreempt;      /* nests; owner */
    uint8_t touched;        /* RT_TOUCHED_*: what the end must look at; owner */
    uint8_t park_state;     /* RT_WAITING or RT_HARD: what the commit writes; owner */
    uint32_t waiting_for;   /* enum rt_why, for dumps */
    /* Line 1: parks. */
    struct rt_ctx ctx;      /* valid while parked or queued, once started */
    uint32_t *park_lock;    /* released by the commit; owner */
    go_scope *scope;        /* innermost; owner */
    int64_t limit;          /* earliest deadline of the chain; owner */
    int32_t wake_result;    /* what the claimer says: 0 or -errno */
    uint32_t park_extra;    /* what else the commit has to do, see park.c; owner */
    const char *name;
    /* Line 2: timers; tasks and children of groups, or what is waited for before the first run. */
    int64_t timer_when;     /* when the live timer entry fires; INT64_MAX: none */
    int64_t wait_deadline;  /* of the current park; read by the timer */
    uint32_t timer_gen;     /* entries of another generation are dead */
    uint32_t timer_p;       /* index of the P in whose heap the newest entry is */
    uint32_t task_lock;
    uint32_t task_done;     /* under task_lock */
    union {
        struct {
            union {
                uint64_t joiner_seq;  /* a task */
                struct rt_g *sibling; /* RT_G_CHILD: among the children of group, under its lock */
            };
            struct rt_g *joiner; /* under task_lock; the G to claim with joiner_seq */
            union {
                void *result;         /* a task's; of go_spawn_when: its go_when_result */
                struct rt_g *elder_sibling;
            };
            struct rt_g *in_place; /* the task that it joins on its own stack; owner writes */
            /* Line 3: foreign threads, selects, locals, groups, shields. */
            struct rt_bell *bell; /* RT_G_NOTE: what it sleeps on instead, see park.h; owner */
            struct rt_locks *park_locks; /* released by the commit, if park_extra says so; owner */
            uint64_t random;      /* chooses among the cases; 0: not seeded yet; owner */
        };
        uint64_t before[7]; /* until its first run, which leaves zeros; see io/when.c */
    };
    struct rt_san *san;     /* of its stack, in sanitizer builds */
    uint32_t thread_note;   /* RT_G_NOTE: futex word, 1 = ready */
    uint32_t shields;       /* around the innermost scope; owner writes, cancellers read */
    uint32_t nlocals;       /* owner */
    void **locals;          /* nlocals values; owner */
    go_group *group;        /* RT_G_CHILD */
} __attribute__((aligned(RT_CACHE_LINE)));

_Static_assert(sizeof(struct rt_g) == 4 * RT_CACHE_LINE, "what a green thread costs");

enum rt_why {
    RT_WHY_NONE, RT_WHY_CHAN_SEND, RT_WHY_CHAN_RECV, RT_WHY_MUTEX, RT_WHY_WAITGROUP, RT_WHY_JOIN,
    RT_WHY_SLEEP, RT_WHY_IO_READ, RT_WHY_IO_WRITE, RT_WHY_SELECT, RT_WHY_OTHER,
    RT_WHY_RWMUTEX, RT_WHY_COND, RT_WHY_ONCE, RT_WHY_SEM, RT_WHY_BARRIER, RT_WHY_GROUP,
    RT_WHY_BLOCKING, RT_WHY_PROCS
};

/* A batch of Gs, in order, linked through g->next. */
struct rt_glist {
    struct rt_g *head, *tail;
    size_t n;
};

static inline void rt_glist_push(struct rt_glist *l, struct rt_g *g) {
    g->next = NULL;
    if (l->tail)
        l->tail->next = g;
    else
        l->head = g;
    l->tail = g;
    l->n++;
}
static inline struct rt_g *rt_glist_pop(struct rt_glist *l) {
    struct rt_g *g = l->head;
    if (g) {
        l->head = g->next;
        if (!l->head)
            l->tail = NULL;
        l->n--;
    }
    return g;
}

/* ---- P --------------------------------------------------------------------------------------- */

/* p->attention: bits that others leave; any of them makes the next pick go to the scheduler
 * loop. */
enum {
    RT_P_PREEMPT = 1, /* the slice is over */
    RT_P_LOOK = 2,    /* timers, completions or the global queue want a look */
    RT_P_STOP = 4,    /* the worker shall end once it is out of work */
    RT_P_LEAVE = 8,   /* the P shall be put away: procs.c */
};

struct rt_timer {
    int64_t when;
    struct rt_g *g;
    uint32_t gen;
};

struct rt_p {
    /* Line 0: the pick. */
    struct rt_g *runnext;   /* runs next and inherits the slice */
    uint32_t head, tail;    /* of ring; free running. Also read, relaxed, by searchers */
    uint32_t fresh_head, fresh_tail; /* of fresh; likewise */
    uint32_t budget;        /* picks left before a look around */
    uint32_t attention;     /* any thread sets bits; on the line that the pick reads anyway */
    uint32_t ticks;         /* slices begun; read by sysmon */
    uint32_t stale;         /* sysmon: ticks at which runnext was seen to wait long; 0 = never */
    uint32_t slice_ns;      /* how long a G runs here, lately; owner writes, thieves read */
    struct rt_stack *stacks; /* bound and free, of the default class */
    struct rt_g *gfree;
    /* Line 1 */
    uint32_t nstacks;
    uint32_t ngfree;
    int64_t looked_at;      /* when the owner last looked around */
    uint32_t round;         /* picks left of a round, see runq.h */
    bool fresh_round;
    int64_t aged_at;        /* when the oldest of fresh last had their turn */
    int64_t empty_at;       /* when its queues were last seen empty */
    bool was_empty;         /* they were since the last look around */
    uint32_t doubt;         /* that a steal from here pays; thieves write, see runq.c */
    int64_t eased_at;       /* when there was last less of it for its age */
    uint64_t id_next, id_end;
    struct rt_timer *timers; /* 4-ary heap by when */
    uint32_t ntimers, cap_timers;
    int64_t timer_when;     /* of timers[0], INT64_MAX when none; owner writes, all read */
    uint64_t rng;
    struct rt_m *m;         /* who holds it; changes behind its gate. Others: rt_m_of */
    uint32_t index;
    uint32_t timers_dead;   /* relaxed, any thread */
    uint32_t visits;        /* looks around while crowded */
    uint32_t globq_tick;    /* ticks in the slice of the last G that a look took from there */
    uint32_t slow;          /* sysmon: ticks + 1 of a slice that was old, with a queue behind it */
    struct rt_p *robbed;    /* from whom it stole last; NULL: and has judged it */
    int64_t pays_at;        /* that steal will have paid if it has not run dry before */
    uint32_t contended;     /* locks that Gs here had to park for; a hint, any thread */
    uint32_t contended_then; /* when it stole last */
    /* Counters, written by the owner, read by anybody. */
    uint64_t spawned, ended, parks, steals, polls;
    struct rt_g *ring[RT_RING];
    struct rt_g *fresh[RT_FRESH];
} __attribute__((aligned(RT_CACHE_LINE)));

/* ---- M --------------------------------------------------------------------------------------- */

enum rt_away { RT_AWAY_NOT = 0, RT_AWAY_HOG, RT_AWAY_LOCKED }; /* runs on without a P */

struct rt_m {
    uint32_t in_rt;         /* inside the runtime; own thread writes, see gate.h */
    uint32_t gate;          /* somebody else is at this M's P, or it has none; see gate.h */
    struct rt_p *p;         /* outside it may change at any time; read relaxed there */
    struct rt_g *g;         /* running now; NULL in the scheduler loop; own thread */
    struct rt_g *pending;   /* picked, to be run by the scheduler loop; own thread */
    struct rt_g *yielder;   /* to be queued after the look around; own thread */
    struct rt_g *dead;      /* ended; the scheduler loop frees it (sanitizer builds); own thread */
    struct rt_stack *odd_stack; /* of an ended G, for the loop to put back; own thread */
    struct rt_ctx ctx;      /* the scheduler loop */
    struct rt_san san;
    void *poller;           /* the engine's part, made by m_start; goes when the P is taken */
    uint32_t index;
    uint32_t searching;     /* counted in rt_idle; own thread */
    bool slept_short;       /* the last time: then it dozes (idle.c); own thread, as the next */
    int64_t idle_since;     /* 0: it has found something */
    uint32_t sleep __attribute__((aligned(RT_CACHE_LINE))); /* enum rt_sleep_mode; see idle.c */
    uint32_t note;          /* what RT_SLEEP_FUTEX sleeps on */
    pthread_t thread;
    uint64_t wakes;         /* threads woken by this one; own thread writes */
    int64_t alt_stack_bytes;
    void *alt_stack;
    struct rt_m *next_spare; /* these are retake.c's */
    void *adopts;           /* the engine's part of who had its P; own thread clears */
    uint32_t away;          /* enum rt_away */
    uint32_t locked;        /* go_lock_thread, nested; own thread */
    uint32_t end;           /* a spare shall end */
    uint32_t gone;          /* its thread has ended before the stop: the place is free again */
    bool joined;            /* sysmon's, then the stop's */
    uint32_t started_in;    /* the change of procs.c; written before its thread begins */
    int tid;                /* written before the first run */
} __attribute__((aligned(RT_CACHE_LINE)));

/* Who holds p; perhaps not any more. What a new thread has made of its M is seen with it. */
static inline struct rt_m *rt_m_of(const struct rt_p *p) {
    return rt_load_acquire(&p->m); /* pairs with the release in hand_over */
}

/* ---- the runtime ----------------------------------------------------------------------------- */

enum rt_run_state { RT_STOPPED = 0, RT_STARTING, RT_RUNNING, RT_STOPPING, RT_FORKED };

struct rt_sched {
    uint32_t state;         /* enum rt_run_state */
    uint32_t foreign;       /* foreign threads inside; stop waits for 0 */
    uint32_t procs;         /* Ps in use; changed by sysmon alone, see procs.c and rt_procs */
    uint32_t procs_ever;    /* the most that were: those have counters. Likewise */
    struct rt_p *ps;        /* RT_MAX_PROCS of them, most without memory, and nobody */
    struct rt_p *nobody;    /* the P that nobody holds: its gate is always open, and its heap has
                               the timers of those who have no P */
    struct rt_m *absent;    /* the M of Ps that were put away: its gate is always shut */
    struct rt_m *ms;        /* the first nms of max_ms are there */
    uint32_t nms, max_ms;
    uint32_t threads_left;  /* that may be started on top of these, see rt_thread_take */
    uint8_t stack_class;    /* the default */
    size_t max_tasks;
    unsigned max_threads;
    unsigned flags;
    uint64_t seed;          /* of choices made at random: GORT_SEED, else another each time */
    uint64_t foreign_spawned; /* by threads without a P */
    uint64_t foreign_ended;   /* before they have run (rt_spawn_undo) */
    int pid;
    bool watch_deadlock;    /* go_run */
    bool threads_asked;     /* max_threads is what the program wants, not a default */
    bool procs_asked;       /* procs is; else it follows the machine. sysmon's */
    uint32_t deadlocked;
};

extern struct rt_sched rt;

/* It may change between any two calls, so ask once for a loop. Then what lies beyond is looked at
 * a moment later, and a P that was put away meanwhile has nothing in it, and an M whose gate is
 * shut. */
static inline uint32_t rt_procs(void) {
    return rt_load_acquire(&rt.procs); /* pairs with the release in procs.c: the P has an M */
}

/* This thread's M; NULL on a foreign thread. The compiler must not keep it across a park, hence the
 * assembly: every call reads it again. */
extern __thread struct rt_m *rt_tls_m __attribute__((tls_model("initial-exec")));

static inline __attribute__((always_inline)) struct rt_m *rt_m(void) {
    struct rt_m *m;
#if defined(__x86_64__)
    __asm__ __volatile__("movq rt_tls_m@gottpoff(%%rip), %0\n\tmovq %%fs:(%0), %0" : "=r"(m));
#else
    void *tp;
    __asm__ __volatile__("mrs %1, tpidr_el0\n\t"
                         "adrp %0, :gottprel:rt_tls_m\n\t"
                         "ldr %0, [%0, :gottprel_lo12:rt_tls_m]\n\t"
                         "ldr %0, [%1, %0]"
                         : "=&r"(m), "=&r"(tp));
#endif
    return m;
}

/* The G of this thread: the running green thread, or the one that stands for a foreign thread.
 * Never NULL. Not on the scheduler stack. */
struct rt_g *rt_foreign_self(void);
static inline struct rt_g *rt_self(void) {
    struct rt_m *m = rt_m();
    return rt_likely(m != NULL) ? m->g : rt_foreign_self();
}

#endif
