package io.flwrcaesar.coding

import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.little
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u8

/** Changes of tensors of 16-bit floating-point numbers: section `HALF` of `lattice_model`. */
internal object Halves {
    private const val SIGN = 0x8000

    /** Returns the most bytes that the section of these tensors takes. */
    fun maxBytes(tensors: List<TensorSpec>): Long = (tensors.size + 7L) / 8 + 1 + Block.maxBytes(tensors)

    /** Returns the changed tensors of a section that changes those of [base]. */
    fun decode(data: ByteArray, base: Tensors, tensors: List<TensorSpec>): Map<String, ByteArray> {
        val head = (tensors.size + 7) / 8
        if (data.size <= head || data.u8(head) > 1) refuse("changes of 16-bit tensors are malformed")
        val changed = tensors.filterIndexed { i, _ -> data.u8(i / 8) ushr (7 - i % 8) and 1 == 1 }
        val integers =
            if (data.u8(head) == 1) {
                SmallBlock.decode(data, head + 1, changed)
            } else {
                Block.decode(data, head + 1, changed)
            }
        val found = tensors.associateTo(HashMap()) { it.name to base[it.name] }
        var at = 0
        for (spec in changed) {
            found[spec.name] = add(spec, base[spec.name], integers, at)
            at += spec.count
        }
        return found
    }

    private fun add(spec: TensorSpec, old: ByteArray, changes: IntArray, start: Int): ByteArray {
        val before = old.little().asShortBuffer()
        val bytes = ByteArray(old.size)
        val after = bytes.little().asShortBuffer()
        for (i in 0 until spec.count) {
            val total = ordinal(before[i].toInt() and 0xFFFF) + changes[start + i].toLong()
            if (total < -SIGN || total >= SIGN) refuse("tensor '${spec.name}' changes beyond its type")
            after.put(i, word(total.toInt()).toShort())
        }
        return bytes
    }

    private fun ordinal(word: Int): Int = if (word < SIGN) word else SIGN - 1 - word

    private fun word(ordinal: Int): Int = if (ordinal >= 0) ordinal else SIGN - 1 - ordinal
}
