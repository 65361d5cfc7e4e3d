package io.flwrcaesar.codec

import io.flwrcaesar.coding.Block
import io.flwrcaesar.coding.Positions
import io.flwrcaesar.frame.Frame
import io.flwrcaesar.frame.Section
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.little
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.quantise.Select
import io.flwrcaesar.quantise.TensorScales
import io.flwrcaesar.quantise.Weights
import java.util.BitSet

/** The codec `prune`: the smallest weights of a whole model to zero, the rest whole or in bits. */
class Prune private constructor(
    config: Map<String, Any?>,
    private val pruneRate: Double,
    private val excludesVectors: Boolean,
    private val exactBelow: Long,
    private val isRelative: Boolean,
    private val weights: Weights?,
) : LossyCodec(config) {
    override fun isLossy(spec: TensorSpec): Boolean =
        isFloatOf(spec, exactBelow) && !(excludesVectors && spec.shape.size < 2)

    override fun unpackVector(frame: Frame, lossy: List<TensorSpec>): FloatArray {
        if (weights != null) return unpackLevels(frame, lossy, weights)
        val vector = FloatArray(lossy.sumOf { it.count })
        val positions = Positions.read(frame, "POS", vector.size)
        val values = frame.section("VAL", 4L * positions.size).little()
        for (k in positions.indices) vector[positions[k]] = values.getFloat(4 * k)
        return vector
    }

    private fun unpackLevels(frame: Frame, lossy: List<TensorSpec>, weights: Weights): FloatArray {
        val scales = frame.section("SCL", 4L * lossy.size).little()
        for (i in lossy.indices) {
            val scale = scales.getFloat(4 * i)
            if (!(scale >= 0 && scale <= Float.MAX_VALUE)) refuse("a magnitude is negative or not finite")
        }
        val levels = Block.decode(frame.sectionUpTo("BLK", Block.maxBytes(lossy)), 0, lossy)
        if (levels.any { it > weights.largest || it < -weights.largest }) {
            refuse("prune: a level is larger than ${weights.largest}")
        }
        return values(levels, FloatArray(lossy.size) { scales.getFloat(4 * it) }, lossy, weights)
    }

    override fun packVector(vector: FloatArray, lossy: List<TensorSpec>): PackedVector {
        val compared = if (isRelative) onOneScale(vector, lossy) else vector
        val kept = BitSet(vector.size)
        val survivors = vector.size - Select.countPruned(vector.size, pruneRate)
        Select.largest(compared, 0, vector.size, survivors, kept)
        for (i in vector.indices) if (vector[i] == 0f) kept.clear(i)
        if (weights != null) return packLevels(vector, kept, lossy, weights)
        val positions = kept.stream().toArray()
        val decoded = FloatArray(vector.size)
        for (position in positions) decoded[position] = vector[position]
        val values = Tensors.bytesOf(FloatArray(positions.size) { vector[positions[it]] })
        return PackedVector(
            listOf(Section("POS", Positions.encode(positions, vector.size)), Section("VAL", values)),
            decoded,
        )
    }

    private fun packLevels(
        vector: FloatArray,
        kept: BitSet,
        lossy: List<TensorSpec>,
        weights: Weights,
    ): PackedVector {
        val starts = starts(lossy)
        val levels = IntArray(vector.size)
        val scales =
            FloatArray(lossy.size) { i ->
                val own = (starts[i] until starts[i + 1]).filter(kept::get)
                val scale = weights.scale(FloatArray(own.size) { vector[own[it]] })
                for (k in own) levels[k] = weights.level(vector[k], scale)
                scale
            }
        val sections =
            listOf(Section("SCL", Tensors.bytesOf(scales)), Section("BLK", Block.encode(levels, lossy)))
        return PackedVector(sections, values(levels, scales, lossy, weights))
    }

    private fun values(
        levels: IntArray,
        scales: FloatArray,
        lossy: List<TensorSpec>,
        weights: Weights,
    ): FloatArray {
        val starts = starts(lossy)
        val vector = FloatArray(levels.size)
        for (i in lossy.indices) {
            for (k in starts[i] until starts[i + 1]) vector[k] = weights.weight(levels[k], scales[i])
        }
        return vector
    }

    // Tensors of a far smaller or larger scale are compared relative to it.
    private fun onOneScale(vector: FloatArray, lossy: List<TensorSpec>): FloatArray {
        val starts = starts(lossy)
        val scales =
            DoubleArray(lossy.size) { TensorScales.rootMeanSquare(vector, starts[it], starts[it + 1]) }
        val active = lossy.indices.filter { scales[it] != 0.0 }
        if (active.isEmpty()) return vector
        val offsets =
            TensorScales.offsets(
                DoubleArray(active.size) { scales[active[it]] },
                IntArray(active.size) { lossy[active[it]].count },
            )
        val compared = vector.copyOf()
        for ((k, i) in active.withIndex()) {
            for (at in starts[i] until starts[i + 1]) {
                compared[at] = Math.scalb(compared[at], -offsets.octaves[k])
            }
        }
        return compared
    }

    companion object {
        private const val WHOLE = 32L

        internal fun of(parameters: Parameters): Prune {
            val rate = parameters.number("prune_rate", 0.5)
            val excludesVectors = parameters.flag("exclude_1d", true)
            val exactBelow = parameters.count("exact_below", 0)
            val bits = parameters.count("bits", WHOLE, isLater = true)
            val levels = parameters.choice("levels", listOf("uniform", "power_of_two"), isLater = true)
            val isRelative = parameters.flag("relative", false, isLater = true)
            parameters.require(rate in 0.0..1.0, "prune_rate", rate)
            parameters.require(bits in 1..8 || bits == WHOLE, "bits", bits)
            val weights = if (bits == WHOLE) null else Weights(bits.toInt(), levels == "power_of_two")
            return Prune(parameters.config(), rate, excludesVectors, exactBelow, isRelative, weights)
        }
    }
}
