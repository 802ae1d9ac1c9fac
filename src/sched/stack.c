/* stack.c - slabs of slots, guards, the depot.
 *
 * Each class has slabs (one mmap of many slots) and a depot: slots that were used and are free,
 * guard in place. Order of choice: the P's cache (hot), the depot, a bare slot, a fresh one.
 *
 * Memory goes back. sysmon looks at the depots twice a second: what nobody has needed since the
 * last look, but for a few, is set aside on its slab. A slab all of whose slots are set aside is
 * renewed by a few system calls, as if none had ever been used; its page tables go back, too. Of
 * what is left then each is made bare: its page is given to the system, descriptor and all, the
 * guard and the address are kept. (Only the latter, as it once was, takes 14 us a slot: 20 s for a
 * million, and half a gigabyte of page tables stayed.) So a burst of a million green threads is
 * forgotten within four seconds or so, and a load that comes and goes faster than that keeps its
 * stacks. While no depot is long sysmon sleeps as before. Not under sanitizers, whose contexts live
 * in the descriptors.
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

struct rt_slab {
    struct rt_slab *next;
    struct rt_slab *next_fresh; /* on the list of those with slots that were never used */
    struct rt_slab *next_aside; /* on the list of those with slots that are set aside */
    char *base;
    size_t bytes;
    size_t used;            /* bytes of slots that were handed out at least once */
    struct rt_stack *aside; /* free, with memory; not in the depot any more */
    size_t naside, nbare;
    bool has_aside;         /* on that list */
    uint64_t bare[];        /* a bit each: guarded, and without memory */
};

static struct size_class {
    uint32_t lock;           /* futex lock; protects all below */
    struct rt_slab *slabs;
    struct rt_slab *fresh;
    struct rt_slab *aside;
    struct rt_slab *bare_at; /* where the last bare one was found */
    struct rt_stack *depot;
    size_t cached;           /* in the depot */
    size_t lowest;           /* of cached, since the scavenger's last look */
    size_t surplus;          /* what it still wants of it */
    size_t naside, nbare;
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

static char *slot_at(const struct rt_slab *s, size_t i, unsigned cls) {
    return s->base + i * rt_stack_slot_bytes(cls);
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
        while (k->slabs) {
            struct rt_slab *s = k->slabs;
            k->slabs = s->next;
            for (size_t i = 0; i < s->used / rt_stack_slot_bytes(c); i++)
                if (!(s->bare[i / 64] >> i % 64 & 1))
                    release_slot(descriptor(slot_at(s, i, c), c));
#if RT_ASAN
            __asan_unpoison_memory_region(s->base, s->bytes); /* frames that never returned */
#endif
            rt_sys_unmap(s->base, s->bytes);
            rt_sys_free(s);
        }
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
    struct rt_slab *s = rt_sys_alloc(sizeof *s + (n + 63) / 64 * sizeof s->bare[0]);
    if (!s)
        return -ENOMEM;
    s->bytes = n * slot;
    s->base = rt_sys_map_stacks(s->bytes, slot);
    if (!s->base) {
        rt_sys_free(s);
        return -ENOMEM;
    }
    s->next = k->slabs;
    k->slabs = s;
    s->next_fresh = k->fresh;
    k->fresh = s;
    k->slots += n;
    rt_fetch_add_relaxed(&all_slots, n);
    return 0;
}

int rt_stack_reserve(size_t n) {
    struct size_class *k = &classes[default_class];
    int err = 0;
    rt_futex_lock(&k->lock);
    while (err == 0 && k->slots < k->promised + n)
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

/* The slot at base has its guard. */
static struct rt_stack *describe(struct rt_slab *b, char *base, unsigned cls) {
    struct rt_stack *s = descriptor(base, cls);
    *s = (struct rt_stack){.low = base + guard_bytes(cls), .slab = b, .size_class = cls};
    s->valgrind_id = rt_san_stack_register(s->low, s);
    return s;
}

/* k->lock is held by all of these. */

static struct rt_stack *take_fresh(struct size_class *k, unsigned cls) {
    struct rt_slab *b = k->fresh;
    char *base = b->base + b->used;
    if (rt_sys_guard(base, guard_bytes(cls), &light_guards) != 0)
        return NULL;
    b->used += rt_stack_slot_bytes(cls);
    if (b->used == b->bytes)
        k->fresh = b->next_fresh;
    return describe(b, base, cls);
}

static struct rt_stack *take_bare(struct size_class *k, unsigned cls) {
    struct rt_slab *b = k->bare_at;
    while (!b || b->nbare == 0)
        b = b && b->next ? b->next : k->slabs;
    size_t word = 0;
    while (b->bare[word] == 0)
        word++;
    size_t bit = (size_t)__builtin_ctzll(b->bare[word]);
    b->bare[word] &= b->bare[word] - 1;
    b->nbare--;
    k->nbare--;
    k->bare_at = b;
    return describe(b, slot_at(b, word * 64 + bit, cls), cls);
}

static struct rt_stack *take_aside(struct size_class *k) {
    for (struct rt_slab *b; (b = k->aside) != NULL; k->aside = b->next_aside) {
        struct rt_stack *s = b->aside;
        if (s) {
            b->aside = s->next;
            b->naside--;
            k->naside--;
            return s;
        }
        b->has_aside = false;
    }
    return NULL;
}

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
    if (!s)
        s = take_aside(k);
    if (!s && k->nbare)
        s = take_bare(k, cls);
    else if (!s && (k->fresh || add_slab(k, rt_stack_slot_bytes(cls)) == 0))
        s = take_fresh(k, cls);
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
        *cached += classes[c].cached + classes[c].naside;
        rt_futex_unlock(&classes[c].lock);
    }
}

