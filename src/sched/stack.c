/* stack.c - slabs of slots, guards, the depot.
 *
 * Each class has slabs (one mmap of many slots), a bump position in the newest, and a depot: slots
 * that were used and are free, guard in place. Order of choice: the P's cache (hot), the depot, a
 * bare slot, a fresh one.
 *
 * Memory goes back. sysmon looks at the depots twice a second: what nobody has needed since the
 * last look, but for a few, is made bare: its page is given to the system, descriptor and all, its
 * address is kept. So a burst of a million green threads is forgotten within two seconds or so,
 * and a load that comes and goes faster than that keeps its stacks. While no depot is long sysmon
 * sleeps as before. Not under sanitizers, whose contexts live in the descriptors.
 *
 * Guards by MADV_GUARD_INSTALL (Linux 6.13) split no mapping, so their number is free. Before that
 * a guard is an mprotect, which splits one: the number is capped at what vm.max_map_count leaves,
 * and then rt_stack_reserve says -EAGAIN. There is never a stack without a guard. */
#include "sched/stack.h"

#include "base/lock.h"
#include "base/sys.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum { SLAB_BYTES_SHIFT = 26, MAPS_KEPT_FREE = 2048 };
enum { DEPOT_KEPT = 256, SCAVENGE_CHUNK = 64, SCAVENGE_CHUNKS = 16 };
static const int64_t SCAVENGE_PERIOD_NS = 500 * 1000 * 1000;

struct slab {
    struct slab *next;
    char *base;
    size_t bytes;
    size_t used; /* bytes of slots that were handed out at least once */
};

struct bare { /* guarded, and without memory */
    char *base;
    unsigned valgrind_id;
};

static struct size_class {
    uint32_t lock;           /* futex lock; protects all below */
    struct slab *first, *last;
    struct slab *bump;       /* the oldest slab with a slot that was never used; NULL: none */
    struct rt_stack *depot;
    size_t cached;           /* in the depot */
    size_t lowest;           /* of cached, since the scavenger's last look */
    size_t surplus;          /* what it still wants to make bare */
    struct bare *bare;
    size_t nbare, cap_bare;
    size_t slots;            /* in all slabs */
    size_t promised;         /* of them, what Gs may claim (default class) */
} classes[RT_STACK_CLASSES];

static unsigned default_class;
static size_t page;
static size_t max_slots; /* for all classes; SIZE_MAX with light guards */
static size_t all_slots; /* relaxed counter */
static bool light_guards;
static int64_t scavenge_at; /* sysmon only */

int rt_stack_class(size_t bytes) {
    for (int c = 0; c < RT_STACK_CLASSES; c++)
        if (bytes <= rt_stack_slot_bytes((unsigned)c))
            return bytes < rt_stack_slot_bytes(0) ? -EINVAL : c;
    return -EINVAL;
}

int rt_stack_start(unsigned procs, unsigned cls) {
    page = rt_sys_page_size();
    default_class = cls;
    light_guards = true;
    max_slots = SIZE_MAX;
    all_slots = 0;
    scavenge_at = 0;
    void *probe = rt_sys_map(2 * page);
    if (!probe)
        return -ENOMEM;
    int err = rt_sys_guard(probe, page, &light_guards);
    if (err == 0 && light_guards && !rt_sys_guard_holds(probe)) {
        light_guards = false;
        err = rt_sys_guard(probe, page, &light_guards);
    }
    rt_sys_unmap(probe, 2 * page);
    if (err)
        return err;
    if (!light_guards) {
        size_t maps = rt_sys_max_maps();
        max_slots = maps > 2 * MAPS_KEPT_FREE ? (maps - MAPS_KEPT_FREE) / 2 : MAPS_KEPT_FREE / 2;
    }
    return rt_stack_reserve((size_t)procs * RT_STACK_CACHE); /* what may lie in caches */
}

static struct rt_stack *descriptor(char *base, unsigned cls) {
    return (struct rt_stack *)(void *)(base + rt_stack_slot_bytes(cls) - sizeof(struct rt_stack));
}

static void release_slot(struct rt_stack *s) {
    rt_san_stack_deregister(s->valgrind_id);
#if RT_ASAN || RT_TSAN
    if (s->ctx.pc)
        rt_san_destroy(&s->san);
#endif
}

