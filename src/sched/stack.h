/* stack.h - stacks of green threads.
 *
 * A slot is a power of two of address space, aligned to its size:
 *
 *   low  | guard (1/16 of the slot, a page at least) | ... grows down ... | colour | struct
 *       rt_stack | high
 *
 * The descriptor stands at the top, in the page that the first frame touches anyway, so a parked G
 * costs one page. Tops are coloured: shifted by 0..15 cache lines, or they would all fall into the
 * same cache sets. The guard is installed when a slot is first used and stays; contents are not
 * cleared.
 *
 * Promise: a G that was spawned gets a stack. Each struct rt_g of the free lists stands for a slot
 * of the default class whose address space is mapped (rt_stack_reserve), and slots that lie in the
 * caches of other Ps are paid for beforehand. Another class is bound at the spawn. */
#ifndef RT_STACK_H
#define RT_STACK_H

#include "sched/sched.h"

enum { RT_STACK_CACHE = 64 }; /* bound and free slots that one P may keep */

struct rt_stack {
    struct rt_stack *next;
    char *low;              /* first usable byte, above the guard */
    struct rt_slab *slab;
    uint32_t size_class;
    unsigned valgrind_id;
#if RT_ASAN || RT_TSAN
    struct rt_ctx ctx;      /* rt_g_main between two Gs; pc NULL: never started */
    struct rt_san san;
#endif
} __attribute__((aligned(RT_CACHE_LINE)));

/* Class of a size in bytes; -EINVAL when it is out of range. */
int rt_stack_class(size_t bytes);

int rt_stack_start(unsigned procs, unsigned default_class);
void rt_stack_stop(void);

/* Map address space for n more slots of the default class: 0, -ENOMEM, or -EAGAIN at the limit of
 * guards. Any thread. */
int rt_stack_reserve(size_t n);
void rt_stack_unreserve(size_t n);

/* A slot, guard in place; NULL when the kernel has no more. Any thread. */
struct rt_stack *rt_stack_get(unsigned size_class);
void rt_stack_put(struct rt_stack *s);

/* Refill the cache of p, and take one; owner, on the scheduler stack. */
struct rt_stack *rt_stack_get_owner(struct rt_p *p);
void rt_stack_trim_owner(struct rt_p *p);
/* Put all of p's into the depot; nobody else can touch them. */
void rt_stack_flush(struct rt_p *p);

static inline struct rt_stack *rt_stack_pop_owner(struct rt_p *p) {
    struct rt_stack *s = p->stacks;
    if (s) {
        p->stacks = s->next;
        p->nstacks--;
    }
    return s;
}

static inline void rt_stack_push_owner(struct rt_p *p, struct rt_stack *s) {
    s->next = p->stacks;
    p->stacks = s;
    if (rt_unlikely(++p->nstacks > RT_STACK_CACHE))
        rt_stack_trim_owner(p);
}

static inline size_t rt_stack_slot_bytes(unsigned size_class) {
    return (size_t)1 << (RT_STACK_MIN_SHIFT + size_class);
}

/* Where the first frame begins. */
static inline void *rt_stack_top(struct rt_stack *s) {
    size_t colour = ((uintptr_t)s >> (RT_STACK_MIN_SHIFT + s->size_class)) % 16 * RT_CACHE_LINE;
    return (char *)s - colour;
}

/* Give the memory of stacks that nobody needs back to the system. sysmon only. In how many ns it
 * wants to be called again; INT64_MAX: there is nothing to do. */
int64_t rt_stack_scavenge(int64_t now);

void rt_stack_stats(size_t *mapped_bytes, size_t *cached);

#endif
