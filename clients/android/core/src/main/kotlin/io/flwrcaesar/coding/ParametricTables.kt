package io.flwrcaesar.coding

import io.flwrcaesar.frame.refuse

/**
 * Tables of few parameters, which a compact block may have in place of frequencies.
 *
 * Section 9 of `docs/wire-format.md`, "Parameters of tables", has the arithmetic.
 */
internal object ParametricTables {
    private const val MAX_CODE = 136L
    private const val FIRST_SLOPE = 40L
    private const val SLOPE_BITS = 20
    private const val DIRECT = 16
    private const val OCTAVE = 4
    private const val STEPS_PER_OCTAVE = 8L
    private val SIZES = 1L..128L
    private val SIGNS = -64L..64L
    private val RATIOS = -64L..64L
    private val SLOPES = 0L..47L

    /** Reads the tables of [contexts] contexts, of which a history class has [width]. */
    fun read(data: ByteArray, start: Int, contexts: Int, width: Int): SymbolTables.Read {
        val read = SmallBlock.decodeGroups(data, start, intArrayOf(2, contexts, contexts))
        val size = read.values[0] + 1L
        val sign = read.values[1].toLong()
        val ratios = sums(read.values, 2, contexts, width, 0)
        val slopes = sums(read.values, 2 + contexts, contexts, width, FIRST_SLOPE)
        if (size !in SIZES || sign !in SIGNS || ratios.any { it !in RATIOS } || slopes.any { it !in SLOPES }) {
            refuse("parameters of tables are out of range")
        }
        val codes = List(contexts) { codes(size.toInt(), sign, ratios[it], slopes[it].toInt()) }
        return SymbolTables.Read(codes, read.end)
    }

    private fun sums(differences: IntArray, from: Int, contexts: Int, width: Int, first: Long): LongArray {
        val found = LongArray(contexts)
        for (i in 0 until contexts) {
            val before = if (i % width == 0) i - width else i - 1
            found[i] = differences[from + i] + if (before < 0) first else found[before]
        }
        return found
    }

    private fun codes(size: Int, sign: Long, ratio: Long, slope: Int): IntArray {
        val fall = (STEPS_PER_OCTAVE + 4 * (slope % 2)) shl (slope / 2)
        val levels = LongArray(size) { if (it == 0) 0 else level(it, sign, ratio, fall) }
        val highest = levels.max()
        return IntArray(size) { maxOf(MAX_CODE + levels[it] - highest, 1).toInt() }
    }

    /** Returns by how many eighths of an octave a symbol is more frequent than 0. */
    private fun level(symbol: Int, sign: Long, ratio: Long, fall: Long): Long {
        if (symbol < DIRECT) {
            val rarer = maxOf(if (symbol % 2 == 1) sign else -sign, 0)
            return 4 * ratio - (fall * ((symbol + 1) / 2 - 1) shr SLOPE_BITS) - rarer
        }
        val octave = 2 + (symbol - DIRECT) / OCTAVE
        val middle = ((OCTAVE + symbol % OCTAVE).toLong() shl (octave - 1)) + (1L shl (octave - 2))
        val either = minOf(maxOf(sign, -sign), STEPS_PER_OCTAVE)
        return 4 * ratio - (fall * (middle - 1) shr SLOPE_BITS) + STEPS_PER_OCTAVE * octave - either
    }
}
