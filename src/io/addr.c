/* addr.c - parsing addresses by hand: getaddrinfo(3) may read files, load modules and take a lot of
 * stack, and all it would do here is inet_pton(3). */
#include "io/addr.h"

#include "base/sys_io.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

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

static int parse_ip(const struct network *net, const char *address, bool passive,
                    struct rt_addr out[RT_ADDR_MAX]) {
    char host[INET6_ADDRSTRLEN + 32];
    const char *colon = strrchr(address, ':');
    if (!colon)
        return -EINVAL;
    long n = number(colon + 1, 65535);
    size_t len = (size_t)(colon - address);
    bool brackets = len >= 2 && address[0] == '[' && colon[-1] == ']';
    if (brackets)
        address++, len -= 2;
    if (n < 0 || len >= sizeof host)
        return -EINVAL;
    in_port_t port = htons((uint16_t)n);
    if (len == 0)
        return brackets ? -EINVAL : empty_host(net, port, passive, out);
    memcpy(host, address, len);
    host[len] = 0;
    struct in_addr four;
    if (!brackets) {
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
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++)
        if (!strcmp(network, networks[i].name))
            return parse_ip(&networks[i], address, passive, out);
    return -EINVAL;
}
