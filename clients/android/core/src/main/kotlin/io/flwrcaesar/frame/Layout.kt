package io.flwrcaesar.frame

import java.nio.ByteBuffer
import java.nio.CharBuffer
import java.nio.charset.CharacterCodingException
import java.nio.charset.CodingErrorAction
import java.security.MessageDigest

/** Name, type and shape of one tensor. */
data class TensorSpec(val name: String, val dtype: DType, val shape: List<Long>) {
    /** How many elements it has. */
    val size: Long = shape.fold(1L, Long::times)

    /** How many bytes its elements take. */
    val byteSize: Long get() = size * dtype.itemSize

    /** How many elements it has, as an index of an array. */
    val count: Int get() = size.toIntSize()
}

/**
 * The tensor table: an ordered list of tensors, named on the wire by its digest.
 *
 * Section 5 of `docs/wire-format.md` has its bytes.
 */
class Layout(val tensors: List<TensorSpec>) {
    /** How many bytes the elements of all tensors take. */
    val byteSize: Long get() = tensors.sumOf { it.byteSize }

    /** The table as it stands in a frame. */
    val bytes: ByteArray by lazy(LazyThreadSafetyMode.PUBLICATION) { serialise() }

    /** The first 16 bytes of the SHA-256 of the table. */
    val digest: ByteArray by lazy(LazyThreadSafetyMode.PUBLICATION) {
        MessageDigest.getInstance("SHA-256").digest(bytes).copyOf(DIGEST_BYTES)
    }

    /** Tells whether both have the same tensors by name and shape, in the same order. */
    fun hasShapesOf(other: Layout): Boolean =
        tensors.map { it.name to it.shape } == other.tensors.map { it.name to it.shape }

    /** Returns the layout of an update of models with this layout. */
    fun ofUpdate(): Layout = Layout(tensors.map { it.copy(dtype = updateType(it.dtype)) })

    override fun equals(other: Any?): Boolean = other is Layout && tensors == other.tensors

    override fun hashCode(): Int = tensors.hashCode()

    private fun serialise(): ByteArray {
        if (tensors.size > MAX_TENSORS) refuse("${tensors.size} tensors, at most $MAX_TENSORS")
        val sink = ByteSink().u32(tensors.size)
        for (spec in tensors) {
            val name = encodeUtf8(spec.name)
            if (name.size > 0xFFFF) refuse("a tensor's name of ${name.size} bytes is too long")
            if (spec.shape.size > MAX_AXES) refuse("'${spec.name}' has ${spec.shape.size} axes")
            sink.u16(name.size).bytes(name).u8(spec.dtype.code).u8(spec.shape.size)
            spec.shape.forEach(sink::u64)
        }
        return sink.toByteArray()
    }

    companion object {
        /** The most bytes of a table. */
        const val MAX_BYTES = 1L shl 24
        private const val DIGEST_BYTES = 16
        private const val MAX_TENSORS = 1 shl 16
        private const val MAX_AXES = 32
        private const val MAX_ELEMENTS = 1L shl 59

        /**
         * Parses a table and allocates in proportion to [data] only.
         *
         * @throws CodecError if the table is truncated, repeats a name or is otherwise malformed.
         */
        fun parse(data: ByteArray): Layout {
            var at = 0

            fun take(size: Int): Int {
                if (size > data.size - at) refuse("the tensor table is truncated")
                at += size
                return at - size
            }
            val count = data.u32(take(4))
            if (count > MAX_TENSORS) refuse("the tensor table claims $count tensors")
            val seen = LinkedHashMap<String, TensorSpec>()
            repeat(count.toInt()) {
                val length = data.u16(take(2))
                val start = take(length)
                val name =
                    decodeUtf8(data, start, start + length)
                        ?: refuse("a tensor's name is not UTF-8")
                val kind = take(2)
                val dtype = DType.ofCode(data.u8(kind))
                val axes = data.u8(kind + 1)
                if (dtype == null || axes > MAX_AXES || name in seen) {
                    refuse("the tensor table's entry '$name' is malformed")
                }
                val first = take(8 * axes)
                val shape = List(axes) { data.u64(first + 8 * it) }
                requireSize(name, shape)
                seen[name] = TensorSpec(name, dtype, shape)
            }
            if (at != data.size) refuse("the tensor table has trailing bytes")
            return Layout(seen.values.toList())
        }

        // An axis of length 0 makes a tensor empty, but the other axes still have to fit.
        private fun requireSize(name: String, shape: List<Long>) {
            var elements = 1L
            for (axis in shape) {
                val length = if (axis == 0L) 1L else axis
                if (length < 0 || length > MAX_ELEMENTS / elements) {
                    refuse("tensor '$name' claims the shape $shape")
                }
                elements *= length
            }
        }
    }
}

/** Returns the type that an update of tensors of this type has. */
internal fun updateType(dtype: DType): DType =
    if (dtype.isFloat && dtype != DType.FLOAT64) DType.FLOAT32 else dtype

/** Returns the text of these bytes, or `null` if they are not UTF-8. */
internal fun decodeUtf8(data: ByteArray, from: Int = 0, to: Int = data.size): String? {
    val decoder =
        Charsets.UTF_8
            .newDecoder()
            .onMalformedInput(CodingErrorAction.REPORT)
            .onUnmappableCharacter(CodingErrorAction.REPORT)
    return try {
        decoder.decode(ByteBuffer.wrap(data, from, to - from)).toString()
    } catch (_: CharacterCodingException) {
        null
    }
}

/** Returns a text in UTF-8; one with half of a surrogate pair is refused. */
internal fun encodeUtf8(text: String): ByteArray {
    val encoder = Charsets.UTF_8.newEncoder().onMalformedInput(CodingErrorAction.REPORT)
    return try {
        val encoded = encoder.encode(CharBuffer.wrap(text))
        ByteArray(encoded.remaining()).also { encoded.get(it) }
    } catch (_: CharacterCodingException) {
        refuse("a name is not Unicode")
    }
}
