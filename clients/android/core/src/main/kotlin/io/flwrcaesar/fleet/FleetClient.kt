package io.flwrcaesar.fleet

import io.flwrcaesar.frame.CodecError
import java.io.IOException

/** A message that was handed out, and the objects that it is made of. */
class Pulled(val metadata: Metadata, val tree: ObjectTree)

/** An answer to the announcement of a reply: which objects are lacking, and under which session. */
class Announced(val lacking: List<String>, val session: String)

/**
 * The twelve calls of Flower's Fleet API, as of 1.41.
 *
 * Section 2 of `docs/device-protocol.md` has their fields. Each throws [IOException] where there is no
 * answer, or none that a server of Flower gives, and [FleetException] where it is an error.
 */
class FleetClient(private val transport: FleetTransport, private val signer: Signer) {
    /** Adds this device's key, on a server that lets devices do that; returns the node id. */
    fun registerNode(): Long = call("register-node", { bytes(1, signer.publicKey) }) { it.long(1) }

    /** Puts the node online for twice an interval; returns its id. */
    fun activateNode(interval: Double): Long =
        call("activate-node", {
            bytes(1, signer.publicKey)
            double(2, interval)
        }) { it.long(1) }

    /** Takes the node offline. */
    fun deactivateNode(node: Long) {
        call("deactivate-node", { varint(1, node) }) {}
    }

    /** Gives the key up for ever: it can never be registered again. */
    fun unregisterNode(node: Long) {
        call("unregister-node", { varint(1, node) }) {}
    }

    /** Keeps the node online for twice an interval, or puts it online; tells whether it is known. */
    fun sendNodeHeartbeat(node: Long, interval: Double): Boolean =
        call("send-node-heartbeat", {
            node(node)
            double(2, interval)
        }) { it.flag(1) }

    /** Returns the next message for the node, which is never handed out again; `null` for none. */
    fun pullMessages(node: Long): Pulled? =
        call("pull-messages", { node(node) }) { answer ->
            val message = answer.messages(2).firstOrNull()
            message?.let { Pulled(Metadata.read(it.message(1)), ObjectTree.parse(answer.message(3))) }
        }

    /** Announces a reply. */
    internal fun pushMessages(node: Long, message: ByteArray, tree: ObjectTree, seconds: Double): Announced =
        call("push-messages", {
            node(node)
            bytes(2, message)
            bytes(3, tree.write())
            message(4) { fixed(seconds) } // a packed list of doubles has the form of a message
        }) { Announced(it.texts(3), it.text(4)) }

    /** Returns the hash of the app of a run. */
    fun getRun(node: Long, run: Long): String =
        call("get-run", {
            node(node)
            varint(2, run)
        }) { it.message(1).text(5) }

    /** Returns the app of a run, as a zip archive. */
    fun getFab(node: Long, hash: String, run: Long): ByteArray =
        call("get-fab", {
            node(node)
            text(2, hash)
            varint(3, run)
        }) { it.message(1).bytes(2) }

    /** Uploads an object; tells whether it was stored. */
    fun pushObject(node: Long, run: Long, id: String, content: ByteArray, session: String): Boolean =
        call("push-object", {
            node(node)
            varint(2, run)
            text(3, id)
            bytes(4, content)
            text(5, session)
        }) { it.flag(1) }

    /** What became of a request for an object. */
    class PulledObject(val isFound: Boolean, val isAvailable: Boolean, val content: ByteArray)

    /** Downloads an object; one that is found and not available is still on its way there. */
    fun pullObject(node: Long, run: Long, id: String): PulledObject =
        call("pull-object", {
            node(node)
            varint(2, run)
            text(3, id)
        }) { PulledObject(it.flag(1), it.flag(2), it.bytes(3)) }

    /** Says that a message is kept here, whereupon it is deleted there. */
    fun confirmMessageReceived(node: Long, run: Long, id: String) {
        call("confirm-message-received", {
            node(node)
            varint(2, run)
            text(3, id)
        }) {}
    }

    private fun ProtoWriter.node(id: Long) {
        message(1) { varint(1, id) }
    }

    private inline fun <T> call(name: String, noinline write: ProtoWriter.() -> Unit, read: (Proto) -> T): T {
        val answer = transport.post(name, proto(write))
        try {
            return read(Proto(answer))
        } catch (err: CodecError) {
            throw IOException("the server's answer to $name cannot be read: ${err.message}", err)
        }
    }
}
