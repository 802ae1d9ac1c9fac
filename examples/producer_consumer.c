/* producer_consumer.c - a producer that calls its consumer: one thread, and no lock anywhere.
 *
 * The consumer is a generator. Each go_gen_send goes straight into it, its go_gen_yield returns
 * what was sent, and the answer travels back with the next yield: the two take turns, so nothing is
 * ever shared by two who run at once. */
#include <gort.h>
#include <stdio.h>
#include <stdlib.h>

static void consume(go_gen *self, void *arg) {
    int *n;
    const char *answer = "";
    (void)arg;
    while ((n = go_gen_yield(self, (void *)answer)) != NULL) {
        printf("[CONSUMER] Consuming %d...\n", *n);
        answer = "200 OK";
    }
}

static void produce(void *arg) {
    void *answer;
    go_gen *consumer = go_gen_new(consume, arg);
    if (!consumer)
        exit(1);
    go_gen_next(consumer, NULL); /* up to its first yield, where it waits for work */
    for (int n = 1; n <= 5; n++) {
        printf("[PRODUCER] Producing %d...\n", n);
        go_gen_send(consumer, &n, &answer);
        printf("[PRODUCER] Consumer return: %s\n", (const char *)answer);
    }
    go_gen_close(consumer); /* its yield returns NULL: it cleans up and ends */
}

int main(void) {
    return go_run(produce, NULL) == 0 ? 0 : 1;
}
