/* Names: go_getaddrinfo, and go_dial by name. The resolver is ours: names under .test do as they
 * are told, all others go to libc's. */
#include "net.h"

#include "base/atomic.h"
#include "base/fault.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <pthread.h>
#include <semaphore.h>

static uint32_t asked, made, freed;
static sem_t gate;
static struct addrinfo seen; /* the hints of the latest */
static char thread_name[16];

static struct addrinfo *make4(const char *ip, struct addrinfo *next) {
    struct {
        struct addrinfo info;
        struct sockaddr_in sa;
    } *m = calloc(1, sizeof *m);
    T_ASSERT(m);
    m->sa = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(ip)};
    m->info = (struct addrinfo){.ai_family = AF_INET, .ai_socktype = SOCK_STREAM,
                                .ai_addrlen = sizeof m->sa, .ai_addr = (void *)&m->sa,
                                .ai_next = next, .ai_flags = 0x600};
    rt_fetch_add(&made, 1);
    return &m->info;
}

/* A family that nobody knows, which must be passed over. */
static struct addrinfo *make_odd(struct addrinfo *next) {
    struct addrinfo *a = make4("127.0.0.1", next);
    a->ai_addr->sa_family = AF_UNIX;
    return a;
}

static int answer(const char *host, struct addrinfo **res) {
    if (!strcmp(host, "one.test"))
        *res = make4("127.0.0.1", NULL);
    else if (!strcmp(host, "three.test"))
        *res = make_odd(make4("127.0.0.2", make4("127.0.0.3", make4("127.0.0.1", NULL))));
    else if (!strcmp(host, "lost.test"))
        *res = make4("255.255.255.255", make4("127.0.0.2", make4("255.255.255.255", NULL)));
    else if (!strcmp(host, "odd.test"))
        *res = make_odd(NULL);
    else if (!strcmp(host, "again.test"))
        return EAI_AGAIN;
    else if (!strcmp(host, "fail.test"))
        return EAI_FAIL;
    else if (!strncmp(host, "errno-", 6)) {
        errno = atoi(host + 6);
        return EAI_SYSTEM;
    } else
        return EAI_NONAME;
    return 0;
}

int getaddrinfo(const char *restrict host, const char *restrict service,
                const struct addrinfo *restrict hints, struct addrinfo **restrict res) {
    const char *dot = host ? strrchr(host, '.') : NULL;
    if (!dot || strcmp(dot, ".test") != 0) {
        int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
        *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
        return real(host, service, hints, res);
    }
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    seen = hints ? *hints : (struct addrinfo){0};
    pthread_getname_np(pthread_self(), thread_name, sizeof thread_name);
    pthread_mutex_unlock(&lock);
    rt_fetch_add(&asked, 1);
    if (strncmp(host, "slow-", 5) != 0)
        return answer(host, res);
    while (sem_wait(&gate) != 0)
        ;
    return answer(host + 5, res);
}

void freeaddrinfo(struct addrinfo *list) {
    if (!list || list->ai_flags != 0x600) {
        void (*real)(struct addrinfo *);
        *(void **)&real = dlsym(RTLD_NEXT, "freeaddrinfo");
        real(list);
        return;
    }
    for (struct addrinfo *next; list; list = next) {
        next = list->ai_next;
        free(list);
        rt_fetch_add(&freed, 1);
    }
}

#define AWAIT(cond) \
    do { \
        while (!(cond)) \
            go_id() ? (void)go_sleep(100 * GO_MICROSECOND) : (void)usleep(100); \
    } while (0)

static unsigned threads(void) {
    struct go_stats st = GO_STATS_INIT;
    T_EQ(go_stats(&st), 0);
    return st.blocking_threads;
}

/* ---- go_getaddrinfo -------------------------------------------------------------------------- */

