package io.flwrcaesar.quantise

/** Which tensors need another step than the rest, and how many bits a small model gets. */
internal object TensorScales {
    /** By how many octaves the step of a small tensor is finer. */
    const val FINE_BITS = 6
    private const val FREE_BITS = 16384.0
    private const val MORE_FREE_BITS = 24576.0

    /** Returns the root mean square of `x[from:to]`; 0 if there is no element. */
    fun rootMeanSquare(x: FloatArray, from: Int, to: Int): Double {
        if (from == to) return 0.0
        var sum = 0.0
        for (i in from until to) sum += x[i].toDouble() * x[i]
        return Math.sqrt(sum / (to - from))
    }

    /** The scale of the group with the offset 0, and by how many octaves each tensor's is off. */
    class Offsets(val reference: Double, val octaves: IntArray)

    /**
     * Groups tensors of like scale.
     *
     * Tensors whose scale is at least a quarter of that of all together are a group, of the others
     * those at least a quarter of theirs, and so on. The group of the most elements has the offset 0.
     *
     * @param scales root mean squares, positive.
     * @param sizes elements of each tensor.
     */
    fun offsets(scales: DoubleArray, sizes: IntArray): Offsets {
        class Group(val members: List<Int>) {
            val size = members.sumOf { sizes[it].toLong() }
            val scale = together(scales, sizes, members)
        }
        val groups = ArrayList<Group>()
        var rest = scales.indices.toList()
        while (rest.isNotEmpty()) {
            val scale = together(scales, sizes, rest)
            val (members, others) = rest.partition { 4 * scales[it] >= scale }
            groups += Group(members)
            rest = others
        }
        val reference = groups.maxByOrNull { it.size }!!.scale
        val octaves = IntArray(scales.size)
        for (group in groups) {
            for (i in group.members) octaves[i] = Math.rint(log2(group.scale / reference)).toInt()
        }
        return Offsets(reference, octaves)
    }

    /** Returns the root mean square of tensors together. */
    fun together(scales: DoubleArray, sizes: IntArray, members: Iterable<Int>): Double {
        val total = members.sumOf { sizes[it] * scales[it] * scales[it] }
        return Math.sqrt(total / members.sumOf { sizes[it].toLong() })
    }

    /**
     * Returns the bits an element for [n] elements: more than [rate] for a few.
     *
     * A message costs some kilobytes whatever is in it, so two kilobytes of elements are free up to
     * a byte for each, and three up to half a byte.
     */
    fun generousRate(rate: Double, n: Int): Double {
        val count = maxOf(n, 1)
        return maxOf(rate, minOf(8.0, FREE_BITS / count), minOf(4.0, MORE_FREE_BITS / count))
    }
}
