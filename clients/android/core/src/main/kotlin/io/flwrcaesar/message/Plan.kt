package io.flwrcaesar.message

import io.flwrcaesar.frame.refuse

/**
 * What a server asks of a device.
 *
 * @property record the name of the ArrayRecord with the model.
 * @property upload the configuration of the codec for the update; empty: none is asked for.
 * @property errorFeedback whether the device keeps what the codec leaves out.
 * @property sendsModel whether it sends its model instead of its update.
 * @property isExact whether the model must have the digest that the header names.
 * @property callsApp whether the app sees the message.
 * @property asksLabels whether the server would like to know label counts.
 * @property maxResidualAge phases after which a residual is given up; 0: never.
 * @property part which method works around the app; empty: none.
 * @property start how a device makes the first model of its own arrays; empty: it does not.
 */
class Plan private constructor(
    val record: String,
    val upload: Map<String, Any?>,
    val errorFeedback: Boolean,
    val sendsModel: Boolean,
    val isExact: Boolean,
    val callsApp: Boolean,
    val asksLabels: Boolean,
    val maxResidualAge: Long,
    val part: String,
    val start: Map<String, Any?>,
) {
    /** Whether the app is to train. */
    val trains: Boolean get() = upload.isNotEmpty() && callsApp

    companion object {
        private const val PROTOCOL = 2
        private const val FEEDBACK = 1
        private const val MODEL = 2
        private const val INEXACT = 4
        private const val NO_APP = 8
        private const val LABELS = 16
        private const val ALL_FLAGS = 31
        private const val MAX_BYTES = 1 shl 20
        private val KEYS = setOf("record", "upload", "max-residual-age", "part", "settings", "start")

        /** Reads the plan of a note, and the header of its download. */
        internal fun read(note: ByteArray): Pair<Plan, DownloadHeader> {
            val reader = FieldReader.opened(note)
            val protocol = reader.u8()
            if (protocol != PROTOCOL) refuse("a message of protocol $protocol; this device speaks $PROTOCOL")
            val flags = reader.u8()
            if (flags > ALL_FLAGS) refuse("the server's plan has unknown flags")
            val header = DownloadHeader.read(reader)
            val told = Shortened.unpack(reader.rest(), MAX_BYTES)
            if (!KEYS.containsAll(told.keys)) refuse("the server's plan has unknown fields")
            value(told, "settings", emptyMap<String, Any?>())
            val plan =
                Plan(
                    record = value(told, "record", "arrays"),
                    upload = value(told, "upload", emptyMap()),
                    errorFeedback = flags and FEEDBACK != 0,
                    sendsModel = flags and MODEL != 0,
                    isExact = flags and INEXACT == 0,
                    callsApp = flags and NO_APP == 0,
                    asksLabels = flags and LABELS != 0,
                    maxResidualAge = value(told, "max-residual-age", 0L),
                    part = value(told, "part", ""),
                    start = value(told, "start", emptyMap()),
                )
            if (plan.maxResidualAge < 0) refuse("the server's plan is malformed: max-residual-age")
            return plan to header
        }

        private inline fun <reified T : Any> value(told: Map<String, Any?>, key: String, default: T): T {
            if (key !in told) return default
            return told[key] as? T ?: refuse("the server's plan is malformed: $key")
        }
    }
}
