package io.flwrcaesar.coding

import io.flwrcaesar.quantise.log2

/** How often symbols occur in their contexts, and the bits that these take. */
internal class SymbolCounts(contexts: Int) {
    private val rows = Array(contexts) { IntArray(SymbolTables.ALPHABET) }
    private var largest = 0

    fun add(context: Int, symbol: Int) {
        rows[context][symbol]++
        if (symbol > largest) largest = symbol
    }

    /** Returns the counts of a context, up to the largest symbol of all. */
    fun of(context: Int): IntArray = rows[context].copyOf(largest + 1)

    /** Returns counts in which each [group] neighbouring contexts are one. */
    fun merged(group: Int): SymbolCounts {
        val merged = SymbolCounts((rows.size + group - 1) / group)
        merged.largest = largest
        for ((context, row) in rows.withIndex()) {
            val into = merged.rows[context / group]
            for (symbol in 0..largest) into[symbol] += row[symbol]
        }
        return merged
    }

    /** Returns the first and the last context that has symbols; 0 and 0 if none has. */
    fun range(): IntRange {
        val used = rows.indices.filter { context -> rows[context].any { it > 0 } }
        return if (used.isEmpty()) 0..0 else used.first()..used.last()
    }

    /** Returns how many symbols occur, each once for each context. */
    fun distinct(): Int = rows.sumOf { row -> row.count { it > 0 } }

    /** Returns the bits of all symbols by the entropy of their context. */
    fun entropyBits(): Double = rows.sumOf { row -> timesLog(row.sum()) - row.sumOf(::timesLog) }

    private fun timesLog(count: Int): Double = if (count == 0) 0.0 else count * log2(count.toDouble())
}
