package io.flwrcaesar.coding

/** Floating-point numbers of 16 bits, as their bit patterns. */
internal object HalfFloats {
    /** The largest `float16`. */
    const val LARGEST_FLOAT16 = 65504f

    /** The largest `bfloat16`. */
    val LARGEST_BFLOAT16 = Float.fromBits(0x7F7F0000)

    /** Returns the value of a `float16`. */
    fun fromFloat16(pattern: Int): Float {
        val sign = (pattern and 0x8000) shl 16
        val exponent = pattern ushr 10 and 0x1F
        val mantissa = pattern and 0x3FF
        return when (exponent) {
            0 -> {
                val magnitude = mantissa * SMALLEST_FLOAT16
                if (sign == 0) magnitude else -magnitude
            }
            0x1F -> Float.fromBits(sign or 0x7F800000 or (mantissa shl 13))
            else -> Float.fromBits(sign or ((exponent + 112) shl 23) or (mantissa shl 13))
        }
    }

    /** Rounds to the nearest `float16`, ties to even; what is too large becomes infinite. */
    fun toFloat16(value: Float): Int {
        val bits = value.toRawBits()
        val sign = bits ushr 16 and 0x8000
        val magnitude = bits and 0x7FFFFFFF
        if (magnitude > 0x7F800000) return sign or 0x7E00 // NaN
        if (magnitude >= 0x477FF000) return sign or 0x7C00 // 65,520 and more
        if (magnitude < 0x38800000) {
            // Below 2^-14 the unit is fixed: this sum rounds to multiples of it.
            val sum = Float.fromBits(magnitude) + SUBNORMAL_ROUNDING
            return sign or (sum.toRawBits() - SUBNORMAL_ROUNDING.toRawBits())
        }
        val odd = magnitude ushr 13 and 1
        return sign or ((magnitude - (112 shl 23) + 0xFFF + odd) ushr 13)
    }

    /** Returns the value of a `bfloat16`. */
    fun fromBFloat16(pattern: Int): Float = Float.fromBits(pattern shl 16)

    /** Rounds to the nearest `bfloat16`, ties to even. */
    fun toBFloat16(value: Float): Int {
        val bits = value.toRawBits()
        if (value.isNaN()) return (bits ushr 16) or 0x40
        return (bits + 0x7FFF + (bits ushr 16 and 1)) ushr 16
    }

    private const val SMALLEST_FLOAT16 = 1f / (1 shl 24)
    private const val SUBNORMAL_ROUNDING = 0.5f // its unit in the last place is 2^-24
}
