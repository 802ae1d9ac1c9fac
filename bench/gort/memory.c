/* memory.c - what the kernel says of memory. Without stdio, whose buffers would be counted. */
#include "bench.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int64_t bench_proc_bytes(const char *path, const char *key)
{
    static char text[16384]; /* only the task that measures comes here */
    size_t have = 0;
    ssize_t got;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    while (have < sizeof text - 1 && (got = read(fd, text + have, sizeof text - 1 - have)) > 0)
        have += (size_t)got;
    close(fd);
    text[have] = '\0';
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, strlen(key)) == 0)
            return strtoll(line + strlen(key), NULL, 10) * 1024;
    }
    return -1;
}

int64_t bench_resident_bytes(void)
{
    int64_t bytes = bench_proc_bytes("/proc/self/smaps_rollup", "Rss:"); /* exact; VmRSS lags */

    if (bytes < 0)
        bytes = bench_proc_bytes("/proc/self/status", "VmRSS:");
    if (bytes < 0)
        bench_die("/proc tells no resident size");
    return bytes;
}

int64_t bench_page_table_bytes(void)
{
    int64_t bytes = bench_proc_bytes("/proc/self/status", "VmPTE:");

    if (bytes < 0)
        bench_die("/proc tells no page table size");
    return bytes;
}
