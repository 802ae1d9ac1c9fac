/* inbox.c - see inbox.h. The array doubles when it is full; it is allocated outside the lock, which
 * spins. */
#include "netpoll/inbox.h"

#include "base/lock.h"
#include "base/sys.h"

#include <errno.h>
#include <string.h>

void rt_inbox_init(struct rt_inbox *b) {
    *b = (struct rt_inbox){.cap = RT_INBOX_FIRST, .items = b->first, .closed = true};
}

void rt_inbox_free(struct rt_inbox *b) {
    if (b->items != b->first)
        rt_sys_free(b->items);
    rt_inbox_init(b);
}

/* ---- under the lock -------------------------------------------------------------------------- */

static uint32_t there(const struct rt_inbox *b) {
    return b->kept + b->waiting;
}

static void add_waiting(struct rt_inbox *b, uint64_t letter) {
    b->items[there(b)] = letter;
    rt_store_relaxed(&b->waiting, b->waiting + 1);
}

static void add_kept(struct rt_inbox *b, uint64_t letter) {
    b->items[there(b)] = b->items[b->kept];
    b->items[b->kept++] = letter;
}

static uint64_t remove_waiting(struct rt_inbox *b, uint32_t i) {
    uint64_t letter = b->items[i];
    b->items[i] = b->items[there(b) - 1];
    rt_store_relaxed(&b->waiting, b->waiting - 1);
    return letter;
}

static void remove_kept(struct rt_inbox *b, uint32_t i) {
    b->items[i] = b->items[b->kept - 1];
    b->items[b->kept - 1] = b->items[there(b) - 1];
    b->kept--;
}

/* A larger array, unless somebody else has made one. What is left over is returned. */
static uint64_t *grow(struct rt_inbox *b, uint64_t *fresh, uint32_t cap) {
    if (cap <= b->cap)
        return fresh;
    memcpy(fresh, b->items, there(b) * sizeof *fresh);
    uint64_t *old = b->items == b->first ? NULL : b->items;
    b->items = fresh;
    b->cap = cap;
    return old;
}

/* ---- calls ----------------------------------------------------------------------------------- */

/* Room for one more, and the lock; or neither. */
static int lock_with_room(struct rt_inbox *b) {
    for (;;) {
        rt_lock(&b->lock);
        uint32_t cap = b->cap;
        if (there(b) + b->lent < cap)
            return 0;
        rt_unlock(&b->lock);
        uint64_t *fresh = rt_sys_alloc(2 * (size_t)cap * sizeof *fresh);
        if (!fresh)
            return -ENOMEM;
        rt_lock(&b->lock);
        uint64_t *old = grow(b, fresh, 2 * cap);
        rt_unlock(&b->lock);
        rt_sys_free(old);
    }
}

int rt_inbox_post(struct rt_inbox *b, uint64_t letter) {
    int err = lock_with_room(b);
    if (err)
        return err;
    if (b->closed)
        err = -ESHUTDOWN;
    else
        add_waiting(b, letter);
    rt_unlock(&b->lock);
    return err;
}

int rt_inbox_post_or_note(struct rt_inbox *b, uint64_t letter) {
    int err = lock_with_room(b);
    if (err)
        rt_lock(&b->lock);
    if (!b->closed && err == 0)
        add_waiting(b, letter);
    else if (b->closed && err == 0)
        add_kept(b, letter);
    else if (b->closed)
        b->all = true;
    if (b->closed)
        err = -ESHUTDOWN;
    rt_unlock(&b->lock);
    return err;
}

int rt_inbox_keep(struct rt_inbox *b, uint64_t letter) {
    int err = lock_with_room(b);
    if (err)
        return err;
    add_kept(b, letter);
    rt_unlock(&b->lock);
    return 0;
}

bool rt_inbox_take(struct rt_inbox *b, uint64_t *letter) {
    if (!rt_inbox_any(b)) /* nobody but the owner takes away */
        return false;
    rt_lock(&b->lock);
    *letter = b->taken = remove_waiting(b, b->kept);
    b->lent = 1;
    rt_unlock(&b->lock);
    return true;
}

void rt_inbox_keep_taken(struct rt_inbox *b, uint64_t letter) {
    rt_lock(&b->lock);
    add_kept(b, letter);
    b->lent = 0;
    rt_unlock(&b->lock);
}

void rt_inbox_put_back(struct rt_inbox *b, uint64_t letter) {
    rt_lock(&b->lock);
    add_waiting(b, letter);
    b->lent = 0;
    rt_unlock(&b->lock);
}

void rt_inbox_done(struct rt_inbox *b) {
    rt_lock(&b->lock);
    b->lent = 0;
    rt_unlock(&b->lock);
}

bool rt_inbox_forget(struct rt_inbox *b, uint64_t letter) {
    rt_lock(&b->lock);
    uint32_t n = there(b), i = 0;
    while (i < n && b->items[i] != letter)
        i++;
    if (i < b->kept)
        remove_kept(b, i);
    else if (i < n)
        remove_waiting(b, i);
    if (there(b) + b->lent == 0 && !b->all)
        b->wanted = false; /* what was is not there any more */
    rt_unlock(&b->lock);
    return i < n;
}

void rt_inbox_open(struct rt_inbox *b) {
    rt_lock(&b->lock);
    b->kept = 0;
    rt_store_relaxed(&b->waiting, 0);
    b->closed = b->wanted = b->all = false;
    rt_unlock(&b->lock);
}

void rt_inbox_close(struct rt_inbox *b) {
    rt_lock(&b->lock);
    b->closed = true;
    rt_store_relaxed(&b->waiting, there(b));
    b->kept = 0;
    rt_unlock(&b->lock);
}

void rt_inbox_note(struct rt_inbox *b, uint64_t letter) {
    if (rt_inbox_keep(b, letter) == 0)
        return;
    rt_lock(&b->lock);
    b->all = true;
    rt_unlock(&b->lock);
}

bool rt_inbox_want(struct rt_inbox *b, uint64_t like, uint64_t mask) {
    rt_lock(&b->lock);
    bool is = b->all || (b->lent && ((b->taken ^ like) & mask) == 0);
    for (uint32_t i = 0, n = there(b); i < n && !is; i++)
        is = ((b->items[i] ^ like) & mask) == 0;
    b->wanted |= is;
    rt_unlock(&b->lock);
    return is;
}

bool rt_inbox_wanted(struct rt_inbox *b) {
    rt_lock(&b->lock);
    bool is = b->wanted;
    rt_unlock(&b->lock);
    return is;
}
