/* log.h - the only voices of the runtime: one line on stderr, written with a single write(2). */
#ifndef RT_LOG_H
#define RT_LOG_H

/* "gort: " and the text and a newline; never allocates, keeps errno. */
void rt_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The caller's misuse: the line, then abort. */
void rt_fatal(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn, cold));
/* Our own bug: the same with "internal error" in front. */
void rt_throw(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn, cold));

#define rt_assert(cond) \
    do { \
        if (__builtin_expect(!(cond), 0)) \
            rt_throw("%s:%d: %s", __FILE__, __LINE__, #cond); \
    } while (0)

#endif
