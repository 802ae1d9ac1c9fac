/* prefix.h - read before each file that is compiled for a model: -fsanitize=thread is there for its
 * calls at plain accesses (checker/race.c), not for TSan, of which the shipped code must know
 * nothing. */
#include <string.h>

#undef __SANITIZE_THREAD__
#ifdef __clang__
#undef __has_feature
#define __has_feature(x) 0
#endif

void *model_memcpy(void *to, const void *from, size_t n);
void *model_memmove(void *to, const void *from, size_t n);
void *model_memset(void *to, int c, size_t n);
#define memcpy  model_memcpy
#define memmove model_memmove
#define memset  model_memset
