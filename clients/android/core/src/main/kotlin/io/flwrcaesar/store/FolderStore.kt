package io.flwrcaesar.store

import io.flwrcaesar.codec.Dense
import io.flwrcaesar.device.DeviceState
import io.flwrcaesar.device.Pending
import io.flwrcaesar.device.StateError
import io.flwrcaesar.device.StateStore
import io.flwrcaesar.frame.CodecError
import io.flwrcaesar.frame.Tensors
import java.io.IOException
import java.nio.file.Files
import java.nio.file.LinkOption
import java.nio.file.Path

/**
 * Keeps a device's states in a folder, one sub-folder for each lineage.
 *
 * All files of a state are written and durable before its manifest, which is the commit; files that
 * no manifest names are deleted after it. What was read in full and is not what was written is set
 * aside under another name, never deleted, and the device starts anew. What cannot be read is left
 * as it is.
 *
 * @param root for the device alone; made if it is not there.
 * @param log takes lines for the device's log.
 * @throws StateError if another process uses the folder, or it cannot be made.
 */
class FolderStore(
    private val root: Path,
    private val disk: Disk = RealDisk,
    private val log: (String) -> Unit = {},
) : StateStore {
    private val lock = FolderLock.take(root)
    private val written = HashMap<String, StateFile>()

    override fun close() = lock.close()

    override fun load(lineage: Long): DeviceState? {
        val folder = folderOf(lineage)
        return reading {
            val manifest = readOrNull(folder.resolve(MANIFEST)) ?: return@reading null
            val state = Manifest.of(manifest)?.let { complete(folder, it) }
            if (state == null || state.lineage != lineage) {
                setAside(folder)
                null
            } else {
                state
            }
        }
    }

    override fun prepare(state: DeviceState) {
        keeping {
            val folder = folderOf(state.lineage)
            RealDisk.makeFolder(folder)
            state.model?.let { put(folder, fileName("model", it.digest), it) }
        }
    }

    override fun save(state: DeviceState) {
        keeping {
            val folder = folderOf(state.lineage)
            RealDisk.makeFolder(folder)
            val manifest =
                Manifest(
                    state,
                    model = state.model?.let { put(folder, fileName("model", it.digest), it) },
                    residual = state.residual?.let { put(folder, fileName("residual", it.digest), it) },
                    pending = state.pending.map { put(folder, it) },
                )
            disk.write(folder.resolve(MANIFEST), manifest.toBytes())
            deleteOthers(folder, manifest.files + MANIFEST)
        }
    }

    // Files are named by their content, so that what is there already is not written again.
    private fun put(folder: Path, name: String, tensors: Tensors): StateFile {
        val known = written["$folder/$name"]
        if (known != null && Files.size(folder.resolve(name)) == known.size) return known
        return put(folder, name, Dense.encode(tensors, known = false, isFinite = false).frame)
    }

    private fun put(folder: Path, pending: Pending): PendingEntry {
        val name = java.lang.Long.toHexString(pending.uploadId)
        return PendingEntry(
            pending.uploadId,
            pending.order,
            pending.isModel,
            put(folder, "upload-$name", pending.frame),
            put(folder, "told-$name", pending.told.toByteArray()),
            pending.share,
        )
    }

    private fun put(folder: Path, name: String, data: ByteArray): StateFile {
        val file = StateFile.of(name, data)
        val path = folder.resolve(name)
        val isThere = written["$folder/$name"] == file && Files.exists(path, LinkOption.NOFOLLOW_LINKS)
        if (!isThere) disk.write(path, data)
        written["$folder/$name"] = file
        return file
    }

    private fun fileName(kind: String, digest: ByteArray): String =
        kind + "-" + digest.joinToString("") { "%02x".format(it) }

    // The state of a manifest with its files in it; null if one is not what was written.
    private fun complete(folder: Path, manifest: Manifest): DeviceState? {
        val model = manifest.model?.let { tensors(folder, it) ?: return null }
        val residual = manifest.residual?.let { tensors(folder, it) ?: return null }
        val pending =
            manifest.pending.map { entry ->
                val frame = content(folder, entry.frame) ?: return null
                val told = content(folder, entry.told) ?: return null
                Pending(entry.uploadId, entry.order, frame, entry.isModel, String(told), entry.share)
            }
        return manifest.state.copy(model = model, residual = residual, pending = pending)
    }

    private fun tensors(folder: Path, file: StateFile): Tensors? {
        val data = content(folder, file) ?: return null
        return try {
            Dense.decode(data, isFinite = false)
        } catch (_: CodecError) {
            null
        }
    }

    private fun content(folder: Path, file: StateFile): ByteArray? {
        val data = readOrNull(folder.resolve(file.name))?.takeIf(file::isOf) ?: return null
        written["$folder/${file.name}"] = file
        return data
    }

    private fun readOrNull(file: Path): ByteArray? = if (Files.isSymbolicLink(file)) null else RealDisk.read(file)

    private fun setAside(folder: Path) {
        val aside = generateSequence(1) { it + 1 }.map { folder.resolveSibling("${folder.fileName}.damaged-$it") }
        val place = aside.first { !Files.exists(it, LinkOption.NOFOLLOW_LINKS) }
        disk.rename(folder, place)
        written.clear()
        log("the state in $folder is not what was written; it is kept as $place, and the device starts anew")
    }

    private fun deleteOthers(folder: Path, kept: Set<String>) {
        val others = Files.newDirectoryStream(folder).use { stream -> stream.filter { it.fileName.toString() !in kept } }
        for (file in others) {
            disk.delete(file)
            written -= "$folder/${file.fileName}"
        }
    }

    private fun folderOf(lineage: Long): Path = root.resolve("%016x".format(lineage))

    private inline fun <T> reading(block: () -> T): T =
        try {
            block()
        } catch (err: IOException) {
            throw StateError("the device's state in $root cannot be read now: $err", err)
        }

    private inline fun keeping(block: () -> Unit) =
        try {
            block()
        } catch (err: IOException) {
            throw StateError("the device's state cannot be kept in $root: $err", err)
        }

    private companion object {
        const val MANIFEST = "manifest"
    }
}
