package io.flwrcaesar.coding

import io.flwrcaesar.frame.ByteSink
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u32

/**
 * Signed integers of up to 32 bits as symbols of a small alphabet and raw bits.
 *
 * Section 9 of `docs/wire-format.md`, "Integers", has the bytes.
 */
internal object Integers {
    private const val DIRECT = 64
    private const val MANTISSA_BITS = 4
    private const val OCTAVE = 1 shl MANTISSA_BITS
    private const val FIRST_WIDTH = 2
    private const val LAST_WIDTH = 27

    /**
     * Decodes the integers that fill `data[from:to]`.
     *
     * @param contexts for each integer, as an unsigned byte, the number of its table.
     * @param tables how many tables there are.
     */
    fun decode(
        data: ByteArray,
        from: Int,
        to: Int,
        contexts: ByteArray,
        tables: Int,
    ): IntArray {
        if (to - from < 4) refuse("integers are truncated")
        val symbolBytes = data.u32(from)
        if (symbolBytes > to - from - 4) refuse("integers are truncated")
        val rawStart = from + 4 + symbolBytes.toInt()
        val symbols = SymbolReader.decode(data, from + 4, rawStart, contexts, tables)
        val raw = rawReaders(symbols, data, rawStart, to)
        return IntArray(symbols.size) { i ->
            val symbol = symbols[i].toInt()
            if (symbol < DIRECT) {
                unzigzag(symbol.toLong())
            } else {
                val width = rawBits(symbol)
                val mantissa = (OCTAVE or (symbol % OCTAVE)).toLong()
                unzigzag((mantissa shl width) or raw[width]!!.read(width))
            }
        }
    }

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
        val raw = arrayOfNulls<BitWriter>(LAST_WIDTH + 1)
        for (i in values.indices) {
            if (symbols[i] < DIRECT) continue
            val width = rawBits(symbols[i].toInt())
            val writer = raw[width] ?: BitWriter().also { raw[width] = it }
            writer.write(zigzag(values[i]), width)
        }
        val packed = SymbolWriter.encode(symbols, contexts, tables)
        val sink = ByteSink(packed.size + 4).u32(packed.size).bytes(packed)
        raw.forEach { if (it != null) sink.bytes(it.toByteArray()) }
        return sink.toByteArray()
    }

    private fun rawBits(symbol: Int): Int = FIRST_WIDTH + (symbol - DIRECT) / OCTAVE

    // The raw bits of one width stand together, those of smaller widths before them.
    private fun rawReaders(
        symbols: ShortArray,
        data: ByteArray,
        start: Int,
        end: Int,
    ): Array<BitReader?> {
        val counts = LongArray(LAST_WIDTH + 1)
        for (symbol in symbols) {
            if (symbol < DIRECT) continue
            val width = rawBits(symbol.toInt())
            if (width > LAST_WIDTH) refuse("an integer exceeds 32 bits")
            counts[width]++
        }
        val readers = arrayOfNulls<BitReader>(LAST_WIDTH + 1)
        var at = start.toLong()
        for (width in FIRST_WIDTH..LAST_WIDTH) {
            val next = at + (width * counts[width] + 7) / 8
            if (next > end) refuse("integers are truncated")
            readers[width] = BitReader(data, at.toInt(), next.toInt())
            at = next
        }
        if (at != end.toLong()) refuse("integers have trailing bytes")
        return readers
    }
}
