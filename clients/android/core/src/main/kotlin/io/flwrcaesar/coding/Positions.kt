package io.flwrcaesar.coding

import io.flwrcaesar.frame.ByteSink
import io.flwrcaesar.frame.Frame
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u32
import io.flwrcaesar.frame.u8
import java.util.BitSet

/**
 * Strictly increasing positions in a vector, as a bitmap or as Golomb-Rice coded gaps.
 *
 * Section 8 of `docs/wire-format.md` has the bytes.
 */
internal object Positions {
    private const val HEAD_BYTES = 5
    private const val ABSENT = 0x80
    private const val GAPS = 0x40
    private const val WIDTH = 0x3F

    /** Returns the positions in a frame's section, for a vector of [n] elements. */
    fun read(frame: Frame, tag: String, n: Int): IntArray = decode(frame.sectionUpTo(tag, maxBytes(n)), n)

    /** Returns the most bytes that positions among [n] elements take. */
    fun maxBytes(n: Int): Long = HEAD_BYTES + 2 + (n + 7L) / 8

    /** Returns the positions that [data] is exactly the encoding of. */
    fun decode(data: ByteArray, n: Int): IntArray {
        if (data.size < HEAD_BYTES || data.size > maxBytes(n)) refuse("positions have the wrong length")
        val mode = data.u8(0)
        val written = data.u32(1)
        val width = mode and WIDTH
        if (written > n || (width > 0 && mode and GAPS == 0)) refuse("positions have a malformed header")
        val count = written.toInt()
        val found = if (mode and GAPS == 0) bitmap(data, n, count) else gaps(data, n, count, width)
        return if (mode and ABSENT == 0) found else others(found, n)
    }

    private fun bitmap(data: ByteArray, n: Int, count: Int): IntArray {
        if (data.size - HEAD_BYTES != ((n + 7L) / 8).toInt()) refuse("a bitmap has the wrong length")
        val found = IntArray(count)
        var k = 0
        for (i in 0 until 8 * (data.size - HEAD_BYTES)) {
            if (data.u8(HEAD_BYTES + i / 8) ushr (7 - i % 8) and 1 == 0) continue
            if (k == count || i >= n) refuse("a bitmap has other positions than it says")
            found[k++] = i
        }
        if (k != count) refuse("a bitmap has other positions than it says")
        return found
    }

    private fun gaps(data: ByteArray, n: Int, count: Int, width: Int): IntArray {
        if (count > 0 && (width > 31 || 1L shl width > n)) refuse("gaps exceed the vector")
        val lowBytes = (width.toLong() * count + 7) / 8
        val split = data.size - lowBytes
        if (split < HEAD_BYTES) refuse("positions are truncated")
        val quotients = BitReader(data, HEAD_BYTES, split.toInt())
        val low = BitReader(data, split.toInt(), data.size)
        val found = IntArray(count)
        var last = -1L
        var zeros = 0L
        for (k in 0 until count) {
            val quotient = quotients.zeros()
            zeros += quotient
            if (zeros > n.toLong() ushr width) refuse("gaps exceed the vector")
            last += (quotient shl width) + low.read(width) + 1
            if (last >= n) refuse("positions lie outside of the vector")
            found[k] = last.toInt()
        }
        if (quotients.left >= 8 || !quotients.hasOnlyZerosLeft()) refuse("positions have trailing bits")
        return found
    }

    /** Returns the positions among [n] that are not in a list. */
    private fun others(positions: IntArray, n: Int): IntArray {
        val found = IntArray(n - positions.size)
        var next = 0
        var k = 0
        for (i in 0 until n) {
            if (next < positions.size && positions[next] == i) next++ else found[k++] = i
        }
        return found
    }

    /** Encodes positions among [n] elements in whichever form is the shortest. */
    fun encode(positions: IntArray, n: Int): ByteArray {
        val isMostlyPresent = 2L * positions.size > n
        val written = if (isMostlyPresent) others(positions, n) else positions
        val flags = if (isMostlyPresent) ABSENT else 0
        val gap = { k: Int -> written[k].toLong() - (if (k == 0) -1 else written[k - 1]) - 1 }
        val width = Rice.bestWidth(written.size, gap)
        if (Rice.cost(written.size, width, gap) >= n) {
            return head(flags, written).bytes(bitmapOf(written, n)).toByteArray()
        }
        val unary = BitWriter()
        val low = BitWriter()
        for (k in written.indices) {
            unary.writeUnary(gap(k) ushr width)
            low.write(gap(k), width)
        }
        return head(flags or GAPS or width, written)
            .bytes(unary.toByteArray())
            .bytes(low.toByteArray())
            .toByteArray()
    }

    private fun head(mode: Int, written: IntArray): ByteSink = ByteSink().u8(mode).u32(written.size)

    private fun bitmapOf(positions: IntArray, n: Int): ByteArray {
        val bits = BitSet(n)
        positions.forEach(bits::set)
        return ByteArray(((n + 7L) / 8).toInt()) { byte ->
            (0..7).sumOf { if (bits[8 * byte + it]) 0x80 ushr it else 0 }.toByte()
        }
    }
}
