package io.flwrcaesar.coding

import io.flwrcaesar.frame.ByteSink
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u8

/**
 * Integers of several tensors without tables, for blocks too short to pay for them.
 *
 * Section 9 of `docs/wire-format.md`, "Small blocks", has the bytes.
 */
internal object SmallBlock {
    private const val ALL_ZERO = 0xFF
    private const val MAX_WIDTH = 31

    /** From so many integers on a block with tables is shorter. */
    const val FEW = 1 shl 15
    private const val WORTH_TABLES = 256
    private const val MOST_UNARY_BYTES = 8L

    /** Returns the most bytes that a small block of these tensors takes. */
    fun maxBytes(tensors: List<TensorSpec>): Long =
        tensors.size + (34 * tensors.sumOf { it.size } + 7) / 8 + 2

    /** Decodes the small block that `data` has from [from] on. */
    fun decode(data: ByteArray, from: Int, tensors: List<TensorSpec>): IntArray {
        val read = decodeGroups(data, from, IntArray(tensors.size) { tensors[it].count })
        if (read.end != data.size) refuse("a block has trailing bytes")
        return read.values
    }

    /** Decodes groups of integers of so many, which begin at [from]. */
    fun decodeGroups(data: ByteArray, from: Int, sizes: IntArray): CompactRun.Read {
        if (data.size - from < sizes.size) refuse("a block is truncated")
        val widths = IntArray(sizes.size) { data.u8(from + it) }
        val isPresent = BooleanArray(sizes.size) { widths[it] != ALL_ZERO && sizes[it] > 0 }
        var count = 0L
        var lowBits = 0L
        for (i in sizes.indices) {
            if (!isPresent[i]) continue
            if (widths[i] > MAX_WIDTH) refuse("a block has a malformed width")
            count += sizes[i]
            lowBits += widths[i].toLong() * sizes[i]
        }
        val unaryStart = from + sizes.size
        val last = minOf(data.size.toLong(), unaryStart + MOST_UNARY_BYTES * count).toInt()
        val quotients = BitReader(data, unaryStart, last)
        var unaryBits = 0L
        for (k in 0 until count) unaryBits += quotients.zeros() + 1
        val lowStart = unaryStart + (unaryBits + 7) / 8
        val end = lowStart + (lowBits + 7) / 8
        if (end > data.size) refuse("a block is truncated")
        val unary = BitReader(data, unaryStart, lowStart.toInt())
        val low = BitReader(data, lowStart.toInt(), end.toInt())
        val integers = IntArray(sizes.sum())
        var at = 0
        for (i in sizes.indices) {
            val stop = at + sizes[i]
            if (isPresent[i]) {
                for (k in at until stop) integers[k] = unzigzag(next(unary, low, widths[i]))
            }
            at = stop
        }
        if (!unary.hasOnlyZerosLeft()) refuse("a block has trailing bits")
        return CompactRun.Read(integers, end.toInt())
    }

    private fun next(unary: BitReader, low: BitReader, width: Int): Long {
        val quotient = unary.zeros()
        if (quotient ushr (32 - width) != 0L) refuse("a block has an integer beyond 32 bits")
        return (quotient shl width) or low.read(width)
    }

    /** Writes each integer in a Golomb-Rice code of its tensor. */
    fun encode(integers: IntArray, tensors: List<TensorSpec>): ByteArray {
        val widths = ByteSink()
        val unary = BitWriter()
        val low = BitWriter()
        var at = 0
        for (spec in tensors) {
            val own = LongArray(spec.count) { zigzag(integers[at + it]) }
            at += spec.count
            if (own.all { it == 0L }) {
                widths.u8(ALL_ZERO)
                continue
            }
            val width = minOf(Rice.bestWidth(own.size) { own[it] }, MAX_WIDTH)
            widths.u8(width)
            for (u in own) {
                unary.writeUnary(u ushr width)
                low.write(u, width)
            }
        }
        return widths.bytes(unary.toByteArray()).bytes(low.toByteArray()).toByteArray()
    }

    /** A block, and whether it is a small one. */
    class Shorter(val isSmall: Boolean, val bytes: ByteArray)

    /** Returns a small block or a [Block] of the integers, whichever is shorter. */
    fun encodeShorter(integers: IntArray, tensors: List<TensorSpec>): Shorter {
        if (integers.size >= FEW) return Shorter(false, Block.encode(integers, tensors))
        val small = encode(integers, tensors)
        if (small.size <= WORTH_TABLES) return Shorter(true, small)
        val block = Block.encode(integers, tensors)
        return if (small.size <= block.size) Shorter(true, small) else Shorter(false, block)
    }
}
