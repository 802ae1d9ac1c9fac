/* loadgen.h - what main.c and worker.c share. */
#ifndef LOADGEN_H
#define LOADGEN_H

#include "answer.h"
#include "hist.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct config {
    struct sockaddr_in server;
    bool http;
    size_t size; /* echo: bytes of a message */
    double burn_percent;
    double rate; /* requests a second of all threads, 0: as fast as the answers come */
    unsigned threads;
    const char *path, *expect;
    /* Both set before `go` lets the workers run: the measured window, in CLOCK_MONOTONIC ns. */
    int64_t begin, end;
    pthread_barrier_t connected, go;
};

struct worker {
    struct config *config;
    pthread_t thread;
    unsigned id, conns;
    uint64_t errors;
    struct hist quick, burns;
};

int64_t now_ns(void);
void *worker_run(void *worker);

#endif
