package io.flwrcaesar.codec

import io.flwrcaesar.coding.Block
import io.flwrcaesar.coding.CompactBlock
import io.flwrcaesar.coding.Products
import io.flwrcaesar.coding.SmallBlock
import io.flwrcaesar.coding.concatenated
import io.flwrcaesar.frame.ByteSink
import io.flwrcaesar.frame.Frame
import io.flwrcaesar.frame.Section
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u16
import io.flwrcaesar.quantise.LatticeSteps
import io.flwrcaesar.quantise.Step

/**
 * The codec `lattice`: dead-zone integers on a power-of-two grid.
 *
 * It keeps no memory of uploads: with `memory` each frame is written as the first one. With `rank` it
 * reads products, and writes none.
 */
class Lattice private constructor(
    config: Map<String, Any?>,
    private val exactBelow: Long,
    private val steps: LatticeSteps,
    private val isCompact: Boolean,
    private val rank: Long,
) : LossyCodec(config) {
    override fun isLossy(spec: TensorSpec): Boolean = isFloatOf(spec, exactBelow)

    override fun unpackVector(frame: Frame, lossy: List<TensorSpec>): FloatArray {
        val values = values(unpackIntegers(frame, lossy), lossy)
        val products = Products.read(frame, lossy, rank)
        for ((own, start) in products.zip(starts(lossy))) own?.addTo(values, start)
        return values
    }

    override fun packVector(vector: FloatArray, lossy: List<TensorSpec>): PackedVector {
        val found = steps.quantise(vector, lossy)
        return PackedVector(packIntegers(found, lossy), values(found, lossy))
    }

    // Each step is rounded to float32: the integer, its product with the power, that with the multiple.
    private fun values(found: LatticeSteps.Quantised, lossy: List<TensorSpec>): FloatArray {
        val values = FloatArray(found.indices.size)
        val starts = starts(lossy)
        val multiple = found.step.multiple.toFloat()
        for (i in lossy.indices) {
            val exponent = found.step.exponent + found.offsets[i] - steps.extraBits(lossy[i])
            val power = Math.scalb(1.0, exponent)
            for (k in starts[i] until starts[i + 1]) {
                values[k] = (found.indices[k].toFloat() * power).toFloat() * multiple
            }
        }
        return values
    }

    private fun packIntegers(found: LatticeSteps.Quantised, lossy: List<TensorSpec>): List<Section> {
        val starts = starts(lossy)
        val pieces = lossy.indices.map { found.indices.copyOfRange(starts[it], starts[it + 1]) }
        val isZero = pieces.map { piece -> piece.all { it == 0 } }
        val zeros = pieces.indices.filter { isZero[it] }.sumOf { pieces[it].size }
        val hasSteps = found.offsets.any { it != 0 } || zeros >= WORTH_LEAVING_OUT
        val kept = lossy.indices.filter { !hasSteps || !isZero[it] }
        val integers = concatenated(kept.map { pieces[it] })
        val specs = kept.map { lossy[it] }
        val block =
            if (isCompact) CompactBlock.encodeShorter(integers, specs) else SmallBlock.encodeShorter(integers, specs)
        val own = ByteArray(lossy.size) { (if (isZero[it]) ABSENT else found.offsets[it]).toByte() }
        val tag = if (block.isSmall) "RICE" else tagOf(hasSteps)
        val head = ByteSink(HEAD_BYTES + block.bytes.size).u16(found.step.exponent).u8(found.step.multiple)
        val sections = listOf(Section(tag, head.bytes(block.bytes).toByteArray()))
        return if (hasSteps) listOf(Section("STEP", own)) + sections else sections
    }

    private fun unpackIntegers(frame: Frame, lossy: List<TensorSpec>): LatticeSteps.Quantised {
        val hasSteps = "STEP" in frame
        val own = if (hasSteps) frame.section("STEP", lossy.size.toLong()) else ByteArray(lossy.size)
        val isSmall = "RICE" in frame
        val tag = if (isSmall) "RICE" else tagOf(hasSteps)
        val kept = lossy.filterIndexed { i, _ -> own[i].toInt() != ABSENT }
        val most = if (isSmall) SmallBlock.maxBytes(kept) else Block.maxBytes(kept)
        val data = frame.sectionUpTo(tag, HEAD_BYTES + most)
        if (data.size < HEAD_BYTES) refuse("a lattice is truncated")
        val step = Step(data[2].toInt() and 0xFF, data.u16(0).toShort().toInt())
        if (step.exponent !in LatticeSteps.MIN_EXPONENT..LatticeSteps.MAX_EXPONENT || step.multiple !in 4..7) {
            refuse("a lattice has a malformed step")
        }
        val integers =
            when {
                isSmall -> SmallBlock.decode(data, HEAD_BYTES, kept)
                isCompact -> CompactBlock.decode(data, HEAD_BYTES, kept)
                else -> Block.decode(data, HEAD_BYTES, kept)
            }
        val offsets = IntArray(lossy.size) { if (own[it].toInt() == ABSENT) 0 else own[it].toInt() }
        return LatticeSteps.Quantised(step, offsets, withZeros(integers, lossy, own))
    }

    private fun tagOf(hasSteps: Boolean): String =
        if (isCompact) CompactBlock.TAG else if (hasSteps) "LATS" else "LATT"

    private fun withZeros(integers: IntArray, lossy: List<TensorSpec>, own: ByteArray): IntArray {
        if (own.none { it.toInt() == ABSENT }) return integers
        val whole = IntArray(lossy.sumOf { it.count })
        var from = 0
        var to = 0
        for (i in lossy.indices) {
            val size = lossy[i].count
            if (own[i].toInt() != ABSENT) {
                integers.copyInto(whole, to, from, from + size)
                from += size
            }
            to += size
        }
        return whole
    }

    companion object {
        private const val HEAD_BYTES = 3
        private const val ABSENT = -128
        private const val WORTH_LEAVING_OUT = 1024

        internal fun of(parameters: Parameters): Lattice {
            val rate = parameters.number("rate", 1.0)
            val step = parameters.number("step", 0.0)
            val nmse = parameters.number("nmse", 0.0)
            val exactBelow = parameters.count("exact_below", 1024)
            val fineBelow = parameters.count("fine_below", 0, isLater = true)
            parameters.require(fineBelow == 0L || fineBelow > exactBelow, "fine_below", fineBelow)
            parameters.require(rate > 0 && rate <= 16, "rate", rate)
            parameters.require(nmse >= 0 && nmse < 1, "nmse", nmse)
            val deadZone = parameters.number("dead_zone", 0.0, isLater = true)
            parameters.require(deadZone == 0.0 || deadZone in 0.5..1.0, "dead_zone", deadZone)
            if (step != 0.0) Step.near(step)
            val steps = LatticeSteps(rate, step, nmse, fineBelow, deadZone)
            val isCompact = parameters.flag("compact", false, isLater = true)
            val hasMemory = parameters.flag("memory", false, isLater = true)
            parameters.require(isCompact || !hasMemory, "memory", hasMemory)
            val rank = parameters.count("rank", 0, isLater = true)
            parameters.require(rank <= Products.MAX_RANK, "rank", rank)
            return Lattice(parameters.config(), exactBelow, steps, isCompact, rank)
        }
    }
}
