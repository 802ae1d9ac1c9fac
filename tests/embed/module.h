/* module.h - what a library that uses gort inside shows to its program, which knows nothing of
 * gort: libraries.c opens two of them. */
#ifndef MODULE_H
#define MODULE_H

#include <stdint.h>

struct module {
    int (*start)(void);   /* go_start */
    int (*stop)(void);    /* go_stop */
    int (*acquire)(void); /* go_acquire */
    int (*release)(void); /* go_release */
    unsigned (*procs)(void);
    /* 1 + ... + n, by as many green threads; -1 when there is no runtime. */
    int64_t (*sum)(int64_t n);
    int (*own)(int64_t *where); /* counts its calls, in a variable that each copy has for itself */
};

#endif
