/* g.c - slabs and free lists of struct rt_g. */
#include "sched/g.h"

#include "base/lock.h"
#include "base/sys.h"
#include "sched/stack.h"

#include <errno.h>

enum { SLAB_GS = 128, BATCH = 128, MAX_CACHE = 1280, ID_BATCH = 1 << 16 };

struct slab {
    struct slab *next;
    size_t n;
    struct rt_g gs[];
};

static struct {
    uint32_t lock;        /* futex lock; protects all but the reads of slabs */
    struct slab *slabs;   /* pushed with release: rt_g_each walks it with acquire */
    struct rt_g *depot;
    size_t total;         /* Gs in all slabs */
    size_t max;
    uint64_t next_id;
} all;

uint32_t rt_g_cache;

void rt_g_share(uint32_t procs) {
    size_t share = all.max / 64 / procs;
    rt_store_relaxed(&rt_g_cache, share < MAX_CACHE ? (uint32_t)share : MAX_CACHE);
}

void rt_g_start(size_t max_tasks) {
    all.max = max_tasks;
    rt_g_share(rt.procs);
    if (rt_load_relaxed(&all.next_id) == 0)
        rt_store_relaxed(&all.next_id, 1); /* ids go on after a restart: never used twice */
}

void rt_g_stop(void) {
    while (all.slabs) {
        struct slab *s = all.slabs;
        all.slabs = s->next;
        rt_sys_free(s);
    }
    all.depot = NULL;
    all.total = 0;
}

/* all.lock is held. */
static int add_slab(void) {
    size_t n = SLAB_GS;
    if (all.total >= all.max)
        return -EAGAIN;
    if (n > all.max - all.total)
        n = all.max - all.total;
    int err = rt_stack_reserve(n);
    if (err)
        return err;
    struct slab *s = rt_sys_alloc_aligned(sizeof *s + n * sizeof s->gs[0], RT_CACHE_LINE);
    if (!s) {
        rt_stack_unreserve(n);
        return -ENOMEM;
    }
    s->n = n;
    for (size_t i = n; i-- > 0;) {
        struct rt_g *g = &s->gs[i];
        g->limit = g->timer_when = g->wait_deadline = INT64_MAX;
        g->next = all.depot;
        all.depot = g;
    }
    all.total += n;
    s->next = all.slabs;
    rt_store_release(&all.slabs, s); /* pairs with the acquire in rt_g_each */
    return 0;
}

int rt_g_refill_owner(struct rt_p *p) {
    rt_futex_lock(&all.lock);
    int err = all.depot ? 0 : add_slab();
    uint32_t cache = rt_load_relaxed(&rt_g_cache);
    uint32_t batch = cache < BATCH ? cache + 1 : BATCH;
    for (uint32_t i = 0; i < batch && all.depot; i++) {
        struct rt_g *g = all.depot;
        all.depot = g->next;
        g->next = p->gfree;
        p->gfree = g;
        p->ngfree++;
    }
    rt_futex_unlock(&all.lock);
    return err;
}

static void keep(struct rt_p *p, uint32_t n) {
    rt_futex_lock(&all.lock);
    while (p->ngfree > n) {
        struct rt_g *g = p->gfree;
        p->gfree = g->next;
        p->ngfree--;
        g->next = all.depot;
        all.depot = g;
    }
    rt_futex_unlock(&all.lock);
}

void rt_g_trim_owner(struct rt_p *p) {
    keep(p, rt_load_relaxed(&rt_g_cache) / 2);
}

void rt_g_flush(struct rt_p *p) {
    keep(p, 0);
}

struct rt_g *rt_g_get(int *err) {
    rt_futex_lock(&all.lock);
    *err = all.depot ? 0 : add_slab();
    struct rt_g *g = all.depot;
    if (g)
        all.depot = g->next;
    rt_futex_unlock(&all.lock);
    return g;
}

void rt_g_put(struct rt_g *g) {
    rt_futex_lock(&all.lock);
    g->next = all.depot;
    all.depot = g;
    rt_futex_unlock(&all.lock);
}

void rt_g_each(bool (*fn)(struct rt_g *g, void *arg), void *arg) {
    for (struct slab *s = rt_load_acquire(&all.slabs); s; s = s->next)
        for (size_t i = 0; i < s->n; i++)
            if (!fn(&s->gs[i], arg))
                return;
}

void rt_g_ids(uint64_t *first, uint64_t *end) {
    *first = rt_fetch_add_relaxed(&all.next_id, ID_BATCH);
    *end = *first + ID_BATCH;
}

uint64_t rt_g_one_id(void) {
    return rt_fetch_add_relaxed(&all.next_id, 1);
}
