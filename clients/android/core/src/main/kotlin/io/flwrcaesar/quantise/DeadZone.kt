package io.flwrcaesar.quantise

import io.flwrcaesar.frame.refuse

/**
 * A uniform quantiser that rounds towards zero more than away from it.
 *
 * @property step its step.
 * @property deadZone from 0.5, rounding to nearest, to 1, truncation, as a fraction of the step.
 */
internal class DeadZone(step: Double, deadZone: Double) {
    private val step = step.toFloat()
    private val offset = (1 - deadZone).toFloat()

    /** Returns the integer of a value. */
    fun index(value: Float): Int {
        val scaled = Math.abs(value) / step + offset
        if (scaled >= MAX_INDEX) refuse("a step of $step is too small for the largest element")
        return if (value < 0) -scaled.toInt() else scaled.toInt()
    }

    /** Returns the value of an integer. */
    fun value(index: Int): Float = index.toFloat() * step

    private companion object {
        const val MAX_INDEX = 1 shl 30
    }
}
