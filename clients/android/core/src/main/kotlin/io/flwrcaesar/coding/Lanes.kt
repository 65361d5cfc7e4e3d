package io.flwrcaesar.coding

import io.flwrcaesar.frame.ByteSink
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u16
import io.flwrcaesar.frame.u32
import io.flwrcaesar.frame.u64

/** What the reader and the writer of symbols share: lanes, and the header that tells of them. */
internal object Lanes {
    /** The least state between two symbols, and the one in which a writer starts. */
    const val LOWEST = 1L shl 16
    private const val MAX_ROWS = 1L shl 11
    private const val BYTES_PER_LANE = 128
    private const val BYTES_PER_LANE_OF_FEW = 168
    private const val FEW_BITS = 8.0 * (1 shl 12)
    private const val MOST = 1L shl 11
    private const val FEW = 32L
    private const val MAX_LANES = 0xFFFFL

    /**
     * How symbols are shared out.
     *
     * @property head symbols of the first part.
     * @property many lanes of the first part.
     * @property few lanes of the second part.
     * @property borrowed words of the second part that the states of the first end in.
     * @property words how many words follow the tables.
     */
    class Header(val head: Int, val many: Int, val few: Int, val borrowed: Int, val words: Long) {
        fun write(sink: ByteSink, symbols: Int, tables: Int) {
            sink.u64(symbols.toLong()).u32(head).u16(many).u16(few).u16(borrowed).u16(tables)
            sink.u32(words.toInt())
        }

        companion object {
            const val BYTES = 24

            /** Reads a header of [symbols] symbols in [tables] contexts from `data[at:to]`. */
            fun read(data: ByteArray, at: Int, to: Int, symbols: Int, tables: Int): Header {
                if (to - at < BYTES) refuse("symbols are truncated")
                val head = data.u32(at + 8)
                val many = data.u16(at + 12)
                val few = data.u16(at + 14)
                val borrowed = data.u16(at + 16)
                if (data.u64(at) != symbols.toLong() || data.u16(at + 18) != tables) {
                    refuse("symbols have a malformed header")
                }
                return of(symbols, head, many.toLong(), few.toLong(), borrowed.toLong(), data.u32(at + 20))
            }

            /** Returns the header of [symbols] symbols that a reader was told of. */
            fun of(symbols: Int, head: Long, many: Long, few: Long, borrowed: Long, words: Long): Header {
                if (head > symbols || few < 1 || many < 1 || few > MAX_LANES || many > MAX_LANES ||
                    head > many * MAX_ROWS || symbols - head > few * MAX_ROWS ||
                    borrowed > (if (head > 0) many else 0)
                ) {
                    refuse("symbols have a malformed header")
                }
                return Header(head.toInt(), many.toInt(), few.toInt(), borrowed.toInt(), words)
            }
        }
    }

    /** Chooses lanes for [n] symbols of together about [bits] bits. */
    fun plan(n: Int, bits: Double): Header {
        val least = (n + MAX_ROWS - 1) / MAX_ROWS
        val each = if (bits < FEW_BITS) BYTES_PER_LANE_OF_FEW else BYTES_PER_LANE
        val lanes = maxOf(minOf((bits / 8).toLong() / each, MOST), least, 1)
        if (lanes <= 2 * FEW || bits < 17 * lanes) return Header(0, 1, lanes.toInt(), 0, 0)
        val few = maxOf(FEW, lanes / 16)
        val tail = minOf((lanes * 17 * n / bits).toLong() + few, few * MAX_ROWS, n.toLong())
        return Header((n - tail).toInt(), lanes.toInt(), few.toInt(), 0, 0)
    }
}
