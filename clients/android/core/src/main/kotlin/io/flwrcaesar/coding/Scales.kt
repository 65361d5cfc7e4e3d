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
        val sums = SliceSums(values, start)
        val found = IntArray(count)
        found[0] = quarters(sums.mean / step)
        var next = 1
        for (axis in axes) {
            for (sum in sums.of[axis]) {
                val slice = sum * (lengths[axis] / size.toDouble())
                found[next++] = if (sums.mean == 0.0) 0 else quarters(slice / sums.mean)
            }
        }
        return found
    }

    /**
     * Fits scales to integers, in few bits.
     *
     * A slice with few integers that are not 0 tells its scale only roughly: scales are whole or
     * half octaves there, and shrunk towards the tensor's.
     */
    fun fitCoarse(values: FloatArray): IntArray {
        val sums = SliceSums(values, 0)
        val active = values.count { it != 0f }
        val found = IntArray(count)
        found[0] = quarters(sums.mean)
        var next = 1
        for (axis in axes) {
            val expected = sums.total / lengths[axis]
            val unit = unitOf(active / lengths[axis].toDouble())
            for (sum in sums.of[axis]) {
                found[next++] = unit * quarters((sum + SHRINK) / (expected + SHRINK), unit)
            }
        }
        return found
    }

    /** The magnitudes of the elements from [start] on, summed over the slices of each axis. */
    private inner class SliceSums(values: FloatArray, start: Int) {
        val of = Array(3) { DoubleArray(lengths[it]) }
        val total: Double
        val mean: Double

        init {
            var at = start
            for (output in 0 until lengths[0]) {
                for (input in 0 until lengths[1]) {
                    var row = 0.0
                    for (position in 0 until lengths[2]) {
                        val magnitude = Math.abs(values[at++]).toDouble()
                        row += magnitude
                        of[2][position] += magnitude
                    }
                    of[0][output] += row
                    of[1][input] += row
                }
            }
            total = of[0].sum()
            mean = total / maxOf(size, 1)
        }
    }

    private fun quarters(ratio: Double, unit: Int = 1): Int =
        Math.rint(4 * log2(maxOf(ratio, SMALLEST_RATIO)) / unit).toInt().coerceIn(-64, 127)

    /** Returns the quarters of an octave that scales of [active] integers a slice are multiples of. */
    private fun unitOf(active: Double): Int = if (active < 50) 4 else if (active < 200) 2 else 1

    companion object {
        /** How many scale classes there are. */
        const val CLASSES = 96

        /** The largest magnitude of a scale that is sent. */
        const val LARGEST = 255
        private const val OFFSET = 32
        private const val MIN_SLICE = 48L
        private const val SMALLEST_RATIO = 1.0 / 65536
        private const val SHRINK = 0.5

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
