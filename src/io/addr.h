/* addr.h - "tcp" and "127.0.0.1:8080" as the kernel wants them, and names taken apart. */
#ifndef RT_ADDR_H
#define RT_ADDR_H

#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

struct rt_addr {
    int type, protocol; /* SOCK_STREAM, IPPROTO_TCP, ... */
    socklen_t len;
    bool only6;         /* an IPv6 socket must not take IPv4, too */
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
};

enum { RT_ADDR_MAX = 2 };

/* The addresses to try, in order: their number, or -EINVAL, also for a name that must be looked up.
 * passive: to listen on; an empty host is then any address, else the local host. */
int rt_addr_parse(const char *network, const char *address, bool passive,
                  struct rt_addr out[RT_ADDR_MAX]);

/* "example.org:80", which rt_addr_parse does not take. */
struct rt_addr_name {
    int family, type, protocol; /* AF_UNSPEC: either */
    in_port_t port;
    char host[256];
};
int rt_addr_parse_name(const char *network, const char *address, struct rt_addr_name *out);

/* One that a lookup has found. False: of another family. */
bool rt_addr_make(const struct rt_addr_name *name, const struct sockaddr *sa, socklen_t len,
                  struct rt_addr *out);

/* go_getaddrinfo; leave: whoever is cancelled goes on at once, also when the lookup has begun. In
 * dns.c. */
int rt_lookup(const char *host, const char *service, const struct addrinfo *hints,
              struct addrinfo **res, bool leave);

#endif
