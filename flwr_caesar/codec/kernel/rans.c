/* Interleaved rANS, as coding/lanes.py describes it. */
#include "loops.h"
#include "rans_avx2.h"

#include <stdlib.h>
#include <string.h>

enum { LOWEST = 1 << 16, QUOTIENT_BITS = 46 };

/* A state x of a symbol that has f of SCALE slots becomes
   x + first + x / f * (SCALE - f), and x / f = (x * reciprocal) >> 46 for
   x < f * 2^18, with the reciprocal rounded up: the product stays below 2^64, and what
   it has too much, less than x * f, below 2^46. */
typedef struct {
    uint64_t reciprocal;
    uint32_t most; /* the largest state that takes the symbol without giving a word */
    uint16_t rest; /* SCALE - f */
    uint16_t first;
} Code;

static Code *make_codes(const uint32_t *table, int64_t entries)
{
    Code *codes = malloc((size_t)entries * sizeof(Code));
    if (codes == NULL)
        return NULL;
    for (int64_t i = 0; i < entries; i++) {
        uint32_t f = table[i] >> 16;
        if (f == 0 || f > SCALE) {
            codes[i] = (Code){0, 0, 0, 0};
            continue;
        }
        codes[i].reciprocal = (((uint64_t)1 << QUOTIENT_BITS) + f - 1) / f;
        codes[i].most = (uint32_t)(((uint64_t)f << (32 - SCALE_BITS)) - 1);
        codes[i].rest = (uint16_t)(SCALE - f);
        codes[i].first = (uint16_t)table[i];
    }
    return codes;
}

static int64_t push_rows(uint32_t *states, int64_t lanes, const uint16_t *symbols,
                         const uint8_t *contexts, int64_t n, const uint32_t *table,
                         int64_t num_contexts, uint16_t *words)
{
    Code *codes = make_codes(table, num_contexts * MAX_ALPHABET);
    if (codes == NULL)
        return NO_MEMORY;
    uint16_t *end = words + n + 1, *w = end;
    int64_t stop = n;
    while (stop > 0) {
        int64_t start = (stop - 1) / lanes * lanes;
        for (int64_t i = stop - 1; i >= start; i--) {
            const Code code = codes[(int64_t)contexts[i] * MAX_ALPHABET + symbols[i]];
            if (code.reciprocal == 0) {
                free(codes);
                return OUT_OF_RANGE;
            }
            uint32_t x = states[i - start];
            uint32_t over = x > code.most;
            w[-1] = (uint16_t)x;
            w -= over;
            x >>= over << 4;
            uint32_t quotient = (uint32_t)((x * code.reciprocal) >> QUOTIENT_BITS);
            states[i - start] = x + quotient * code.rest + code.first;
        }
        stop = start;
    }
    free(codes);
    return end - w;
}

#ifdef AVX2
/* push_rows, eight lanes at a time as long as there is room for as many words. */
AVX2 static int64_t push_groups(uint32_t *states, int64_t lanes, const uint16_t *symbols,
                                const uint8_t *contexts, int64_t n,
                                const uint32_t *table, uint16_t *words)
{
    uint8_t givers[256][GROUP];
    make_givers(givers);
    __m256i bad = _mm256_setzero_si256();
    uint16_t *end = words + n + 1, *w = end;
    int64_t stop = n;
    while (stop > 0) {
        int64_t start = (stop - 1) / lanes * lanes, i = stop - start;
        while (i >= GROUP && w - words >= GROUP) {
            i -= GROUP;
            w = push_group(states + i, symbols + start + i, contexts + start + i, table,
                           w, givers, &bad);
        }
        while (i-- > 0) {
            int64_t at = (int64_t)contexts[start + i] * MAX_ALPHABET + symbols[start + i];
            uint32_t x = states[i], f = table[at] >> 16;
            if (f == 0 || f > SCALE)
                return OUT_OF_RANGE;
            if (x >> (32 - SCALE_BITS) >= f) {
                *--w = (uint16_t)x;
                x >>= 16;
            }
            states[i] = (x / f << SCALE_BITS) + x % f + (table[at] & 0xFFFF);
        }
        stop = start;
    }
    return _mm256_testz_si256(bad, bad) ? end - w : OUT_OF_RANGE;
}
#endif

