/* Scales of slices and the classes that they give, as coding/contexts.py has them. */
#include "loops.h"
#include "pairwise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAGNITUDE(i) (double)fabsf((float)x[i])

PAIRWISE(sum_doubles, double, PLAIN)

/* Of floats or integers, which are floats of 32 bits first. Defines `name`, a sum of
   magnitudes, and `name_each`, which also adds each to a sum of its own. */
#define MAGNITUDES(name, type)                                                           \
    PAIRWISE(name, type, MAGNITUDE)                                                      \
    static double name##_each(const type *restrict x, int64_t n, double *restrict each)  \
    {                                                                                    \
        double sum = 0;                                                                  \
        int64_t i = 0;                                                                   \
        if (n > 128) {                                                                   \
            int64_t half = n / 2;                                                        \
            half -= half % 8;                                                            \
            return name##_each(x, half, each) +                                          \
                   name##_each(x + half, n - half, each + half);                         \
        }                                                                                \
        if (n >= 8) {                                                                    \
            double r[8];                                                                 \
            for (int j = 0; j < 8; j++)                                                  \
                each[j] += r[j] = MAGNITUDE(j);                                          \
            for (i = 8; i < n - n % 8; i += 8)                                           \
                for (int j = 0; j < 8; j++) {                                            \
                    double magnitude = MAGNITUDE(i + j);                                 \
                    r[j] += magnitude;                                                   \
                    each[i + j] += magnitude;                                            \
                }                                                                        \
            sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));     \
        }                                                                                \
        for (; i < n; i++) {                                                             \
            double magnitude = MAGNITUDE(i);                                             \
            sum += magnitude;                                                            \
            each[i] += magnitude;                                                        \
        }                                                                                \
        return sum;                                                                      \
    }

MAGNITUDES(sum_floats, float)
MAGNITUDES(sum_integers, int32_t)
/* Sums over the first axis of a (rows, columns) array: row by row, as numpy does where
   there are several columns, and else as of a contiguous array. */
static void sum_rows(const double *x, int64_t rows, int64_t columns, double *sums)
{
    if (columns == 1) {
        sums[0] = sum_doubles(x, rows);
        return;
    }
    memcpy(sums, x, (size_t)columns * sizeof(double));
    for (int64_t r = 1; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            sums[c] += x[r * columns + c];
}

int64_t slice_sums(const void *x, int whole, int64_t o, int64_t i, int64_t k,
                   double *outputs, double *inputs, double *positions)
{
    const int64_t columns = i * k;
    double *inner = calloc((size_t)columns, sizeof(double));
    if (inner == NULL)
        return NO_MEMORY;
    for (int64_t row = 0, at = 0; row < o; row++, at += columns)
        outputs[row] = whole ? sum_integers_each((const int32_t *)x + at, columns, inner)
                             : sum_floats_each((const float *)x + at, columns, inner);
    if (columns == 1)
        inner[0] = whole ? sum_integers(x, o) : sum_floats(x, o);
    for (int64_t j = 0; j < i; j++)
        inputs[j] = sum_doubles(inner + j * k, k);
    sum_rows(inner, i, k, positions);
    free(inner);
    return 0;
}

int64_t sign_sums(const int32_t *x, int64_t o, int64_t i, int64_t k, int64_t *outputs,
                  int64_t *inputs)
{
    const int64_t columns = i * k;
    int32_t *inner = calloc((size_t)columns, sizeof(int32_t));
    if (inner == NULL)
        return NO_MEMORY;
    int64_t active = 0;
    memset(inputs, 0, (size_t)i * sizeof(int64_t));
    for (int64_t row = 0; row < o; row++) {
        const int32_t *own = x + row * columns;
        int32_t sum = 0, count = 0;
        for (int64_t j = 0; j < columns; j++) {
            int32_t sign = (own[j] > 0) - (own[j] < 0);
            inner[j] += sign;
            sum += sign;
            count += own[j] != 0;
        }
        outputs[row] = sum;
        active += count;
    }
    for (int64_t j = 0; j < columns; j++)
        inputs[j / k] += inner[j];
    free(inner);
    return active;
}

int64_t scale_classes(int64_t base, const int16_t *outputs, const int16_t *inputs,
                      const int16_t *positions, int64_t o, int64_t i, int64_t k,
                      uint8_t *classes)
{
    const int64_t columns = i * k;
    int16_t *inner = malloc((size_t)columns * sizeof(int16_t));
    if (inner == NULL)
        return NO_MEMORY;
    for (int64_t a = 0; a < i; a++)
        for (int64_t b = 0; b < k; b++) {
            int sum = (inputs ? inputs[a] : 0) + (positions ? positions[b] : 0);
            inner[a * k + b] = (int16_t)sum;
        }
    for (int64_t row = 0; row < o; row++) {
        const int16_t own = (int16_t)(base + (outputs ? outputs[row] : 0));
        uint8_t *found = classes + row * columns;
        for (int64_t j = 0; j < columns; j++) {
            int16_t sum = (int16_t)(own + inner[j]);
            sum = sum < 0 ? 0 : sum;
            found[j] = (uint8_t)(sum > TOP_CLASS ? TOP_CLASS : sum);
        }
    }
    free(inner);
    return 0;
}

void merge_classes(const uint8_t *restrict classes, int64_t n, int shift, uint8_t first,
                   uint8_t last, uint8_t *restrict merged)
{
    for (int64_t i = 0; i < n; i++) {
        uint8_t own = (uint8_t)(classes[i] >> shift);
        own = own < first ? first : own;
        own = own > last ? last : own;
        merged[i] = (uint8_t)(own - first);
    }
}
