package io.flwrcaesar.coding

import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u16
import io.flwrcaesar.frame.u32
import io.flwrcaesar.frame.u64

/**
 * Symbols from bytes, by interleaved range asymmetric numeral systems (rANS).
 *
 * Section 9 of `docs/wire-format.md` has the bytes.
 */
internal object SymbolReader {
    /**
     * Decodes the symbols that fill `data[from:to]`.
     *
     * @param contexts for each symbol, as an unsigned byte, the number of its table.
     * @param tables how many tables there are, at most 256.
     */
    fun decode(
        data: ByteArray,
        from: Int,
        to: Int,
        contexts: ByteArray,
        tables: Int,
    ): ShortArray {
        val header = Lanes.Header.read(data, from, to, contexts.size, tables)
        val own = data.copyOfRange(from + Lanes.Header.BYTES, to)
        val read = SymbolTables.read(own, 0, tables)
        if (own.size - read.end.toLong() != 2 * header.words) refuse("symbols have the wrong length")
        return pull(header, own, read.end, own.size, contexts, read.codes)
    }

    /**
     * Decodes symbols from the words that fill `data[from:to]`.
     *
     * @param codes for each context, the weight codes of its table.
     */
    fun pull(
        header: Lanes.Header,
        data: ByteArray,
        from: Int,
        to: Int,
        contexts: ByteArray,
        codes: List<IntArray>,
    ): ShortArray {
        val slots = slotTables(codes, contexts)
        val words = Words(data, from, to)
        val symbols = ShortArray(contexts.size)
        if (header.head > 0) {
            val states = readStates(words, header.many)
            pull(states, words, symbols, 0, header.head, contexts, slots)
            words.putBack(lent(states, header.borrowed))
        }
        val states = readStates(words, header.few)
        pull(states, words, symbols, header.head, symbols.size, contexts, slots)
        if (!words.isEmpty || states.any { it != Lanes.LOWEST }) refuse("symbols end in a wrong state")
        return symbols
    }

    private fun slotTables(codes: List<IntArray>, contexts: ByteArray): Array<SlotTable?> {
        val counts = IntArray(256)
        for (context in contexts) counts[context.toInt() and 0xFF]++
        return Array(codes.size) { i ->
            when {
                counts[i] == 0 -> null
                codes[i].isEmpty() -> refuse("symbols use a context without a table")
                else -> SlotTable(SymbolTables.frequencies(codes[i]), counts[i])
            }
        }
    }

    /** The states behind the first part: those of the first lanes hold a borrowed word each. */
    private fun lent(states: LongArray, borrowed: Int): IntArray {
        for ((lane, state) in states.withIndex()) {
            val limit = if (lane < borrowed) 2 * Lanes.LOWEST else Lanes.LOWEST + 1
            if (state >= limit) refuse("symbols end in a wrong state")
        }
        return IntArray(borrowed) { (states[it] - Lanes.LOWEST).toInt() }
    }

    private fun readStates(words: Words, lanes: Int): LongArray {
        val flags = words.bytes((lanes + 15) / 16 * 2)
        val isLarge = BooleanArray(8 * flags.size) { flags[it / 8].toInt() ushr (7 - it % 8) and 1 == 1 }
        if ((lanes until isLarge.size).any { isLarge[it] }) refuse("symbols start in a wrong state")
        val states = LongArray(lanes) { words.next().toLong() }
        val large = isLarge.count { it }
        val upper = words.bytes((lanes + large + 1) / 2 * 2)
        var top = lanes
        for (lane in 0 until lanes) {
            var high = upper[lane].toLong() and 0xFF
            if (isLarge[lane]) high = high or ((upper[top++].toLong() and 0xFF) shl 8)
            if (high == 0L) refuse("symbols start in a wrong state")
            states[lane] = states[lane] or (high shl 16)
        }
        return states
    }

    private fun pull(
        states: LongArray,
        words: Words,
        symbols: ShortArray,
        from: Int,
        to: Int,
        contexts: ByteArray,
        tables: Array<SlotTable?>,
    ) {
        var lane = 0
        for (i in from until to) {
            val table = tables[contexts[i].toInt() and 0xFF]!!
            val state = states[lane]
            val slot = (state and (SymbolTables.SCALE - 1L)).toInt()
            val symbol = table.find(slot)
            symbols[i] = symbol.toShort()
            var next = table.width(symbol) * (state ushr SymbolTables.SCALE_BITS) + slot - table.first(symbol)
            if (next < Lanes.LOWEST) next = (next shl 16) or words.next().toLong()
            states[lane] = next
            if (++lane == states.size) lane = 0
        }
    }

    /** Which symbol each slot of a context stands for. */
    private class SlotTable(private val widths: IntArray, uses: Int) {
        private val firsts = IntArray(widths.size)
        private val bySlot: ShortArray?

        init {
            var first = 0
            for (symbol in widths.indices) {
                firsts[symbol] = first
                first += widths[symbol]
            }
            bySlot = if (uses > WORTH_A_TABLE) expand() else null
        }

        private fun expand(): ShortArray {
            val slots = ShortArray(SymbolTables.SCALE)
            for (symbol in widths.indices) {
                slots.fill(symbol.toShort(), firsts[symbol], firsts[symbol] + widths[symbol])
            }
            return slots
        }

        fun width(symbol: Int): Int = widths[symbol]

        fun first(symbol: Int): Int = firsts[symbol]

        fun find(slot: Int): Int {
            if (bySlot != null) return bySlot[slot].toInt()
            var low = 0
            var high = firsts.size
            while (high - low > 1) {
                val middle = (low + high) ushr 1
                if (firsts[middle] <= slot) low = middle else high = middle
            }
            return low // the last that begins here: those before it have no slots
        }
    }

    private const val WORTH_A_TABLE = 2048

    /** Words that are not read yet: first those that were put back, then those of the data. */
    private class Words(private val data: ByteArray, private var at: Int, private val end: Int) {
        private var lent = IntArray(0)
        private var nextLent = 0

        val isEmpty: Boolean get() = nextLent == lent.size && at == end

        fun putBack(words: IntArray) {
            lent = words
            nextLent = 0
        }

        fun next(): Int {
            if (nextLent < lent.size) return lent[nextLent++]
            if (end - at < 2) refuse("symbols are truncated")
            at += 2
            return data.u16(at - 2)
        }

        fun bytes(count: Int): ByteArray {
            val found = ByteArray(count)
            for (i in 0 until count step 2) {
                val word = next()
                found[i] = word.toByte()
                found[i + 1] = (word ushr 8).toByte()
            }
            return found
        }
    }
}
