package io.flwrcaesar.zstd

import io.flwrcaesar.frame.refuse

/** Reads the literals of compressed blocks, and keeps the tree for the blocks after it. */
internal class Literals {
    private var tree: HuffmanTable? = null

    /** Reads one block's literals, of which there may be [limit]. */
    fun read(input: ForwardBytes, limit: Int): ByteArray {
        val head = input.data[input.at].toInt()
        val type = head and 3
        val format = head ushr 2 and 3
        return if (type < COMPRESSED) {
            plain(input, type == REPEATED, format, limit)
        } else {
            compressed(input, type == COMPRESSED, format, limit)
        }
    }

    private fun plain(
        input: ForwardBytes,
        isRepeated: Boolean,
        format: Int,
        limit: Int,
    ): ByteArray {
        val size =
            when (format) {
                0, 2 -> input.number(1) ushr 3
                1 -> input.number(2) ushr 4
                else -> input.number(3) ushr 4
            }.toInt()
        if (size > limit) refuse("a zstd block has too many literals")
        if (isRepeated) {
            val value = input.byte().toByte()
            return ByteArray(size).also { it.fill(value) }
        }
        val start = input.skip(size)
        return input.data.copyOfRange(start, start + size)
    }

    private fun compressed(
        input: ForwardBytes,
        hasTree: Boolean,
        format: Int,
        limit: Int,
    ): ByteArray {
        val width = SIZE_BITS[format]
        val head = input.number(HEAD_BYTES[format]) ushr 4
        val size = (head and ((1L shl width) - 1)).toInt()
        val packed = (head ushr width).toInt()
        if (size > limit) refuse("a zstd block has too many literals")
        val start = input.skip(packed)
        val own = ForwardBytes(input.data, start, input.at)
        if (hasTree) tree = HuffmanTable.read(own)
        val table = tree ?: refuse("a zstd block repeats a tree that was not sent")
        val out = ByteArray(size)
        if (format == 0) table.decode(own.data, own.at, own.end, out, 0, size) else four(own, table, out)
        return out
    }

    private fun four(input: ForwardBytes, table: HuffmanTable, out: ByteArray) {
        if (input.left < MIN_FOUR_BYTES || out.size < MIN_FOUR_LITERALS) {
            refuse("zstd literals are too few for four streams")
        }
        val sizes = List(3) { input.number(2).toInt() }
        val part = (out.size + 3) / 4
        if (3 * part > out.size) refuse("zstd literals are too few for four streams")
        sizes.forEachIndexed { i, size ->
            val from = input.skip(size)
            table.decode(input.data, from, input.at, out, i * part, (i + 1) * part)
        }
        table.decode(input.data, input.at, input.end, out, 3 * part, out.size)
    }

    private companion object {
        const val REPEATED = 1
        const val COMPRESSED = 2
        const val MIN_FOUR_BYTES = 10
        const val MIN_FOUR_LITERALS = 6
        val SIZE_BITS = intArrayOf(10, 10, 14, 18)
        val HEAD_BYTES = intArrayOf(3, 3, 4, 5)
    }
}
