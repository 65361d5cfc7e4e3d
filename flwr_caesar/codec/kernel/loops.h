/* Loops of the codec on flat arrays: no Python, no state, no global that changes.

   Each does what the numpy of the same name does, to the bit (docs/kernel.md). Callers
   have checked that arrays are as long as said; what an array holds is checked here
   before it is used as an index. A negative return value says what was wrong. */
#ifndef FLWR_CAESAR_LOOPS_H
#define FLWR_CAESAR_LOOPS_H

#include <stdint.h>

/* Of interface.py: raised with each change of what Python calls or expects, so that a
   kernel that was built of older sources is not used. */
enum { INTERFACE = 5 };

/* The largest of the classes that a scale gives, and that of a scale of 0. */
enum { TOP_CLASS = 95, CLASS_OF_ZERO = 32 };
enum { SCALE_BITS = 14, SCALE = 1 << SCALE_BITS, MAX_ALPHABET = 512 };
enum { TRUNCATED = -1, NO_MEMORY = -2, OUT_OF_RANGE = -3 };

/* lanes.push: states of `lanes` lanes take `n` symbols, the last first. The words, at
   most one a symbol, end at `words + n + 1`; what is before the first is overwritten.
   `table` has MAX_ALPHABET entries a context: frequency << 16 | first slot. `in_groups`
   is 0 where no vectors are to be used, whatever the processor has.
   Returns the number of words, or OUT_OF_RANGE, NO_MEMORY. */
int64_t rans_push(uint32_t *states, int64_t lanes, const uint16_t *symbols,
                  const uint8_t *contexts, int64_t n, const uint32_t *table,
                  int64_t num_contexts, uint16_t *words, int in_groups);

/* lanes.pull: decodes `n` symbols, the first row first. `frequencies` has `alphabet`
   entries for each of `num_contexts` contexts, of which a row is all 0 or sums to SCALE.
   Returns the number of words read, or TRUNCATED, OUT_OF_RANGE, NO_MEMORY. */
int64_t rans_pull(uint32_t *states, int64_t lanes, const uint16_t *words,
                  int64_t num_words, uint16_t *symbols, const uint8_t *contexts,
                  int64_t n, const uint16_t *frequencies, int64_t num_contexts,
                  int64_t alphabet, int in_groups);

/* integers.to_symbols: returns the largest symbol. `wide` says whether values are int32
   or int16, `mantissa` how many bits of a large integer its symbol tells: 4, or 2. */
int64_t to_symbols(const void *values, int wide, int64_t n, int mantissa,
                   uint16_t *symbols);

/* An octave has the symbols of as many raw bits: i + 2, for each i below OCTAVES. Counts
   the symbols of each. Returns 0, or OUT_OF_RANGE. */
enum { OCTAVES = 28 };
int64_t count_octaves(const uint16_t *symbols, int64_t n, int mantissa, int64_t *counts);

/* The raw bits of octave i begin at byte `starts[i]` of `bits` and end before
   `starts[i + 1]`. Returns 0, or OUT_OF_RANGE. */
int64_t pack_raw_bits(const void *values, int wide, const uint16_t *symbols, int64_t n,
                      int mantissa, const int64_t *starts, uint8_t *bits, int64_t size);

/* The way back of integers that are their symbols; counts the others as count_octaves
   does, and returns how many these are, or OUT_OF_RANGE. */
int64_t to_near(const uint16_t *symbols, int64_t n, int mantissa, int64_t *counts,
                int32_t *values);

/* That of the others. Of integers of 33 bits the first is lost. */
int64_t to_far(const uint16_t *symbols, int64_t n, int mantissa, const int64_t *starts,
               const uint8_t *bits, int64_t size, int32_t *values);

/* counts.count_symbols: adds to `counts`, of `alphabet` columns. */
int64_t count_symbols(const uint16_t *symbols, const void *contexts, int wide, int64_t n,
                      int64_t *counts, int64_t num_contexts, int64_t alphabet);

/* Sets the entry of each context that occurs to 1. */
void mark_contexts(const uint8_t *contexts, int64_t n, uint8_t *used);

