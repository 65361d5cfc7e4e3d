/* Loops of the codec on flat arrays: no Python, no state, no global that changes.

   Each does what the numpy of the same name does, to the bit (docs/kernel.md). Callers
   have checked that arrays are as long as said; what an array holds is checked here
   before it is used as an index. A negative return value says what was wrong. */
#ifndef FLWR_CAESAR_LOOPS_H
#define FLWR_CAESAR_LOOPS_H

#include <stdint.h>

enum { SCALE_BITS = 14, SCALE = 1 << SCALE_BITS, MAX_ALPHABET = 512 };
enum { TRUNCATED = -1, NO_MEMORY = -2, OUT_OF_RANGE = -3 };

/* lanes.push: states of `lanes` lanes take `n` symbols, the last first. The words, at
   most one a symbol, end at `words + n + 1`; the one before the first is overwritten.
   `table` has MAX_ALPHABET entries a context: frequency << 16 | first slot.
   Returns the number of words, or OUT_OF_RANGE, NO_MEMORY. */
int64_t rans_push(uint32_t *states, int64_t lanes, const uint16_t *symbols,
                  const uint8_t *contexts, int64_t n, const uint32_t *table,
                  int64_t num_contexts, uint16_t *words);

/* lanes.pull: decodes `n` symbols, the first row first. `frequencies` has `alphabet`
   entries for each of `num_contexts` contexts, of which a row is all 0 or sums to SCALE.
   Returns the number of words read, or TRUNCATED, OUT_OF_RANGE, NO_MEMORY. */
int64_t rans_pull(uint32_t *states, int64_t lanes, const uint16_t *words,
                  int64_t num_words, uint16_t *symbols, const uint8_t *contexts,
                  int64_t n, const uint16_t *frequencies, int64_t num_contexts,
                  int64_t alphabet);

#endif
