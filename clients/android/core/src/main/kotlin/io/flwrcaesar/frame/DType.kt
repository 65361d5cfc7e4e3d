package io.flwrcaesar.frame

/**
 * The type of a tensor's elements.
 *
 * @property wireName its name in configurations and tests.
 * @property itemSize bytes of one element.
 */
enum class DType(val wireName: String, val itemSize: Int) {
    // In the order of their codes in the tensor table.
    BOOL("bool", 1),
    UINT8("uint8", 1),
    INT8("int8", 1),
    UINT16("uint16", 2),
    INT16("int16", 2),
    UINT32("uint32", 4),
    INT32("int32", 4),
    UINT64("uint64", 8),
    INT64("int64", 8),
    FLOAT16("float16", 2),
    BFLOAT16("bfloat16", 2),
    FLOAT32("float32", 4),
    FLOAT64("float64", 8);

    /** The byte that stands for the type in a tensor table. */
    val code: Int get() = ordinal

    /** Whether the elements are floating-point numbers. */
    val isFloat: Boolean get() = this >= FLOAT16

    /** Whether the elements are floating-point numbers of 16 bits. */
    val isHalf: Boolean get() = this == FLOAT16 || this == BFLOAT16

    companion object {
        private val all = values()

        /** Returns the type of a code, or `null` for an unknown one. */
        fun ofCode(code: Int): DType? = all.getOrNull(code)

        /** Returns the type of a name, or `null` for an unknown one. */
        fun ofName(name: String): DType? = all.firstOrNull { it.wireName == name }
    }
}
