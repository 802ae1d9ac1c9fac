/* gort/chan.h alone. */
#include <gort/chan.h>

#include "is.h"

IS(go_chan *, go_chan_new, size_t, size_t);
IS(void, go_chan_free, go_chan *);
IS(int, go_chan_send, go_chan *, const void *);
IS(int, go_chan_recv, go_chan *, void *);
IS(int, go_chan_try_send, go_chan *, const void *);
IS(int, go_chan_try_recv, go_chan *, void *);
IS(int, go_chan_close, go_chan *);
IS(size_t, go_chan_len, const go_chan *);
IS(size_t, go_chan_cap, const go_chan *);
IS(int, go_chan_fd, go_chan *);
IS(int, go_select, struct go_case *, size_t, int64_t);

struct go_case a_case = GO_CASE_SEND(NULL, NULL);
int *case_result = &a_case.result;
