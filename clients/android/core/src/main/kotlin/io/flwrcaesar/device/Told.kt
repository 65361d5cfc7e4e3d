package io.flwrcaesar.device

import io.flwrcaesar.frame.Json
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.message.ArrayRecord
import io.flwrcaesar.message.ConfigRecord
import io.flwrcaesar.message.Content
import io.flwrcaesar.message.FlowerArray
import io.flwrcaesar.message.MetricRecord
import io.flwrcaesar.message.Record
import io.flwrcaesar.message.Report
import java.util.Base64

/** What a reply says beside its update, as the text in which it is kept to be said again. */
internal class Told(val records: Map<String, Record>, val report: Report) {
    /** Returns the text; one that is too long is refused. */
    fun toText(): String {
        val arrays = records.values.filterIsInstance<ArrayRecord>().sumOf { it.byteSize }
        val kept = if (arrays <= MAX_ARRAYS) records else records.filterValues { it !is ArrayRecord }
        val text =
            Json.write(
                mapOf("records" to kept.map { (name, record) -> listOf(name) + plain(record) }, "report" to report.toJson()),
            )
        if (text.length > MAX_TEXT) refuse("a reply says ${text.length} characters beside its update, at most $MAX_TEXT")
        return text
    }

    companion object {
        private const val MAX_ARRAYS = 1L shl 20
        private const val MAX_TEXT = 16 shl 20
        private const val CONFIG = "config"
        private const val METRICS = "metrics"
        private const val ARRAYS = "arrays"
        private const val BYTES = "base64"
        private const val NUMBER = "number"

        /** Reads what [toText] wrote. */
        fun of(text: String): Told {
            val json = Json.parseObject(text)
            val records = LinkedHashMap<String, Record>()
            for (entry in json["records"] as List<*>) {
                val (name, kind, content) = entry as List<*>
                records[name as String] = record(kind as String, content)
            }
            @Suppress("UNCHECKED_CAST") // an object of JSON
            return Told(records, Report.of(json["report"] as Map<String, Any?>))
        }

        private fun plain(record: Record): List<Any?> =
            when (record) {
                is ConfigRecord -> listOf(CONFIG, entries(record.values))
                is MetricRecord -> listOf(METRICS, entries(record.values))
                is ArrayRecord ->
                    listOf(
                        ARRAYS,
                        record.arrays.map { (name, a) -> listOf(name, a.dtype, a.shape, a.stype, text(a.data)) },
                    )
                else -> throw IllegalArgumentException("plain arrays are not kept")
            }

        private fun record(kind: String, content: Any?): Record =
            when (kind) {
                ARRAYS -> ArrayRecord((content as List<*>).associate { array(it as List<*>) })
                else -> {
                    val values = (content as List<*>).associate { entry(it as List<*>) }
                    if (kind == CONFIG) ConfigRecord(values) else MetricRecord(values)
                }
            }

        // As a list, as the keys of an object have no order.
        private fun entries(values: Map<String, Any>) = values.map { (key, value) -> listOf(key, plainValue(value)) }

        private fun entry(entry: List<*>): Pair<String, Any> = entry[0] as String to value(entry[1])

        private fun array(entry: List<*>): Pair<String, FlowerArray> {
            val (name, dtype, shape, stype, data) = entry
            val lengths = (shape as List<*>).map { it as Long }
            val bytes = Base64.getDecoder().decode(data as String)
            return name as String to FlowerArray(dtype as String, lengths, stype as String, bytes)
        }

        private fun text(data: ByteArray): String = Base64.getEncoder().encodeToString(data)

        // JSON has neither bytes nor numbers such as NaN, which a metric may be.
        private fun plainValue(value: Any): Any =
            when {
                value is ByteArray -> mapOf(BYTES to text(value))
                value is Double && !value.isFinite() -> mapOf(NUMBER to value.toString())
                value is List<*> -> value.map { plainValue(it!!) }
                else -> value
            }

        private fun value(plain: Any?): Any =
            when (plain) {
                is Map<*, *> -> {
                    val bytes = plain[BYTES] as String?
                    if (bytes != null) Base64.getDecoder().decode(bytes) else (plain[NUMBER] as String).toDouble()
                }
                is List<*> -> plain.map(::value)
                else -> plain!!
            }
    }
}
