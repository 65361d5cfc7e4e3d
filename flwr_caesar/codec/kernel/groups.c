/* Groups of integers in Golomb-Rice codes, as coding/small_block.py describes them. */
#include "loops.h"

#include <string.h>

enum { ABSENT = 0xFF, MOST_WIDTH = 31 };

static inline uint32_t zigzag(int32_t v)
{
    return (uint32_t)v << 1 ^ (v < 0 ? UINT32_MAX : 0);
}

/* Bits of a group with `b` low bits. */
static int64_t cost(const int32_t *values, int64_t n, int b)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (int64_t)((uint64_t)zigzag(values[i]) >> b);
    return sum + n * (b + 1);
}

/* positions.best_rice: walks downhill from the width of the mean. */
static int best_width(const int32_t *values, int64_t n)
{
    const int64_t mean = (cost(values, n, 0) - n) / n;
    int b = 0;
    while (mean >> (b + 1))
        b++;
    int64_t bits = cost(values, n, b), next;
    while (b > 0 && (next = cost(values, n, b - 1)) <= bits)
        b--, bits = next;
    while (b < MOST_WIDTH && (next = cost(values, n, b + 1)) < bits)
        b++, bits = next;
    return b < MOST_WIDTH ? b : MOST_WIDTH;
}

/* Bits that come one after another, the most significant of a byte first. */
static inline void set_bit(uint8_t *bits, int64_t at)
{
    bits[at >> 3] |= (uint8_t)(0x80 >> (at & 7));
}

static inline int get_bit(const uint8_t *bits, int64_t at)
{
    return bits[at >> 3] >> (7 - (at & 7)) & 1;
}

int64_t rice_write(const int32_t *values, int64_t n, const int64_t *sizes, int64_t groups,
                   uint8_t *out, int64_t room)
{
    if (room < groups)
        return OUT_OF_RANGE;
    int64_t start = 0, unary = 0, low = 0;
    for (int64_t g = 0; g < groups; g++) {
        if (sizes[g] < 0 || sizes[g] > n - start)
            return OUT_OF_RANGE;
        uint32_t any = 0;
        for (int64_t i = start; i < start + sizes[g]; i++)
            any |= (uint32_t)values[i];
        out[g] = ABSENT;
        if (any) {
            const int b = best_width(values + start, sizes[g]);
            out[g] = (uint8_t)b;
            low += b * sizes[g];
            unary += cost(values + start, sizes[g], b) - b * sizes[g];
        }
        start += sizes[g];
    }
    const int64_t middle = groups + (unary + 7) / 8, end = middle + (low + 7) / 8;
    if (start != n || end > room)
        return OUT_OF_RANGE;
    memset(out + groups, 0, (size_t)(end - groups));
    int64_t one = 8 * groups - 1, bit = 8 * middle;
    for (int64_t g = 0; g < groups; values += sizes[g++]) {
        const int b = out[g];
        for (int64_t i = 0; b != ABSENT && i < sizes[g]; i++) {
            const uint32_t u = zigzag(values[i]);
            one += (int64_t)(u >> b) + 1;
            set_bit(out, one);
            for (int j = b - 1; j >= 0; j--, bit++)
                if (u >> j & 1)
                    set_bit(out, bit);
        }
    }
    return end;
}

/* The next one of a unary code at or after a bit, or `stop`. */
static int64_t next_one(const uint8_t *bits, int64_t at, int64_t stop)
{
    while (at < stop && !get_bit(bits, at))
        at += (at & 7) || bits[at >> 3] ? 1 : 8;
    return at < stop ? at : stop;
}

int64_t rice_read(const uint8_t *data, int64_t size, const int64_t *sizes, int64_t groups,
                  int32_t *values, int64_t n)
{
    if (groups > size)
        return TRUNCATED;
    int64_t total = 0, count = 0, low = 0;
    for (int64_t g = 0; g < groups; g++) {
        if (sizes[g] < 0 || sizes[g] > n - total)
            return OUT_OF_RANGE;
        total += sizes[g];
        if (data[g] == ABSENT || sizes[g] == 0)
            continue;
        if (data[g] > MOST_WIDTH)
            return TRUNCATED;
        count += sizes[g];
        low += data[g] * sizes[g];
    }
    if (total != n)
        return OUT_OF_RANGE;
    const int64_t most = (size - groups) / 8 < count ? size - groups : 8 * count;
    const int64_t stop = 8 * (groups + most);
    int64_t one = 8 * groups - 1;
    for (int64_t g = 0, at = 0; g < groups; at += sizes[g++]) {
        const int b = data[g];
        for (int64_t i = at; i < at + sizes[g]; i++) {
            values[i] = 0;
            if (b == ABSENT)
                continue;
            const int64_t next = next_one(data, one + 1, stop);
            if (next == stop || (next - one - 1) >> (32 - b))
                return TRUNCATED;
            values[i] = (int32_t)(uint32_t)((next - one - 1) << b);
            one = next;
        }
    }
    const int64_t middle = (one + 8) / 8;
    if (next_one(data, one + 1, 8 * middle) < 8 * middle || (low + 7) / 8 > size - middle)
        return TRUNCATED;
    int64_t bit = 8 * middle;
    for (int64_t g = 0; g < groups; values += sizes[g++]) {
        const int b = data[g];
        for (int64_t i = 0; b != ABSENT && i < sizes[g]; i++) {
            uint32_t u = 0;
            for (int j = 0; j < b; j++, bit++)
                u = u << 1 | (uint32_t)get_bit(data, bit);
            u |= (uint32_t)values[i];
            values[i] = (int32_t)(u >> 1 ^ (0 - (u & 1)));
        }
    }
    return middle + (low + 7) / 8;
}
