/* san.h - what the sanitizers and Valgrind must be told about stacks that are switched.
 *
 * Each context that can be switched to carries a struct rt_san, empty in a normal build.
 * rt_san_leave(from, to) is called right before the switch and rt_san_arrive(self) right after it,
 * in the same function as the switch. ASan keeps a fake stack per fiber; TSan a whole shadow state,
 * which must never be destroyed while it runs, nor when it never ran. A switch counts as
 * synchronisation for TSan, as it is for the scheduler's own data: so a race between two Gs shows
 * only when they run on different threads, which is one more reason to run tests at several
 * procs. */
#ifndef RT_SAN_H
#define RT_SAN_H

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#define RT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RT_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define RT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RT_TSAN 1
#endif
#endif
#ifndef RT_ASAN
#define RT_ASAN 0
#endif
#ifndef RT_TSAN
#define RT_TSAN 0
#endif

#if RT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif
#if RT_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#if defined(__has_include) && !RT_ASAN && !RT_TSAN
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/memcheck.h>
#define RT_VALGRIND 1
#endif
#endif

struct rt_san {
#if RT_ASAN
    void *fake;
    const void *low;
    size_t bytes;
#endif
#if RT_TSAN
    void *fiber;
#endif
    char none[0];
};

/* A context on the stack [low, low + bytes) that has not run yet. */
static inline void rt_san_init(struct rt_san *s, void *low, size_t bytes) {
    (void)s, (void)low, (void)bytes;
#if RT_ASAN
    s->fake = NULL;
    s->low = low;
    s->bytes = bytes;
    __asan_unpoison_memory_region(low, bytes); /* frames before it may have ended by a jump */
#endif
#if RT_TSAN
    s->fiber = __tsan_create_fiber(0);
#endif
}

/* The context that runs, whatever it is, which the next one will be told about: see
 * rt_san_arrive_from. */
static inline void rt_san_here(struct rt_san *s) {
    (void)s;
#if RT_TSAN
    s->fiber = __tsan_get_current_fiber();
#endif
}

/* The context of the calling thread, on its own stack. */
static inline void rt_san_init_thread(struct rt_san *s, void *low, size_t bytes) {
    (void)s, (void)low, (void)bytes;
#if RT_ASAN
    s->fake = NULL;
    s->low = low;
    s->bytes = bytes;
#endif
#if RT_TSAN
    s->fiber = __tsan_get_current_fiber();
#endif
}

static inline void rt_san_destroy(struct rt_san *s) {
    (void)s;
#if RT_ASAN
    __asan_unpoison_memory_region(s->low, s->bytes); /* its first frame ended by a jump */
#endif
#if RT_TSAN
    __tsan_destroy_fiber(s->fiber);
    s->fiber = NULL;
#endif
}

/* A fence has acquired what was released to p; TSan knows no fences. */
static inline void rt_san_acquired(void *p) {
    (void)p;
#if RT_TSAN
    __tsan_acquire(p);
#endif
}

/* from NULL: the context ends here. */
static inline __attribute__((always_inline)) void rt_san_leave(struct rt_san *from,
                                                               struct rt_san *to) {
    (void)from, (void)to;
#if RT_ASAN
    __sanitizer_start_switch_fiber(from ? &from->fake : NULL, to->low, to->bytes);
#endif
#if RT_TSAN
    __tsan_switch_to_fiber(to->fiber, 0); /* 0: what ran before on this thread happens before */
#endif
}

static inline __attribute__((always_inline)) void rt_san_arrive(struct rt_san *self) {
    (void)self;
#if RT_ASAN
    __sanitizer_finish_switch_fiber(self->fake, NULL, NULL);
#endif
}

/* The same, and learn the bounds of the stack that was left, where `from` will be returned to. */
static inline __attribute__((always_inline)) void rt_san_arrive_from(struct rt_san *self,
                                                                     struct rt_san *from) {
    (void)self, (void)from;
#if RT_ASAN
    __sanitizer_finish_switch_fiber(self->fake, &from->low, &from->bytes);
#endif
}

/* `word` is released by a store to a wider one that contains it: TSan knows words by address. */
static inline void rt_san_released(void *word) {
    (void)word;
#if RT_TSAN
    __tsan_release(word);
#endif
}

static inline unsigned rt_san_stack_register(void *low, void *high) {
    (void)low, (void)high;
#ifdef RT_VALGRIND
    return VALGRIND_STACK_REGISTER(low, high); /* a new context begins with sp == high */
#else
    return 0;
#endif
}

static inline void rt_san_stack_deregister(unsigned id) {
    (void)id;
#ifdef RT_VALGRIND
    VALGRIND_STACK_DEREGISTER(id);
#endif
}

/* [low, low + bytes) of a stack is used by somebody who does not push: what stood there before was
 * popped. */
static inline void rt_san_stack_use(void *low, size_t bytes) {
    (void)low, (void)bytes;
#ifdef RT_VALGRIND
    (void)VALGRIND_MAKE_MEM_UNDEFINED(low, bytes);
#endif
}

/* [p, p + bytes) holds pointers to what was allocated; it is mapped, so the search for leaks would
 * not look there. */
static inline void rt_san_root(const void *p, size_t bytes) {
    (void)p, (void)bytes;
#if RT_ASAN
    __lsan_register_root_region(p, bytes);
#endif
}
static inline void rt_san_root_gone(const void *p, size_t bytes) {
    (void)p, (void)bytes;
#if RT_ASAN
    __lsan_unregister_root_region(p, bytes);
#endif
}

#endif
