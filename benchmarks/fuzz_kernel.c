/* Streams of symbols, mutated, and floats of any size through the kernel's loops;
   fuzz_kernel.py builds and runs it with sanitisers. Every array has exactly the memory
   that a caller promises. A stream that was not mutated has to come back, and integers
   have to make the symbols and raw bits again that they were made of. The last line is a
   digest of all results, which is the same on every processor.

       fuzz_kernel TRIALS SEED */
#include "../flwr_caesar/codec/kernel/loops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOWEST = 1 << 16, MOST_SYMBOLS = 160, OUTCOMES = 5 };

static const char *NAMES[OUTCOMES] = {
    "came back", "refused: truncated", "refused: out of range", "decoded otherwise",
    "raw bits out of range",
};
static uint64_t state, digest = 14695981039346656037ULL;

static uint64_t draw(uint64_t below)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * 0x2545F4914F6CDD1DULL >> 32) % below;
}

static void note(const void *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        digest = (digest ^ ((const uint8_t *)data)[i]) * 1099511628211ULL;
}

static void *take(size_t size)
{
    void *memory = malloc(size ? size : 1);
    if (memory == NULL)
        exit(2);
    return memory;
}

static void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    abort();
}

typedef struct {
    int64_t n, lanes, contexts, alphabet, num_words;
    uint16_t *frequencies, *symbols, *words;
    uint32_t *states;
    uint8_t *at;
} Stream;

static void free_stream(Stream *s)
{
    free(s->frequencies);
    free(s->symbols);
    free(s->words);
    free(s->states);
    free(s->at);
}

/* Frequencies of up to eight symbols a context, and symbols drawn by them. */
static Stream make_stream(void)
{
    static const int64_t ALPHABETS[] = {1, 2, 9, 70, 300, 512};
    Stream s = {.n = 1 + (int64_t)draw(MOST_SYMBOLS)};
    s.alphabet = ALPHABETS[draw(6)];
    s.contexts = draw(1000) ? 1 + (int64_t)draw(4) : 256;
    s.lanes = 1 + (int64_t)draw(draw(3) ? 4 : (uint64_t)s.n);
    s.frequencies = take((size_t)(s.contexts * s.alphabet) * 2);
    s.symbols = take((size_t)s.n * 2);
    s.at = take((size_t)s.n);
    s.states = take((size_t)s.lanes * 4);
    memset(s.frequencies, 0, (size_t)(s.contexts * s.alphabet) * 2);
    uint32_t *table = calloc((size_t)s.contexts * MAX_ALPHABET, 4);
    for (int64_t c = 0; c < s.contexts; c++) {
        uint16_t *own = s.frequencies + c * s.alphabet;
        int64_t left = SCALE;
        for (int i = 0; i < 7 && left > 1; i++) {
            int64_t share = (int64_t)draw((uint64_t)left);
            own[draw((uint64_t)s.alphabet)] += (uint16_t)share;
            left -= share;
        }
        own[draw((uint64_t)s.alphabet)] += (uint16_t)left;
        uint32_t first = 0;
        for (int64_t v = 0; v < s.alphabet; v++) {
            table[c * MAX_ALPHABET + v] = (uint32_t)own[v] << 16 | (first & 0xFFFF);
            first += own[v];
        }
    }
    for (int64_t i = 0; i < s.n; i++) {
        s.at[i] = (uint8_t)draw((uint64_t)s.contexts);
        int64_t slot = (int64_t)draw(SCALE), v = 0;
        for (slot -= s.frequencies[s.at[i] * s.alphabet]; slot >= 0; v++)
            slot -= s.frequencies[s.at[i] * s.alphabet + v + 1];
        s.symbols[i] = (uint16_t)v;
    }
    for (int64_t i = 0; i < s.lanes; i++)
        s.states[i] = LOWEST;
    uint16_t *room = take((size_t)(s.n + 1) * 2);
    s.num_words = rans_push(s.states, s.lanes, s.symbols, s.at, s.n, table, s.contexts,
                            room, (int)draw(2));
    if (s.num_words < 0)
        fail("a good stream was refused");
    s.words = take((size_t)s.num_words * 2);
    memcpy(s.words, room + s.n + 1 - s.num_words, (size_t)s.num_words * 2);
    free(room);
    free(table);
    return s;
}

