/* gen.c - generators.
 *
 * A generator is a stack and two stack pointers: where it waits in its yield, and where its
 * consumer waits in next. Both calls end in a tail call of rt_arch_swap_*: what returns from a next
 * is the yield of the other side, and the other way round. Its code runs as the consumer's G: m->g
 * stays what it is, only the stack differs, and a park saves g->ctx wherever the stack pointer is.
 * What the runtime assumes of a G's stack stands in three places:
 *   - a task is run in place only on the stack of its joiner's G, whose bounds roomy() in join.c
 *     knows, never on a generator's;
 *   - g->san, the shadow stack of the running context in sanitizer builds, is the generator's while
 *     it runs;
 *   - there a stack keeps the waiting frame of rt_g_main at its top for ever: the generator begins
 *     below it.
 *
 * The struct lies at the top of the stack, in the page that the first frame touches anyway, so a
 * new generator is a stack off the P's cache and nothing else. A free record of a G stands for the
 * stack (g.h), as with green threads: so limits hold, and no G finds its stack taken.
 *
 * state: FRESH, WAITING (in a yield) or OVER belong to whoever holds the generator; RUNNING to who
 * runs it. A consumer exchanges it for RUNNING: whoever finds RUNNING there came second, or from
 * inside. The generator gives it back when its registers are saved, by the release in
 * rt_arch_swap_out, which pairs with the next exchange. Tried: a plain load and store instead of
 * the exchange is no faster on Zen 3, and misses races. */
#include "base/log.h"
#include "sched/g.h"
#include "sched/gate.h"
#include "sched/stack.h"
#include "sched/start.h"

#include <gort/gen.h>

#include <errno.h>

enum { FRESH = 1, WAITING, RUNNING, OVER };
enum { FRAME_BYTES = 256 }; /* more than the frame that rt_arch_swap_prepare makes */

#ifndef SHADOWED /* by the model, which does not see what assembly stores */
#define SHADOWED (RT_ASAN || RT_TSAN)
#endif

struct go_gen {
    /* Line 0: all that a value needs. But for state it is written by who runs it. */
    uint32_t state;
    uint32_t closed;
    void *self;      /* stack pointers: in its yield */
    void *consumer;  /* ... and in the next of its consumer */
    void **out;      /* where the consumer wants the value */
    struct rt_g *g;  /* whom it runs as */
    go_scope *scope; /* innermost of g when it was resumed */
    size_t room;     /* bytes of its stack, which is below this struct */
    /* Line 1: constant. */
    void (*fn)(go_gen *, void *);
    void *arg;
    struct rt_stack *stack;
    struct rt_g *credit; /* the free record that stands for the stack */
#if SHADOWED
    uint32_t after; /* state when it has been left */
    struct rt_ctx self_ctx, consumer_ctx;
    struct rt_san self_san, consumer_san;
    struct rt_san *g_san; /* g->san when it does not run */
#endif
} __attribute__((aligned(RT_CACHE_LINE)));

/* ---- the switch ------------------------------------------------------------------------------ */

#if SHADOWED

static inline __attribute__((always_inline)) int resume(go_gen *gen, void *carry) {
    gen->g_san = gen->g->san;
    gen->g->san = &gen->self_san;
    rt_san_here(&gen->consumer_san);
    rt_san_leave(&gen->consumer_san, &gen->self_san);
    void *r = rt_arch_switch(&gen->consumer_ctx, &gen->self_ctx, carry);
    rt_san_arrive(&gen->consumer_san);
    rt_store_release(&gen->state, gen->after); /* pairs with the exchange in ask() */
    return (int)(intptr_t)r;
}

static inline __attribute__((always_inline)) void *suspend(go_gen *gen, int result,
                                                           uint32_t state) {
    gen->g->san = gen->g_san;
    gen->after = state;
    rt_san_leave(state == OVER ? NULL : &gen->self_san, &gen->consumer_san);
    void *in = rt_arch_switch(&gen->self_ctx, &gen->consumer_ctx, (void *)(intptr_t)result);
    rt_san_arrive_from(&gen->self_san, &gen->consumer_san);
    return in;
}

