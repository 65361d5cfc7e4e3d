package io.flwrcaesar.message

import io.flwrcaesar.frame.refuse
import java.io.ByteArrayOutputStream
import java.util.zip.CRC32

/** Bytes as hexadecimal digits. */
internal fun ByteArray.hex(): String = joinToString("") { "%02x".format(it) }

/** The bytes of hexadecimal digits. */
internal fun String.unhex(): ByteArray =
    ByteArray(length / 2) { substring(2 * it, 2 * it + 2).toInt(16).toByte() }

/** Fields of a note, one after another; numbers are big-endian. */
internal class FieldWriter {
    private val out = ByteArrayOutputStream()

    fun u8(value: Int): FieldWriter = apply { out.write(value) }

    fun u64(value: Long): FieldWriter = apply {
        for (shift in 56 downTo 0 step 8) out.write((value ushr shift).toInt())
    }

    /** Writes a number below 2^63, seven bits a byte, the lowest first. */
    fun varint(value: Long): FieldWriter = apply {
        var rest = value
        while (rest > 0x7F) {
            out.write((rest and 0x7F or 0x80).toInt())
            rest = rest ushr 7
        }
        out.write(rest.toInt())
    }

    fun version(value: Version): FieldWriter = varint(value.number).bytes(value.digest.unhex())

    fun ids(values: List<Long>): FieldWriter = apply {
        u8(values.size)
        values.forEach(::u64)
    }

    fun bytes(value: ByteArray): FieldWriter = apply { out.write(value, 0, value.size) }

    /** Returns the fields with a checksum behind them. */
    fun sealed(): ByteArray {
        val content = out.toByteArray()
        val sum = CRC32().also { it.update(content) }.value
        for (shift in 24 downTo 0 step 8) out.write((sum ushr shift).toInt())
        return out.toByteArray()
    }
}

/** Strict access to the fields of a note that somebody sent, in their order. */
internal class FieldReader private constructor(private val data: ByteArray, private val end: Int) {
    private var at = 0

    fun u8(): Int = data[skip(1)].toInt() and 0xFF

    /** Reads 64 bits; a number from 2^63 on comes out negative. */
    fun u64(): Long {
        val start = skip(8)
        var value = 0L
        for (i in start until start + 8) value = (value shl 8) or (data[i].toLong() and 0xFF)
        return value
    }

    fun varint(): Long {
        var value = 0L
        for (i in 0 until MAX_VARINT_BYTES) {
            val byte = u8()
            value = value or ((byte and 0x7F).toLong() shl (7 * i))
            if (byte < 0x80) {
                if (byte == 0 && i > 0) refuse("a number of the header has a byte too many")
                return value
            }
        }
        refuse("a number of the header is too long")
    }

    fun version() = Version(varint(), bytes(DIGEST_BYTES).hex())

    /** Reads a list of at most [most] distinct ids, none of them 0. */
    fun ids(most: Int): List<Long> {
        val count = u8()
        if (count > most) refuse("the header lists $count ids, at most $most")
        val found = List(count) { u64() }
        if (0L in found || found.toSet().size != count) refuse("the header lists malformed ids")
        return found
    }

    fun bytes(size: Int): ByteArray {
        val start = skip(size)
        return data.copyOfRange(start, start + size)
    }

    /** Reads all that is left. */
    fun rest(): ByteArray = bytes(end - at)

    private fun skip(size: Int): Int {
        if (size > end - at) refuse("the header is truncated")
        at += size
        return at - size
    }

    companion object {
        private const val MAX_VARINT_BYTES = 9
        private const val SEAL_BYTES = 4
        const val DIGEST_BYTES = 8

        /** Reads what [FieldWriter.sealed] wrote, and refuses what is damaged. */
        fun opened(note: ByteArray): FieldReader {
            val end = note.size - SEAL_BYTES
            if (end < 0) refuse("the header is damaged: it is too short")
            val sum = CRC32().also { it.update(note, 0, end) }.value
            val reader = FieldReader(note, note.size).also { it.at = end }
            var found = 0L
            repeat(SEAL_BYTES) { found = (found shl 8) or reader.u8().toLong() }
            if (found != sum) refuse("the header is damaged: its checksum differs")
            return FieldReader(note, end)
        }
    }
}
