/* threads.h - what rt_sys_thread starts is a thread of the model, which waits for that; by --wrap,
 * pthread_join waits for its end. */
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
static uint32_t nthreads; /* whoever starts them */

int rt_sys_thread(pthread_t *t, void *(*fn)(void *), void *arg, const char *name) {
    (void)name;
    model_assert(nthreads < NTHREADS);
    *t = nthreads;
    threads[nthreads].fn = fn;
    threads[nthreads].arg = arg;
    rt_store_release(&threads[nthreads++].state, BEGUN); /* more is not promised: no fence */
    return 0;
}

static void thread_has_ended(unsigned i) {
    rt_store_release(&threads[i].state, ENDED);
}

static void run_thread(unsigned i) {
    while (rt_load_acquire(&threads[i].state) == NOT_YET)
        model_wait_for_change();
    threads[i].fn(threads[i].arg);
    thread_has_ended(i);
}

int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_join(pthread_t thread, void **result) {
    (void)result;
    while (rt_load_acquire(&threads[thread].state) != ENDED)
        model_wait_for_change();
    return 0;
}
int __wrap_pthread_getattr_np(pthread_t thread, pthread_attr_t *attr);
int __wrap_pthread_getattr_np(pthread_t thread, pthread_attr_t *attr) {
    (void)thread, (void)attr;
    return -1;
}

#endif