static void spoil(void *data, int64_t size)
{
    uint64_t changes = 1 + draw(3);
    for (uint64_t i = 0; i < changes && size; i++) {
        uint8_t *at = (uint8_t *)data + draw((uint64_t)size);
        *at ^= (uint8_t)(1 << draw(8));
    }
    if (!draw(6))
        for (int64_t i = 0; i < size; i++)
            ((uint8_t *)data)[i] = (uint8_t)draw(256);
}

static int mutate(Stream *s)
{
    uint64_t which = draw(8);
    if (which == 0)
        return 0;
    if (which & 1)
        spoil(s->words, s->num_words * 2);
    if (which & 2)
        spoil(s->states, s->lanes * 4);
    if (which & 4) {
        int64_t left = (int64_t)draw((uint64_t)s->num_words + 1);
        uint16_t *shorter = take((size_t)left * 2);
        memcpy(shorter, s->words, (size_t)left * 2);
        free(s->words);
        s->words = shorter;
        s->num_words = left;
    }
    if (!draw(20))
        spoil(s->at, s->n);
    if (!draw(20))
        spoil(s->frequencies, s->contexts * s->alphabet * 2);
    return 1;
}

/* Raw bits for symbols, integers of both, and all of that back. */
static int check_integers(const uint16_t *symbols, int64_t n)
{
    int64_t counts[OCTAVES], starts[OCTAVES + 1] = {0};
    const int mantissa = draw(2) ? 4 : 2;
    if (count_octaves(symbols, n, mantissa, counts) < 0) {
        if (mantissa == 4)
            fail("symbols beyond the alphabet were decoded");
        return 4;
    }
    for (int i = 0; i < OCTAVES; i++)
        starts[i + 1] = starts[i] + (counts[i] * (i + 2) + 7) / 8;
    int64_t size = starts[OCTAVES], known = 1;
    if (mantissa == 4) /* of 33 bits and more */
        known = counts[26] == 0 && counts[27] == 0;
    uint8_t *bits = take((size_t)size), *again = take((size_t)size);
    int32_t *values = take((size_t)n * 4);
    uint16_t *made = take((size_t)n * 2);
    for (int64_t i = 0; i < size; i++)
        bits[i] = (uint8_t)draw(256);
    int outcome = 0;
    if (!draw(3)) {
        int64_t *at = &starts[draw(OCTAVES + 1)];
        *at += (int64_t)draw(7) - 3;
        known = 0;
    }
    to_near(symbols, n, mantissa, counts, values);
    if (to_far(symbols, n, mantissa, starts, bits, size, values) < 0) {
        if (known)
            fail("raw bits that are there were refused");
        outcome = 4;
    } else if (note(values, (size_t)n * 4), known) {
        to_symbols(values, 1, n, mantissa, made);
        if (memcmp(made, symbols, (size_t)n * 2) != 0)
            fail("integers have other symbols");
        if (pack_raw_bits(values, 1, made, n, mantissa, starts, again, size) < 0)
            fail("raw bits have no room");
        int32_t *second = take((size_t)n * 4);
        to_near(made, n, mantissa, counts, second);
        to_far(made, n, mantissa, starts, again, size, second);
        if (memcmp(values, second, (size_t)n * 4) != 0)
            fail("integers did not come back");
        free(second);
    }
    free(bits);
    free(again);
    free(values);
    free(made);
    return outcome;
}

