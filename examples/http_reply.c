/* http_reply.c - answers: a head put together from ready pieces, and the Date.
 *
 * No printf, no strlen: every piece has a length that the compiler knows, a head is a few moves. */
#include "http_conn.h"

#include <time.h>

static char *put(char *to, struct http_str s) {
    memcpy(to, s.at, s.len);
    return to + s.len;
}

static char *put_number(char *to, size_t n) {
    char digits[20], *first = digits + sizeof digits;
    do
        *--first = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    return put(to, (struct http_str){first, (size_t)(digits + sizeof digits - first)});
}

static struct http_str status_line(int status) {
#define LINE(text) HTTP_STR("HTTP/1.1 " text "\r\n")
    switch (status) {
    case 200:
        return LINE("200 OK");
    case 202:
        return LINE("202 Accepted");
    case 400:
        return LINE("400 Bad Request");
    case 404:
        return LINE("404 Not Found");
    case 405:
        return LINE("405 Method Not Allowed");
    case 408:
        return LINE("408 Request Timeout");
    case 413:
        return LINE("413 Content Too Large");
    case 417:
        return LINE("417 Expectation Failed");
    case 431:
        return LINE("431 Request Header Fields Too Large");
    case 501:
        return LINE("501 Not Implemented");
    case 503:
        return LINE("503 Service Unavailable");
    case 505:
        return LINE("505 HTTP Version Not Supported");
    default:
        return LINE("500 Internal Server Error");
    }
#undef LINE
}

/* The Date, "Sun, 06 Nov 1994 08:49:37 GMT", is the same for all answers of a second, so it is made
 * once a second, by whoever needs it first, and kept in words that all threads may read.
 *
 * A sequence lock: odd while the words are being written. A reader that finds the second wrong, the
 * count odd, or the count changed after it has read, makes its own date: nobody ever waits. Reader
 * and writer pair up word by word (release, acquire): who sees a new word also sees that the count
 * is odd. */
enum { DATE_LEN = 29, DATE_WORDS = 4 };
static struct {
    atomic_uint count;
    atomic_int_fast64_t second;
    atomic_uint_fast64_t words[DATE_WORDS];
} date_cache;

static void make_date(time_t now, char date[DATE_WORDS * 8]) {
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct tm tm;
    gmtime_r(&now, &tm);
    memcpy(date, "DDD, 00 MMM 0000 00:00:00 GMT\0\0", DATE_WORDS * 8);
    memcpy(date, days + 3 * tm.tm_wday, 3);
    memcpy(date + 8, months + 3 * tm.tm_mon, 3);
    const struct {
        int at, value;
    } pairs[] = {{5, tm.tm_mday},        {12, (tm.tm_year + 1900) / 100},
                 {14, tm.tm_year % 100}, {17, tm.tm_hour},
                 {20, tm.tm_min},        {23, tm.tm_sec}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        date[pairs[i].at] = (char)('0' + pairs[i].value / 10);
        date[pairs[i].at + 1] = (char)('0' + pairs[i].value % 10);
    }
}

static void publish_date(time_t now, const uint64_t words[DATE_WORDS]) {
    unsigned count = atomic_load_explicit(&date_cache.count, memory_order_relaxed);
    if (count % 2 == 1 || !atomic_compare_exchange_strong(&date_cache.count, &count, count + 1))
        return; /* another one is at it */
    atomic_store_explicit(&date_cache.second, now, memory_order_release);
    for (int i = 0; i < DATE_WORDS; i++)
        atomic_store_explicit(&date_cache.words[i], words[i], memory_order_release);
    atomic_store_explicit(&date_cache.count, count + 2, memory_order_release);
}

static char *put_date(char *to) {
    time_t now = time(NULL);
    uint64_t words[DATE_WORDS];
    unsigned count = atomic_load_explicit(&date_cache.count, memory_order_acquire);
    time_t second = atomic_load_explicit(&date_cache.second, memory_order_acquire);
    bool good = count % 2 == 0 && second == now;
    for (int i = 0; i < DATE_WORDS; i++)
        words[i] = atomic_load_explicit(&date_cache.words[i], memory_order_acquire);
    if (!good || atomic_load_explicit(&date_cache.count, memory_order_relaxed) != count) {
        make_date(now, (char *)words);
        publish_date(now, words);
    }
    memcpy(to, words, sizeof words);
    return to + DATE_LEN;
}

static char *put_head(char *to, const struct http_request *request, int status,
                      struct http_str type, struct http_str extra_fields, size_t length) {
    to = put(to, status_line(status));
    to = put(to, HTTP_STR("Date: "));
    to = put_date(to);
    to = put(to, HTTP_STR("\r\nContent-Type: "));
    to = put(to, type);
    to = put(to, HTTP_STR("\r\nContent-Length: "));
    to = put_number(to, length);
    to = put(to, HTTP_STR("\r\n"));
    if (!request->conn->keep_alive)
        to = put(to, HTTP_STR("Connection: close\r\n"));
    else if (request->minor == 0) /* a 1.0 client wants to be told */
        to = put(to, HTTP_STR("Connection: keep-alive\r\n"));
    to = put(to, extra_fields);
    return put(to, HTTP_STR("\r\n"));
}

void http_reply_with(struct http_request *request, int status, struct http_str content_type,
                     struct http_str extra_fields, struct http_str body) {
    struct http_conn *c = request->conn;
    if (c->replied || c->failed)
        return;
    c->replied = true;
    if (content_type.len + extra_fields.len > HTTP_REPLY_HEAD_MAX / 2) {
        status = 500; /* a handler's mistake, but not one that may write beyond the buffer */
        content_type = HTTP_STR("text/plain");
        extra_fields = HTTP_STR("");
        body = HTTP_STR("the answer's fields are too long\n");
    }
    if (c->keep_alive && atomic_load_explicit(&c->server->stopping, memory_order_relaxed)) {
        c->keep_alive = false;
        c->linger = true; /* the client did not ask for the end and may have sent more */
    }
    if (c->out_len + HTTP_REPLY_HEAD_MAX > HTTP_OUT_SIZE && !http_conn_write(c, HTTP_STR("")))
        return;
    char *to = c->out + c->out_len;
    to = put_head(to, request, status, content_type, extra_fields, body.len);
    c->out_len = (size_t)(to - c->out);
    if (http_str_equal(request->method, HTTP_STR("HEAD")))
        return;
    if (body.len > HTTP_OUT_SIZE - c->out_len) {
        http_conn_write(c, body); /* with all that has gathered: one system call, no copy */
        return;
    }
    c->out_len = (size_t)(put(to, body) - c->out);
}
