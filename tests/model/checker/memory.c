/* memory.c - what a load may see. The machine is told in checker.h. */
#include "checker.h"

#include <string.h>

/* ---- knowledge ------------------------------------------------------------------------------- */

static void join_view(struct view *a, const struct view *b) {
    for (int i = 0; i < LOCS; i++)
        a->at[i] = a->at[i] > b->at[i] ? a->at[i] : b->at[i];
}

static void join(struct knowledge *a, const struct knowledge *b) {
    for (int i = 0; i < THREADS; i++)
        a->hb.at[i] = a->hb.at[i] > b->hb.at[i] ? a->hb.at[i] : b->hb.at[i];
    join_view(&a->seen, &b->seen);
}

static bool acquires(unsigned order) {
    return order == MODEL_ACQUIRE || order >= MODEL_ACQ_REL;
}

static bool releases(unsigned order) {
    return order >= MODEL_RELEASE;
}

/* What a thread does after an operation does not happen before what saw the operation. */
static void tick(struct thread *t) {
    t->now.hb.at[t->id]++;
}

void memory_reset(void) {
    C->nlocs = 0;
    C->pool_used = 0;
    C->sparse_used = 0;
    C->locs_hash = C->sc_hash = C->heavy_hash = 0;
    memset(&C->sc, 0, sizeof C->sc);
    memset(&C->heavy, 0, sizeof C->heavy);
}

/* ---- words ----------------------------------------------------------------------------------- */

static uint64_t peek(uintptr_t addr, unsigned size) {
    uint64_t v = 0;
    memcpy(&v, (const void *)addr, size);
    return v;
}

static void poke(uintptr_t addr, unsigned size, uint64_t v) {
    memcpy((void *)addr, &v, size);
}

static struct store *append(struct loc *l) {
    if (l->n == STORES)
        model_fail("more than %d stores to one word", STORES);
    struct store *s = &C->pool[C->pool_used++];
    l->stores[l->n++] = s;
    return s;
}

static struct loc *make_loc(uintptr_t addr, unsigned size) {
    if (C->nlocs == LOCS)
        model_fail("more than %d atomic words", LOCS);
    int id = C->nlocs++;
    struct loc *l = &C->locs[id];
    l->addr = addr;
    l->size = size;
    l->n = 0;
    l->hash = 0;
    *append(l) = (struct store){.value = peek(addr, size), .hash = 1, .writer = -1};
    race_granule(addr)->loc = (int16_t)id;
    if (size == 8)
        race_granule(addr + 4)->loc = (int16_t)id;
    return l;
}

int memory_loc_at(uintptr_t addr, unsigned size) {
    int id = race_granule(addr)->loc;
    struct loc *l = id >= 0 ? &C->locs[id] : make_loc(addr, size);
    if (l->addr != addr || l->size != size)
        model_fail("atomic accesses of different sizes, first the larger one, at %p", (void *)addr);
    return (int)(l - C->locs);
}

/* Eight bytes of which a half is a word of its own: gort's mutex and waitgroup end with one store
 * to both of their words. */
static bool is_pair(uintptr_t addr, unsigned size) {
    if (size != 8)
        return false;
    int lo = race_granule(addr)->loc, hi = race_granule(addr + 4)->loc;
    return (lo >= 0 && C->locs[lo].size == 4) || (hi >= 0 && C->locs[hi].size == 4);
}

static struct store *newest(struct loc *l) {
    struct store *s = l->stores[l->n - 1];
    if (s->lazy) {
        s->value = peek(l->addr, l->size);
        s->lazy = false;
    }
    return s;
}

void memory_plain_store(int id, uintptr_t addr, unsigned bytes) {
    struct loc *l = &C->locs[id];
    if (addr + bytes <= l->addr || addr >= l->addr + l->size)
        return; /* its neighbour in the same four bytes */
    struct thread *t = C->cur;
    struct store *s = l->stores[l->n - 1];
    if (!s->lazy || s->writer != t->id) {
        s = append(l);
        memset(&s->carries, 0, sizeof s->carries);
    }
    s->lazy = true;
    s->writer = (int8_t)t->id;
    s->hash = mix(t->hash, l->addr);
    t->now.seen.at[id] = (uint8_t)(l->n - 1);
}

