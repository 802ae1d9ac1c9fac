/* queue.h - a queue whose head is one pointer, for objects that have no room for more: circular,
 * the head points to the first node, whose prev is the last. An empty one is NULL, so zeroed memory
 * is a valid queue.
 *
 * Whoever holds the lock of the queue may call these; the head alone may be peeked at without
 * it. */
#ifndef RT_QUEUE_H
#define RT_QUEUE_H

#include "base/atomic.h"

#include <stddef.h>

#define rt_container_of(ptr, type, member) \
    ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

struct rt_node {
    struct rt_node *next, *prev; /* next == NULL: on no queue */
};

static inline void rt_queue_push(void **head, struct rt_node *n) {
    struct rt_node *first = *head;
    if (!first) {
        n->next = n->prev = n;
        rt_store_relaxed(head, n); /* for those who peek; the lock orders all else */
        return;
    }
    n->next = first;
    n->prev = first->prev;
    first->prev->next = n;
    first->prev = n;
}

/* In front of all others: the place between the last and the first, and the head moves there. */
static inline void rt_queue_push_front(void **head, struct rt_node *n) {
    rt_queue_push(head, n);
    rt_store_relaxed(head, n);
}

static inline void rt_queue_remove(void **head, struct rt_node *n) {
    if (n->next == n) {
        rt_store_relaxed(head, NULL);
    } else {
        n->prev->next = n->next;
        n->next->prev = n->prev;
        if (*head == n)
            rt_store_relaxed(head, n->next);
    }
    n->next = NULL;
}

static inline struct rt_node *rt_queue_pop(void **head) {
    struct rt_node *first = *head;
    if (first)
        rt_queue_remove(head, first);
    return first;
}

#endif