void rt_stack_stop(void) {
    for (unsigned c = 0; c < RT_STACK_CLASSES; c++) {
        struct size_class *k = &classes[c];
        while (k->first) {
            struct slab *s = k->first;
            k->first = s->next;
            for (size_t at = 0; at < s->used; at += rt_stack_slot_bytes(c))
                if (descriptor(s->base + at, c)->low) /* not bare */
                    release_slot(descriptor(s->base + at, c));
#if RT_ASAN
            __asan_unpoison_memory_region(s->base, s->bytes); /* frames that never returned */
#endif
            rt_sys_unmap(s->base, s->bytes);
            rt_sys_free(s);
        }
        for (size_t i = 0; i < k->nbare; i++)
            rt_san_stack_deregister(k->bare[i].valgrind_id);
        rt_sys_free(k->bare);
        *k = (struct size_class){0};
    }
}

/* One more slab; k->lock is held. */
static int add_slab(struct size_class *k, size_t slot) {
    size_t n = ((size_t)1 << SLAB_BYTES_SHIFT) / slot;
    size_t seen = rt_load_relaxed(&all_slots);
    if (seen >= max_slots)
        return -EAGAIN;
    if (n > max_slots - seen)
        n = max_slots - seen;
    struct slab *s = rt_sys_alloc(sizeof *s);
    if (!s)
        return -ENOMEM;
    s->bytes = n * slot;
    s->base = rt_sys_map_stacks(s->bytes, slot);
    if (!s->base) {
        rt_sys_free(s);
        return -ENOMEM;
    }
    if (k->last)
        k->last->next = s;
    else
        k->first = s;
    k->last = s;
    if (!k->bump)
        k->bump = s;
    k->slots += n;
    rt_fetch_add_relaxed(&all_slots, n);
    return 0;
}

int rt_stack_reserve(size_t n) {
    struct size_class *k = &classes[default_class];
    int err = 0;
    rt_futex_lock(&k->lock);
    while (err == 0 && k->slots - k->promised < n)
        err = add_slab(k, rt_stack_slot_bytes(default_class));
    if (err == 0)
        k->promised += n;
    rt_futex_unlock(&k->lock);
    return err;
}

void rt_stack_unreserve(size_t n) {
    struct size_class *k = &classes[default_class];
    rt_futex_lock(&k->lock);
    k->promised -= n;
    rt_futex_unlock(&k->lock);
}

static size_t guard_bytes(unsigned cls) {
    size_t part = rt_stack_slot_bytes(cls) / 16;
    return part > page ? part : page;
}

static struct rt_stack *describe(char *base, unsigned cls) {
    struct rt_stack *s = descriptor(base, cls);
    *s = (struct rt_stack){.low = base + guard_bytes(cls)};
    s->size_class = cls;
    return s;
}

/* Make a slot out of fresh address space. */
static struct rt_stack *bind_slot(char *base, unsigned cls) {
    if (rt_sys_guard(base, guard_bytes(cls), &light_guards) != 0)
        return NULL;
    struct rt_stack *s = describe(base, cls);
    s->valgrind_id = rt_san_stack_register(s->low, s);
    return s;
}

/* k->lock is held. */
static struct rt_stack *pop_depot(struct size_class *k) {
    struct rt_stack *s = k->depot;
    if (s) {
        k->depot = s->next;
        k->cached--;
        if (k->cached < k->lowest)
            k->lowest = k->cached;
    }
    return s;
}

struct rt_stack *rt_stack_get(unsigned cls) {
    struct size_class *k = &classes[cls];
    rt_futex_lock(&k->lock);
    struct rt_stack *s = pop_depot(k);
    if (!s && k->nbare) {
        struct bare *b = &k->bare[--k->nbare];
        s = describe(b->base, cls);
        s->valgrind_id = b->valgrind_id;
    } else if (!s && (k->bump || add_slab(k, rt_stack_slot_bytes(cls)) == 0)) {
        struct slab *b = k->bump;
        s = bind_slot(b->base + b->used, cls);
        if (s) {
            b->used += rt_stack_slot_bytes(cls);
            if (b->used == b->bytes)
                k->bump = b->next;
        }
    }
    rt_futex_unlock(&k->lock);
    return s;
}

void rt_stack_put(struct rt_stack *s) {
    struct size_class *k = &classes[s->size_class];
    rt_futex_lock(&k->lock);
    s->next = k->depot;
    k->depot = s;
    k->cached++;
    rt_futex_unlock(&k->lock);
}

