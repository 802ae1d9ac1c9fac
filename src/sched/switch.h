/* switch.h - leaving a context, and arriving in the next. Included by the few files that switch:
 * park.c, proc.c. Every function here is inlined: the assembly of rt_arch_switch must sit in the
 * frame of the function that parks, and the sanitizer hooks right beside it. */
#ifndef RT_SWITCH_H
#define RT_SWITCH_H

#include "sched/runq.h"
#include "sched/sched.h"
#include "sched/stack.h"

void rt_g_main(void *carry) __attribute__((noreturn));

/* The wait of `old` becomes visible, now that its registers are saved; then its lock is released.
 * On the next context, inside. */
void rt_commit(struct rt_m *m, struct rt_g *old);

/* Give an unstarted G the stack s. In a sanitizer build each stack keeps one context for ever,
 * which waits in rt_g_main for its next G: the shadow stacks stay balanced, and nothing is made
 * anew. */
static inline void rt_bind(struct rt_g *g, struct rt_stack *s) {
    g->stack = s;
    g->flags |= RT_G_STARTED;
#if RT_ASAN || RT_TSAN
    if (!s->ctx.pc) {
        rt_arch_prepare(&s->ctx, rt_stack_top(s), rt_g_main);
        rt_san_init(&s->san, s->low, (size_t)((char *)s - s->low));
    }
    g->ctx = s->ctx;
    g->san = &s->san;
#else
    rt_arch_prepare(&g->ctx, rt_stack_top(s), rt_g_main);
#endif
}

/* The context in which next runs on m: its own, if that can be done at once, or the scheduler loop;
 * this, too, for NULL. */
static inline __attribute__((always_inline)) struct rt_ctx *
rt_context_of(struct rt_m *m, struct rt_g *next, struct rt_san **san) {
    if (rt_likely(next != NULL)) {
        if (rt_unlikely(!(next->flags & RT_G_STARTED))) {
            struct rt_stack *s;
            if (next->stack_class != rt.stack_class || !(s = rt_stack_pop_owner(m->p))) {
                m->pending = next;
                next = NULL;
            } else {
                rt_bind(next, s);
            }
        }
    }
    m->g = next;
    if (rt_unlikely(!next)) {
        *san = &m->san;
        return &m->ctx;
    }
    *san = next->san;
    return &next->ctx;
}

/* Leave g for next, inside, and come back when somebody made it ready: inside again, perhaps on
 * another M. carry: g itself when a commit is due, NULL when it is in a queue (yield). */
static inline __attribute__((always_inline)) void rt_leave(struct rt_m *m, struct rt_g *g,
                                                           struct rt_g *next,
                                                           struct rt_g *carry) {
    struct rt_san *san;
    struct rt_ctx *to = rt_context_of(m, next, &san);
    rt_san_leave(g->san, san);
    struct rt_g *old = rt_arch_switch(&g->ctx, to, carry);
    rt_san_arrive(g->san);
    if (old)
        rt_commit(rt_m(), old);
}

#endif
