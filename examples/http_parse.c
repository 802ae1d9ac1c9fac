/* http_parse.c - one request head: syntax by picohttpparser, meaning and framing here.
 *
 * Where a request ends must be beyond doubt. If we and a proxy before us disagree about that,
 * somebody can smuggle a request past it ("request smuggling"), so everything ambiguous is refused
 * instead of repaired: two lengths that differ, a length beside chunks, chunks in HTTP/1.0, folded
 * fields, two Hosts. The rules are RFC 9112, sections 3.2 (Host), 5.2 (folding) and 6 (framing).
 *
 * Nothing here allocates, waits, or knows of the connection. */
#include "http_server.h"

static bool is_letter_of_either_case(unsigned char a, unsigned char b) {
    return (a | 0x20) == (b | 0x20) && (a | 0x20) >= 'a' && (a | 0x20) <= 'z';
}

bool http_str_equal_nocase(struct http_str a, struct http_str b) {
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (a.at[i] != b.at[i] &&
            !is_letter_of_either_case((unsigned char)a.at[i], (unsigned char)b.at[i]))
            return false;
    return true;
}

static struct http_str field_name(const struct phr_header *field) {
    return (struct http_str){field->name, field->name_len};
}

static struct http_str field_value(const struct phr_header *field) {
    return (struct http_str){field->value, field->value_len};
}

struct http_str http_request_field(const struct http_request *request, struct http_str name) {
    for (size_t i = 0; i < request->field_count; i++)
        if (http_str_equal_nocase(field_name(&request->fields[i]), name))
            return field_value(&request->fields[i]);
    return (struct http_str){NULL, 0};
}

/* Is token a member of the comma-separated list? */
static bool list_has(struct http_str list, struct http_str token) {
    const char *at = list.at, *end = list.at + list.len;
    while (at < end) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        const char *stop = comma != NULL ? comma : end;
        const char *last = stop;
        while (at < last && (*at == ' ' || *at == '\t'))
            at++;
        while (at < last && (last[-1] == ' ' || last[-1] == '\t'))
            last--;
        if (http_str_equal_nocase((struct http_str){at, (size_t)(last - at)}, token))
            return true;
        at = stop + 1;
    }
    return false;
}

/* What the fields say together; kept out of the request because no handler needs it. */
struct findings {
    unsigned hosts;
    unsigned transfer_encodings;
    bool says_close;
    bool says_keep_alive;
};

/* Digits only: no sign, no blank, no list, no overflow. Said twice alike is harmless, as in Go. */
static int read_content_length(struct http_request *request, struct http_str value) {
    size_t length = 0;
    if (value.len == 0)
        return 400;
    for (size_t i = 0; i < value.len; i++) {
        unsigned digit = (unsigned char)value.at[i] - (unsigned)'0';
        if (digit > 9 || __builtin_mul_overflow(length, 10, &length) ||
            __builtin_add_overflow(length, digit, &length))
            return 400;
    }
    if (request->has_length && request->content_length != length)
        return 400;
    request->has_length = true;
    request->content_length = length;
    return 0;
}

/* A name with an optional port, or nothing. What cannot be in one is refused, so that no code
 * behind us has to wonder which part of it counts. */
static int read_host(struct http_str value) {
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.at[i];
        if (c <= ' ' || c >= 0x7f || c == '/' || c == '@' || c == ',' || c == '?' || c == '#')
            return 400;
    }
    return 0;
}

static int read_field(struct http_request *request, struct findings *found,
                      const struct phr_header *field) {
    struct http_str name = field_name(field), value = field_value(field);
    if (name.at == NULL)
        return 400; /* a folded line: the parser's sign for "goes on from the line before" */
    /* By length first: nearly every field is let go after one comparison of integers. */
    switch (name.len) {
    case sizeof("Host") - 1:
        if (http_str_equal_nocase(name, HTTP_STR("Host")))
            return found->hosts++ > 0 ? 400 : read_host(value);
        break;
    case sizeof("Expect") - 1:
        if (http_str_equal_nocase(name, HTTP_STR("Expect"))) {
            request->expect_continue = http_str_equal_nocase(value, HTTP_STR("100-continue"));
            return request->expect_continue ? 0 : 417;
        }
        break;
    case sizeof("Connection") - 1:
        if (http_str_equal_nocase(name, HTTP_STR("Connection"))) {
            found->says_close |= list_has(value, HTTP_STR("close"));
            found->says_keep_alive |= list_has(value, HTTP_STR("keep-alive"));
        }
        break;
    case sizeof("Content-Length") - 1:
        if (http_str_equal_nocase(name, HTTP_STR("Content-Length")))
            return read_content_length(request, value);
        break;
    case sizeof("Transfer-Encoding") - 1:
        if (http_str_equal_nocase(name, HTTP_STR("Transfer-Encoding"))) {
            request->chunked = http_str_equal_nocase(value, HTTP_STR("chunked"));
            if (found->transfer_encodings++ > 0)
                return 400;
            return request->chunked ? 0 : 501;
        }
        break;
    default:
        break;
    }
    return 0;
}

