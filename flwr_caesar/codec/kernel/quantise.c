/* The quantiser with a dead zone and its way back, as quantisers/quantise.py has them. */
#include "loops.h"
#include "pairwise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_INDEX 1073741824.0f

PAIRWISE(sum_squares, float, SQUARE)
PAIRWISE(sum_wide_squares, double, SQUARE)

double sum_of_squares(const void *x, int wide, int64_t n)
{
    return wide ? sum_wide_squares(x, n) : sum_squares(x, n);
}

/* The index of an element; of what has none, 0. */
static inline int32_t index_of(float x, float step, float up, uint32_t *bad)
{
    float scaled = fabsf(x) / step;
    scaled += up;
    uint32_t fits = scaled < MAX_INDEX && scaled > -MAX_INDEX; /* and a number */
    *bad |= !fits;
    int32_t index = (int32_t)(fits ? scaled : 0.0f);
    return x < 0 ? -index : index;
}

int64_t dead_zone(const float *x, int64_t n, float step, float up, int32_t *indices)
{
    uint32_t bad = 0;
    for (int64_t i = 0; i < n; i++)
        indices[i] = index_of(x[i], step, up, &bad);
    return bad ? OUT_OF_RANGE : 0;
}

/* sum_wide_squares of what the quantiser loses, which is nowhere as a whole. */
static double sum_lost(const float *x, int64_t n, float step, float up, uint32_t *bad)
{
    double errors[PAIRWISE_LEAF];
    if (n > PAIRWISE_LEAF) {
        const int64_t half = pairwise_half(n);
        const double left = sum_lost(x, half, step, up, bad);
        return left + sum_lost(x + half, n - half, step, up, bad);
    }
    for (int64_t i = 0; i < n; i++)
        errors[i] = (double)x[i] - (double)index_of(x[i], step, up, bad) * (double)step;
    return sum_wide_squares(errors, n);
}

int64_t dead_zone_loss(const float *x, int64_t n, float step, float up, double *sum)
{
    uint32_t bad = 0;
    const double found = sum_lost(x, n, step, up, &bad);
    if (!bad)
        *sum = found;
    return bad ? OUT_OF_RANGE : 0;
}

void lattice_values(void *cells, int64_t n, float unit, float multiple)
{
    char *cell = cells; /* of either kind, so that no pointer says which */
    for (int64_t i = 0; i < n; i++) {
        int32_t index;
        memcpy(&index, cell + 4 * i, sizeof index);
        float value = (float)index * unit;
        value *= multiple;
        memcpy(cell + 4 * i, &value, sizeof value);
    }
}

int64_t measure(const float *x, const int16_t *classes, int64_t n, int64_t shift,
                float step, float up, uint16_t *symbols, uint8_t *contexts, double *lost)
{
    double *errors = malloc((size_t)(n + 1) * sizeof(double));
    int32_t *indices = calloc((size_t)(n + 1), sizeof(int32_t));
    int64_t found = errors == NULL || indices == NULL ? NO_MEMORY : 0;
    if (found == 0)
        found = dead_zone(x, n, step, up, indices);
    if (found == 0) {
        to_symbols(indices, 1, n, 4, symbols);
        for (int64_t i = 0; i < n; i++) {
            int32_t class = classes[i] - (int32_t)shift;
            class = class < 0 ? 0 : class;
            contexts[i] = (uint8_t)((class > TOP_CLASS ? TOP_CLASS : class) >> 1);
        }
        for (int64_t i = 0; i < n; i++)
            errors[i] = (double)x[i] - (double)indices[i] * (double)step;
        *lost = sum_wide_squares(errors, n);
    }
    free(errors);
    free(indices);
    return found;
}
