/* log.c - lines on stderr. */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void write_line(const char *prefix, const char *fmt, va_list ap) {
    char line[512];
    int saved = errno;
    int n = snprintf(line, sizeof line, "gort: %s", prefix);
    int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
    if (m > 0)
        n += m;
    if ((size_t)n > sizeof line - 2)
        n = (int)sizeof line - 2;
    line[n++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, (size_t)n);
    (void)ignored;
    errno = saved;
}

void rt_log(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    write_line("", fmt, ap);
    va_end(ap);
}

void rt_fatal(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    write_line("", fmt, ap);
    va_end(ap);
    abort();
}

void rt_throw(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    write_line("internal error: ", fmt, ap);
    va_end(ap);
    abort();
}
