package io.flwrcaesar.coding

import io.flwrcaesar.frame.ByteSink

/** Symbols to bytes that [SymbolReader] reads. */
internal object SymbolWriter {
    /**
     * Encodes symbols, each by the table of its context.
     *
     * @param contexts for each symbol, as an unsigned byte, the number of its table.
     * @param tables how many tables there are, at most 256.
     */
    fun encode(symbols: ShortArray, contexts: ByteArray, tables: Int): ByteArray {
        val counts = SymbolCounts(tables)
        for (i in symbols.indices) counts.add(contexts[i].toInt() and 0xFF, symbols[i].toInt())
        val codes = List(tables) { SymbolTables.codesOf(counts.of(it)) }
        val pushed = push(symbols, contexts, codes, counts.entropyBits())
        val sink = ByteSink()
        pushed.header.write(sink, symbols.size, tables)
        return sink.bytes(SymbolTables.write(codes)).bytes(pushed.words).toByteArray()
    }

    /** Words, and how they are shared out. */
    class Pushed(val header: Lanes.Header, val words: ByteArray)

    /**
     * Encodes symbols of together about [bits] bits.
     *
     * @param codes for each context, the weight codes of its table.
     */
    fun push(
        symbols: ShortArray,
        contexts: ByteArray,
        codes: List<IntArray>,
        bits: Double,
    ): Pushed {
        val plan = Lanes.plan(symbols.size, bits)
        val slots = codes.map { if (it.all { code -> code == 0 }) null else Slots(SymbolTables.frequencies(it)) }

        val few = LongArray(plan.few) { Lanes.LOWEST }
        var stack = push(few, symbols, plan.head, symbols.size, contexts, slots)
        stack = Words().apply { states(few) }.append(stack)
        var borrowed = 0
        if (plan.head > 0) {
            borrowed = minOf(plan.many, stack.size)
            val many = LongArray(plan.many) { Lanes.LOWEST + if (it < borrowed) stack[it] else 0 }
            val first = push(many, symbols, 0, plan.head, contexts, slots)
            stack = Words().apply { states(many) }.append(first).append(stack, borrowed)
        }
        val sink = ByteSink(2 * stack.size)
        for (i in 0 until stack.size) sink.u16(stack[i])
        val header = Lanes.Header(plan.head, plan.many, plan.few, borrowed, stack.size.toLong())
        return Pushed(header, sink.toByteArray())
    }

    // The reader is a stack's other end: the last symbol goes in first.
    private fun push(
        states: LongArray,
        symbols: ShortArray,
        from: Int,
        to: Int,
        contexts: ByteArray,
        slots: List<Slots?>,
    ): Words {
        val words = Words()
        var lane = (to - from) % states.size
        for (i in to - 1 downTo from) {
            lane = if (lane == 0) states.size - 1 else lane - 1
            val table = slots[contexts[i].toInt() and 0xFF]!!
            val width = table.widths[symbols[i].toInt()].toLong()
            var state = states[lane]
            if (state >= width shl (32 - SymbolTables.SCALE_BITS)) {
                words.add((state and 0xFFFF).toInt())
                state = state ushr 16
            }
            states[lane] = (state / width shl SymbolTables.SCALE_BITS) + state % width +
                table.firsts[symbols[i].toInt()]
        }
        return words.apply { reverse() }
    }

    private class Slots(val widths: IntArray) {
        val firsts = IntArray(widths.size)

        init {
            for (symbol in 1 until widths.size) firsts[symbol] = firsts[symbol - 1] + widths[symbol - 1]
        }
    }

    /** A growing run of 16-bit words. */
    private class Words {
        private var data = ShortArray(64)
        var size = 0
            private set

        operator fun get(i: Int): Int = data[i].toInt() and 0xFFFF

        fun add(word: Int) {
            if (size == data.size) data = data.copyOf(2 * size)
            data[size++] = word.toShort()
        }

        fun append(other: Words, from: Int = 0): Words {
            for (i in from until other.size) add(other[i])
            return this
        }

        fun reverse() = data.reverse(0, size)

        /** Adds states: which are large, the low halves, the third bytes, the fourth bytes. */
        fun states(states: LongArray) {
            val isLarge = BooleanArray(states.size) { states[it] ushr 24 != 0L }
            val flags = BitWriter()
            for (lane in 0 until (states.size + 15) / 16 * 16) {
                flags.write(if (lane < states.size && isLarge[lane]) 1 else 0, 1)
            }
            bytes(flags.toByteArray())
            for (state in states) add((state and 0xFFFF).toInt())
            val upper = ByteSink()
            for (state in states) upper.u8((state ushr 16).toInt())
            for (lane in states.indices) if (isLarge[lane]) upper.u8((states[lane] ushr 24).toInt())
            if (upper.size % 2 == 1) upper.u8(0)
            bytes(upper.toByteArray())
        }

        private fun bytes(bytes: ByteArray) {
            for (i in bytes.indices step 2) {
                add((bytes[i].toInt() and 0xFF) or ((bytes[i + 1].toInt() and 0xFF) shl 8))
            }
        }
    }
}
