/* gort/time.h alone. */
#include <gort/time.h>

#include "is.h"

IS(int64_t, go_now, void);
IS(int, go_sleep, int64_t);
IS(go_timer *, go_timer_after, int64_t, void (*)(void *), void *);
IS(int, go_timer_stop, go_timer *);
IS(int, go_timer_stop_wait, go_timer *);
IS(go_chan *, go_ticker_new, int64_t);
IS(void, go_ticker_free, go_chan *);