bool memory_changed(int id, unsigned read, int but_by, unsigned *first) {
    struct loc *l = &C->locs[id];
    for (unsigned i = read + 1; i < l->n; i++)
        if (l->stores[i]->writer != but_by) {
            *first = i;
            return true;
        }
    return false;
}

/* ---- reading and writing a word -------------------------------------------------------------- */

static unsigned oldest_visible(const struct thread *t, int id, unsigned order) {
    unsigned oldest = t->now.seen.at[id];
    if (t->stale[id].store == oldest && t->stale[id].times >= STALE_READS)
        oldest++; /* there is a newer one */
    if (order == MODEL_SEQ_CST && C->sc.at[id] > oldest)
        oldest = C->sc.at[id];
    return oldest;
}

static void watch(struct thread *t, int id, unsigned k) {
    unsigned i = 0;
    while (i < t->nwatch && t->watch[i].loc != id)
        i++;
    if (i == t->nwatch) {
        if (t->nwatch == WATCHED) {
            memmove(t->watch, t->watch + 1, sizeof t->watch - sizeof t->watch[0]);
            i--;
        } else {
            t->nwatch++;
        }
    }
    t->watch[i].loc = (int16_t)id;
    t->watch[i].read = (uint8_t)k;
}

static uint64_t read_store(struct thread *t, int id, unsigned k, unsigned order) {
    struct loc *l = &C->locs[id];
    struct store *s = k == l->n - 1 ? newest(l) : l->stores[k];
    if (k != l->n - 1) {
        t->stale[id].times = t->stale[id].store == k ? t->stale[id].times + 1 : 1;
        t->stale[id].store = (uint8_t)k;
    }
    t->now.seen.at[id] = (uint8_t)k;
    join(acquires(order) ? &t->now : &t->loaded, &s->carries);
    t->hash = mix(mix(t->hash, l->addr), s->hash);
    watch(t, id, k);
    return s->value;
}

static void write_store(struct thread *t, int id, uint64_t v, unsigned order,
                        const struct store *continues) {
    struct loc *l = &C->locs[id];
    newest(l); /* a plain store before keeps its value */
    struct store *s = append(l);
    uint8_t k = (uint8_t)(l->n - 1);
    t->now.seen.at[id] = k;
    t->hash = mix(t->hash, l->addr + 1);
    t->stores++;
    C->stores++;
    s->value = v;
    s->writer = (int8_t)t->id;
    s->lazy = false;
    s->carries = releases(order) ? t->now : t->fenced;
    s->carries.seen.at[id] = k;
    if (continues)
        join(&s->carries, &continues->carries); /* the release sequence goes on */
    if (order == MODEL_SEQ_CST)
        C->sc.at[id] = k;
    s->hash = t->hash;
    C->locs_hash -= mix(l->hash, l->addr);
    l->hash = mix(l->hash, s->hash);
    C->locs_hash += mix(l->hash, l->addr);
    poke(l->addr, l->size, v);
}

static uint64_t truncated(uint64_t v, unsigned size) {
    return size == 8 ? v : v & ((UINT64_C(1) << size * 8) - 1);
}

static const char *age(int id, unsigned k) {
    static char text[32];
    text[0] = 0;
    unsigned behind = C->locs[id].n - 1 - k;
    if (behind)
        __builtin_snprintf(text, sizeof text, "   (stale: %u newer)", behind);
    return text;
}

/* ---- operations ------------------------------------------------------------------------------ */

static bool apart(const volatile void *p) {
    return !C || !C->active || ignored((uintptr_t)p);
}

