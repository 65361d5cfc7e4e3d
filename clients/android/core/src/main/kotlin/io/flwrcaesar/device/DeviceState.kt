package io.flwrcaesar.device

import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.message.Abilities
import io.flwrcaesar.message.Order
import io.flwrcaesar.message.Version

/**
 * An upload of which the device does not know yet whether it was applied.
 *
 * @property isModel whether it is a model, which never goes back into a residual.
 * @property told JSON of what the reply said beside it, to answer the same request again.
 * @property share the length of the training in it, in that of all that was encoded; 0 if it is not known.
 */
data class Pending(
    val uploadId: Long,
    val order: Order,
    val frame: ByteArray,
    val isModel: Boolean,
    val told: String,
    val share: Double = 0.0,
)

/**
 * What a device has told its server that it can.
 *
 * @property uploadId the newest upload that said it; 0 once one has arrived.
 */
class Reported(val abilities: Abilities, val uploadId: Long)

/**
 * What a device remembers of one training history.
 *
 * @property token 16 random bytes; half of their SHA-256 is the device's id.
 * @property order that of the newest request that was answered.
 * @property held the model that the device holds; `null` for none.
 * @property model its tensors.
 * @property residual what was computed and not sent; `null` for nothing at all.
 * @property pending uploads that are not settled, oldest first.
 * @property settled ids of the newest uploads known to be applied, newest last.
 * @property longest the length of the longest single training in the residual, as it would have been
 * sent; 0 if none is known.
 */
data class DeviceState(
    val token: ByteArray,
    val lineage: Long,
    val order: Order = Order(0, 0),
    val held: Version? = null,
    val model: Tensors? = null,
    val residual: Tensors? = null,
    val pending: List<Pending> = emptyList(),
    val settled: List<Long> = emptyList(),
    val reported: Reported? = null,
    val longest: Double = 0.0,
)

/** Random numbers of a device. */
interface Draws {
    /** Returns 16 random bytes. */
    fun token(): ByteArray

    /** Returns a random number that is not 0. */
    fun uploadId(): Long
}

/** Keeps the states of a device, one for each lineage, whole or not at all. */
interface StateStore : AutoCloseable {
    /**
     * Returns the state of a lineage, or `null` if there is none.
     *
     * @throws StateError if it cannot be read now; it is as it was.
     */
    fun load(lineage: Long): DeviceState?

    /**
     * Finds out before the work whether its outcome can be kept.
     *
     * @throws StateError if not.
     */
    fun prepare(state: DeviceState)

    /**
     * Keeps a state durably: after a crash, it or the one before loads.
     *
     * @throws StateError if it cannot be kept.
     */
    fun save(state: DeviceState)
}

/** A state cannot be read or kept now. */
class StateError(message: String, cause: Throwable? = null) : Exception(message, cause)
