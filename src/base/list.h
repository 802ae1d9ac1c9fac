/* list.h - intrusive doubly linked lists, circular, with the head as one of the nodes. */
#ifndef RT_LIST_H
#define RT_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct rt_list {
    struct rt_list *next, *prev;
};

#define rt_container_of(ptr, type, member) \
    ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

static inline void rt_list_init(struct rt_list *h) {
    h->next = h->prev = h;
}
static inline bool rt_list_empty(const struct rt_list *h) {
    return h->next == h;
}
static inline void rt_list_push_back(struct rt_list *h, struct rt_list *n) {
    n->next = h;
    n->prev = h->prev;
    h->prev->next = n;
    h->prev = n;
}
/* Afterwards n->next == NULL says that n is on no list. */
static inline void rt_list_remove(struct rt_list *n) {
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->next = n->prev = NULL;
}
static inline struct rt_list *rt_list_pop_front(struct rt_list *h) {
    struct rt_list *n = h->next;
    if (n == h)
        return NULL;
    rt_list_remove(n);
    return n;
}

#endif
