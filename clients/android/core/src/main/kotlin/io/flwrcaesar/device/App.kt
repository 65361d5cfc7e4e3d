package io.flwrcaesar.device

import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.message.Content
import io.flwrcaesar.message.Seconds

/** What trains and evaluates on a device. */
interface App {
    /** Whether it clips its update where a message asks for that. */
    val clips: Boolean get() = false

    /** The arrays that the run starts from, if the app knows them. */
    val initial: Tensors? get() = null

    /** How many examples the device has of each label; empty: it does not say. */
    fun labels(): List<Long> = emptyList()

    /**
     * Handles a message.
     *
     * @param kind `train` or `evaluate`.
     * @param content what the server sent, the model as a [io.flwrcaesar.message.TensorRecord].
     * @return what it says: the trained model and metrics, or metrics alone.
     */
    fun handle(kind: String, content: Content): Content

    /**
     * Handles a message as the other [handle] does, and may go on where it was interrupted.
     *
     * @param request names the message: the same name, the same message.
     */
    fun handle(kind: String, content: Content, request: String): Content = handle(kind, content)

    /** The answer to the last message is kept, or nobody wants it any more: it does not come again. */
    fun done() {}
}

/** What watches the device around a message. */
interface Watch {
    /** Why it does not want to train now; empty if it does. */
    val declines: String

    /** Returns what was measured. */
    fun telemetry(): Map<String, Any?>
}

/** Takes the time of a message. */
interface Stopwatch {
    /** The model is decoded. */
    fun decoded()

    /** The app is done. */
    fun trained()

    /** The reply is made; returns what took how long. */
    fun stop(): Seconds
}
