package io.flwrcaesar.bench

import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.little
import io.flwrcaesar.train.Examples
import io.flwrcaesar.train.Program
import io.flwrcaesar.train.ProgramEngine
import io.flwrcaesar.train.ProgramManifest
import io.flwrcaesar.train.TrainingSettings
import io.flwrcaesar.train.Value
import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.File

/** A program that another process runs, over its standard input and output. */
private class PipedProgram(command: List<String>) : Program {
    private val process = ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start()
    private val sink = DataOutputStream(process.outputStream.buffered(1 shl 16))
    private val source = DataInputStream(process.inputStream.buffered(1 shl 16))

    override fun run(method: String, inputs: List<Value>): List<Value> {
        sink.writeUTF(method)
        writeValues(sink, inputs)
        sink.flush()
        return readValues(source)
    }

    override fun close() {
        sink.close()
        process.waitFor()
    }
}

private fun writeValues(sink: DataOutputStream, values: List<Value>) {
    sink.writeInt(values.size)
    for (value in values) {
        sink.writeBoolean(value is Value.Longs)
        sink.writeInt(value.shape.size)
        value.shape.forEach(sink::writeLong)
        when (value) {
            is Value.Floats -> value.data.forEach(sink::writeFloat)
            is Value.Longs -> value.data.forEach(sink::writeLong)
        }
    }
}

private fun readValues(source: DataInputStream): List<Value> =
    List(source.readInt()) {
        val isWhole = source.readBoolean()
        val shape = LongArray(source.readInt()) { source.readLong() }
        val size = shape.fold(1L, Long::times).toInt()
        if (isWhole) {
            Value.Longs(LongArray(size) { source.readLong() }, shape)
        } else {
            Value.Floats(FloatArray(size) { source.readFloat() }, shape)
        }
    }

/**
 * Trains with a program and evaluates before: the folder of the program, a file with features, labels
 * and model, one for the results, batch size, steps, and the command that runs the program.
 */
fun main(arguments: Array<String>) {
    val (folder, task, results, batch, steps) = arguments
    val manifest = ProgramManifest.read(File(folder))
    val given = DataInputStream(File(task).inputStream().buffered()).use(::readValues)
    val features = (given[0] as Value.Floats).data
    val labels = (given[1] as Value.Longs).data.map(Long::toInt).toIntArray()
    val examples = Examples(features, labels, features.size / labels.size, manifest.classes)
    val data =
        manifest.layout.tensors.zip(given.drop(2)).associate { (spec, value) ->
            spec.name to
                when (value) {
                    is Value.Floats -> Tensors.bytesOf(value.data)
                    is Value.Longs -> ByteArray(8 * value.data.size).also { it.little().asLongBuffer().put(value.data) }
                }
        }
    val model = Tensors(manifest.layout, data)
    ProgramEngine(manifest, PipedProgram(arguments.drop(5)), examples, momentum = 0.9).use { engine ->
        val before = engine.evaluate(model)
        val trained = engine.train(model, TrainingSettings(1, batch.toInt(), steps.toInt(), null, 0.1))
        val told = doubleArrayOf(before.loss, before.accuracy, trained.loss).map(Double::toFloat).toFloatArray()
        val values =
            manifest.layout.tensors.map { spec ->
                val bytes = trained.model[spec.name]
                if (spec.dtype.isFloat) {
                    Value.Floats(trained.model.floats(spec.name), spec.shape.toLongArray())
                } else {
                    Value.Longs(LongArray(spec.count).also { bytes.little().asLongBuffer().get(it) }, spec.shape.toLongArray())
                }
            }
        DataOutputStream(File(results).outputStream().buffered()).use {
            writeValues(it, listOf(Value.Floats(told, longArrayOf(3))) + values)
        }
    }
}
