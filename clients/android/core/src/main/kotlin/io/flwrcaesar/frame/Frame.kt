package io.flwrcaesar.frame

import io.flwrcaesar.zstd.Zstd
import java.util.zip.CRC32

/**
 * Checked access to the header and sections of one frame.
 *
 * A frame is hostile until checked: every length is compared with what the reader expects
 * before anything of that length is allocated. `docs/wire-format.md` is normative.
 *
 * @property config the codec's id and parameters.
 * @property flags the sum of [AS_THEY_ARE] and [RAISED] for what is in the frame.
 */
class Frame private constructor(
    private val bytes: ByteArray,
    val config: Map<String, Any?>,
    private val entries: Map<String, Entry>,
) {
    private class Entry(val encoding: Int, val contentSize: Long, val from: Int, val to: Int)

    val flags: Int get() = bytes.u8(5)

    /** The state that the reader must hold; 0 if none is needed. */
    val stateVersion: Long get() = bytes.u32(12)

    /** The digest of that state; zeros if none is needed. */
    val stateDigest: ByteArray get() = bytes.copyOfRange(16, 24)

    /** The training history that the content refers to; 0 if none. */
    val lineage: Long get() = bytes.u64(LINEAGE_OFFSET)

    /** The model version that the content refers to; 0 if none. */
    val baseVersion: Long get() = bytes.u64(LINEAGE_OFFSET + 8)

    /** The digest of the tensor table. */
    val layoutDigest: ByteArray get() = bytes.copyOfRange(40, PREAMBLE_BYTES)

    /** The tags of the sections, in order. */
    val tags: Set<String> get() = entries.keys

    operator fun contains(tag: String): Boolean = tag in entries

    /** Returns how many bytes a section claims to have. */
    fun contentSize(tag: String): Long = entry(tag).contentSize

    /** Returns the content of a section that has exactly [size] bytes. */
    fun section(tag: String, size: Long): ByteArray {
        val claimed = entry(tag).contentSize
        if (claimed != size) refuse("section '$tag' claims $claimed bytes, expected $size")
        return content(tag)
    }

    /** Returns the content of a section that has at most [limit] bytes. */
    fun sectionUpTo(tag: String, limit: Long): ByteArray {
        val claimed = entry(tag).contentSize
        if (claimed < 0 || claimed > limit) {
            refuse("section '$tag' claims $claimed bytes, expected at most $limit")
        }
        return content(tag)
    }

    private fun entry(tag: String): Entry = entries[tag] ?: refuse("the frame has no section '$tag'")

    private fun content(tag: String): ByteArray {
        val entry = entry(tag)
        val size = entry.contentSize.toIntSize()
        if (entry.encoding == RAW) {
            if (entry.to - entry.from != size) refuse("section '$tag' has the wrong length")
            return bytes.copyOfRange(entry.from, entry.to)
        }
        if (entry.encoding > LAST_ENCODING) {
            refuse("section '$tag' has the unknown encoding ${entry.encoding}")
        }
        val packed = Zstd.decompress(bytes, entry.from, entry.to, size)
        if (entry.encoding == ZSTD) return packed
        val itemSize = 1 shl (entry.encoding - ZSTD)
        if (size % itemSize != 0) refuse("section '$tag' has the wrong length")
        return unshuffle(packed, itemSize)
    }

    companion object {
        /** A flag: some tensors are in a section of their own. */
        const val AS_THEY_ARE = 2

        /** A flag: some tensors of an update are raised to the model that is updated. */
        const val RAISED = 4

        internal const val MAGIC = 0x52415343 // CSAR
        internal const val VERSION = 1
        internal const val PREAMBLE_BYTES = 56
        internal const val LINEAGE_OFFSET = 24
        internal const val ENTRY_BYTES = 21
        internal const val CHECKSUM_BYTES = 4
        internal const val RAW = 0
        private const val ZSTD = 1
        private const val LAST_ENCODING = 4

        /**
         * Reads the header of a frame.
         *
         * @throws CodecError if the bytes are not a whole, intact frame of a known version.
         */
        fun parse(bytes: ByteArray): Frame {
            val contentEnd = bytes.size - CHECKSUM_BYTES
            if (contentEnd < PREAMBLE_BYTES || bytes.u32(0) != MAGIC.toLong()) {
                refuse("not a frame: ${bytes.size} bytes without the CSAR magic")
            }
            if (bytes.u8(4) != VERSION) {
                refuse("a frame of format ${bytes.u8(4)}; this reader knows $VERSION")
            }
            if (bytes.u8(5) and (AS_THEY_ARE or RAISED).inv() != 0) {
                refuse("the frame has the unknown flags ${bytes.u8(5)}")
            }
            if (bytes.u32(contentEnd) != crc(bytes, contentEnd)) {
                refuse("the frame is truncated or corrupt: its checksum differs")
            }
            val count = bytes.u16(6)
            val headerSize = bytes.u32(8)
            if (headerSize < 2 || headerSize > contentEnd - PREAMBLE_BYTES) {
                refuse("the frame's header exceeds the frame")
            }
            val end = PREAMBLE_BYTES + headerSize.toInt()
            val configStart = PREAMBLE_BYTES + 2
            val table = configStart + bytes.u16(PREAMBLE_BYTES)
            if (table + count * ENTRY_BYTES != end) {
                refuse("the frame's header does not match its section count")
            }
            val config = parseConfig(bytes, configStart, table)
            return Frame(bytes, config, parseEntries(bytes, table, count, end, contentEnd))
        }

        private fun parseConfig(bytes: ByteArray, from: Int, to: Int): Map<String, Any?> {
            val text = decodeUtf8(bytes, from, to) ?: refuse("the codec's configuration is not UTF-8")
            val config = Json.parseObject(text)
            if (config["id"] !is String) refuse("the codec's configuration names no codec")
            return config
        }

        private fun parseEntries(
            bytes: ByteArray,
            table: Int,
            count: Int,
            start: Int,
            end: Int,
        ): Map<String, Entry> {
            val entries = LinkedHashMap<String, Entry>()
            var at = start
            for (i in 0 until count) {
                val row = table + i * ENTRY_BYTES
                val tag = parseTag(bytes, row)
                val stored = bytes.u64(row + 13)
                if (tag in entries || stored < 0 || stored > end - at) {
                    refuse("section '$tag' is repeated or exceeds the frame")
                }
                val next = at + stored.toInt()
                entries[tag] = Entry(bytes.u8(row + 4), bytes.u64(row + 5), at, next)
                at = next
            }
            if (at != end) refuse("the frame has bytes that no section names")
            return entries
        }

        private fun parseTag(bytes: ByteArray, at: Int): String {
            var length = 4
            while (length > 0 && bytes[at + length - 1] == 0.toByte()) length--
            val tag = String(bytes, at, length, Charsets.ISO_8859_1)
            if (tag.isEmpty() || tag.any { it.code == 0 || it.code > 0x7F }) {
                refuse("a section's tag is not one to four ASCII characters")
            }
            return tag
        }

        internal fun crc(bytes: ByteArray, size: Int): Long =
            CRC32().also { it.update(bytes, 0, size) }.value

        private fun unshuffle(data: ByteArray, itemSize: Int): ByteArray {
            val items = data.size / itemSize
            val out = ByteArray(data.size)
            for (j in 0 until itemSize) {
                var to = j
                for (from in j * items until (j + 1) * items) {
                    out[to] = data[from]
                    to += itemSize
                }
            }
            return out
        }
    }
}
