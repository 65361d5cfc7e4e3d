package io.flwrcaesar.codec

import io.flwrcaesar.frame.DType
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.little
import io.flwrcaesar.frame.refuse

/** Tells whether no element is NaN or infinite; true for what is not floating point. */
internal fun isFinite(spec: TensorSpec, bytes: ByteArray): Boolean =
    when (spec.dtype) {
        DType.FLOAT16 -> noExponent16(bytes, 0x7C00)
        DType.BFLOAT16 -> noExponent16(bytes, 0x7F80)
        DType.FLOAT32 -> {
            val words = bytes.little().asIntBuffer()
            (0 until words.limit()).all { words[it] and 0x7F800000 != 0x7F800000 }
        }
        DType.FLOAT64 -> {
            val mask = 0x7FF0000000000000L
            val words = bytes.little().asLongBuffer()
            (0 until words.limit()).all { words[it] and mask != mask }
        }
        else -> true
    }

private fun noExponent16(bytes: ByteArray, mask: Int): Boolean {
    val words = bytes.little().asShortBuffer()
    return (0 until words.limit()).all { words[it].toInt() and mask != mask }
}

/** Refuses NaN and infinity. */
internal fun requireFinite(tensors: Tensors) {
    for (spec in tensors.layout.tensors) {
        if (!isFinite(spec, tensors[spec.name])) refuse("tensor '${spec.name}' holds NaN or infinity")
    }
}

/** Tells whether a finite tensor has an element that `float32`, in which codecs compute, has not. */
internal fun isBeyond(spec: TensorSpec, bytes: ByteArray): Boolean {
    if (spec.dtype != DType.FLOAT64) return false
    val values = bytes.little().asDoubleBuffer()
    return (0 until values.limit()).any { !(Math.abs(values[it]) <= Float.MAX_VALUE) }
}

/** Refuses a tensor of booleans that has a byte other than 0 and 1. */
internal fun requireBooleans(spec: TensorSpec, bytes: ByteArray) {
    if (spec.dtype == DType.BOOL && bytes.any { it.toInt() and 1.inv() != 0 }) {
        refuse("tensor '${spec.name}' holds bytes that are not booleans")
    }
}
