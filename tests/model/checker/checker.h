/* checker.h - the inside of the model checker.
 *
 * EXPLORE. Threads are contexts on stacks of their own, on one OS thread. Each atomic operation is
 * a scheduling point: the checker chooses who goes on (explore.c). Each load chooses which of the
 * stores that it may see it sees (memory.c). The choices of an execution form a string; the next
 * execution repeats the string but for its last choice that has an untried alternative: depth-first
 * search, without saved states. Bounds: at most `bound` switches away from a thread that could go
 * on (preemptions; others are free), and at most `stale` loads that see a store which is not the
 * newest. Within the bounds the search is exhaustive.
 * An execution is cut short where it reaches a state that was seen before with as many preemptions
 * and stale loads left. A state is known by its history: what each thread has read, and in which
 * order the stores to each word stand; two orders of independent steps lead to the same (M.
 * Musuvathi, S. Qadeer, "Partial-order reduction for context-bounded state exploration", 2007). It
 * is kept as a hash of 56 bits. A word that only one thread touches, or all only read, is no
 * scheduling point: which words these are is learnt, and the search begins anew when it turns out
 * to be wrong.
 *
 * MEMORY. C11, as far as the runtime uses it, in the form of views (J. Kang et al., "A promising
 * semantics for relaxed-memory concurrency", POPL 2017, without the promises; tokio's loom and
 * CDSChecker do the same by other means). Each word has the list of all stores to it, in
 * modification order. Each thread has a view: for each word, the oldest store that it may still
 * see. A load may see any that is not older. A release store carries the view of its thread, an
 * acquire load takes it over. Seq_cst operations and fences pass views through a global one.
 * What this leaves out: a load never sees a store that comes later (load buffering), and a store
 * always goes to the end of the modification order as executed (so no 2+2W). x86 does neither.
 * Stores are seen in the end: a thread sees one that is not the newest twice, then something newer.
 *
 * FAIRNESS. A spin loop goes on when something that it has read has changed. One that gives up
 * after a while (model_gives_up) may do so at once, but a second time in the same state only when
 * nobody else can run: or a loop around it would turn for ever. For the same reason a thread that
 * has done 150 steps at a stretch waits for the others.
 *
 * The asymmetric fences are those of C++ proposal P1202R5: all fences stand in one total order, and
 * two of them order what is around them as seq_cst fences do if one of the two is heavy; light and
 * light do nothing. Without the light fence the heavy one does not help.
 *
 * RACES. The shipped files are compiled with -fsanitize=thread, but linked without its library:
 * each plain access of memory calls us (race.c). Vector clocks tell whether two accesses, one of
 * them a write and one of them plain, are ordered by happens-before. So a missing release or
 * acquire shows in the first execution that passes data through it, whatever value was read. */
#ifndef MODEL_CHECKER_H
#define MODEL_CHECKER_H

#include "model.h"

#include "arch/arch.h"

enum {
    THREADS = MODEL_THREADS,
    LOCS = 192,   /* atomic words that one execution may touch */
    STORES = 250, /* to each of them */
    STEPS = 4000, /* of one execution; more is a livelock */
    CHOICES = 8192,
    WATCHED = 6,
    STRAIGHT = 150,     /* steps of one thread while others could go on; then they must */
    STALE_READS = 2,    /* of one store, by one thread, after a newer one was made */
    GRANULES = 1 << 13, /* four bytes of memory each */
    CELLS = 1 << 12,
    SITES = 1024,
    SHARED = 1 << 10,
    SPARSE_BYTES = 128 * 1024,
    GONE = 8,
};

/* ---- memory.c -------------------------------------------------------------------------------- */

struct clock {
    uint32_t at[THREADS];
};
struct view {
    uint8_t at[LOCS]; /* index of the oldest store to the word that may be seen */
};
struct knowledge {
    struct clock hb;  /* happens before: for races */
    struct view seen; /* for what loads may see */
};

struct store {
    uint64_t value;
    uint64_t hash; /* of its writer's history */
    int8_t writer; /* -1: before the threads began */
    bool lazy;     /* a plain store: the value stands in memory */
    struct knowledge carries;
};

struct loc {
    uintptr_t addr;
    unsigned size, n;
    uint64_t hash; /* of the order of its stores */
    struct store *stores[STORES];
};

void memory_reset(void);
/* The word at addr was or will be written by a plain store of the current thread. */
void memory_plain_store(int loc, uintptr_t addr, unsigned bytes);
int memory_loc_at(uintptr_t addr, unsigned size);
/* The kernel reads or changes a futex word: the newest value. */
extern const struct model_site memory_kernel_site;
uint32_t memory_kernel_load(uint32_t *word);
void memory_full_fence(void);
bool memory_changed(int loc, unsigned read, int but_by, unsigned *first);

/* ---- race.c ---------------------------------------------------------------------------------- */

struct cell {                                         /* last accesses to some bytes */
    uint32_t w, r[THREADS], aw[THREADS], ar[THREADS]; /* clocks; 0: none */
    int8_t wt;
    bool gone;
    const void *w_pc, *r_pc[THREADS];
    const struct model_site *a_site[THREADS];
};
struct granule { /* four aligned bytes */
    uintptr_t key;
    uint32_t generation;
    int16_t loc;              /* -1: no atomic word */
    uint8_t readers, writers; /* threads, by atomics */
    struct cell cell;
    struct cell *bytes; /* each of its own, once single bytes were touched */
};

