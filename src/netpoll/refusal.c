/* refusal.c - when the kernel refuses to let an M wait.
 *
 * Promise: an M whose wait fails again and again does not spin, and one line on stderr says why the
 * program has become slow; as soon as the kernel is willing again nothing is left of it.
 *
 * What can never work again (a closed descriptor, a late seccomp filter) ends the program where it
 * is seen, in ring.c and epoll.c. Here are those that pass, -EAGAIN, -EBUSY, -ENOMEM, -EINTR:
 * mostly at once, so the M goes round and tries again. After AT_ONCE in a row it naps instead of
 * waiting: what it would have been told then comes up to NAP_NS late, its own wake-ups, too.
 *
 * Not done: to go on with the other engine. Who waits is known to this one alone, and memory that
 * the kernel has not got for a wait it has not got for setting up another. */
#include "base/atomic.h"
#include "base/log.h"
#include "base/sys.h"
#include "netpoll/engines.h"

#include <errno.h>
#include <string.h>

enum { AT_ONCE = 16, SAY = 64 };
static const int64_t NAP_NS = 1000 * 1000;

static uint32_t said; /* in this process */

void rt_wait_ended(uint32_t *refused, const char *call, int err) {
    if (rt_likely(err >= 0 || err == -ETIME)) {
        *refused = 0;
        return;
    }
    if (++*refused < AT_ONCE)
        return;
    uint32_t no = 0;
    if (*refused == SAY && rt_cas_relaxed(&said, &no, 1))
        rt_log("%s has failed %d times in a row: %s. I try on, a thousand times a second, and what "
               "waits for it is late",
               call, SAY, strerror(-err));
    rt_sys_nap(NAP_NS);
}
