/* env.h - settings from the environment: GORT_PROCS, GORT_STACK, GORT_GRACE, GORT_NETPOLL,
 * GORT_CHAOS, GORT_CHAOS_AT, GORT_SEED. */
#ifndef RT_ENV_H
#define RT_ENV_H

#include <stdint.h>

struct rt_env {
    unsigned procs;      /* 0: not set */
    uint64_t stack;      /* bytes; 0: not set */
    int64_t grace_ns;
    const char *netpoll; /* NULL: not set */
    double chaos;        /* probability; 0: off */
    const char *chaos_at; /* NULL: not set */
    uint64_t seed;
};

/* What cannot be parsed gets one line on stderr and counts as not set. */
void rt_env_read(struct rt_env *e);

#endif
