package io.flwrcaesar.bench

import io.flwrcaesar.codec.Dense
import io.flwrcaesar.codec.Updates
import io.flwrcaesar.device.App
import io.flwrcaesar.device.StateStore
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.message.Content
import java.math.BigInteger
import java.nio.file.Files
import java.nio.file.Path

/** Writes down each update that an app computed, and the frame of each upload, to hold against the ledger. */
internal class Journal(private val folder: Path, private val app: App) : App by app {
    private var computed: Tensors? = null

    override fun handle(kind: String, content: Content, request: String): Content {
        val given = content.tensors.values.first().tensors
        val reply = app.handle(kind, content, request)
        computed = reply.tensors.values.firstOrNull()?.let { Updates.difference(it.tensors, given) }
        return reply
    }

    /** Keeps what is new in the states of a store. */
    fun keep(states: Path, store: StateStore) {
        Files.createDirectories(folder)
        val lineages = Files.newDirectoryStream(states).use { all -> all.map { "${it.fileName}" }.filter { LINEAGE.matches(it) } }
        for (lineage in lineages) {
            val pending = store.load(BigInteger(lineage, 16).toLong())?.pending.orEmpty()
            for (upload in pending) {
                val name = "%016x".format(upload.uploadId)
                if (Files.exists(folder.resolve("sent-$name"))) continue
                Files.write(folder.resolve("sent-$name"), upload.frame)
                Files.write(folder.resolve("computed-$name"), Dense.encode(computed!!, known = false).frame)
            }
        }
    }

    private companion object {
        val LINEAGE = Regex("[0-9a-f]{16}")
    }
}
