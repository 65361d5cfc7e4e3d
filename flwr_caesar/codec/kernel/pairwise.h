/* Sums in the order in which numpy adds a contiguous array: halves, down to at most 128
   elements, of which every eighth go together. */
#ifndef FLWR_CAESAR_PAIRWISE_H
#define FLWR_CAESAR_PAIRWISE_H

#include <stdint.h>

enum { PAIRWISE_LEAF = 128 };

static inline int64_t pairwise_half(int64_t n)
{
    return n / 2 - n / 2 % 8;
}

/* Defines a function; ELEMENT(i) is the i-th summand of `x`, a double. */
#define PAIRWISE(name, type, ELEMENT)                                                    \
    static double name(const type *x, int64_t n)                                         \
    {                                                                                    \
        double sum = 0;                                                                  \
        int64_t i = 0;                                                                   \
        if (n > PAIRWISE_LEAF) {                                                         \
            int64_t half = pairwise_half(n);                                             \
            return name(x, half) + name(x + half, n - half);                             \
        }                                                                                \
        if (n >= 8) {                                                                    \
            double r[8];                                                                 \
            for (int j = 0; j < 8; j++)                                                  \
                r[j] = ELEMENT(j);                                                       \
            for (i = 8; i < n - n % 8; i += 8)                                           \
                for (int j = 0; j < 8; j++)                                              \
                    r[j] += ELEMENT(i + j);                                              \
            sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));     \
        }                                                                                \
        for (; i < n; i++)                                                               \
            sum += ELEMENT(i);                                                           \
        return sum;                                                                      \
    }

#define PLAIN(i) x[i]
#define SQUARE(i) (double)x[i] * (double)x[i]

#endif
