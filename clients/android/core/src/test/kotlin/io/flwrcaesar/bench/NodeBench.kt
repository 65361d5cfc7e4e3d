package io.flwrcaesar.bench

import io.flwrcaesar.device.Device
import io.flwrcaesar.fleet.FleetClient
import io.flwrcaesar.fleet.HttpTransport
import io.flwrcaesar.fleet.SoftwareSigner
import io.flwrcaesar.message.Content
import io.flwrcaesar.node.Handler
import io.flwrcaesar.node.Node
import io.flwrcaesar.node.SecureDraws
import io.flwrcaesar.store.FolderStore
import io.flwrcaesar.train.Checkpoints
import io.flwrcaesar.train.EngineApp
import io.flwrcaesar.train.MlpEngine
import java.nio.file.Path
import java.nio.file.Paths

/** A node that trains for real over real connections, and whose waiting takes no time. */
class NodeBench {
    private val signer = SoftwareSigner.generate()

    /**
     * Starts a node as a new process does, and has it take some steps.
     *
     * Blob: the examples. `server` is its address; `clock` is by how many milliseconds the device's clock
     * is off; `tick` is what each look at the time that never goes back costs; after `sleeps` times of
     * waiting the system ends the node, and before step `interrupts` of a training it interrupts it.
     */
    fun answer(question: Question): Reply {
        val folder = Paths.get(question.text("folder"))
        val log = ArrayList<String>()
        val sleeps = ArrayList<Long>()
        val most = question.number("sleeps")
        val sleep = { ms: Long ->
            sleeps += ms
            if (sleeps.size >= most) throw InterruptedException("the system ends the node")
        }
        var ticks = 0L
        val transport =
            HttpTransport(
                question.text("server"),
                signer,
                allowsClearText = true,
                now = { System.currentTimeMillis() + (question.arguments["clock"] as Long? ?: 0) },
                elapsed = { ticks.also { ticks += question.arguments["tick"] as Long? ?: 0 } },
                timeout = TIMEOUT_MS,
            )
        val engine = EndingEngine(MlpEngine(readExamples(question.blobs[0])), "interrupted", question.number("interrupts"))
        val app = EngineApp(engine, checkpoints = Checkpoints(folder.resolve("training"), log = log::add))
        val clock = { transport.serverTime() + sleeps.sum() }
        val node = Node(FleetClient(transport, signer), folder, handler(folder, app, log), 60.0, clock, sleep, log::add)
        val steps = ArrayList<Any>()
        val toTake = (question.arguments["steps"] as Long).toInt()
        attempt(steps) { node.start() }
        if (steps.isEmpty()) {
            while (steps.size < toTake && "InterruptedException" !in "${steps.lastOrNull()}") {
                attempt(steps) { steps += node.step() }
            }
        }
        Thread.interrupted()
        return Reply(mapOf("steps" to steps, "sleeps" to sleeps, "trained" to engine.steps, "log" to log))
    }

    private fun attempt(steps: MutableList<Any>, action: () -> Unit) {
        try {
            action()
        } catch (@Suppress("TooGenericExceptionCaught") err: Exception) {
            steps += "$err"
        }
    }

    private fun handler(folder: Path, app: EngineApp, log: MutableList<String>) =
        object : Handler {
            override fun handle(kind: String, content: Content): Content =
                FolderStore(folder.resolve("states")).use {
                    Device(it, app, SecureDraws(), log = log::add).handle(kind, content)
                }

            override fun done() = app.done()
        }

    private companion object {
        const val TIMEOUT_MS = 500
    }
}