void race_reset(void);
struct granule *race_granule(uintptr_t addr);
void race_atomic(uintptr_t addr, unsigned size, bool write, const struct model_site *s);
void race_gone(uintptr_t addr, size_t bytes);
/* The same of a large block, of which little was touched. */
void race_gone_sparse(uintptr_t addr, size_t bytes);

/* ---- explore.c ------------------------------------------------------------------------------- */

enum status { NEW, READY, SPINNING, YIELDING, SLEEPING, FINISHED };

struct thread {
    struct rt_ctx ctx;
    char *stack;
    enum status status;
    int id;
    void (*fn)(void);
    struct knowledge now;
    struct knowledge fenced; /* at the last fence: what relaxed stores carry */
    struct knowledge loaded; /* by relaxed loads: what the next fence acquires */
    struct view light;       /* `now.seen` at the last light fence */
    uint64_t light_hash;
    uint64_t hash; /* of all that it has read: its state */
    struct {
        int16_t loc;
        uint8_t read;
    } watch[WATCHED]; /* its last loads, for spin loops */
    unsigned nwatch;
    struct {
        uint8_t store, times;
    } stale[LOCS];        /* of the last store that was seen though a newer one was there */
    bool gives_up, hurry; /* spinning: may give up; does so */
    struct {
        int16_t loc;
        uint8_t read;
    } gave_up_on;         /* the last time */
    unsigned stores;      /* made so far */
    unsigned seen_stores; /* yielding: of all, when it began */
    uintptr_t futex;
    uint32_t futex_bits;
    unsigned queued; /* order in which they went to sleep */
    bool timed, timed_out;
    unsigned turn, late_turn; /* when it was last chosen; and when it last timed out */
    void *tls; /* what rt_tls_m is while it runs */
};

enum outcome { RUNNING, COMPLETE, PRUNED, ABANDONED, FAILED };

struct choice {
    uint8_t n, at;
};

struct range {
    uintptr_t from, to;
};

/* Everything that must not be set back between two executions; mapped apart. */
struct checker {
    const struct model_case *run;
    bool active; /* threads run: accesses count */
    bool trace, clock_moves;
    int64_t clock_step;
    int bound, left; /* preemptions */
    int stale_bound, stale_left;
    bool learnt; /* a word is shared that was thought not to be */
    uintptr_t shared[SHARED];
    unsigned stores;                      /* made so far, by all */
    unsigned nthreads, nsleeps, spurious; /* wakes that may still come for no reason */
    struct thread *cur;
    struct thread threads[THREADS];
    struct rt_ctx main;
    char *stage_stack;
    char g_stacks[8 * 16384] __attribute__((aligned(16384)));
    enum outcome outcome;
    char text[512];               /* of the failure */
    unsigned turns;               /* choices of a thread so far */
    unsigned switched;            /* the step at which the current thread went on */
    unsigned steps, steps_before; /* of this execution, and of the one that is shown */

    struct choice choices[CHOICES];
    unsigned nchoices, replay;

    uint64_t *visited; /* hash table: 56 bits of hash, 4 and 4 of what is left */
    size_t visited_cap, visited_n;

    /* memory */
    struct loc locs[LOCS];
    int nlocs;
    uint64_t locs_hash; /* sum over all */
    struct store pool[STEPS + LOCS];
    size_t pool_used;
    struct view sc, heavy;
    uint64_t sc_hash, heavy_hash;
    uint32_t generation; /* of the granules */
    struct granule granules[GRANULES];
    struct cell cells[CELLS];
    unsigned cells_used;

    uint64_t hits[SITES];
    char sparse[SPARSE_BYTES] __attribute__((aligned(64)));
    size_t sparse_used;
    struct range gone[GONE]; /* blocks that were freed, besides what the granules know */
    unsigned ngone;

    struct range ignored[16];
    unsigned nignored;
    const char *give_up[8];
    unsigned ngive_up;

    uint64_t executions, pruned, deepest, total_steps;
};

extern struct checker *C;

static inline uint64_t mix(uint64_t h, uint64_t v) { /* murmur3's finalizer */
    h = (h ^ v) * UINT64_C(0x9E3779B97F4A7C15) + (v << 7 | v >> 57);
    h ^= h >> 33;
    h *= UINT64_C(0xff51afd7ed558ccd);
    h ^= h >> 33;
    h *= UINT64_C(0xc4ceb9fe1a85ec53);
    return h ^ h >> 33;
}

void explore_init(void);
/* Run the case with these bounds. True: no fault. */
bool explore(const struct model_case *run, int bound, int stale_bound);
void explore_again(void); /* the last execution, with a trace */
/* A choice of 0..n-1; the first is tried first. */
unsigned explore_choose(unsigned n);
/* Before each operation of the current thread: who goes on? addr 0: always ask. */
void explore_point(uintptr_t addr, bool write);
/* Which of n stores, the newest of them is 0? */
unsigned explore_choose_store(unsigned n);
/* true in timed_out when it was that */
void explore_sleep(uintptr_t futex, uint32_t bits, bool timed);
void explore_wake(uintptr_t futex, int count, uint32_t bits);
void explore_stop(enum outcome o) __attribute__((noreturn));

/* ---- report.c -------------------------------------------------------------------------------- */

/* "file.c:12", of a site or of a program counter. */
const char *place(char *buffer, size_t bytes, const void *pc, const struct model_site *s);
/* s was executed; a line of the trace, if there is one. */
void report_step(const struct model_site *s, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

bool ignored(uintptr_t addr);

#endif
