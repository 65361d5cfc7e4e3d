package io.flwrcaesar.frame

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Returns a view of these bytes that reads and writes little-endian numbers. */
internal fun ByteArray.little(): ByteBuffer = ByteBuffer.wrap(this).order(ByteOrder.LITTLE_ENDIAN)

/** Returns the unsigned byte at an index. */
internal fun ByteArray.u8(at: Int): Int = this[at].toInt() and 0xFF

/** Returns the 16-bit unsigned number at an index. */
internal fun ByteArray.u16(at: Int): Int = u8(at) or (u8(at + 1) shl 8)

/** Returns the 32-bit unsigned number at an index. */
internal fun ByteArray.u32(at: Int): Long =
    u16(at).toLong() or (u16(at + 2).toLong() shl 16)

/** Returns the 64-bit number at an index; one from 2^63 on comes out negative. */
internal fun ByteArray.u64(at: Int): Long = u32(at) or (u32(at + 4) shl 32)

/** A run of bytes that grows at its end; numbers are little-endian. */
internal class ByteSink(room: Int = 64) {
    private var data = ByteArray(room)

    /** How many bytes were written. */
    var size = 0
        private set

    fun u8(value: Int): ByteSink {
        reserve(1)
        data[size++] = value.toByte()
        return this
    }

    fun u16(value: Int): ByteSink = u8(value).u8(value ushr 8)

    fun u32(value: Int): ByteSink = u16(value).u16(value ushr 16)

    fun u64(value: Long): ByteSink = u32(value.toInt()).u32((value ushr 32).toInt())

    fun bytes(
        value: ByteArray,
        from: Int = 0,
        to: Int = value.size,
    ): ByteSink {
        reserve(to - from)
        System.arraycopy(value, from, data, size, to - from)
        size += to - from
        return this
    }

    /** Returns a copy of what was written. */
    fun toByteArray(): ByteArray = data.copyOf(size)

    private fun reserve(more: Int) {
        if (more > data.size - size) {
            data = data.copyOf(maxOf(2L * data.size, size.toLong() + more).toIntSize())
        }
    }
}

/** Returns a size as an index of an array; one that no array can have is refused. */
internal fun Long.toIntSize(): Int {
    if (this < 0 || this > MAX_ARRAY) refuse("$this bytes do not fit into memory")
    return toInt()
}

/** The longest array that every virtual machine can make. */
internal const val MAX_ARRAY = Int.MAX_VALUE - 8L
