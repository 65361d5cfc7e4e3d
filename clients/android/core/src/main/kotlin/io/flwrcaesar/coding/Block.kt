package io.flwrcaesar.coding

import io.flwrcaesar.frame.ByteSink
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u32
import io.flwrcaesar.frame.u8

/**
 * Integers of several tensors, coded in contexts of separable scales.
 *
 * Section 9 of `docs/wire-format.md`, "Blocks", has the bytes.
 */
internal object Block {
    private const val KINDS = 4

    /** Returns the most bytes that a block of these tensors takes. */
    fun maxBytes(tensors: List<TensorSpec>): Long = 16 * tensors.sumOf { it.size } + (1 shl 20)

    /** Decodes the block that `data` has from [from] on. */
    fun decode(data: ByteArray, from: Int, tensors: List<TensorSpec>): IntArray {
        val total = tensors.sumOf { it.count }
        if (total == 0) {
            if (from != data.size) refuse("a block without elements has bytes")
            return IntArray(0)
        }
        if (data.size - from < 4) refuse("a block is truncated")
        val scaleBytes = data.u32(from)
        if (scaleBytes > data.size - from - 4L) refuse("a block is truncated")
        val end = from + 4 + scaleBytes.toInt()
        val scales = Integers.decode(data, from + 4, end, kinds(tensors), KINDS)
        if (scales.any { it !in -Scales.LARGEST..Scales.LARGEST }) refuse("a scale is out of range")
        val map = ContextMap.read(data, end)
        val contexts = classes(tensors, scales)
        map.apply(contexts)
        return Integers.decode(data, end + ContextMap.BYTES, data.size, contexts, map.width)
    }

    /** Encodes integers of tensors, concatenated in order. */
    fun encode(integers: IntArray, tensors: List<TensorSpec>): ByteArray {
        if (integers.isEmpty()) return ByteArray(0)
        val scales = fit(integers, tensors)
        val contexts = classes(tensors, scales)
        val map = ContextMap.plan(integers, contexts)
        map.apply(contexts)
        val packed = Integers.encode(scales, kinds(tensors), KINDS)
        val sink = ByteSink().u32(packed.size).bytes(packed)
        map.write(sink)
        return sink.bytes(Integers.encode(integers, contexts, map.width)).toByteArray()
    }

    private fun fit(integers: IntArray, tensors: List<TensorSpec>): IntArray {
        var start = 0
        val parts =
            tensors.map { spec ->
                val values = FloatArray(spec.count) { integers[start + it].toFloat() }
                start += spec.count
                Scales(spec).fitCoarse(values)
            }
        return concatenated(parts)
    }

    private fun kinds(tensors: List<TensorSpec>): ByteArray =
        ByteSink().also { sink -> tensors.forEach { Scales(it).appendKinds(sink) } }.toByteArray()

    private fun classes(tensors: List<TensorSpec>, scales: IntArray): ByteArray {
        val classes = ByteArray(tensors.sumOf { it.count })
        var start = 0
        var first = 0
        for (spec in tensors) {
            val own = Scales(spec)
            own.classes(scales, first, classes, start)
            start += spec.count
            first += own.count
        }
        return classes
    }
}

/** Returns several runs of integers as one. */
internal fun concatenated(parts: List<IntArray>): IntArray {
    val whole = IntArray(parts.sumOf { it.size })
    var at = 0
    for (part in parts) {
        part.copyInto(whole, at)
        at += part.size
    }
    return whole
}

/** How scale classes are merged into contexts: `(class >> shift) - first`, within `width`. */
internal class ContextMap(private val shift: Int, private val first: Int, val width: Int) {
    /** Replaces scale classes by contexts. */
    fun apply(classes: ByteArray) {
        val contexts =
            ByteArray(Scales.CLASSES) {
                ((it shr shift).coerceIn(first, first + width - 1) - first).toByte()
            }
        for (i in classes.indices) classes[i] = contexts[classes[i].toInt()]
    }

    fun write(sink: ByteSink) {
        sink.u8(shift).u8(first).u8(width).u8(0)
    }

    companion object {
        const val BYTES = 4
        private const val BITS_PER_CODE = 4
        private const val BITS_PER_TABLE = 20

        /** Reads a map that uses no history. */
        fun read(data: ByteArray, at: Int): ContextMap {
            if (data.size - at < BYTES) refuse("a context map is truncated")
            val map = ContextMap(data.u8(at), data.u8(at + 1), data.u8(at + 2))
            if (map.shift > 7 || map.width < 1 || map.first + map.width > Scales.CLASSES || data.u8(at + 3) != 0) {
                refuse("a context map is malformed")
            }
            return map
        }

        /** Chooses the map with which integers take the fewest bits, tables included. */
        fun plan(integers: IntArray, classes: ByteArray): ContextMap {
            val counts = SymbolCounts(Scales.CLASSES)
            for (i in integers.indices) counts.add(classes[i].toInt(), Integers.symbol(integers[i]))
            val used = counts.range()
            var least = Double.POSITIVE_INFINITY
            var best = ContextMap(1, 0, 1)
            for (shift in 1..5) {
                val first = used.first shr shift
                val width = (used.last shr shift) - first + 1
                val merged = counts.merged(1 shl shift)
                val bits = merged.entropyBits() + BITS_PER_CODE * merged.distinct() + BITS_PER_TABLE * width
                if (bits < least) {
                    least = bits
                    best = ContextMap(shift, first, width)
                }
            }
            return best
        }
    }
}
