package io.flwrcaesar.coding

/** Golomb-Rice codes: a quotient in unary, and apart from it the low bits. */
internal object Rice {
    /**
     * Returns the number of low bits with which [count] numbers take the fewest bits; of equals
     * the smallest.
     */
    inline fun bestWidth(count: Int, value: (Int) -> Long): Int {
        var width = 0
        var bits = cost(count, 0, value)
        while (true) {
            val next = cost(count, width + 1, value)
            if (next >= bits) return width // the cost is convex
            bits = next
            width++
        }
    }

    /** Returns the bits that [count] numbers take with [width] low bits. */
    inline fun cost(count: Int, width: Int, value: (Int) -> Long): Long {
        var bits = count * (width + 1L)
        for (i in 0 until count) bits += value(i) ushr width
        return bits
    }
}
