package io.flwrcaesar.train

import io.flwrcaesar.frame.Tensors

/**
 * How an app is to train: what its server says, `null` where that is the app's own choice.
 *
 * @property round the number of the round.
 * @property batchSize examples in a step.
 * @property steps steps to take; where it is `null`, [epochs] passes over the data.
 */
class TrainingSettings(
    val round: Long,
    val batchSize: Int?,
    val steps: Int?,
    val epochs: Int?,
    val learningRate: Double?,
)

/** What came of a training: the model, in the layout of the one that it began with. */
class Trained(val model: Tensors, val examples: Long, val loss: Double)

/** What came of an evaluation. */
class Evaluated(val examples: Long, val loss: Double, val accuracy: Double)

/**
 * Trains and evaluates models on the data of a device.
 *
 * An engine may be interrupted: [train] is to look at [Thread.interrupted] every few steps and to
 * throw [InterruptedException]; the same request is then handled again later, from its beginning.
 * A [ResumableEngine] goes on where it was.
 */
interface TrainingEngine {
    /** The most examples of a step that the engine can take; the server may ask for more. */
    val maxBatch: Int get() = Int.MAX_VALUE

    fun train(model: Tensors, settings: TrainingSettings): Trained

    fun evaluate(model: Tensors): Evaluated

    /** How many examples the device has of each label; empty: it does not say. */
    fun labels(): List<Long> = emptyList()
}
