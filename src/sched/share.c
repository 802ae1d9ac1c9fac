/* share.c - one runtime for several libraries of a process, which know nothing of each other.
 *
 * They are counted. The first starts the runtime, the last stops it; but one that somebody has
 * started by go_start is his, and is not stopped here: the number of the start is looked at when
 * nobody else can stop it any more (rt_stop_begin). The lock is not held during a stop, or a
 * green thread that waits for it here would hold the stop up: the state goes to STOPPING under the
 * lock, and whoever comes then is refused. While the last one stops it he is counted still, so that
 * he can try again after -ETIMEDOUT. */
#include "base/lock.h"
#include "base/log.h"
#include "base/sys.h"
#include "sched/start.h"

#include <errno.h>

static const int64_t START_NAP_NS = 50 * 1000;

static struct {
    uint32_t lock;
    uint32_t users;
    uint32_t ours; /* the start of that number was go_acquire's; 0: none */
    bool stopping; /* the last user is in go_stop */
} share;

/* Another thread may have held the lock, to look whether there is a runtime; or it was the last
 * user, has stopped it, and did not come to say so. */
void rt_share_fork_child(void) {
    rt_store_relaxed(&share.lock, 0);
    if (share.stopping) {
        share.users--;
        share.ours = 0;
        share.stopping = false;
    }
}

/* Under the lock. A start by somebody else, which is under way or fails, is waited for: no start
 * takes the lock, and no green thread is here meanwhile. */
static int start_or_join(void) {
    for (;;) {
        int err = rt_start(NULL, &share.ours);
        if (err != -EALREADY)
            return err;
        uint32_t state = rt_load_acquire(&rt.state); /* with start's release */
        if (state == RT_RUNNING)
            return 0; /* by somebody else, just now */
        if (state == RT_STOPPING)
            return err;
        rt_sys_nap(START_NAP_NS);
    }
}

int go_acquire(void) {
    if (rt_load_relaxed(&rt.state) == RT_FORKED)
        return -ENXIO; /* the lock may be that of a thread which is not here */
    rt_futex_lock(&share.lock);
    int err = share.stopping ? -EALREADY : 0;
    if (err == 0 && rt_load_acquire(&rt.state) != RT_RUNNING)
        err = start_or_join();
    share.users += err == 0;
    rt_futex_unlock(&share.lock);
    return err;
}

int go_release(int64_t grace_ns) {
    if (rt_load_relaxed(&rt.state) == RT_FORKED)
        return -ENXIO;
    rt_futex_lock(&share.lock);
    if (share.users == 0)
        rt_fatal("go_release: more often than go_acquire");
    bool last = share.users == 1 && share.ours;
    int err = last ? rt_stop_begin(share.ours) : -ENXIO;
    share.stopping |= err == 0;
    share.users -= err == -ENXIO; /* he is not the last, or what was ours is over already */
    rt_futex_unlock(&share.lock);
    if (err)
        return err == -ENXIO ? 0 : err;
    err = rt_stop_end(grace_ns);
    rt_futex_lock(&share.lock);
    share.stopping = false;
    if (err == 0) {
        share.users--;
        share.ours = 0;
    }
    rt_futex_unlock(&share.lock);
    return err;
}