static void codes(void *arg) {
    struct addrinfo *list = NULL;
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_DGRAM, .ai_protocol = 17,
                             .ai_flags = AI_PASSIVE, .ai_addrlen = 99};
    T_EQ(go_getaddrinfo("one.test", NULL, &hints, &list), 0);
    T_STR_EQ(thread_name, arg ? thread_name : "gort-blk");
    T_EQ(seen.ai_family, AF_INET);
    T_EQ(seen.ai_socktype, SOCK_DGRAM);
    T_EQ(seen.ai_protocol, 17);
    T_EQ(seen.ai_flags, AI_PASSIVE);
    T_ASSERT(list && list->ai_family == AF_INET && !list->ai_next);
    freeaddrinfo(list);
    T_EQ(made, freed);
    static const struct {
        const char *host;
        int r;
    } bad[] = {{"none.test", EAI_NONAME}, {"again.test", EAI_AGAIN}, {"fail.test", EAI_FAIL},
               {"errno-12.test", EAI_MEMORY}, {"errno-24.test", EAI_AGAIN},
               {"errno-5.test", EAI_FAIL}};
    list = (void *)&hints;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char host[32];
        snprintf(host, sizeof host, "%.*s", (int)strcspn(bad[i].host, "."), bad[i].host);
        strcat(host, ".test");
        errno = 77;
        int r = go_getaddrinfo(host, "80", NULL, &list);
        T_ASSERT(r == bad[i].r, "%s: %d", host, r);
        T_ASSERT(list == (void *)&hints);
    }
    T_EQ(go_getaddrinfo("127.0.0.1", "80", NULL, &list), 0); /* by libc's */
    T_EQ(((struct sockaddr_in *)(void *)list->ai_addr)->sin_port, htons(80));
    freeaddrinfo(list);
    T_EQ(go_getaddrinfo(NULL, "80", NULL, &list), 0);
    freeaddrinfo(list);
    T_EQ(go_getaddrinfo(NULL, NULL, NULL, &list), EAI_NONAME);

    go_scope s;
    go_scope_enter(&s, GO_FOREVER);
    go_scope_cancel(&s);
    uint32_t before = asked;
    T_EQ(go_getaddrinfo("one.test", NULL, NULL, &list), -ECANCELED);
    T_EQ(go_dial("tcp", "one.test:80"), -ECANCELED);
    T_EQ(asked, before);
    T_EQ(go_scope_leave(&s), -ECANCELED);
}
static void *codes_on_thread(void *arg) {
    codes("thread");
    return arg;
}
Test(names, a_lookup_says_what_the_resolver_said_but_eai_system) {
    struct addrinfo *list = NULL;
    T_EQ(go_getaddrinfo("one.test", NULL, NULL, &list), -ENXIO);
    T_EQ(go_dial("tcp", "one.test:80"), -ENXIO);
    RUN(codes);
    T_EQ(go_start(NULL), 0);
    pthread_t t;
    T_EQ(pthread_create(&t, NULL, codes_on_thread, NULL), 0);
    T_EQ(pthread_join(t, NULL), 0);
    T_EQ(threads(), 0); /* right there */
    T_EQ(go_stop(GO_FOREVER), 0);
    T_EQ(go_getaddrinfo("one.test", NULL, NULL, &list), -ENXIO);
    T_EQ(made, freed);
}

static void no_memory(void *arg) {
    (void)arg;
    struct addrinfo *list = NULL;
    rt_fault_arm(RT_FAULT_ALLOC, 1, true, ENOMEM); /* others may ask for memory first */
    T_EQ(go_getaddrinfo("one.test", NULL, NULL, &list), EAI_MEMORY);
    T_EQ(go_dial("tcp", "one.test:80"), -ENOMEM);
    rt_fault_disarm();
    rt_fault_arm(RT_FAULT_THREAD, 1, true, EAGAIN);
    T_EQ(go_getaddrinfo("one.test", NULL, NULL, &list), EAI_AGAIN);
    T_EQ(go_dial("tcp", "one.test:80"), -EAGAIN);
    rt_fault_disarm();
    rt_fault_arm(RT_FAULT_LOOKUP, 1, false, ENFILE);
    T_EQ(go_getaddrinfo("one.test", NULL, NULL, &list), EAI_AGAIN);
    T_EQ(asked, 0);
}
Test(names, without_memory_or_threads_nothing_leaks) {
    RUN(no_memory);
}

/* ---- giving up ------------------------------------------------------------------------------- */

struct try {
    int r;
    bool dial;
    uint32_t done;
};
static void *try_slow(void *arg) {
    struct try *t = arg;
    struct addrinfo *list = NULL;
    char host[] = "slow-one.test";
    t->r = t->dial ? go_dial("tcp", "slow-one.test:80") : go_getaddrinfo(host, NULL, NULL, &list);
    memset(host, 'x', sizeof host - 1); /* ours again: the lookup has a copy */
    T_ASSERT(!list || t->r == 0);
    if (list)
        freeaddrinfo(list);
    rt_store_seq_cst(&t->done, 1);
    return NULL;
}

static void give_up(void *arg) {
    (void)arg;
    struct try t = {.dial = true};
    go_task *task = go_task_spawn(try_slow, &t);
    AWAIT(rt_load_seq_cst(&asked) == 1);
    T_EQ(go_task_cancel(task), 0);
    T_EQ(go_task_join(task, NULL), 0); /* at once: the gate is closed */
    T_EQ(t.r, -ECANCELED);

    go_scope s;
    go_scope_enter(&s, go_now() + GO_MILLISECOND);
    try_slow(&t);
    T_EQ(t.r, -ETIMEDOUT);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    T_EQ(rt_load_seq_cst(&made), 0);
    for (int i = 0; i < 2; i++) /* one was late, perhaps before it had begun, or has yet to */
        sem_post(&gate);
    AWAIT(rt_load_seq_cst(&freed) >= 1);
}
Test(names, a_cancel_or_a_deadline_ends_the_lookup_of_a_dial_at_once) {
    T_EQ(sem_init(&gate, 0, 0), 0);
    RUN(give_up); /* which waits for both */
    T_ASSERT(asked >= 1);
    T_EQ(made, asked);
    T_EQ(freed, made);
}

