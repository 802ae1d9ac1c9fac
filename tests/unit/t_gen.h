/* t_gen.h - what the tests of generators share. */
#ifndef T_GEN_H
#define T_GEN_H

#include "t_unit.h"

static inline int crowd(int n) {
    return (int)T_SCALE(t_procs() <= 8 ? n : n / 4);
}

static inline void *next_of(go_gen *g) {
    void *v = t_ptr(-1);
    T_EQ(go_gen_next(g, &v), 0);
    return v;
}

static inline void must_be_over(go_gen *g) {
    void *v = t_ptr(-1);
    T_EQ(go_gen_next(g, &v), -EPIPE);
    T_ASSERT(v == NULL);
}

static inline go_gen *new_gen(void (*fn)(go_gen *, void *), void *arg) {
    go_gen *g = go_gen_new(fn, arg);
    T_ASSERT(g);
    return g;
}

static inline void count_to(go_gen *g, void *arg) {
    for (intptr_t i = 1; i <= t_int(arg) && !go_gen_closed(g); i++)
        T_ASSERT(go_gen_yield(g, t_ptr(i)) == NULL);
}

#endif
