/* daemon.c - an ordinary multi-threaded daemon that has gained a server made of green threads.
 *
 * What was there before knows nothing of gort: a main loop on epoll, signals by signalfd, a pid
 * file, a configuration that SIGHUP reads again, and a pool of pthreads that does the work, here
 * the score of a text. New is the server: a green thread per connection, in plain blocking code.
 *
 *   connection ---- requests, a channel ----> main loop ---- queue, a pthread mutex ----> pool
 *        ^                (its go_chan_fd is in the epoll set)                              |
 *        '------------------------- the request's own channel -----------------------------'
 *
 * So each side waits in its own way: green threads park, the main loop sleeps in epoll_wait, the
 * pool in pthread_cond_wait, and a channel stands between each two. The configuration is behind a
 * go_rwmutex, which all three lock.
 *
 * The protocol: "score TEXT", "config" and "quit", a line each; so are the answers. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <gort.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_LINE = 1024, MAX_WORKERS = 64 };

static const char *program;

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void complain(const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    fprintf(stderr, "%s: ", program);
    vfprintf(stderr, format, ap);
    fputc('\n', stderr);
    va_end(ap);
}

/* ---- configuration --------------------------------------------------------------------------- */

static struct {
    go_rwmutex lock; /* zero is valid */
    unsigned factor;
    unsigned loads;
} config = {.factor = 1};

/* Lines "factor N", and comments. What is wrong changes nothing. */
static bool load_config(const char *path) {
    unsigned factor = 1, line = 0;
    char text[256], extra;
    FILE *f = fopen(path, "re");
    if (!f) {
        complain("%s: %s", path, strerror(errno));
        return false;
    }
    bool good = true;
    while (good && fgets(text, sizeof text, f)) {
        line++;
        if (text[strspn(text, " \t\n")] != '\0' && text[0] != '#')
            good = sscanf(text, "factor %u %c", &factor, &extra) == 1;
    }
    fclose(f);
    if (!good) {
        complain("%s: line %u is not understood", path, line);
        return false;
    }
    go_rwmutex_wrlock(&config.lock);
    config.factor = factor;
    config.loads++;
    go_rwmutex_wrunlock(&config.lock);
    return true;
}

/* ---- requests: a green thread makes them, the pool answers ----------------------------------- */

struct request {
    struct request *next; /* in the queue of the pool */
    go_chan *answer;      /* of one unsigned long; has room for it, so that the pool never waits */
    int owners;           /* who asks and who answers; the last one frees it */
    char text[MAX_LINE];
};

static void request_release(struct request *r) {
    if (__atomic_sub_fetch(&r->owners, 1, __ATOMIC_ACQ_REL) == 0) {
        go_chan_free(r->answer);
        free(r);
    }
}

static struct request *request_new(const char *text) {
    struct request *r = malloc(sizeof *r);
    go_chan *answer = go_chan_new(sizeof(unsigned long), 1);
    if (!r || !answer) {
        free(r);
        go_chan_free(answer);
        return NULL;
    }
    r->next = NULL;
    r->answer = answer;
    r->owners = 2;
    snprintf(r->text, sizeof r->text, "%s", text);
    return r;
}

/* ---- the pool, as it was --------------------------------------------------------------------- */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct request *first, **last;
    bool closed;
    unsigned n;
    pthread_t threads[MAX_WORKERS];
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER, .last = &pool.first};

static void pool_put(struct request *r) {
    pthread_mutex_lock(&pool.lock);
    *pool.last = r;
    pool.last = &r->next;
    pthread_cond_signal(&pool.work);
    pthread_mutex_unlock(&pool.lock);
}

static struct request *pool_take(void) {
    pthread_mutex_lock(&pool.lock);
    while (!pool.first && !pool.closed)
        pthread_cond_wait(&pool.work, &pool.lock);
    struct request *r = pool.first;
    if (r) {
        pool.first = r->next;
        if (!pool.first)
            pool.last = &pool.first;
    }
    pthread_mutex_unlock(&pool.lock);
    return r;
}

static unsigned long score(const char *text) {
    unsigned long sum = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        sum += *p;
    go_rwmutex_rdlock(&config.lock); /* on a pthread it waits as a pthread_rwlock does */
    sum *= config.factor;
    go_rwmutex_rdunlock(&config.lock);
    return sum;
}

static void *pool_thread(void *arg) {
    struct request *r;
    while ((r = pool_take()) != NULL) {
        unsigned long n = score(r->text);
        go_chan_send(r->answer, &n); /* makes the green thread ready, if it still waits */
        request_release(r);
    }
    return arg;
}

