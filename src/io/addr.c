/* addr.c - parsing addresses by hand: getaddrinfo(3) may read files, load modules and take a lot of
 * stack, and all it would do here is inet_pton(3). "localhost" is the loopback address without a
 * question to anybody (RFC 6761, 6.3). */
#include "io/addr.h"

#include "base/sys_io.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct network {
    const char *name;
    int type, protocol;
    bool four, six;
};
static const struct network networks[] = {
    {"tcp", SOCK_STREAM, IPPROTO_TCP, true, true},
    {"tcp4", SOCK_STREAM, IPPROTO_TCP, true, false},
    {"tcp6", SOCK_STREAM, IPPROTO_TCP, false, true},
    {"udp", SOCK_DGRAM, IPPROTO_UDP, true, true},
    {"udp4", SOCK_DGRAM, IPPROTO_UDP, true, false},
    {"udp6", SOCK_DGRAM, IPPROTO_UDP, false, true},
};

/* Decimal digits up to max; -1 for anything else. */
static long number(const char *text, long max) {
    long n = 0;
    if (!*text)
        return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -1;
        n = n * 10 + (*text - '0');
        if (n > max)
            return -1;
    }
    return n;
}

static struct rt_addr make4(const struct network *net, in_port_t port, struct in_addr host) {
    struct rt_addr a = {.type = net->type, .protocol = net->protocol, .len = sizeof a.in};
    a.in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = port, .sin_addr = host};
    return a;
}

static struct rt_addr make6(const struct network *net, in_port_t port, struct in6_addr host,
                            unsigned scope) {
    struct rt_addr a = {.type = net->type, .protocol = net->protocol, .len = sizeof a.in6,
                        .only6 = !net->four};
    a.in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = host,
                                  .sin6_scope_id = scope};
    return a;
}

static int empty_host(const struct network *net, in_port_t port, bool passive,
                      struct rt_addr out[RT_ADDR_MAX]) {
    int n = 0;
    struct in_addr four = {.s_addr = htonl(passive ? INADDR_ANY : INADDR_LOOPBACK)};
    struct in6_addr six = passive ? in6addr_any : in6addr_loopback;
    if (net->six && passive) /* takes IPv4, too */
        out[n++] = make6(net, port, six, 0);
    if (net->four)
        out[n++] = make4(net, port, four);
    if (net->six && !passive)
        out[n++] = make6(net, port, six, 0);
    return n;
}

/* "%eth0" or "%3" behind an address; 0 when there is none; -1 when it is no interface. */
static long scope_of(char *host) {
    char *percent = strchr(host, '%');
    if (!percent)
        return 0;
    *percent++ = 0;
    long n = number(percent, INT32_MAX);
    if (n < 0)
        n = rt_sys_if_index(percent);
    return n > 0 ? n : -1;
}

/* "host:port" or "[host]:port" taken apart: the length of the host, which begins at *host; -EINVAL.
 * *port is in the network's order. */
static int split(const char *address, const char **host, in_port_t *port, bool *brackets) {
    const char *colon = strrchr(address, ':');
    long n = colon ? number(colon + 1, 65535) : -1;
    if (n < 0)
        return -EINVAL;
    size_t len = (size_t)(colon - address);
    *brackets = len >= 2 && address[0] == '[' && colon[-1] == ']';
    *host = address + *brackets;
    *port = htons((uint16_t)n);
    len -= *brackets ? 2 : 0;
    return len < 256 ? (int)len : -EINVAL;
}

static int parse_ip(const struct network *net, const char *address, bool passive,
                    struct rt_addr out[RT_ADDR_MAX]) {
    char host[INET6_ADDRSTRLEN + 32];
    bool brackets;
    in_port_t port;
    int len = split(address, &address, &port, &brackets);
    if (len < 0 || (size_t)len >= sizeof host)
        return -EINVAL;
    if (len == 0)
        return brackets ? -EINVAL : empty_host(net, port, passive, out);
    memcpy(host, address, (size_t)len);
    host[len] = 0;
    struct in_addr four;
    if (!brackets) {
        if (!strcasecmp(host, "localhost"))
            return empty_host(net, port, false, out);
        if (!net->four || inet_pton(AF_INET, host, &four) != 1)
            return -EINVAL;
        out[0] = make4(net, port, four);
        return 1;
    }
    struct in6_addr six;
    long scope = scope_of(host);
    if (!net->six || scope < 0 || inet_pton(AF_INET6, host, &six) != 1)
        return -EINVAL;
    out[0] = make6(net, port, six, (unsigned)scope);
    return 1;
}

