/* Scales of slices and the classes that they give, as coding/contexts.py has them. */
#include "loops.h"
#include "pairwise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAGNITUDE(i) (double)fabsf(x[i])

PAIRWISE(sum_doubles, double, PLAIN)
PAIRWISE(sum_magnitudes, float, MAGNITUDE)

/* sum_magnitudes, which also adds each magnitude to a sum of its own. */
static double add_magnitudes(const float *restrict x, int64_t n, double *restrict each)
{
    double sum = 0;
    int64_t i = 0;
    if (n > 128) {
        int64_t half = n / 2;
        half -= half % 8;
        return add_magnitudes(x, half, each) +
               add_magnitudes(x + half, n - half, each + half);
    }
    if (n >= 8) {
        double r[8];
        for (int j = 0; j < 8; j++)
            each[j] += r[j] = MAGNITUDE(j);
        for (i = 8; i < n - n % 8; i += 8)
            for (int j = 0; j < 8; j++) {
                double magnitude = MAGNITUDE(i + j);
                r[j] += magnitude;
                each[i + j] += magnitude;
            }
        sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
    }
    for (; i < n; i++) {
        double magnitude = MAGNITUDE(i);
        sum += magnitude;
        each[i] += magnitude;
    }
    return sum;
}

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

int64_t slice_sums(const float *x, int64_t o, int64_t i, int64_t k, double *outputs,
                   double *inputs, double *positions)
{
    const int64_t columns = i * k;
    double *inner = calloc((size_t)columns, sizeof(double));
    if (inner == NULL)
        return NO_MEMORY;
    for (int64_t row = 0; row < o; row++)
        outputs[row] = add_magnitudes(x + row * columns, columns, inner);
    if (columns == 1)
        inner[0] = sum_magnitudes(x, o);
    for (int64_t j = 0; j < i; j++)
        inputs[j] = sum_doubles(inner + j * k, k);
    sum_rows(inner, i, k, positions);
    free(inner);
    return 0;
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
