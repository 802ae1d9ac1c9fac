/* gort/task.h alone, with go_sleep and go_now. */
#include <gort/task.h>

#include "is.h"

IS(int, go_run, void (*)(void *), void *);
IS(int, go_start, const struct go_options *);
IS(int, go_stop, int64_t);
IS(int, go_acquire, void);
IS(int, go_release, int64_t);
IS(int, go_spawn, void (*)(void *), void *);
IS(int, go_spawn_with, const struct go_spawn_options *, void (*)(void *), void *);
IS(void, go_nopreempt_begin, void);
IS(void, go_nopreempt_end, void);
IS(void, go_yield, void);
IS(int, go_sleep, int64_t);
IS(int64_t, go_now, void);
IS(uint64_t, go_id, void);
IS(unsigned, go_procs, void);
IS(int, go_set_procs, unsigned);
IS(void, go_checkpoint, void);
IS(void, go_checkpoint_slow, void);
IS(void, go_lock_thread, void);
IS(void, go_unlock_thread, void);
IS(int, go_blocking, void *(*)(void *), void *, void **);
IS(int, go_on_long_run, void (*)(const struct go_long_run *, void *), void *);

IS(go_task *, go_task_spawn, void *(*)(void *), void *);
IS(go_task *, go_task_spawn_with, const struct go_spawn_options *, void *(*)(void *), void *);
IS(int, go_task_join, go_task *, void **);
IS(int, go_task_reap, go_task *, void **);
IS(int, go_task_cancel, go_task *);
IS(int, go_task_detach, go_task *);
IS(int, go_gather, go_task *[], size_t, void *[]);

IS(go_local, go_local_new, void (*)(void *));
IS(void *, go_local_get, go_local);
IS(int, go_local_set, go_local, void *);

/* Their first field, their flags, and what they begin with. */
struct go_options options = GO_OPTIONS_INIT;
struct go_spawn_options spawn_options = GO_SPAWN_OPTIONS_INIT;
size_t *options_size = &options.size;
unsigned *options_procs = &options.procs;
size_t *options_stack_size = &options.stack_size;
unsigned *options_max_threads = &options.max_threads;
size_t *options_max_tasks = &options.max_tasks;
const char **options_netpoll = &options.netpoll;
unsigned *options_flags = &options.flags;
size_t *spawn_options_size = &spawn_options.size;
const char **spawn_options_name = &spawn_options.name;
size_t *spawn_options_stack_size = &spawn_options.stack_size;
unsigned strict = GO_STRICT;
int64_t units[] = {GO_NANOSECOND, GO_MICROSECOND, GO_MILLISECOND, GO_SECOND, GO_MINUTE,
                   GO_FOREVER, GO_NOW};