/* contexts.SliceSums.add: sums of |x| over each slice of an (o, i, k) array, in the order
   in which numpy adds. `whole` says whether they are int32, each a float first. */
int64_t slice_sums(const void *x, int whole, int64_t o, int64_t i, int64_t k,
                   double *outputs, double *inputs, double *positions);

/* signs.SignSums.add: sums of the signs of each slice of the first two axes; returns how
   many integers are not 0. All lengths below 2^31. */
int64_t sign_sums(const int32_t *x, int64_t o, int64_t i, int64_t k, int64_t *outputs,
                  int64_t *inputs);

/* energy.energy: ||x||^2 of double or float, in the order in which numpy adds. */
double sum_of_squares(const void *x, int wide, int64_t n);

/* contexts.scale_classes: min(max(base + scale of each axis, 0), 95). */
int64_t scale_classes(int64_t base, const int16_t *outputs, const int16_t *inputs,
                      const int16_t *positions, int64_t o, int64_t i, int64_t k,
                      uint8_t *classes);

/* contexts.ContextMap: (class >> shift), clipped to [first, last], less first. */
void merge_classes(const uint8_t *classes, int64_t n, int shift, uint8_t first,
                   uint8_t last, uint8_t *merged);

/* quantise.quantise_dead_zone: returns 0, or OUT_OF_RANGE if an index exceeds 2^30. */
int64_t dead_zone(const float *x, int64_t n, float step, float up, int32_t *indices);

/* The squared error of dead_zone's indices times the step, in the order in which numpy
   adds. Returns 0, or OUT_OF_RANGE without a sum. */
int64_t dead_zone_loss(const float *x, int64_t n, float step, float up, double *sum);

/* step_search.StepSearch: symbols of the indices of a dead zone, half-octave classes after
   a shift, and the squared error. Returns 0, or OUT_OF_RANGE, NO_MEMORY. */
int64_t measure(const float *x, const int16_t *classes, int64_t n, int64_t shift,
                float step, float up, uint16_t *symbols, uint8_t *contexts,
                double *lost);

/* quantise.lattice_values: int32 cells become floats; `unit` is a normal power of two. */
void lattice_values(void *cells, int64_t n, float unit, float multiple);

/* small_block.encode_groups: of `groups` groups, of `sizes` integers each. Returns how
   many bytes of `out` are written, or OUT_OF_RANGE. */
int64_t rice_write(const int32_t *values, int64_t n, const int64_t *sizes, int64_t groups,
                   uint8_t *out, int64_t room);

/* small_block.decode_groups: returns how many bytes were read; TRUNCATED if they are no
   such groups, OUT_OF_RANGE if the sizes are not those of `n` integers. */
int64_t rice_read(const uint8_t *data, int64_t size, const int64_t *sizes, int64_t groups,
                  int32_t *values, int64_t n);

/* Of the tensors of a block, one after another. `layout` has four numbers of each: its
   three lengths, and a bit for each axis that has scales. Each returns 0, or OUT_OF_RANGE
   where an array is not as long as that says, or NO_MEMORY.

   contexts.SliceSums and signs.SignSums: of each tensor the sum of magnitudes and those of
   the slices of each axis with scales; the sums of signs of the first two axes; how many
   integers are not 0. */
int64_t sum_block(const int32_t *values, int64_t n, const int64_t *layout,
                  int64_t tensors, double *sums, int64_t num_sums, int64_t *signs,
                  int64_t num_signs, int64_t *active);

/* signs.Signs.flip, in place: `modes` has a byte for each tensor, of no sign or those of
   one of the first two axes, and `negative` one for each channel that has a sign. */
int64_t flip_block(int32_t *values, int64_t n, const int64_t *layout, int64_t tensors,
                   const uint8_t *modes, const uint8_t *negative, int64_t channels);

/* contexts.ContextMap of the classes of each element. */
int64_t context_block(const int16_t *scales, int64_t num_scales, const int64_t *layout,
                      int64_t tensors, int shift, uint8_t first, uint8_t last,
                      uint8_t *contexts, int64_t n);

#endif
