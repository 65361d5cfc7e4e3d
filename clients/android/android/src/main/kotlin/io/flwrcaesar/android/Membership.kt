package io.flwrcaesar.android

import android.content.Context
import io.flwrcaesar.device.App
import io.flwrcaesar.device.Device
import io.flwrcaesar.enrol.Enrolment
import io.flwrcaesar.enrol.Place
import io.flwrcaesar.enrol.Ticket
import io.flwrcaesar.fleet.FleetClient
import io.flwrcaesar.fleet.HttpTransport
import io.flwrcaesar.fleet.Trust
import io.flwrcaesar.message.Content
import io.flwrcaesar.node.Handler
import io.flwrcaesar.node.Node
import io.flwrcaesar.node.SecureDraws
import io.flwrcaesar.store.FolderStore
import io.flwrcaesar.store.RealDisk
import io.flwrcaesar.train.Checkpoints
import io.flwrcaesar.train.EngineApp
import io.flwrcaesar.train.TrainingEngine
import java.nio.file.Files
import java.nio.file.Path

/**
 * This device's place in a fleet, kept in the app's private folder.
 *
 * The system's own backup must not carry that folder to another device: two copies of a device's
 * state cannot both go on.
 */
class Membership(context: Context, private val log: (String) -> Unit = {}) {
    private val folder: Path = context.noBackupFilesDir.toPath().resolve("flwr-caesar")
    private val signer = KeystoreSigner(context)
    private val address = folder.resolve("server")
    private val authority = folder.resolve("ca.crt")

    /** The server's address, or `null` before the device has joined. */
    val server: String? get() = if (Files.exists(address)) String(Files.readAllBytes(address)) else null

    /** Hands in a ticket, a line of text or what a QR code holds; not to be called from the main thread. */
    fun join(ticket: String): Place {
        val place = Enrolment(signer).join(Ticket.of(ticket))
        RealDisk.makeFolder(folder)
        RealDisk.write(authority, place.authority)
        RealDisk.write(address, place.server.toByteArray()) // last: it says that the device has joined
        return place
    }

    /** Keeps what trainings have reached, for an [EngineApp] of this device. */
    val checkpoints = Checkpoints(folder.resolve("training"), log = log)

    /** Returns the node of a device that has joined, and trains with an engine. */
    fun node(engine: TrainingEngine, conditions: Conditions): Node =
        node(EngineApp(engine, checkpoints = checkpoints), conditions)

    /** Returns the node of a device that has joined. */
    fun node(app: App, conditions: Conditions): Node {
        val server = checkNotNull(server) { "the device has not joined a fleet" }
        val transport = HttpTransport(server, signer, Trust.ofPem(Files.readAllBytes(authority)))
        val handler =
            object : Handler {
                override fun handle(kind: String, content: Content): Content =
                    FolderStore(folder.resolve("states"), log = log).use { store ->
                        Device(store, app, SecureDraws(), watch = { conditions }, log = log).handle(kind, content)
                    }

                override fun done() = app.done()
            }
        return Node(FleetClient(transport, signer), folder, handler, clock = transport::serverTime, log = log)
    }
}