/* ---- the scavenger --------------------------------------------------------------------------- */

/* All slots of b are set aside or bare: as if none of them had ever been used. */
static void renew(struct size_class *k, struct rt_slab *b, unsigned cls) {
    size_t n = b->bytes / rt_stack_slot_bytes(cls);
    for (struct rt_stack *s = b->aside; s; s = s->next)
        rt_san_stack_deregister(s->valgrind_id);
    int err = rt_sys_renew_stacks(b->base, b->bytes);
    k->naside -= b->naside;
    k->nbare -= b->nbare;
    b->aside = NULL;
    b->naside = b->nbare = 0;
    memset(b->bare, 0, (n + 63) / 64 * sizeof b->bare[0]);
    if (err == -EAGAIN) { /* up to what is locked, their memory is gone, and their descriptors */
        for (size_t i = 0; i < n; i++)
            b->bare[i / 64] |= UINT64_C(1) << i % 64;
        k->nbare += b->nbare = n;
        return;
    }
    b->used = 0;
    if (err) { /* it is mapped no more */
        k->slots -= n;
        rt_fetch_add_relaxed(&all_slots, -n);
        b->bytes = 0;
        return;
    }
    b->next_fresh = k->fresh;
    k->fresh = b;
}

/* The memory of s, with whatever was left on it. */
static void set_aside(struct size_class *k, struct rt_stack *s, unsigned cls, bool *renewed) {
    struct rt_slab *b = s->slab;
    s->next = b->aside;
    b->aside = s;
    b->naside++;
    k->naside++;
    if (!b->has_aside) {
        b->has_aside = true;
        b->next_aside = k->aside;
        k->aside = b;
    }
    if (b->used == b->bytes && b->naside + b->nbare == b->bytes / rt_stack_slot_bytes(cls)) {
        renew(k, b, cls);
        *renewed = true;
    }
}

static void make_bare(struct size_class *k, struct rt_stack *s, unsigned cls) {
    struct rt_slab *b = s->slab;
    char *low = s->low;
    size_t i = (size_t)(low - b->base) / rt_stack_slot_bytes(cls);
    rt_san_stack_deregister(s->valgrind_id);
    b->bare[i / 64] |= UINT64_C(1) << i % 64;
    b->nbare++;
    k->nbare++;
    rt_sys_discard(low, rt_stack_slot_bytes(cls) - guard_bytes(cls));
}

/* Go on with it for a moment; false when there is nothing left to be done. */
static bool give_back(struct size_class *k, unsigned cls) {
    rt_futex_lock(&k->lock);
    int n = SCAVENGE_CHUNK;
    bool renewed = false;
    for (; n > 0 && k->surplus > 0 && k->depot && !renewed; n--, k->surplus--)
        set_aside(k, pop_depot(k), cls, &renewed);
    if (!k->depot)
        k->surplus = 0;
    struct rt_stack *s = NULL;
    for (; k->surplus == 0 && n > 0 && (s = take_aside(k)) != NULL; n--)
        make_bare(k, s, cls);
    bool more = k->surplus > 0 || k->naside > 0;
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
        bool some = k->surplus > 0 || k->naside > 0;
        rt_futex_unlock(&k->lock);
        for (int i = 0; some && i < SCAVENGE_CHUNKS; i++)
            some = give_back(k, c);
        more |= some;
        rt_futex_lock(&k->lock);
        long_depot |= k->cached > DEPOT_KEPT;
        rt_futex_unlock(&k->lock);
    }
    return more ? 0 : long_depot ? scavenge_at - now : INT64_MAX;
}
