/* sys.h - the system calls of the runtime, each returning >= 0 or -errno, none touching errno's
 * value as the caller sees it. Network and descriptor calls are in sys_io.h. */
#ifndef RT_SYS_H
#define RT_SYS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* timeout_ns < 0 waits for ever. 0, -EAGAIN (the word differs), -EINTR, -ETIMEDOUT. */
int rt_sys_futex_wait(uint32_t *word, uint32_t expected, int64_t timeout_ns);
void rt_sys_futex_wake(uint32_t *word, int count);
/* The same for sleepers that share a word: a wake is for those that have a bit of `bits`. deadline:
 * absolute, INT64_MAX for none. */
int rt_sys_futex_wait_bits(uint32_t *word, uint32_t expected, int64_t deadline, uint32_t bits);
void rt_sys_futex_wake_bits(uint32_t *word, int count, uint32_t bits);

bool rt_sys_membarrier_register(void);
void rt_sys_membarrier(void);

int64_t rt_sys_now(void); /* CLOCK_MONOTONIC, ns */
void rt_sys_yield(void);
void rt_sys_nap(int64_t ns);
uint64_t rt_sys_random(void);

/* Anonymous private memory, not reserved against the commit limit. NULL when out of it. */
void *rt_sys_map(size_t bytes);
/* The same for stacks: no huge pages, aligned to `align` (a power of two). */
void *rt_sys_map_stacks(size_t bytes, size_t align);
void rt_sys_unmap(void *p, size_t bytes);
/* Make [p, p + bytes) fault on access. Tries MADV_GUARD_INSTALL, which splits no mapping, when
 * *light; clears it when the kernel does not know it, and uses mprotect. 0 or -errno. */
int rt_sys_guard(void *p, size_t bytes, bool *light);
/* Is the page really out of reach? An emulator may take the advice for a hint, and do nothing. */
bool rt_sys_guard_holds(const void *p);
/* Give the pages back to the system; contents become zero. */
void rt_sys_discard(void *p, size_t bytes);
/* What rt_sys_map_stacks gave is as new, its page tables given back, too. 0; -EAGAIN: some of it is
 * locked, or there are too many mappings, and the rest may be empty; -ENOMEM: it is not mapped any
 * more, the addresses are not ours. */
int rt_sys_renew_stacks(void *p, size_t bytes);
size_t rt_sys_page_size(void);
/* vm.max_map_count. */
size_t rt_sys_max_maps(void);

void *rt_sys_alloc(size_t bytes);  /* zeroed; NULL when out of memory */
void *rt_sys_alloc_raw(size_t bytes); /* the same, not zeroed */
void *rt_sys_alloc_aligned(size_t bytes, size_t align); /* zeroed; free with rt_sys_free */
void rt_sys_free(void *p);
/* Zeroed, for arrays of which little is ever touched: only that needs memory. NULL when out of
 * it. */
void *rt_sys_alloc_sparse(size_t bytes);
void rt_sys_free_sparse(void *p, size_t bytes);

/* Start a thread named `name` with every signal blocked but the synchronous ones. 0 or -errno. */
int rt_sys_thread(pthread_t *t, void *(*fn)(void *), void *arg, const char *name);
/* The same with a stack of that many bytes, not joinable through what this returns: the thread may
 * have ended by then. So it gives itself its name, and pthread_self() to whoever joins it. */
int rt_sys_thread_sized(void *(*fn)(void *), void *arg, size_t stack_bytes);
void rt_sys_thread_name(const char *name); /* of the calling thread */
/* Signal handlers that ask for it run there from now on; base NULL: there is none. */
void rt_sys_alt_stack(void *base, size_t bytes);
int rt_sys_tid(void); /* of the calling thread */
int rt_sys_pid(void);
/* May the caller's stack be left for a while? Not in a signal handler on the alternate stack, nor
 * in a child of vfork(2), which has the stack of process `pid`. */
bool rt_sys_may_switch(int pid);
/* errno, for those who keep it over a switch: its address is another one after that, and compilers
 * take it for a constant. */
int rt_sys_errno(void);
void rt_sys_set_errno(int value);
/* CPU time that a thread has used so far, in ns; -1: unknown. */
int64_t rt_sys_thread_cpu(pthread_t t);
/* What the kernel says of a thread of this process: 'R' runs or could, 'S' and 'D' sleeps, ...;
 * 0: unknown. */
char rt_sys_thread_state(int tid);
/* Threads of this process, or -errno. */
int rt_sys_thread_count(void);

/* CPUs that the calling thread may use: affinity, bounded by the cgroup v2 quota of its group and
 * all above. */
unsigned rt_sys_cpus(void);
/* The same to follow changes: no more than the first thread of the process may use, either. Its
 * mask is what "taskset -p" and sched_setaffinity(2) of a process id change. */
unsigned rt_sys_cpus_now(void);
/* The tightest memory.max of its cgroup (v2) and all above, in bytes; UINT64_MAX: there is none. */
uint64_t rt_sys_memory_limit(void);
/* Where these are read: "/sys/fs/cgroup" and "/proc/self/cgroup". Tests have files of their own;
 * set them before the runtime starts. */
extern const char *rt_sys_cgroup_root, *rt_sys_cgroup_own;

#endif
