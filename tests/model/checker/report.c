/* report.c - the program: options, results, and how a fault came about. */
#include "checker.h"

#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { DEFAULT_BOUND = 3, DEFAULT_STALE = 2, UNBOUNDED = 15, FIRST = 100, LAST = 400 };

extern struct model_site __start_model_sites[] __attribute__((weak));
extern struct model_site __stop_model_sites[] __attribute__((weak));

static const char usage[] =
    "usage: %s [OPTION...]\n"
    "  --case GLOB of the cases to run\n"
    "  --bound N   of preemptions, at most %d, which is as good as none; default: each case's own\n"
    "  --stale N   of loads that see an old value; the same\n"
    "  --more N    so many more preemptions than the case's own\n"
    "  --trace     print the last execution, also if it is right\n"
    "  --sites     print each atomic operation that the cases came to\n"
    "  --first     end with the first fault, and do not show it\n"
    "  --mutate FILE:LINE:NAME:TEXT=ORDER, the first part as --sites has it; ORDER: relaxed,\n"
    "              acquire, release, acq_rel, seq_cst; none, light, full, heavy; may be repeated\n";

/* ---- places and steps ------------------------------------------------------------------------ */

/* sched/park.c of the shipped files, park.c of the models. */
static const char *short_name(const char *path) {
    const char *src = strstr(path, "src/"), *slash = strrchr(path, '/');
    return src ? src + 4 : slash ? slash + 1 : path;
}

const char *place(char *buffer, size_t bytes, const void *pc, const struct model_site *s) {
    char command[256];
    if (s) {
        snprintf(buffer, bytes, "%s:%u", short_name(s->file), s->line);
        return buffer;
    }
    snprintf(buffer, bytes, "%p", pc);
    if (!C->trace) /* it is asked again when the fault is shown */
        return buffer;
    snprintf(command, sizeof command, "addr2line -e /proc/%d/exe %p 2>/dev/null", (int)getpid(),
             (void *)((uintptr_t)pc - 1));
    FILE *f = popen(command, "r");
    if (f && fgets(buffer, (int)bytes, f))
        buffer[strcspn(buffer, " \n")] = 0;
    const char *name = short_name(buffer);
    memmove(buffer, name, strlen(name) + 1);
    if (f)
        pclose(f);
    return buffer;
}