uint64_t model_load(const volatile void *p, unsigned size, struct model_site *s) {
    uintptr_t addr = (uintptr_t)p;
    if (apart(p))
        return peek(addr, size);
    struct thread *t = C->cur;
    if (t->hurry) { /* the rest of a loop that gives up: it sees nothing new */
        int known = race_granule(addr)->loc;
        for (unsigned i = 0; i < t->nwatch; i++)
            if (t->watch[i].loc == known)
                return C->locs[known].stores[t->watch[i].read]->value;
        t->hurry = false;
    }
    explore_point(addr, false);
    race_atomic(addr, size, false, s);
    if (is_pair(addr, size))
        model_fail("a load of two words at once is not modelled");
    int id = memory_loc_at(addr, size);
    unsigned oldest = oldest_visible(t, id, s->order), n = C->locs[id].n;
    unsigned k = n - 1 - explore_choose_store(n - oldest);
    uint64_t v = read_store(t, id, k, s->order);
    tick(t);
    report_step(s, "%#llx%s", (unsigned long long)v, age(id, k));
    return v;
}

static void two_words(struct thread *t, uintptr_t addr, uint64_t v, unsigned order, bool rmw) {
    int lo = memory_loc_at(addr, 4), hi = memory_loc_at(addr + 4, 4);
    struct store *old_lo = newest(&C->locs[lo]), *old_hi = newest(&C->locs[hi]);
    write_store(t, lo, truncated(v, 4), order, rmw ? old_lo : NULL);
    write_store(t, hi, v >> 32, order, rmw ? old_hi : NULL);
    C->locs[lo].stores[C->locs[lo].n - 1]->carries.seen.at[hi] = (uint8_t)(C->locs[hi].n - 1);
}

void model_store(volatile void *p, unsigned size, uint64_t v, struct model_site *s) {
    uintptr_t addr = (uintptr_t)p;
    v = truncated(v, size);
    if (apart(p)) {
        poke(addr, size, v);
        return;
    }
    struct thread *t = C->cur;
    explore_point(addr, true);
    race_atomic(addr, size, true, s);
    if (is_pair(addr, size))
        two_words(t, addr, v, s->order, false);
    else
        write_store(t, memory_loc_at(addr, size), v, s->order, NULL);
    tick(t);
    report_step(s, "= %#llx", (unsigned long long)v);
}

static uint64_t combine(enum model_rmw_kind kind, uint64_t old, uint64_t v) {
    switch (kind) {
    case MODEL_EXCHANGE:
        return v;
    case MODEL_ADD:
        return old + v;
    case MODEL_SUB:
        return old - v;
    case MODEL_OR:
        return old | v;
    default:
        return old & v;
    }
}

uint64_t model_rmw(volatile void *p, unsigned size, enum model_rmw_kind kind, uint64_t v,
                   struct model_site *s) {
    uintptr_t addr = (uintptr_t)p;
    if (apart(p)) {
        uint64_t old = peek(addr, size);
        poke(addr, size, combine(kind, old, v));
        return old;
    }
    struct thread *t = C->cur;
    explore_point(addr, true);
    race_atomic(addr, size, true, s);
    int id = memory_loc_at(addr, size);
    struct store *before = newest(&C->locs[id]);
    uint64_t old = read_store(t, id, C->locs[id].n - 1, s->order);
    uint64_t made = truncated(combine(kind, old, v), size);
    write_store(t, id, made, s->order, before);
    tick(t);
    report_step(s, "%#llx -> %#llx", (unsigned long long)old, (unsigned long long)made);
    return old;
}

static bool cas_two_words(struct thread *t, uintptr_t addr, uint64_t *expected, uint64_t v,
                          struct model_site *s) {
    int lo = memory_loc_at(addr, 4), hi = memory_loc_at(addr + 4, 4);
    uint64_t old = newest(&C->locs[lo])->value | newest(&C->locs[hi])->value << 32;
    bool ok = old == *expected;
    unsigned order = ok ? s->order : s->fail_order;
    read_store(t, lo, C->locs[lo].n - 1, order);
    read_store(t, hi, C->locs[hi].n - 1, order);
    if (ok)
        two_words(t, addr, v, order, true);
    *expected = old;
    return ok;
}

