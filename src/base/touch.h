/* touch.h - memory that will be used in a moment, and is likely to be cold.
 *
 * A load whose result nobody waits for: the processor goes on, as long as it has room for what it
 * has not finished. Not a prefetch: these are dropped where the TLB misses, which is the larger
 * part of the price for a stack in a virtual machine (measured: docs/performance.md). So the memory
 * must be mapped. No sanitizer sees it: it may be another green thread's stack. */
#ifndef RT_TOUCH_H
#define RT_TOUCH_H

static inline void rt_touch(const void *p) {
#if defined(__x86_64__)
    int byte;
    __asm__ __volatile__("movzbl (%1), %0" : "=r"(byte) : "r"(p));
#elif defined(__aarch64__)
    int byte;
    __asm__ __volatile__("ldrb %w0, [%1]" : "=r"(byte) : "r"(p));
#endif
}

#endif
