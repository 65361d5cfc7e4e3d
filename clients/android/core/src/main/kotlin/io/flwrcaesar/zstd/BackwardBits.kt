package io.flwrcaesar.zstd

import io.flwrcaesar.frame.little
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u8
import java.nio.ByteBuffer

/**
 * A run of bits that is read from its end, as zstd's entropy coders write them.
 *
 * The last byte holds the end mark: its highest bit that is 1.
 *
 * @property left how many bits were not read yet; negative after reading beyond the start.
 */
internal class BackwardBits(data: ByteArray, private val from: Int, to: Int) {
    private val bytes: ByteBuffer = data.little()
    private val room = data.size - 8
    var left: Int

    init {
        if (to <= from || data[to - 1] == 0.toByte()) refuse("a zstd bit stream has no end mark")
        val mark = 31 - Integer.numberOfLeadingZeros(data.u8(to - 1))
        left = 8 * (to - 1 - from) + mark
    }

    /** Returns the next [n] bits, at most 32, and zeros beyond the start; reads none of them. */
    fun peek(n: Int): Int {
        val low = left - n
        if (low < 0) return if (left <= 0) 0 else slow(0, left) shl -low
        val at = from + (low ushr 3)
        if (at > room) return slow(low, n)
        return (bytes.getLong(at) ushr (low and 7) and ((1L shl n) - 1)).toInt()
    }

    /** Reads [n] bits, at most 32. */
    fun read(n: Int): Int {
        val value = peek(n)
        left -= n
        return value
    }

    private fun slow(low: Int, n: Int): Int {
        var value = 0L
        for (bit in low + n - 1 downTo low) {
            val byte = bytes.get(from + (bit ushr 3)).toInt()
            value = (value shl 1) or (byte ushr (bit and 7) and 1).toLong()
        }
        return value.toInt()
    }
}
