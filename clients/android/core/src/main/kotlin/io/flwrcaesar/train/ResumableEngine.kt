package io.flwrcaesar.train

import io.flwrcaesar.frame.Tensors
import java.io.DataInputStream
import java.io.DataOutputStream

/** A training under way, one step after another. */
interface Training {
    /** Whether all steps were taken. */
    val isDone: Boolean

    /** Takes the next step, on one batch. */
    fun step()

    /** Writes whatever it takes to go on from here, to the same result to the bit: [ResumableEngine.begin] reads it. */
    fun save(out: DataOutputStream)

    /** Returns what came of it, once it [isDone]. */
    fun result(): Trained
}

/**
 * An engine whose trainings go on after they were interrupted.
 *
 * Whoever takes the steps looks for interruptions and keeps what was saved: see [Checkpoints].
 */
interface ResumableEngine : TrainingEngine {
    /**
     * Begins a training, or goes on with one.
     *
     * @param saved what [Training.save] wrote in a training of the same model and settings, in this
     * process or an earlier one; `null` to begin.
     * @throws io.flwrcaesar.frame.CodecError if the model does not fit, or what was saved is of
     * another engine or other data, so that it cannot be gone on with.
     */
    fun begin(model: Tensors, settings: TrainingSettings, saved: DataInputStream? = null): Training

    override fun train(model: Tensors, settings: TrainingSettings): Trained {
        val training = begin(model, settings)
        while (!training.isDone) {
            if (Thread.interrupted()) throw InterruptedException()
            training.step()
        }
        return training.result()
    }
}
