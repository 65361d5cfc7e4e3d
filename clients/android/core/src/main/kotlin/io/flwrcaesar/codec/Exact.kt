package io.flwrcaesar.codec

import io.flwrcaesar.frame.ByteSink
import io.flwrcaesar.frame.Frame
import io.flwrcaesar.frame.Section
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.toIntSize

/** Tensors that are sent bit for bit, one section for each size of an element. */
internal object Exact {
    private val ITEM_SIZES = listOf(1, 2, 4, 8)

    /** Returns the elements of tensors by name, as new arrays. */
    fun unpack(frame: Frame, tensors: List<TensorSpec>): Map<String, ByteArray> {
        val found = HashMap<String, ByteArray>()
        for (itemSize in ITEM_SIZES) {
            val group = tensors.filter { it.dtype.itemSize == itemSize }
            val total = group.sumOf { it.byteSize }
            val data = if (total > 0) frame.section("X$itemSize", total) else ByteArray(0)
            var at = 0
            for (spec in group) {
                val end = at + spec.byteSize.toIntSize()
                val bytes = data.copyOfRange(at, end)
                requireBooleans(spec, bytes)
                found[spec.name] = bytes
                at = end
            }
        }
        return found
    }

    /** Returns the sections of some of the tensors. */
    fun pack(tensors: Tensors, specs: List<TensorSpec>): List<Section> =
        ITEM_SIZES.mapNotNull { itemSize ->
            val group = specs.filter { it.dtype.itemSize == itemSize && it.size > 0 }
            if (group.isEmpty()) return@mapNotNull null
            val sink = ByteSink(group.sumOf { it.byteSize }.toIntSize())
            group.forEach { sink.bytes(tensors[it.name]) }
            Section("X$itemSize", sink.toByteArray())
        }
}
