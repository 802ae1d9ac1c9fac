/* downloads.c - the same 30 slow pages fetched in three ways, each with a time-out for every page.
 *
 *   one by one      one thread, which waits for each page in turn
 *   a thread each   as fast as the slowest page, at the price of a thread each
 *   green threads   a green thread each, at most ten downloads at a time: a semaphore sees to that,
 *                   as one should when the pages come from one host
 *
 * The server is here, too, in a process of its own, on a free port of the loopback: it thinks for a
 * while before it answers, and of one page for ever. Each way has its own process, so that the
 * kernel can tell what memory it took. */
#include <arpa/inet.h>
#include <errno.h>
#include <gort.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 30, AT_A_TIME = 10, STUCK_PAGE = 7 };
enum { THINK_MS = 40, PATIENCE_MS = 400 };

static char address[32]; /* of the server: "127.0.0.1:port" */
static struct sockaddr_in server;
static _Atomic int fetched, late;                           /* pages */
static _Atomic int most_threads, under_way, most_under_way; /* under way: downloads */

static void fail(const char *what, int err) {
    fprintf(stderr, "downloads: %s: %s\n", what, strerror(err));
    exit(1);
}

static void at_least(_Atomic int *most, int n) {
    for (int seen = *most; n > seen && !atomic_compare_exchange_weak(most, &seen, n);)
        ;
}

/* Every way of fetching comes by here while it waits. */
static void count_threads(void) {
    char line[128];
    int n = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && n == 0 && fgets(line, sizeof line, f))
        sscanf(line, "Threads: %d", &n);
    if (f)
        fclose(f);
    at_least(&most_threads, n);
}

static void download_begins(void) {
    at_least(&most_under_way, ++under_way);
}

static void download_ends(int err) {
    under_way--;
    fetched += err == 0;
    late += err == ETIMEDOUT;
}

/* ---- the server ------------------------------------------------------------------------------ */

static void answer(void *arg) {
    static const char page[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHello";
    int fd = (int)(intptr_t)arg, number = -1;
    char request[512];
    ssize_t n = go_read(fd, request, sizeof request - 1);
    request[n > 0 ? n : 0] = '\0';
    sscanf(request, "GET /%d", &number);
    if (go_sleep(number == STUCK_PAGE ? GO_FOREVER : THINK_MS * GO_MILLISECOND) == 0)
        go_write_all(fd, page, sizeof page - 1);
    go_close(fd);
}

static void accept_loop(void *arg) {
    for (;;) {
        int fd = go_accept((int)(intptr_t)arg, NULL, NULL);
        if (fd < 0 || go_spawn(answer, (void *)(intptr_t)fd) != 0)
            return;
    }
}

/* In a child; the parent learns the port. */
static pid_t start_server(void) {
    int ends[2];
    if (pipe(ends) < 0)
        fail("pipe", errno);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* not longer than its parent */
        socklen_t len = sizeof server;
        int fd = go_start(NULL) == 0 ? go_listen("tcp", "127.0.0.1:0") : -1;
        if (fd < 0 || getsockname(fd, (struct sockaddr *)&server, &len) < 0 ||
            go_spawn(accept_loop, (void *)(intptr_t)fd) != 0 ||
            write(ends[1], &server, sizeof server) < 0)
            _exit(1);
        for (;;)
            pause();
    }
    close(ends[1]);
    if (pid < 0 || read(ends[0], &server, sizeof server) != sizeof server)
        fail("the server", ECHILD);
    close(ends[0]);
    snprintf(address, sizeof address, "127.0.0.1:%d", ntohs(server.sin_port));
    return pid;
}

/* ---- with plain sockets: one by one, or a thread each ---------------------------------------- */

static size_t make_request(char *buffer, size_t size, int page) {
    return (size_t)snprintf(buffer, size, "GET /%d HTTP/1.1\r\nHost: %s\r\n\r\n", page, address);
}

