package io.flwrcaesar.frame

/** Bytes are not a frame that a codec can decode, or tensors cannot be encoded. */
open class CodecError(message: String) : Exception(message)

/**
 * A frame was coded against a layout, a state or a model that this side does not hold.
 *
 * The remedy is to ask the sender for a frame that needs none.
 */
class StateMismatch(message: String) : CodecError(message)

/** Refuses bytes or tensors, in words for whoever reads the log. */
internal fun refuse(message: String): Nothing = throw CodecError(message)
