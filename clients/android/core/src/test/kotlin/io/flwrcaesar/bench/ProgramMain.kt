package io.flwrcaesar.bench

import io.flwrcaesar.frame.CodecError
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.little
import io.flwrcaesar.train.Examples
import io.flwrcaesar.train.Program
import io.flwrcaesar.train.ProgramEngine
import io.flwrcaesar.train.ProgramManifest
import io.flwrcaesar.train.Trained
import io.flwrcaesar.train.TrainingSettings
import io.flwrcaesar.train.Value
import java.io.ByteArrayOutputStream
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

/** Trains once more, interrupted after each step: to the same model, but not with other settings. */
private fun checkThatItGoesOn(engine: ProgramEngine, model: Tensors, settings: TrainingSettings, expected: Trained) {
    var saved: ByteArray? = null
    while (true) {
        val training = engine.begin(model, settings, saved?.let { DataInputStream(it.inputStream()) })
        if (training.isDone) {
            val found = training.result()
            check(found.loss == expected.loss) { "the loss is ${found.loss}, not ${expected.loss}" }
            for (spec in model.layout.tensors) {
                check(found.model[spec.name].contentEquals(expected.model[spec.name])) { "${spec.name} is another one" }
            }
            break
        }
        training.step()
        saved = ByteArrayOutputStream().also { training.save(DataOutputStream(it)) }.toByteArray()
    }
    val other = TrainingSettings(settings.round, settings.batchSize, settings.steps, null, 0.2)
    try {
        engine.begin(model, other, DataInputStream(saved!!.inputStream()))
        error("a training went on with another rate")
    } catch (_: CodecError) {
        return
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
        val settings = TrainingSettings(1, batch.toInt(), steps.toInt(), null, 0.1)
        val trained = engine.train(model, settings)
        checkThatItGoesOn(engine, model, settings, trained)
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
