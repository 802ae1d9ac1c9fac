/* pipeline.c - three stages joined by channels: generate numbers, square them on all cores, sum up.
 *
 * Each stage ends when the channel before it is closed and drained, and closes the one after it.
 * The channels are short: who is ahead of the others waits, so memory stays bounded however much
 * runs through. */
#include <errno.h>
#include <gort.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 10000, CAPACITY = 64 };

static go_chan *numbers, *squares;
static go_waitgroup squaring;

static void must(int result) {
    if (result < 0) {
        fprintf(stderr, "pipeline: %s\n", strerror(-result));
        exit(1);
    }
}

static void generate(void *arg) {
    (void)arg;
    for (int64_t i = 1; i <= COUNT; i++)
        must(go_chan_send(numbers, &i));
    go_chan_close(numbers);
}

static void square(void *arg) {
    (void)arg;
    for (int64_t n; go_chan_recv(numbers, &n) == 0;) {
        n *= n;
        must(go_chan_send(squares, &n));
    }
}

/* There are several workers: when the last has ended no more squares will come. */
static void end_squares(void *arg) {
    (void)arg;
    must(go_waitgroup_wait(&squaring));
    go_chan_close(squares);
}

static void start(void *arg) {
    int64_t n, count = 0, sum = 0;
    (void)arg;
    numbers = go_chan_new(sizeof n, CAPACITY);
    squares = go_chan_new(sizeof n, CAPACITY);
    if (!numbers || !squares)
        must(-ENOMEM);
    must(go_spawn(generate, NULL));
    for (unsigned i = 0; i < go_procs(); i++)
        must(go_waitgroup_spawn(&squaring, square, NULL));
    must(go_spawn(end_squares, NULL));
    for (; go_chan_recv(squares, &n) == 0; count++)
        sum += n;
    printf("%" PRId64 " squares add up to %" PRId64 "\n", count, sum);
    go_chan_free(numbers);
    go_chan_free(squares);
}

int main(void) {
    must(go_run(start, NULL));
    return 0;
}
