/* atomic.h - what src/base/atomic.h is in a model build: the same names, each a call into the
 * checker.
 *
 * The shipped files are compiled as they are; only this header stands before theirs in the include
 * path. Each use of a name is a site: a static record with file, line and the order that the name
 * promises. The checker reads the order from the record, so a mutant is made by changing the record
 * at the start of the program, not by compiling anew (mutate.py).
 *
 * An operation that is missing here does not compile in the model, and an __atomic builtin that
 * bypasses the names aborts it (checker/race.c), so nothing that threads share goes unseen. */
#ifndef RT_ATOMIC_H
#define RT_ATOMIC_H

#include <stdbool.h>
#include <stdint.h>

enum model_order { MODEL_RELAXED, MODEL_ACQUIRE, MODEL_RELEASE, MODEL_ACQ_REL, MODEL_SEQ_CST };
enum model_fence_kind { MODEL_FENCE_NONE, MODEL_FENCE_LIGHT, MODEL_FENCE_FULL, MODEL_FENCE_HEAVY };
enum model_rmw_kind { MODEL_EXCHANGE, MODEL_ADD, MODEL_SUB, MODEL_OR, MODEL_AND };

struct model_site {
    const char *file;
    const char *name; /* rt_load_acquire, ... */
    const char *text; /* of its first argument */
    const char *function;
    uint32_t line;
    uint8_t order;      /* enum model_order, or model_fence_kind */
    uint8_t fail_order; /* of a CAS that fails */
    uint8_t shipped;    /* the order before a mutation */
} __attribute__((aligned(64)));

uint64_t model_load(const volatile void *p, unsigned size, struct model_site *s);
void model_store(volatile void *p, unsigned size, uint64_t v, struct model_site *s);
uint64_t model_rmw(volatile void *p, unsigned size, enum model_rmw_kind kind, uint64_t v,
                   struct model_site *s);
bool model_cas(volatile void *p, unsigned size, void *expected, uint64_t v, struct model_site *s);
void model_fence(struct model_site *s);
void model_relax(const char *function);

#define MODEL_SITE(name_, text_, order_, fail_) \
    ({ \
        static struct model_site site_ \
            __attribute__((section("model_sites"), used)) = {.file = __FILE__, \
                                                             .name = (name_), \
                                                             .text = (text_), \
                                                             .function = __func__, \
                                                             .line = __LINE__, \
                                                             .order = (order_), \
                                                             .fail_order = (fail_), \
                                                             .shipped = (order_)}; \
        &site_; \
    })
#define MODEL_LOAD(name, text, p, order) \
    ((__typeof__(*(p)))model_load((p), sizeof *(p), MODEL_SITE(name, text, order, 0)))
#define MODEL_STORE(name, text, p, v, order) \
    model_store((p), sizeof *(p), (uint64_t)(v), MODEL_SITE(name, text, order, 0))
#define MODEL_RMW(name, text, p, kind, v, order) \
    ({ \
        uint64_t old_ = \
            model_rmw((p), sizeof *(p), (kind), (uint64_t)(v), MODEL_SITE(name, text, order, 0)); \
        (__typeof__(*(p)))old_; \
    })
#define MODEL_CAS(name, text, p, e, v, order, fail) \
    model_cas((p), sizeof *(p), (e), (uint64_t)(v), MODEL_SITE(name, text, order, fail))
#define MODEL_FENCE(name, kind) model_fence(MODEL_SITE(name, "", kind, 0))

