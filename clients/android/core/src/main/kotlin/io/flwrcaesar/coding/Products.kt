package io.flwrcaesar.coding

import io.flwrcaesar.frame.DType
import io.flwrcaesar.frame.Frame
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.little
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u8

/**
 * A matrix that a frame tells beside a tensor: a unit times a sum of outer products of integers.
 *
 * Section 9 of `docs/wire-format.md`, "Products", has the bytes. A phone reads them and writes none.
 */
internal class Products private constructor(
    private val unit: Float,
    private val doublings: IntArray,
    private val left: List<IntArray>,
    private val right: List<IntArray>,
) {
    // Where a side is all 0 the other one may be large: what wraps around is multiplied by 0.
    private val isExact: Boolean
        get() = doublings.indices.sumOf { Math.scalb(largest(left[it]) * largest(right[it]), doublings[it]) } < EXACT

    /** Adds the matrix to the elements of its tensor, of which the first is `values[start]`. */
    fun addTo(values: FloatArray, start: Int) {
        val sums = IntArray(right[0].size)
        var at = start
        for (row in left[0].indices) {
            sums.fill(0)
            for (r in doublings.indices) {
                val factor = left[r][row] shl doublings[r]
                val column = right[r]
                if (factor != 0) for (j in sums.indices) sums[j] += factor * column[j]
            }
            for (sum in sums) values[at++] += unit * sum.toFloat()
        }
    }

    companion object {
        /** The most products that a tensor may have. */
        const val MAX_RANK = 32L
        private const val TABLE = "OTAB"
        private const val INTEGERS = "OINT"
        private const val MOST_DOUBLINGS = 15
        private const val EXACT = (1 shl 24).toDouble()
        private const val MIN_SIZE = 1L shl 13
        private const val MIN_SIDE = 8

        /**
         * Reads the products of each tensor; `null` for one without.
         *
         * @param rank the most that a tensor may have.
         */
        fun read(frame: Frame, lossy: List<TensorSpec>, rank: Long): List<Products?> {
            if (TABLE !in frame) return lossy.map { null }
            val table = frame.sectionUpTo(TABLE, (5 + rank) * lossy.size)
            if (table.size < lossy.size) refuse("a table of products has the wrong size")
            val ranks = IntArray(lossy.size) { table.u8(it) }
            val there = lossy.indices.filter { ranks[it] > 0 }
            val unitsEnd = lossy.size + 4 * there.size
            if (there.isEmpty() || table.size != unitsEnd + ranks.sum()) {
                refuse("a table of products has the wrong size")
            }
            for (i in there) {
                if (ranks[i] > minOf(rank, most(lossy[i]))) refuse("a tensor has products that it cannot have")
            }
            val view = table.little()
            val units = there.indices.map { view.getFloat(lossy.size + 4 * it) }
            if (!units.all { it > 0 && it <= Float.MAX_VALUE }) refuse("products have a malformed unit")
            val doublings = IntArray(ranks.sum()) { table.u8(unitsEnd + it) }
            if (doublings.any { it > MOST_DOUBLINGS }) refuse("products have malformed doublings")

            val specs = there.flatMap { factors(lossy[it], ranks[it].toLong()) }
            val data = frame.sectionUpTo(INTEGERS, Block.maxBytes(specs))
            val integers = CompactBlock.decode(data, 0, specs)
            val found = arrayOfNulls<Products>(lossy.size)
            var first = 0
            var at = 0
            for ((k, i) in there.withIndex()) {
                val (left, right) =
                    specs.subList(2 * k, 2 * k + 2).map { spec ->
                        val side = spec.shape[1].toInt()
                        List(ranks[i]) { integers.copyOfRange(at + it * side, at + (it + 1) * side) }
                            .also { at += spec.count }
                    }
                found[i] = Products(units[k], doublings.copyOfRange(first, first + ranks[i]), left, right)
                first += ranks[i]
            }
            if (found.any { it != null && !it.isExact }) refuse("products are too large")
            return found.toList()
        }

        private fun factors(spec: TensorSpec, count: Long): List<TensorSpec> {
            val rows = Scales.axesOf(spec)[0].toLong()
            return listOf(rows, spec.size / rows).map { TensorSpec("factors", DType.INT32, listOf(count, it)) }
        }

        // A small or narrow matrix has none; no other more than it has rows or columns.
        private fun most(spec: TensorSpec): Long {
            val rows = Scales.axesOf(spec)[0].toLong()
            val side = minOf(rows, spec.size / rows)
            return if (spec.size >= MIN_SIZE && side >= MIN_SIDE) side else 0
        }

        private fun largest(side: IntArray): Double = side.maxOf { Math.abs(it.toDouble()) }
    }
}
