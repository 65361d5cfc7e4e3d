package io.flwrcaesar.quantise

import java.util.BitSet

/** Which elements of a vector are kept. */
internal object Select {
    private const val LOW_BITS = 15

    /** Returns how many of [n] elements a density in (0, 1] keeps. */
    fun countKept(n: Int, density: Double): Int = minOf(n.toDouble(), Math.ceil(density * n)).toInt()

    /** Returns how many of [n] elements a prune rate in [0, 1] drops. */
    fun countPruned(n: Int, pruneRate: Double): Int = minOf(n.toDouble(), Math.floor(pruneRate * n)).toInt()

    /**
     * Marks in [kept] the [k] largest magnitudes of `x[from:to]`; of equal ones the first.
     *
     * Zeros are not marked.
     */
    fun largest(x: FloatArray, from: Int, to: Int, k: Int, kept: BitSet) {
        if (k <= 0) return
        val (threshold, above) = if (k >= to - from) 0 to 0 else threshold(x, from, to, k)
        var equal = k - above
        for (i in from until to) {
            val key = magnitude(x[i])
            if (key == 0 || key < threshold) continue
            if (key > threshold) {
                kept.set(i)
            } else if (equal-- > 0) {
                kept.set(i)
            }
        }
    }

    // Magnitudes are ordered as their bit patterns are: count the upper bits, then the lower ones.
    private fun threshold(x: FloatArray, from: Int, to: Int, k: Int): Pair<Int, Int> {
        val upper = IntArray(1 shl (31 - LOW_BITS))
        for (i in from until to) upper[magnitude(x[i]) ushr LOW_BITS]++
        val (bucket, aboveBucket) = reach(upper, k, 0)
        val lower = IntArray(1 shl LOW_BITS)
        for (i in from until to) {
            val key = magnitude(x[i])
            if (key ushr LOW_BITS == bucket) lower[key and ((1 shl LOW_BITS) - 1)]++
        }
        val (low, above) = reach(lower, k, aboveBucket)
        return ((bucket shl LOW_BITS) or low) to above
    }

    /** Returns the bucket in which the [k]-th largest lies, and how many lie above it. */
    private fun reach(counts: IntArray, k: Int, before: Int): Pair<Int, Int> {
        var above = before
        for (bucket in counts.indices.reversed()) {
            if (above + counts[bucket] >= k) return bucket to above
            above += counts[bucket]
        }
        return 0 to above
    }

    private fun magnitude(value: Float): Int = value.toRawBits() and 0x7FFFFFFF
}
