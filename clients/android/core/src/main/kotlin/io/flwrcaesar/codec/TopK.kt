package io.flwrcaesar.codec

import io.flwrcaesar.coding.HalfFloats
import io.flwrcaesar.coding.Positions
import io.flwrcaesar.frame.Frame
import io.flwrcaesar.frame.Section
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.little
import io.flwrcaesar.quantise.Select
import io.flwrcaesar.quantise.frexp
import java.util.BitSet

/** The codec `topk`: the largest elements of each tensor, the rest zero. */
class TopK private constructor(
    config: Map<String, Any?>,
    private val density: Double,
    private val isHalf: Boolean,
    private val exactBelow: Long,
) : LossyCodec(config) {
    override fun isLossy(spec: TensorSpec): Boolean = isFloatOf(spec, exactBelow)

    override fun unpackVector(frame: Frame, lossy: List<TensorSpec>): FloatArray {
        val n = lossy.sumOf { it.count }
        val positions = Positions.read(frame, "POS", n)
        val isScaled = isHalf && "VALX" in frame
        val size = positions.size.toLong() * if (isHalf) 2 else 4
        val exponents = if (isScaled) frame.section("EXP", lossy.size.toLong()) else ByteArray(lossy.size)
        val values = frame.section(if (isScaled) "VALX" else "VAL", size)
        return expand(positions, values, exponents, lossy)
    }

    override fun packVector(vector: FloatArray, lossy: List<TensorSpec>): PackedVector {
        val kept = BitSet(vector.size)
        for ((spec, start) in lossy.zip(starts(lossy))) {
            Select.largest(vector, start, start + spec.count, Select.countKept(spec.count, density), kept)
        }
        val positions = kept.stream().toArray()
        val exponents = if (isHalf) exponents(vector, positions, lossy) else ByteArray(lossy.size)
        val isScaled = exponents.any { it != 0.toByte() }
        val values = if (isHalf) halves(vector, positions, exponents, lossy) else floats(vector, positions)
        val sections =
            listOfNotNull(
                Section("POS", Positions.encode(positions, vector.size)),
                if (isScaled) Section("EXP", exponents) else null,
                Section(if (isScaled) "VALX" else "VAL", values),
            )
        return PackedVector(sections, expand(positions, values, exponents, lossy))
    }

    private fun expand(
        positions: IntArray,
        values: ByteArray,
        exponents: ByteArray,
        lossy: List<TensorSpec>,
    ): FloatArray {
        val vector = FloatArray(lossy.sumOf { it.count })
        val view = values.little()
        if (!isHalf) {
            for (k in positions.indices) vector[positions[k]] = view.getFloat(4 * k)
            return vector
        }
        byTensor(positions, lossy) { k, tensor ->
            val value = HalfFloats.fromFloat16(view.getShort(2 * k).toInt() and 0xFFFF)
            vector[positions[k]] = Math.scalb(value, exponents[tensor].toInt())
        }
        return vector
    }

    private fun floats(vector: FloatArray, positions: IntArray): ByteArray =
        Tensors.bytesOf(FloatArray(positions.size) { vector[positions[it]] })

    private fun halves(
        vector: FloatArray,
        positions: IntArray,
        exponents: ByteArray,
        lossy: List<TensorSpec>,
    ): ByteArray {
        val bytes = ByteArray(2 * positions.size)
        val view = bytes.little()
        byTensor(positions, lossy) { k, tensor ->
            val exponent = exponents[tensor].toInt()
            var value = Math.scalb(vector[positions[k]], -exponent)
            if (exponent != 0) value = value.coerceIn(-ROOM, ROOM)
            view.putShort(2 * k, HalfFloats.toFloat16(value).toShort())
        }
        return bytes
    }

    // 0 where the largest is well within float16; elsewhere the tensor is brought below 2^15.
    private fun exponents(vector: FloatArray, positions: IntArray, lossy: List<TensorSpec>): ByteArray {
        val largest = FloatArray(lossy.size)
        byTensor(positions, lossy) { k, tensor ->
            largest[tensor] = maxOf(largest[tensor], Math.abs(vector[positions[k]]))
        }
        return ByteArray(lossy.size) { i ->
            val isNear = largest[i] == 0f || largest[i] in SMALL_HALF..HalfFloats.LARGEST_FLOAT16
            (if (isNear) 0 else (frexp(largest[i].toDouble()) - 15).coerceIn(-127, 127)).toByte()
        }
    }

    /** Calls [each] with the number of a position and that of the tensor in which it lies. */
    private inline fun byTensor(positions: IntArray, lossy: List<TensorSpec>, each: (Int, Int) -> Unit) {
        var tensor = 0
        var end = lossy[0].count
        for (k in positions.indices) {
            while (positions[k] >= end) end += lossy[++tensor].count
            each(k, tensor)
        }
    }

    companion object {
        private const val SMALL_HALF = 1f / 1024
        private const val ROOM = (2 - 1f / 1024) * (1 shl 14)

        internal fun of(parameters: Parameters): TopK {
            val density = parameters.number("density", 0.01)
            val values = parameters.choice("values", listOf("float32", "float16"))
            val exactBelow = parameters.count("exact_below", 1024)
            parameters.require(density > 0 && density <= 1, "density", density)
            return TopK(parameters.config(), density, values == "float16", exactBelow)
        }
    }
}
