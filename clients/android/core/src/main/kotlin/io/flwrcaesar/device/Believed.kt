package io.flwrcaesar.device

import io.flwrcaesar.codec.Elements
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.quantise.frexp

/** What a device does about the longest update that its server believes: section 10.2 of `docs/device-protocol.md`. */
internal object Believed {
    // Of what is believed: that gets shorter while a model converges.
    private const val PART = 0.5

    /** Returns the Euclidean norm of the floating-point tensors; infinite beyond `float64`. */
    fun length(tensors: Tensors): Double {
        val parts = tensors.layout.tensors.filter { it.dtype.isFloat }
        var largest = 0.0
        for (spec in parts) {
            for (value in elements(tensors, spec)) {
                if (!value.isFinite()) return Double.POSITIVE_INFINITY
                largest = maxOf(largest, Math.abs(value))
            }
        }
        if (largest == 0.0) return 0.0
        var total = 0.0
        for (spec in parts) for (value in elements(tensors, spec)) total += (value / largest) * (value / largest)
        return largest * Math.sqrt(total)
    }

    /** Returns the length of an update, in that of what is encoded with it; 1 at the most. */
    fun share(update: Tensors, total: Tensors): Double {
        val whole = length(total)
        return if (whole > 0 && whole.isFinite()) minOf(length(update) / whole, 1.0) else 1.0
    }

    /**
     * Returns a part of an update that is believed; `null` to send it as it is.
     *
     * Each element is the same part of what it was, by a power of two, so that the part and the rest
     * are what there was, to the bit. A training that is too long by itself is not made shorter.
     *
     * @param sent what a codec makes of [total].
     * @param share that of the training in it, see [share].
     * @param longest what is believed; 0 if the server said nothing of it.
     */
    fun partToSend(total: Tensors, sent: Tensors, share: Double, longest: Double): Tensors? {
        if (longest == 0.0) return null
        val whole = length(sent)
        if (whole.isInfinite() || whole <= PART * longest || share * whole > longest) return null
        val exponent = frexp(PART * longest / whole) - 1
        val data =
            total.layout.tensors.associate { spec ->
                spec.name to if (spec.dtype.isFloat) scaled(total, spec, exponent) else total[spec.name]
            }
        return Tensors(total.layout, data)
    }

    private fun scaled(tensors: Tensors, spec: TensorSpec, exponent: Int): ByteArray {
        val values = elements(tensors, spec)
        for (i in values.indices) values[i] = Math.scalb(values[i], exponent)
        return Elements.fromDoubles(spec, values)
    }

    private fun elements(tensors: Tensors, spec: TensorSpec) = Elements.toDoubles(spec, tensors[spec.name])
}
