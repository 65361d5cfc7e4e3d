package io.flwrcaesar.message

import io.flwrcaesar.frame.Tensors

/** One record of a Flower message. */
sealed interface Record

/**
 * Arrays as Flower carries them.
 *
 * @property arrays by name, in order.
 */
class ArrayRecord(val arrays: Map<String, FlowerArray>) : Record {
    /** How many bytes of data the arrays have. */
    val byteSize: Long get() = arrays.values.sumOf { it.data.size.toLong() }
}

/** An array of some serialisation, which `stype` names. */
class FlowerArray(val dtype: String, val shape: List<Long>, val stype: String, val data: ByteArray)

/** Plain arrays, as an app sees and returns them. */
class TensorRecord(val tensors: Tensors) : Record

/** Settings: numbers ([Long] or [Double]), booleans, texts, bytes, or lists of one of these. */
class ConfigRecord(val values: Map<String, Any>) : Record

/** Measurements: numbers ([Long] or [Double]), or lists of these. */
class MetricRecord(val values: Map<String, Any>) : Record

/** What a Flower message carries: records by name, in order. */
class Content(val records: Map<String, Record>) {
    constructor(vararg records: Pair<String, Record>) : this(linkedMapOf(*records))

    operator fun get(name: String): Record? = records[name]

    /** Returns the same with another record of a name, in its place or at the end. */
    fun with(name: String, record: Record): Content = Content(records + (name to record))

    /** The records of settings, in order. */
    val configs: Map<String, ConfigRecord> get() = ofKind()

    /** The records of measurements, in order. */
    val metrics: Map<String, MetricRecord> get() = ofKind()

    /** The records of plain arrays, in order. */
    val tensors: Map<String, TensorRecord> get() = ofKind()

    private inline fun <reified T : Record> ofKind(): Map<String, T> {
        val found = LinkedHashMap<String, T>()
        for ((name, record) in records) if (record is T) found[name] = record
        return found
    }
}