#else

static inline __attribute__((always_inline)) int resume(go_gen *gen, void *carry) {
    return rt_arch_swap_in(&gen->consumer, &gen->self, carry, &gen->state, RUNNING);
}

static inline __attribute__((always_inline)) void *suspend(go_gen *gen, int result,
                                                           uint32_t state) {
    return rt_arch_swap_out(&gen->self, &gen->consumer, (void *)(intptr_t)result, &gen->state,
                            state);
}

#endif

static __attribute__((noreturn)) void scope_not_left(const char *what) {
    rt_fatal("%s inside a scope that the generator has entered and not left", what);
}

/* The first frame of a generator. */
static void gen_main(void *carry) {
    go_gen *gen = carry;
#if SHADOWED
    rt_san_arrive_from(&gen->self_san, &gen->consumer_san);
#endif
    gen->fn(gen, gen->arg);
    if (gen->g->scope != gen->scope)
        scope_not_left("go_gen: return");
    if (gen->out)
        *gen->out = NULL;
    suspend(gen, -EPIPE, OVER);
    rt_throw("a generator goes on after its end");
}

/* ---- a value --------------------------------------------------------------------------------- */

/* Before the first switch to it, not in go_gen_new: TSan must not destroy a fiber that never ran.
 */
static void *begin(go_gen *gen) {
#if SHADOWED
    rt_san_init(&gen->self_san, gen->stack->low, gen->room);
    rt_arch_prepare(&gen->self_ctx, gen, gen_main);
#else
    gen->self = rt_arch_swap_prepare(gen, gen_main);
#endif
    return gen;
}

/* It is ours: run it as g. */
static inline __attribute__((always_inline)) int run(go_gen *gen, struct rt_g *g, void *carry,
                                                     void **value) {
    gen->g = g;
    gen->scope = g->scope;
    gen->out = value;
    return resume(gen, carry);
}

static __attribute__((noreturn)) void running(const char *what) {
    rt_fatal("%s: the generator is running: asked from inside, or by two at once", what);
}

/* Not waiting in a yield, or not asked by a green thread. */
static __attribute__((noinline)) int ask_slow(go_gen *gen, uint32_t state, void *in, void **value,
                                              const char *what) {
    if (state == RUNNING)
        running(what);
    if (state != OVER)
        return run(gen, rt_self(), state == FRESH ? begin(gen) : in, value);
    rt_store_release(&gen->state, OVER); /* pairs with the exchange in ask() */
    if (value)
        *value = NULL;
    return -EPIPE;
}

/* Everything here ends in a tail call, and nothing is saved before it. */
static inline __attribute__((always_inline)) int ask(go_gen *gen, void *in, void **value,
                                                     const char *what) {
    if (rt_unlikely(!gen))
        return -EINVAL;
    uint32_t state = rt_exchange_acquire(&gen->state, RUNNING);
    struct rt_m *m = rt_m();
    if (rt_unlikely(state != WAITING || !m))
        return ask_slow(gen, state, in, value, what);
    return run(gen, m->g, in, value);
}

int go_gen_next(go_gen *gen, void **value) {
    return ask(gen, NULL, value, "go_gen_next");
}

int go_gen_send(go_gen *gen, void *in, void **value) {
    return ask(gen, in, value, "go_gen_send");
}

/* Who stands on its stack is inside: nobody else can. */
static inline __attribute__((always_inline)) bool inside(const go_gen *gen) {
    return (size_t)((const char *)gen - rt_arch_sp()) < gen->room;
}

