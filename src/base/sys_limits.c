/* sys_limits.c - what this process may use: CPUs and memory, by affinity and cgroup v2.
 *
 * A limit of a cgroup binds all below it, so the tightest of the process's own group and all above
 * it counts. Read anew each time, because it may be changed at any moment, and without malloc:
 * sysmon reads it, and must not wait for a lock that somebody holds who does not run. */
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *rt_sys_cgroup_root = "/sys/fs/cgroup";
const char *rt_sys_cgroup_own = "/proc/self/cgroup";

enum { TEXT = 4096, MASK_BYTES = 8192 }; /* 65,536 CPUs */

/* What is in the file, at most TEXT - 1 bytes of it. */
static bool read_text(const char *path, char *text) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, TEXT - 1) : -1;
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = 0;
    return n > 0;
}

/* The directory of the own group; *root: how much of it is above all groups. */
static bool own_group(char *path, size_t size, size_t *root) {
    char text[TEXT];
    if (!read_text(rt_sys_cgroup_own, text))
        return false;
    const char *line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
    if (!line)
        return false;
    line += line == text ? 3 : 4;
    *root = strlen(rt_sys_cgroup_root);
    int n = snprintf(path, size, "%s%.*s", rt_sys_cgroup_root, (int)strcspn(line, "\n"), line);
    return n > 0 && (size_t)n < size;
}

/* The smallest of what `value` finds in that file of the own group and all above. */
static uint64_t tightest(const char *file, uint64_t (*value)(const char *text)) {
    char path[2 * TEXT], text[TEXT];
    size_t root;
    uint64_t best = UINT64_MAX;
    if (!own_group(path, sizeof path - 64, &root))
        return best;
    for (;;) {
        size_t len = strlen(path);
        snprintf(path + len, sizeof path - len, "/%s", file);
        uint64_t n = read_text(path, text) ? value(text) : UINT64_MAX;
        if (n < best)
            best = n;
        path[len] = 0;
        char *slash = strrchr(path, '/');
        if (!slash || (size_t)(slash - path) < root)
            return best;
        *slash = 0;
    }
}

/* "quota period", in CPUs rounded up (as Go 1.25 does, which looks at the leaf alone). */
static uint64_t cpus_of(const char *text) {
    char *end;
    unsigned long long quota = strtoull(text, &end, 10);
    if (end == text) /* "max period" */
        return UINT64_MAX;
    unsigned long long period = strtoull(end, NULL, 10);
    return quota == 0 || period == 0 ? UINT64_MAX : (quota - 1) / period + 1;
}

static uint64_t bytes_of(const char *text) {
    char *end;
    unsigned long long n = strtoull(text, &end, 10);
    return end == text ? UINT64_MAX : n; /* "max" */
}

/* 0: unknown. */
static unsigned affinity(pid_t tid) {
    unsigned long mask[MASK_BYTES / sizeof(unsigned long)];
    cpu_set_t *set = (cpu_set_t *)(void *)mask;
    memset(mask, 0, sizeof mask);
    return sched_getaffinity(tid, sizeof mask, set) == 0 ? (unsigned)CPU_COUNT_S(sizeof mask, set)
                                                         : 0;
}

static unsigned bounded(unsigned cpus) {
    uint64_t quota = tightest("cpu.max", cpus_of);
    if (cpus == 0)
        cpus = 1;
    return cpus < quota ? cpus : (unsigned)quota;
}

unsigned rt_sys_cpus(void) {
    int saved = errno;
    unsigned n = bounded(affinity(0));
    errno = saved;
    return n;
}

unsigned rt_sys_cpus_now(void) {
    int saved = errno;
    unsigned own = affinity(0), first = affinity(getpid());
    unsigned n = bounded(first != 0 && first < own ? first : own);
    errno = saved;
    return n;
}

uint64_t rt_sys_memory_limit(void) {
    int saved = errno;
    uint64_t n = tightest("memory.max", bytes_of);
    errno = saved;
    return n;
}
