/* gort.h - green threads for C on Linux: one include for the whole library.
 *
 * Every fallible call returns >= 0 or -errno; errno itself is neither read nor written. Durations
 * and deadlines are int64_t nanoseconds, deadlines absolute on go_now()'s clock. "Parks" means: the
 * green thread may wait, its OS thread runs others meanwhile, and it may go on on another OS
 * thread. A call works on a green thread and on any other thread unless its comment says otherwise;
 * on another thread it blocks that thread instead of parking.
 *
 * A child of fork(2), forked while the runtime runs, or is being started or stopped, has none of
 * gort's threads, and no runtime for ever. Every call that needs one returns -ENXIO there, or NULL
 * where it returns a pointer; go_procs and go_id return 0. These need none and work as ever:
 * go_now, go_sleep, go_yield, scopes and groups (go_group_spawn: -ENXIO), locals, channels, all of
 * gort/sync.h (go_waitgroup_spawn: -ENXIO), generators that were there (go_gen_new: NULL),
 * go_close, go_forget, go_shutdown, go_version. go_checkpoint, go_nopreempt_begin, go_lock_thread
 * and their counterparts do nothing, nor does go_ticker_free. All this for objects that no other
 * thread held, waited for or was using at the moment of the fork. Any other stays as it was then:
 * what was locked is never unlocked, green threads neither go on nor end, so a call may wait for
 * ever, or hand over a value that nobody gets, and go_chan_free aborts where somebody waited. To
 * gort the child of a green thread is a thread that is not green: the scopes and locals of the
 * green thread are not its own, to leave such a scope aborts, and so does a return from the
 * function of the green thread. It may exec or _exit. A child that was forked before the first
 * start, or after a go_stop that has returned 0, may start a runtime of its own. */
#ifndef GORT_H
#define GORT_H

#include <gort/task.h>
#include <gort/scope.h>
#include <gort/chan.h>
#include <gort/sync.h>
#include <gort/time.h>
#include <gort/gen.h>
#include <gort/io.h>
#include <gort/debug.h>

#endif
