/* module.c - a library that runs green threads inside. Built twice, linked with the shared gort. */
#include "module.h"

#include <gort.h>

static int start(void) {
    return go_start(NULL);
}
static int stop(void) {
    return go_stop(GO_FOREVER);
}
static int release(void) {
    return go_release(GO_FOREVER);
}

struct sum {
    go_chan *chan;
    go_waitgroup senders;
    int64_t next;
};

static void send_one(void *arg) {
    struct sum *s = arg;
    int64_t n = __atomic_add_fetch(&s->next, 1, __ATOMIC_SEQ_CST);
    if (n % 3 == 0)
        go_yield();
    go_chan_send(s->chan, &n);
}

static int64_t sum(int64_t n) {
    struct sum s = {go_chan_new(sizeof n, 3), {0}, 0};
    int64_t all = 0, value, started = 0;
    while (started < n && go_waitgroup_spawn(&s.senders, send_one, &s) == 0)
        started++;
    for (int64_t i = 0; i < started; i++)
        if (go_chan_recv(s.chan, &value) == 0)
            all += value;
    go_waitgroup_wait(&s.senders);
    go_chan_free(s.chan);
    return started == n ? all : -1;
}

static int calls;
static int own(int64_t *where) {
    *where = (int64_t)(intptr_t)&calls;
    return ++calls;
}

extern const struct module module;
__attribute__((visibility("default")))
const struct module module = {start, stop, go_acquire, release, go_procs, sum, own};
