package io.flwrcaesar.node

import io.flwrcaesar.fleet.FlowerObject
import io.flwrcaesar.fleet.Metadata
import io.flwrcaesar.fleet.ObjectTree
import io.flwrcaesar.fleet.Packed
import io.flwrcaesar.fleet.Proto
import io.flwrcaesar.fleet.Pulled
import io.flwrcaesar.fleet.proto
import io.flwrcaesar.store.Disk
import io.flwrcaesar.store.RealDisk
import java.nio.file.Files
import java.nio.file.NoSuchFileException
import java.nio.file.Path

/**
 * The one message in flight and the reply to it, on disk, so that a killed process goes on.
 *
 * A server hands a message out once and forgets it once it is confirmed; what is not kept here by
 * then is lost, and with it a round's time. An object is kept under its id, its SHA-256.
 */
internal class Inbox(private val folder: Path, private val disk: Disk = RealDisk) {
    private val message = folder.resolve("message")
    private val reply = folder.resolve("reply")

    init {
        RealDisk.makeFolder(folder)
    }

    /** A reply as it is announced, and which objects it is made of. */
    class Reply(val metadata: Metadata, val announced: ByteArray, val tree: ObjectTree, val seconds: Double)

    /** The message in flight, or `null` for none. */
    fun pulled(): Pulled? {
        val data = read(message) ?: return null
        return Pulled(Metadata.read(data.message(1)), ObjectTree.parse(data.message(2)))
    }

    /** The reply in flight, or `null` for none. */
    fun reply(): Reply? {
        val data = read(reply) ?: return null
        return Reply(
            Metadata.read(Proto(data.bytes(1)).message(1)),
            data.bytes(1),
            ObjectTree.parse(data.message(2)),
            data.double(3),
        )
    }

    fun keep(pulled: Pulled) {
        disk.write(
            message,
            proto {
                bytes(1, pulled.metadata.write())
                bytes(2, pulled.tree.write())
            },
        )
    }

    /** Keeps a reply, its objects first. */
    fun keep(packed: Packed, seconds: Double) {
        packed.objects.forEach { (id, found) -> keep(id, found.bytes) }
        disk.write(
            reply,
            proto {
                bytes(1, packed.announced())
                bytes(2, packed.tree.write())
                double(3, seconds)
            },
        )
    }

    /** Keeps an object, whose id was looked at. */
    fun keep(id: String, bytes: ByteArray) = disk.write(folder.resolve(id), bytes)

    /** Returns an object that is here as it was sent; `null` if it is not. */
    fun load(id: String): ByteArray? =
        try {
            Files.readAllBytes(folder.resolve(id)).takeIf { FlowerObject.idOf(it) == id }
        } catch (_: NoSuchFileException) {
            null
        }

    /** Forgets message and reply. The reply goes last: without it the message would be handled anew. */
    fun clear() {
        val files = Files.newDirectoryStream(folder).use { it.toList() }
        val last = setOf(message, reply)
        disk.delete(message)
        (files - last).forEach(disk::delete)
        disk.delete(reply)
    }

    private fun read(file: Path): Proto? =
        try {
            Proto(Files.readAllBytes(file))
        } catch (_: NoSuchFileException) {
            null
        }
}
