/* dns.c - names are looked up on a thread of the pool (sched/pool.h), because getaddrinfo(3) waits
 * for servers, reads files, loads modules and takes a lot of stack.
 *
 * It cannot be interrupted, and may take half a minute to give up. go_getaddrinfo waits for it, as
 * go_blocking does. A dial does not: what the lookup works on is a record of its own, with copies
 * of the arguments, so whoever is cancelled meanwhile goes on at once, and the thread frees the
 * record and the list that nobody wants any more. */
#include "base/check.h"
#include "base/sys.h"
#include "base/sys_io.h"
#include "io/addr.h"
#include "sched/park.h"
#include "sched/pool.h"
#include "sched/start.h"

#include <gort/io.h>
#include <netdb.h>
#include <string.h>

struct lookup {
    struct rt_job job;
    const char *host, *service; /* behind the record, or NULL */
    struct addrinfo hints;
    bool hinted;
    int err;
    struct addrinfo *list;
};

static void *look_up(void *arg) {
    struct lookup *l = arg;
    l->err = rt_sys_getaddrinfo(l->host, l->service, l->hinted ? &l->hints : NULL, &l->list);
    return NULL;
}

static void drop(struct rt_job *job) {
    struct lookup *l = rt_container_of(job, struct lookup, job);
    if (l->list)
        rt_sys_freeaddrinfo(l->list);
    rt_sys_free(l);
}

/* NULL: out of memory. */
static struct lookup *new_lookup(const char *host, const char *service,
                                 const struct addrinfo *hints, bool leave) {
    size_t host_size = host ? strlen(host) + 1 : 0,
           service_size = service ? strlen(service) + 1 : 0;
    size_t bytes;
    if (!rt_size_add(host_size, service_size, &bytes) ||
        !rt_size_add(bytes, sizeof(struct lookup), &bytes))
        return NULL;
    struct lookup *l = rt_sys_alloc(bytes);
    if (!l)
        return NULL;
    char *text = (char *)(l + 1);
    l->job = (struct rt_job){.fn = look_up, .arg = l, .drop = leave ? drop : NULL};
    l->host = host ? memcpy(text, host, host_size) : NULL;
    l->service = service ? memcpy(text + host_size, service, service_size) : NULL;
    l->hinted = hints != NULL;
    if (hints) /* its other fields mean nothing */
        l->hints = (struct addrinfo){.ai_flags = hints->ai_flags,
                                     .ai_family = hints->ai_family,
                                     .ai_socktype = hints->ai_socktype,
                                     .ai_protocol = hints->ai_protocol};
    return l;
}

/* The pool's errors have the numbers of other EAI codes. */
static int as_eai(int err) {
    return err == -EAGAIN ? EAI_AGAIN : err == -ENOMEM ? EAI_MEMORY : err;
}

static int on_thread(struct rt_g *g, const char *host, const char *service,
                     const struct addrinfo *hints, struct addrinfo **res) {
    int err = rt_running() ? -ENXIO : rt_cancel_check(g);
    return err ? err : rt_sys_getaddrinfo(host, service, hints, res);
}

int rt_lookup(const char *host, const char *service, const struct addrinfo *hints,
              struct addrinfo **res, bool leave) {
    struct rt_g *g = rt_self();
    if (g->flags & RT_G_THREAD)
        return on_thread(g, host, service, hints, res);
    struct lookup *l = new_lookup(host, service, hints, leave);
    if (!l)
        return EAI_MEMORY;
    int err = rt_pool_run(&l->job);
    if (err && leave) /* l is not ours any more */
        return as_eai(err);
    if (err == 0 && l->err == 0) {
        *res = l->list;
        l->list = NULL;
    }
    err = err ? as_eai(err) : l->err;
    drop(&l->job);
    return err;
}

int go_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                   struct addrinfo **res) {
    return rt_lookup(host, service, hints, res, false);
}
