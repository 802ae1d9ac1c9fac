/* gort/base.h - what the other headers share: linkage and units of time. */
#ifndef GORT_BASE_H
#define GORT_BASE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
#define GO_BEGIN_DECLS extern "C" {
#define GO_END_DECLS }
#else
#define GO_BEGIN_DECLS
#define GO_END_DECLS
#endif

#define GO_API __attribute__((visibility("default")))

#define GO_NANOSECOND  INT64_C(1)
#define GO_MICROSECOND (INT64_C(1000) * GO_NANOSECOND)
#define GO_MILLISECOND (INT64_C(1000) * GO_MICROSECOND)
#define GO_SECOND      (INT64_C(1000) * GO_MILLISECOND)
#define GO_MINUTE      (INT64_C(60) * GO_SECOND)
#define GO_FOREVER     INT64_MAX   /* as a deadline: never */
#define GO_NOW         INT64_C(0)  /* as a deadline: poll, never wait */

#endif
