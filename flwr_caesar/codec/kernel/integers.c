/* Integers as symbols and raw bits, as coding/integers.py describes them, and counts.

   Of the zigzag u of an integer the bits below the first one are told by the symbol, as
   far as they are `mantissa` many, and the others are raw: below 4 << mantissa all of u
   is the symbol. */
#include "loops.h"

#include <stdlib.h>
#include <string.h>

/* What is far from 0 is rare, and most blocks have none of it. Symbols of the others are
   made integers in a first pass, which also tells how much is far, and so where its raw
   bits are. */
enum { FIRST_RAW_BITS = 2, BLOCK = 1024 };

static inline uint32_t zigzag(int32_t v)
{
    return (uint32_t)v << 1 ^ (v < 0 ? UINT32_MAX : 0);
}

static inline int exponent(uint32_t u) /* floor(log2 u) of u > 0 */
{
#if defined(__GNUC__)
    return 31 - __builtin_clz(u);
#else
    int e = 0;
    while (u >>= 1)
        e++;
    return e;
#endif
}

static inline uint32_t direct(int mantissa)
{
    return (uint32_t)4 << mantissa;
}

static inline uint16_t symbol_of(int32_t v, int mantissa)
{
    uint32_t u = zigzag(v);
    if (u < direct(mantissa))
        return (uint16_t)u;
    int e = exponent(u);
    uint32_t octave = (uint32_t)(e - mantissa - FIRST_RAW_BITS);
    uint32_t told = u >> (e - mantissa) & ((1u << mantissa) - 1);
    return (uint16_t)(direct(mantissa) + (octave << mantissa) + told);
}

static inline int32_t value_at(const void *values, int wide, int64_t i)
{
    return wide ? ((const int32_t *)values)[i] : ((const int16_t *)values)[i];
}

static inline uint16_t block_symbols(const void *values, int wide, int64_t start,
                                     int64_t stop, int mantissa, uint16_t *symbols)
{
    uint32_t any = 0;
    for (int64_t i = start; i < stop; i++) {
        uint32_t u = zigzag(value_at(values, wide, i));
        any |= u;
        symbols[i] = (uint16_t)u;
    }
    uint16_t largest = 0;
    if (any >= direct(mantissa))
        for (int64_t i = start; i < stop; i++)
            symbols[i] = symbol_of(value_at(values, wide, i), mantissa);
    for (int64_t i = start; i < stop; i++)
        largest = symbols[i] > largest ? symbols[i] : largest;
    return largest;
}

int64_t to_symbols(const void *values, int wide, int64_t n, int mantissa,
                   uint16_t *symbols)
{
    uint16_t largest = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t stop = n - start < BLOCK ? n : start + BLOCK;
        uint16_t found = wide ? block_symbols(values, 1, start, stop, mantissa, symbols)
                              : block_symbols(values, 0, start, stop, mantissa, symbols);
        largest = found > largest ? found : largest;
    }
    return largest;
}

static uint32_t any_symbol(const uint16_t *symbols, int64_t start, int64_t stop)
{
    uint16_t any = 0;
    for (int64_t i = start; i < stop; i++)
        any |= symbols[i];
    return any;
}

/* Adds the symbols of a block that have raw bits to the counts of their octaves. Returns
   how many there are, or OUT_OF_RANGE. */
static inline int64_t count_far(const uint16_t *symbols, int64_t start, int64_t stop,
                                int mantissa, int64_t *counts)
{
    int64_t far = 0;
    for (int64_t i = start; i < stop; i++) {
        if (symbols[i] < direct(mantissa))
            continue;
        uint32_t octave = (symbols[i] - direct(mantissa)) >> mantissa;
        if (octave >= OCTAVES)
            return OUT_OF_RANGE;
        counts[octave]++;
        far++;
    }
    return far;
}

int64_t count_octaves(const uint16_t *symbols, int64_t n, int mantissa,
                      int64_t *counts)
{
    memset(counts, 0, OCTAVES * sizeof(int64_t));
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t stop = n - start < BLOCK ? n : start + BLOCK;
        uint32_t any = any_symbol(symbols, start, stop);
        if (any >= direct(mantissa) &&
            count_far(symbols, start, stop, mantissa, counts) < 0)
            return OUT_OF_RANGE;
    }
    return 0;
}

/* Where an octave's raw bits go on: the byte, bits that are in hand, how many are left. */
typedef struct {
    int64_t byte, left;
    uint64_t bits;
    int held;
} Cursor;

static int open_cursors(Cursor *cursors, const int64_t *starts, int64_t size)
{
    for (int i = 0; i < OCTAVES; i++) {
        if (starts[i] < 0 || starts[i + 1] < starts[i] || starts[i + 1] > size)
            return OUT_OF_RANGE;
        cursors[i] = (Cursor){starts[i], (starts[i + 1] - starts[i]) * 8, 0, 0};
    }
    return 0;
}

/* Returns the octave of a symbol if its raw bits are there, or OUT_OF_RANGE. */
static inline int take_octave(Cursor *cursors, uint16_t symbol, int mantissa)
{
    int octave = (int)((symbol - direct(mantissa)) >> mantissa);
    int width = octave + FIRST_RAW_BITS;
    if (octave >= OCTAVES || cursors[octave].left < width)
        return OUT_OF_RANGE;
    cursors[octave].left -= width;
    return octave;
}

