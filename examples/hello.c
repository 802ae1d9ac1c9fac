/* hello.c - the first program of README.md: a thousand green threads and a channel. */
#include <gort.h>
#include <stdio.h>
static go_chan *squares;
static void square(void *arg) {
    long n = (long)arg;
    go_chan_send(squares, &(long){n * n});
}
static void start(void *arg) {
    long count = (long)arg, n, sum = 0;
    squares = go_chan_new(sizeof n, 0); /* capacity 0: a send waits for its receiver */
    for (long i = 1; i <= count; i++) go_spawn(square, (void *)i);
    for (long i = 1; i <= count; i++, sum += n) go_chan_recv(squares, &n);
    printf("%ld green threads, their squares add up to %ld\n", count, sum);
}
int main(void) { return go_run(start, (void *)1000L) == 0 ? 0 : 1; }
