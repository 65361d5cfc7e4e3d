/* What a compact block does with each of its tensors, for all of them in one call. */
#include "loops.h"
#include "pairwise.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 16, OUTPUTS = 1, INPUTS = 2 };

PAIRWISE(sum_doubles, double, PLAIN)

typedef struct {
    int64_t n, sizes[3], axes;
} Tensor;

/* Returns the scales of a tensor, or OUT_OF_RANGE if it is none or has more than `left`
   elements. */
static int64_t read_tensor(const int64_t *row, int64_t left, Tensor *out)
{
    int64_t scales = 1;
    *out = (Tensor){1, {row[0], row[1], row[2]}, row[3]};
    for (int a = 0; a < 3; a++) {
        if (row[a] < 0 || row[a] > INT32_MAX)
            return OUT_OF_RANGE;
        if (row[a] && out->n > INT32_MAX / row[a])
            return OUT_OF_RANGE;
        out->n *= row[a];
        scales += row[3] >> a & 1 ? row[a] : 0;
    }
    return row[3] < 0 || row[3] > 7 || out->n > left ? OUT_OF_RANGE : scales;
}

static int64_t pieces_of(const Tensor *tensor, const int32_t *x, double *sums,
                         double *room)
{
    const int64_t *sizes = tensor->sizes;
    int axis = 0;
    while (axis < 2 && sizes[axis] <= 1)
        axis++;
    if (sizes[axis] <= 1)
        axis = 0;
    const int64_t inner = tensor->n / sizes[axis];
    const int64_t most = PIECE / inner > 1 ? PIECE / inner : 1;
    for (int64_t start = 0; start < sizes[axis]; start += most) {
        int64_t part[3] = {sizes[0], sizes[1], sizes[2]};
        part[axis] = sizes[axis] - start < most ? sizes[axis] - start : most;
        double *found[3] = {room, room + part[0], room + part[0] + part[1]};
        int64_t bad = slice_sums(x + start * inner, 1, part[0], part[1], part[2],
                                 found[0], found[1], found[2]);
        if (bad < 0)
            return bad;
        sums[0] += sum_doubles(found[0], part[0]);
        double *own = sums + 1;
        for (int a = 0; a < 3; a++) {
            if (!(tensor->axes >> a & 1))
                continue;
            for (int64_t j = 0; j < part[a]; j++)
                own[(a == axis ? start : 0) + j] += found[a][j];
            own += sizes[a];
        }
    }
    return 0;
}

int64_t sum_block(const int32_t *values, int64_t n, const int64_t *layout,
                  int64_t tensors, double *sums, int64_t num_sums, int64_t *signs,
                  int64_t num_signs, int64_t *active)
{
    int64_t widest = 0;
    int64_t left = n, sums_left = num_sums, signs_left = num_signs;
    for (int64_t t = 0; t < tensors; t++) {
        Tensor tensor;
        const int64_t scales = read_tensor(layout + 4 * t, left, &tensor);
        const int64_t channels = tensor.sizes[0] + tensor.sizes[1];
        if (scales < 0 || scales > sums_left || channels > signs_left)
            return OUT_OF_RANGE;
        left -= tensor.n;
        sums_left -= scales;
        signs_left -= channels;
        if (tensor.n && channels + tensor.sizes[2] > widest)
            widest = channels + tensor.sizes[2];
    }
    if (left || sums_left || signs_left)
        return OUT_OF_RANGE;
    double *room = malloc((size_t)(widest + 1) * sizeof(double));
    if (room == NULL)
        return NO_MEMORY;
    memset(sums, 0, (size_t)num_sums * sizeof(double));
    memset(signs, 0, (size_t)num_signs * sizeof(int64_t));
    int64_t bad = 0;
    for (int64_t t = 0; t < tensors && bad >= 0; t++) {
        Tensor tensor;
        const int64_t scales = read_tensor(layout + 4 * t, n, &tensor);
        if (scales < 0)
            break;
        const int64_t *sizes = tensor.sizes;
        active[t] = 0;
        if (tensor.n) {
            bad = pieces_of(&tensor, values, sums, room);
            active[t] = sign_sums(values, sizes[0], sizes[1], sizes[2], signs,
                                  signs + sizes[0]);
            if (active[t] < 0)
                bad = active[t];
        }
        values += tensor.n;
        sums += scales;
        signs += sizes[0] + sizes[1];
    }
    free(room);
    return bad;
}

int64_t flip_block(int32_t *values, int64_t n, const int64_t *layout, int64_t tensors,
                   const uint8_t *modes, const uint8_t *negative, int64_t channels)
{
    for (int64_t t = 0; t < tensors; t++) {
        Tensor tensor;
        if (read_tensor(layout + 4 * t, n, &tensor) < 0)
            return OUT_OF_RANGE;
        const int64_t *sizes = tensor.sizes;
        const int64_t own = modes[t] == OUTPUTS ? sizes[0]
                            : modes[t] == INPUTS ? sizes[1] : 0;
        if (modes[t] > INPUTS || own > channels)
            return OUT_OF_RANGE;
        if (own && tensor.n) {
            const int64_t run = modes[t] == OUTPUTS ? tensor.n / own : sizes[2];
            for (int64_t at = 0, c = 0; at < tensor.n; at += run) {
                if (negative[c])
                    for (int64_t j = at; j < at + run; j++)
                        values[j] = (int32_t)(0 - (uint32_t)values[j]);
                c = c + 1 < own ? c + 1 : 0;
            }
        }
        values += tensor.n;
        n -= tensor.n;
        negative += own;
        channels -= own;
    }
    return n || channels ? OUT_OF_RANGE : 0;
}

static void merge(uint8_t *classes, int64_t n, int shift, uint8_t first, uint8_t last)
{
    for (int64_t i = 0; i < n; i++) {
        uint8_t own = (uint8_t)(classes[i] >> shift);
        own = own < first ? first : own;
        own = own > last ? last : own;
        classes[i] = (uint8_t)(own - first);
    }
}

int64_t context_block(const int16_t *scales, int64_t num_scales, const int64_t *layout,
                      int64_t tensors, int shift, uint8_t first, uint8_t last,
                      uint8_t *contexts, int64_t n)
{
    for (int64_t t = 0; t < tensors; t++) {
        Tensor tensor;
        const int64_t own = read_tensor(layout + 4 * t, n, &tensor);
        if (own < 0 || own > num_scales)
            return OUT_OF_RANGE;
        const int64_t *sizes = tensor.sizes;
        const int16_t *each[3] = {NULL, NULL, NULL}, *at = scales + 1;
        for (int a = 0; a < 3; a++)
            if (tensor.axes >> a & 1) {
                each[a] = at;
                at += sizes[a];
            }
        if (tensor.n && scale_classes((int64_t)scales[0] + CLASS_OF_ZERO, each[0],
                                      each[1], each[2], sizes[0], sizes[1], sizes[2],
                                      contexts) < 0)
            return NO_MEMORY;
        merge(contexts, tensor.n, shift, first, last);
        contexts += tensor.n;
        n -= tensor.n;
        scales += own;
        num_scales -= own;
    }
    return n || num_scales ? OUT_OF_RANGE : 0;
}
