/* explore.c - which thread goes on? The search through all answers. */
#include "checker.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { STACK_BYTES = 64 * 1024, TIMES_OUT = 0x10, GIVES_UP = 0x20, WHO = 0x0f };

struct checker *C;

/* What rt_m() reads; each thread has its own. The library's is in start.c, which one model has. */
__thread void *rt_tls_m __attribute__((weak, tls_model("initial-exec")));

/* ---- memory of the program: the same before each execution ----------------------------------- */

extern char __data_start[], _end[]; /* by the linker: static data, first and last */
static char *image;                 /* never changes once it is made */

static void *map(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        abort();
    return p;
}

static void on_fault(int sig) {
    if (C->outcome != RUNNING)
        _exit(128 + sig);
    model_fail("T%d crashed (signal %d)", C->cur ? C->cur->id : -1, sig);
}

void explore_init(void) {
    C = map(sizeof *C);
    for (int i = 0; i < THREADS; i++)
        C->threads[i].stack = map(STACK_BYTES);
    C->stage_stack = map(STACK_BYTES);
    stack_t alternate = {.ss_sp = map(STACK_BYTES), .ss_size = STACK_BYTES};
    sigaltstack(&alternate, NULL);
    struct sigaction act = {.sa_handler = on_fault, .sa_flags = SA_ONSTACK | SA_NODEFER};
    sigaction(SIGSEGV, &act, NULL);
    sigaction(SIGBUS, &act, NULL);
    sigaction(SIGFPE, &act, NULL);
    sigaction(SIGILL, &act, NULL);
    size_t bytes = (size_t)(_end - __data_start);
    char *copy = map(bytes);
    image = copy; /* before the copy, so that it is in it */
    memcpy(copy, __data_start, bytes);
}

/* ---- the end of an execution ----------------------------------------------------------------- */

void explore_stop(enum outcome o) {
    C->active = false;
    C->outcome = o;
    rt_arch_jump(&C->main, NULL);
}

void model_fail(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(C->text, sizeof C->text, fmt, ap);
    va_end(ap);
    explore_stop(FAILED);
}

void model_abandon(void) {
    explore_stop(ABANDONED);
}

/* ---- choices --------------------------------------------------------------------------------- */

unsigned explore_choose(unsigned n) {
    if (n < 2)
        return 0;
    unsigned i = C->nchoices++;
    if (i >= C->replay) {
        if (i == CHOICES || n > 255)
            model_fail("too many choices");
        C->choices[i] = (struct choice){.n = (uint8_t)n};
    }
    return C->choices[i].at;
}

unsigned explore_choose_store(unsigned n) {
    unsigned k = C->stale_left > 0 ? explore_choose(n) : 0;
    C->stale_left -= k > 0;
    return k;
}

unsigned model_choose(unsigned n) {
    unsigned k = explore_choose(n);
    C->cur->hash = mix(C->cur->hash, k + 11);
    return k;
}

/* The string of choices for the next execution. False: there is none. */
static bool next_string(void) {
    while (C->nchoices > 0) {
        struct choice *c = &C->choices[C->nchoices - 1];
        if (c->at + 1 < c->n) {
            c->at++;
            C->replay = C->nchoices;
            return true;
        }
        C->nchoices--;
    }
    return false;
}

/* ---- states that were seen before ------------------------------------------------------------ */

static void visited_clear(void) {
    if (!C->visited) {
        C->visited_cap = 1 << 16;
        C->visited = map(C->visited_cap * sizeof *C->visited);
    }
    memset(C->visited, 0, C->visited_cap * sizeof *C->visited);
    C->visited_n = 0;
}

static uint64_t *visited_find(uint64_t key) {
    size_t i = (size_t)(key >> 20) & (C->visited_cap - 1);
    while (C->visited[i] && C->visited[i] >> 8 != key)
        i = (i + 1) & (C->visited_cap - 1);
    return &C->visited[i];
}

static void visited_grow(void) {
    uint64_t *old = C->visited;
    size_t cap = C->visited_cap;
    C->visited_cap = cap * 4;
    C->visited = map(C->visited_cap * sizeof *C->visited);
    for (size_t i = 0; i < cap; i++)
        if (old[i])
            *visited_find(old[i] >> 8) = old[i];
    munmap(old, cap * sizeof *old);
}

static bool may_time_out(const struct thread *t);

