package io.flwrcaesar.store

import java.io.IOException
import java.nio.channels.FileChannel
import java.nio.file.Files
import java.nio.file.LinkOption
import java.nio.file.Path
import java.nio.file.StandardCopyOption
import java.nio.file.StandardOpenOption
import java.nio.file.attribute.PosixFilePermissions

/** What a store does to a disk; each step is whole, or leaves what was there. */
interface Disk {
    /** Writes a file durably under a name that nobody looks for, and then gives it its own. */
    @Throws(IOException::class)
    fun write(file: Path, data: ByteArray)

    /** Gives a folder or file another name, durably. */
    @Throws(IOException::class)
    fun rename(from: Path, to: Path)

    /** Deletes a file; one that is gone already is none. */
    @Throws(IOException::class)
    fun delete(file: Path)
}

/** The device's own disk. */
object RealDisk : Disk {
    private const val NEW = ".new"

    override fun write(file: Path, data: ByteArray) {
        val new = file.resolveSibling("${file.fileName}$NEW")
        Files.deleteIfExists(new) // a link in its place is not followed
        FileChannel.open(new, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE).use { channel ->
            val buffer = java.nio.ByteBuffer.wrap(data)
            while (buffer.hasRemaining()) channel.write(buffer)
            channel.force(true)
        }
        rename(new, file)
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
    private fun sync(folder: Path) {
        val channel =
            try {
                FileChannel.open(folder, StandardOpenOption.READ)
            } catch (_: IOException) {
                return
            }
        channel.use { it.force(true) }
    }
}
