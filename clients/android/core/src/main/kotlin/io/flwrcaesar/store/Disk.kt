package io.flwrcaesar.store

import java.io.FileOutputStream
import java.io.IOException
import java.io.OutputStream
import java.nio.channels.ClosedByInterruptException
import java.nio.channels.FileChannel
import java.nio.file.Files
import java.nio.file.LinkOption
import java.nio.file.NoSuchFileException
import java.nio.file.Path
import java.nio.file.StandardCopyOption
import java.nio.file.StandardOpenOption
import java.nio.file.attribute.PosixFilePermissions

/** What a store does to a disk; each step is whole, or leaves what was there. */
interface Disk {
    /** Writes a file durably under a name that nobody looks for, and then gives it its own. */
    @Throws(IOException::class)
    fun write(file: Path, data: ByteArray) = write(file) { it.write(data) }

    /** Writes a file likewise, whose content is not in memory as a whole. */
    @Throws(IOException::class)
    fun write(file: Path, content: (OutputStream) -> Unit)

    /** Gives a folder or file another name, durably. */
    @Throws(IOException::class)
    fun rename(from: Path, to: Path)

    /** Deletes a file; one that is gone already is none. */
    @Throws(IOException::class)
    fun delete(file: Path)
}

/**
 * The device's own disk.
 *
 * A thread that is interrupted while it writes or reads does that to the end: channels do not.
 */
object RealDisk : Disk {
    private const val NEW = ".new"

    override fun write(file: Path, content: (OutputStream) -> Unit) {
        val new = file.resolveSibling("${file.fileName}$NEW")
        Files.deleteIfExists(new) // a link in its place is not followed
        FileOutputStream(new.toFile()).use { out ->
            content(out)
            out.fd.sync()
        }
        rename(new, file)
    }

    /** Returns the bytes of a file; `null` if there is none. */
    fun read(file: Path): ByteArray? = uninterrupted {
        try {
            Files.readAllBytes(file)
        } catch (_: NoSuchFileException) {
            null
        }
    }

    override fun rename(from: Path, to: Path) {
        Files.move(from, to, StandardCopyOption.ATOMIC_MOVE)
        sync(to.parent)
    }

    override fun delete(file: Path) {
        Files.deleteIfExists(file)
    }

    /** Makes a folder for its owner only, unless it is there. */
    fun makeFolder(folder: Path) {
        if (Files.isDirectory(folder, LinkOption.NOFOLLOW_LINKS)) return
        val isPosix = "posix" in folder.fileSystem.supportedFileAttributeViews()
        val owner = PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------"))
        folder.parent?.let { if (!Files.exists(it)) makeFolder(it) }
        if (isPosix) Files.createDirectory(folder, owner) else Files.createDirectory(folder)
        folder.parent?.let(::sync)
    }

    // Names are durable once their folder is; not every system lets a folder be opened for that.
    private fun sync(folder: Path) = uninterrupted {
        val channel =
            try {
                FileChannel.open(folder, StandardOpenOption.READ)
            } catch (_: IOException) {
                null
            }
        channel?.use { it.force(true) }
    }

    // What was done to a channel that closed itself is done again; the thread is interrupted after it.
    private fun <T> uninterrupted(action: () -> T): T {
        var isInterrupted = Thread.interrupted()
        try {
            while (true) {
                try {
                    return action()
                } catch (_: ClosedByInterruptException) {
                    isInterrupted = true
                    Thread.interrupted()
                }
            }
        } finally {
            if (isInterrupted) Thread.currentThread().interrupt()
        }
    }
}
