package io.flwrcaesar.message

import io.flwrcaesar.frame.Json
import io.flwrcaesar.quantise.log2

/** The four durations of a reply in seconds: training, encoding, decoding, start. */
class Seconds(val train: Double, val encode: Double, val decode: Double, val start: Double) {
    /** Returns them in six bytes, each to 0.3 %. */
    internal fun pack(): ByteArray {
        var packed = 0L
        for (value in listOf(train, encode, decode, start)) packed = (packed shl BITS) or code(value)
        return ByteArray(6) { (packed ushr (40 - 8 * it)).toByte() }
    }

    private fun code(seconds: Double): Long {
        if (!(seconds > 0)) return 0
        val code = Math.rint((log2(seconds) + SHIFT) * STEPS).toLong() + 1
        return code.coerceIn(0, (1L shl BITS) - 1)
    }

    companion object {
        private const val BITS = 12
        private const val STEPS = 112
        private const val SHIFT = 13

        /** Those of a reply that the app had no part in. */
        val NONE = Seconds(0.0, 0.0, 0.0, 0.0)
    }
}

/** The codecs and parts that a device knows, as it says them to a server. */
data class Abilities(val codecs: List<String>, val parts: List<String> = emptyList()) {
    internal fun toJson(): Map<String, Any?> =
        mapOf("codecs" to codecs) + if (parts.isEmpty()) emptyMap() else mapOf("parts" to parts)

    internal companion object {
        @Suppress("UNCHECKED_CAST") // written by this class, and checked by a digest since
        fun of(json: Map<String, Any?>): Abilities =
            Abilities(json["codecs"] as List<String>, json["parts"] as? List<String> ?: emptyList())
    }
}

/**
 * What a device says of itself with a reply.
 *
 * @property labels how many examples it has of each label; empty: it does not say.
 * @property telemetry what was measured, or why it declines; empty: nothing.
 * @property abilities what it knows; `null`: the server has heard it, or need not.
 */
class Report(
    val seconds: Seconds = Seconds.NONE,
    val labels: List<Long> = emptyList(),
    val telemetry: Map<String, Any?> = emptyMap(),
    val abilities: Abilities? = null,
) {
    /** Returns the note of a reply with this header. */
    internal fun note(header: UploadHeader): ByteArray {
        val claims =
            mapOf("labels" to labels, "telemetry" to telemetry, "can" to abilities?.toJson()).filterValues {
                it != null && it != emptyList<Any>() && it != emptyMap<String, Any>()
            }
        val writer = FieldWriter()
        header.write(writer)
        return writer.bytes(seconds.pack()).bytes(Shortened.pack(claims)).sealed()
    }

    /** Returns the labels and abilities as JSON, to say them again. */
    internal fun toJson(): Map<String, Any?> = mapOf("labels" to labels, "can" to abilities?.toJson())

    internal companion object {
        @Suppress("UNCHECKED_CAST") // written by this class, and checked by a digest since
        fun of(json: Map<String, Any?>): Report {
            val abilities = json["can"] as Map<String, Any?>?
            return Report(labels = json["labels"] as List<Long>, abilities = abilities?.let(Abilities::of))
        }

        /** The longest text of telemetry. */
        const val MAX_TELEMETRY = 2048

        /** Returns telemetry as it may be sent: nothing of what is too long. */
        fun fitting(telemetry: Map<String, Any?>): Map<String, Any?> =
            if (Json.write(telemetry).length <= MAX_TELEMETRY / 2) telemetry else emptyMap()
    }
}
