package io.flwrcaesar.train

import io.flwrcaesar.device.App
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.message.Content
import io.flwrcaesar.message.MetricRecord
import io.flwrcaesar.message.TensorRecord

/**
 * An app that trains with an engine and answers as Flower's strategies expect it.
 *
 * The names of its metrics have to be those of all other devices of a run.
 *
 * @param fewerSteps how many to take of the steps that are asked for, such as on a hot device.
 * @param checkpoints keeps what trainings of a [ResumableEngine] have reached; `null` for nothing.
 */
class EngineApp(
    private val engine: TrainingEngine,
    override val initial: Tensors? = null,
    private val fewerSteps: (Int) -> Int = { it },
    private val checkpoints: Checkpoints? = null,
) : App {
    override fun labels(): List<Long> = engine.labels()

    override fun handle(kind: String, content: Content): Content = handle(kind, content) { engine.train(it, settings(content)) }

    override fun handle(kind: String, content: Content, request: String): Content {
        if (checkpoints == null || engine !is ResumableEngine) return handle(kind, content)
        return handle(kind, content) { checkpoints.train(engine, request, it, settings(content)) }
    }

    override fun done() {
        checkpoints?.forget()
    }

    private inline fun handle(kind: String, content: Content, train: (Tensors) -> Trained): Content {
        val (name, record) = content.tensors.entries.firstOrNull() ?: refuse("the message has no model")
        if (kind == EVALUATE) {
            val found = engine.evaluate(record.tensors)
            return Content(METRICS to metrics(found.examples, found.loss, found.accuracy))
        }
        val trained = train(record.tensors)
        return Content(name to TensorRecord(trained.model), METRICS to metrics(trained.examples, trained.loss))
    }

    private fun metrics(examples: Long, loss: Double, accuracy: Double? = null): MetricRecord {
        val values = linkedMapOf<String, Any>("num-examples" to examples, "loss" to loss)
        if (accuracy != null) values["accuracy"] = accuracy
        return MetricRecord(values)
    }

    private fun settings(content: Content): TrainingSettings {
        fun number(key: String): Number? =
            content.configs.values.firstNotNullOfOrNull { it.values[key] as? Number }

        fun count(key: String): Int? = number(key)?.toLong()?.coerceIn(1, Int.MAX_VALUE.toLong())?.toInt()
        return TrainingSettings(
            round = number("server-round")?.toLong() ?: 0,
            batchSize = count("batch-size")?.coerceAtMost(engine.maxBatch),
            steps = count("local-steps")?.let(fewerSteps),
            epochs = count("local-epochs")?.let(fewerSteps),
            learningRate = number("lr")?.toDouble(),
        )
    }

    private companion object {
        const val EVALUATE = "evaluate"
        const val METRICS = "metrics"
    }
}