static int parse_unix(int type, const char *path, struct rt_addr *out) {
    size_t len = strlen(path);
    *out = (struct rt_addr){.type = type};
    out->un.sun_family = AF_UNIX;
    if (len == 0 || len >= sizeof out->un.sun_path || !strcmp(path, "@"))
        return -EINVAL;
    memcpy(out->un.sun_path, path, len + 1);
    bool abstract = path[0] == '@'; /* its name is exactly len bytes, the first is zero */
    if (abstract)
        out->un.sun_path[0] = 0;
    out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + !abstract);
    return 1;
}

static const struct network *network_of(const char *name) {
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++)
        if (!strcmp(name, networks[i].name))
            return &networks[i];
    return NULL;
}

int rt_addr_parse(const char *network, const char *address, bool passive,
                  struct rt_addr out[RT_ADDR_MAX]) {
    if (!network || !address)
        return -EINVAL;
    if (!strcmp(network, "unix"))
        return parse_unix(SOCK_STREAM, address, out);
    if (!strcmp(network, "unixgram"))
        return parse_unix(SOCK_DGRAM, address, out);
    if (!strcmp(network, "unixpacket"))
        return parse_unix(SOCK_SEQPACKET, address, out);
    const struct network *net = network_of(network);
    return net ? parse_ip(net, address, passive, out) : -EINVAL;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* Letters, digits, '-', '_' and dots, and the last label is no number: what ends in one is an IPv4
 * address with a mistake in it, which resolvers would take for some other address (1.2.3 for
 * 1.2.0.3). */
static bool is_name(const char *host) {
    size_t len = strlen(host), label = 0;
    if (len > 0 && host[len - 1] == '.') /* the root, "example.org." */
        len--;
    if (len == 0 || len > 253)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = host[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter && c != '-' && c != '.' && !(c >= '0' && c <= '9'))
            return false;
        if (c == '.' && i == label) /* an empty one */
            return false;
        if (c == '.')
            label = i + 1;
    }
    return label < len && !(host[label] >= '0' && host[label] <= '9' &&
                            strspn(host + label, "0123456789abcdefxABCDEFX") >= len - label);
}

int rt_addr_parse_name(const char *network, const char *address, struct rt_addr_name *out) {
    const struct network *net = network && address ? network_of(network) : NULL;
    bool brackets = false;
    int len = net ? split(address, &address, &out->port, &brackets) : -EINVAL;
    if (len < 0 || brackets)
        return -EINVAL;
    memcpy(out->host, address, (size_t)len);
    out->host[len] = 0;
    out->type = net->type;
    out->protocol = net->protocol;
    out->family = net->four && net->six ? AF_UNSPEC : net->four ? AF_INET : AF_INET6;
    return is_name(out->host) ? 0 : -EINVAL;
}

bool rt_addr_make(const struct rt_addr_name *name, const struct sockaddr *sa, socklen_t len,
                  struct rt_addr *out) {
    *out = (struct rt_addr){.type = name->type, .protocol = name->protocol, .len = len};
    bool known = (sa->sa_family == AF_INET && len == sizeof out->in) ||
                 (sa->sa_family == AF_INET6 && len == sizeof out->in6);
    if (!known || (name->family != AF_UNSPEC && name->family != sa->sa_family))
        return false;
    memcpy(&out->sa, sa, len);
    if (sa->sa_family == AF_INET)
        out->in.sin_port = name->port;
    else
        out->in6.sin6_port = name->port;
    out->only6 = name->family == AF_INET6;
    return true;
}
