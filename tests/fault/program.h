/* program.h - a small program that does a bit of everything, and says what went wrong.
 *
 * tests/fault runs it while a call into the kernel or an allocation fails. It is not let off
 * anything: each call of its own either works or reports an error that the row of the table allows
 * (`says`), or one that follows from it (the other side of a connection has given up), and that
 * only once the fault has been told to somebody. What was sent and not refused arrives; who waits
 * is woken; every descriptor, task and object is given back. A part that is refused is over, and
 * the next one begins.
 *
 * program_run() is called by a foreign thread, with the runtime running: the program is a green
 * thread that was spawned and waits before the fault is armed, and a foreign thread that talks with
 * it through pipes. */
#ifndef PROGRAM_H
#define PROGRAM_H

#include "net/net.h"
#include "unit/t_unit.h"

#include "base/fault.h"

static struct {
    int says;                /* the errno that calls may report, 0: none */
    enum rt_fault_site site; /* once that one has been told */
    uint32_t refused;        /* how often it was reported */
    go_sem begin, end;
    uint32_t done;
} prog;

/* Did it work? If not it must be what was promised. */
static bool worked(const char *what, long r) {
    if (r >= 0)
        return true;
    bool told = rt_load_seq_cst(&rt_fault_points[prog.site].hits) != 0;
    bool follows = r == -EPIPE || r == -ECONNRESET || r == -ECONNREFUSED || r == -ECANCELED;
    T_ASSERT(prog.says && told && (r == -prog.says || follows), "%s: %ld, site %d", what, r,
             (int)prog.site);
    rt_fetch_add_relaxed(&prog.refused, 1);
    return false;
}
static bool made(const char *what, const void *p) {
    return worked(what, p ? 0 : prog.says ? -prog.says : -ENOMEM);
}

/* ---- tasks, channels, time ------------------------------------------------------------------- */

static void *square(void *arg) {
    go_yield();
    return t_ptr(t_int(arg) * t_int(arg));
}

static void part_tasks(void) {
    go_task *t[24];
    for (int i = 0; i < 24; i++) {
        t[i] = go_task_spawn(square, t_ptr(i));
        made("go_task_spawn", t[i]);
    }
    for (int i = 0; i < 24; i++)
        if (t[i])
            T_EQ(t_int(T_JOIN(t[i])), i * i);
}

static void *count_to_100(void *c) {
    for (int i = 1; i <= 100; i++)
        T_EQ(go_chan_send(c, &i), 0);
    T_EQ(go_chan_close(c), 0);
    return NULL;
}

static void part_channel(void) {
    go_chan *c = go_chan_new(sizeof(int), 4);
    if (!made("go_chan_new", c))
        return;
    int fd = go_chan_fd(c);
    if (worked("go_chan_fd", fd))
        T_ASSERT(fcntl(fd, F_GETFD) >= 0);
    go_task *t = go_task_spawn(count_to_100, c);
    if (made("go_task_spawn", t)) {
        int v, sum = 0;
        while (go_chan_recv(c, &v) == 0)
            sum += v;
        T_EQ(sum, 5050);
        T_JOIN(t);
    }
    go_chan_free(c);
}

static void *send_7(void *c) {
    T_EQ(go_chan_send(c, &(int){7}), 0);
    return NULL;
}

static void part_select(void) {
    go_chan *a = go_chan_new(sizeof(int), 0), *b = go_chan_new(sizeof(int), 0);
    go_task *t = NULL;
    if (made("go_chan_new", a) && made("go_chan_new", b))
        t = go_task_spawn(send_7, b);
    if (a && b && made("go_task_spawn", t)) {
        int v = 0;
        struct go_case cases[] = {GO_CASE_RECV(a, &v), GO_CASE_RECV(b, &v)};
        int r = go_select(cases, 2, go_now() + GO_MINUTE);
        if (worked("go_select", r))
            T_EQ(r, 1);
        else
            T_EQ(go_chan_recv(b, &v), 0);
        T_EQ(v, 7);
        T_JOIN(t);
    }
    if (a)
        go_chan_free(a);
    if (b)
        go_chan_free(b);
}

static void part_time(void) {
    go_scope s;
    go_scope_enter(&s, go_now() + 200 * GO_MICROSECOND);
    int r = go_sleep(GO_MINUTE);
    if (r != -ETIMEDOUT)
        T_ASSERT(!worked("go_sleep", r));
    int left = go_scope_leave(&s);
    T_ASSERT(left == 0 || left == -ETIMEDOUT);
    worked("go_sleep", go_sleep(10 * GO_MICROSECOND));
}