static int64_t largest_context(const uint8_t *contexts, int64_t n)
{
    uint8_t largest = 0;
    for (int64_t i = 0; i < n; i++)
        largest = contexts[i] > largest ? contexts[i] : largest;
    return largest;
}

static int64_t largest_symbol(const uint16_t *symbols, int64_t n)
{
    uint16_t largest = 0;
    for (int64_t i = 0; i < n; i++)
        largest = symbols[i] > largest ? symbols[i] : largest;
    return largest;
}

int64_t rans_push(uint32_t *states, int64_t lanes, const uint16_t *symbols,
                  const uint8_t *contexts, int64_t n, const uint32_t *table,
                  int64_t num_contexts, uint16_t *words, int in_groups)
{
    if (n == 0)
        return 0;
    if (largest_context(contexts, n) >= num_contexts ||
        largest_symbol(symbols, n) >= MAX_ALPHABET)
        return OUT_OF_RANGE;
#ifdef AVX2
    if (in_groups && lanes >= GROUP && has_avx2())
        return push_groups(states, lanes, symbols, contexts, n, table, words);
#else
    (void)in_groups;
#endif
    return push_rows(states, lanes, symbols, contexts, n, table, num_contexts, words);
}

/* The symbol of each slot of each context, and of each symbol its frequency and first
   slot; zeros in a context without a table. A slot is a byte where symbols fit into it. */
typedef struct {
    void *slots;
    uint32_t *steps;
    int wide;
} Tables;

/* Returns how many slots have a symbol, or OUT_OF_RANGE. */
static int64_t fill_row(Tables *tables, int64_t row, const uint16_t *frequencies,
                        int64_t alphabet)
{
    uint32_t *steps = tables->steps + (size_t)row * MAX_ALPHABET;
    const size_t slots = (size_t)row * SCALE;
    uint32_t first = 0;
    for (int64_t s = 0; s < alphabet; s++) {
        uint32_t f = frequencies[s];
        if (f > SCALE - first)
            return OUT_OF_RANGE;
        steps[s] = f << 16 | first;
        if (!tables->wide)
            memset((uint8_t *)tables->slots + slots + first, (int)s, f);
        else
            for (uint32_t k = first; k < first + f; k++)
                ((uint16_t *)tables->slots)[slots + k] = (uint16_t)s;
        first += f;
    }
    return first == 0 || first == SCALE ? (int64_t)first : OUT_OF_RANGE;
}

static int make_tables(Tables *tables, const uint16_t *frequencies,
                       int64_t num_contexts, int64_t alphabet)
{
    int64_t used = 0;
    tables->wide = alphabet > 256;
    tables->slots = calloc((size_t)num_contexts * SCALE + GROUP, tables->wide ? 2 : 1);
    tables->steps = calloc((size_t)num_contexts * MAX_ALPHABET, sizeof(uint32_t));
    if (tables->slots == NULL || tables->steps == NULL)
        return NO_MEMORY;
    for (int64_t c = 0; c < num_contexts; c++) {
        int64_t found = fill_row(tables, c, frequencies + c * alphabet, alphabet);
        if (found < 0)
            return OUT_OF_RANGE;
        used += found != 0;
    }
    return used == 0 ? OUT_OF_RANGE : 0;
}

static void free_tables(Tables *tables)
{
    free(tables->slots);
    free(tables->steps);
}

/* One symbol: returns the state before words are read. */
static inline uint32_t pop(uint32_t x, uint32_t row, const void *restrict slots,
                           const uint32_t *restrict steps, int wide,
                           uint16_t *restrict symbol)
{
    uint32_t slot = x & (SCALE - 1), at = row << SCALE_BITS | slot;
    uint32_t s = wide ? ((const uint16_t *)slots)[at] : ((const uint8_t *)slots)[at];
    uint32_t step = steps[row * MAX_ALPHABET + s];
    *symbol = (uint16_t)s;
    return (step >> 16) * (x >> SCALE_BITS) + slot - (step & 0xFFFF);
}

