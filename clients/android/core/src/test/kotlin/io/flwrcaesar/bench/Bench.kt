package io.flwrcaesar.bench

import io.flwrcaesar.frame.Json
import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.EOFException
import kotlin.system.exitProcess

/** What a test asks for: a command, its arguments, and runs of bytes. */
class Question(val arguments: Map<String, Any?>, val blobs: List<ByteArray>) {
    fun text(name: String): String = arguments[name] as String

    /** A count, as large as can be where none is given. */
    fun number(name: String): Int = (arguments[name] as Long?)?.toInt() ?: Int.MAX_VALUE

    @Suppress("UNCHECKED_CAST") // objects of JSON have texts as keys
    fun objectOf(name: String): Map<String, Any?> = arguments[name] as Map<String, Any?>
}

/** What a test is told: values, and runs of bytes. */
class Reply(val values: Map<String, Any?>, val blobs: List<ByteArray> = emptyList())

/**
 * Answers the tests in Python, which hold the core against the reference.
 *
 * Both directions are messages of big-endian numbers: the length of a JSON object and the object,
 * a count of blobs, and of each the length and the bytes.
 */
fun main() {
    val input = DataInputStream(System.`in`.buffered(1 shl 16))
    val output = DataOutputStream(System.out.buffered(1 shl 16))
    System.setOut(System.err) // nothing else may get between the messages
    val codecs = CodecBench()
    val devices = DeviceBench()
    val fleet = FleetBench()
    val training = TrainBench()
    val nodes = NodeBench()
    while (true) {
        val question =
            try {
                read(input)
            } catch (_: EOFException) {
                exitProcess(0)
            }
        val reply =
            try {
                when (question.text("do")) {
                    in DeviceBench.COMMANDS -> devices.answer(question)
                    in FleetBench.COMMANDS -> fleet.answer(question)
                    "train" -> training.answer(question)
                    "serve" -> nodes.answer(question)
                    else -> codecs.answer(question)
                }
            } catch (@Suppress("TooGenericExceptionCaught") err: Throwable) {
                Reply(mapOf("failed" to err.stackTraceToString()))
            }
        write(output, reply)
    }
}

private fun read(input: DataInputStream): Question {
    val arguments = Json.parseObject(blob(input).decodeToString())
    return Question(arguments, List(input.readInt()) { blob(input) })
}

private fun blob(input: DataInputStream): ByteArray = ByteArray(input.readInt()).also(input::readFully)

private fun write(output: DataOutputStream, reply: Reply) {
    val values = Json.write(reply.values).toByteArray()
    output.writeInt(values.size)
    output.write(values)
    output.writeInt(reply.blobs.size)
    for (blob in reply.blobs) {
        output.writeInt(blob.size)
        output.write(blob)
    }
    output.flush()
}
