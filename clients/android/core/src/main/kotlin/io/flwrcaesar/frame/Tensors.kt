package io.flwrcaesar.frame

import java.util.zip.Adler32
import java.util.zip.CRC32
import java.util.zip.Checksum

/**
 * Named tensors: their layout, and the little-endian elements of each in C order.
 *
 * Whoever holds one must not change its bytes: models and updates are shared.
 */
class Tensors(val layout: Layout, private val data: Map<String, ByteArray>) {
    init {
        for (spec in layout.tensors) {
            val bytes = requireNotNull(data[spec.name]) { "tensor '${spec.name}' has no data" }
            require(bytes.size.toLong() == spec.byteSize) { "tensor '${spec.name}' has another size" }
        }
    }

    /** The eight bytes that name the content of a model: CRC-32, then Adler-32. */
    val digest: ByteArray by lazy(LazyThreadSafetyMode.PUBLICATION) {
        checksums { update ->
            update(layout.bytes)
            layout.tensors.forEach { update(get(it.name)) }
        }
    }

    /** Returns the bytes of a tensor. */
    operator fun get(name: String): ByteArray = data.getValue(name)

    /** Returns the elements of a `float32` tensor. */
    fun floats(name: String): FloatArray {
        val bytes = get(name)
        return FloatArray(bytes.size / 4).also { bytes.little().asFloatBuffer().get(it) }
    }

    companion object {
        /** Returns the bytes of `float32` elements. */
        fun bytesOf(values: FloatArray): ByteArray =
            ByteArray(4 * values.size).also { it.little().asFloatBuffer().put(values) }
    }
}

/** Returns CRC-32 and then Adler-32 of what [feed] hands to its argument. */
internal fun checksums(feed: ((ByteArray) -> Unit) -> Unit): ByteArray {
    val sums: List<Checksum> = listOf(CRC32(), Adler32())
    feed { part -> sums.forEach { it.update(part, 0, part.size) } }
    return ByteSink(8).also { sink -> sums.forEach { sink.u32(it.value.toInt()) } }.toByteArray()
}
