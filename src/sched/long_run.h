/* long_run.h - who hogged its P, for go_on_long_run. See long_run.c. */
#ifndef RT_LONG_RUN_H
#define RT_LONG_RUN_H

#include "sched/sched.h"

/* sysmon: p's G has made no other progress than that; remember who it is. False: nobody wants to
 * know, or it is not so any more; or the hook is busy: then it counts as one that was missed, and
 * as told. */
bool rt_long_run_note(struct rt_p *p, uint64_t progress, bool *told);
/* Then: tell of it. */
void rt_long_run_tell(int64_t ns, bool blocked, bool taken);
/* Its P was taken, and nobody knows whose it was. */
void rt_long_run_miss(void);

#endif
