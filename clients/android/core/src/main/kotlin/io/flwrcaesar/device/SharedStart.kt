package io.flwrcaesar.device

import io.flwrcaesar.codec.Elements
import io.flwrcaesar.codec.LatticeModel
import io.flwrcaesar.frame.DType
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.quantise.frexp
import io.flwrcaesar.quantise.log2

/** The first model, made on the device instead of downloaded: section 14 of `docs/device-protocol.md`. */
internal class SharedStart private constructor(
    private val exactBelow: Long,
    private val fineBelow: Long,
    private val bits: Long,
    private val halvesToo: Boolean,
) {
    /** Returns the first model of an app's initial arrays. */
    fun model(initial: Tensors): Tensors =
        Tensors(initial.layout, initial.layout.tensors.associate { it.name to tensor(it, initial[it.name]) })

    private fun tensor(spec: TensorSpec, bytes: ByteArray): ByteArray {
        if (!LatticeModel.isOnLattice(spec, exactBelow, halvesToo)) return bytes
        val values = Elements.toDoubles(spec, bytes)
        if (values.any { it.isNaN() }) return bytes
        val largest = values.maxOf { Math.abs(it) }
        if (largest != 0.0 && largest !in SMALLEST..LARGEST) return bytes
        val exponent = exponent(spec, values, largest)
        val most = if (spec.dtype == DType.FLOAT16) Math.floor(Math.scalb(LARGEST_FLOAT16, -exponent)) else MOST_STEPS
        for (i in values.indices) {
            val steps = Math.rint(Math.scalb(values[i], -exponent)).coerceIn(-most, most)
            values[i] = Math.scalb(steps, exponent) + 0.0
        }
        return Elements.fromDoubles(spec, values)
    }

    private fun exponent(spec: TensorSpec, values: DoubleArray, largest: Double): Int {
        val scale = Math.sqrt(values.sumOf { it * it } / values.size)
        val octave = if (scale == 0.0) NO_SCALE else Math.rint(log2(scale)).toLong().coerceIn(-90, 50)
        val top = frexp(largest)
        var exponent = octave - if (scale == 0.0) 0 else bits
        if (spec.size < fineBelow) exponent = minOf(exponent - 6, top - 10L)
        return maxOf(exponent, top - 22L, -100L).coerceAtMost(60).toInt()
    }

    companion object {
        private const val NO_SCALE = -16L
        private const val LARGEST_FLOAT16 = 65504.0
        private const val MOST_STEPS = 16777216.0
        private val SMALLEST = Math.scalb(1.0, -78)
        private val LARGEST = Math.scalb(1.0, 82)

        /** Returns what a plan's `start` asks for, or `null` if it is not understood. */
        fun of(start: Map<String, Any?>): SharedStart? {
            val numbers = listOf("exact_below", "fine_below", "bits").map { start[it] as? Long ?: return null }
            return SharedStart(numbers[0], numbers[1], numbers[2], start["halves"] == 1L)
        }
    }
}
