package io.flwrcaesar.quantise

import io.flwrcaesar.frame.refuse

/**
 * A quantiser's step `multiple * 2^exponent` with a multiple from 4 to 7: quarter octaves.
 *
 * Its multiples are integers on the grid `2^exponent`, so differences of such values are exact.
 */
internal data class Step(val multiple: Int, val exponent: Int) {
    /** The step as a number. */
    val value: Double get() = multiple * Math.scalb(1.0, exponent)

    /** The position in the ascending list of all steps. */
    val quarter: Int get() = 4 * exponent + multiple - 4

    /** Returns a step that is so many octaves coarser. */
    fun coarser(octaves: Int): Step = copy(exponent = exponent + octaves)

    companion object {
        private const val LEAST = -117
        private const val MOST = 100

        /** Returns the step nearest to a value; a power of two stays itself. */
        fun near(value: Double): Step {
            if (!(value >= Math.scalb(1.0, LEAST) && value <= Math.scalb(1.0, MOST))) {
                refuse("a step of $value is outside of 2^$LEAST to 2^$MOST")
            }
            val exponent = Math.getExponent(value) - 2
            val multiple = Math.rint(Math.scalb(value, -exponent)).toInt()
            return if (multiple == 8) Step(4, exponent + 1) else Step(multiple, exponent)
        }

        /** Returns the step at a position of the ascending list of all. */
        fun of(quarter: Int) = Step(4 + Math.floorMod(quarter, 4), Math.floorDiv(quarter, 4))
    }
}

/** A step, and a dead zone as a fraction of it. */
internal data class Quantiser(val step: Step, val deadZone: Double)