static void *blocks(void *arg) {
    return arg;
}

static void part_blocking(void) {
    void *result = NULL;
    int r = go_blocking(blocks, &result, &result);
    if (r == -EAGAIN && prog.site == RT_FAULT_MMAP)
        r = -ENOMEM; /* no memory for a thread: "no thread can be started" is the documented word */
    if (worked("go_blocking", r))
        T_ASSERT(result == &result);
}

/* ---- loopback -------------------------------------------------------------------------------- */

enum { MESSAGE = 4096, MESSAGES = 3 };

static bool read_whole(int fd, char *buf, size_t n) {
    for (size_t got = 0; got < n;) {
        ssize_t r = go_read(fd, buf + got, n - got);
        if (r == 0)
            r = -ECONNRESET; /* the other side has given up, or the test fails */
        if (!worked("go_read", r))
            return false;
        got += (size_t)r;
    }
    return true;
}

static void *serve(void *arg) {
    int listener = (int)t_int(arg), fd = go_accept(listener, NULL, NULL);
    char buf[MESSAGE];
    T_EQ(go_close(listener), 0);
    if (!worked("go_accept", fd))
        return NULL;
    for (int i = 0; i < MESSAGES; i++)
        if (!read_whole(fd, buf, sizeof buf) ||
            !worked("go_write_all", go_write_all(fd, buf, sizeof buf)))
            break;
    T_EQ(go_close(fd), 0);
    return NULL;
}

static void talk(int fd) {
    char out[MESSAGE], in[MESSAGE];
    for (int i = 0; i < MESSAGES; i++) {
        memset(out, 'a' + i, sizeof out);
        /* In two pieces, so that the server parks in between. */
        if (!worked("go_write_all", go_write_all(fd, out, 100)))
            return;
        go_yield();
        if (!worked("go_write_all", go_write_all(fd, out + 100, MESSAGE - 100)) ||
            !read_whole(fd, in, sizeof in))
            return;
        T_EQ(memcmp(in, out, sizeof out), 0);
    }
}

static void part_net(void) {
    char address[32];
    int listener = go_listen("tcp", "127.0.0.1:0");
    if (!worked("go_listen", listener))
        return;
    snprintf(address, sizeof address, "127.0.0.1:%d", net_port(listener));
    go_task *server = go_task_spawn(serve, t_ptr(listener));
    if (!made("go_task_spawn", server)) {
        T_EQ(go_close(listener), 0);
        return;
    }
    int fd = go_dial("tcp", address);
    if (worked("go_dial", fd)) {
        talk(fd);
        T_EQ(go_close(fd), 0);
    } else {
        go_task_cancel(server);
    }
    T_JOIN(server);
}

/* ---- pipes that others made ------------------------------------------------------------------ */

struct ends {
    int in, out;
};

/* Give back each byte that comes; on a green or on a foreign thread. */
static void *give_back(void *arg) {
    struct ends *e = arg;
    char c;
    ssize_t r;
    while ((r = go_read(e->in, &c, 1)) == 1)
        if (!worked("go_write", go_write(e->out, &c, 1)))
            break;
    if (r != 0)
        worked("go_read", r);
    T_EQ(go_close(e->in), 0);
    T_EQ(go_close(e->out), 0);
    return NULL;
}

static struct ends pipes(struct ends *other) {
    int there[2], back[2];
    T_EQ(pipe2(there, O_NONBLOCK | O_CLOEXEC), 0);
    T_EQ(pipe2(back, O_NONBLOCK | O_CLOEXEC), 0);
    *other = (struct ends){there[0], back[1]};
    return (struct ends){back[0], there[1]};
}

static void ping_pong(struct ends e) {
    char c = 0;
    int r = go_poll_until(e.in, POLLIN, go_now() + 100 * GO_MICROSECOND);
    if (r != -ETIMEDOUT)
        T_ASSERT(r > 0 || !worked("go_poll_until", r)); /* ready: the other side has hung up */
    for (char i = 0; i < 4; i++) {
        if (!worked("go_write", go_write(e.out, &i, 1)) || !read_whole(e.in, &c, 1))
            break;
        T_EQ(c, i);
    }
    T_EQ(go_close(e.out), 0);
    T_EQ(go_close(e.in), 0);
}

