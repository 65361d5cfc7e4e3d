package io.flwrcaesar.train

import io.flwrcaesar.frame.DType
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.little
import io.flwrcaesar.frame.refuse
import java.io.Closeable
import java.io.DataInputStream
import java.io.DataOutputStream

/**
 * Trains a model with a program that computes its gradients, by SGD with momentum as torch has it.
 *
 * A batch larger than the program's is taken apart and its gradients are added up; a smaller one is
 * filled up with examples that weigh nothing. A program that keeps statistics of its batches is given
 * full ones only: the last of an epoch goes on with the epoch's first examples.
 *
 * @param examples their features in the order of the program's inputs.
 * @param learningRate where the server gives none.
 * @param batchSize where the server gives none.
 * @param seed names, with the round, the order of the examples.
 */
class ProgramEngine(
    private val manifest: ProgramManifest,
    private val program: Program,
    private val examples: Examples,
    private val learningRate: Double = 0.05,
    private val momentum: Double = 0.5,
    private val batchSize: Int = manifest.batch,
    private val seed: Long = 0,
) : ResumableEngine, Closeable {
    private val batch = manifest.batch
    private val width = manifest.shape.fold(1L, Long::times).toInt()

    init {
        require(examples.width == width) { "an example has ${examples.width} features, the program takes $width" }
        require(examples.classes == manifest.classes) { "the program is for ${manifest.classes} classes" }
    }

    override val maxBatch: Int get() = if (manifest.fullBatches) batch else Int.MAX_VALUE

    override fun labels(): List<Long> = examples.counts()

    override fun close() = program.close()

    override fun begin(model: Tensors, settings: TrainingSettings, saved: DataInputStream?): Training {
        val training = ProgramTraining(model, settings)
        if (saved != null) training.load(saved)
        return training
    }

    private inner class ProgramTraining(private val model: Tensors, settings: TrainingSettings) : Training {
        private val tensors = values(model)
        private val rate = (settings.learningRate ?: learningRate).toFloat()
        private val progress =
            Progress(examples.size, batchOf(settings), manifest.fullBatches, settings, seed, rate, momentum)
        private val velocities =
            manifest.layout.tensors.indices
                .filter { manifest.roles[it] == Role.TRAINED }
                .associateWith { FloatArray(manifest.layout.tensors[it].count) }

        override val isDone get() = progress.isDone

        override fun step() = progress.step { rows -> learn(tensors, rows, velocities, rate) * rows.size }

        override fun save(out: DataOutputStream) {
            out.writeUTF(manifest.digest)
            progress.save(out)
            val learnt = bytes(tensors)
            manifest.layout.tensors.forEach { out.write(learnt.getValue(it.name)) }
            velocities.values.forEach { out.write(Tensors.bytesOf(it)) }
        }

        fun load(saved: DataInputStream) {
            if (saved.readUTF() != manifest.digest) refuse("the program is another one now")
            progress.load(saved)
            val learnt =
                manifest.layout.tensors.associate { it.name to ByteArray(it.byteSize.toInt()).also(saved::readFully) }
            values(Tensors(manifest.layout, learnt)).forEachIndexed { index, value -> tensors[index] = value }
            for (velocity in velocities.values) {
                val bytes = ByteArray(4 * velocity.size).also(saved::readFully)
                bytes.little().asFloatBuffer().get(velocity)
            }
        }

        override fun result() =
            Trained(Tensors(model.layout, bytes(tensors)), examples.size.toLong(), progress.meanLoss)
    }

    private fun batchOf(settings: TrainingSettings): Int =
        if (manifest.fullBatches) batch else settings.batchSize ?: batchSize

    override fun evaluate(model: Tensors): Evaluated {
        val tensors = values(model)
        var loss = 0.0
        var right = 0.0
        for (start in 0 until examples.size step batch) {
            val rows = IntArray(minOf(batch, examples.size - start)) { start + it }
            val found = program.run(Program.EVALUATE, tensors + inputs(rows, 1f))
            loss += number(found, 0)
            right += number(found, 1)
        }
        return Evaluated(examples.size.toLong(), loss / examples.size, right / examples.size)
    }

    /** Takes a step on some examples; returns their mean loss. */
    private fun learn(
        tensors: MutableList<Value>,
        rows: IntArray,
        velocities: Map<Int, FloatArray>,
        rate: Float,
    ): Double {
        val trained = manifest.roles.indices.filter { manifest.roles[it] == Role.TRAINED }
        val updated = manifest.roles.indices.filter { manifest.roles[it] == Role.UPDATED }
        val sums = HashMap<Int, FloatArray>()
        var loss = 0.0
        for (start in rows.indices step batch) {
            val part = rows.copyOfRange(start, minOf(start + batch, rows.size))
            val found = program.run(Program.TRAIN, tensors + inputs(part, 1f / rows.size))
            if (found.size != 1 + trained.size + updated.size) refuse("the program returned ${found.size} tensors")
            loss += number(found, 0)
            trained.forEachIndexed { at, index -> add(sums, index, floats(found[1 + at])) }
            updated.forEachIndexed { at, index -> tensors[index] = found[1 + trained.size + at] }
        }
        for ((index, gradient) in sums) {
            val values = floats(tensors[index]).copyOf()
            val velocity = velocities.getValue(index)
            for (i in values.indices) {
                velocity[i] = momentum.toFloat() * velocity[i] + gradient[i]
                values[i] -= rate * velocity[i]
            }
            tensors[index] = Value.Floats(values, tensors[index].shape)
        }
        return loss
    }

    private fun add(sums: MutableMap<Int, FloatArray>, index: Int, gradient: FloatArray) {
        if (gradient.size != manifest.layout.tensors[index].count) refuse("the program returned another gradient")
        val sum = sums[index]
        if (sum == null) sums[index] = gradient.copyOf() else for (i in sum.indices) sum[i] += gradient[i]
    }

    /** Returns inputs, labels and weights of one call; places without an example weigh nothing. */
    private fun inputs(rows: IntArray, weight: Float): List<Value> {
        val shape = longArrayOf(batch.toLong(), *manifest.shape.toLongArray())
        val features = FloatArray(batch * width)
        val labels = LongArray(batch)
        val weights = FloatArray(batch)
        rows.forEachIndexed { place, row ->
            System.arraycopy(examples.features, row * width, features, place * width, width)
            labels[place] = examples.labels[row].toLong()
            weights[place] = weight
        }
        val x =
            if (manifest.takesIntegers) {
                Value.Longs(LongArray(features.size) { features[it].toLong() }, shape)
            } else {
                Value.Floats(features, shape)
            }
        val places = longArrayOf(batch.toLong())
        return listOf(x, Value.Longs(labels, places), Value.Floats(weights, places))
    }

    private fun values(model: Tensors): MutableList<Value> {
        if (examples.size == 0) refuse("the device has no examples")
        val expected = manifest.layout.tensors
        val sent = model.layout.tensors
        if (expected != sent) {
            val at = expected.indices.firstOrNull { expected[it] != sent.getOrNull(it) } ?: expected.size
            refuse("the program is of another model: ${expected.getOrNull(at)} in its place ${sent.getOrNull(at)}")
        }
        return sent.mapTo(ArrayList()) { spec ->
            val shape = spec.shape.toLongArray()
            if (spec.dtype == DType.FLOAT32) return@mapTo Value.Floats(model.floats(spec.name), shape)
            val data = LongArray(spec.count).also { model[spec.name].little().asLongBuffer().get(it) }
            Value.Longs(data, shape)
        }
    }

    private fun bytes(tensors: List<Value>): Map<String, ByteArray> =
        manifest.layout.tensors.zip(tensors).associate { (spec, value) ->
            spec.name to
                when (value) {
                    is Value.Floats -> Tensors.bytesOf(value.data)
                    is Value.Longs ->
                        ByteArray(8 * value.data.size).also { it.little().asLongBuffer().put(value.data) }
                }
        }

    private fun floats(value: Value): FloatArray =
        (value as? Value.Floats)?.data ?: refuse("the program returned whole numbers for real ones")

    private fun number(found: List<Value>, at: Int): Double =
        found.getOrNull(at)?.let { floats(it).singleOrNull()?.toDouble() } ?: refuse("the program returned no number")
}
