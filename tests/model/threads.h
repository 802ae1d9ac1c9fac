/* threads.h - what rt_sys_thread starts is a thread of the model, which waits for that; by --wrap,
 * pthread_join waits for its end, and pthread_self knows who it is. */
#ifndef MODEL_THREADS_H
#define MODEL_THREADS_H

#include "model.h"

#include "base/sys.h"

#include <pthread.h>

enum { NOT_YET, BEGUN, ENDED, NTHREADS = 3 };

static struct {
    void *(*fn)(void *);
    void *arg;
    uint32_t state;
} threads[NTHREADS];
static uint32_t nthreads; /* whoever starts them; where several do, the model ignores it */
static pthread_t selves[MODEL_THREADS]; /* of those that run one: 1 + its number */

int rt_sys_thread(pthread_t *t, void *(*fn)(void *), void *arg, const char *name) {
    (void)name;
    model_assert(nthreads < NTHREADS);
    uint32_t i = nthreads++;
    *t = i;
    threads[i].fn = fn;
    threads[i].arg = arg;
    rt_store_release(&threads[i].state, BEGUN); /* more is not promised: no fence */
    return 0;
}

static void thread_has_ended(unsigned i) {
    rt_store_release(&threads[i].state, ENDED);
}

static void run_thread(unsigned i) {
    uint32_t state;
    while ((state = rt_load_acquire(&threads[i].state)) == NOT_YET)
        model_wait_for_change();
    if (state == ENDED)
        return;
    selves[model_self()] = 1 + i;
    threads[i].fn(threads[i].arg);
    thread_has_ended(i);
}
/* Nobody starts any more: those that wait for it need not. */
static inline void no_more_threads(void) {
    for (unsigned i = nthreads; i < NTHREADS; i++)
        thread_has_ended(i);
}

int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_join(pthread_t thread, void **result) {
    (void)result;
    while (rt_load_acquire(&threads[thread].state) != ENDED)
        model_wait_for_change();
    return 0;
}
pthread_t __wrap_pthread_self(void);
pthread_t __wrap_pthread_self(void) {
    pthread_t t = selves[model_self()];
    return t ? t - 1 : NTHREADS + model_self();
}
int __wrap_pthread_getattr_np(pthread_t thread, pthread_attr_t *attr);
int __wrap_pthread_getattr_np(pthread_t thread, pthread_attr_t *attr) {
    (void)thread, (void)attr;
    return -1;
}

#endif
