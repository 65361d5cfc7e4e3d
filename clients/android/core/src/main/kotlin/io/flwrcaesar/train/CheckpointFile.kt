package io.flwrcaesar.train

import io.flwrcaesar.frame.CodecError
import io.flwrcaesar.store.Disk
import io.flwrcaesar.store.RealDisk
import java.io.BufferedInputStream
import java.io.BufferedOutputStream
import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.EOFException
import java.io.FileInputStream
import java.io.IOException
import java.io.InputStream
import java.nio.file.Files
import java.nio.file.LinkOption
import java.nio.file.Path
import java.security.DigestOutputStream
import java.security.MessageDigest

/**
 * What one training has reached, in a file that says which training that is.
 *
 * Eight bytes of a mark, the 32 of the training's key, what the engine wrote, and the SHA-256 of all
 * of it. A file that is not what was written is set aside; one of another training is deleted.
 *
 * @param log takes lines for the device's log.
 */
internal class CheckpointFile(
    private val folder: Path,
    private val disk: Disk = RealDisk,
    private val log: (String) -> Unit = {},
) {
    private val file = folder.resolve("training")

    /** Keeps what [content] writes of the training of a key, in place of what was kept. */
    fun write(key: ByteArray, content: (DataOutputStream) -> Unit) {
        RealDisk.makeFolder(folder)
        disk.write(file) { out ->
            val digest = MessageDigest.getInstance("SHA-256")
            val data = DataOutputStream(BufferedOutputStream(DigestOutputStream(out, digest), BUFFER))
            data.write(MARK)
            data.write(key)
            content(data)
            data.flush()
            out.write(digest.digest())
        }
    }

    /** Returns what [content] makes of what was kept of the training of a key; `null` if there is nothing of it. */
    fun <T> read(key: ByteArray, content: (DataInputStream) -> T): T? {
        if (!Files.isRegularFile(file, LinkOption.NOFOLLOW_LINKS)) return null
        try {
            if (!isWhole()) return null.also { setAside() }
            return open().use { data ->
                val isOfKey = data.take(MARK.size).contentEquals(MARK) && data.take(KEY_BYTES).contentEquals(key)
                if (isOfKey) content(data) else null.also { forget() }
            }
        } catch (err: CodecError) {
            log("a training begins anew, as what was kept of it cannot be gone on with: ${err.message}")
        } catch (_: EOFException) {
            log("a training begins anew, as less was kept of it than this engine needs")
        } catch (err: IOException) {
            log("a training begins anew, as what was kept of it cannot be read now: $err")
            return null
        }
        forget()
        return null
    }

    /** Deletes what was kept, if anything was; what cannot be deleted now is of another training later. */
    fun forget() {
        try {
            disk.delete(file)
        } catch (err: IOException) {
            log("what was kept of a training cannot be deleted: $err")
        }
    }

    private fun open() = DataInputStream(BufferedInputStream(FileInputStream(file.toFile()), BUFFER))

    private fun isWhole(): Boolean {
        val size = Files.size(file) - DIGEST_BYTES
        if (size < MARK.size + KEY_BYTES) return false
        val digest = MessageDigest.getInstance("SHA-256")
        open().use { data ->
            val buffer = ByteArray(BUFFER)
            var left = size
            while (left > 0) {
                val count = data.read(buffer, 0, minOf(left, buffer.size.toLong()).toInt())
                if (count < 0) return false
                digest.update(buffer, 0, count)
                left -= count
            }
            return data.take(DIGEST_BYTES).contentEquals(digest.digest())
        }
    }

    // One is enough to look at, and it may be large.
    private fun setAside() {
        val place = folder.resolve("training.damaged")
        disk.rename(file, place)
        log("what was kept of a training is not what was written; it is $place now, and the training begins anew")
    }

    private fun InputStream.take(count: Int): ByteArray = ByteArray(count).also { DataInputStream(this).readFully(it) }

    companion object {
        const val KEY_BYTES = 32
        private const val DIGEST_BYTES = 32
        private const val BUFFER = 1 shl 16
        private val MARK = "FCTRAIN1".toByteArray()
    }
}
