package io.flwrcaesar.train

import java.io.Closeable

/** A tensor that goes into a program or comes out of it; whoever is given one must not change it. */
sealed class Value {
    abstract val shape: LongArray

    class Floats(val data: FloatArray, override val shape: LongArray) : Value()

    class Longs(val data: LongArray, override val shape: LongArray) : Value()
}

/**
 * A training program as `flwr-caesar export-android` makes it, run by ExecuTorch on a phone.
 *
 * It keeps nothing between two calls: the model is among the inputs.
 */
interface Program : Closeable {
    /**
     * Runs a method.
     *
     * @param method [TRAIN] or [EVALUATE].
     * @return its outputs, which stay as they are when the program runs again.
     */
    fun run(method: String, inputs: List<Value>): List<Value>

    companion object {
        /** To the loss, the gradients of what is trained, and the new values of what is updated. */
        const val TRAIN = "train"

        /** To the loss, and how many predictions are right, both summed by the examples' weights. */
        const val EVALUATE = "evaluate"
    }
}
