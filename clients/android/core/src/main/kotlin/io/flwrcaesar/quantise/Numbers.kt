package io.flwrcaesar.quantise

private val LN2 = Math.log(2.0)

/** Returns the logarithm to base 2 of a positive number, exact for powers of two. */
internal fun log2(value: Double): Double {
    val exponent = Math.getExponent(value)
    if (exponent < java.lang.Double.MIN_EXPONENT) return log2(Math.scalb(value, 64)) - 64 // subnormal
    return exponent + Math.log(Math.scalb(value, -exponent)) / LN2
}

/** Returns the least `e` for which the magnitude of a number is below `2^e`; 0 for 0. */
internal fun frexp(value: Double): Int =
    if (value == 0.0) 0 else if (Math.getExponent(value) < java.lang.Double.MIN_EXPONENT) {
        frexp(Math.scalb(value, 64)) - 64
    } else {
        Math.getExponent(value) + 1
    }
