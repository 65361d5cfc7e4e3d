package io.flwrcaesar.node

import io.flwrcaesar.fleet.FleetClient
import io.flwrcaesar.fleet.FleetException
import io.flwrcaesar.fleet.FlowerObject
import io.flwrcaesar.fleet.Metadata
import io.flwrcaesar.fleet.Packed
import io.flwrcaesar.fleet.Pulled
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.message.Content
import io.flwrcaesar.store.FolderLock
import io.flwrcaesar.store.RealDisk
import java.nio.file.Path

/** Answers messages; what it throws is said to the server as the reason. */
fun interface Handler {
    fun handle(kind: String, content: Content): Content

    /** The answer to the last message is kept, or nobody wants it any more: it is not to be handled again. */
    fun done() {}
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
 * @param log takes lines for the device's log.
 */
class Node(
    private val client: FleetClient,
    private val folder: Path,
    private val handler: Handler,
    val interval: Double = 600.0,
    private val clock: () -> Long = System::currentTimeMillis,
    private val sleep: (Long) -> Unit = Thread::sleep,
    private val log: (String) -> Unit = {},
) {
    private val backoff = Backoff(sleep)
    private val idFile = folder.resolve("node-id")
    private val inbox = Inbox(folder.also(RealDisk::makeFolder).resolve("flight"), log = log)

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

    /** Keeps the node online; to be called at least once in twice the interval, from any thread: see [Heart]. */
    fun beat() {
        client.sendNodeHeartbeat(id, interval)
    }

    /**
     * Goes on with what is in flight, or takes the next message; tells whether there was any.
     *
     * Whatever it throws, what is in flight is kept, and another call goes on with it, in this process
     * or a later one.
     *
     * @throws java.io.IOException if the server's answer is an error that waiting does not mend, or the
     * disk's.
     * @throws io.flwrcaesar.device.StateError if another process or thread serves from this folder.
     * @throws InterruptedException if the thread is interrupted.
     */
    fun step(): Boolean = FolderLock.take(folder).use { next() }

    private fun next(): Boolean {
        val reply = inbox.reply()
        if (reply != null) {
            push(reply)
            return true
        }
        val pulled = inbox.pulled() ?: backoff.patiently { client.pullMessages(id) }?.also(inbox::keep) ?: return false
        val why = whyDropped(pulled)
        if (why == null) {
            answer(pulled)
            inbox.reply()?.let(::push)
        } else {
            log("message ${pulled.tree.id} is dropped: $why")
            inbox.clear()
            handler.done()
        }
        return true
    }

    private fun readId(): Long? =
        try {
            RealDisk.read(idFile)?.let { java.lang.Long.parseUnsignedLong(String(it)) }
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

    // Nobody waits for the answer to a message whose time to live is over.
    private fun isOver(metadata: Metadata) = metadata.isOver(now())

    /** Keeps all of a message and says so to the server; returns why it is not to be handled, or `null`. */
    private fun whyDropped(pulled: Pulled): String? {
        try {
            if (isOver(pulled.metadata)) return "its time to live is over"
            for (part in pulled.tree.ids()) {
                if (inbox.load(part) != null) continue
                inbox.keep(part, download(pulled.metadata, part) ?: return "the server has not all of it")
            }
            call(pulled.metadata) { client.confirmMessageReceived(id, pulled.metadata.runId, pulled.tree.id) }
            return null
        } catch (err: FleetException) {
            if (err.isForbidden || err.isRefused) return "${err.message}"
            throw err
        }
    }

    private fun download(metadata: Metadata, part: String): ByteArray? {
        var damaged = 0
        repeat(DOWNLOADS) {
            val found = call(metadata) { client.pullObject(id, metadata.runId, part) }
            if (!found.isFound) return null
            if (found.isAvailable) {
                if (FlowerObject.idOf(found.content) == part) return found.content
                log("an object came damaged")
                if (++damaged == DAMAGED_DOWNLOADS) return null
            }
            sleep(minOf(1_000L shl minOf(it, 4), 10_000L))
        }
        return null
    }

    private fun <T> call(metadata: Metadata, call: () -> T): T = backoff.patiently({ isOver(metadata) }, call)

    private fun answer(pulled: Pulled) {
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
                // Whatever an interrupted thread fails at, the message is not to blame.
                if (Thread.interrupted()) throw InterruptedException("$err")
                refusal(metadata, err)
            }
        inbox.keep(packed, (System.nanoTime() - started) / 1e9)
        handler.done()
    }

    private fun refusal(metadata: Metadata, err: Throwable): Packed {
        log("the message cannot be handled: $err")
        return Packed.ofError(metadata.ofReply(now()), APP_FAILED, "$err".take(MAX_REASON))
    }

    private fun push(reply: Inbox.Reply) {
        try {
            if (isOver(reply.metadata)) log("the reply is too late for its message") else upload(reply)
        } catch (err: FleetException) {
            if (!err.isForbidden && !err.isRefused) throw err
            log("the reply is dropped: ${err.message}") // an update in it returns to the residual
        }
        inbox.clear()
    }

    private fun upload(reply: Inbox.Reply) {
        repeat(UPLOADS) {
            val announced =
                call(reply.metadata) { client.pushMessages(id, reply.announced, reply.tree, reply.seconds) }
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

    // Only what is of the reply: an id names a file.
    private fun upload(reply: Inbox.Reply, part: String, session: String): Boolean {
        val content = if (part in reply.tree.ids()) inbox.load(part) else null
        if (content == null) return false
        return call(reply.metadata) { client.pushObject(id, reply.metadata.runId, part, content, session) }
    }

    private fun now(): Double = clock() / 1e3

    private companion object {
        const val ACTIVATIONS = 30
        const val ACTIVATION_MS = 10_000L
        const val DOWNLOADS = 500
        const val DAMAGED_DOWNLOADS = 10
        const val UPLOADS = 10
        const val APP_FAILED = 2L
        const val MAX_REASON = 500
    }
}
