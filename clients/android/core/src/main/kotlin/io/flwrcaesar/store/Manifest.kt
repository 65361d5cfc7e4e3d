package io.flwrcaesar.store

import io.flwrcaesar.device.DeviceState
import io.flwrcaesar.device.Reported
import io.flwrcaesar.frame.CodecError
import io.flwrcaesar.frame.Json
import io.flwrcaesar.message.Abilities
import io.flwrcaesar.message.Order
import io.flwrcaesar.message.Version
import io.flwrcaesar.message.hex
import io.flwrcaesar.message.unhex
import java.security.MessageDigest

/** A file of a state: its name, and what it has to hold. */
internal data class StateFile(val name: String, val size: Long, val digest: String) {
    fun isOf(data: ByteArray): Boolean = data.size.toLong() == size && sha256(data) == digest

    fun toJson(): Map<String, Any?> = mapOf("name" to name, "size" to size, "sha256" to digest)

    companion object {
        fun of(name: String, data: ByteArray) = StateFile(name, data.size.toLong(), sha256(data))

        fun ofJson(json: Any?): StateFile? {
            val map = json as Map<*, *>? ?: return null
            return StateFile(map["name"] as String, map["size"] as Long, map["sha256"] as String)
        }
    }
}

/** Returns the SHA-256 of bytes in hexadecimal digits. */
internal fun sha256(data: ByteArray): String = MessageDigest.getInstance("SHA-256").digest(data).hex()

/** A pending upload but for its frame, which is in a file. */
internal class PendingEntry(
    val uploadId: Long,
    val order: Order,
    val isModel: Boolean,
    val frame: StateFile,
    val told: StateFile,
    val share: Double,
)

/**
 * The file that makes a state: all that is small, and the names and digests of the other files.
 *
 * Whether it was renamed into its place decides which state a crash leaves.
 */
internal class Manifest(
    val state: DeviceState,
    val model: StateFile?,
    val residual: StateFile?,
    val pending: List<PendingEntry>,
) {
    /** The files that belong to the state. */
    val files: Set<String> =
        (listOfNotNull(model, residual) + pending.flatMap { listOf(it.frame, it.told) }).map { it.name }.toSet()

    /** Returns the bytes of the file; the first line is the digest of the rest. */
    fun toBytes(): ByteArray {
        val text =
            Json.write(
                mapOf(
                    "format" to FORMAT,
                    "token" to state.token.hex(),
                    "lineage" to state.lineage,
                    "order" to listOf(state.order.incarnation, state.order.phase),
                    "held" to state.held?.let { listOf(it.number, it.digest) },
                    "settled" to state.settled,
                    "model" to model?.toJson(),
                    "residual" to residual?.toJson(),
                    "pending" to pending.map(::pendingJson),
                    "reported" to state.reported?.let { listOf(it.abilities.toJson(), it.uploadId) },
                ) + length("longest", state.longest),
            )
        return (sha256(text.toByteArray()) + "\n" + text).toByteArray()
    }

    private fun pendingJson(entry: PendingEntry): Map<String, Any?> =
        mapOf(
            "id" to entry.uploadId,
            "order" to listOf(entry.order.incarnation, entry.order.phase),
            "model" to entry.isModel,
            "frame" to entry.frame.toJson(),
            "told" to entry.told.toJson(),
        ) + length("share", entry.share)

    // As its bits, since it may be infinite. Absent where nothing is known, as in older files.
    private fun length(key: String, value: Double): Map<String, Any?> =
        if (value == 0.0) emptyMap() else mapOf(key to value.toRawBits())

    companion object {
        private const val FORMAT = 1L

        /**
         * Reads what [toBytes] wrote; its state has no tensors and no uploads yet.
         *
         * @return `null` if the bytes are not what was written.
         */
        fun of(data: ByteArray): Manifest? {
            val text = String(data)
            val end = text.indexOf('\n')
            if (end < 0 || text.substring(0, end) != sha256(text.substring(end + 1).toByteArray())) return null
            return try {
                parse(Json.parseObject(text.substring(end + 1)))
            } catch (_: CodecError) {
                null
            } catch (_: ClassCastException) {
                null
            } catch (_: NullPointerException) {
                null
            }
        }

        private fun parse(json: Map<String, Any?>): Manifest? {
            if (json["format"] != FORMAT) return null
            val held = json["held"] as List<*>?
            val state =
                DeviceState(
                    token = (json["token"] as String).unhex(),
                    lineage = json["lineage"] as Long,
                    order = order(json["order"]),
                    held = held?.let { Version(it[0] as Long, it[1] as String) },
                    settled = (json["settled"] as List<*>).map { it as Long },
                    reported = reported(json["reported"]),
                    longest = length(json["longest"]),
                )
            val pending = (json["pending"] as List<*>).map { pending(it as Map<*, *>) }
            return Manifest(state, StateFile.ofJson(json["model"]), StateFile.ofJson(json["residual"]), pending)
        }

        private fun order(json: Any?): Order = (json as List<*>).let { Order(it[0] as Long, it[1] as Long) }

        private fun pending(json: Map<*, *>) =
            PendingEntry(
                json["id"] as Long,
                order(json["order"]),
                json["model"] as Boolean,
                StateFile.ofJson(json["frame"])!!,
                StateFile.ofJson(json["told"])!!,
                length(json["share"]),
            )

        private fun length(json: Any?): Double = Double.fromBits(json as Long? ?: 0)

        @Suppress("UNCHECKED_CAST") // an object of JSON
        private fun reported(json: Any?): Reported? {
            val list = json as List<*>? ?: return null
            return Reported(Abilities.of(list[0] as Map<String, Any?>), list[1] as Long)
        }
    }
}
