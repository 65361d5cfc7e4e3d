package io.flwrcaesar.store

import io.flwrcaesar.device.StateError
import java.io.IOException
import java.nio.channels.FileChannel
import java.nio.channels.FileLock
import java.nio.channels.OverlappingFileLockException
import java.nio.file.LinkOption
import java.nio.file.Path
import java.nio.file.StandardOpenOption

/** Keeps other processes out of a folder while it is held. */
internal class FolderLock private constructor(private val channel: FileChannel) : AutoCloseable {
    override fun close() = channel.close()

    companion object {
        private const val NAME = "lock"
        private const val PATIENCE_MS = 10_000L
        private const val POLL_MS = 50L

        /**
         * Takes the lock of a folder, which is made if it is not there.
         *
         * @throws StateError if another process holds it for ten seconds.
         */
        fun take(folder: Path): FolderLock {
            try {
                RealDisk.makeFolder(folder)
                val channel =
                    FileChannel.open(
                        folder.resolve(NAME),
                        StandardOpenOption.CREATE,
                        StandardOpenOption.WRITE,
                        LinkOption.NOFOLLOW_LINKS,
                    )
                val deadline = System.nanoTime() + PATIENCE_MS * 1_000_000
                while (lock(channel) == null) {
                    if (System.nanoTime() > deadline) {
                        channel.close()
                        throw StateError("another process uses the device's state in $folder")
                    }
                    Thread.sleep(POLL_MS)
                }
                return FolderLock(channel)
            } catch (err: IOException) {
                throw StateError("the device's folder $folder cannot be used: $err", err)
            }
        }

        private fun lock(channel: FileChannel): FileLock? =
            try {
                channel.tryLock()
            } catch (_: OverlappingFileLockException) {
                null // held by this very process
            }
    }
}
