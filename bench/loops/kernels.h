/* kernels.h - work without a call, compiled as it is (plain) and with a checkpoint in each loop
 * (checked). */
#ifndef KERNELS_H
#define KERNELS_H

#include <stdint.h>

enum { KERNEL_N = 1 << 14 };

struct kernel {
    const char *name;
    long ops; /* of one run: turns of the loop, elements, calls */
    uint64_t (*run)(void);
};

extern const struct kernel plain_kernels[], checked_kernels[]; /* the last has no name */

#endif
