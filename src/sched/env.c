/* env.c - see env.h. */
#include "sched/env.h"

#include "base/log.h"
#include "sched/sched.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const int64_t DEFAULT_GRACE_MS = 10000;

/* A whole number in [min, max]; with `units`, K or M may follow. */
static bool number(const char *name, uint64_t min, uint64_t max, bool units, uint64_t *out) {
    const char *text = getenv(name);
    if (!text || !*text)
        return false;
    int saved = errno;
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    bool ok = errno == 0 && end != text && *text >= '0' && *text <= '9';
    errno = saved;
    unsigned shift = 0;
    if (ok && units && (*end == 'K' || *end == 'k'))
        shift = 10;
    else if (ok && units && (*end == 'M' || *end == 'm'))
        shift = 20;
    end += shift != 0;
    if (!ok || *end || n > max >> shift || n << shift < min) {
        rt_log("%s=%s is not understood (%llu..%llu%s): ignored", name, text,
               (unsigned long long)min, (unsigned long long)max, units ? ", bytes, K or M" : "");
        return false;
    }
    *out = n << shift;
    return true;
}

void rt_env_read(struct rt_env *e) {
    *e = (struct rt_env){.grace_ns = DEFAULT_GRACE_MS * 1000000};
    uint64_t n;
    if (number("GORT_PROCS", 1, RT_MAX_PROCS, false, &n))
        e->procs = (unsigned)n;
    if (number("GORT_STACK", UINT64_C(1) << RT_STACK_MIN_SHIFT,
               UINT64_C(1) << (RT_STACK_MIN_SHIFT + RT_STACK_CLASSES - 1), true, &n))
        e->stack = n;
    if (number("GORT_GRACE", 0, 1000000000, false, &n))
        e->grace_ns = (int64_t)n * 1000000;
    if (number("GORT_SEED", 0, UINT64_MAX, false, &n))
        e->seed = n;
    const char *chaos = getenv("GORT_CHAOS");
    if (chaos && *chaos) {
        char *end;
        int saved = errno;
        double p = strtod(chaos, &end);
        errno = saved;
        if (*end == 0 && p >= 0 && p <= 1)
            e->chaos = p;
        else
            rt_log("GORT_CHAOS=%s is not understood (0..1): ignored", chaos);
    }
    e->chaos_at = getenv("GORT_CHAOS_AT");
    const char *netpoll = getenv("GORT_NETPOLL");
    if (netpoll && *netpoll) {
        if (!strcmp(netpoll, "auto") || !strcmp(netpoll, "uring") || !strcmp(netpoll, "epoll"))
            e->netpoll = netpoll;
        else
            rt_log("GORT_NETPOLL=%s is not understood (auto, uring or epoll): ignored", netpoll);
    }
}
