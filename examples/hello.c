/* hello.c - a thousand green threads, each with a number to square, and a channel to sum up. */
#include <gort.h>
#include <stdio.h>

static go_chan *squares;

static void square(void *arg) {
    long n = (long)arg;
    go_chan_send(squares, &(long){n * n});
}

static void start(void *arg) {
    long n, sum = 0;
    (void)arg;
    squares = go_chan_new(sizeof n, 0);
    for (long i = 1; i <= 1000; i++)
        go_spawn(square, (void *)i);
    for (int i = 1; i <= 1000; i++) {
        go_chan_recv(squares, &n);
        sum += n;
    }
    go_chan_free(squares);
    printf("hello from 1000 green threads: their squares add up to %ld\n", sum);
}

int main(void) {
    return go_run(start, NULL) == 0 ? 0 : 1;
}