struct rt_stack *rt_stack_get_owner(struct rt_p *p) {
    struct size_class *k = &classes[default_class];
    rt_futex_lock(&k->lock);
    for (int i = 0; i < RT_STACK_CACHE / 4; i++) {
        struct rt_stack *s = pop_depot(k);
        if (!s)
            break;
        s->next = p->stacks;
        p->stacks = s;
        p->nstacks++;
    }
    rt_futex_unlock(&k->lock);
    struct rt_stack *s = rt_stack_pop_owner(p);
    return s ? s : rt_stack_get(default_class);
}

/* The newest stays: its G has just ended, and may still be on it. */
void rt_stack_trim_owner(struct rt_p *p) {
    uint32_t n = RT_STACK_CACHE / 2;
    struct rt_stack *first = p->stacks->next, *last = first;
    for (uint32_t i = 1; i < n; i++)
        last = last->next;
    p->stacks->next = last->next;
    p->nstacks -= n;
    struct size_class *k = &classes[default_class];
    rt_futex_lock(&k->lock);
    last->next = k->depot;
    k->depot = first;
    k->cached += n;
    rt_futex_unlock(&k->lock);
}

void rt_stack_flush(struct rt_p *p) {
    for (struct rt_stack *s; (s = rt_stack_pop_owner(p)) != NULL;)
        rt_stack_put(s);
}

void rt_stack_stats(size_t *mapped_bytes, size_t *cached) {
    *mapped_bytes = *cached = 0;
    for (unsigned c = 0; c < RT_STACK_CLASSES; c++) {
        rt_futex_lock(&classes[c].lock);
        *mapped_bytes += classes[c].slots * rt_stack_slot_bytes(c);
        *cached += classes[c].cached;
        rt_futex_unlock(&classes[c].lock);
    }
}

/* ---- the scavenger --------------------------------------------------------------------------- */

/* k->lock is held. */
static bool room_for_bare(struct size_class *k) {
    if (k->nbare < k->cap_bare)
        return true;
    size_t cap = k->cap_bare ? 2 * k->cap_bare : 1024;
    struct bare *b = rt_sys_alloc(cap * sizeof *b);
    if (!b)
        return false;
    if (k->nbare)
        memcpy(b, k->bare, k->nbare * sizeof *b);
    rt_sys_free(k->bare);
    k->bare = b;
    k->cap_bare = cap;
    return true;
}

/* Make up to n of the surplus bare; false when there is none left. */
static bool make_bare(struct size_class *k, unsigned cls, size_t n) {
    rt_futex_lock(&k->lock);
    for (; n > 0 && k->surplus > 0 && k->depot && room_for_bare(k); n--, k->surplus--) {
        struct rt_stack *s = pop_depot(k);
        char *low = s->low;
        k->bare[k->nbare++] = (struct bare){low - guard_bytes(cls), s->valgrind_id};
        rt_sys_discard(low, rt_stack_slot_bytes(cls) - guard_bytes(cls));
    }
    bool more = n == 0 && k->surplus > 0;
    if (!more)
        k->surplus = 0;
    rt_futex_unlock(&k->lock);
    return more;
}

/* A look at the depot: what was not needed since the last one is surplus. */
static void find_surplus(struct size_class *k) {
    k->surplus = k->lowest > DEPOT_KEPT ? k->lowest - DEPOT_KEPT : 0;
    k->lowest = k->cached;
}

int64_t rt_stack_scavenge(int64_t now) {
    if (RT_ASAN || RT_TSAN)
        return INT64_MAX;
    bool look = now >= scavenge_at, more = false, long_depot = false;
    if (look)
        scavenge_at = now + SCAVENGE_PERIOD_NS;
    for (unsigned c = 0; c < RT_STACK_CLASSES; c++) {
        struct size_class *k = &classes[c];
        rt_futex_lock(&k->lock);
        if (look)
            find_surplus(k);
        bool surplus = k->surplus > 0;
        rt_futex_unlock(&k->lock);
        for (int i = 0; surplus && i < SCAVENGE_CHUNKS; i++)
            surplus = make_bare(k, c, SCAVENGE_CHUNK);
        more |= surplus;
        rt_futex_lock(&k->lock);
        long_depot |= k->cached > DEPOT_KEPT;
        rt_futex_unlock(&k->lock);
    }
    return more ? 0 : long_depot ? scavenge_at - now : INT64_MAX;
}
