/* inbox.c - see inbox.h. The array doubles when it is full; it is allocated outside the lock, which
 * spins. A letter that was taken keeps its room until it is settled: to put it back cannot fail,
 * since somebody waits for each. */
#include "netpoll/inbox.h"

#include "base/lock.h"
#include "base/sys.h"

#include <string.h>

void rt_inbox_init(struct rt_inbox *b) {
    *b = (struct rt_inbox){.cap = RT_INBOX_FIRST, .items = b->first};
}

void rt_inbox_free(struct rt_inbox *b) {
    if (b->items != b->first)
        rt_sys_free(b->items);
    rt_inbox_init(b);
}

/* Lock held: a larger array, unless somebody else has made one. What is left over is returned. */
static uint64_t *grow(struct rt_inbox *b, uint64_t *fresh, uint32_t cap) {
    if (cap <= b->cap)
        return fresh;
    memcpy(fresh, b->items, b->n * sizeof *fresh);
    uint64_t *old = b->items == b->first ? NULL : b->items;
    b->items = fresh;
    b->cap = cap;
    return old;
}

bool rt_inbox_post(struct rt_inbox *b, uint64_t item) {
    for (;;) {
        rt_lock(&b->lock);
        uint32_t cap = b->cap;
        bool done = b->n + b->lent < cap;
        if (done) {
            b->items[b->n] = item;
            rt_store_relaxed(&b->n, b->n + 1);
        }
        rt_unlock(&b->lock);
        if (done)
            return true;
        uint64_t *fresh = rt_sys_alloc(2 * (size_t)cap * sizeof *fresh);
        if (!fresh)
            return false;
        rt_lock(&b->lock);
        uint64_t *old = grow(b, fresh, 2 * cap);
        rt_unlock(&b->lock);
        rt_sys_free(old);
    }
}

uint32_t rt_inbox_take_some(struct rt_inbox *b, uint64_t *out, uint32_t max, uint64_t mask,
                            uint64_t is) {
    if (!rt_inbox_any(b))
        return 0;
    rt_lock(&b->lock);
    uint32_t n = 0, stay = 0;
    for (uint32_t i = 0; i < b->n; i++)
        if (n < max && (b->items[i] & mask) == is)
            out[n++] = b->items[i];
        else
            b->items[stay++] = b->items[i];
    rt_store_relaxed(&b->n, stay);
    b->lent += n;
    rt_unlock(&b->lock);
    return n;
}

uint32_t rt_inbox_take(struct rt_inbox *b, uint64_t *out, uint32_t max) {
    return rt_inbox_take_some(b, out, max, 0, 0);
}

void rt_inbox_settle(struct rt_inbox *b, const uint64_t *items, uint32_t n, uint32_t left) {
    rt_lock(&b->lock);
    b->lent -= n;
    memcpy(b->items + b->n, items + n - left, left * sizeof *items);
    rt_store_relaxed(&b->n, b->n + left);
    rt_unlock(&b->lock);
}