void report_step(const struct model_site *s, const char *fmt, ...) {
    if (s >= __start_model_sites && s < __stop_model_sites)
        C->hits[s - __start_model_sites]++;
    if (!C->trace)
        return;
    if (C->steps > FIRST && C->steps + LAST < C->steps_before) {
        if (C->steps == FIRST + 1)
            puts("  ...");
        return;
    }
    char where[64], what[128];
    snprintf(what, sizeof what, "%s(%s)", s->name, s->text ? s->text : "");
    printf("  %*sT%d  %-16s %-44s ", C->cur->id * 4, "", C->cur->id,
           place(where, sizeof where, NULL, s), what);
    va_list ap;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

/* ---- mutations ------------------------------------------------------------------------------- */

static int parse_order(const char *text) {
    static const char *const orders[] = {"relaxed", "acquire", "release", "acq_rel", "seq_cst"};
    static const char *const fences[] = {"none", "light", "full", "heavy"};
    for (int i = 0; i < 5; i++)
        if (!strcmp(text, orders[i]))
            return i;
    for (int i = 0; i < 4; i++)
        if (!strcmp(text, fences[i]))
            return i;
    return -1;
}

static void key_of(const struct model_site *s, char *out, size_t bytes) {
    snprintf(out, bytes, "%s:%u:%s:%s", short_name(s->file), s->line, s->name, s->text);
}

/* FILE:LINE:NAME:TEXT=ORDER; the same place may be in several objects, being inline. */
static bool mutate(const char *spec) {
    const char *equals = strrchr(spec, '=');
    int order = equals ? parse_order(equals + 1) : -1;
    unsigned found = 0;
    for (struct model_site *s = __start_model_sites; order >= 0 && s < __stop_model_sites; s++) {
        char key[256];
        key_of(s, key, sizeof key);
        if (strlen(key) == (size_t)(equals - spec) && !strncmp(key, spec, strlen(key))) {
            s->order = (uint8_t)order;
            if (s->fail_order > order || order == MODEL_RELEASE || order == MODEL_ACQ_REL)
                s->fail_order = order == MODEL_ACQ_REL && s->fail_order ? MODEL_ACQUIRE
                                : order >= MODEL_ACQ_REL                ? s->fail_order
                                                                        : MODEL_RELAXED;
            found++;
        }
    }
    return found != 0;
}

static void print_sites(void) {
    for (struct model_site *s = __start_model_sites; s < __stop_model_sites; s++) {
        char key[256];
        key_of(s, key, sizeof key);
        printf("site\t%s\t%d\t%llu\t%s\n", key, s->shipped,
               (unsigned long long)C->hits[s - __start_model_sites], s->function);
    }
}

/* ---- cases ----------------------------------------------------------------------------------- */

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* With as few preemptions as it takes. */
static void show_fault(const struct model_case *run, int bound, int stale) {
    for (int b = 0; b <= bound; b++)
        if (!explore(run, b, stale))
            break;
    printf("  the fault, with %d preemption%s, after %llu executions:\n", C->bound,
           C->bound == 1 ? "" : "s", (unsigned long long)C->executions);
    explore_again();
    printf("  %s\n", C->text);
}

static bool run_case(const struct model_case *run, int bound, int stale, bool show) {
    bool full = bound == UNBOUNDED;
    double start = seconds();
    bool fine = explore(run, bound, stale);
    bool as_it_should = run->must_fail ? !fine && strstr(C->text, run->must_fail) : fine;
    char limit[32];
    snprintf(limit, sizeof limit, full ? "unbounded" : "bound %d+%d", bound, stale);
    printf("%-4s %-34s %-9s %8llu executions, %7llu cut short; %8zu states, longest %4llu steps, "
           "%6.2f s%s\n",
           as_it_should ? "ok" : "BAD", run->name, limit, (unsigned long long)C->executions,
           (unsigned long long)C->pruned, C->visited_n, (unsigned long long)C->deepest,
           seconds() - start, run->must_fail && as_it_should ? " (found the fault)" : "");
    if (!as_it_should && fine)
        printf("  no fault was found: it should say \"%s\"\n", run->must_fail);
    else if (!as_it_should && show)
        show_fault(run, bound, stale);
    fflush(stdout);
    return as_it_should;
}

int main(int argc, char **argv) {
    const char *glob = "*", *mutations[8];
    unsigned nmutations = 0;
    int bound = -1, stale = -1, more = 0;
    bool sites = false, last = false, first = false;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--case"))
            glob = value, i++;
        else if (!strcmp(argv[i], "--bound"))
            bound = atoi(value), i++;
        else if (!strcmp(argv[i], "--stale"))
            stale = atoi(value), i++;
        else if (!strcmp(argv[i], "--more"))
            more = atoi(value), i++;
        else if (!strcmp(argv[i], "--mutate") && nmutations < 8)
            mutations[nmutations++] = value, i++;
        else if (!strcmp(argv[i], "--sites"))
            sites = true;
        else if (!strcmp(argv[i], "--first"))
            first = true;
        else if (!strcmp(argv[i], "--trace"))
            last = true;
        else
            return fprintf(stderr, usage, argv[0], UNBOUNDED), 2;
    }
    for (unsigned i = 0; i < nmutations; i++)
        if (!mutate(mutations[i]))
            return fprintf(stderr, "no such place: %s\n", mutations[i]), 2;
    explore_init();
    bool fine = true;
    unsigned n = 0;
    for (const struct model_case *run = model_cases; run->name && (fine || !first); run++)
        if (fnmatch(glob, run->name, 0) == 0) {
            int b = run->bound ? run->bound : DEFAULT_BOUND;
            if (b == MODEL_NO_PREEMPTION)
                b = more;
            else
                b = bound >= 0 ? bound : b < 0 ? UNBOUNDED : b + more;
            int st = run->stale ? run->stale : DEFAULT_STALE;
            st = stale >= 0 ? stale : b == UNBOUNDED ? UNBOUNDED : st;
            fine &= run_case(run, b > UNBOUNDED ? UNBOUNDED : b, st, !first);
            if (last)
                explore_again();
            n++;
        }
    if (sites)
        print_sites();
    if (n == 0)
        return fprintf(stderr, "no case %s\n", glob), 2;
    return fine ? 0 : 1;
}
