/* gort/scope.h alone. */
#include <gort/scope.h>

#include "is.h"

IS(void, go_scope_enter, go_scope *, int64_t);
IS(void, go_scope_enter_shielded, go_scope *, int64_t);
IS(int, go_scope_leave, go_scope *);
IS(void, go_scope_cancel, go_scope *);
IS(int, go_canceled, void);
IS(void, go_group_enter, go_group *, int64_t);
IS(int, go_group_spawn, go_group *, int (*)(void *), void *);
IS(int, go_group_spawn_with, go_group *, const struct go_spawn_options *, int (*)(void *), void *);
IS(void, go_group_cancel, go_group *);
IS(int, go_group_wait, go_group *);

char scope_is_64[sizeof(go_scope) == 64 ? 1 : -1];
char group_is_128[sizeof(go_group) == 128 ? 1 : -1];
