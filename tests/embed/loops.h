/* loops.h - loops that call nothing, with checkpoints (checked_*) and without (plain_*). */
#ifndef T_LOOPS_H
#define T_LOOPS_H

#include <stdint.h>

/* Returns when *word has one of the bits; after so many laps. */
void checked_until(const uint32_t *word, uint32_t bits);
void plain_until(const uint32_t *word, uint32_t bits);
uint32_t checked_spin(uint32_t laps);
uint32_t plain_spin(uint32_t laps);

/* The kinds of loops that there are: each ends when *stop is not 0. */
enum { CHECKED_KINDS = 7 };
void checked_kind(unsigned kind, const uint32_t *stop);

#endif
