/* The quantiser with a dead zone and its way back, as quantisers/quantise.py has them. */
#include "loops.h"

#include <math.h>

#define MAX_INDEX 1073741824.0f

int64_t dead_zone(const float *x, int64_t n, float step, float up, int32_t *indices)
{
    uint32_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        float scaled = fabsf(x[i]) / step;
        scaled += up;
        uint32_t fits = scaled < MAX_INDEX && scaled > -MAX_INDEX; /* and a number */
        bad |= !fits;
        int32_t index = (int32_t)(fits ? scaled : 0.0f);
        indices[i] = x[i] < 0 ? -index : index;
    }
    return bad ? OUT_OF_RANGE : 0;
}

void lattice_values(const int32_t *indices, int64_t n, float unit, float *values)
{
    for (int64_t i = 0; i < n; i++)
        values[i] = (float)indices[i] * unit;
}
