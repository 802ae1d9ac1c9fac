/* answer.h - is this the answer to our request, to the byte? */
#ifndef LOADGEN_ANSWER_H
#define LOADGEN_ANSWER_H

#include <stddef.h>
#include <sys/types.h>

enum { ANSWER_MAX = 65536 };

/* What the answers to one kind of request look like. Zeroed but for `body`, the first complete
 * answer fills in the rest, and every later one must equal it in every byte but the date. */
struct answer {
    const char *body; /* NULL: take the first one's */
    char *text;
    size_t len, date; /* date: offset of its 29 characters, 0 = none */
    char last_date[32];
};

/* The length of the answer at the start of buf, 0 = not complete yet, -1 = wrong, *why says how. */
ssize_t answer_check(struct answer *a, const char *buf, size_t len, const char **why);

#endif
