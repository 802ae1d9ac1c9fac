/* async_gather.c - two tasks that wait at the same time, and what they return, in order. */
#include <gort.h>
#include <stdio.h>

struct job {
    const char *name;
    int64_t ms;
};

static void *work(void *arg) {
    struct job *job = arg;
    printf("%s starts\n", job->name);
    go_sleep(job->ms * GO_MILLISECOND);
    printf("%s ends\n", job->name);
    return &job->ms;
}

int main(void) {
    struct go_options options = GO_OPTIONS_INIT;
    options.procs = 1; /* so that A starts before B; with more they start side by side */
    if (go_start(&options) != 0)
        return 1;

    struct job a = {"A", 300}, b = {"B", 100};
    go_task *tasks[] = {go_task_spawn(work, &a), go_task_spawn(work, &b)};
    void *results[2];
    int err = go_gather(tasks, 2, results); /* 0.3 s, not 0.4 */
    if (err == 0)
        printf("A waited %d ms, B %d ms\n", (int)*(int64_t *)results[0],
               (int)*(int64_t *)results[1]);
    return go_stop(GO_SECOND) != 0 || err != 0;
}
