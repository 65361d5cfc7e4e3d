package io.flwrcaesar.codec

import io.flwrcaesar.frame.Frame
import io.flwrcaesar.frame.Layout
import io.flwrcaesar.frame.Section
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.Tensors

/**
 * A codec that is exact on small tensors and sees the others as one `float32` vector.
 *
 * The elements of the vector are those of the lossy tensors, in the order of the layout.
 */
abstract class LossyCodec(config: Map<String, Any?>) : Codec(config) {
    /** Tells whether a tensor is open to loss. */
    protected abstract fun isLossy(spec: TensorSpec): Boolean

    /** Returns the vector that a frame holds. */
    protected abstract fun unpackVector(frame: Frame, lossy: List<TensorSpec>): FloatArray

    /** Returns the sections of a vector, and the vector that these decode to. */
    protected abstract fun packVector(vector: FloatArray, lossy: List<TensorSpec>): PackedVector

    /** Sections, and the vector that they decode to. */
    protected class PackedVector(val sections: List<Section>, val decoded: FloatArray)

    override fun unpack(frame: Frame, layout: Layout): Map<String, ByteArray> {
        val (lossy, exact) = layout.tensors.partition(::isLossy)
        val found = Exact.unpack(frame, exact)
        return if (lossy.isEmpty()) found else found + cut(unpackVector(frame, lossy), lossy)
    }

    override fun pack(tensors: Tensors): Packed {
        val (lossy, exact) = tensors.layout.tensors.partition(::isLossy)
        val sections = Exact.pack(tensors, exact)
        val decoded = exact.associate { it.name to tensors[it.name] }
        if (lossy.isEmpty()) return Packed(sections, decoded)
        val packed = packVector(gather(tensors, lossy), lossy)
        return Packed(sections + packed.sections, decoded + cut(packed.decoded, lossy))
    }

    private fun gather(tensors: Tensors, lossy: List<TensorSpec>): FloatArray {
        val vector = FloatArray(lossy.sumOf { it.count })
        for ((spec, start) in lossy.zip(starts(lossy))) {
            Elements.toFloats(spec, tensors[spec.name], vector, start)
        }
        return vector
    }

    private fun cut(vector: FloatArray, lossy: List<TensorSpec>): Map<String, ByteArray> =
        lossy.zip(starts(lossy)).associate { (spec, start) ->
            spec.name to Elements.fromFloats(spec, vector, start)
        }
}

/** Returns where each tensor begins in the vector of all. */
internal fun starts(tensors: List<TensorSpec>): List<Int> = tensors.runningFold(0) { at, spec -> at + spec.count }

/** Tells whether a tensor is floating point and has at least so many elements, and one. */
internal fun isFloatOf(spec: TensorSpec, least: Long): Boolean = spec.dtype.isFloat && spec.size >= maxOf(least, 1)
