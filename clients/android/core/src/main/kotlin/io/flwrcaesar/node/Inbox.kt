package io.flwrcaesar.node

import io.flwrcaesar.fleet.FlowerObject
import io.flwrcaesar.fleet.Metadata
import io.flwrcaesar.fleet.ObjectTree
import io.flwrcaesar.fleet.Packed
import io.flwrcaesar.fleet.Proto
import io.flwrcaesar.fleet.ProtoWriter
import io.flwrcaesar.fleet.Pulled
import io.flwrcaesar.fleet.proto
import io.flwrcaesar.frame.CodecError
import io.flwrcaesar.store.Disk
import io.flwrcaesar.store.RealDisk
import io.flwrcaesar.store.sha256
import java.nio.file.Files
import java.nio.file.Path

/**
 * The one message in flight and the reply to it, on disk, so that a killed process goes on.
 *
 * A server hands a message out once and forgets it once it is confirmed; what is not kept here by
 * then is lost, and with it a round's time. An object is kept under its id, its SHA-256. A file that
 * is not what was written is set aside.
 */
internal class Inbox(
    private val folder: Path,
    private val disk: Disk = RealDisk,
    private val log: (String) -> Unit = {},
) {
    private val message = folder.resolve("message")
    private val reply = folder.resolve("reply")

    init {
        RealDisk.makeFolder(folder)
    }

    /** A reply as it is announced, and which objects it is made of. */
    class Reply(val metadata: Metadata, val announced: ByteArray, val tree: ObjectTree, val seconds: Double)

    /** The message in flight, or `null` for none. */
    fun pulled(): Pulled? = read(message) { Pulled(Metadata.read(it.message(1)), ObjectTree.parse(it.message(2))) }

    /** The reply in flight, or `null` for none. */
    fun reply(): Reply? =
        read(reply) {
            val announced = it.bytes(1)
            Reply(Metadata.read(Proto(announced).message(1)), announced, ObjectTree.parse(it.message(2)), it.double(3))
        }

    fun keep(pulled: Pulled) {
        write(message) {
            bytes(1, pulled.metadata.write())
            bytes(2, pulled.tree.write())
        }
    }

    /** Keeps a reply, its objects first. */
    fun keep(packed: Packed, seconds: Double) {
        packed.objects.forEach { (id, found) -> keep(id, found.bytes) }
        write(reply) {
            bytes(1, packed.announced())
            bytes(2, packed.tree.write())
            double(3, seconds)
        }
    }

    /** Keeps an object, whose id was looked at. */
    fun keep(id: String, bytes: ByteArray) = disk.write(folder.resolve(id), bytes)

    /** Returns an object that is here as it was sent; `null` if it is not. */
    fun load(id: String): ByteArray? = RealDisk.read(folder.resolve(id))?.takeIf { FlowerObject.idOf(it) == id }

    /** Forgets message and reply. The reply goes last: without it the message would be handled anew. */
    fun clear() {
        val files = Files.newDirectoryStream(folder).use { stream -> stream.filterNot { "$it".endsWith(DAMAGED) } }
        val last = setOf(message, reply)
        disk.delete(message)
        (files - last).forEach(disk::delete)
        disk.delete(reply)
    }

    // The fields, and the digest of their bytes.
    private fun write(file: Path, fields: ProtoWriter.() -> Unit) {
        val content = proto(fields)
        disk.write(
            file,
            proto {
                bytes(CONTENT, content)
                text(DIGEST, sha256(content))
            },
        )
    }

    private fun <T> read(file: Path, content: (Proto) -> T): T? {
        val data = RealDisk.read(file) ?: return null
        try {
            val sealed = Proto(data)
            if (CONTENT !in sealed.numbers) return content(sealed) // of a release that wrote no digest
            val bytes = sealed.bytes(CONTENT)
            if (sealed.text(DIGEST) == sha256(bytes)) return content(Proto(bytes))
        } catch (_: CodecError) {
            // not what was written
        }
        val place = file.resolveSibling("${file.fileName}$DAMAGED")
        disk.rename(file, place)
        log("the ${file.fileName} in flight is not what was written; it is $place now, and the node goes on without")
        return null
    }

    private companion object {
        const val CONTENT = 15
        const val DIGEST = 16
        const val DAMAGED = ".damaged"
    }
}
