/* globq.c - see globq.h. The share, min(max, size, size/procs + 1), is Go's (proc.go,
 * globrunqgetbatch). */
#include "sched/globq.h"

#include "base/lock.h"
#include "sched/runq.h"

struct rt_globq rt_globq;

void rt_globq_push(struct rt_glist *l) {
    if (!l->head)
        return;
    rt_lock(&rt_globq.lock);
    if (rt_globq.list.tail)
        rt_globq.list.tail->next = l->head;
    else
        rt_globq.list.head = l->head;
    rt_globq.list.tail = l->tail;
    rt_globq.list.n += l->n;
    rt_store_relaxed(&rt_globq.size, rt_globq.list.n);
    rt_unlock(&rt_globq.lock);
    *l = (struct rt_glist){0};
}

struct rt_g *rt_globq_take(struct rt_p *p, size_t max) {
    if (rt_globq_size() == 0)
        return NULL;
    rt_lock(&rt_globq.lock);
    size_t n = rt_globq.list.n / rt_procs() + 1;
    if (n > max)
        n = max;
    size_t room = rt_runq_room_owner(p) + 1; /* the first is not queued */
    if (n > room)
        n = room;
    struct rt_g *first = rt_glist_pop(&rt_globq.list);
    for (size_t i = 1; i < n && rt_globq.list.head; i++)
        rt_runq_push_batch_owner(p, rt_glist_pop(&rt_globq.list));
    /* Who sees it smaller sees the queues filled: pairs with the acquire in rt_globq_size. */
    rt_store_release(&rt_globq.size, rt_globq.list.n);
    rt_unlock(&rt_globq.lock);
    return first;
}
