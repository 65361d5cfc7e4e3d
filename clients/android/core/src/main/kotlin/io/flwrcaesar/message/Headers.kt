package io.flwrcaesar.message

import io.flwrcaesar.frame.refuse
import java.nio.ByteBuffer
import java.security.MessageDigest

/** A published model: its number, and the digest of its content in hexadecimal digits. */
data class Version(val number: Long, val digest: String)

/** When a server made a request: its incarnation, and a count of its phases. */
data class Order(val incarnation: Long, val phase: Long) : Comparable<Order> {
    override fun compareTo(other: Order): Int =
        compareValuesBy(this, other, Order::incarnation, Order::phase)
}

/** How many bytes a device's secret has. */
const val TOKEN_BYTES = 16

/** How many uploads may wait on a device to be settled. */
const val MAX_PENDING = 4

/** How many ids of settled uploads a device remembers. */
const val MAX_SETTLED = 16

/** Returns the id of the device that knows a token: half of its SHA-256, in hexadecimal digits. */
fun deviceId(token: ByteArray): String =
    MessageDigest.getInstance("SHA-256").digest(token).copyOf(DEVICE_BYTES).hex()

private const val DEVICE_BYTES = 16

/**
 * What a server says with a model.
 *
 * @property lineage the training history.
 * @property nonce names the request; the reply repeats it.
 * @property target the model to work on.
 * @property base the model that the frame is a change of; the target if there is no frame, as the
 * device holds it; `null` if the frame is the whole model.
 * @property device the id of the device that the server believes to be here, or empty.
 * @property applied the ids of the newest uploads applied of that device, newest last.
 * @property longest the length of the longest update that the server believes; 0 if it does not say.
 */
class DownloadHeader(
    val lineage: Long,
    val order: Order,
    val nonce: Long,
    val target: Version,
    val base: Version?,
    val device: String,
    val applied: List<Long>,
    val longest: Double,
) {
    internal companion object {
        private const val OTHER_BASE = 2
        private const val BASE = 3
        private const val DEVICE = 4
        private const val MEMORY = 8
        private const val LONGEST = 16

        private fun length(reader: FieldReader): Double {
            val length = ByteBuffer.wrap(reader.bytes(Float.SIZE_BYTES)).float
            if (!(length > 0f) || length.isInfinite()) refuse("a header has the length $length")
            return length.toDouble()
        }

        /** Reads the header; what follows is left to the caller. */
        fun read(reader: FieldReader): DownloadHeader {
            val flags = reader.u8()
            val kind = flags and BASE
            val known = BASE or DEVICE or MEMORY or LONGEST
            if (flags > known || kind > OTHER_BASE) refuse("a header of the flags $flags")
            val lineage = reader.u64()
            val order = Order(reader.u64(), reader.varint())
            if (lineage == 0L || order.incarnation < 0) refuse("a header of the order $order of $lineage")
            val nonce = reader.u64()
            val target = reader.version()
            val base = if (kind == OTHER_BASE) reader.version() else target.takeIf { kind != 0 }
            if (kind == OTHER_BASE && base == target) refuse("a header names its target as another model")
            val hasDevice = flags and DEVICE != 0
            val device = if (hasDevice) reader.bytes(DEVICE_BYTES).hex() else ""
            if (flags and MEMORY != 0 && reader.u64() == 0L) refuse("a header names a memory that is none")
            val applied = if (hasDevice) reader.ids(MAX_PENDING) else emptyList()
            val longest = if (flags and LONGEST != 0) length(reader) else 0.0
            return DownloadHeader(lineage, order, nonce, target, base, device, applied, longest)
        }
    }
}

/** What a reply says about itself, and what the device holds from then on. */
enum class Status {
    UPDATE,
    EVALUATED,
    NEED_WHOLE,
    UNSETTLED,
    STALE,
    DECLINED,
    ;

    internal val code: Int get() = ordinal + 1

    /** Whether the reply took in no model, and tells which one is held. */
    val tellsHeld: Boolean get() = this == STALE || this == DECLINED
}

/**
 * What a device says with its reply.
 *
 * @property token proves who the device is.
 * @property held with [Status.tellsHeld] the model that the device holds, if it holds one.
 * @property uploadId the random name of the update; 0 if there is none.
 * @property known with an update, the ids of the uploads that the device knows it made; `null` if
 * the request was to this device.
 */
class UploadHeader(
    val nonce: Long,
    val token: ByteArray,
    val status: Status,
    val held: Version? = null,
    val uploadId: Long = 0,
    val known: List<Long>? = null,
) {
    internal fun write(writer: FieldWriter) {
        val flags = (if (known != null) KNOWN else 0) or (if (held != null) HELD else 0)
        writer.u8(status.code or flags).u64(nonce).bytes(token)
        if (status == Status.UPDATE) writer.u64(uploadId)
        if (known != null) writer.ids(known)
        if (held != null) writer.version(held)
    }

    private companion object {
        const val KNOWN = 8
        const val HELD = 16
    }
}
