/* inbox.h - requests that other threads leave for the owner of a ring: a few words under a lock.
 *
 * Rare (a close, a foreign thread), so it is the simplest thing that is right. `n` is also read
 * without the lock: the poster rings afterwards (rt_fd_kick), so a stale 0 is looked at again. */
#ifndef RT_INBOX_H
#define RT_INBOX_H

#include "base/atomic.h"

#include <stdbool.h>
#include <stdint.h>

enum { RT_INBOX_FIRST = 16 };

struct rt_inbox {
    uint32_t lock;
    uint32_t n, cap; /* n + lent <= cap */
    uint32_t lent;   /* room kept for what was taken and may come back */
    uint64_t *items;
    uint64_t first[RT_INBOX_FIRST];
};

void rt_inbox_init(struct rt_inbox *b);
void rt_inbox_free(struct rt_inbox *b);
/* Any thread. False: out of memory. */
bool rt_inbox_post(struct rt_inbox *b, uint64_t item);
/* Owner, or its heir: up to max items, in the order in which they were posted. */
uint32_t rt_inbox_take(struct rt_inbox *b, uint64_t *out, uint32_t max);
/* Of them those whose bits `mask` are `is`; the others stay where they are. */
uint32_t rt_inbox_take_some(struct rt_inbox *b, uint64_t *out, uint32_t max, uint64_t mask,
                            uint64_t is);
/* After a take of n > 0: the last `left` of these items could not be served and are posted again,
 * behind what has come meanwhile. Needs no memory. */
void rt_inbox_settle(struct rt_inbox *b, const uint64_t *items, uint32_t n, uint32_t left);

static inline bool rt_inbox_any(const struct rt_inbox *b) {
    return rt_load_relaxed(&b->n) != 0;
}

#endif