static uint64_t state_hash(const struct thread *goes_on) {
    uint64_t h = C->locs_hash + C->sc_hash + mix(C->heavy_hash, 5);
    for (unsigned i = 0; i < C->nthreads; i++) {
        const struct thread *t = &C->threads[i];
        uint64_t th = mix(t->hash, (uint64_t)i << 8 | t->status);
        if (t->status == SLEEPING) { /* and before whom, if somebody sleeps on the same word */
            unsigned before = 0;
            for (unsigned j = 0; j < C->nthreads; j++)
                before += C->threads[j].status == SLEEPING && C->threads[j].futex == t->futex &&
                          C->threads[j].queued < t->queued;
            th = mix(th, before << 1 | may_time_out(t));
        }
        h += th;
    }
    return mix(h, goes_on ? (uint64_t)goes_on->id + 1 : 0) >> 8 | 1;
}

static bool seen_before(const struct thread *goes_on) {
    uint64_t key = state_hash(goes_on), *slot = visited_find(key);
    bool known = *slot != 0;
    if (known && (int)(*slot & 15) >= C->left && (int)(*slot >> 4 & 15) >= C->stale_left)
        return true;
    *slot = key << 8 | (unsigned)C->stale_left << 4 | (unsigned)C->left;
    if (!known && ++C->visited_n > C->visited_cap / 2)
        visited_grow();
    return false;
}

/* ---- which words are shared ------------------------------------------------------------------ */

static bool is_shared(uintptr_t addr, bool add) {
    size_t i = (size_t)(mix(3, addr) % SHARED), n = 0;
    for (; C->shared[i]; i = (i + 1) % SHARED) {
        if (C->shared[i] == addr)
            return true;
        if (++n == SHARED - 1)
            model_fail("too many shared words");
    }
    if (add) {
        C->shared[i] = addr;
        C->learnt = true;
    }
    return false;
}

/* Does it matter who comes first? */
static bool matters(uintptr_t addr, bool write) {
    struct granule *g = race_granule(addr);
    uint8_t me = (uint8_t)(1u << C->cur->id);
    if (write)
        g->writers |= me;
    else
        g->readers |= me;
    bool conflict = (g->writers & ~me) || (write && (g->readers & ~me));
    return is_shared(g->key, conflict) || conflict;
}

/* ---- threads --------------------------------------------------------------------------------- */

static bool changed(const struct thread *t) {
    unsigned first;
    for (unsigned i = 0; i < t->nwatch; i++)
        if (memory_changed(t->watch[i].loc, t->watch[i].read, t->id, &first))
            return true;
    return false;
}

static bool runnable(const struct thread *t) {
    return t->status == NEW || t->status == READY || (t->status == SPINNING && changed(t)) ||
           (t->status == YIELDING && C->stores - t->stores != t->seen_stores);
}

static __attribute__((noreturn)) void finish(void (*check)(void)) {
    C->active = false;
    C->cur = NULL;
    if (check)
        check();
    explore_stop(COMPLETE);
}

/* Nobody can go on: a deadlock, which is how a lost wake-up looks. */
static __attribute__((noreturn)) void stuck(void) {
    char who[256] = "";
    size_t n = 0;
    bool sleeping = true;
    for (unsigned i = 0; i < C->nthreads; i++) {
        const struct thread *t = &C->threads[i];
        sleeping &= t->status != SPINNING;
        if (t->status != FINISHED)
            n += (size_t)snprintf(who + n, sizeof who - n, " T%u %s", i,
                                  t->status == SLEEPING ? "sleeps" : "spins");
    }
    if (sleeping && C->run->rest)
        finish(C->run->rest);
    model_fail("deadlock:%s, and nobody else runs", who);
}

/* A sleep may be over at any time, but not again and again while somebody else could run. */
static bool may_time_out(const struct thread *t) {
    if (t->status != SLEEPING || !t->timed)
        return false;
    for (unsigned i = 0; t->late_turn != 0 && i < C->nthreads; i++)
        if (runnable(&C->threads[i]) && C->threads[i].turn < t->late_turn)
            return false;
    return true;
}

static unsigned alternatives(const struct thread *me, bool goes_on, uint8_t *alt) {
    unsigned n = 0;
    if (goes_on)
        alt[n++] = (uint8_t)me->id;
    if (goes_on && C->left == 0)
        return n;
    for (unsigned i = 0; i < C->nthreads; i++) {
        const struct thread *t = &C->threads[i];
        if ((goes_on && t == me) || t->status == FINISHED)
            continue;
        if (runnable(t))
            alt[n++] = (uint8_t)i;
        else if (may_time_out(t))
            alt[n++] = (uint8_t)(i | TIMES_OUT);
    }
    for (unsigned i = 0; n == 0 && i < C->nthreads; i++)
        if (C->threads[i].status == YIELDING)
            alt[n++] = (uint8_t)i;
        else if (C->threads[i].status == SPINNING && C->threads[i].gives_up)
            alt[n++] = (uint8_t)(i | GIVES_UP);
    return n;
}

