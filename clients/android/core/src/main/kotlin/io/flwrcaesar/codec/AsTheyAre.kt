package io.flwrcaesar.codec

import io.flwrcaesar.frame.ByteSink
import io.flwrcaesar.frame.Frame
import io.flwrcaesar.frame.Section
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.toIntSize
import io.flwrcaesar.frame.u32

/** Tensors that travel bit for bit, as no lossy codec can stand for them: section `ASIS`. */
internal object AsTheyAre {
    private const val TAG = "ASIS"

    /** Returns a section of the tensors in [chosen], or none if there are none. */
    fun pack(tensors: Tensors, specs: List<TensorSpec>, chosen: Collection<TensorSpec>): List<Section> {
        if (chosen.isEmpty()) return emptyList()
        val names = chosen.map { it.name }.toSet()
        val numbers = specs.indices.filter { specs[it].name in names }
        val sink = ByteSink().u32(numbers.size)
        numbers.forEach { sink.u32(it) }
        numbers.forEach { sink.bytes(tensors[specs[it].name]) }
        return listOf(Section(TAG, sink.toByteArray()))
    }

    /** Returns the elements by name of a frame's tensors that travel so. */
    fun unpack(frame: Frame, specs: List<TensorSpec>): Map<String, ByteArray> {
        if (TAG !in frame) return emptyMap()
        val data = frame.sectionUpTo(TAG, 4 + specs.sumOf { 4 + it.byteSize })
        if (data.size < 4) refuse("tensors as they are, are truncated")
        val count = data.u32(0)
        if (count > specs.size || data.size < 4 + 4 * count) refuse("tensors as they are, are truncated")
        val numbers = List(count.toInt()) { data.u32(4 + 4 * it) }
        if (numbers.zipWithNext().any { (a, b) -> a >= b } || numbers.any { it >= specs.size }) {
            refuse("tensors as they are, are not in order")
        }
        val found = numbers.map { specs[it.toInt()] }
        if (data.size.toLong() != 4 + 4 * count + found.sumOf { it.byteSize }) {
            refuse("tensors as they are, have the wrong length")
        }
        var at = 4 + 4 * count.toInt()
        return found.associate { spec ->
            val bytes = data.copyOfRange(at, at + spec.byteSize.toIntSize())
            requireBooleans(spec, bytes)
            at += bytes.size
            spec.name to bytes
        }
    }

    /** Returns tensors with zeros in place of some of them. */
    fun withoutThem(tensors: Tensors, some: Collection<TensorSpec>): Tensors {
        val names = some.map { it.name }.toSet()
        val data =
            tensors.layout.tensors.associate { spec ->
                val bytes = tensors[spec.name]
                spec.name to if (spec.name in names) ByteArray(bytes.size) else bytes
            }
        return Tensors(tensors.layout, data)
    }
}
