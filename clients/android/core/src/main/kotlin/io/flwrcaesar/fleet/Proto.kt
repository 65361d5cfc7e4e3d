package io.flwrcaesar.fleet

import io.flwrcaesar.frame.little
import io.flwrcaesar.frame.refuse
import java.io.ByteArrayOutputStream

/** Writes one protobuf message, field by field; a field with its default is left out. */
internal class ProtoWriter {
    private val out = ByteArrayOutputStream()

    fun varint(field: Int, value: Long, isOptional: Boolean = true): ProtoWriter = apply {
        if (value == 0L && isOptional) return@apply
        raw((field shl 3).toLong())
        raw(value)
    }

    fun zigzag(field: Int, value: Long): ProtoWriter = varint(field, zigzag(value), isOptional = false)

    fun double(field: Int, value: Double, isOptional: Boolean = true): ProtoWriter = apply {
        if (value == 0.0 && isOptional) return@apply
        raw((field shl 3 or FIXED_64).toLong())
        fixed(value)
    }

    fun text(field: Int, value: String): ProtoWriter = if (value.isEmpty()) this else bytes(field, value.toByteArray())

    /** Writes bytes, a text or a message, empty or not. */
    fun bytes(field: Int, value: ByteArray): ProtoWriter = apply {
        raw((field shl 3 or SIZED).toLong())
        raw(value.size.toLong())
        out.write(value, 0, value.size)
    }

    fun message(field: Int, write: ProtoWriter.() -> Unit): ProtoWriter = bytes(field, proto(write))

    /** Writes a number without a field, as in a packed list. */
    fun raw(value: Long): ProtoWriter = apply {
        var rest = value
        while (rest and 0x7FL.inv() != 0L) {
            out.write((rest and 0x7F or 0x80).toInt())
            rest = rest ushr 7
        }
        out.write(rest.toInt())
    }

    /** Writes a number without a field, as in a packed list. */
    fun fixed(value: Double): ProtoWriter = apply {
        out.write(ByteArray(8).also { it.little().putDouble(value) }, 0, 8)
    }

    fun toByteArray(): ByteArray = out.toByteArray()

    companion object {
        const val FIXED_64 = 1
        const val SIZED = 2

        fun zigzag(value: Long): Long = (value shl 1) xor (value shr 63)

        fun unzigzag(value: Long): Long = (value ushr 1) xor -(value and 1)
    }
}

/** Returns a protobuf message. */
internal fun proto(write: ProtoWriter.() -> Unit): ByteArray = ProtoWriter().apply(write).toByteArray()

/** The fields of one protobuf message that somebody sent. */
internal class Proto(private val data: ByteArray) {
    private class Field(val number: Int, val value: Long, val bytes: ByteArray?)

    private val fields: List<Field> = parse()

    /** The numbers of the fields that are there. */
    val numbers: List<Int> get() = fields.map { it.number }

    fun long(field: Int): Long = fields.lastOrNull { it.number == field }?.value ?: 0

    fun longOrNull(field: Int): Long? = fields.lastOrNull { it.number == field }?.value

    fun flag(field: Int): Boolean = long(field) != 0L

    fun double(field: Int): Double = Double.fromBits(long(field))

    fun bytes(field: Int): ByteArray = fields.lastOrNull { it.number == field }?.bytes ?: ByteArray(0)

    fun text(field: Int): String = bytes(field).decodeToString()

    fun message(field: Int): Proto = Proto(bytes(field))

    fun messages(field: Int): List<Proto> = all(field).map(::Proto)

    fun texts(field: Int): List<String> = all(field).map { it.decodeToString() }

    fun all(field: Int): List<ByteArray> = fields.filter { it.number == field }.mapNotNull { it.bytes }

    /** The numbers of a list, packed or not. */
    fun numbers(field: Int): List<Long> =
        fields.filter { it.number == field }.flatMap { found ->
            if (found.bytes == null) listOf(found.value) else Cursor(found.bytes).let { c -> c.whileLeft { c.varint() } }
        }

    /** The numbers of a list of doubles, packed or not. */
    fun doubles(field: Int): List<Double> =
        fields.filter { it.number == field }.flatMap { found ->
            val bits =
                if (found.bytes == null) listOf(found.value) else Cursor(found.bytes).let { c -> c.whileLeft { c.fixed(8) } }
            bits.map { Double.fromBits(it) }
        }

    private fun parse(): List<Field> {
        val cursor = Cursor(data)
        return cursor.whileLeft {
            val key = cursor.varint()
            val number = (key ushr 3).toInt()
            when ((key and 7).toInt()) {
                0 -> Field(number, cursor.varint(), null)
                ProtoWriter.FIXED_64 -> Field(number, cursor.fixed(8), null)
                ProtoWriter.SIZED -> Field(number, 0, cursor.bytes(cursor.varint()))
                FIXED_32 -> Field(number, cursor.fixed(4), null)
                else -> refuse("a protobuf message is malformed")
            }
        }
    }

    private class Cursor(private val data: ByteArray) {
        private var at = 0

        fun <T> whileLeft(next: () -> T): List<T> {
            val found = ArrayList<T>()
            while (at < data.size) found += next()
            return found
        }

        fun varint(): Long {
            var value = 0L
            for (shift in 0..63 step 7) {
                val byte = data[skip(1)].toLong()
                value = value or ((byte and 0x7F) shl shift)
                if (byte >= 0) return value
            }
            refuse("a protobuf message is malformed")
        }

        fun fixed(size: Int): Long {
            val start = skip(size.toLong())
            var value = 0L
            for (i in size - 1 downTo 0) value = (value shl 8) or (data[start + i].toLong() and 0xFF)
            return value
        }

        fun bytes(size: Long): ByteArray {
            val start = skip(size)
            return data.copyOfRange(start, at)
        }

        private fun skip(size: Long): Int {
            if (size < 0 || size > data.size - at) refuse("a protobuf message is truncated")
            at += size.toInt()
            return at - size.toInt()
        }

        private fun skip(size: Int): Int = skip(size.toLong())
    }

    private companion object {
        const val FIXED_32 = 5
    }
}