/* It succeeds on the newest store only, but it may fail on an older one. */
static bool cas_one_word(struct thread *t, uintptr_t addr, unsigned size, uint64_t *expected,
                         uint64_t v, struct model_site *s) {
    int id = memory_loc_at(addr, size);
    struct loc *l = &C->locs[id];
    unsigned top = l->n - 1, others = 0, oldest = oldest_visible(t, id, s->fail_order);
    struct store *before = newest(l);
    for (unsigned k = oldest; k < top; k++)
        others += l->stores[k]->value != *expected;
    unsigned pick = explore_choose_store(1 + others), k = top;
    while (pick > 0)
        pick -= l->stores[--k]->value != *expected;
    bool ok = k == top && before->value == *expected;
    *expected = read_store(t, id, k, ok ? s->order : s->fail_order);
    if (ok)
        write_store(t, id, truncated(v, size), s->order, before);
    return ok;
}

bool model_cas(volatile void *p, unsigned size, void *expected, uint64_t v, struct model_site *s) {
    uintptr_t addr = (uintptr_t)p;
    uint64_t want = peek((uintptr_t)expected, size), old = want;
    bool ok;
    if (apart(p)) {
        old = peek(addr, size);
        ok = old == want;
        if (ok)
            poke(addr, size, v);
    } else {
        struct thread *t = C->cur;
        explore_point(addr, true);
        race_atomic(addr, size, true, s);
        if (is_pair(addr, size))
            ok = cas_two_words(t, addr, &old, v, s);
        else
            ok = cas_one_word(t, addr, size, &old, v, s);
        tick(t);
        report_step(s, ok ? "%#llx -> %#llx" : "is %#llx: failed", (unsigned long long)old,
                    (unsigned long long)truncated(v, size));
    }
    if (!ok)
        poke((uintptr_t)expected, size, old);
    return ok;
}

/* ---- fences ---------------------------------------------------------------------------------- */

void memory_full_fence(void) {
    struct thread *t = C->cur;
    join(&t->now, &t->loaded);
    join_view(&t->now.seen, &C->sc);
    join_view(&C->sc, &t->now.seen);
    t->fenced = t->now;
    t->hash = mix(t->hash, C->sc_hash);
    C->sc_hash += mix(t->hash, 2);
    tick(t);
}

static void heavy_fence(struct thread *t) {
    memory_full_fence();
    for (unsigned i = 0; i < C->nthreads; i++) {
        join_view(&t->now.seen, &C->threads[i].light);
        t->hash = mix(t->hash, C->threads[i].light_hash);
    }
    join_view(&C->sc, &t->now.seen);
    C->heavy = C->sc;
    t->fenced = t->now;
    C->heavy_hash = t->hash;
}

static void light_fence(struct thread *t) {
    join_view(&t->now.seen, &C->heavy);
    t->light = t->now.seen;
    t->hash = mix(t->hash, C->heavy_hash);
    t->light_hash = t->hash;
}

void model_fence(struct model_site *s) {
    if (!C || !C->active)
        return;
    if (s->order == MODEL_FENCE_NONE)
        return;
    explore_point(0, false);
    if (s->order == MODEL_FENCE_FULL || !rt_asymmetric)
        memory_full_fence();
    else if (s->order == MODEL_FENCE_LIGHT)
        light_fence(C->cur);
    else
        heavy_fence(C->cur);
    report_step(s, " ");
}

/* ---- the kernel ------------------------------------------------------------------------------ */

const struct model_site memory_kernel_site = {.file = "kernel", .name = "futex"};

uint32_t memory_kernel_load(uint32_t *word) {
    race_atomic((uintptr_t)word, 4, false, &memory_kernel_site);
    int id = memory_loc_at((uintptr_t)word, 4);
    return (uint32_t)read_store(C->cur, id, C->locs[id].n - 1, MODEL_RELAXED);
}