static int pool_start(unsigned n) {
    int err = 0;
    for (pool.n = 0; pool.n < n && err == 0; pool.n += err == 0)
        err = pthread_create(&pool.threads[pool.n], NULL, pool_thread, NULL);
    return -err;
}

static void pool_stop(void) {
    pthread_mutex_lock(&pool.lock);
    pool.closed = true;
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.lock);
    for (unsigned i = 0; i < pool.n; i++)
        pthread_join(pool.threads[i], NULL);
}

/* ---- the server: green threads --------------------------------------------------------------- */

static go_chan *requests; /* of struct request *; closed when the server has ended */

/* The answer to a line, in `line` itself; false: close the connection. */
static bool answer(char *line, size_t size) {
    if (strcmp(line, "quit") == 0)
        return false;
    if (strcmp(line, "config") == 0) {
        go_rwmutex_rdlock(&config.lock);
        snprintf(line, size, "factor %u, loaded %u times\n", config.factor, config.loads);
        go_rwmutex_rdunlock(&config.lock);
        return true;
    }
    if (strncmp(line, "score ", 6) != 0) {
        snprintf(line, size, "what?\n");
        return true;
    }
    unsigned long n = 0;
    struct request *r = request_new(line + 6);
    if (!r) {
        snprintf(line, size, "out of memory\n");
        return true;
    }
    int err = go_chan_send(requests, &r);
    if (err)
        request_release(r); /* the pool's share: it will never see it */
    else
        err = go_chan_recv(r->answer, &n);
    request_release(r);
    snprintf(line, size, "%lu\n", n);
    return err == 0; /* else we are cancelled */
}

static int serve(void *arg) {
    int fd = (int)(intptr_t)arg;
    char in[MAX_LINE], line[MAX_LINE];
    size_t have = 0;
    for (;;) {
        char *end = memchr(in, '\n', have);
        if (end) {
            size_t n = (size_t)(end - in);
            memcpy(line, in, n);
            line[n] = '\0';
            have -= n + 1;
            memmove(in, end + 1, have);
            if (!answer(line, sizeof line) || go_write_all(fd, line, strlen(line)) < 0)
                break;
            continue;
        }
        ssize_t n = have < sizeof in ? go_read(fd, in + have, sizeof in - have) : 0;
        if (n <= 0)
            break; /* the end, an error, a line too long; -ECANCELED when the server stops */
        have += (size_t)n;
    }
    go_close(fd);
    return 0;
}

/* Its connections are a group, so none is left when it ends. */
static void server(void *arg) {
    int fd, listener = (int)(intptr_t)arg;
    go_group connections;
    go_group_enter(&connections, GO_FOREVER);
    while ((fd = go_accept(listener, NULL, NULL)) >= 0)
        if (go_group_spawn(&connections, serve, (void *)(intptr_t)fd) < 0)
            go_close(fd);          /* at a limit: this client is refused, the others go on */
    go_group_cancel(&connections); /* the listener was closed */
    go_group_wait(&connections);
    go_chan_close(requests);
}

/* ---- the main loop --------------------------------------------------------------------------- */

static bool watch(int set, int fd) {
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(set, EPOLL_CTL_ADD, fd, &e) == 0;
}

/* What the green threads have sent goes to the pool. False when they have all ended. */
static bool pass_requests_on(void) {
    struct request *r;
    int err;
    while ((err = go_chan_try_recv(requests, &r)) == 0)
        pool_put(r);
    return err == -EAGAIN;
}

static int main_loop(int signals, int listener, const char *config_path) {
    struct signalfd_siginfo s;
    int set = epoll_create1(EPOLL_CLOEXEC), incoming = go_chan_fd(requests);
    if (set < 0 || incoming < 0 || !watch(set, signals) || !watch(set, incoming))
        return 1;
    for (bool running = true; running;) {
        struct epoll_event e;
        if (epoll_wait(set, &e, 1, -1) < 1)
            continue; /* EINTR */
        if (e.data.fd == incoming) {
            running = pass_requests_on();
        } else if (read(signals, &s, sizeof s) == sizeof s) {
            if (s.ssi_signo == SIGHUP)
                load_config(config_path);
            else if (listener >= 0) {
                go_close(listener); /* sends the server home; it answers by closing the channel */
                listener = -1;
            }
        }
    }
    close(set);
    return 0;
}

/* ---- the process ----------------------------------------------------------------------------- */

