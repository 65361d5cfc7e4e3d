package io.flwrcaesar.fleet

import io.flwrcaesar.frame.Json
import io.flwrcaesar.frame.decodeUtf8
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.message.ArrayRecord
import io.flwrcaesar.message.ConfigRecord
import io.flwrcaesar.message.Content
import io.flwrcaesar.message.FlowerArray
import io.flwrcaesar.message.MetricRecord
import io.flwrcaesar.message.Record
import io.flwrcaesar.message.TensorRecord

/**
 * A message as objects.
 *
 * @property metadata with the id of the root.
 * @property error code and reason; `null` if the message has a content.
 * @property objects by id.
 */
class Packed(
    val metadata: Metadata,
    val error: Pair<Long, String>?,
    val tree: ObjectTree,
    val objects: Map<String, FlowerObject>,
) {
    /** Returns the message as it is announced: its content is empty, but there. */
    internal fun announced(): ByteArray =
        proto {
            bytes(1, metadata.write())
            if (error == null) bytes(2, ByteArray(0)) else error(error)
        }

    companion object {
        private const val MAX_CHUNK = 5 shl 20

        /** Packs an answer that has a content. */
        fun of(metadata: Metadata, content: Content): Packed {
            val packing = Packing()
            val root = packing.message(metadata, null, listOf(packing.content(content)))
            return Packed(metadata.copy(messageId = root.id), null, root, packing.objects)
        }

        /** Packs an answer that says why there is none. */
        fun ofError(metadata: Metadata, code: Long, reason: String): Packed {
            val packing = Packing()
            val error = code to reason
            val root = packing.message(metadata, error, emptyList())
            return Packed(metadata.copy(messageId = root.id), error, root, packing.objects)
        }

        /** Returns the content of a message from its objects. */
        fun content(root: String, load: (String) -> ByteArray): Content {
            fun objectOf(id: String, type: String): FlowerObject {
                val found = FlowerObject.parse(load(id))
                if (found.type != type) refuse("a message has a ${found.type} in place of a $type")
                return found
            }
            val message = objectOf(root, "Message")
            val dict = message.children.singleOrNull() ?: refuse("the message has no content")
            val records = LinkedHashMap<String, Record>()
            for ((name, id) in names(objectOf(dict, "RecordDict"))) {
                val record = FlowerObject.parse(load(id))
                records[name] =
                    when (record.type) {
                        "ConfigRecord" -> ConfigRecord(Values.read(record.body))
                        "MetricRecord" -> MetricRecord(Values.read(record.body))
                        "ArrayRecord" -> ArrayRecord(names(record).mapValues { array(objectOf(it.value, "Array"), load) })
                        else -> refuse("a message has a ${record.type} in place of a record")
                    }
            }
            return Content(records)
        }

        private fun names(record: FlowerObject): Map<String, String> =
            json(record).mapValues { (name, id) ->
                (id as? String)?.takeIf { it in record.children } ?: refuse("'$name' is not among the children")
            }

        private fun json(found: FlowerObject): Map<String, Any?> =
            Json.parseObject(decodeUtf8(found.body) ?: refuse("an object of a message is not UTF-8"))

        private fun array(found: FlowerObject, load: (String) -> ByteArray): FlowerArray {
            val json = json(found)
            val places = numbers(json["arraychunk_ids"])
            val chunks =
                places.map { place ->
                    val id = found.children.getOrNull(place.toInt()) ?: refuse("an array has no chunk $place")
                    FlowerObject.parse(load(id)).also { if (it.type != "ArrayChunk") refuse("an array has a ${it.type}") }
                }
            val data = ByteArray(chunks.sumOf { it.body.size.toLong() }.also { require(it < Int.MAX_VALUE) }.toInt())
            var at = 0
            for (chunk in chunks) {
                chunk.body.copyInto(data, at)
                at += chunk.body.size
            }
            val dtype = json["dtype"] as? String
            val stype = json["stype"] as? String
            if (dtype == null || stype == null) refuse("an array of a message is malformed")
            return FlowerArray(dtype, numbers(json["shape"]), stype, data)
        }

        private fun numbers(json: Any?): List<Long> =
            (json as? List<*>)?.map { it as? Long ?: refuse("an array of a message is malformed") }
                ?: refuse("an array of a message is malformed")

        private fun ProtoWriter.error(error: Pair<Long, String>) {
            message(3) {
                zigzag(1, error.first)
                text(2, error.second)
            }
        }
    }

    /** Objects on their way into a message. */
    private class Packing {
        val objects = LinkedHashMap<String, FlowerObject>()

        private fun add(type: String, children: List<ObjectTree>, body: ByteArray): ObjectTree {
            val distinct = children.distinctBy { it.id }
            val made = FlowerObject(type, distinct.map { it.id }, body)
            objects[made.id] = made
            return ObjectTree(made.id, distinct)
        }

        fun message(metadata: Metadata, error: Pair<Long, String>?, content: List<ObjectTree>): ObjectTree =
            add(
                "Message",
                content,
                proto {
                    bytes(1, metadata.write())
                    if (error != null) error(error)
                },
            )

        fun content(content: Content): ObjectTree = named("RecordDict", content.records.mapValues { record(it.value) })

        private fun record(record: Record): ObjectTree =
            when (record) {
                is ConfigRecord -> add("ConfigRecord", emptyList(), Values.write(record.values))
                is MetricRecord -> add("MetricRecord", emptyList(), Values.write(record.values))
                is ArrayRecord -> named("ArrayRecord", record.arrays.mapValues { array(it.value) })
                is TensorRecord ->
                    named(
                        "ArrayRecord",
                        record.tensors.layout.tensors.associate { it.name to array(Npy.write(it, record.tensors[it.name])) },
                    )
            }

        private fun named(type: String, parts: Map<String, ObjectTree>): ObjectTree {
            val body = parts.entries.joinToString(",", "{", "}") { Json.write(it.key) + ":" + Json.write(it.value.id) }
            return add(type, parts.values.toList(), body.toByteArray())
        }

        private fun array(array: FlowerArray): ObjectTree {
            val chunks =
                (array.data.indices step MAX_CHUNK).map { start ->
                    val end = minOf(start.toLong() + MAX_CHUNK, array.data.size.toLong()).toInt()
                    add("ArrayChunk", emptyList(), array.data.copyOfRange(start, end))
                }
            val places = chunks.map { it.id }.distinct()
            val json =
                mapOf(
                    "dtype" to array.dtype,
                    "shape" to array.shape,
                    "stype" to array.stype,
                    "arraychunk_ids" to chunks.map { places.indexOf(it.id) },
                )
            return add("Array", chunks, Json.write(json).toByteArray())
        }
    }
}
