/* gort/debug.h alone: of the contract's calls those that are there. */
#include <gort/debug.h>

#include "is.h"

IS(int, go_stats, struct go_stats *);
IS(const char *, go_version, void);

struct go_stats stats = GO_STATS_INIT;
size_t *stats_size = &stats.size;