/* me has run for long: all but me, if there is anybody. */
static bool others_first(const struct thread *me, uint8_t *alt, unsigned *n) {
    uint8_t others[2 * THREADS];
    int left = C->left;
    unsigned all, kept = 0;
    C->left = 1;
    all = alternatives(me, true, others);
    C->left = left;
    for (unsigned i = 0; i < all; i++)
        if (others[i] != me->id && !(others[i] & TIMES_OUT))
            alt[kept++] = others[i];
    if (kept == 0)
        return false;
    *n = kept;
    return true;
}

static struct thread *pick(void) {
    uint8_t alt[2 * THREADS];
    struct thread *me = C->cur;
    bool goes_on = me && runnable(me);
    unsigned n = alternatives(me, goes_on, alt);
    if (C->steps - C->switched > STRAIGHT && goes_on && others_first(me, alt, &n))
        goes_on = false;
    if (n == 0) {
        for (unsigned i = 0; i < C->nthreads; i++)
            if (C->threads[i].status != FINISHED)
                stuck();
        finish(C->run->end);
    }
    if (C->nchoices >= C->replay && !C->trace && seen_before(goes_on ? me : NULL))
        explore_stop(PRUNED);
    uint8_t to = alt[explore_choose(n)];
    struct thread *t = &C->threads[to & WHO];
    if (goes_on && t != me)
        C->left--;
    if (t != me)
        C->switched = C->steps;
    t->turn = ++C->turns;
    if (to & TIMES_OUT) {
        t->late_turn = t->turn;
        t->timed_out = true;
        t->status = READY;
    }
    if (to & GIVES_UP)
        t->hurry = true;
    return t;
}

void model_exit(void) {
    C->cur->status = FINISHED;
    C->cur->nwatch = 0;
    struct thread *next = pick();
    C->cur = next;
    rt_tls_m = next->tls;
    rt_arch_jump(&next->ctx, NULL);
}

static void thread_main(void *carry) {
    (void)carry;
    C->cur->status = READY;
    C->cur->fn();
    model_exit();
}

static void switch_to(struct thread *next) {
    struct thread *me = C->cur;
    if (next == me)
        return;
    me->tls = rt_tls_m;
    C->cur = next;
    rt_tls_m = next->tls;
    rt_arch_switch(&me->ctx, &next->ctx, NULL);
}

static void reschedule(void) {
    struct thread *me = C->cur;
    switch_to(pick());
    me->status = READY;
}

void explore_point(uintptr_t addr, bool write) {
    C->cur->hurry = false;
    bool ask = !addr || matters(addr, write);
    if (++C->steps > STEPS)
        model_fail("livelock: more than %d steps", STEPS);
    if (ask)
        reschedule();
}

void explore_sleep(uintptr_t futex, uint32_t bits, bool timed) {
    struct thread *t = C->cur;
    t->status = SLEEPING;
    t->futex = futex;
    t->futex_bits = bits;
    t->queued = C->nsleeps++;
    t->timed = timed;
    t->timed_out = false;
    reschedule();
    t->hash = mix(t->hash, t->timed_out ? 21 : 22);
}

void explore_wake(uintptr_t futex, int count, uint32_t bits) {
    for (; count > 0; count--) {
        struct thread *first = NULL;
        for (unsigned i = 0; i < C->nthreads; i++) {
            struct thread *t = &C->threads[i];
            if (t->status == SLEEPING && t->futex == futex && (t->futex_bits & bits) &&
                (!first || t->queued < first->queued))
                first = t;
        }
        if (!first)
            return;
        first->status = READY;
    }
}

/* ---- spin loops ------------------------------------------------------------------------------ */

/* The thread waits until one of the words that it read last has changed; then it reads something
 * newer there, so a loop ends. */
static void spin(struct thread *t, bool gives_up) {
    t->hash = mix(t->hash, 31);
    if (!changed(t)) {
        t->status = SPINNING;
        t->gives_up = gives_up;
        if (++C->steps > STEPS)
            model_fail("livelock: more than %d steps", STEPS);
        reschedule();
        t->hash = mix(t->hash, t->hurry);
    }
    for (unsigned i = 0, first; !t->hurry && i < t->nwatch; i++)
        if (memory_changed(t->watch[i].loc, t->watch[i].read, t->id, &first) &&
            t->now.seen.at[t->watch[i].loc] < first)
            t->now.seen.at[t->watch[i].loc] = (uint8_t)first;
    if (!t->hurry)
        t->nwatch = 0;
}

static bool listed(const char *function) {
    for (unsigned i = 0; i < C->ngive_up; i++)
        if (!strcmp(C->give_up[i], function))
            return true;
    return false;
}

