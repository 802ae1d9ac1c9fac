/* gort/gen.h alone. */
#include <gort/gen.h>

#include "is.h"

IS(go_gen *, go_gen_new, void (*)(go_gen *, void *), void *);
IS(int, go_gen_next, go_gen *, void **);
IS(int, go_gen_send, go_gen *, void *, void **);
IS(void *, go_gen_yield, go_gen *, void *);
IS(int, go_gen_closed, go_gen *);
IS(int, go_gen_close, go_gen *);
