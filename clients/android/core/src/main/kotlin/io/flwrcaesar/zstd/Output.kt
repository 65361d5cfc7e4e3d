package io.flwrcaesar.zstd

import io.flwrcaesar.frame.refuse

/** What a zstd frame decompresses to, as far as it is known. */
internal class Output(size: Int) {
    val bytes = ByteArray(size)

    /** How many bytes are known. */
    var size = 0
        private set

    /** Appends [count] bytes of [source]. */
    fun append(source: ByteArray, from: Int, count: Int) {
        System.arraycopy(source, from, bytes, reserve(count), count)
    }

    /** Appends [count] times one byte. */
    fun fill(value: Byte, count: Int) {
        val start = reserve(count)
        bytes.fill(value, start, start + count)
    }

    /** Appends [count] bytes from [distance] before the end; they may overlap what they make. */
    fun copy(distance: Long, count: Int) {
        if (distance < 1 || distance > size) refuse("a zstd distance is out of range")
        val start = reserve(count)
        val from = start - distance.toInt()
        if (distance >= count) {
            System.arraycopy(bytes, from, bytes, start, count)
        } else {
            for (i in 0 until count) bytes[start + i] = bytes[from + i]
        }
    }

    private fun reserve(count: Int): Int {
        if (count > bytes.size - size) refuse("a zstd frame has more bytes than it states")
        size += count
        return size - count
    }
}
