package io.flwrcaesar.fleet

import io.flwrcaesar.frame.refuse
import java.security.MessageDigest

/**
 * A content-addressed part of a Flower message.
 *
 * Section 2 of `docs/device-protocol.md`, "Objects", has the bytes.
 *
 * @property type what the body is.
 * @property children the ids of the objects that the body refers to, each once.
 */
class FlowerObject(val type: String, val children: List<String>, val body: ByteArray) {
    /** The object as it travels. */
    val bytes: ByteArray = "$type ${children.joinToString(",")} ${body.size}".toByteArray() + 0 + body

    /** Its SHA-256 in lowercase hexadecimal digits. */
    val id: String = idOf(bytes)

    companion object {
        private const val MAX_HEAD = 1 shl 22

        /** Returns the id of an object's bytes. */
        fun idOf(bytes: ByteArray): String =
            MessageDigest.getInstance("SHA-256").digest(bytes).joinToString("") { "%02x".format(it) }

        /** Parses an object; its id is not looked at. */
        fun parse(bytes: ByteArray): FlowerObject {
            val end = bytes.indexOf(0)
            if (end < 0 || end > MAX_HEAD) refuse("an object of a message has no head")
            val parts = String(bytes, 0, end).split(" ")
            if (parts.size != 3 || parts[2] != (bytes.size - end - 1).toString()) {
                refuse("an object of a message has a malformed head")
            }
            val children = if (parts[1].isEmpty()) emptyList() else parts[1].split(",")
            return FlowerObject(parts[0], children, bytes.copyOfRange(end + 1, bytes.size))
        }
    }
}

/** Which objects a message is made of. */
class ObjectTree(val id: String, val children: List<ObjectTree> = emptyList()) {
    /** Returns the ids of all objects, children first, each once. */
    fun ids(): List<String> {
        val found = LinkedHashSet<String>()
        addTo(found)
        return found.toList()
    }

    private fun addTo(found: LinkedHashSet<String>) {
        children.forEach { it.addTo(found) }
        found += id
    }

    internal fun write(): ByteArray =
        proto {
            text(1, id)
            children.forEach { bytes(2, it.write()) }
        }

    companion object {
        private const val MAX_DEPTH = 16
        private val ID = Regex("[0-9a-f]{64}")

        /** Parses a tree; an id names a file, so it must be one. */
        internal fun parse(proto: Proto, depth: Int = 0): ObjectTree {
            val id = proto.text(1)
            if (depth > MAX_DEPTH || !ID.matches(id)) refuse("a message's tree of objects is malformed")
            return ObjectTree(id, proto.messages(2).map { parse(it, depth + 1) })
        }
    }
}