static inline int64_t pull_rows(uint32_t *restrict states, int64_t lanes,
                                const uint16_t *restrict words, int64_t num_words,
                                uint16_t *restrict symbols,
                                const uint8_t *restrict contexts, int64_t n,
                                const Tables *tables, const int wide)
{
    const void *restrict slots = tables->slots;
    const uint32_t *restrict steps = tables->steps;
    const uint16_t *w = words, *end = words + num_words;
    for (int64_t start = 0; start < n; start += lanes) {
        int64_t row = n - start < lanes ? n - start : lanes;
        const uint8_t *context = contexts + start;
        uint16_t *symbol = symbols + start;
        if (end - w >= row) { /* enough for every lane */
            for (int64_t i = 0; i < row; i++) {
                uint32_t x = pop(states[i], context[i], slots, steps, wide, symbol + i);
                uint32_t under = x < LOWEST, more = x << 16 | *w;
                w += under;
                states[i] = x ^ ((x ^ more) & (0 - under)); /* without a branch */
            }
            continue;
        }
        for (int64_t i = 0; i < row; i++) {
            uint32_t x = pop(states[i], context[i], slots, steps, wide, symbol + i);
            if (x < LOWEST) {
                if (w == end)
                    return TRUNCATED;
                x = x << 16 | *w++;
            }
            states[i] = x;
        }
    }
    return w - words;
}

#ifdef AVX2
/* pull_rows, eight lanes at a time as long as there are as many words. */
AVX2 static int64_t pull_groups(uint32_t *restrict states, int64_t lanes,
                                const uint16_t *restrict words, int64_t num_words,
                                uint16_t *restrict symbols,
                                const uint8_t *restrict contexts, int64_t n,
                                const Tables *tables)
{
    uint8_t orders[256][GROUP];
    make_orders(orders);
    const uint8_t *slots = tables->slots;
    const uint16_t *w = words, *end = words + num_words;
    for (int64_t start = 0; start < n; start += lanes) {
        int64_t row = n - start < lanes ? n - start : lanes, i = 0;
        for (; row - i >= GROUP && end - w >= GROUP; i += GROUP)
            w = pull_group(states + i, w, symbols + start + i, contexts + start + i,
                           slots, tables->steps, orders);
        if (i < row) {
            int64_t read = pull_rows(states + i, row - i, w, end - w, symbols + start + i,
                                     contexts + start + i, row - i, tables, 0);
            if (read < 0)
                return read;
            w += read;
        }
    }
    return w - words;
}
#endif

int64_t rans_pull(uint32_t *states, int64_t lanes, const uint16_t *words,
                  int64_t num_words, uint16_t *symbols, const uint8_t *contexts,
                  int64_t n, const uint16_t *frequencies, int64_t num_contexts,
                  int64_t alphabet, int in_groups)
{
    if (n == 0)
        return 0;
    if (largest_context(contexts, n) >= num_contexts)
        return OUT_OF_RANGE;
    Tables tables;
    int64_t found = make_tables(&tables, frequencies, num_contexts, alphabet);
#ifdef AVX2
    if (found == 0 && in_groups && !tables.wide && lanes >= GROUP && has_avx2()) {
        found = pull_groups(states, lanes, words, num_words, symbols, contexts, n,
                            &tables);
        free_tables(&tables);
        return found;
    }
#else
    (void)in_groups;
#endif
    if (found == 0)
        found = tables.wide ? pull_rows(states, lanes, words, num_words, symbols,
                                        contexts, n, &tables, 1)
                            : pull_rows(states, lanes, words, num_words, symbols,
                                        contexts, n, &tables, 0);
    free_tables(&tables);
    return found;
}
