package io.flwrcaesar.codec

import io.flwrcaesar.coding.HalfFloats
import io.flwrcaesar.frame.DType
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.little

/** The elements of a floating-point tensor as numbers, and numbers as its elements. */
internal object Elements {
    /** Writes the elements as `float32` into [out], from [start] on. */
    fun toFloats(spec: TensorSpec, bytes: ByteArray, out: FloatArray, start: Int) {
        val view = bytes.little()
        val n = spec.count
        when (spec.dtype) {
            DType.FLOAT32 -> view.asFloatBuffer().get(out, start, n)
            DType.FLOAT64 -> for (i in 0 until n) out[start + i] = view.getDouble(8 * i).toFloat()
            DType.FLOAT16 ->
                for (i in 0 until n) out[start + i] = HalfFloats.fromFloat16(view.getShort(2 * i).toInt() and 0xFFFF)
            DType.BFLOAT16 ->
                for (i in 0 until n) out[start + i] = HalfFloats.fromBFloat16(view.getShort(2 * i).toInt())
            else -> throw IllegalArgumentException("${spec.dtype} is not floating point")
        }
    }

    /** Returns the elements as `float32`. */
    fun toFloats(spec: TensorSpec, bytes: ByteArray): FloatArray =
        FloatArray(spec.count).also { toFloats(spec, bytes, it, 0) }

    /** Returns the elements as `float64`. */
    fun toDoubles(spec: TensorSpec, bytes: ByteArray): DoubleArray {
        if (spec.dtype == DType.FLOAT64) {
            return DoubleArray(spec.count).also { bytes.little().asDoubleBuffer().get(it) }
        }
        val floats = toFloats(spec, bytes)
        return DoubleArray(floats.size) { floats[it].toDouble() }
    }

    /**
     * Returns the bytes of `values[start:start + size]` in the type of a tensor.
     *
     * A finite value beyond the range of a 16-bit type becomes the largest of that type.
     */
    fun fromFloats(spec: TensorSpec, values: FloatArray, start: Int = 0): ByteArray {
        val n = spec.count
        val bytes = ByteArray(n * spec.dtype.itemSize)
        val view = bytes.little()
        when (spec.dtype) {
            DType.FLOAT32 -> view.asFloatBuffer().put(values, start, n)
            DType.FLOAT64 -> for (i in 0 until n) view.putDouble(8 * i, values[start + i].toDouble())
            DType.FLOAT16 ->
                for (i in 0 until n) {
                    val value = within(values[start + i], HalfFloats.LARGEST_FLOAT16)
                    view.putShort(2 * i, HalfFloats.toFloat16(value).toShort())
                }
            DType.BFLOAT16 ->
                for (i in 0 until n) {
                    val value = within(values[start + i], HalfFloats.LARGEST_BFLOAT16)
                    view.putShort(2 * i, HalfFloats.toBFloat16(value).toShort())
                }
            else -> throw IllegalArgumentException("${spec.dtype} is not floating point")
        }
        return bytes
    }

    /** Returns the bytes of `float64` values in the type of a tensor. */
    fun fromDoubles(spec: TensorSpec, values: DoubleArray): ByteArray {
        if (spec.dtype == DType.FLOAT64) {
            return ByteArray(8 * values.size).also { it.little().asDoubleBuffer().put(values) }
        }
        return fromFloats(spec, FloatArray(values.size) { values[it].toFloat() })
    }

    private fun within(value: Float, limit: Float): Float =
        if (Math.abs(value) <= Float.MAX_VALUE) value.coerceIn(-limit, limit) else value
}
