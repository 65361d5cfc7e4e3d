package io.flwrcaesar.fleet

/**
 * What Flower says of a message beside its content.
 *
 * Ids of runs and nodes are unsigned and use all 64 bits.
 */
data class Metadata(
    val runId: Long,
    val messageId: String,
    val from: Long,
    val to: Long,
    val replyTo: String,
    val groupId: String,
    val ttl: Double,
    val kind: String,
    val created: Double,
    val fromTask: Long?,
    val toTask: Long?,
) {
    /** Whether the time to live is over at a time, in seconds since 1970. */
    fun isOver(now: Double): Boolean = now >= created + ttl

    /** Returns that of the answer to this message, made at a time in seconds since 1970. */
    fun ofReply(now: Double): Metadata =
        copy(
            messageId = "",
            from = to,
            to = from,
            replyTo = messageId,
            ttl = created + ttl - now,
            created = now,
            fromTask = toTask,
            toTask = fromTask,
        )

    internal fun write(): ByteArray =
        proto {
            varint(1, runId)
            text(2, messageId)
            varint(3, from)
            varint(4, to)
            text(5, replyTo)
            text(6, groupId)
            double(7, ttl)
            text(8, kind)
            double(9, created)
            fromTask?.let { varint(10, it, isOptional = false) }
            toTask?.let { varint(11, it, isOptional = false) }
        }

    internal companion object {
        fun read(proto: Proto) =
            Metadata(
                runId = proto.long(1),
                messageId = proto.text(2),
                from = proto.long(3),
                to = proto.long(4),
                replyTo = proto.text(5),
                groupId = proto.text(6),
                ttl = proto.double(7),
                kind = proto.text(8),
                created = proto.double(9),
                fromTask = proto.longOrNull(10),
                toTask = proto.longOrNull(11),
            )
    }
}