static void see_through(void *arg) {
    (void)arg;
    struct try t = {.dial = false};
    go_task *task = go_task_spawn(try_slow, &t);
    AWAIT(rt_load_seq_cst(&asked) == 1);
    T_EQ(go_task_cancel(task), 0);
    T_EQ(go_sleep(5 * GO_MILLISECOND), 0);
    T_EQ(rt_load_seq_cst(&t.done), 0);
    sem_post(&gate);
    T_EQ(go_task_join(task, NULL), 0);
    T_EQ(t.r, 0); /* what has happened is reported as happened */
}
Test(names, a_lookup_that_has_begun_is_not_cancelled) {
    T_EQ(sem_init(&gate, 0, 0), 0);
    RUN(see_through);
    T_EQ(made, 1);
    T_EQ(freed, 1);
}

static void queued(void *arg) {
    (void)arg;
    struct try t[2] = {{.dial = false}, {.dial = true}};
    go_task *first = go_task_spawn(try_slow, &t[0]);
    AWAIT(rt_load_seq_cst(&asked) == 1);
    go_scope s;
    go_scope_enter(&s, go_now() + GO_MILLISECOND);
    try_slow(&t[1]);
    T_EQ(t[1].r, -ETIMEDOUT);
    T_EQ(go_scope_leave(&s), -ETIMEDOUT);
    sem_post(&gate);
    T_EQ(go_task_join(first, NULL), 0);
    T_EQ(t[0].r, 0);
    T_EQ(rt_load_seq_cst(&asked), 1);
}
static void *in_task(void *arg) {
    ((void (*)(void *))arg)(NULL);
    return NULL;
}
Test(names, a_lookup_that_waits_for_a_thread_is_taken_off) {
    struct go_options o = GO_OPTIONS_INIT;
    o.max_threads = (unsigned)t_procs() + 2;
    T_EQ(sem_init(&gate, 0, 0), 0);
    T_EQ(go_start(&o), 0);
    T_EQ(go_task_join(go_task_spawn(in_task, (void *)queued), NULL), 0);
    T_EQ(go_stop(GO_FOREVER), 0);
    T_EQ(freed, made);
}

Test(names, a_stop_waits_for_lookups_that_nobody_waits_for) {
    struct try t = {.dial = true};
    T_EQ(sem_init(&gate, 0, 0), 0);
    T_EQ(go_start(NULL), 0);
    go_task *task = go_task_spawn(try_slow, &t);
    AWAIT(rt_load_seq_cst(&asked) == 1);
    T_EQ(go_task_cancel(task), 0);
    T_EQ(go_task_join(task, NULL), 0);
    T_EQ(go_stop(GO_MILLISECOND), -ETIMEDOUT); /* named on stderr */
    sem_post(&gate);
    T_EQ(go_stop(GO_FOREVER), 0);
    T_EQ(made, 1);
    T_EQ(freed, 1);
}

