/* check.h - arithmetic on sizes that says when it overflows. */
#ifndef RT_CHECK_H
#define RT_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool rt_size_mul(size_t a, size_t b, size_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool rt_size_add(size_t a, size_t b, size_t *out) {
    return !__builtin_add_overflow(a, b, out);
}
/* Deadlines saturate: now + GO_FOREVER is for ever. */
static inline int64_t rt_time_add(int64_t a, int64_t b) {
    int64_t r;
    if (__builtin_add_overflow(a, b, &r))
        return b > 0 ? INT64_MAX : INT64_MIN;
    return r;
}

#endif
