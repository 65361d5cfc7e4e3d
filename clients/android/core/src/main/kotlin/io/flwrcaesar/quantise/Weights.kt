package io.flwrcaesar.quantise

/**
 * Weights at 1 to 8 bits: levels that survive being quantised again, to the bit.
 *
 * @param bits from 1 to 8.
 * @param isPowerOfTwo whether the levels from 2 bits on are powers of two, else they are even.
 */
internal class Weights(private val bits: Int, private val isPowerOfTwo: Boolean) {
    private val top = (1 shl (bits - 1)) - 1

    /** The largest magnitude of a level. */
    val largest: Int = maxOf(top, 1)

    /** Returns the scale of a tensor's surviving weights, finite values. */
    fun scale(x: FloatArray): Float {
        if (bits == 1) return meanMagnitude(x)
        val peak = x.maxOfOrNull { Math.abs(it) } ?: 0f
        if (!isPowerOfTwo || peak == 0f) return peak
        return Math.scalb(1f, minOf(nearestExponent(peak), 127))
    }

    /** Returns the level of a weight. */
    fun level(x: Float, scale: Float): Int {
        if (x == 0f || scale == 0f) return 0
        val level =
            when {
                bits == 1 -> 1
                isPowerOfTwo -> powerLevel(Math.abs(x), scale)
                else -> Math.rint((Math.abs(x) / scale * top).toDouble()).toInt()
            }
        return if (x < 0) -level else level
    }

    /** Returns the weight of a level. */
    fun weight(level: Int, scale: Float): Float {
        if (bits == 1 || !isPowerOfTwo) return level.toFloat() / largest * scale
        if (level == 0) return 0f
        val weight = Math.scalb(scale, Math.abs(level) - top)
        return if (level < 0) -weight else weight
    }

    private fun powerLevel(magnitude: Float, scale: Float): Int {
        val peak = Math.getExponent(scale)
        val level = (nearestExponent(magnitude) - peak + top).coerceIn(0, top)
        return if (level == 0 && magnitude >= Math.scalb(1f, peak - top)) 1 else level
    }

    // The exponent of the power of two that is nearest.
    private fun nearestExponent(magnitude: Float): Int {
        val exponent = frexp(magnitude.toDouble())
        val mantissa = Math.scalb(magnitude.toDouble(), -exponent)
        return if (mantissa < 0.75) exponent - 1 else exponent
    }

    private fun meanMagnitude(x: FloatArray): Float {
        val others = x.filter { it != 0f }
        return if (others.isEmpty()) 0f else (others.sumOf { Math.abs(it).toDouble() } / others.size).toFloat()
    }
}