/* A tensor whose elements span sixty octaves, through what has floats. */
static void run_floats(void)
{
    const int64_t o = 1 + (int64_t)draw(6), i = 1 + (int64_t)draw(40);
    const int64_t k = 1 + (int64_t)draw(5), n = o * i * k;
    float *x = take((size_t)n * 4);
    int64_t *signs = take((size_t)(o + i) * 8);
    double *sums = take((size_t)(o + i + k) * 8), lost = 0;
    int32_t *indices = take((size_t)n * 4);
    int16_t *scales = take((size_t)(o + i + k) * 2), *wide = take((size_t)n * 2);
    uint8_t *classes = take((size_t)n), *merged = take((size_t)n);
    uint16_t *symbols = take((size_t)n * 2);
    for (int64_t j = 0; j < n; j++) {
        uint32_t bits = (uint32_t)draw(1u << 23);
        bits |= (uint32_t)(97 + draw(60)) << 23;
        bits |= (uint32_t)draw(2) << 31;
        memcpy(&x[j], &bits, 4);
        wide[j] = (int16_t)draw(96);
    }
    for (int64_t j = 0; j < o + i + k; j++)
        scales[j] = (int16_t)((int)draw(120) - 60);
    const float step = x[draw((uint64_t)n)], up = (float)draw(512) / 1024;
    slice_sums(x, 0, o, i, k, sums, sums + o, sums + o + i);
    note(sums, (size_t)(o + i + k) * 8);
    double energy = sum_of_squares(x, 0, n);
    note(&energy, 8);
    memset(indices, 0, (size_t)n * 4);
    if (dead_zone(x, n, step, up, indices) == 0) {
        note(indices, (size_t)n * 4);
        slice_sums(indices, 1, o, i, k, sums, sums + o, sums + o + i);
        note(sums, (size_t)(o + i + k) * 8);
        sign_sums(indices, o, i, k, signs, signs + o);
        note(signs, (size_t)(o + i) * 8);
        lattice_values(indices, n, 0.25f, 5);
        note(indices, (size_t)n * 4);
    }
    if (measure(x, wide, n, (int64_t)draw(99), step, up, symbols, merged, &lost) == 0) {
        note(symbols, (size_t)n * 2);
        note(&lost, 8);
    }
    const uint64_t axes = draw(8), map = draw(96);
    scale_classes(32, axes & 1 ? scales : NULL, axes & 2 ? scales + o : NULL,
                  axes & 4 ? scales + o + i : NULL, o, i, k, classes);
    merge_classes(classes, n, (int)(map % 8), 0, (uint8_t)map, merged);
    note(classes, (size_t)n);
    note(merged, (size_t)n);
    void *all[] = {x, signs, sums, indices, scales, wide, classes, merged, symbols};
    for (size_t j = 0; j < sizeof all / sizeof *all; j++)
        free(all[j]);
}

/* Groups there and back, and a mutation of them read. */
static void run_groups(void)
{
    const int64_t groups = 1 + (int64_t)draw(4), bits = 1 + (int64_t)draw(32);
    int64_t sizes[4], n = 0;
    for (int64_t g = 0; g < groups; g++)
        n += sizes[g] = (int64_t)draw(40);
    const int64_t room = groups + (34 * n + 7) / 8 + 2;
    int32_t *values = take((size_t)n * 4), *found = take((size_t)n * 4);
    uint8_t *out = take((size_t)room);
    for (int64_t i = 0; i < n; i++)
        values[i] = (int32_t)(uint32_t)draw((uint64_t)1 << bits) * (draw(9) != 0);
    int64_t size = rice_write(values, n, sizes, groups, out, room);
    if (size < 0)
        fail("groups have no room");
    uint8_t *data = take((size_t)size);
    memcpy(data, out, (size_t)size);
    note(data, (size_t)size);
    if (rice_read(data, size, sizes, groups, found, n) != size ||
        memcmp(found, values, (size_t)n * 4) != 0)
        fail("groups did not come back");
    spoil(data, size);
    int64_t read = rice_read(data, size, sizes, groups, found, n);
    if (read > size)
        fail("more of groups was read than there is");
    if (read >= 0)
        note(found, (size_t)n * 4);
    void *all[] = {values, found, out, data};
    for (size_t j = 0; j < sizeof all / sizeof *all; j++)
        free(all[j]);
}

