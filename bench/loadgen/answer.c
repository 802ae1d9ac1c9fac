/* answer.c - checks HTTP answers.
 *
 * The first answer goes through a parser that accepts only what we understand: a 200 with a
 * Content-Length. Later ones are compared with the first, which costs a memcmp, so that checking
 * every byte of every answer does not slow the load generator down. Only the value of Date may
 * change; a changed one must be well formed and within a few seconds of our clock.
 */
#include "answer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { DATE_LEN = 29 }; /* Sun, 06 Nov 1994 08:49:37 GMT */

static int date_is_right(const char *date) {
    char text[DATE_LEN + 1];
    struct tm tm = {0};

    memcpy(text, date, DATE_LEN);
    text[DATE_LEN] = 0;
    const char *end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    if (!end || *end)
        return 0;
    time_t off = timegm(&tm) - time(NULL);
    return off > -5 && off < 5;
}

/* One header line. Returns NULL when it is one that we can go on with. */
static const char *check_line(const char *line, size_t len, const char *buf, size_t *date,
                              long *body) {
    const char *colon = memchr(line, ':', len);

    if (!colon || colon == line)
        return "a header line without a name";
    for (size_t i = 0; i < len; i++)
        if (((unsigned char)line[i] < ' ' && line[i] != '\t') || line[i] == 127)
            return "a control character in the headers";
    size_t name = (size_t)(colon - line);
    const char *value = colon + 1, *end = line + len;
    while (value < end && *value == ' ')
        value++;

    if (name == 14 && !strncasecmp(line, "Content-Length", name)) {
        char *stop;
        if (*body >= 0)
            return "two Content-Length headers";
        *body = value < end && *value >= '0' && *value <= '9' ? strtol(value, &stop, 10) : -1;
        if (*body < 0 || *body > ANSWER_MAX || stop != end)
            return "a Content-Length that is no sane number";
    } else if (name == 4 && !strncasecmp(line, "Date", name)) {
        if (end - value != DATE_LEN || !date_is_right(value))
            return "a wrong Date";
        *date = (size_t)(value - buf);
    } else if (name == 17 && !strncasecmp(line, "Transfer-Encoding", name)) {
        return "Transfer-Encoding, which this load generator does not read";
    }
    return NULL;
}

static ssize_t parse(const char *expected, const char *buf, size_t len, size_t *date,
                     const char **why) {
    static const char ok[] = "HTTP/1.1 200 ";
    size_t known = len < sizeof ok - 1 ? len : sizeof ok - 1;
    long body = -1;

    *date = 0;
    if (memcmp(buf, ok, known)) {
        *why = "not an HTTP/1.1 200";
        return -1;
    }
    const char *end = memmem(buf, len, "\r\n\r\n", 4);
    if (!end)
        return 0;
    const char *line = memmem(buf, len, "\r\n", 2);
    while (line < end) {
        line += 2;
        const char *next = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);
        *why = check_line(line, (size_t)(next - line), buf, date, &body);
        if (*why)
            return -1;
        line = next;
    }
    if (body < 0) {
        *why = "no Content-Length";
        return -1;
    }
    size_t total = (size_t)(end + 4 - buf) + (size_t)body;
    if (len < total)
        return 0;
    if (expected && (strlen(expected) != (size_t)body || memcmp(end + 4, expected, (size_t)body))) {
        *why = "not the expected body";
        return -1;
    }
    return (ssize_t)total;
}

static int equals_first(struct answer *a, const char *buf) {
    if (!a->date)
        return !memcmp(buf, a->text, a->len);
    size_t after = a->date + DATE_LEN;
    if (memcmp(buf, a->text, a->date) || memcmp(buf + after, a->text + after, a->len - after))
        return 0;
    if (!memcmp(buf + a->date, a->last_date, DATE_LEN))
        return 1;
    if (!date_is_right(buf + a->date))
        return 0;
    memcpy(a->last_date, buf + a->date, DATE_LEN);
    return 1;
}

ssize_t answer_check(struct answer *a, const char *buf, size_t len, const char **why) {
    size_t date;

    if (a->text && len >= a->len) {
        *why = "differs from the first answer";
        return equals_first(a, buf) ? (ssize_t)a->len : -1;
    }
    ssize_t total = parse(a->body, buf, len, &date, why);
    if (total <= 0)
        return total;
    if (a->text) {
        *why = "shorter than the first answer";
        return -1;
    }
    a->text = malloc((size_t)total);
    if (!a->text) {
        *why = "out of memory";
        return -1;
    }
    memcpy(a->text, buf, (size_t)total);
    a->len = (size_t)total;
    a->date = date;
    memcpy(a->last_date, buf + date, date ? DATE_LEN : 0);
    return total;
}
