package io.flwrcaesar.bench

import io.flwrcaesar.codec.Dense
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.message.ArrayRecord
import io.flwrcaesar.message.ConfigRecord
import io.flwrcaesar.message.Content
import io.flwrcaesar.message.FlowerArray
import io.flwrcaesar.message.MetricRecord
import io.flwrcaesar.message.Record
import io.flwrcaesar.message.TensorRecord
import java.util.Base64

/** Messages as `tests/sync/conversations/README.md` writes them: `[name, kind, entries]` each. */
internal object JsonContent {
    fun read(json: Any?): Content {
        val records = LinkedHashMap<String, Record>()
        for (entry in json as List<*>) {
            val (name, kind, entries) = entry as List<*>
            records[name as String] =
                when (kind) {
                    "arrays" -> ArrayRecord((entries as List<*>).associate { array(it as List<*>) })
                    "tensors" -> TensorRecord(tensors(entries as String))
                    "config" -> ConfigRecord(values(entries))
                    else -> MetricRecord(values(entries))
                }
        }
        return Content(records)
    }

    fun write(content: Content): List<List<Any?>> =
        content.records.map { (name, record) ->
            when (record) {
                is ArrayRecord ->
                    listOf(
                        name,
                        "arrays",
                        record.arrays.map { (key, a) -> listOf(key, a.dtype, a.shape, a.stype, text(a.data)) },
                    )
                is TensorRecord -> listOf(name, "tensors", text(dense(record.tensors)))
                is ConfigRecord -> listOf(name, "config", record.values.map { listOf(it.key, plain(it.value)) })
                is MetricRecord -> listOf(name, "metrics", record.values.map { listOf(it.key, plain(it.value)) })
            }
        }

    fun tensors(text: String): Tensors = Dense.decode(Base64.getDecoder().decode(text), isFinite = false)

    fun dense(tensors: Tensors): ByteArray = Dense.encode(tensors, known = false, isFinite = false).frame

    private fun text(data: ByteArray): String = Base64.getEncoder().encodeToString(data)

    private fun array(entry: List<*>): Pair<String, FlowerArray> {
        val (name, dtype, shape, stype, data) = entry
        val lengths = (shape as List<*>).map { it as Long }
        val bytes = Base64.getDecoder().decode(data as String)
        return name as String to FlowerArray(dtype as String, lengths, stype as String, bytes)
    }

    private fun values(entries: Any?): Map<String, Any> =
        (entries as List<*>).associate { entry ->
            val (key, value) = entry as List<*>
            key as String to value(value)
        }

    private fun value(json: Any?): Any =
        when (json) {
            is Map<*, *> -> Base64.getDecoder().decode(json["base64"] as String)
            is List<*> -> json.map(::value)
            else -> json!!
        }

    private fun plain(value: Any): Any =
        when (value) {
            is ByteArray -> mapOf("base64" to text(value))
            is List<*> -> value.map { plain(it!!) }
            else -> value
        }
}