/* The lock on it says whether its owner lives. */
static int write_pid_file(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || ftruncate(fd, 0) < 0 ||
        dprintf(fd, "%d\n", getpid()) < 0) {
        complain("%s: %s", path, errno == EWOULDBLOCK ? "already running" : strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

/* By ordinary calls, before gort starts: gort takes any descriptor. */
static int listen_on(unsigned port) {
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t len = sizeof sa;
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) < 0 ||
        bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(fd, SOMAXCONN) < 0 ||
        getsockname(fd, (struct sockaddr *)&sa, &len) < 0) {
        complain("port %u: %s", port, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    printf("listening on 127.0.0.1:%u\n", ntohs(sa.sin_port));
    fflush(stdout);
    return fd;
}

struct settings {
    const char *config, *pid_file;
    unsigned port, workers;
    bool foreground;
};

static int usage(FILE *to) {
    fprintf(to,
            "usage: %s [--foreground] [--config FILE] [--pid-file FILE] [--port N] [--workers N]\n"
            "  --foreground   do not become a daemon\n"
            "  --config FILE  lines \"factor N\"; read again on SIGHUP (default daemon.conf)\n"
            "  --pid-file FILE  (default daemon.pid)\n"
            "  --port N       listen on 127.0.0.1:N (default 7001; 0: any free one)\n"
            "  --workers N    threads of the pool (default 2)\n",
            program);
    return to == stdout ? 0 : 2;
}

static bool parse_number(const char *text, unsigned least, unsigned most, unsigned *out) {
    char extra;
    return sscanf(text, "%u%c", out, &extra) == 1 && *out >= least && *out <= most;
}

static int parse_options(int argc, char **argv, struct settings *s) {
    static const struct option options[] = {{"foreground", no_argument, NULL, 'f'},
                                            {"config", required_argument, NULL, 'c'},
                                            {"pid-file", required_argument, NULL, 'i'},
                                            {"port", required_argument, NULL, 'p'},
                                            {"workers", required_argument, NULL, 'w'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int o;
    while ((o = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (o == 'h')
            return usage(stdout);
        if (o == '?' || (o == 'p' && !parse_number(optarg, 0, 65535, &s->port)) ||
            (o == 'w' && !parse_number(optarg, 1, MAX_WORKERS, &s->workers)))
            return usage(stderr);
        s->foreground = s->foreground || o == 'f';
        s->config = o == 'c' ? optarg : s->config;
        s->pid_file = o == 'i' ? optarg : s->pid_file;
    }
    return optind == argc ? -1 : usage(stderr);
}

/* Blocked before there are threads, which inherit the mask, and before others can know our pid. */
static int take_signals(void) {
    sigset_t mine;
    sigemptyset(&mine);
    sigaddset(&mine, SIGHUP);
    sigaddset(&mine, SIGTERM);
    sigaddset(&mine, SIGINT);
    sigprocmask(SIG_BLOCK, &mine, NULL);
    return signalfd(-1, &mine, SFD_CLOEXEC);
}

/* Threads, green and other, until SIGTERM. */
static int run(const struct settings *s, int signals, int listener) {
    int status = 1, err = 0;
    requests = go_chan_new(sizeof(struct request *), 64);
    if (signals < 0 || !requests || (err = go_start(NULL)) < 0) {
        complain("cannot start: %s", strerror(err ? -err : errno));
        return 1;
    }
    err = pool_start(s->workers);
    if (err == 0)
        err = go_spawn(server, (void *)(intptr_t)listener);
    if (err == 0)
        status = main_loop(signals, listener, s->config);
    else
        complain("cannot start: %s", strerror(-err));
    if (go_stop(5 * GO_SECOND) < 0)
        status = 1;
    pool_stop();
    go_chan_free(requests);
    return status;
}

int main(int argc, char **argv) {
    struct settings s = {"daemon.conf", "daemon.pid", 7001, 2, false};
    program = argv[0];
    int exit_code = parse_options(argc, argv, &s);
    if (exit_code >= 0)
        return exit_code;
    if (!load_config(s.config)) /* what can fail fails before it leaves the terminal */
        return 1;
    int listener = listen_on(s.port);
    if (listener < 0)
        return 1;
    if (!s.foreground && daemon(1, 0) < 0) { /* before go_start: a fork has no workers */
        complain("daemon: %s", strerror(errno));
        return 1;
    }
    int signals = take_signals(), pid_file = write_pid_file(s.pid_file);
    if (pid_file < 0)
        return 1;
    int status = run(&s, signals, listener);
    unlink(s.pid_file); /* while it is ours: the lock goes with the process */
    return status;
}
