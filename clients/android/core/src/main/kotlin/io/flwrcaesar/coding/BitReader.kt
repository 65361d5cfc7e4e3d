package io.flwrcaesar.coding

import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u8

/** The bits of `data[from:to]`, the highest of a byte first. */
internal class BitReader(private val data: ByteArray, from: Int, to: Int) {
    private var at = 8L * from
    private val end = 8L * to

    /** How many bits were not read yet. */
    val left: Long get() = end - at

    /** Reads a number of [n] bits, at most 32. */
    fun read(n: Int): Long {
        if (n > left) refuse("a run of bits is truncated")
        if (n == 0) return 0
        val last = ((at + n - 1) ushr 3).toInt()
        var value = 0L
        for (byte in (at ushr 3).toInt()..last) value = (value shl 8) or data.u8(byte).toLong()
        at += n
        val unread = (8 - (at and 7).toInt()) and 7
        return (value ushr unread) and ((1L shl n) - 1)
    }

    /** Returns how many zeros stand before the next one, and reads them and the one. */
    fun zeros(): Long {
        var count = 0L
        while (at < end) {
            val inByte = (at and 7).toInt()
            val rest = (data.u8((at ushr 3).toInt()) shl inByte) and 0xFF
            if (rest != 0) {
                val zeros = Integer.numberOfLeadingZeros(rest) - 24
                at += zeros + 1
                return count + zeros
            }
            count += 8 - inByte
            at += 8 - inByte
        }
        refuse("a run of bits is truncated")
    }

    /** Tells whether all bits that were not read yet are zeros; reads none. */
    fun hasOnlyZerosLeft(): Boolean {
        if (left == 0L) return true
        val inByte = (at and 7).toInt()
        val first = (at ushr 3).toInt()
        if ((data.u8(first) shl inByte) and 0xFF != 0) return false
        return (first + 1 until (end ushr 3).toInt()).all { data[it] == 0.toByte() }
    }
}
