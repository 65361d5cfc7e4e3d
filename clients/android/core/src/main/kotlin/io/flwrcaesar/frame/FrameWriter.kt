package io.flwrcaesar.frame

/** A named run of bytes of a frame. */
class Section(val tag: String, val content: ByteArray)

/**
 * Writes frames.
 *
 * Sections are stored as they are: a phone spends no time on compressing what is
 * entropy-coded already, and a reader accepts every encoding.
 */
object FrameWriter {
    /** Returns a frame of a codec without a memory. */
    fun write(
        config: Map<String, Any?>,
        layout: Layout,
        sections: List<Section>,
        flags: Int = 0,
    ): ByteArray {
        val configuration = Json.write(config).toByteArray()
        if (configuration.size > 0xFFFF) refuse("the codec's configuration is too long")
        val headerSize = 2 + configuration.size + Frame.ENTRY_BYTES * sections.size
        val size = Frame.PREAMBLE_BYTES + headerSize + sections.sumOf { it.content.size.toLong() }
        val sink = ByteSink((size + Frame.CHECKSUM_BYTES).toIntSize())
        sink.u32(Frame.MAGIC).u8(Frame.VERSION).u8(flags).u16(sections.size).u32(headerSize)
        sink.u32(0).u64(0) // no state
        sink.u64(0).u64(0) // lineage and base version: see `stamp`
        sink.bytes(layout.digest)
        sink.u16(configuration.size).bytes(configuration)
        sections.forEach { entry(sink, it) }
        sections.forEach { sink.bytes(it.content) }
        return seal(sink.u32(0).toByteArray())
    }

    /** Returns a frame that has one more section, and a flag that says so. */
    fun add(frame: ByteArray, section: Section, flag: Int): ByteArray {
        val headerSize = frame.u32(8).toInt()
        val end = Frame.PREAMBLE_BYTES + headerSize
        val sink = ByteSink(frame.size + Frame.ENTRY_BYTES + section.content.size)
        sink.bytes(frame, 0, 5).u8(frame.u8(5) or flag).u16(frame.u16(6) + 1)
        sink.u32(headerSize + Frame.ENTRY_BYTES).bytes(frame, 12, end)
        entry(sink, section)
        sink.bytes(frame, end, frame.size - Frame.CHECKSUM_BYTES).bytes(section.content)
        return seal(sink.u32(0).toByteArray())
    }

    /** Returns a frame that says which training history and model version it refers to. */
    fun stamp(frame: ByteArray, lineage: Long, baseVersion: Long): ByteArray {
        val stamped = frame.copyOf()
        stamped.little().putLong(Frame.LINEAGE_OFFSET, lineage)
        stamped.little().putLong(Frame.LINEAGE_OFFSET + 8, baseVersion)
        return seal(stamped)
    }

    private fun entry(sink: ByteSink, section: Section) {
        sink.bytes(section.tag.toByteArray(Charsets.US_ASCII).copyOf(4)).u8(Frame.RAW)
        sink.u64(section.content.size.toLong()).u64(section.content.size.toLong())
    }

    private fun seal(frame: ByteArray): ByteArray {
        val end = frame.size - Frame.CHECKSUM_BYTES
        frame.little().putInt(end, Frame.crc(frame, end).toInt())
        return frame
    }
}
