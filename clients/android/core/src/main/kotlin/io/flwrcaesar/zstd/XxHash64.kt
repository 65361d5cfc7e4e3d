package io.flwrcaesar.zstd

import io.flwrcaesar.frame.u32
import io.flwrcaesar.frame.u64
import io.flwrcaesar.frame.u8

/** XXH64 with the seed 0, of which zstd's content checksum is the lower half. */
internal object XxHash64 {
    private const val P1 = -0x61c8864e7a143579L
    private const val P2 = -0x3d4d51c2d82b14b1L
    private const val P3 = 0x165667b19e3779f9L
    private const val P4 = -0x7a1435883d4d519dL
    private const val P5 = 0x27d4eb2f165667c5L

    fun of(data: ByteArray): Long {
        var at = 0
        var hash = P5
        if (data.size >= 32) {
            val lanes = longArrayOf(P1 + P2, P2, 0, -P1)
            while (at <= data.size - 32) {
                for (i in 0..3) lanes[i] = round(lanes[i], data.u64(at + 8 * i))
                at += 32
            }
            hash = lanes[0].rotateLeft(1) + lanes[1].rotateLeft(7) +
                lanes[2].rotateLeft(12) + lanes[3].rotateLeft(18)
            for (lane in lanes) hash = (hash xor round(0, lane)) * P1 + P4
        }
        hash += data.size
        while (at <= data.size - 8) {
            hash = (hash xor round(0, data.u64(at))).rotateLeft(27) * P1 + P4
            at += 8
        }
        if (at <= data.size - 4) {
            hash = (hash xor data.u32(at) * P1).rotateLeft(23) * P2 + P3
            at += 4
        }
        while (at < data.size) {
            hash = (hash xor data.u8(at) * P5).rotateLeft(11) * P1
            at++
        }
        hash = (hash xor (hash ushr 33)) * P2
        hash = (hash xor (hash ushr 29)) * P3
        return hash xor (hash ushr 32)
    }

    private fun round(lane: Long, word: Long): Long = (lane + word * P2).rotateLeft(31) * P1
}
