package io.flwrcaesar.zstd

import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u8

/** The decoding table of a Huffman tree (RFC 8878, section 4.2). */
internal class HuffmanTable private constructor(
    private val log: Int,
    private val symbols: ByteArray,
    private val widths: ByteArray,
) {
    /** Decodes one stream into `out[first:last]`; the stream must end with the last symbol. */
    fun decode(
        data: ByteArray,
        from: Int,
        to: Int,
        out: ByteArray,
        first: Int,
        last: Int,
    ) {
        val bits = BackwardBits(data, from, to)
        for (i in first until last) {
            val code = bits.peek(log)
            out[i] = symbols[code]
            bits.left -= widths[code].toInt()
            if (bits.left < 0) refuse("zstd literals are truncated")
        }
        if (bits.left != 0) refuse("zstd literals have trailing bits")
    }

    companion object {
        private const val MAX_BITS = 11
        private const val MAX_SYMBOLS = 256
        private const val DIRECT = 128
        private const val MAX_WEIGHT_LOG = 6

        /** Reads the description of a tree. */
        fun read(input: ForwardBytes): HuffmanTable {
            val weights = ByteArray(MAX_SYMBOLS)
            val head = input.byte()
            val count =
                if (head >= DIRECT) {
                    readDirect(input, head - DIRECT + 1, weights)
                } else {
                    val start = input.skip(head)
                    readCompressed(ForwardBytes(input.data, start, input.at), weights)
                }
            return build(weights, count)
        }

        private fun readDirect(input: ForwardBytes, count: Int, weights: ByteArray): Int {
            val start = input.skip((count + 1) / 2)
            for (i in 0 until count) {
                val pair = input.data.u8(start + i / 2)
                weights[i] = (if (i % 2 == 0) pair ushr 4 else pair and 15).toByte()
            }
            return count
        }

        // Two states take turns; the one that cannot step any more ends the weights.
        private fun readCompressed(input: ForwardBytes, weights: ByteArray): Int {
            val table = FseTable.read(input, MAX_WEIGHT_LOG, MAX_SYMBOLS)
            val bits = BackwardBits(input.data, input.at, input.end)
            var state = bits.read(table.log)
            var other = bits.read(table.log)
            if (bits.left < 0) refuse("a zstd tree is truncated")
            var count = 0
            while (true) {
                if (count > MAX_SYMBOLS - 3) refuse("a zstd tree has too many symbols")
                weights[count++] = table.symbol(state).toByte()
                if (bits.left < table.width(state)) {
                    weights[count++] = table.symbol(other).toByte()
                    return count
                }
                val stepped = table.next(state, bits)
                state = other
                other = stepped
            }
        }

        // The last symbol's weight is not written: it makes the sum a power of two.
        private fun build(weights: ByteArray, written: Int): HuffmanTable {
            var sum = 0
            for (i in 0 until written) {
                if (weights[i] > MAX_BITS) refuse("a zstd tree is too deep")
                if (weights[i] > 0) sum += 1 shl (weights[i] - 1)
            }
            if (sum == 0) refuse("a zstd tree is empty")
            val log = 32 - Integer.numberOfLeadingZeros(sum)
            val rest = (1 shl log) - sum
            if (log > MAX_BITS || rest and (rest - 1) != 0) refuse("a zstd tree is malformed")
            weights[written] = (32 - Integer.numberOfLeadingZeros(rest)).toByte()
            val ones = weights.count { it == 1.toByte() }
            if (ones < 2 || ones % 2 != 0) refuse("a zstd tree is malformed")
            val symbols = ByteArray(1 shl log)
            val widths = ByteArray(1 shl log)
            var at = 0
            for (weight in 1..log) {
                for (symbol in 0..written) {
                    if (weights[symbol].toInt() != weight) continue
                    val end = at + (1 shl (weight - 1))
                    symbols.fill(symbol.toByte(), at, end)
                    widths.fill((log + 1 - weight).toByte(), at, end)
                    at = end
                }
            }
            return HuffmanTable(log, symbols, widths)
        }
    }
}
