/* Eight lanes of rANS at a time, where the processor has AVX2: what push_rows does, and
   pull_rows with symbols that fit into a byte, to the bit. Compiled for every x86-64, and
   asked for at run time. */
#ifndef FLWR_CAESAR_RANS_AVX2_H
#define FLWR_CAESAR_RANS_AVX2_H

/* Lanes at a time; as many slots more are there to be read. */
enum { GROUP = 8 };

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#include <string.h>

#define AVX2 __attribute__((target("avx2,popcnt")))

static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
}

/* For each set of lanes that take words, which word each of them takes. */
static void make_orders(uint8_t orders[256][GROUP])
{
    for (int set = 0; set < 256; set++)
        for (int lane = 0, next = 0; lane < GROUP; lane++) {
            orders[set][lane] = (uint8_t)next;
            next += set >> lane & 1;
        }
}

/* For each set of lanes that give words, which lane each of the last words is of. */
static void make_givers(uint8_t givers[256][GROUP])
{
    for (int set = 0; set < 256; set++) {
        int next = GROUP;
        memset(givers[set], 0, GROUP);
        for (int lane = GROUP - 1; lane >= 0; lane--)
            if (set >> lane & 1)
                givers[set][--next] = (uint8_t)lane;
    }
}

/* One symbol of each of eight lanes, the last lane's word next to `w`; what is before
   the words is overwritten, up to GROUP of them. Returns the first word given, and sets
   lanes of `bad` whose symbol has no frequency.

   The quotient of state and frequency is below 2^18: that of floats, of half the state
   since they are signed, is at most one too large or too small. */
AVX2 static inline uint16_t *push_group(uint32_t *states, const uint16_t *symbols,
                                        const uint8_t *contexts, const uint32_t *table,
                                        uint16_t *w, uint8_t givers[256][GROUP],
                                        __m256i *bad)
{
    const __m256i zero = _mm256_setzero_si256(), half = _mm256_set1_epi32(0xFFFF);
    const __m256i one = _mm256_set1_epi32(1), scale = _mm256_set1_epi32(SCALE);
    __m256i x = _mm256_loadu_si256((const __m256i *)states);
    __m256i row = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)contexts));
    __m256i at = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)symbols));
    at = _mm256_add_epi32(_mm256_slli_epi32(row, 9), at);
    const __m256i code = _mm256_i32gather_epi32((const int *)table, at, 4);
    const __m256i f = _mm256_srli_epi32(code, 16);
    *bad = _mm256_or_si256(*bad, _mm256_cmpeq_epi32(f, zero));
    *bad = _mm256_or_si256(*bad, _mm256_cmpgt_epi32(f, scale));

    __m256i most = _mm256_sub_epi32(_mm256_slli_epi32(f, 32 - SCALE_BITS), one);
    __m256i keeps = _mm256_cmpeq_epi32(_mm256_max_epu32(x, most), most);
    const int set = ~_mm256_movemask_ps(_mm256_castsi256_ps(keeps)) & 0xFF;
    __m128i order = _mm_loadl_epi64((const __m128i *)givers[set]);
    __m256i given = _mm256_permutevar8x32_epi32(_mm256_and_si256(x, half),
                                                _mm256_cvtepu8_epi32(order));
    given = _mm256_permute4x64_epi64(_mm256_packus_epi32(given, given), 0x08);
    _mm_storeu_si128((__m128i *)(w - GROUP), _mm256_castsi256_si128(given));
    x = _mm256_blendv_epi8(_mm256_srli_epi32(x, 16), x, keeps);

    __m256 halved = _mm256_cvtepi32_ps(_mm256_srli_epi32(x, 1));
    __m256 inverse = _mm256_div_ps(_mm256_set1_ps(2.0f), _mm256_cvtepi32_ps(f));
    __m256i quotient = _mm256_cvttps_epi32(_mm256_mul_ps(halved, inverse));
    __m256i rest = _mm256_sub_epi32(x, _mm256_mullo_epi32(quotient, f));
    const __m256i above = _mm256_cmpgt_epi32(rest, _mm256_sub_epi32(f, one));
    const __m256i below = _mm256_cmpgt_epi32(zero, rest);
    quotient = _mm256_add_epi32(_mm256_sub_epi32(quotient, above), below);
    rest = _mm256_sub_epi32(rest, _mm256_and_si256(above, f));
    rest = _mm256_add_epi32(rest, _mm256_and_si256(below, f));
    x = _mm256_add_epi32(_mm256_slli_epi32(quotient, SCALE_BITS), rest);
    x = _mm256_add_epi32(x, _mm256_and_si256(code, half));
    _mm256_storeu_si256((__m256i *)states, x);
    return w - __builtin_popcount((unsigned)set);
}

/* One symbol of each of eight lanes. Returns the words after those that were read. */
AVX2 static inline const uint16_t *pull_group(uint32_t *states, const uint16_t *words,
                                              uint16_t *symbols, const uint8_t *contexts,
                                              const uint8_t *slots,
                                              const uint32_t *steps,
                                              uint8_t orders[256][GROUP])
{
    const __m256i low = _mm256_set1_epi32(SCALE - 1), half = _mm256_set1_epi32(0xFFFF);
    __m256i x = _mm256_loadu_si256((const __m256i *)states);
    __m256i row = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)contexts));
    __m256i slot = _mm256_and_si256(x, low);
    __m256i at = _mm256_or_si256(_mm256_slli_epi32(row, SCALE_BITS), slot);
    __m256i symbol = _mm256_i32gather_epi32((const int *)slots, at, 1);
    symbol = _mm256_and_si256(symbol, _mm256_set1_epi32(0xFF));
    at = _mm256_add_epi32(_mm256_slli_epi32(row, 9), symbol);
    __m256i step = _mm256_i32gather_epi32((const int *)steps, at, 4);
    __m256i product = _mm256_mullo_epi32(_mm256_srli_epi32(step, 16),
                                         _mm256_srli_epi32(x, SCALE_BITS));
    __m256i offset = _mm256_sub_epi32(slot, _mm256_and_si256(step, half));
    x = _mm256_add_epi32(product, offset);
    __m256i under = _mm256_cmpeq_epi32(_mm256_srli_epi32(x, 16), _mm256_setzero_si256());
    const int set = _mm256_movemask_ps(_mm256_castsi256_ps(under));
    __m256i next = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)words));
    __m128i order = _mm_loadl_epi64((const __m128i *)orders[set]);
    next = _mm256_permutevar8x32_epi32(next, _mm256_cvtepu8_epi32(order));
    next = _mm256_or_si256(_mm256_slli_epi32(x, 16), next);
    x = _mm256_blendv_epi8(x, next, under);
    _mm256_storeu_si256((__m256i *)states, x);
    symbol = _mm256_permute4x64_epi64(_mm256_packus_epi32(symbol, symbol), 0x08);
    _mm_storeu_si128((__m128i *)symbols, _mm256_castsi256_si128(symbol));
    return words + __builtin_popcount((unsigned)set);
}

#endif
#endif
