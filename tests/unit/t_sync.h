/* t_sync.h - what the tests of the locks share: crowds of both kinds, who waits, pages that go. */
#ifndef T_SYNC_H
#define T_SYNC_H

#include "t_unit.h"

#include "sync/lot.h"

/* Less where 64 Ps share the cores. */
static inline int t_count(int n) {
    return (int)T_SCALE(t_procs() <= 8 ? n : n / 4 + 1);
}

static struct {
    void (*fn)(int i);
    int green;
    go_waitgroup done;
} t_crowd_;

static inline void t_crowd_green(void *arg) {
    t_crowd_.fn((int)t_int(arg));
    go_waitgroup_done(&t_crowd_.done);
}
static inline void *t_crowd_thread(void *arg) {
    t_crowd_.fn(t_crowd_.green + (int)t_int(arg));
    return NULL;
}

/* fn(0), fn(1), ... all at once, on so many green threads and then on so many others; returns when
 * all have returned. The runtime must run, or no thread be green. */
static inline void t_crowd(int green, int threads, void (*fn)(int i)) {
    pthread_t t[16];
    T_ASSERT(threads <= (int)T_COUNT(t));
    t_crowd_.fn = fn;
    t_crowd_.green = green;
    go_waitgroup_add(&t_crowd_.done, green);
    for (int i = 0; i < green; i++)
        T_SPAWN(t_crowd_green, t_ptr(i));
    t_start_threads(t, threads, t_crowd_thread);
    t_join_threads(t, threads);
    T_EQ(go_waitgroup_wait(&t_crowd_.done), 0);
}

/* The same for each mixture of the kinds; the last without a runtime. */
static inline void t_crowds(void (*fn)(int i)) {
    T_EQ(go_start(NULL), 0);
    t_crowd(6, 0, fn);
    t_crowd(3, 3, fn);
    t_crowd(0, 4, fn);
    t_stop();
    t_crowd(0, 4, fn);
}

/* How many are on this queue of this object. */
static inline int t_waiting(const void *object, void *const *queue) {
    uint32_t *lock = &rt_lot_of(object)->lock;
    rt_lock(lock);
    struct rt_node *first = *queue, *n = first;
    int waiting = 0;
    if (first)
        do {
            waiting++;
            n = n->next;
        } while (n != first);
    rt_unlock(lock);
    return waiting;
}

/* A page of zeroes, and its end: from then on a touch is a fault. */
static inline void *t_page(void) {
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    T_ASSERT(p != MAP_FAILED);
    return p;
}
static inline void t_page_gone(void *p) {
    T_EQ(mprotect(p, 4096, PROT_NONE), 0);
}

static inline void t_spin(uint64_t n) {
    while (n-- > 0)
        rt_cpu_relax();
}

#endif
