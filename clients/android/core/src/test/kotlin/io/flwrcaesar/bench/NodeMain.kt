package io.flwrcaesar.bench

import io.flwrcaesar.codec.Dense
import io.flwrcaesar.device.Device
import io.flwrcaesar.enrol.Enrolment
import io.flwrcaesar.enrol.Ticket
import io.flwrcaesar.fleet.FleetClient
import io.flwrcaesar.fleet.HttpTransport
import io.flwrcaesar.fleet.SoftwareSigner
import io.flwrcaesar.fleet.Trust
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.little
import io.flwrcaesar.node.Handler
import io.flwrcaesar.node.Heart
import io.flwrcaesar.node.Node
import io.flwrcaesar.node.SecureDraws
import io.flwrcaesar.store.FolderStore
import io.flwrcaesar.train.EngineApp
import io.flwrcaesar.train.Examples
import io.flwrcaesar.train.MlpEngine
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.Paths

private const val INTERVAL = 60.0
private const val POLL_MS = 500L

/**
 * A device on a JVM: `NodeMain FOLDER EXAMPLES SERVER-OR-TICKET [DELAY-MS]`.
 *
 * Its key, node id, message in flight and states are in the folder, and a journal of what it computed
 * and sent; a file `initial` there is the model that the run starts from, as a dense frame. The delay is between training
 * and the reply, for tests that kill it there.
 */
fun main(arguments: Array<String>) {
    val folder = Paths.get(arguments[0])
    Files.createDirectories(folder)
    val examples = readExamples(Files.readAllBytes(Paths.get(arguments[1])))
    val signer = signer(folder)
    val transport = transport(folder, arguments[2], signer)
    val log = { line: String -> System.err.println("$folder: $line") }
    val journal = Journal(folder.resolve("journal"), EngineApp(MlpEngine(examples), readInitial(folder.resolve("initial"))))
    val states = folder.resolve("states")
    val handler =
        Handler { kind, content ->
            FolderStore(states, log = log).use { store ->
                val reply = Device(store, journal, SecureDraws(), log = log).handle(kind, content)
                journal.keep(states, store)
                Files.write(folder.resolve("handled"), kind.toByteArray())
                arguments.getOrNull(3)?.let { if (kind == "train") Thread.sleep(it.toLong()) }
                reply
            }
        }
    val node = Node(FleetClient(transport, signer), folder, handler, INTERVAL, transport::serverTime, log = log)
    node.start()
    log("node ${java.lang.Long.toUnsignedString(node.id)}")
    Heart(node::beat, INTERVAL, log).use {
        while (true) if (!node.step()) Thread.sleep(POLL_MS)
    }
}

private fun readInitial(file: Path): Tensors? =
    if (Files.exists(file)) Dense.decode(Files.readAllBytes(file), isFinite = false) else null

private fun signer(folder: Path): SoftwareSigner {
    val file = folder.resolve("key.private")
    val public = folder.resolve("key.public")
    if (Files.exists(public)) return SoftwareSigner.of(Files.readAllBytes(file) to Files.readAllBytes(public))
    return SoftwareSigner.generate().also {
        Files.write(file, it.encoded.first)
        Files.write(public, it.encoded.second)
    }
}

// A ticket is handed in once; what it was good for is in the folder from then on.
private fun transport(folder: Path, server: String, signer: SoftwareSigner): HttpTransport {
    if (server.startsWith("http://")) return HttpTransport(server, signer, allowsClearText = true)
    val address = folder.resolve("server")
    val authority = folder.resolve("ca.crt")
    if (!Files.exists(address)) {
        val place = Enrolment(signer, "0.1.0").join(Ticket.of(String(Files.readAllBytes(Paths.get(server)))))
        Files.write(authority, place.authority)
        Files.write(address, place.server.toByteArray())
    }
    return HttpTransport(String(Files.readAllBytes(address)), signer, Trust.ofPem(Files.readAllBytes(authority)))
}

// Little-endian: the number of examples, their width, the classes; features as float32, labels.
internal fun readExamples(bytes: ByteArray): Examples {
    val data = bytes.little()
    val (size, width, classes) = List(3) { data.getInt(4 * it) }
    val features = FloatArray(size * width) { data.getFloat(12 + 4 * it) }
    val labels = IntArray(size) { data.getInt(12 + 4 * (size * width + it)) }
    return Examples(features, labels, width, classes)
}
