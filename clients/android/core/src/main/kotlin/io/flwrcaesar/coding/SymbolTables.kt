package io.flwrcaesar.coding

import io.flwrcaesar.frame.ByteSink
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u16
import io.flwrcaesar.frame.u32
import io.flwrcaesar.frame.u8

/**
 * Frequency tables of the entropy coder: a weight code for each symbol of each context.
 *
 * Section 9 of `docs/wire-format.md`, "Tables", has the bytes and the arithmetic.
 */
internal object SymbolTables {
    /** The frequencies of a context sum to `2^SCALE_BITS`. */
    const val SCALE_BITS = 14
    const val SCALE = 1 shl SCALE_BITS

    /** There are fewer symbols than this. */
    const val ALPHABET = 512
    private const val COMPACT_ALPHABET = 128
    private const val MAX_CODE = 136
    private const val FIRST_GUESS = 128
    private const val MAX_WEIGHT = 15 shl 16
    private const val MAX_LOW_BITS = 7
    private val weights = LongArray(MAX_CODE + 1) { weight(it) }
    private val edges = DoubleArray(MAX_CODE - 1) { Math.sqrt(weights[it + 1].toDouble() * weights[it + 2]) }

    private fun weight(code: Int): Long = if (code == 0) 0 else (8L + (code - 1) % 8) shl ((code - 1) / 8)

    /** Weight codes by context, and where the bytes after them begin. */
    class Read(val codes: List<IntArray>, val end: Int)

    /** Reads the tables of [contexts] contexts. */
    fun read(data: ByteArray, start: Int, contexts: Int): Read {
        val head = start + 2 * contexts
        if (data.size - start < 2 * contexts + 9) refuse("symbol tables are truncated")
        val sizes = IntArray(contexts) { data.u16(start + 2 * it) }
        val total = sizes.sum()
        val width = data.u8(head)
        val unarySize = data.u32(head + 1)
        val lowSize = data.u32(head + 5)
        val unaryStart = head + 9
        if (width > MAX_LOW_BITS || sizes.any { it > ALPHABET } || unarySize > 64L * total ||
            unarySize + lowSize > data.size - unaryStart || lowSize != (width.toLong() * total + 7) / 8
        ) {
            refuse("symbol tables are malformed")
        }
        val lowStart = unaryStart + unarySize.toInt()
        val end = lowStart + lowSize.toInt()
        val unary = BitReader(data, unaryStart, lowStart)
        val low = BitReader(data, lowStart, end)
        val codes = readCodes(sizes, width, unary, low)
        if (!unary.hasOnlyZerosLeft()) refuse("symbol tables are malformed")
        return Read(codes, end)
    }

    /** Reads the tables of [contexts] contexts of a compact run. */
    fun readCompact(data: ByteArray, start: Int, contexts: Int): Read {
        val head = start + contexts
        if (data.size <= head) refuse("symbol tables are truncated")
        val sizes = IntArray(contexts) { data.u8(start + it) }
        val width = data.u8(head)
        if (width > MAX_LOW_BITS || sizes.any { it > COMPACT_ALPHABET }) refuse("symbol tables are malformed")
        val unary = BitReader(data, head + 1, minOf(data.size.toLong(), head + 1 + 64L * sizes.sum()).toInt())
        val quotients = BitReader(data, head + 1, data.size)
        var bits = 0L
        repeat(sizes.sum()) { bits += unary.zeros() + 1 }
        val lowStart = head + 1 + (bits + 7) / 8
        val end = lowStart + (width.toLong() * sizes.sum() + 7) / 8
        if (end > data.size) refuse("symbol tables are truncated")
        val low = BitReader(data, lowStart.toInt(), end.toInt())
        return Read(readCodes(sizes, width, quotients, low), end.toInt())
    }

    private fun readCodes(
        sizes: IntArray,
        width: Int,
        unary: BitReader,
        low: BitReader,
    ): List<IntArray> {
        var before = IntArray(0)
        return sizes.map { size ->
            val codes = IntArray(size)
            for (i in 0 until size) {
                val z = (unary.zeros() shl width) or low.read(width)
                val difference = (z ushr 1) xor -(z and 1)
                val code = difference + guess(codes, i, before)
                if (code !in 0..MAX_CODE) refuse("symbol tables are malformed")
                codes[i] = code.toInt()
            }
            if (size > 0 && codes.last() == 0) refuse("symbol tables are malformed")
            if (size > 0) before = codes
            codes
        }
    }

    private fun guess(codes: IntArray, i: Int, before: IntArray): Int =
        when {
            i < before.size -> before[i]
            i > 0 -> codes[i - 1]
            else -> FIRST_GUESS
        }

    /** Serialises what [read] reads. */
    fun write(codes: List<IntArray>): ByteArray {
        val differences = Differences(codes)
        val sink = ByteSink()
        differences.sizes.forEach { sink.u16(it) }
        return sink
            .u8(differences.width)
            .u32(differences.unary.size)
            .u32(differences.low.size)
            .bytes(differences.unary)
            .bytes(differences.low)
            .toByteArray()
    }

    /** Serialises what [readCompact] reads. */
    fun writeCompact(codes: List<IntArray>): ByteArray {
        val differences = Differences(codes)
        val sink = ByteSink()
        differences.sizes.forEach { sink.u8(it) }
        return sink.u8(differences.width).bytes(differences.unary).bytes(differences.low).toByteArray()
    }

    /** The sizes of tables, and the differences of all codes in the shortest Rice code. */
    private class Differences(codes: List<IntArray>) {
        val sizes = codes.map { row -> row.indexOfLast { it != 0 } + 1 }
        val width: Int
        val unary: ByteArray
        val low: ByteArray

        init {
            val found = ArrayList<Long>()
            var before = IntArray(0)
            for ((row, size) in codes.zip(sizes)) {
                for (i in 0 until size) found += zigzag(row[i] - guess(row, i, before))
                if (size > 0) before = row.copyOf(size)
            }
            width = (0..MAX_LOW_BITS).minByOrNull { width -> Rice.cost(found.size, width) { found[it] } } ?: 0
            val quotients = BitWriter()
            val rest = BitWriter()
            for (difference in found) {
                quotients.writeUnary(difference ushr width)
                rest.write(difference, width)
            }
            unary = quotients.toByteArray()
            low = rest.toByteArray()
        }
    }

    /** Returns a weight code for each count of a context; a positive count never gets 0. */
    fun codesOf(counts: IntArray): IntArray {
        val largest = maxOf(counts.maxOrNull() ?: 0, 1)
        val unit = MAX_WEIGHT / largest.toDouble()
        return IntArray(counts.size) { i ->
            if (counts[i] == 0) 0 else edgesBelow(counts[i] * unit) + 1
        }
    }

    private fun edgesBelow(value: Double): Int {
        val found = edges.binarySearch(value)
        return if (found >= 0) found else -found - 1
    }

    /** Turns the weight codes of a context into frequencies that sum to [SCALE]. */
    fun frequencies(codes: IntArray): IntArray {
        val total = codes.sumOf { weights[it] }
        val found =
            IntArray(codes.size) { i ->
                val weight = weights[codes[i]]
                if (weight == 0L) 0 else maxOf(1, ((2 * weight * SCALE + total) / (2 * total)).toInt())
            }
        var excess = found.sum() - SCALE
        while (excess != 0) {
            val i = found.indices.maxByOrNull { found[it] } ?: refuse("a symbol table is empty")
            val step = minOf(excess, found[i] - 1)
            found[i] -= step
            excess -= step
        }
        return found
    }
}
