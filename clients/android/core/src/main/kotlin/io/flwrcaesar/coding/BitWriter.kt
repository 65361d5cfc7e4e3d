package io.flwrcaesar.coding

import io.flwrcaesar.frame.ByteSink

/** Bits packed into bytes, the highest of a byte first. */
internal class BitWriter {
    private val sink = ByteSink()
    private var pending = 0L
    private var count = 0

    /** Writes the low [n] bits of a number, at most 32. */
    fun write(value: Long, n: Int) {
        pending = (pending shl n) or (value and ((1L shl n) - 1))
        count += n
        while (count >= 8) {
            count -= 8
            sink.u8((pending ushr count).toInt())
        }
    }

    /** Writes [zeros] zeros and a one. */
    fun writeUnary(zeros: Long) {
        var left = zeros
        while (left >= 32) {
            write(0, 32)
            left -= 32
        }
        write(1, left.toInt() + 1)
    }

    /** Returns the bytes, the last one filled up with zeros. */
    fun toByteArray(): ByteArray {
        if (count > 0) write(0, 8 - count)
        return sink.toByteArray()
    }
}

/** Returns the zigzag of an integer: 0, -1, 1, -2 … as 0, 1, 2, 3 … */
internal fun zigzag(value: Int): Long = (value.toLong() shl 1 xor (value.toLong() shr 63)) and 0x1FFFFFFFFL

/** Returns the integer of a zigzag. */
internal fun unzigzag(value: Long): Int = ((value ushr 1) xor -(value and 1)).toInt()
