package io.flwrcaesar.coding

import io.flwrcaesar.frame.ByteSink
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.quantise.log2

/**
 * The axes of a tensor as the entropy coder sees them, and its scales.
 *
 * A tensor is seen as outputs, inputs and positions. The expected magnitude of an element is
 * told by one scale of the tensor and one for each index of each axis that is long enough to
 * pay for them: section 9 of `docs/wire-format.md`, "Scales".
 */
internal class Scales(spec: TensorSpec) {
    private val size = spec.count
    private val lengths: IntArray = axesOf(spec)
    private val axes = (0..2).filter { lengths[it] > 1 && size >= MIN_SLICE * lengths[it] }

    /** How many scales the tensor has. */
    val count: Int = 1 + axes.sumOf { lengths[it] }

    /** Appends what each scale belongs to: 0 for the tensor, 1 to 3 for the axes. */
    fun appendKinds(sink: ByteSink) {
        sink.u8(0)
        for (axis in axes) repeat(lengths[axis]) { sink.u8(axis + 1) }
    }

    /**
     * Writes each element's scale class, from 0 to 95, into `classes`, from [start] on.
     *
     * @param scales the scales of several tensors, those of this one from [first] on.
     */
    fun classes(scales: IntArray, first: Int, classes: ByteArray, start: Int) {
        val parts = Array(3) { IntArray(lengths[it]) }
        var next = first + 1
        for (axis in axes) {
            System.arraycopy(scales, next, parts[axis], 0, lengths[axis])
            next += lengths[axis]
        }
        var at = start
        for (output in parts[0]) {
            for (input in parts[1]) {
                val sum = scales[first] + output + input + OFFSET
                for (position in parts[2]) {
                    classes[at++] = (sum + position).coerceIn(0, CLASSES - 1).toByte()
                }
            }
        }
    }

    /**
     * Fits the scales to magnitudes, in quarters of an octave.
     *
     * The scale of a slice is its mean magnitude over the tensor's, whose own scale is its mean
     * over [step].
     */
    fun fit(values: FloatArray, start: Int, step: Float): IntArray {
        val sums = Array(3) { DoubleArray(lengths[it]) }
        var at = start
        for (output in 0 until lengths[0]) {
            for (input in 0 until lengths[1]) {
                var row = 0.0
                for (position in 0 until lengths[2]) {
                    val magnitude = Math.abs(values[at++]).toDouble()
                    row += magnitude
                    sums[2][position] += magnitude
                }
                sums[0][output] += row
                sums[1][input] += row
            }
        }
        val mean = sums[0].sum() / maxOf(size, 1)
        val found = IntArray(count)
        found[0] = quarters(mean / step)
        var next = 1
        for (axis in axes) {
            for (sum in sums[axis]) {
                val slice = sum * (lengths[axis] / size.toDouble())
                found[next++] = if (mean == 0.0) 0 else quarters(slice / mean)
            }
        }
        return found
    }

    private fun quarters(ratio: Double): Int =
        Math.rint(4 * log2(maxOf(ratio, SMALLEST_RATIO))).toInt().coerceIn(-64, 127)

    companion object {
        /** How many scale classes there are. */
        const val CLASSES = 96

        /** The largest magnitude of a scale that is sent. */
        const val LARGEST = 255
        private const val OFFSET = 32
        private const val MIN_SLICE = 48L
        private const val SMALLEST_RATIO = 1.0 / 65536

        private fun axesOf(spec: TensorSpec): IntArray =
            when {
                spec.size == 0L -> intArrayOf(1, 1, 0)
                spec.shape.size < 2 -> intArrayOf(1, 1, spec.count)
                else -> {
                    val outputs = spec.shape[0].toInt()
                    val inputs = spec.shape[1].toInt()
                    intArrayOf(outputs, inputs, spec.count / (outputs * inputs))
                }
            }
    }
}
