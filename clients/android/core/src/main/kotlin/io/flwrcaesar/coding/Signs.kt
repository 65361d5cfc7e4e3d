package io.flwrcaesar.coding

import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.quantise.log2

/**
 * Which integers of a tensor change their sign, so that most of them are positive.
 *
 * @property mode 0 for none, 1 for the outputs and 2 for the inputs that [negative] names.
 */
internal class Signs(val mode: Int, val negative: BooleanArray) {
    /** Changes the signs of a tensor's integers, which begin at [start]. */
    fun flip(values: IntArray, start: Int, spec: TensorSpec) {
        if (mode == OWN) return
        val (outputs, inputs, positions) = Scales.axesOf(spec)
        var at = start
        for (output in 0 until outputs) {
            for (input in 0 until inputs) {
                val isNegative = negative[if (mode == OUTPUTS) output else input]
                if (isNegative) for (i in at until at + positions) values[i] = -values[i]
                at += positions
            }
        }
    }

    companion object {
        const val OWN = 0
        const val OUTPUTS = 1
        const val INPUTS = 2

        /** The signs are those of the last round, which a phone does not keep. */
        const val HISTORY = 3

        /** Returns how many signs a mode sends of a tensor. */
        fun count(mode: Int, spec: TensorSpec): Int =
            if (mode == OUTPUTS || mode == INPUTS) Scales.axesOf(spec)[mode - 1] else 0

        /** Returns the signs with which those of the integers take the fewest bits. */
        fun best(values: IntArray, start: Int, spec: TensorSpec): Signs {
            val (outputs, inputs, positions) = Scales.axesOf(spec)
            val sums = arrayOf(LongArray(outputs), LongArray(inputs))
            var active = 0L
            var at = start
            for (output in 0 until outputs) {
                for (input in 0 until inputs) {
                    repeat(positions) {
                        val sign = Integer.signum(values[at++])
                        active += sign * sign
                        sums[0][output] += sign.toLong()
                        sums[1][input] += sign.toLong()
                    }
                }
            }
            var best = Signs(OWN, BooleanArray(0))
            var least = bits(active, Math.abs(sums[0].sum()))
            for (mode in OUTPUTS..INPUTS) {
                val own = sums[mode - 1]
                val found = bits(active, own.sumOf { Math.abs(it) }) + own.size
                if (found < least) {
                    least = found
                    best = Signs(mode, BooleanArray(own.size) { own[it] < 0 })
                }
            }
            return best
        }

        private fun bits(active: Long, majority: Long): Double {
            if (active == 0L) return 0.0
            val shares = longArrayOf(majority, -majority).map { (active + it) / (2.0 * active) }
            return -active * shares.sumOf { if (it > 0) it * log2(it) else 0.0 }
        }
    }
}
