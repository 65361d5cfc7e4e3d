package io.flwrcaesar.fleet

import io.flwrcaesar.frame.ByteSink
import io.flwrcaesar.frame.DType
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.message.FlowerArray

/** Plain arrays in NumPy's format, version 1.0. */
internal object Npy {
    private const val STYPE = "numpy.ndarray"
    private const val ALIGNMENT = 64

    /** Returns a tensor as Flower carries arrays. */
    fun write(spec: TensorSpec, bytes: ByteArray): FlowerArray {
        val shape = spec.shape.joinToString(", ") + if (spec.shape.size == 1) "," else ""
        val head = "{'descr': '${description(spec.dtype)}', 'fortran_order': False, 'shape': ($shape), }"
        val unpadded = 10 + head.length + 1
        val text = head + " ".repeat((ALIGNMENT - unpadded % ALIGNMENT) % ALIGNMENT) + "\n"
        val data =
            ByteSink(text.length + bytes.size + 10)
                .u8(0x93)
                .bytes("NUMPY".toByteArray())
                .u8(1)
                .u8(0)
                .u16(text.length)
                .bytes(text.toByteArray())
                .bytes(bytes)
                .toByteArray()
        return FlowerArray(spec.dtype.wireName, spec.shape, STYPE, data)
    }

    private fun description(dtype: DType): String {
        val kind =
            when {
                dtype == DType.BOOL -> 'b'
                dtype == DType.BFLOAT16 -> throw IllegalArgumentException("NumPy has no bfloat16")
                dtype.isFloat -> 'f'
                dtype.wireName.startsWith("u") -> 'u'
                else -> 'i'
            }
        return (if (dtype.itemSize == 1) "|" else "<") + kind + dtype.itemSize
    }
}