#define rt_load_relaxed(p)     MODEL_LOAD("rt_load_relaxed", #p, p, MODEL_RELAXED)
#define rt_load_acquire(p)     MODEL_LOAD("rt_load_acquire", #p, p, MODEL_ACQUIRE)
#define rt_load_seq_cst(p)     MODEL_LOAD("rt_load_seq_cst", #p, p, MODEL_SEQ_CST)
#define rt_store_relaxed(p, v) MODEL_STORE("rt_store_relaxed", #p, p, v, MODEL_RELAXED)
#define rt_store_release(p, v) MODEL_STORE("rt_store_release", #p, p, v, MODEL_RELEASE)
#define rt_store_seq_cst(p, v) MODEL_STORE("rt_store_seq_cst", #p, p, v, MODEL_SEQ_CST)
#define rt_exchange(p, v) MODEL_RMW("rt_exchange", #p, p, MODEL_EXCHANGE, v, MODEL_SEQ_CST)
#define rt_exchange_relaxed(p, v) \
    MODEL_RMW("rt_exchange_relaxed", #p, p, MODEL_EXCHANGE, v, MODEL_RELAXED)
#define rt_exchange_acquire(p, v) \
    MODEL_RMW("rt_exchange_acquire", #p, p, MODEL_EXCHANGE, v, MODEL_ACQUIRE)
#define rt_exchange_release(p, v) \
    MODEL_RMW("rt_exchange_release", #p, p, MODEL_EXCHANGE, v, MODEL_RELEASE)
#define rt_exchange_acq_rel(p, v) \
    MODEL_RMW("rt_exchange_acq_rel", #p, p, MODEL_EXCHANGE, v, MODEL_ACQ_REL)
#define rt_fetch_add(p, v) MODEL_RMW("rt_fetch_add", #p, p, MODEL_ADD, v, MODEL_SEQ_CST)
#define rt_fetch_add_relaxed(p, v) \
    MODEL_RMW("rt_fetch_add_relaxed", #p, p, MODEL_ADD, v, MODEL_RELAXED)
#define rt_fetch_add_release(p, v) \
    MODEL_RMW("rt_fetch_add_release", #p, p, MODEL_ADD, v, MODEL_RELEASE)
#define rt_fetch_sub(p, v) MODEL_RMW("rt_fetch_sub", #p, p, MODEL_SUB, v, MODEL_SEQ_CST)
#define rt_fetch_sub_relaxed(p, v) \
    MODEL_RMW("rt_fetch_sub_relaxed", #p, p, MODEL_SUB, v, MODEL_RELAXED)
#define rt_fetch_sub_release(p, v) \
    MODEL_RMW("rt_fetch_sub_release", #p, p, MODEL_SUB, v, MODEL_RELEASE)
#define rt_fetch_or(p, v) MODEL_RMW("rt_fetch_or", #p, p, MODEL_OR, v, MODEL_SEQ_CST)
#define rt_fetch_or_relaxed(p, v) \
    MODEL_RMW("rt_fetch_or_relaxed", #p, p, MODEL_OR, v, MODEL_RELAXED)
#define rt_fetch_or_release(p, v) \
    MODEL_RMW("rt_fetch_or_release", #p, p, MODEL_OR, v, MODEL_RELEASE)
#define rt_fetch_and(p, v) MODEL_RMW("rt_fetch_and", #p, p, MODEL_AND, v, MODEL_SEQ_CST)
#define rt_fetch_and_relaxed(p, v) \
    MODEL_RMW("rt_fetch_and_relaxed", #p, p, MODEL_AND, v, MODEL_RELAXED)
#define rt_fetch_and_acquire(p, v) \
    MODEL_RMW("rt_fetch_and_acquire", #p, p, MODEL_AND, v, MODEL_ACQUIRE)
#define rt_fetch_and_release(p, v) \
    MODEL_RMW("rt_fetch_and_release", #p, p, MODEL_AND, v, MODEL_RELEASE)
#define rt_fetch_and_acq_rel(p, v) \
    MODEL_RMW("rt_fetch_and_acq_rel", #p, p, MODEL_AND, v, MODEL_ACQ_REL)
#define rt_cas(p, expected, v) MODEL_CAS("rt_cas", #p, p, expected, v, MODEL_SEQ_CST, MODEL_SEQ_CST)
#define rt_cas_relaxed(p, expected, v) \
    MODEL_CAS("rt_cas_relaxed", #p, p, expected, v, MODEL_RELAXED, MODEL_RELAXED)
#define rt_cas_acquire(p, expected, v) \
    MODEL_CAS("rt_cas_acquire", #p, p, expected, v, MODEL_ACQUIRE, MODEL_RELAXED)
#define rt_cas_release(p, expected, v) \
    MODEL_CAS("rt_cas_release", #p, p, expected, v, MODEL_RELEASE, MODEL_RELAXED)
#define rt_cas_acq_rel(p, expected, v) \
    MODEL_CAS("rt_cas_acq_rel", #p, p, expected, v, MODEL_ACQ_REL, MODEL_ACQUIRE)

/* One writer: its own load needs no atomic; the race detector checks that there is but one. */
#define rt_bump(p) rt_store_relaxed((p), *(p) + 1)

#define rt_likely(x)   __builtin_expect(!!(x), 1)
#define rt_unlikely(x) __builtin_expect(!!(x), 0)

#define RT_CACHE_LINE 64

#define rt_cpu_relax()   model_relax(__func__)
#define rt_fence_full()  MODEL_FENCE("rt_fence_full", MODEL_FENCE_FULL)
#define rt_fence_light() MODEL_FENCE("rt_fence_light", MODEL_FENCE_LIGHT)
#define rt_fence_heavy() MODEL_FENCE("rt_fence_heavy", MODEL_FENCE_HEAVY)

extern bool rt_asymmetric;

#endif
