/* The scope ends calls while they are parked: those that make connections, and those on pipes.
 * test_msg.c has the ones that move bytes over sockets, test_late.c what becomes of the bytes. */
#include "net.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <sys/un.h>

/* ---- where each call waits for ever ---------------------------------------------------------- */

/* A listener whose queue has no more room; who waits in it is `hoarded`. */
struct full {
    union {
        struct sockaddr sa;
        struct sockaddr_un un;
        struct sockaddr_in in;
    } at;
    socklen_t len;
    int listener, hoarded;
    char text[64];
};

static struct {
    int listener[2]; /* nobody dials them; one of ours, and a blocking one */
    char address[2][32];
    struct full path, tcp;
    int empty[2], filled[2]; /* pipes */
    int room;                /* of the filled one */
} world;

static int plain_listener(char address[32]) {
    char host[16];
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(net_host(host))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    T_EQ(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    T_EQ(listen(fd, 10), 0);
    snprintf(address, 32, "%s:%d", host, net_port(fd));
    return fd;
}

static bool is_full(const struct full *f) {
    struct tcp_info info;
    socklen_t len = sizeof info;
    if (f->at.sa.sa_family == AF_UNIX)
        return true;
    T_EQ(getsockopt(f->listener, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
    return info.tcpi_unacked > info.tcpi_sacked; /* of a listener: its queue, and the backlog */
}

/* A backlog of 0 has room for one. */
static void fill(struct full *f) {
    f->listener = socket(f->at.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    T_EQ(bind(f->listener, &f->at.sa, f->len), 0);
    T_EQ(listen(f->listener, 0), 0);
    T_EQ(getsockname(f->listener, &f->at.sa, &f->len), 0);
    f->hoarded = socket(f->at.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    T_EQ(connect(f->hoarded, &f->at.sa, f->len), 0);
    while (!is_full(f))
        T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
}

static void make_full_listeners(void) {
    char host[16];
    struct full *f = &world.path;
    *f = (struct full){.at.un = {.sun_family = AF_UNIX}};
    snprintf(f->text, sizeof f->text, "@gort-cancel-%d", (int)getpid());
    memcpy(f->at.un.sun_path + 1, f->text + 1, strlen(f->text) - 1);
    f->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(f->text));
    fill(f);
    f = &world.tcp;
    *f = (struct full){
        .at.in = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(net_host(host))},
        .len = sizeof f->at.in};
    fill(f);
    snprintf(f->text, sizeof f->text, "%s:%d", host, ntohs(f->at.in.sin_port));
}

static void make_world(void) {
    char page[4096] = "";
    world.listener[0] = net_listen(world.address[0]);
    world.listener[1] = plain_listener(world.address[1]);
    make_full_listeners();
    T_EQ(pipe2(world.empty, O_CLOEXEC), 0);
    T_EQ(pipe2(world.filled, O_CLOEXEC), 0);
    world.room = fcntl(world.filled[1], F_SETPIPE_SZ, sizeof page);
    for (int n = 0; n < world.room; n += (int)sizeof page)
        T_EQ(write(world.filled[1], page, sizeof page), sizeof page);
}

static int bytes_in(int fd) {
    int n = -1;
    T_EQ(ioctl(fd, FIONREAD, &n), 0);
    return n;
}

/* Nothing slipped in or out, and what was refused goes now. */
static void check_world(void) {
    char c = 'x';
    T_EQ(bytes_in(world.empty[0]), 0);
    T_EQ(bytes_in(world.filled[0]), world.room);
    T_EQ(go_write(world.empty[1], &c, 1), 1);
    T_EQ(go_read(world.empty[0], &c, 1), 1);
    for (int i = 0; i < 2; i++) {
        int fd[2];
        net_pair_at(world.listener[i], world.address[i], fd);
        T_EQ(go_write(fd[1], "x", 1), 1);
        T_EQ(go_read(fd[0], &c, 1), 1);
        T_EQ(go_close(fd[0]), 0);
        T_EQ(go_close(fd[1]), 0);
    }
    int fd[2];
    T_EQ(go_close(go_accept(world.path.listener, NULL, NULL)), 0); /* who was hoarded */
    fd[1] = go_dial("unix", world.path.text);
    fd[0] = go_accept(world.path.listener, NULL, NULL);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}

static void free_world(void) {
    for (int i = 0; i < 2; i++) {
        T_EQ(go_close(world.listener[i]), 0);
        T_EQ(go_close(world.empty[i]), 0);
        T_EQ(go_close(world.filled[i]), 0);
    }
    T_EQ(go_close(world.path.hoarded), 0);
    T_EQ(go_close(world.path.listener), 0);
    T_EQ(go_close(world.tcp.hoarded), 0);
    T_EQ(go_close(world.tcp.listener), 0);
}

/* ---- one body for each call ------------------------------------------------------------------ */

static ssize_t accept_at(int i) {
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    int r = go_accept(world.listener[i], (struct sockaddr *)&sa, &len);
    T_EQ(len, sizeof sa);
    return r;
}
static ssize_t way_accept(void) {
    return accept_at(0);
}
static ssize_t way_accept_blocking(void) {
    return accept_at(1);
}

static ssize_t connect_to(const struct full *f, int type) {
    int fd = socket(f->at.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | type, 0);
    int r = go_connect(fd, &f->at.sa, f->len);
    T_EQ(go_close(fd), 0);
    return r;
}
static ssize_t way_connect(void) {
    return connect_to(&world.tcp, SOCK_NONBLOCK);
}
static ssize_t way_connect_blocking(void) {
    return connect_to(&world.tcp, 0);
}
static ssize_t way_connect_path(void) {
    return connect_to(&world.path, SOCK_NONBLOCK);
}
static ssize_t way_connect_path_blocking(void) {
    return connect_to(&world.path, 0);
}
static ssize_t way_dial(void) {
    return go_dial("tcp", world.tcp.text);
}
static ssize_t way_dial_path(void) {
    return go_dial("unix", world.path.text);
}

static ssize_t way_read(void) {
    char c;
    return go_read(world.empty[0], &c, 1);
}
static ssize_t way_readv(void) {
    char c[2];
    struct iovec iov[] = {{&c[0], 1}, {&c[1], 1}};
    return go_readv(world.empty[0], iov, 2);
}
static ssize_t way_write(void) {
    return go_write(world.filled[1], "x", 1);
}
static ssize_t way_writev(void) {
    char c[2] = "xy";
    struct iovec iov[] = {{&c[0], 1}, {&c[1], 1}};
    return go_writev(world.filled[1], iov, 2);
}
static ssize_t way_write_all(void) {
    return go_write_all(world.filled[1], "xyz", 3);
}
static ssize_t way_poll(void) {
    return go_poll(world.filled[1], POLLOUT);
}

static const struct way {
    ssize_t (*call)(void);
    const char *name;
} ways[] = {
    {way_accept, "accept"},
    {way_accept_blocking, "accept, blocking"},
    {way_connect, "connect"},
    {way_connect_blocking, "connect, blocking"},
    {way_connect_path, "connect to a path"},
    {way_connect_path_blocking, "connect to a path, blocking"},
    {way_dial, "dial"},
    {way_dial_path, "dial a path"},
    {way_read, "read"},
    {way_readv, "readv"},
    {way_write, "write"},
    {way_writev, "writev"},
    {way_write_all, "write_all"},
    {way_poll, "poll"},
};
enum { WAYS = sizeof ways / sizeof *ways };

/* ---- cancels and deadlines ------------------------------------------------------------------- */

enum { STARTS, ENTERED, REFUSED, DONE };

static struct victim {
    const struct way *way;
    int64_t patience; /* until its deadline; 0: none, it is cancelled */
    int expected;
    int state, through; /* through: who looks at it and cancels it, until when it stays */
    struct rt_g *g;
    go_scope scope;
} victim;

static void wait_inside(void *arg) {
    struct victim *v = arg;
    go_scope_enter(&v->scope, v->patience ? go_now() + v->patience : GO_FOREVER);
    v->g = rt_self();
    __atomic_store_n(&v->state, ENTERED, __ATOMIC_RELEASE);
    for (int i = 0; i < 2; i++) { /* it stays so */
        ssize_t r = v->way->call();
        T_ASSERT(r == v->expected, "%s: %zd, not %d", v->way->name, r, v->expected);
        T_EQ(go_canceled(), v->expected);
    }
    __atomic_store_n(&v->state, REFUSED, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&v->through, __ATOMIC_ACQUIRE))
        go_yield(); /* a sleep would be refused */
    T_EQ(go_scope_leave(&v->scope), v->expected);
    __atomic_store_n(&v->state, DONE, __ATOMIC_RELEASE);
}

static void *wait_inside_thread(void *arg) {
    wait_inside(arg);
    return NULL;
}

static int state(void) {
    return __atomic_load_n(&victim.state, __ATOMIC_ACQUIRE);
}

static void nap(void) {
    T_EQ(go_sleep(100 * GO_MICROSECOND), 0);
}

/* Was it seen in its park? fd_waits does not count those who sleep and try again. */
static bool is_parked(void) {
    while (state() == STARTS)
        nap();
    while (RT_WAIT_STATE(__atomic_load_n(&victim.g->wait, __ATOMIC_ACQUIRE)) != RT_WAITING) {
        if (state() != ENTERED)
            return false;
        nap();
    }
    return true;
}

static bool ends_in_its_park(const struct way *way, int64_t patience, bool thread) {
    pthread_t t;
    victim = (struct victim){
        .way = way, .patience = patience, .expected = patience ? -ETIMEDOUT : -ECANCELED};
    if (thread)
        T_EQ(pthread_create(&t, NULL, wait_inside_thread, &victim), 0);
    else
        SPAWN(wait_inside, &victim);
    bool parked = is_parked();
    if (!patience)
        go_scope_cancel(&victim.scope);
    __atomic_store_n(&victim.through, 1, __ATOMIC_RELEASE);
    while (state() != DONE)
        nap();
    if (thread)
        T_EQ(pthread_join(t, NULL), 0); /* it is about to end */
    return parked;
}

static void cancels(void *arg) {
    (void)arg;
    make_world();
    int before = net_open_fds("socket:");
    for (int i = 0; i < WAYS * 4; i++)
        T_ASSERT(ends_in_its_park(&ways[i / 4], 0, i & 1));
    T_EQ(net_open_fds("socket:"), before); /* a dial leaves none */
    check_world();
    free_world();
}
Test(cancel, a_cancel_ends_every_parked_call) {
    RUN(cancels);
}

/* A deadline that was over before the call had parked shows less: then a later one is tried. */
static void deadlines(void *arg) {
    (void)arg;
    make_world();
    int before = net_open_fds("socket:");
    for (int i = 0; i < WAYS * 2; i++)
        for (int64_t ns = 3 * GO_MILLISECOND; !ends_in_its_park(&ways[i / 2], ns, i & 1);)
            ns *= 2;
    T_EQ(net_open_fds("socket:"), before);
    check_world();
    free_world();
}
Test(cancel, a_deadline_ends_every_parked_call) {
    RUN(deadlines);
}