static int read_fields(struct http_request *request) {
    struct findings found = {0};
    request->has_length = request->chunked = request->expect_continue = false;
    request->content_length = 0;
    for (size_t i = 0; i < request->field_count; i++) {
        int status = read_field(request, &found, &request->fields[i]);
        if (status != 0)
            return status;
    }
    if (request->minor >= 1 && found.hosts == 0)
        return 400;
    if (found.transfer_encodings > 0 && (request->has_length || request->minor == 0))
        return 400;
    /* 1.1 stays open unless told otherwise, 1.0 closes unless told otherwise; close wins. */
    request->keep_alive = !found.says_close && (request->minor >= 1 || found.says_keep_alive);
    request->expect_continue = request->expect_continue && request->minor >= 1;
    return 0;
}

/* The path and the query of the target: "/path?query", "http://host/path?query" (which every server
 * must understand), or "*" with OPTIONS. */
static int read_target(struct http_request *request) {
    struct http_str path = request->target;
    request->query = HTTP_STR("");
    if (path.at[0] != '/') {
        if (http_str_equal(path, HTTP_STR("*"))) {
            request->path = path;
            return http_str_equal(request->method, HTTP_STR("OPTIONS")) ? 0 : 400;
        }
        struct http_str scheme = HTTP_STR("http://");
        if (path.len <= scheme.len ||
            !http_str_equal_nocase((struct http_str){path.at, scheme.len}, scheme))
            return 400;
        const char *host = path.at + scheme.len, *end = path.at + path.len, *rest = host;
        while (rest < end && *rest != '/' && *rest != '?')
            rest++;
        if (rest == host)
            return 400;
        path = (struct http_str){rest, (size_t)(end - rest)};
    }
    const char *mark = memchr(path.at, '?', path.len);
    if (mark != NULL) {
        request->query = (struct http_str){mark + 1, path.len - (size_t)(mark + 1 - path.at)};
        path.len = (size_t)(mark - path.at);
    }
    request->path = path.len > 0 ? path : HTTP_STR("/");
    return 0;
}

/* What is wrong with the first line: 505 when it ends in a version that is not 1.x, 400 when it
 * ends in no version, 0 when it ends in a good one. */
static int judge_first_line(const char *at, size_t len) {
    const struct http_str version = HTTP_STR(" HTTP/1.1");
    if (len > 0 && at[len - 1] == '\r')
        len--;
    if (len < version.len)
        return 400;
    const char *v = at + len - version.len;
    if (memcmp(v, " HTTP/", 6) != 0 || v[6] < '0' || v[6] > '9' || v[7] != '.' || v[8] < '0' ||
        v[8] > '9')
        return 400;
    return v[6] == '1' ? 0 : 505;
}

/* The parser has stopped short. It calls every wrong version an error, and one that is wrong and
 * short incomplete for ever; so look at the first line ourselves. This is off the usual path. */
static int judge(const char *at, size_t len, bool incomplete, bool too_many_fields) {
    const char *newline = memchr(at, '\n', len);
    if (newline == NULL && incomplete)
        return 0;
    int status = judge_first_line(at, newline != NULL ? (size_t)(newline - at) : len);
    if (status != 0 || incomplete)
        return -status;
    return too_many_fields ? -431 : -400;
}

int http_parse_head(const char *at, size_t len, struct http_request *request) {
    request->field_count = HTTP_MAX_FIELDS;
    int n = phr_parse_request(at, len, &request->method.at, &request->method.len,
                              &request->target.at, &request->target.len, &request->minor,
                              request->fields, &request->field_count, 0);
    if (n < 0)
        return judge(at, len, n == -2, request->field_count == HTTP_MAX_FIELDS);
    int status = read_fields(request);
    if (status == 0)
        status = read_target(request);
    return status != 0 ? -status : n;
}