static __attribute__((noinline, noreturn)) void misused_yield(const go_gen *gen) {
    if (!inside(gen))
        rt_fatal("go_gen_yield: not inside this generator");
    if (gen->closed)
        rt_fatal("go_gen_yield: the generator was closed and must return");
    scope_not_left("go_gen_yield:");
}

void *go_gen_yield(go_gen *gen, void *value) {
    if (rt_unlikely(!inside(gen) || gen->closed || gen->g->scope != gen->scope))
        misused_yield(gen);
    if (gen->out)
        *gen->out = value;
    return suspend(gen, 0, WAITING);
}

int go_gen_closed(go_gen *gen) {
    return (int)gen->closed;
}

/* ---- birth and death ------------------------------------------------------------------------- */

/* Where the struct of a generator on s ends. */
static char *top_of(struct rt_stack *s) {
#if RT_ASAN || RT_TSAN
    if (s->ctx.pc) /* rt_g_main waits there for its next G */
        return (char *)((uintptr_t)s->ctx.sp / RT_CACHE_LINE * RT_CACHE_LINE) - 256;
#endif
    return rt_stack_top(s);
}

static struct rt_stack *take_owner(struct rt_p *p, struct rt_g **credit) {
    if (!p->gfree && rt_g_refill_owner(p) != 0)
        return NULL;
    struct rt_stack *s = rt_stack_pop_owner(p);
    if (!s && !(s = rt_stack_get_owner(p)))
        return NULL;
    *credit = p->gfree;
    p->gfree = p->gfree->next;
    p->ngfree--;
    return s;
}

static struct rt_stack *take_foreign(struct rt_g **credit) {
    bool green = rt_m() != NULL; /* whose P was taken; it holds the runtime itself */
    int err = green ? 0 : rt_foreign_enter();
    if (err)
        return NULL;
    struct rt_stack *s = NULL;
    *credit = rt_g_get(&err);
    if (*credit && !(s = rt_stack_get(rt.stack_class)))
        rt_g_put(*credit);
    if (!green)
        rt_foreign_leave();
    return s;
}

go_gen *go_gen_new(void (*fn)(go_gen *, void *), void *arg) {
    if (!fn)
        return NULL;
    struct rt_g *credit;
    struct rt_stack *s;
    struct rt_m *m = rt_enter();
    if (m) {
        s = take_owner(m->p, &credit);
        rt_gate_leave(m);
    } else {
        s = take_foreign(&credit);
    }
    if (!s)
        return NULL;
    go_gen *gen = (go_gen *)(void *)(top_of(s) - sizeof *gen);
    rt_san_stack_use((char *)gen - FRAME_BYTES, FRAME_BYTES + sizeof *gen);
    *gen = (go_gen){.state = FRESH,
                    .room = (size_t)((char *)gen - s->low),
                    .fn = fn,
                    .arg = arg,
                    .stack = s,
                    .credit = credit};
    return gen;
}

/* A foreign thread that comes when the runtime has begun to stop leaves all to the stop. */
static void put_back(struct rt_stack *s, struct rt_g *credit) {
    struct rt_m *m = rt_enter();
    if (m) {
        rt_stack_push_owner(m->p, s);
        rt_g_free_owner(m->p, credit);
        rt_gate_leave(m);
    } else if (rt_m() || rt_foreign_enter() == 0) {
        rt_stack_put(s);
        rt_g_put(credit);
        if (!rt_m())
            rt_foreign_leave();
    }
}

int go_gen_close(go_gen *gen) {
    if (!gen)
        return 0;
    /* It stays RUNNING: who comes now is too late. */
    uint32_t state = rt_exchange_acquire(&gen->state, RUNNING);
    if (state == RUNNING)
        running("go_gen_close");
    if (state == WAITING) {
        gen->closed = 1;
        run(gen, rt_self(), NULL, NULL);
    }
#if SHADOWED
    if (state != FRESH)
        rt_san_destroy(&gen->self_san);
#endif
    put_back(gen->stack, gen->credit);
    return 0;
}
