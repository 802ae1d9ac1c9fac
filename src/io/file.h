/* file.h - transfers that may wait for a disk. */
#ifndef RT_FILE_H
#define RT_FILE_H

#include "netpoll/fd.h"

#include <sys/uio.h>

/* Read or write on a thread of the pool, while the caller is parked: a file that is never "not
 * ready". When there is no thread the worker waits for the disk. offset -1: at the file position;
 * else count is 1. The number of bytes or -errno; that of go_blocking, too, and then nothing was
 * moved; -EBADF: closed before it had begun. */
ssize_t rt_file_move(struct rt_fd_op *op, int dir, const struct iovec *iov, int count,
                     off_t offset);

#endif
