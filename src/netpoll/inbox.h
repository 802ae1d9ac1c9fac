/* inbox.h - letters to the owner of a ring: what it shall do, and polls whose answers are awaited.
 *
 * A letter waits until the owner takes it. What it took it then either keeps here, until it is
 * forgotten, or puts back, or is done with. A lock each time: there are few of these. */
#ifndef RT_INBOX_H
#define RT_INBOX_H

#include "base/atomic.h"

#include <stdbool.h>
#include <stdint.h>

enum { RT_INBOX_FIRST = 16 };

struct rt_inbox {
    uint32_t lock;
    uint32_t kept;    /* items[0 .. kept - 1] are */
    uint32_t waiting; /* items[kept .. kept + waiting - 1]; any thread peeks */
    uint32_t lent;    /* 1: one was taken, and may come back: */
    uint64_t taken;
    uint32_t cap;     /* kept + waiting + lent <= cap */
    bool closed, wanted;
    bool all; /* see rt_inbox_note */
    uint64_t *items;
    uint64_t first[RT_INBOX_FIRST];
};

/* Empty and closed; what it had is forgotten. */
void rt_inbox_init(struct rt_inbox *b);
void rt_inbox_free(struct rt_inbox *b);

/* Any thread. 0; -ESHUTDOWN: it is closed; -ENOMEM: it may be. */
int rt_inbox_post(struct rt_inbox *b, uint64_t letter);
/* The same, but in a closed one the letter is noted, as by rt_inbox_note. -ENOMEM: it is open. */
int rt_inbox_post_or_note(struct rt_inbox *b, uint64_t letter);

/* These are the owner's. A letter that waits; it must be kept, put back or done with before the
 * next is taken: that needs no memory. */
bool rt_inbox_take(struct rt_inbox *b, uint64_t *letter);
void rt_inbox_keep_taken(struct rt_inbox *b, uint64_t letter);
void rt_inbox_put_back(struct rt_inbox *b, uint64_t letter);
void rt_inbox_done(struct rt_inbox *b);
/* One that was never posted. 0; -ENOMEM. */
int rt_inbox_keep(struct rt_inbox *b, uint64_t letter);
/* Whether it is kept or waits. False: it is not there. */
bool rt_inbox_forget(struct rt_inbox *b, uint64_t letter);

/* The next owner's, before anybody else sees it: it is empty. */
void rt_inbox_open(struct rt_inbox *b);
/* The heir of the owner, who is the owner then. What is kept waits again; who posts is told. */
void rt_inbox_close(struct rt_inbox *b);
/* Keep one, or, where there is no memory, as if all there could be were kept. */
void rt_inbox_note(struct rt_inbox *b, uint64_t letter);
/* Any thread: has it a letter whose bits `mask` are those of `like`? Then it is wanted from now on,
 * until it is opened again. */
bool rt_inbox_want(struct rt_inbox *b, uint64_t like, uint64_t mask);
bool rt_inbox_wanted(struct rt_inbox *b);

static inline bool rt_inbox_any(const struct rt_inbox *b) {
    return rt_load_relaxed(&b->waiting) != 0;
}

#endif
