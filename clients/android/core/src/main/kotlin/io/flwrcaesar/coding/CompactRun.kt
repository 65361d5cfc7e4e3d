package io.flwrcaesar.coding

import io.flwrcaesar.frame.ByteSink
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u8

/**
 * A run of integers in contexts, with little beside what the integers take.
 *
 * Section 9 of `docs/wire-format.md`, "Compact blocks", has the bytes.
 */
internal object CompactRun {
    private const val DIRECT = 16
    private const val MANTISSA_BITS = 2
    private const val OCTAVE = 1 shl MANTISSA_BITS
    private const val FIRST_WIDTH = 2
    private const val LAST_WIDTH = 29
    private const val MOST = 0xFFFFFFFEL
    private const val MAX_VARINT_BYTES = 9

    /** Integers, and where the bytes after them begin. */
    class Read(val values: IntArray, val end: Int)

    /**
     * Decodes the integers that begin at [start].
     *
     * @param contexts for each integer, as an unsigned byte, the number of its table.
     * @param tables how many tables there are.
     */
    fun decode(data: ByteArray, start: Int, contexts: ByteArray, tables: Int): Read {
        return decode(data, contexts, SymbolTables.readCompact(data, start, tables))
    }

    /** Decodes the integers whose tables were read already, of what is behind these. */
    fun decode(data: ByteArray, contexts: ByteArray, read: SymbolTables.Read): Read {
        val numbers = Varints(data, read.end)
        val words = numbers.next()
        val lanes = numbers.next()
        val isTwo = lanes and 1 == 1L
        val head = if (isTwo) numbers.next() else 0
        val many = if (isTwo) numbers.next() else 1
        val borrowed = if (isTwo) numbers.next() else 0
        if (isTwo && head == 0L) refuse("a run of integers is malformed")
        val header = Lanes.Header.of(contexts.size, head, many, lanes ushr 1, borrowed, words)
        if (words > (data.size - numbers.at) / 2) refuse("a run of integers is truncated")
        val rawStart = numbers.at + 2 * words.toInt()
        val symbols = SymbolReader.pull(header, data, numbers.at, rawStart, contexts, read.codes)
        return values(symbols, data, rawStart)
    }

    // The raw bits of one width stand together, those of smaller widths before them.
    private fun values(symbols: ShortArray, data: ByteArray, start: Int): Read {
        val counts = LongArray(LAST_WIDTH + 1)
        for (symbol in symbols) if (symbol >= DIRECT) counts[rawBits(symbol.toInt())]++
        val raw = arrayOfNulls<BitReader>(LAST_WIDTH + 1)
        var at = start.toLong()
        for (width in FIRST_WIDTH..LAST_WIDTH) {
            val next = at + (width * counts[width] + 7) / 8
            if (next > data.size) refuse("integers are truncated")
            raw[width] = BitReader(data, at.toInt(), next.toInt())
            at = next
        }
        val found =
            IntArray(symbols.size) { i ->
                val symbol = symbols[i].toInt()
                var u = symbol.toLong()
                if (symbol >= DIRECT) {
                    val width = rawBits(symbol)
                    u = ((OCTAVE or symbol % OCTAVE).toLong() shl width) or raw[width]!!.read(width)
                    if (u > MOST) refuse("an integer exceeds 2^31 - 1")
                }
                unzigzag(u)
            }
        return Read(found, at.toInt())
    }

    private fun rawBits(symbol: Int): Int = FIRST_WIDTH + (symbol - DIRECT) / OCTAVE

    /** Returns the symbol of an integer. */
    fun symbol(value: Int): Int {
        val u = zigzag(value)
        if (u < DIRECT) return u.toInt()
        val width = 63 - java.lang.Long.numberOfLeadingZeros(u) - MANTISSA_BITS
        return DIRECT + (width - FIRST_WIDTH) * OCTAVE + ((u ushr width).toInt() and (OCTAVE - 1))
    }

    /** Encodes integers; see [decode]. */
    fun encode(values: IntArray, contexts: ByteArray, tables: Int): ByteArray {
        val symbols = ShortArray(values.size) { symbol(values[it]).toShort() }
        val counts = SymbolCounts(tables)
        for (i in symbols.indices) counts.add(contexts[i].toInt() and 0xFF, symbols[i].toInt())
        val codes = List(tables) { SymbolTables.codesOf(counts.of(it)) }
        val pushed = SymbolWriter.push(symbols, contexts, codes, counts.entropyBits())
        val header = pushed.header
        val sink = ByteSink().bytes(SymbolTables.writeCompact(codes))
        varint(sink, header.words)
        varint(sink, 2L * header.few + if (header.head > 0) 1 else 0)
        if (header.head > 0) {
            for (number in intArrayOf(header.head, header.many, header.borrowed)) varint(sink, number.toLong())
        }
        sink.bytes(pushed.words)
        val raw = arrayOfNulls<BitWriter>(LAST_WIDTH + 1)
        for (i in values.indices) {
            if (symbols[i] < DIRECT) continue
            val width = rawBits(symbols[i].toInt())
            val writer = raw[width] ?: BitWriter().also { raw[width] = it }
            writer.write(zigzag(values[i]), width)
        }
        raw.forEach { if (it != null) sink.bytes(it.toByteArray()) }
        return sink.toByteArray()
    }

    private fun varint(sink: ByteSink, value: Long) {
        var rest = value
        while (rest > 0x7F) {
            sink.u8((rest and 0x7F).toInt() or 0x80)
            rest = rest ushr 7
        }
        sink.u8(rest.toInt())
    }

    private class Varints(private val data: ByteArray, var at: Int) {
        fun next(): Long {
            var value = 0L
            for (i in 0 until MAX_VARINT_BYTES) {
                if (at == data.size) refuse("a number is truncated")
                val byte = data.u8(at++)
                value = value or ((byte and 0x7F).toLong() shl (7 * i))
                if (byte < 0x80) {
                    if (i > 0 && byte == 0) refuse("a number has more bytes than it needs")
                    return value
                }
            }
            refuse("a number is too long")
        }
    }
}
