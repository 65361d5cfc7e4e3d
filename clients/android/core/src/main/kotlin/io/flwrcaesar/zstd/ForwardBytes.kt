package io.flwrcaesar.zstd

import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u8

/** Bytes that are read from their start and end at [end]. */
internal class ForwardBytes(val data: ByteArray, var at: Int, val end: Int) {
    /** How many bytes were not read yet. */
    val left: Int get() = end - at

    /** Reads an unsigned number of [n] bytes, at most 8. */
    fun number(n: Int): Long {
        val start = skip(n)
        var value = 0L
        for (i in n - 1 downTo 0) value = (value shl 8) or data.u8(start + i).toLong()
        return value
    }

    /** Reads one byte. */
    fun byte(): Int = data.u8(skip(1))

    /** Steps over [n] bytes and returns where these began. */
    fun skip(n: Int): Int {
        if (n < 0 || n > left) refuse("a zstd frame is truncated")
        at += n
        return at - n
    }
}
