/* gort/sync.h alone. */
#include <gort/sync.h>

#include "is.h"

IS(void, go_mutex_lock, go_mutex *);
IS(int, go_mutex_trylock, go_mutex *);
IS(int, go_mutex_lock_until, go_mutex *, int64_t);
IS(void, go_mutex_unlock, go_mutex *);
IS(void, go_rwmutex_rdlock, go_rwmutex *);
IS(void, go_rwmutex_rdunlock, go_rwmutex *);
IS(void, go_rwmutex_wrlock, go_rwmutex *);
IS(void, go_rwmutex_wrunlock, go_rwmutex *);
IS(int, go_rwmutex_tryrdlock, go_rwmutex *);
IS(int, go_rwmutex_trywrlock, go_rwmutex *);
IS(int, go_cond_wait, go_cond *, go_mutex *);
IS(int, go_cond_wait_until, go_cond *, go_mutex *, int64_t);
IS(void, go_cond_signal, go_cond *);
IS(void, go_cond_broadcast, go_cond *);
IS(void, go_waitgroup_add, go_waitgroup *, int);
IS(void, go_waitgroup_done, go_waitgroup *);
IS(int, go_waitgroup_wait, go_waitgroup *);
IS(int, go_waitgroup_spawn, go_waitgroup *, void (*)(void *), void *);
IS(void, go_once_do, go_once *, void (*)(void));
IS(void, go_sem_init, go_sem *, unsigned);
IS(int, go_sem_acquire, go_sem *);
IS(int, go_sem_try_acquire, go_sem *);
IS(void, go_sem_release, go_sem *);
IS(void, go_sem_release_sig, go_sem *);
IS(void, go_barrier_init, go_barrier *, unsigned);
IS(int, go_barrier_wait, go_barrier *);

char of_16[sizeof(go_mutex) == 16 && sizeof(go_cond) == 16 ? 1 : -1];
char of_16_too[sizeof(go_waitgroup) == 16 && sizeof(go_sem) == 16 ? 1 : -1];
char of_8[sizeof(go_once) == 8 ? 1 : -1];
char of_32[sizeof(go_rwmutex) == 32 && sizeof(go_barrier) == 32 ? 1 : -1];