/* Not twice on the same store. */
static bool chooses_to_give_up(struct thread *t) {
    if (t->nwatch == 0)
        return false;
    int16_t loc = t->watch[t->nwatch - 1].loc;
    uint8_t read = t->watch[t->nwatch - 1].read;
    if ((t->gave_up_on.loc == loc && t->gave_up_on.read == read) || model_choose(2) == 0)
        return false;
    t->gave_up_on.loc = loc;
    t->gave_up_on.read = read;
    return true;
}

void model_relax(const char *function) {
    if (!C->active)
        return;
    struct thread *t = C->cur;
    bool gives_up = listed(function);
    if (t->hurry && gives_up)
        return;
    t->hurry = gives_up && chooses_to_give_up(t);
    if (!t->hurry)
        spin(t, gives_up);
}

void model_wait_for_change(void) {
    if (C->active)
        spin(C->cur, false);
}

void model_let_others(void) {
    struct thread *t = C->cur;
    t->hash = mix(t->hash, 41);
    t->status = YIELDING;
    t->seen_stores = C->stores - t->stores;
    reschedule();
}

/* ---- executions ------------------------------------------------------------------------------ */

static void prepare(const struct model_case *run) {
    memcpy(__data_start, image, (size_t)(_end - __data_start));
    memory_reset();
    race_reset();
    C->switched = C->turns = C->stores = C->nchoices = C->steps = C->nsleeps = C->nthreads = 0;
    C->nignored = C->ngive_up = 0;
    C->spurious = 0;
    C->clock_moves = false;
    C->clock_step = 0;
    C->left = C->bound;
    C->stale_left = C->stale_bound;
    C->cur = NULL;
    C->outcome = RUNNING;
    while (C->nthreads < THREADS && run->thread[C->nthreads]) {
        struct thread *t = &C->threads[C->nthreads];
        *t = (struct thread){.stack = t->stack, .id = (int)C->nthreads, .status = NEW};
        t->gave_up_on.loc = -1;
        t->fn = run->thread[C->nthreads++];
        t->now.hb.at[t->id] = 1;
        rt_arch_prepare(&t->ctx, t->stack + STACK_BYTES, thread_main);
    }
}

/* On a stack of its own, since model_fail() in `init` or `end` leaves from anywhere. */
static void stage(void *carry) {
    const struct model_case *run = carry;
    if (run->init)
        run->init();
    C->active = true;
    struct thread *first = pick();
    C->cur = first;
    rt_arch_jump(&first->ctx, NULL);
}

static void one_execution(const struct model_case *run) {
    struct rt_ctx ctx;
    prepare(run);
    rt_arch_prepare(&ctx, C->stage_stack + STACK_BYTES, stage);
    rt_arch_switch(&C->main, &ctx, (void *)(uintptr_t)run);
    C->cur = NULL;
    rt_tls_m = NULL;
}

bool explore(const struct model_case *run, int bound, int stale_bound) {
    if (C->run != run)
        memset(C->shared, 0, sizeof C->shared);
    C->run = run;
    C->bound = bound;
    C->stale_bound = stale_bound;
    C->executions = C->pruned = C->deepest = C->total_steps = 0;
    do {
        C->learnt = false;
        C->replay = 0;
        visited_clear();
        do {
            one_execution(run);
            C->executions++;
            C->pruned += C->outcome == PRUNED;
            C->total_steps += C->steps;
            if (C->steps > C->deepest)
                C->deepest = C->steps;
            if (C->outcome == FAILED)
                return false;
        } while (!C->learnt && next_string());
    } while (C->learnt);
    return true;
}

void explore_again(void) {
    C->replay = C->nchoices;
    C->trace = true;
    C->steps_before = C->steps;
    one_execution(C->run);
    C->trace = false;
}

/* ---- what the models call -------------------------------------------------------------------- */

unsigned model_self(void) {
    return C->cur ? (unsigned)C->cur->id : 0;
}

void model_be(void *m) {
    rt_tls_m = m;
}

char *model_stack(unsigned i, size_t bytes) {
    if ((i + 1) * bytes > sizeof C->g_stacks)
        model_fail("the model has too many stacks");
    return C->g_stacks + i * bytes;
}

void model_gives_up(const char *function) {
    C->give_up[C->ngive_up++] = function;
}

void model_ignore(const void *p, size_t bytes) {
    C->ignored[C->nignored++] = (struct range){(uintptr_t)p, (uintptr_t)p + bytes};
}

bool ignored(uintptr_t addr) {
    for (unsigned i = 0; i < C->nignored; i++)
        if (addr >= C->ignored[i].from && addr < C->ignored[i].to)
            return true;
    return false;
}

void model_gone(const void *p, size_t bytes) {
    race_gone((uintptr_t)p, bytes);
}

void model_spurious_wakes(unsigned n) {
    C->spurious = n;
}