static void part_pipe(void) {
    struct ends theirs, ours = pipes(&theirs);
    go_task *t = go_task_spawn(give_back, &theirs);
    if (!made("go_task_spawn", t)) {
        T_EQ(go_close(theirs.in), 0);
        T_EQ(go_close(theirs.out), 0);
    }
    ping_pong(ours);
    if (t)
        T_JOIN(t);
}

enum { FILL = 512 << 10 };

static void *read_one(void *arg) {
    char c;
    ssize_t r = go_read(*(int *)arg, &c, 1);
    worked("go_read", r ? r : -ECONNRESET);
    return NULL;
}

/* A reader and a writer on one socket that others made: the event for one must not lose the other,
 * whose wait is armed again by whoever collected the event. */
static void *fill(void *arg) {
    static char block[FILL];
    int fd = *(int *)arg;
    if (!worked("go_write_all", go_write_all(fd, block, sizeof block)))
        T_EQ(shutdown(fd, SHUT_RDWR), 0);
    return NULL;
}

static bool drain(int fd) {
    static char block[4096];
    for (size_t got = 0; got < FILL;) {
        ssize_t r = go_read(fd, block, sizeof block);
        if (!worked("go_read", r ? r : -ECONNRESET))
            return false;
        got += (size_t)r;
    }
    return worked("go_write", go_write(fd, "", 1));
}

static void part_both(void) {
    int fd[2];
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
    go_task *reader = go_task_spawn(read_one, &fd[0]), *writer = NULL;
    if (made("go_task_spawn", reader))
        writer = go_task_spawn(fill, &fd[0]);
    if (!reader || !made("go_task_spawn", writer) || !drain(fd[1]))
        T_EQ(shutdown(fd[1], SHUT_RDWR), 0); /* the others see the end */
    if (writer)
        T_JOIN(writer);
    if (reader)
        T_JOIN(reader);
    T_EQ(go_close(fd[0]), 0);
    T_EQ(go_close(fd[1]), 0);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void program(void *arg) {
    struct ends *with_foreign = arg;
    T_EQ(go_sem_acquire(&prog.begin), 0);
    part_tasks();
    part_channel();
    part_select();
    part_time();
    part_net();
    part_pipe();
    part_both();
    ping_pong(*with_foreign);
    part_blocking();
    rt_store_seq_cst(&prog.done, 1);
}

/* Run it once while the nth call of a site fails, and with `forever` those after it until `enough`
 * were told. says: the errno that may be reported then, 0: it must work all the same. The number
 * of calls that the site has seen, up to nth. */
static uint32_t program_run(enum rt_fault_site site, uint32_t nth, bool forever, int error,
                            int says, uint32_t enough) {
    struct ends theirs, ours = pipes(&theirs);
    pthread_t t;
    prog.says = says;
    prog.site = site;
    rt_store_seq_cst(&prog.done, 0);
    T_SPAWN(program, &ours);
    T_EQ(pthread_create(&t, NULL, give_back, &theirs), 0);
    rt_fault_arm(site, nth, forever, error);
    go_sem_release(&prog.begin);
    while (!rt_load_seq_cst(&prog.done)) {
        if (rt_load_seq_cst(&rt_fault_points[site].hits) >= enough)
            rt_fault_disarm(); /* from here on it must end */
        t_relax();
    }
    uint32_t left = rt_load_seq_cst(&rt_fault_points[site].countdown) & (RT_FAULT_FOREVER - 1);
    rt_fault_disarm();
    T_EQ(pthread_join(t, NULL), 0);
    return nth - left;
}

/* Nothing fails and nothing may be reported. The number of calls that the site sees. */
static uint32_t program_strict(enum rt_fault_site site) {
    return program_run(site, RT_FAULT_FOREVER - 1, false, EIO, 0, UINT32_MAX);
}

static inline const char *asked_engine(void) {
    const char *name = getenv("GORT_NETPOLL");
    return name && *name ? name : "auto";
}

static int start_as(const char *netpoll) {
    struct go_options o = GO_OPTIONS_INIT;
    o.procs = (unsigned)t_procs();
    o.netpoll = netpoll;
    return go_start(&o);
}

static inline bool runs(const char *engine) {
    return strcmp(t_stats().netpoll, engine) == 0;
}

#endif
