/* local.c - values that belong to a green thread.
 *
 * A go_local is an index, dressed as a pointer so that NULL can say "none left". Each struct rt_g,
 * a foreign thread's as well, has an array of values that is made by the first set and grows to the
 * highest index set; a get is two loads and a comparison. Only its G touches it: no lock, and
 * nothing moves when the G changes its thread.
 *
 * The destructors are known to the process. They are published by the store to the count, and who
 * has a go_local has it from a go_local_new, so that comes before.
 *
 * The end. A green thread that has set something comes here when its function has returned, still
 * itself, outside the runtime, on its own stack (rt_g_call in proc.h): a destructor may do whatever
 * the function might. A foreign thread comes here through a pthread key, of which one is made for
 * all when the first foreign thread sets something. */
#include "base/lock.h"
#include "base/sys.h"
#include "sched/proc.h"
#include "sched/start.h"

#include <gort/task.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>

enum { ROUNDS = 4, MIN_VALUES = 4 }; /* ROUNDS: as PTHREAD_DESTRUCTOR_ITERATIONS */

static struct {
    uint32_t lock;     /* futex lock */
    uint32_t count;    /* written under lock; 1 + the highest index in use, index 0 is nobody's */
    bool have_key;     /* under lock */
    pthread_key_t key; /* its value in a foreign thread: the struct rt_g of that thread */
    void (*destroy[GO_LOCAL_MAX + 1])(void *);
} all;

/* Whoever held the lock is not there; what he was adding is, or is not. */
void rt_local_fork_child(void) {
    rt_store_relaxed(&all.lock, 0);
}

go_local go_local_new(void (*dtor)(void *)) {
    rt_futex_lock(&all.lock);
    uint32_t index = all.count ? all.count : 1;
    bool room = index <= GO_LOCAL_MAX;
    if (room) {
        all.destroy[index] = dtor;
        rt_store_release(&all.count, index + 1); /* pairs with the acquire in go_local_set */
    }
    rt_futex_unlock(&all.lock);
    return room ? (go_local)(uintptr_t)index : NULL;
}

void *go_local_get(go_local local) {
    const struct rt_g *g = rt_self();
    uintptr_t index = (uintptr_t)local;
    return index < g->nlocals ? g->locals[index] : NULL;
}

/* ---- the first set, and the end -------------------------------------------------------------- */

void rt_local_end(struct rt_g *g) {
    bool any = true;
    for (int round = 0; any && round < ROUNDS; round++) {
        any = false;
        for (uint32_t i = 1; i < g->nlocals; i++) { /* a destructor may make the array grow */
            void *value = g->locals[i];
            g->locals[i] = NULL;
            if (value && all.destroy[i]) {
                any = true;
                all.destroy[i](value);
            }
        }
    }
    rt_sys_free(g->locals);
    g->locals = NULL;
    g->nlocals = 0;
    g->touched &= (uint8_t)~RT_TOUCHED_LOCALS;
}

static void thread_ends(void *g) {
    rt_local_end(g);
}

/* A foreign thread has to be told of its end. */
static int watch_thread(struct rt_g *g) {
    int saved = errno;
    rt_futex_lock(&all.lock);
    int err = all.have_key ? 0 : pthread_key_create(&all.key, thread_ends);
    all.have_key = err == 0;
    rt_futex_unlock(&all.lock);
    if (err == 0)
        err = pthread_setspecific(all.key, g);
    errno = saved;
    return err ? -ENOMEM : 0;
}

/* Room for index. */
static int grow(struct rt_g *g, uintptr_t index) {
    if ((g->flags & RT_G_THREAD) && g->nlocals == 0 && watch_thread(g) != 0)
        return -ENOMEM;
    uint32_t n = g->nlocals ? g->nlocals : MIN_VALUES;
    while (n <= index)
        n *= 2;
    void **values = rt_sys_alloc(n * sizeof *values);
    if (!values)
        return -ENOMEM;
    if (g->nlocals)
        memcpy(values, g->locals, g->nlocals * sizeof *values);
    rt_sys_free(g->locals);
    g->locals = values;
    g->nlocals = n;
    g->touched |= RT_TOUCHED_LOCALS;
    return 0;
}

int go_local_set(go_local local, void *value) {
    struct rt_g *g = rt_self();
    uintptr_t index = (uintptr_t)local;
    if (rt_unlikely(index >= g->nlocals || index == 0)) {
        if (index == 0 || index >= rt_load_acquire(&all.count)) /* pairs with go_local_new */
            return -EINVAL;
        if (!value)
            return 0;
        int err = grow(g, index);
        if (err)
            return err;
    }
    g->locals[index] = value;
    return 0;
}
