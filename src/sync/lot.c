/* lot.c - see lot.h. */
#include "sync/lot.h"

#include "sched/start.h"

#include <string.h>

struct rt_lot rt_lots[RT_LOTS];

/* In the only thread of the child: whoever held a lot, or waited, is not there any more. */
void rt_lot_fork_child(void) {
    memset(rt_lots, 0, sizeof rt_lots);
}