int64_t pack_raw_bits(const void *values, int wide, const uint16_t *symbols, int64_t n,
                      int mantissa, const int64_t *starts, uint8_t *bits, int64_t size)
{
    Cursor cursors[OCTAVES];
    if (open_cursors(cursors, starts, size) < 0)
        return OUT_OF_RANGE;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t stop = n - start < BLOCK ? n : start + BLOCK;
        uint32_t any = any_symbol(symbols, start, stop);
        for (int64_t i = start; any >= direct(mantissa) && i < stop; i++) {
            if (symbols[i] < direct(mantissa))
                continue;
            int octave = take_octave(cursors, symbols[i], mantissa);
            if (octave < 0)
                return OUT_OF_RANGE;
            int width = octave + FIRST_RAW_BITS;
            Cursor *at = &cursors[octave];
            uint32_t u = zigzag(value_at(values, wide, i));
            at->bits = at->bits << width | (u & (((uint32_t)1 << width) - 1));
            for (at->held += width; at->held >= 8; at->held -= 8)
                bits[at->byte++] = (uint8_t)(at->bits >> (at->held - 8));
        }
    }
    for (Cursor *at = cursors; at < cursors + OCTAVES; at++)
        if (at->held > 0)
            bits[at->byte] = (uint8_t)(at->bits << (8 - at->held));
    return 0;
}

static inline int32_t unzigzag(uint64_t u)
{
    return (int32_t)(uint32_t)(u >> 1 ^ (0 - (u & 1)));
}

int64_t to_near(const uint16_t *symbols, int64_t n, int mantissa, int64_t *counts,
                int32_t *values)
{
    memset(counts, 0, OCTAVES * sizeof(int64_t));
    int64_t far = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t stop = n - start < BLOCK ? n : start + BLOCK;
        uint32_t any = 0;
        for (int64_t i = start; i < stop; i++) {
            uint32_t s = symbols[i];
            any |= s;
            values[i] = (int32_t)(s >> 1 ^ (0 - (s & 1)));
        }
        int64_t found = 0;
        if (any >= direct(mantissa))
            found = count_far(symbols, start, stop, mantissa, counts);
        if (found < 0)
            return found;
        far += found;
    }
    return far;
}

int64_t to_far(const uint16_t *symbols, int64_t n, int mantissa, const int64_t *starts,
               const uint8_t *bits, int64_t size, int32_t *values)
{
    Cursor cursors[OCTAVES];
    if (open_cursors(cursors, starts, size) < 0)
        return OUT_OF_RANGE;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t stop = n - start < BLOCK ? n : start + BLOCK;
        uint32_t any = any_symbol(symbols, start, stop);
        for (int64_t i = start; any >= direct(mantissa) && i < stop; i++) {
            if (symbols[i] < direct(mantissa))
                continue;
            int octave = take_octave(cursors, symbols[i], mantissa);
            if (octave < 0)
                return OUT_OF_RANGE;
            int width = octave + FIRST_RAW_BITS;
            Cursor *at = &cursors[octave];
            for (; at->held < width; at->held += 8)
                at->bits = at->bits << 8 | bits[at->byte++];
            at->held -= width;
            uint64_t low = at->bits >> at->held & (((uint64_t)1 << width) - 1);
            uint64_t told = symbols[i] & ((1u << mantissa) - 1);
            values[i] = unzigzag((1u << mantissa | told) << width | low);
        }
    }
    return 0;
}

/* Most symbols are one of few, and an entry that was just written is slow to read: so
   neighbours are counted apart. */
enum { APART = 4 };

static inline int64_t count_into(const uint16_t *symbols, const void *contexts, int wide,
                                 int64_t n, uint32_t *apart, int64_t entries,
                                 int64_t alphabet)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t c = wide ? ((const uint16_t *)contexts)[i]
                          : ((const uint8_t *)contexts)[i];
        uint32_t s = symbols[i], at = c * (uint32_t)alphabet + s;
        if (s >= alphabet || at >= entries)
            return OUT_OF_RANGE;
        apart[(i & (APART - 1)) * entries + at]++;
    }
    return 0;
}

int64_t count_symbols(const uint16_t *symbols, const void *contexts, int wide, int64_t n,
                      int64_t *counts, int64_t num_contexts, int64_t alphabet)
{
    const int64_t entries = num_contexts * alphabet, most = (int64_t)1 << 30;
    uint32_t *apart = malloc((size_t)entries * APART * sizeof(uint32_t));
    if (apart == NULL)
        return NO_MEMORY;
    int64_t found = 0;
    for (int64_t start = 0; start < n && found == 0; start += most) {
        int64_t size = n - start < most ? n - start : most;
        memset(apart, 0, (size_t)entries * APART * sizeof(uint32_t));
        found = wide ? count_into(symbols + start, (const uint16_t *)contexts + start, 1,
                                  size, apart, entries, alphabet)
                     : count_into(symbols + start, (const uint8_t *)contexts + start, 0,
                                  size, apart, entries, alphabet);
        for (int64_t j = 0; j < entries; j++)
            for (int k = 0; k < APART; k++)
                counts[j] += apart[k * entries + j];
    }
    free(apart);
    return found;
}

void mark_contexts(const uint8_t *contexts, int64_t n, uint8_t *used)
{
    for (int64_t i = 0; i < n; i++)
        used[contexts[i]] = 1;
}
