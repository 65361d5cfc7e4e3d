package io.flwrcaesar.zstd

import io.flwrcaesar.frame.refuse

/** Reads the sequences of compressed blocks: runs of literals, and copies of what came before. */
internal class Sequences(private val out: Output) {
    private val recent = intArrayOf(1, 4, 8)
    private var lengths: FseTable? = null
    private var offsets: FseTable? = null
    private var matches: FseTable? = null

    /** Executes one block's sequences, which end where [input] does. */
    fun run(input: ForwardBytes, literals: ByteArray) {
        val count = readCount(input)
        if (count == 0) {
            if (input.left != 0) refuse("a zstd block has trailing bytes")
            out.append(literals, 0, literals.size)
            return
        }
        val modes = input.byte()
        if (modes and 3 != 0) refuse("a zstd block has reserved modes")
        val first = table(input, modes ushr 6, LENGTHS, lengths)
        val second = table(input, modes ushr 4 and 3, OFFSETS, offsets)
        val third = table(input, modes ushr 2 and 3, MATCHES, matches)
        lengths = first
        offsets = second
        matches = third
        val bits = BackwardBits(input.data, input.at, input.end)
        execute(count, bits, literals, first, second, third)
    }

    private fun readCount(input: ForwardBytes): Int {
        val head = input.byte()
        return when {
            head < 128 -> head
            head < 255 -> ((head - 128) shl 8) + input.byte()
            else -> input.number(2).toInt() + LONG_COUNT
        }
    }

    private fun execute(
        count: Int,
        bits: BackwardBits,
        literals: ByteArray,
        lengths: FseTable,
        offsets: FseTable,
        matches: FseTable,
    ) {
        var length = bits.read(lengths.log)
        var offset = bits.read(offsets.log)
        var match = bits.read(matches.log)
        var at = 0
        for (i in 1..count) {
            val offsetCode = offsets.symbol(offset)
            val lengthCode = lengths.symbol(length)
            val matchCode = matches.symbol(match)
            val distance = (1L shl offsetCode) + (bits.read(offsetCode).toLong() and 0xFFFFFFFFL)
            val copied = MATCHES.bases[matchCode] + bits.read(MATCHES.extra[matchCode])
            val run = LENGTHS.bases[lengthCode] + bits.read(LENGTHS.extra[lengthCode])
            if (i < count) {
                length = lengths.next(length, bits)
                match = matches.next(match, bits)
                offset = offsets.next(offset, bits)
            }
            if (bits.left < 0) refuse("zstd sequences are truncated")
            if (run > literals.size - at) refuse("a zstd block has too few literals")
            out.append(literals, at, run)
            at += run
            out.copy(distanceOf(distance, run == 0), copied)
        }
        if (bits.left != 0) refuse("zstd sequences have trailing bits")
        out.append(literals, at, literals.size - at)
    }

    // 1 to 3 stand for a recent distance, or where no literals precede, for the next one.
    private fun distanceOf(value: Long, hasNoLiterals: Boolean): Long {
        if (value > 3) {
            val distance = value - 3
            if (distance > Int.MAX_VALUE) refuse("a zstd distance is too large")
            remember(distance.toInt(), 2)
            return distance
        }
        val index = value.toInt() - 1 + if (hasNoLiterals) 1 else 0
        val distance = if (index == 3) recent[0] - 1 else recent[index]
        if (index > 0) remember(distance, minOf(index, 2))
        return distance.toLong()
    }

    private fun remember(distance: Int, place: Int) {
        for (i in place downTo 1) recent[i] = recent[i - 1]
        recent[0] = distance
    }

    private fun table(input: ForwardBytes, mode: Int, kind: Kind, last: FseTable?): FseTable =
        when (mode) {
            0 -> kind.default
            1 -> {
                val symbol = input.byte()
                if (symbol >= kind.alphabet) refuse("a zstd symbol is out of range")
                FseTable.single(symbol)
            }
            2 -> FseTable.read(input, kind.maxLog, kind.alphabet)
            else -> last ?: refuse("a zstd block repeats a table that was not sent")
        }

    /** One of the three fields of a sequence: RFC 8878, section 3.1.1.3.2.1.1. */
    private class Kind(val maxLog: Int, val extra: IntArray, first: Int, log: Int, shares: IntArray) {
        val alphabet = extra.size
        val bases = IntArray(alphabet)
        val default = FseTable.of(shares, log)

        init {
            var base = first
            for (i in extra.indices) {
                bases[i] = base
                base += 1 shl extra[i]
            }
        }
    }

    private companion object {
        const val LONG_COUNT = 0x7F00

        fun runs(vararg parts: Pair<Int, Int>): IntArray =
            parts.flatMap { (value, times) -> List(times) { value } }.toIntArray()

        val LENGTHS =
            Kind(
                maxLog = 9,
                extra =
                    runs(0 to 16, 1 to 4, 2 to 2, 3 to 2, 4 to 1) +
                        intArrayOf(6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16),
                first = 0,
                log = 6,
                shares = runs(4 to 1, 3 to 1, 2 to 11, 1 to 3, 2 to 9, 3 to 1, 2 to 1, 1 to 5, -1 to 4),
            )
        val OFFSETS =
            Kind(
                maxLog = 8,
                extra = IntArray(32), // a code is its own number of bits
                first = 0,
                log = 5,
                shares = runs(1 to 6, 2 to 3, 1 to 15, -1 to 5),
            )
        val MATCHES =
            Kind(
                maxLog = 9,
                extra =
                    runs(0 to 32, 1 to 4, 2 to 2, 3 to 2, 4 to 2) +
                        intArrayOf(5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16),
                first = 3,
                log = 6,
                shares = runs(1 to 1, 4 to 1, 3 to 1, 2 to 6, 1 to 37, -1 to 7),
            )
    }
}
