package io.flwrcaesar.train

import io.flwrcaesar.frame.DType
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.refuse
import java.io.DataInputStream
import java.io.DataOutputStream

/**
 * Trains networks of linear layers with ReLU between them, by SGD with momentum on the mean
 * cross-entropy of each batch, in pure Kotlin.
 *
 * The model is as torch has it: for each layer a weight of two axes and a bias, in this order.
 *
 * @param learningRate where the server gives none.
 * @param batchSize where the server gives none.
 * @param seed names, with the round, the order of the examples.
 */
class MlpEngine(
    private val examples: Examples,
    private val learningRate: Double = 0.05,
    private val momentum: Double = 0.5,
    private val batchSize: Int = 16,
    private val seed: Long = 0,
) : ResumableEngine {
    override fun labels(): List<Long> = examples.counts()

    override fun begin(model: Tensors, settings: TrainingSettings, saved: DataInputStream?): Training {
        val training = MlpTraining(model, settings)
        if (saved != null) training.load(saved)
        return training
    }

    private inner class MlpTraining(private val model: Tensors, settings: TrainingSettings) : Training {
        private val layers = layers(model)
        private val rate = (settings.learningRate ?: learningRate).toFloat()
        private val progress =
            Progress(examples.size, settings.batchSize ?: batchSize, false, settings, seed, rate, momentum)

        override val isDone get() = progress.isDone

        override fun step() {
            progress.step { rows ->
                var loss = 0.0
                for (row in rows) loss += learn(layers, row, rows.size)
                loss
            }
            layers.forEach { it.step(rate, momentum.toFloat()) }
        }

        override fun save(out: DataOutputStream) {
            progress.save(out)
            layers.forEach { it.save(out) }
        }

        fun load(saved: DataInputStream) {
            progress.load(saved)
            layers.forEach { it.load(saved) }
        }

        override fun result() = Trained(tensors(model, layers), examples.size.toLong(), progress.meanLoss)
    }

    override fun evaluate(model: Tensors): Evaluated {
        val layers = layers(model)
        var loss = 0.0
        var right = 0
        for (example in 0 until examples.size) {
            val logits = forward(layers, example).last()
            val label = examples.labels[example]
            loss -= Math.log(maxOf(softmax(logits)[label].toDouble(), SMALLEST))
            if (logits.indices.maxByOrNull { logits[it] } == label) right++
        }
        val count = maxOf(examples.size, 1).toDouble()
        return Evaluated(examples.size.toLong(), loss / count, right / count)
    }

    /** Adds the gradients of one example of a batch; returns its loss. */
    private fun learn(layers: List<Layer>, example: Int, batch: Int): Double {
        val outputs = forward(layers, example)
        val label = examples.labels[example]
        val probabilities = softmax(outputs.last())
        val loss = -Math.log(maxOf(probabilities[label].toDouble(), SMALLEST))
        var gradient = FloatArray(probabilities.size) { (probabilities[it] - if (it == label) 1 else 0) / batch }
        for (i in layers.indices.reversed()) {
            if (i == 0) {
                layers[0].backward(examples.features, example * examples.width, gradient, needsInputs = false)
                break
            }
            val below = outputs[i - 1]
            gradient = layers[i].backward(below, 0, gradient, needsInputs = true)
            for (k in below.indices) if (below[k] <= 0f) gradient[k] = 0f
        }
        return loss
    }

    /** Returns the outputs of each layer, all but the last after ReLU. */
    private fun forward(layers: List<Layer>, example: Int): List<FloatArray> {
        val found = ArrayList<FloatArray>()
        for ((i, layer) in layers.withIndex()) {
            val out =
                if (i == 0) layer.forward(examples.features, example * examples.width) else layer.forward(found[i - 1], 0)
            if (i < layers.size - 1) for (k in out.indices) if (out[k] < 0f) out[k] = 0f
            found += out
        }
        return found
    }

    private fun softmax(logits: FloatArray): FloatArray {
        val top = logits.maxOrNull()!!
        val powers = FloatArray(logits.size) { Math.exp((logits[it] - top).toDouble()).toFloat() }
        val sum = powers.sum()
        return FloatArray(powers.size) { powers[it] / sum }
    }

    private fun layers(model: Tensors): List<Layer> {
        val specs = model.layout.tensors
        if (specs.any { it.dtype != DType.FLOAT32 } || specs.size % 2 == 1) refuse("the model is no network of linear layers")
        val layers = specs.chunked(2).map { (weight, bias) -> Layer(model.floats(weight.name), model.floats(bias.name)) }
        val fits =
            specs.chunked(2).all { (w, b) -> w.shape.size == 2 && b.shape == w.shape.take(1) } &&
                layers.zipWithNext().all { (a, b) -> a.outputs == b.inputs }
        if (!fits || layers.first().inputs != examples.width || layers.last().outputs != examples.classes) {
            refuse("the model's layers do not fit one another, or the examples")
        }
        return layers
    }

    private fun tensors(model: Tensors, layers: List<Layer>): Tensors {
        val values = layers.flatMap { listOf(it.weight, it.bias) }
        val data = model.layout.tensors.zip(values).associate { (spec, found) -> spec.name to Tensors.bytesOf(found) }
        return Tensors(model.layout, data)
    }

    private companion object {
        const val SMALLEST = 1e-30
    }
}
