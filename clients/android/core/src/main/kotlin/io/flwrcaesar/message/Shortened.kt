package io.flwrcaesar.message

import io.flwrcaesar.frame.Json
import io.flwrcaesar.frame.decodeUtf8
import io.flwrcaesar.frame.refuse
import java.io.ByteArrayOutputStream
import java.util.zip.DataFormatException
import java.util.zip.Deflater
import java.util.zip.Inflater

/** Short texts and frames in fewer bytes: raw deflate that starts from words known to both sides. */
internal object Shortened {
    /** Returns bytes shortened. */
    fun shorten(data: ByteArray): ByteArray {
        val deflater = Deflater(Deflater.BEST_COMPRESSION, true)
        try {
            deflater.setDictionary(Words.bytes)
            deflater.setInput(data)
            deflater.finish()
            val out = ByteArrayOutputStream()
            val buffer = ByteArray(BUFFER)
            while (!deflater.finished()) out.write(buffer, 0, deflater.deflate(buffer))
            return out.toByteArray()
        } finally {
            deflater.end()
        }
    }

    /** Returns what was shortened, if it is at most [most] bytes and ends with its input. */
    fun lengthen(data: ByteArray, most: Int): ByteArray {
        val inflater = Inflater(true)
        try {
            inflater.setDictionary(Words.bytes)
            inflater.setInput(data)
            val out = ByteArrayOutputStream()
            val buffer = ByteArray(BUFFER)
            while (!inflater.finished()) {
                val count = inflater.inflate(buffer)
                if (count == 0 && !inflater.finished()) refuse("what was shortened does not end where it should")
                if (out.size() + count > most) refuse("what was shortened has more than $most bytes")
                out.write(buffer, 0, count)
            }
            if (inflater.remaining > 0) refuse("what was shortened does not end where it should")
            return out.toByteArray()
        } catch (err: DataFormatException) {
            refuse("what was shortened is damaged: ${err.message}")
        } finally {
            inflater.end()
        }
    }

    /** Returns an object as shortened JSON; nothing for an empty one. */
    fun pack(values: Map<String, Any?>): ByteArray =
        if (values.isEmpty()) ByteArray(0) else shorten(Json.write(values).toByteArray())

    /** Returns what [pack] packed, of at most [most] bytes of JSON. */
    fun unpack(data: ByteArray, most: Int): Map<String, Any?> {
        if (data.isEmpty()) return emptyMap()
        val text = decodeUtf8(lengthen(data, most)) ?: refuse("a note's text is not UTF-8")
        return Json.parseObject(text)
    }

    private const val BUFFER = 4096
}
