package io.flwrcaesar.node

import io.flwrcaesar.fleet.FleetClient
import io.flwrcaesar.fleet.FleetException
import io.flwrcaesar.fleet.FlowerObject
import io.flwrcaesar.fleet.Metadata
import io.flwrcaesar.fleet.Packed
import io.flwrcaesar.fleet.Pulled
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.message.Content
import io.flwrcaesar.store.RealDisk
import java.nio.file.Files
import java.nio.file.NoSuchFileException
import java.nio.file.Path

/** Answers messages; what it throws is said to the server as the reason. */
fun interface Handler {
    fun handle(kind: String, content: Content): Content
}

/**
 * A Flower node: pulls messages, has them handled and pushes the replies, one at a time.
 *
 * Whatever a crash could lose is on disk before the server forgets it: section 2 of
 * `docs/device-protocol.md`, "Life of a node".
 *
 * @param folder for the node alone: its id, and the message in flight.
 * @param interval seconds between heartbeats, from 10 to 1,800; the node is online for twice as
 * long, and must be when the server looks for its reply.
 * @param clock the server's time in milliseconds since 1970, as far as it is known.
 * @param sleep waits for milliseconds; throws if the node is to stop.
 */
class Node(
    private val client: FleetClient,
    private val folder: Path,
    private val handler: Handler,
    private val interval: Double = 600.0,
    private val clock: () -> Long = System::currentTimeMillis,
    private val sleep: (Long) -> Unit = Thread::sleep,
    private val log: (String) -> Unit = {},
) {
    private val backoff = Backoff(sleep)
    private val idFile = folder.resolve("node-id")
    private val inbox = Inbox(folder.also(RealDisk::makeFolder).resolve("flight"))

    /** Flower's id of the node, 0 before [start]. */
    @Volatile
    var id = 0L
        private set

    /** Brings the node online, with the id that it had if it had one. */
    fun start() {
        val known = readId()
        if (known != null && backoff.patiently { client.sendNodeHeartbeat(known, interval) }) {
            id = known
            return
        }
        register()
        id = activate()
        RealDisk.write(idFile, java.lang.Long.toUnsignedString(id).toByteArray())
    }

    /** Keeps the node online; to be called at least once in twice the interval, from any thread. */
    fun beat() {
        client.sendNodeHeartbeat(id, interval)
    }

    /** Goes on with what is in flight, or takes the next message; tells whether there was any. */
    fun step(): Boolean {
        val reply = inbox.reply()
        if (reply != null) {
            push(reply)
            return true
        }
        val pulled = inbox.pulled() ?: backoff.patiently { client.pullMessages(id) }?.also(inbox::keep) ?: return false
        try {
            fetch(pulled)
        } catch (err: FleetException) {
            if (!err.isForbidden) throw err
            log("a message of a run that is over is dropped")
            inbox.clear()
            return true
        }
        answer(pulled)
        inbox.reply()?.let(::push)
        return true
    }

    private fun readId(): Long? =
        try {
            java.lang.Long.parseUnsignedLong(String(Files.readAllBytes(idFile)))
        } catch (_: NoSuchFileException) {
            null
        } catch (_: NumberFormatException) {
            null
        }

    // A server with a list of known keys refuses, as do a gate and one that has this key already.
    private fun register() {
        try {
            backoff.patiently { client.registerNode() }
        } catch (err: FleetException) {
            val isKnown = err.code == FleetException.KEY_REGISTERED || err.code == FleetException.REGISTRATION_DISABLED
            if (!isKnown && !err.isForbidden) throw err
        }
    }

    // Fails while the node is online still, after a crash that took its id along.
    private fun activate(): Long {
        repeat(ACTIVATIONS) {
            try {
                return backoff.patiently { client.activateNode(interval) }
            } catch (err: FleetException) {
                if (err.code != FleetException.NOT_ACTIVATED) throw err
                log("the server does not activate this device: ${err.message}")
                sleep(ACTIVATION_MS)
            }
        }
        return backoff.patiently { client.activateNode(interval) }
    }

    private fun fetch(pulled: Pulled) {
        for (part in pulled.tree.ids()) {
            if (inbox.load(part) == null) inbox.keep(part, download(pulled.metadata, part) ?: return giveUp(pulled))
        }
        backoff.patiently { client.confirmMessageReceived(id, pulled.metadata.runId, pulled.tree.id) }
    }

    private fun giveUp(pulled: Pulled) {
        log("the server has no object of message ${pulled.tree.id} any more: it is dropped")
        inbox.clear()
    }

    private fun download(metadata: Metadata, part: String): ByteArray? {
        repeat(DOWNLOADS) {
            val found = backoff.patiently { client.pullObject(id, metadata.runId, part) }
            if (!found.isFound) return null
            if (found.isAvailable) {
                if (FlowerObject.idOf(found.content) == part) return found.content
                log("an object came damaged, and is pulled again")
            }
            sleep(minOf(1_000L shl minOf(it, 4), 10_000L))
        }
        return null
    }

    private fun answer(pulled: Pulled) {
        if (inbox.pulled() == null) return // given up
        val started = System.nanoTime()
        val metadata = pulled.metadata.copy(messageId = pulled.tree.id)
        val packed =
            try {
                val content = Packed.content(pulled.tree.id) { inbox.load(it) ?: refuse("an object of the message is gone") }
                val reply = handler.handle(metadata.kind.substringBefore('.'), content)
                Packed.of(metadata.ofReply(now()), reply)
            } catch (err: InterruptedException) {
                throw err
            } catch (err: OutOfMemoryError) {
                refusal(metadata, err) // a restart would end the same way
            } catch (@Suppress("TooGenericExceptionCaught") err: Exception) {
                refusal(metadata, err)
            }
        inbox.keep(packed, (System.nanoTime() - started) / 1e9)
    }

    private fun refusal(metadata: Metadata, err: Throwable): Packed {
        log("the message cannot be handled: $err")
        return Packed.ofError(metadata.ofReply(now()), APP_FAILED, "$err".take(MAX_REASON))
    }

    private fun push(reply: Inbox.Reply) {
        try {
            if (reply.metadata.ttl > 0) upload(reply) else log("the reply is too late for its message")
        } catch (err: FleetException) {
            if (!err.isForbidden) throw err
            log("a reply of a run that is over is dropped")
        }
        inbox.clear()
    }

    private fun upload(reply: Inbox.Reply) {
        repeat(UPLOADS) {
            val announced =
                backoff.patiently { client.pushMessages(id, reply.announced, reply.tree, reply.seconds) }
            if (reply.tree.id !in announced.lacking) {
                log("the server has the reply, or does not want it")
                return
            }
            val isStored = announced.lacking.all { upload(reply, it, announced.session) }
            if (isStored) return
            sleep(1_000L shl minOf(it, 4))
        }
        log("the server does not store the reply: it is dropped")
    }

    private fun upload(reply: Inbox.Reply, part: String, session: String): Boolean {
        val content = inbox.load(part) ?: return false
        return backoff.patiently { client.pushObject(id, reply.metadata.runId, part, content, session) }
    }

    private fun now(): Double = clock() / 1e3

    private companion object {
        const val ACTIVATIONS = 30
        const val ACTIVATION_MS = 10_000L
        const val DOWNLOADS = 500
        const val UPLOADS = 10
        const val APP_FAILED = 2L
        const val MAX_REASON = 500
    }
}
