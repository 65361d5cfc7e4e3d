package io.flwrcaesar.fleet

import io.flwrcaesar.frame.refuse
import java.math.BigInteger

/** The values of Flower's ConfigRecords and MetricRecords as protobuf. */
internal object Values {
    /** Returns a record: for each entry the key in field 1 and the value in 2, in field 1. */
    fun write(values: Map<String, Any>): ByteArray =
        proto {
            for ((key, value) in values) {
                message(1) {
                    text(1, key)
                    message(2) { write(this, value) }
                }
            }
        }

    fun read(body: ByteArray): Map<String, Any> =
        Proto(body).messages(1).associate { it.text(1) to value(it.message(2)) }

    private fun write(out: ProtoWriter, value: Any) {
        when (value) {
            is Double -> out.double(1, value, isOptional = false)
            is Long -> out.zigzag(2, value)
            is BigInteger -> out.varint(3, value.toLong(), isOptional = false)
            is Boolean -> out.varint(4, if (value) 1 else 0, isOptional = false)
            is String -> out.bytes(5, value.toByteArray())
            is ByteArray -> out.bytes(6, value)
            is List<*> -> writeList(out, value)
            else -> throw IllegalArgumentException("a record cannot hold ${value.javaClass}")
        }
    }

    private fun writeList(out: ProtoWriter, values: List<*>) {
        when (values.firstOrNull()) {
            null, is Double -> out.message(21) { packed { values.forEach { fixed(it as Double) } } }
            is Long -> out.message(22) { packed { values.forEach { raw(ProtoWriter.zigzag(it as Long)) } } }
            is BigInteger -> out.message(23) { packed { values.forEach { raw((it as BigInteger).toLong()) } } }
            is Boolean -> out.message(24) { packed { values.forEach { raw(if (it as Boolean) 1 else 0) } } }
            is String -> out.message(25) { values.forEach { bytes(1, (it as String).toByteArray()) } }
            is ByteArray -> out.message(26) { values.forEach { bytes(1, it as ByteArray) } }
            else -> throw IllegalArgumentException("a record cannot hold such a list")
        }
    }

    private fun ProtoWriter.packed(write: ProtoWriter.() -> Unit) {
        bytes(1, proto(write))
    }

    private fun value(proto: Proto): Any =
        when (val kind = proto.numbers.lastOrNull()) {
            1 -> proto.double(1)
            2 -> ProtoWriter.unzigzag(proto.long(2))
            3 -> unsigned(proto.long(3))
            4 -> proto.flag(4)
            5 -> proto.text(5)
            6 -> proto.bytes(6)
            21 -> proto.message(21).doubles(1)
            22 -> proto.message(22).numbers(1).map { ProtoWriter.unzigzag(it) }
            23 -> proto.message(23).numbers(1).map { unsigned(it) }
            24 -> proto.message(24).numbers(1).map { it != 0L }
            25 -> proto.message(25).texts(1)
            26 -> proto.message(26).all(1)
            else -> refuse("a record has a value of the unknown kind $kind")
        }

    // Numbers from 2^63 on fit no Long.
    private fun unsigned(value: Long): Any =
        if (value >= 0) value else BigInteger(java.lang.Long.toUnsignedString(value))
}
