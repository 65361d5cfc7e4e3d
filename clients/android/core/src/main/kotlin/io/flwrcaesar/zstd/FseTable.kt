package io.flwrcaesar.zstd

import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u8

/**
 * A decoding table of finite state entropy (RFC 8878, section 4.1).
 *
 * @property log the table has `2^log` states.
 */
internal class FseTable private constructor(
    val log: Int,
    private val symbols: ByteArray,
    private val widths: ByteArray,
    private val bases: IntArray,
) {
    /** Returns the symbol that a state stands for. */
    fun symbol(state: Int): Int = symbols.u8(state)

    /** Returns how many bits the step from a state to the next takes. */
    fun width(state: Int): Int = widths[state].toInt()

    /** Reads the bits that lead from a state to the next. */
    fun next(state: Int, bits: BackwardBits): Int = bases[state] + bits.read(width(state))

    companion object {
        /** Returns the table that has one state and needs no bits. */
        fun single(symbol: Int) = FseTable(0, byteArrayOf(symbol.toByte()), ByteArray(1), IntArray(1))

        /**
         * Builds the table of a distribution.
         *
         * @param shares for each symbol how many of the `2^log` states it has; -1 for one state
         * that takes all bits anew.
         */
        fun of(shares: IntArray, log: Int): FseTable {
            val size = 1 shl log
            val symbols = spread(shares, size)
            val widths = ByteArray(size)
            val bases = IntArray(size)
            val next = IntArray(shares.size) { if (shares[it] == -1) 1 else shares[it] }
            for (state in 0 until size) {
                val x = next[symbols.u8(state)]++
                val width = log - (31 - Integer.numberOfLeadingZeros(x))
                widths[state] = width.toByte()
                bases[state] = (x shl width) - size
            }
            return FseTable(log, symbols, widths, bases)
        }

        private fun spread(shares: IntArray, size: Int): ByteArray {
            val symbols = ByteArray(size)
            var high = size - 1
            shares.forEachIndexed { symbol, share ->
                if (share == -1) symbols[high--] = symbol.toByte()
            }
            val step = (size shr 1) + (size shr 3) + 3
            var at = 0
            shares.forEachIndexed { symbol, share ->
                repeat(share) {
                    symbols[at] = symbol.toByte()
                    do at = (at + step) and (size - 1) while (at > high)
                }
            }
            if (at != 0) refuse("a zstd table does not fill its states")
            return symbols
        }

        /**
         * Reads a distribution and builds its table.
         *
         * @param maxLog the largest `log` that is allowed.
         * @param alphabet how many symbols there may be.
         */
        fun read(input: ForwardBytes, maxLog: Int, alphabet: Int): FseTable {
            val bits = ForwardBits(input)
            val log = bits.read(4) + 5
            if (log > maxLog) refuse("a zstd table is too fine")
            val shares = IntArray(alphabet)
            var count = 0
            var left = 1 shl log
            while (left > 0) {
                if (count >= alphabet) refuse("a zstd table has too many symbols")
                val share = readShare(bits, left)
                shares[count++] = share
                left -= Math.abs(share)
                if (share == 0) {
                    do {
                        val zeros = bits.read(2)
                        count += zeros
                    } while (zeros == 3)
                }
            }
            if (left != 0 || count > alphabet) refuse("a zstd table is malformed")
            bits.finish()
            return of(shares.copyOf(count), log)
        }

        // A number from 0 to left + 1, in as few bits as these need: the small ones save one.
        private fun readShare(bits: ForwardBits, left: Int): Int {
            val most = left + 1
            val width = 32 - Integer.numberOfLeadingZeros(most)
            val saved = (1 shl width) - 1 - most
            val low = bits.peek(width - 1)
            if (low < saved) {
                bits.read(width - 1)
                return low - 1
            }
            val value = bits.read(width)
            return (if (value >= 1 shl (width - 1)) value - saved else value) - 1
        }
    }
}

/** Bits that are read from the start, the lowest of a byte first. */
private class ForwardBits(private val input: ForwardBytes) {
    private val start = input.at
    private var bit = 0

    fun peek(n: Int): Int {
        var value = 0
        for (i in 0 until n) {
            val at = start + ((bit + i) ushr 3)
            if (at < input.end) {
                value = value or ((input.data.u8(at) ushr ((bit + i) and 7) and 1) shl i)
            }
        }
        return value
    }

    fun read(n: Int): Int = peek(n).also { bit += n }

    /** Moves the bytes behind the last one that was begun. */
    fun finish() {
        input.skip((bit + 7) ushr 3)
    }
}