/* 0 or an error of errno. */
static int get_plainly(int page) {
    char buffer[512];
    size_t size = make_request(buffer, sizeof buffer, page);
    struct timeval patience = {.tv_usec = PATIENCE_MS * 1000};
    int err = ECONNABORTED;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&server, sizeof server) == 0 &&
        write(fd, buffer, size) == (ssize_t)size) {
        count_threads();
        ssize_t n = read(fd, buffer, sizeof buffer);
        if (n != 0)
            err = n > 0 ? 0 : errno == EAGAIN ? ETIMEDOUT : errno;
    }
    close(fd);
    return err;
}

static void *fetch_plainly(void *arg) {
    download_begins();
    download_ends(get_plainly((int)(intptr_t)arg));
    return NULL;
}

static void one_by_one(void) {
    for (intptr_t page = 0; page < PAGES; page++)
        fetch_plainly((void *)page);
}

static void a_thread_each(void) {
    pthread_t threads[PAGES];
    for (intptr_t page = 0; page < PAGES; page++) {
        int err = pthread_create(&threads[page], NULL, fetch_plainly, (void *)page);
        if (err)
            fail("pthread_create", err);
    }
    for (int page = 0; page < PAGES; page++)
        pthread_join(threads[page], NULL);
}

/* ---- with green threads ---------------------------------------------------------------------- */

static go_sem places;
static go_waitgroup downloads;

/* 0 or an error of errno. */
static int get(int page) {
    char buffer[512];
    size_t size = make_request(buffer, sizeof buffer, page);
    int fd = go_dial("tcp", address);
    if (fd < 0)
        return -fd;
    count_threads();
    ssize_t n = go_write_all(fd, buffer, size);
    if (n > 0)
        n = go_read(fd, buffer, sizeof buffer);
    go_close(fd);
    return n > 0 ? 0 : n < 0 ? (int)-n : ECONNABORTED;
}

static void fetch_green(void *arg) {
    go_scope patience; /* for all that get() waits for */
    if (go_sem_acquire(&places) != 0)
        return;
    download_begins();
    go_scope_enter(&patience, go_now() + PATIENCE_MS * GO_MILLISECOND);
    int err = get((int)(intptr_t)arg);
    go_scope_leave(&patience);
    download_ends(err);
    go_sem_release(&places);
}

static void ten_at_a_time(void *arg) {
    (void)arg;
    go_sem_init(&places, AT_A_TIME);
    for (intptr_t page = 0; page < PAGES; page++)
        if (go_waitgroup_spawn(&downloads, fetch_green, (void *)page) != 0)
            fail("go_waitgroup_spawn", ENOMEM);
    go_waitgroup_wait(&downloads);
}

static void green_threads(void) {
    int err = go_run(ten_at_a_time, NULL);
    if (err)
        fail("go_run", -err);
}

/* ---- the table ------------------------------------------------------------------------------- */

static void measure(const char *name, void (*run)(void)) {
    struct rusage usage;
    int status, seen[4], ends[2];
    if (pipe(ends) < 0)
        fail("pipe", errno);
    int64_t begin = go_now();
    pid_t pid = fork();
    if (pid == 0) {
        run();
        seen[0] = most_threads;
        seen[1] = most_under_way;
        seen[2] = fetched;
        seen[3] = late;
        _exit(write(ends[1], seen, sizeof seen) == sizeof seen ? 0 : 1);
    }
    if (pid < 0 || wait4(pid, &status, 0, &usage) != pid || status != 0 ||
        read(ends[0], seen, sizeof seen) != sizeof seen)
        exit(1);
    printf("%-30s %6.0f ms %8d %8d %6.1f MB %6d of %d, %d late\n", name,
           (double)(go_now() - begin) / 1e6, seen[0], seen[1], (double)usage.ru_maxrss / 1024,
           seen[2], PAGES, seen[3]);
    fflush(stdout);
    close(ends[0]);
    close(ends[1]);
}

int main(void) {
    pid_t pid = start_server();
    printf("%d pages that take %d ms each, but one never comes; patience for each: %d ms\n\n",
           PAGES, THINK_MS, PATIENCE_MS);
    printf("%-30s %9s %8s %8s %9s %12s\n", "", "time", "threads", "at once", "memory", "pages");
    fflush(stdout); /* or the children would have it, too */
    measure("one by one", one_by_one);
    measure("a thread each", a_thread_each);
    measure("green threads, ten at a time", green_threads);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return 0;
}