/* Tensors of a block, of which one number may be wrong. */
static void run_block(void)
{
    const int64_t tensors = 1 + (int64_t)draw(4);
    int64_t layout[16], n = 0, scales = 0, channels = 0, signed_channels = 0, active[4];
    uint8_t modes[4];
    for (int64_t t = 0; t < tensors; t++) {
        int64_t *own = layout + 4 * t;
        for (int a = 0; a < 3; a++)
            own[a] = (int64_t)draw(9);
        own[3] = (int64_t)draw(8);
        modes[t] = (uint8_t)draw(3);
        n += own[0] * own[1] * own[2];
        channels += own[0] + own[1];
        signed_channels += modes[t] ? own[modes[t] - 1] : 0;
        scales++;
        for (int a = 0; a < 3; a++)
            scales += own[3] >> a & 1 ? own[a] : 0;
    }
    int32_t *values = take((size_t)n * 4);
    double *sums = take((size_t)scales * 8);
    int64_t *signs = take((size_t)channels * 8);
    uint8_t *negative = take((size_t)signed_channels), *contexts = take((size_t)n);
    int16_t *own = take((size_t)scales * 2);
    for (int64_t i = 0; i < n; i++)
        values[i] = (int32_t)(uint32_t)draw((uint64_t)1 << 32) >> draw(32);
    for (int64_t i = 0; i < signed_channels; i++)
        negative[i] = (uint8_t)draw(2);
    for (int64_t i = 0; i < scales; i++)
        own[i] = (int16_t)((int)draw(500) - 250);
    if (!draw(3))
        layout[draw((uint64_t)tensors * 4)] = (int64_t)(draw(4) << draw(61)) - 2;
    if (sum_block(values, n, layout, tensors, sums, scales, signs, channels, active) == 0) {
        note(sums, (size_t)scales * 8);
        note(signs, (size_t)channels * 8);
        note(active, (size_t)tensors * 8);
    }
    flip_block(values, n, layout, tensors, modes, negative, signed_channels);
    note(values, (size_t)n * 4);
    if (context_block(own, scales, layout, tensors, (int)draw(8), 3, (uint8_t)(3 + draw(90)),
                      contexts, n) == 0)
        note(contexts, (size_t)n);
    void *all[] = {values, sums, signs, negative, contexts, own};
    for (size_t j = 0; j < sizeof all / sizeof *all; j++)
        free(all[j]);
}

static int run_trial(void)
{
    if (!draw(4))
        run_floats();
    if (!draw(4))
        run_groups();
    if (!draw(4))
        run_block();
    Stream s = make_stream();
    int mutated = mutate(&s), outcome;
    uint16_t *found = take((size_t)s.n * 2);
    uint16_t *again = take((size_t)s.n * 2);
    uint32_t *states = take((size_t)s.lanes * 4);
    memcpy(states, s.states, (size_t)s.lanes * 4);
    int64_t read = rans_pull(s.states, s.lanes, s.words, s.num_words, found, s.at, s.n,
                             s.frequencies, s.contexts, s.alphabet, 1);
    int64_t one = rans_pull(states, s.lanes, s.words, s.num_words, again, s.at, s.n,
                            s.frequencies, s.contexts, s.alphabet, 0);
    if (read != one || (read >= 0 && (memcmp(found, again, (size_t)s.n * 2) != 0 ||
                                      memcmp(states, s.states, (size_t)s.lanes * 4))))
        fail("lanes in groups are read otherwise than one by one");
    free(again);
    free(states);
    note(s.states, (size_t)s.lanes * 4);
    note(&read, sizeof read);
    if (read >= 0)
        note(found, (size_t)s.n * 2);
    int same = read >= 0 && memcmp(found, s.symbols, (size_t)s.n * 2) == 0;
    if (!mutated && (!same || read != s.num_words))
        fail("a good stream did not come back");
    if (read > s.num_words)
        fail("more was read than there is");
    outcome = read == TRUNCATED ? 1 : read < 0 ? 2 : same ? 0 : 3;
    if (read >= 0 && check_integers(found, s.n) != 0)
        outcome = 4;
    free(found);
    free_stream(&s);
    return outcome;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const long trials = atol(argv[1]);
    state = strtoull(argv[2], NULL, 10) * 2 + 1;
    long counts[OUTCOMES] = {0};
    for (long i = 0; i < trials; i++)
        counts[run_trial()]++;
    for (int i = 0; i < OUTCOMES; i++)
        printf("%s\t%ld\n", NAMES[i], counts[i]);
    fprintf(stderr, "digest %016llx\n", (unsigned long long)digest);
    return 0;
}
