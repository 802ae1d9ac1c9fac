/* scope.h - what a group needs of the scope that it is. See scope.c. */
#ifndef RT_TASK_SCOPE_H
#define RT_TASK_SCOPE_H

#include "sched/park.h"

/* rt_state; bits come and never go while the scope is entered. */
enum {
    RT_SCOPE_CANCELED = 1,
    RT_SCOPE_LATE = 2,   /* a call inside was refused for this deadline */
    RT_SCOPE_PASSED = 4, /* a group: a cancel from outside was passed on to its children */
};

/* rt_entered: so that a struct which is not entered is told from one that is. */
enum rt_scope_kind { RT_SCOPE_PLAIN = 0x5c09e, RT_SCOPE_SHIELD, RT_SCOPE_GROUP };

/* By the owner. The pop says what state s was in; s must be the innermost. */
void rt_scope_push(struct rt_g *g, go_scope *s, enum rt_scope_kind kind, int64_t deadline);
uint32_t rt_scope_pop(struct rt_g *g, go_scope *s);

/* A scope of that level in g's chain was cancelled: leave it in g's attention. A heavy fence and
 * rt_cancel_claim must follow. Any thread. */
void rt_scope_raise(struct rt_g *g, uint32_t level);

static inline int rt_scope_result(uint32_t state) {
    return state & RT_SCOPE_CANCELED ? -ECANCELED : state & RT_SCOPE_LATE ? -ETIMEDOUT : 0;
}

#endif