static void churn_one(void *arg) {
    uint64_t seed = (uint64_t)net_int(arg) * 2654435761u + 1;
    for (long i = 0; i < T_SCALE(100); i++) {
        struct addrinfo *list = NULL;
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        go_scope s;
        go_scope_enter(&s, seed >> 63 ? GO_FOREVER : go_now() + (int64_t)(seed >> 33) % 60000);
        int r = go_getaddrinfo("three.test", NULL, NULL, &list);
        T_ASSERT(r == 0 || r == -ETIMEDOUT, "%d", r);
        if (r == 0)
            freeaddrinfo(list);
        go_scope_leave(&s);
    }
}
static void churn(void *arg) {
    (void)arg;
    go_waitgroup wg = {0};
    for (int i = 0; i < 20; i++)
        T_EQ(go_waitgroup_spawn(&wg, churn_one, net_ptr(i)), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
}
Test(names, every_answer_is_freed_once) {
    RUN(churn);
    T_EQ(made, freed);
}

/* ---- go_dial --------------------------------------------------------------------------------- */

static int shared_listener(void) {
    struct go_listen_options o = GO_LISTEN_OPTIONS_INIT;
    o.reuse_port = 1;
    int fd = go_listen_with("tcp", "127.0.0.1:0", &o);
    T_ASSERT(fd >= 0, "%d", fd);
    return fd;
}

/* So that nobody else listens there when the listener is closed. */
static int taken(int port) {
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    T_EQ(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)), 0);
    T_EQ(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &(int){1}, sizeof(int)), 0);
    T_EQ(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

static void dials(void *arg) {
    (void)arg;
    char address[32], text[64];
    int listener = shared_listener(), port = net_port(listener), heir = taken(port);
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    T_EQ(go_close(go_dial("tcp", address)), 0);
    snprintf(text, sizeof text, "localhost:%d", port);
    for (int i = 0; i < 2; i++) { /* 127.0.0.1 comes first */
        T_EQ(go_close(go_dial(i ? "tcp4" : "tcp", text)), 0);
        text[0] = 'L';
    }
    int six = go_dial("tcp6", text); /* or there is no IPv6 */
    T_ASSERT(six == -ECONNREFUSED || six == -EAFNOSUPPORT || six == -EADDRNOTAVAIL ||
                 six == -ENETUNREACH,
             "%d", six);
    T_EQ(asked, 0);
    T_EQ(threads(), 0); /* none of these has asked anybody */

    snprintf(text, sizeof text, "three.test:%d", port); /* the third has a listener */
    int fd = go_dial("tcp", text);
    T_ASSERT(fd >= 0, "%d", fd);
    T_EQ(seen.ai_family, AF_UNSPEC);
    T_EQ(seen.ai_socktype, SOCK_STREAM);
    for (int i = 0; i < 4; i++)
        T_EQ(go_close(go_accept(listener, NULL, NULL)), 0);
    T_EQ(go_close(fd), 0);
    T_EQ(go_close(go_dial("tcp4", text)), 0);
    T_EQ(seen.ai_family, AF_INET);
    T_EQ(go_dial("tcp6", text), -ENOENT);
    T_EQ(seen.ai_family, AF_INET6);
    T_EQ(go_close(go_dial("udp", text)), 0);
    T_EQ(seen.ai_socktype, SOCK_DGRAM);
    T_EQ(go_close(listener), 0);
    T_EQ(go_dial("tcp", text), -ECONNREFUSED);
    snprintf(text, sizeof text, "lost.test:%d", port); /* no way to the first and to the last */
    T_EQ(go_dial("tcp", text), -ECONNREFUSED);
    T_EQ(go_close(heir), 0);
    T_EQ(go_dial("tcp", "odd.test:1"), -ENOENT);
    T_EQ(go_dial("tcp", "none.test:1"), -ENOENT);
    T_EQ(go_dial("tcp", "again.test:1"), -EAGAIN);
    T_EQ(go_dial("tcp", "fail.test:1"), -EIO);
    T_EQ(go_dial("tcp", "errno-12.test:1"), -ENOMEM);
    T_EQ(made, freed);
}
static void *dials_on_thread(void *arg) {
    (void)arg;
    dials(NULL);
    return NULL;
}
Test(names, dial_tries_all_addresses) {
    RUN(dials);
    rt_store_seq_cst(&asked, 0);
    T_EQ(go_start(NULL), 0);
    pthread_t t;
    T_EQ(pthread_create(&t, NULL, dials_on_thread, NULL), 0);
    T_EQ(pthread_join(t, NULL), 0);
    T_EQ(go_stop(GO_FOREVER), 0);
}

static void listens(void *arg) {
    (void)arg;
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    int fd = go_listen("tcp", "localhost:0");
    T_ASSERT(fd >= 0, "%d", fd);
    T_EQ(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    T_EQ(sa.ss_family, AF_INET);
    T_EQ(((struct sockaddr_in *)(void *)&sa)->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    T_EQ(go_close(fd), 0);
    T_EQ(go_listen("tcp", "one.test:0"), -EINVAL);
    T_EQ(asked, 0);
}
Test(names, listen_knows_localhost_alone) {
    RUN(listens);
}

static void bad_names(void *arg) {
    (void)arg;
    char lengthy[300];
    static const char *const bad[] = {
        "1.2.3.test..:1", ".test:1", "a..test:1", "a test:1", "x.test", "x.test:", "x.test:http",
        "x.test:65536", "[one.test]:1", "one.test/1:1", "1.2.3:1", "0x7f.1:1", "0x7f000001:1",
        "test.1:1", "127.1.:1", "user@one.test:1", "*.test:1",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int r = go_dial("tcp", bad[i]);
        T_ASSERT(r == -EINVAL, "%s: %d", bad[i], r);
    }
    memset(lengthy, 'a', sizeof lengthy);
    strcpy(lengthy + 290, ".test:1");
    T_EQ(go_dial("tcp", lengthy), -EINVAL);
    T_EQ(go_dial("unix", "one.test:1"), -ENOENT); /* a path */
    T_EQ(asked, 0);
    T_EQ(go_dial("tcp", "A-b_9.x1.test:1"), -ENOENT);
    T_EQ(asked, 1);
}
Test(names, what_is_no_name_is_not_looked_up) {
    RUN(bad_names);
}
