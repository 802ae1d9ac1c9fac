/* gort.h - green threads for C on Linux: one include for the whole library.
 *
 * Every fallible call returns >= 0 or -errno; errno itself is neither read nor written. Durations
 * and deadlines are int64_t nanoseconds, deadlines absolute on go_now()'s clock. "Parks" means: the
 * green thread may wait, its OS thread runs others meanwhile, and it may go on on another OS
 * thread. A call works on a green thread and on any other thread unless its comment says otherwise;
 * on another thread it blocks that thread instead of parking. */
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
