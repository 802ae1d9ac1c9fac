/* echo.c - a TCP echo server: a green thread per connection, plain blocking code, all cores.
 *
 * How it stops: main blocks SIGTERM and SIGINT before the runtime starts its threads (they inherit
 * the mask), so that sigwait in main is the only place where a signal can arrive. Then the listener
 * is closed, which sends the accept loop home, and go_stop cancels and joins the connections: a
 * read that is parked returns -ECANCELED, and its green thread closes its descriptor like on any
 * other end. */
#include <errno.h>
#include <getopt.h>
#include <gort.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void echo(void *arg) {
    int fd = (int)(intptr_t)arg;
    char buf[4096];
    for (;;) {
        ssize_t n = go_read(fd, buf, sizeof buf);
        if (n <= 0 || go_write_all(fd, buf, (size_t)n) < 0)
            break;
    }
    go_close(fd);
}

static void accept_loop(void *arg) {
    int listener = (int)(intptr_t)arg;
    for (;;) {
        int fd = go_accept(listener, NULL, NULL);
        if (fd < 0)
            return; /* the listener was closed, or the runtime stops */
        if (go_spawn(echo, (void *)(intptr_t)fd) < 0)
            go_close(fd); /* out of green threads: this client is refused, the others go on */
    }
}

static bool parse_number(const char *text, unsigned long max, unsigned *out) {
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || *text == '-' || n > max)
        return false;
    *out = (unsigned)n;
    return true;
}

static int usage(FILE *to, const char *program) {
    fprintf(to,
            "usage: %s [--port N] [--procs N]\n"
            "  --port N   listen on 127.0.0.1:N (default 7000; 0: any free one, see the output)\n"
            "  --procs N  processors to use (default: all)\n",
            program);
    return to == stdout ? 0 : 2;
}

static int parse_options(int argc, char **argv, unsigned *port, unsigned *procs) {
    static const struct option options[] = {{"port", required_argument, NULL, 'p'},
                                            {"procs", required_argument, NULL, 'P'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int o;
    while ((o = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (o == 'h')
            return usage(stdout, argv[0]);
        if (o == '?' || !parse_number(optarg, o == 'p' ? 65535 : 1024, o == 'p' ? port : procs))
            return usage(stderr, argv[0]);
    }
    return optind == argc ? -1 : usage(stderr, argv[0]);
}

int main(int argc, char **argv) {
    unsigned port = 7000;
    struct go_options options = GO_OPTIONS_INIT;
    int exit_code = parse_options(argc, argv, &port, &options.procs);
    if (exit_code >= 0)
        return exit_code;

    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    pthread_sigmask(SIG_BLOCK, &stop, NULL);

    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    int r = go_start(&options);
    int listener = r < 0 ? r : go_listen("tcp", address);
    if (listener >= 0)
        r = go_spawn(accept_loop, (void *)(intptr_t)listener);
    if (listener < 0 || r < 0) {
        fprintf(stderr, "%s: %s: %s\n", argv[0], address, strerror(listener < 0 ? -listener : -r));
        return 1;
    }
    struct sockaddr_in bound;
    socklen_t len = sizeof bound;
    getsockname(listener, (struct sockaddr *)&bound, &len);
    printf("listening on 127.0.0.1:%u\n", ntohs(bound.sin_port));
    fflush(stdout);

    int signo;
    sigwait(&stop, &signo);
    go_close(listener);
    return go_stop(5 * GO_SECOND) == 0 ? 0 : 1;
}
