package io.flwrcaesar.codec

import io.flwrcaesar.coding.HalfFloats
import io.flwrcaesar.frame.DType
import io.flwrcaesar.frame.Frame
import io.flwrcaesar.frame.FrameWriter
import io.flwrcaesar.frame.Section
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u8

/** Updates that leave no negative element where the trained model has none: section `RAIS`. */
internal object Raised {
    private const val TAG = "RAIS"

    /** Returns the update that a frame with the flag holds, `max(update, -base)` where it says so. */
    fun unpack(frame: Frame, update: Tensors, base: Tensors): Tensors {
        val specs = update.layout.tensors
        val bits = frame.section(TAG, (specs.size + 7L) / 8)
        val named = (0 until 8 * bits.size).filter { bits.u8(it / 8) ushr (7 - it % 8) and 1 == 1 }
        if (named.any { it >= specs.size || !specs[it].dtype.isFloat }) {
            refuse("the frame raises what is no tensor of floating-point numbers")
        }
        return replaced(update, raise(update, base, named.map { specs[it] }))
    }

    /** Returns a frame that says which of the named tensors of [decoded] its reader is to raise. */
    fun mark(frame: ByteArray, decoded: Tensors, base: Tensors, nonnegative: Set<String>): ByteArray {
        val specs = decoded.layout.tensors
        val raised = raise(decoded, base, specs.filter { it.name in nonnegative })
        if (raised.isEmpty()) return frame
        val bits = ByteArray((specs.size + 7) / 8)
        for (i in specs.indices) {
            if (specs[i].name in raised) bits[i / 8] = (bits[i / 8].toInt() or (0x80 ushr i % 8)).toByte()
        }
        return FrameWriter.add(frame, Section(TAG, bits), Frame.RAISED)
    }

    private fun replaced(update: Tensors, some: Map<String, ByteArray>): Tensors {
        if (some.isEmpty()) return update
        val data = update.layout.tensors.associate { it.name to (some[it.name] ?: update[it.name]) }
        return Tensors(update.layout, data)
    }

    private fun raise(update: Tensors, base: Tensors, specs: List<TensorSpec>): Map<String, ByteArray> {
        val found = HashMap<String, ByteArray>()
        for (spec in specs) {
            val start = base.layout.tensors.firstOrNull { it.name == spec.name }
            if (start == null || start.shape != spec.shape || !start.dtype.isFloat) {
                refuse("the model that is updated has another tensor '${spec.name}'")
            }
            val values = Elements.toDoubles(spec, update[spec.name])
            val least = Elements.toDoubles(start, base[spec.name])
            var isRaised = false
            for (i in values.indices) {
                val bound = rounded(-least[i], spec.dtype)
                if (bound.isNaN() || values[i] < bound) {
                    isRaised = isRaised || values[i] < bound
                    values[i] = bound
                }
            }
            if (isRaised) found[spec.name] = Elements.fromDoubles(spec, values)
        }
        return found
    }

    private fun rounded(value: Double, dtype: DType): Double =
        when (dtype) {
            DType.FLOAT64 -> value
            DType.FLOAT32 -> value.toFloat().toDouble()
            DType.FLOAT16 -> HalfFloats.fromFloat16(HalfFloats.toFloat16(value.toFloat())).toDouble()
            else -> HalfFloats.fromBFloat16(HalfFloats.toBFloat16(value.toFloat())).toDouble()
        }
}
