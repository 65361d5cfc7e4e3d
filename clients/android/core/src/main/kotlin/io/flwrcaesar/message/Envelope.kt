package io.flwrcaesar.message

import io.flwrcaesar.frame.refuse

/**
 * How frames and notes are put into Flower messages.
 *
 * Sections 14 and 15 of `docs/wire-format.md` have the bytes.
 */
internal object Envelope {
    private const val STYPE = "flwr_caesar.frame"
    private const val FRAME = "frame"
    private const val NOTE = "csar"
    private const val OWN_KEY = ""
    private const val OLD_RECORD = "flwr-caesar"
    private const val LED = 1
    private const val SHORT = 2
    private const val FIRST = 'C'.code
    private const val MAX_SHORT = 1 shl 12
    private const val MAX_LED = 1L shl 20
    private const val MAX_NOTE = 0xFFFF

    /** Tells whether a record is one frame. */
    fun isFrame(record: Record?): Boolean =
        record is ArrayRecord && record.arrays.keys == setOf(FRAME) && record.arrays.getValue(FRAME).stype == STYPE

    /** Returns a frame as a record, led by a note or not, and shortened where that is shorter. */
    fun record(frame: ByteArray, note: ByteArray? = null): ArrayRecord {
        val short = if (frame.size <= MAX_SHORT) Shortened.shorten(frame) else frame
        val isShort = short.size < frame.size
        val kind = (if (note != null) LED else 0) or (if (isShort) SHORT else 0)
        val lead =
            if (note == null) ByteArray(0) else byteArrayOf((note.size shr 8).toByte(), note.size.toByte()) + note
        val head = if (kind == 0) ByteArray(0) else byteArrayOf(kind.toByte()) + lead
        val data = head + if (isShort) short else frame
        return ArrayRecord(mapOf(FRAME to FlowerArray("uint8", listOf(data.size.toLong()), STYPE, data)))
    }

    /** Returns the frame in a record, which must be exactly one frame. */
    fun frame(record: ArrayRecord): ByteArray {
        if (!isFrame(record)) refuse("a record holds other arrays than a frame")
        val data = record.arrays.getValue(FRAME).data
        val kind = kind(data)
        if (kind == 0) return data
        val start = 1 + if (kind and LED != 0) 2 + lead(data).size else 0
        val body = data.copyOfRange(start, data.size)
        return if (kind and SHORT != 0) Shortened.lengthen(body, MAX_SHORT) else body
    }

    /** Returns the note of a message, or `null` if it has none. */
    fun note(content: Content): ByteArray? {
        if (OLD_RECORD in content.configs) refuse("a message of protocol 1; this device speaks another")
        for ((name, config) in content.configs) {
            val note = config.values[keyIn(name)] ?: continue
            return note as? ByteArray ?: refuse("the message's entry '$NOTE' is no header")
        }
        for (record in content.records.values) {
            if (record !is ArrayRecord || !isFrame(record)) continue
            val data = record.arrays.getValue(FRAME).data
            if (kind(data) and LED != 0) return lead(data)
        }
        return null
    }

    /** Returns a message without its note; one that leads a frame stays with it. */
    fun withoutNote(content: Content): Content {
        val plain = LinkedHashMap<String, Record>()
        for ((name, record) in content.records) {
            if (record is ConfigRecord && keyIn(name) in record.values) {
                if (name != NOTE) plain[name] = ConfigRecord(record.values - NOTE)
            } else {
                plain[name] = record
            }
        }
        return Content(plain)
    }

    /**
     * Returns a message with a note.
     *
     * @param frame the upload, which the note leads where both are short enough.
     * @param name of the upload's record; the message has one of that name.
     */
    fun withNote(content: Content, note: ByteArray, name: String = "", frame: ByteArray? = null): Content {
        if (frame != null) {
            val alone = record(frame)
            val isLed = note.size <= MAX_NOTE && alone.byteSize <= MAX_LED
            val framed = content.with(name, if (isLed) record(frame, note) else alone)
            return if (isLed) framed else withNote(framed, note)
        }
        val host = content.configs.keys.firstOrNull { it != NOTE }
        if (host == null) return content.with(NOTE, ConfigRecord(mapOf(OWN_KEY to note)))
        return content.with(host, ConfigRecord(content.configs.getValue(host).values + (NOTE to note)))
    }

    private fun keyIn(name: String) = if (name == NOTE) OWN_KEY else NOTE

    private fun kind(data: ByteArray): Int {
        if (data.isEmpty() || data[0].toInt() == FIRST) return 0
        val kind = data[0].toInt()
        if (kind !in LED..(LED or SHORT)) refuse("a frame of the unknown kind $kind")
        return kind
    }

    private fun lead(data: ByteArray): ByteArray {
        if (data.size < 3) refuse("the note before a frame is truncated")
        val size = (data[1].toInt() and 0xFF shl 8) or (data[2].toInt() and 0xFF)
        if (data.size < 3 + size) refuse("the note before a frame is truncated")
        return data.copyOfRange(3, 3 + size)
    }
}
