/* race.c - data races, and the calls that -fsanitize=thread puts before each plain access. */
#include "checker.h"

#include <string.h>

enum { PAGE_0 = 4096 };

/* ---- what was done to each word -------------------------------------------------------------- */

void race_reset(void) {
    C->generation++;
    C->cells_used = 0;
    C->ngone = 0;
}

static bool is_gone(uintptr_t addr) {
    for (unsigned i = 0; i < C->ngone; i++)
        if (addr >= C->gone[i].from && addr < C->gone[i].to)
            return true;
    return false;
}

/* Four bytes of memory; open addressing, forgotten by a new generation. */
struct granule *race_granule(uintptr_t addr) {
    uintptr_t key = addr >> 2;
    for (size_t i = key % GRANULES, n = 0; n < GRANULES; n++) {
        struct granule *g = &C->granules[i];
        if (g->generation != C->generation) {
            *g = (struct granule){.key = key, .generation = C->generation, .loc = -1};
            g->cell.gone = is_gone(addr);
            return g;
        }
        if (g->key == key)
            return g;
        i = (i + 1) % GRANULES;
    }
    model_fail("the model touches too much memory");
}

static void complain(uintptr_t addr, const char *mine, const void *pc, const struct model_site *s,
                     int other, const char *theirs, const void *other_pc,
                     const struct model_site *other_site) {
    char a[256], b[256];
    model_fail("data race at %p: T%d %s at %s, T%d %s at %s", (void *)addr, C->cur->id, mine,
               place(a, sizeof a, pc, s), other, theirs, place(b, sizeof b, other_pc, other_site));
}

static void check_cell(struct cell *c, uintptr_t addr, bool write, const void *pc,
                       const struct model_site *s) {
    const uint32_t *seen = C->cur->now.hb.at;
    int me = C->cur->id;
    const char *mine = s ? "atomic access" : write ? "write" : "read";
    if (c->gone) {
        char a[256];
        model_fail("T%d touches %p, which is gone, at %s", me, (void *)addr,
                   place(a, sizeof a, pc, s));
    }
    if (c->w > seen[c->wt])
        complain(addr, mine, pc, s, c->wt, "write", c->w_pc, NULL);
    for (int u = 0; u < THREADS; u++) {
        if (write && c->r[u] > seen[u])
            complain(addr, mine, pc, s, u, "read", c->r_pc[u], NULL);
        if (!s && (c->aw[u] > seen[u] || (write && c->ar[u] > seen[u])))
            complain(addr, mine, pc, s, u, "atomic access", NULL, c->a_site[u]);
    }
    if (s) {
        (write ? c->aw : c->ar)[me] = seen[me];
        c->a_site[me] = s;
    } else if (write) {
        c->w = seen[me];
        c->wt = (int8_t)me;
        c->w_pc = pc;
    } else {
        c->r[me] = seen[me];
        c->r_pc[me] = pc;
    }
}

/* An access to single bytes: from now on each has a cell of its own. */
static void split(struct granule *g) {
    if (g->bytes)
        return;
    if (C->cells_used + 4 > CELLS)
        model_fail("the model touches too many single bytes");
    g->bytes = &C->cells[C->cells_used];
    C->cells_used += 4;
    for (int i = 0; i < 4; i++)
        g->bytes[i] = g->cell;
}

static void access_granule(uintptr_t addr, unsigned bytes, bool write, const void *pc,
                           const struct model_site *s) {
    struct granule *g = race_granule(addr);
    if (bytes < 4)
        split(g);
    if (!g->bytes)
        check_cell(&g->cell, addr, write, pc, s);
    for (unsigned i = 0; g->bytes && i < bytes; i++)
        check_cell(&g->bytes[addr % 4 + i], addr + i, write, pc, s);
    if (write && !s && g->loc >= 0)
        memory_plain_store(g->loc, addr, bytes);
}

static void access_range(uintptr_t addr, size_t bytes, bool write, const void *pc,
                         const struct model_site *s) {
    if (addr < PAGE_0)
        model_fail("T%d follows a NULL pointer", C->cur->id);
    while (bytes > 0) {
        size_t n = 4 - addr % 4;
        if (n > bytes)
            n = bytes;
        access_granule(addr, (unsigned)n, write, pc, s);
        addr += n;
        bytes -= n;
    }
}

void race_atomic(uintptr_t addr, unsigned size, bool write, const struct model_site *s) {
    access_range(addr, size, write, NULL, s);
}

static void gone(struct granule *g, const void *pc) {
    access_granule(g->key << 2, 4, true, pc, NULL);
    for (int i = 0; i < 4; i++)
        (g->bytes ? &g->bytes[i] : &g->cell)->gone = true;
}

void race_gone(uintptr_t addr, size_t bytes) {
    for (uintptr_t a = addr; a < addr + bytes; a += 4)
        gone(race_granule(a), __builtin_return_address(0));
}

void race_gone_sparse(uintptr_t addr, size_t bytes) {
    if (C->ngone == GONE)
        model_fail("the model frees too much");
    for (struct granule *g = C->granules; g < C->granules + GRANULES; g++)
        if (g->generation == C->generation && g->key << 2 >= addr && g->key << 2 < addr + bytes)
            gone(g, __builtin_return_address(0));
    C->gone[C->ngone++] = (struct range){addr, addr + bytes};
}

static void plain(const volatile void *p, size_t bytes, bool write, const void *pc) {
    if (C && C->active && !ignored((uintptr_t)p))
        access_range((uintptr_t)p, bytes, write, pc, NULL);
}

/* ---- what the compiler calls ----------------------------------------------------------------- */

#define ACCESS(n) \
    void __tsan_read##n(void *p); \
    void __tsan_read##n(void *p) { \
        plain(p, n, false, __builtin_return_address(0)); \
    } \
    void __tsan_write##n(void *p); \
    void __tsan_write##n(void *p) { \
        plain(p, n, true, __builtin_return_address(0)); \
    } \
    void __tsan_unaligned_read##n(void *p); \
    void __tsan_unaligned_read##n(void *p) { \
        plain(p, n, false, __builtin_return_address(0)); \
    } \
    void __tsan_unaligned_write##n(void *p); \
    void __tsan_unaligned_write##n(void *p) { \
        plain(p, n, true, __builtin_return_address(0)); \
    }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)

void __tsan_read_range(void *p, size_t n);
void __tsan_read_range(void *p, size_t n) {
    plain(p, n, false, __builtin_return_address(0));
}
void __tsan_write_range(void *p, size_t n);
void __tsan_write_range(void *p, size_t n) {
    plain(p, n, true, __builtin_return_address(0));
}
void __tsan_init(void);
void __tsan_init(void) {
}
void __tsan_func_entry(void *pc);
void __tsan_func_entry(void *pc) {
    (void)pc;
}
void __tsan_func_exit(void);
void __tsan_func_exit(void) {
}

/* An __atomic builtin would be __tsan_atomic32_load and so on, which nobody defines: the model does
 * not link. These three come here by include/prefix.h. */
void *model_memcpy(void *to, const void *from, size_t n) {
    plain(from, n, false, __builtin_return_address(0));
    plain(to, n, true, __builtin_return_address(0));
    return memcpy(to, from, n);
}

void *model_memmove(void *to, const void *from, size_t n) {
    plain(from, n, false, __builtin_return_address(0));
    plain(to, n, true, __builtin_return_address(0));
    return memmove(to, from, n);
}

void *model_memset(void *to, int c, size_t n) {
    plain(to, n, true, __builtin_return_address(0));
    return memset(to, c, n);
}
