/* idleconn.c - what a connection costs that nobody uses: n clients connect and say nothing.
 *
 * The clients are a child process, so that what is measured is the server's side alone. After the
 * measurement each sends a byte and must get it back: the connections were there, and alive. What
 * the kernel keeps for a connection is asked of the whole machine, so it counts both ends. */
#include "bench.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WARM_CONNECTIONS = 100, SPARE_FDS = 100 };

/* The clients, after a fork of a process with threads: system calls only. */

static _Noreturn void client_fails(const char *what)
{
    static const char head[] = "gort-bench: idleconn: the clients: ";

    if (write(STDERR_FILENO, head, sizeof head - 1) < 0 ||
        write(STDERR_FILENO, what, strlen(what)) < 0 || write(STDERR_FILENO, "\n", 1) < 0)
        _exit(EXIT_FAILURE);
    _exit(EXIT_FAILURE);
}

static _Noreturn void clients(const struct sockaddr_in *server, int *fds, int64_t count, int start)
{
    char byte;

    for (int64_t i = 0; i < count; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        if (fds[i] < 0 ||
            connect(fds[i], (const struct sockaddr *)(const void *)server, sizeof *server) != 0)
            client_fails("cannot connect");
    }
    if (read(start, &byte, 1) != 1)
        client_fails("the server is gone");
    for (int64_t i = 0; i < count; i++) {
        byte = (char)i;
        if (write(fds[i], &byte, 1) != 1 || read(fds[i], &byte, 1) != 1 || byte != (char)i)
            client_fails("no answer");
    }
    _exit(EXIT_SUCCESS);
}

/* The server */

static go_waitgroup served;

/* A green thread that reads, as in the echo server. */
static void reader(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char buf[4096];
    ssize_t got;

    while ((got = go_read(fd, buf, sizeof buf)) > 0)
        if (go_write_all(fd, buf, (size_t)got) < 0)
            break;
    MUST(go_close(fd));
    go_waitgroup_done(&served);
}

/* The same, but it waits for what comes without a stack. */
static void when_readable(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char buf[4096];
    ssize_t got = go_read(fd, buf, sizeof buf);

    if (got > 0 && go_write_all(fd, buf, (size_t)got) == got) {
        MUST(go_spawn_when(fd, POLLIN, when_readable, arg));
        return;
    }
    MUST(go_close(fd));
    go_waitgroup_done(&served);
}

static void serve(int fd, bool when)
{
    void *arg = (void *)(intptr_t)fd;

    go_waitgroup_add(&served, 1);
    if (when)
        MUST(go_spawn_when(fd, POLLIN, when_readable, arg));
    else
        MUST(go_spawn(reader, arg));
}

struct cost {
    int64_t user;
    int64_t kernel;
};

static struct cost memory_now(void)
{
    int64_t slab = bench_proc_bytes("/proc/meminfo", "Slab:");

    if (slab < 0)
        bench_die("/proc tells no size of the kernel's slabs");
    return (struct cost){bench_resident_bytes() + bench_page_table_bytes(), slab};
}

/* What count idle connections add. */
static struct cost hold(int64_t count, bool when)
{
    struct sockaddr_in address = {0};
    socklen_t size = sizeof address;
    int listener = (int)MUST(go_listen("tcp", "127.0.0.1:0"));
    int *fds = MUST_GET(calloc((size_t)count, sizeof *fds));
    int start[2];
    int status;

    if (getsockname(listener, (struct sockaddr *)(void *)&address, &size) != 0 || pipe(start) != 0)
        bench_die("idleconn: %s", strerror(errno));
    pid_t child = fork();
    if (child < 0)
        bench_die("fork: %s", strerror(errno));
    if (child == 0) {
        close(start[1]); /* else it would wait for itself if the server dies */
        clients(&address, fds, count, start[0]);
    }
    struct cost before = memory_now();
    for (int64_t i = 0; i < count; i++)
        serve((int)MUST(go_accept(listener, NULL, NULL)), when);
    MUST(go_sleep(50 * GO_MILLISECOND)); /* the last ones get to their park */
    struct cost after = memory_now();
    if (write(start[1], "g", 1) != 1)
        bench_die("idleconn: %s", strerror(errno));
    MUST(go_waitgroup_wait(&served));
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        bench_die("idleconn: not every client got its answer");
    close(start[0]);
    close(start[1]);
    MUST(go_close(listener));
    free(fds);
    return (struct cost){after.user - before.user, after.kernel - before.kernel};
}

static void raise_fd_limit(int64_t count)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        bench_die("getrlimit: %s", strerror(errno));
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || (int64_t)limit.rlim_cur < count + SPARE_FDS)
        bench_die("idleconn: %lld connections need a higher limit of descriptors (ulimit -Hn)",
                  (long long)count);
}

static void idleconn(struct bench_run *run, bool when)
{
    raise_fd_limit(run->n);
    hold(WARM_CONNECTIONS, when);
    bench_begin(run);
    struct cost cost = hold(run->n, when);
    bench_end(run, run->n);
    bench_add_extra(run, "bytes_per_conn", (double)cost.user / (double)run->n);
    bench_add_extra(run, "kernel_bytes_per_conn", (double)cost.kernel / (double)run->n);
}

static void bench_run_idleconn(struct bench_run *run)
{
    idleconn(run, false);
}

static void bench_run_idleconn_when(struct bench_run *run)
{
    idleconn(run, true);
}

const struct bench bench_idleconn[] = {
    {.name = "idleconn",
     .what = "memory of n idle connections, a parked reader for each",
     .n = 10000,
     .n_max = 1000000,
     .once = true,
     .run = bench_run_idleconn},
    {.name = "idleconn_when",
     .what = "the same by go_spawn_when",
     .n = 10000,
     .n_max = 1000000,
     .once = true,
     .run = bench_run_idleconn_when},
    {0},
};
