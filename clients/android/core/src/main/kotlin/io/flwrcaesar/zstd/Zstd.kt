package io.flwrcaesar.zstd

import io.flwrcaesar.frame.refuse

/** A reader of zstd frames (RFC 8878) that state their size and need no dictionary. */
object Zstd {
    private const val MAGIC = 0xFD2FB528L
    private const val MAX_BLOCK = 1 shl 17
    private const val MAX_WINDOW_LOG = 31
    private val DICTIONARY_BYTES = intArrayOf(0, 1, 2, 4)

    /**
     * Decompresses one frame that fills `data[from:to]`.
     *
     * @param size the bytes that the frame must state, and have; nothing else is allocated.
     * @throws io.flwrcaesar.frame.CodecError if it is no such frame.
     */
    fun decompress(data: ByteArray, from: Int, to: Int, size: Int): ByteArray {
        val input = ForwardBytes(data, from, to)
        val header = readHeader(input, size)
        val out = Output(size)
        val blocks = Blocks(out, minOf(header.window, MAX_BLOCK.toLong()).toInt())
        do {
            val isLast = blocks.read(input)
        } while (!isLast)
        if (out.size != size) refuse("a zstd frame has fewer bytes than it states")
        if (header.hasChecksum) {
            val sum = XxHash64.of(out.bytes) and 0xFFFFFFFFL
            if (input.number(4) != sum) refuse("a zstd frame's checksum differs")
        }
        if (input.left != 0) refuse("a zstd frame is followed by other bytes")
        return out.bytes
    }

    private class Header(val window: Long, val hasChecksum: Boolean)

    private fun readHeader(input: ForwardBytes, size: Int): Header {
        if (input.number(4) != MAGIC) refuse("not a zstd frame")
        val flags = input.byte()
        val isSingleSegment = flags and 0x20 != 0
        if (flags and 0x08 != 0) refuse("a zstd frame has a reserved bit")
        val window = if (isSingleSegment) size.toLong() else readWindow(input)
        if (input.number(DICTIONARY_BYTES[flags and 3]) != 0L) refuse("a zstd frame needs a dictionary")
        val stated =
            when (flags ushr 6) {
                0 -> if (isSingleSegment) input.number(1) else refuse("a zstd frame states no size")
                1 -> input.number(2) + 256
                2 -> input.number(4)
                else -> input.number(8)
            }
        if (stated != size.toLong()) refuse("a zstd frame states another size")
        return Header(window, flags and 0x04 != 0)
    }

    private fun readWindow(input: ForwardBytes): Long {
        val code = input.byte()
        val log = 10 + (code ushr 3)
        if (log > MAX_WINDOW_LOG) refuse("a zstd frame needs too large a window")
        return (1L shl log) + (1L shl log) / 8 * (code and 7)
    }

    private class Blocks(private val out: Output, private val limit: Int) {
        private val literals = Literals()
        private val sequences = Sequences(out)

        /** Reads one block and tells whether it is the last. */
        fun read(input: ForwardBytes): Boolean {
            val head = input.number(3).toInt()
            val size = head ushr 3
            when (head ushr 1 and 3) {
                0 -> out.append(input.data, input.skip(size), size)
                1 -> out.fill(input.byte().toByte(), size)
                2 -> compressed(input, size)
                else -> refuse("a zstd frame has a reserved block")
            }
            return head and 1 == 1
        }

        private fun compressed(input: ForwardBytes, size: Int) {
            if (size > limit) refuse("a zstd block is too large")
            val start = input.skip(size)
            if (size == 0) refuse("a zstd block is empty")
            val block = ForwardBytes(input.data, start, input.at)
            sequences.run(block, literals.read(block, limit))
        }
    }
}
