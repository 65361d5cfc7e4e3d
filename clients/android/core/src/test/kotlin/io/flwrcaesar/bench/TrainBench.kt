package io.flwrcaesar.bench

import io.flwrcaesar.device.Device
import io.flwrcaesar.device.Draws
import io.flwrcaesar.device.Stopwatch
import io.flwrcaesar.message.Seconds
import io.flwrcaesar.message.TOKEN_BYTES
import io.flwrcaesar.store.FolderStore
import io.flwrcaesar.train.Checkpoints
import io.flwrcaesar.train.EngineApp
import io.flwrcaesar.train.MlpEngine
import java.nio.file.Paths

/** One life of a device whose engine trains for real, and which may end before its training does. */
class TrainBench {
    /**
     * Blobs: the examples, as [NodeMain] reads them.
     *
     * `ends` is `killed` or `interrupted` before the step `at` of this life, or `done`; a life is killed
     * before its write number `dies` to the checkpoint's folder. What was reached is kept after `every` steps.
     */
    fun answer(question: Question): Reply {
        val folder = Paths.get(question.text("folder"))
        val counted = EndingEngine(MlpEngine(readExamples(question.blobs[0])), question.text("ends"), question.number("at"))
        val log = ArrayList<String>()
        val disk = CountingDisk(question.number("dies"))
        val checkpoints =
            Checkpoints(folder.resolve("training"), question.number("every").toLong(), disk, { counted.steps.toLong() }, log::add)
        val app = EngineApp(counted, checkpoints = checkpoints)
        val found = linkedMapOf<String, Any?>("log" to log)
        try {
            FolderStore(folder.resolve("states")).use { store ->
                val device = Device(store, app, OneDraw, stopwatch = { NoClock })
                val reply = device.handle(question.text("kind"), JsonContent.read(question.arguments["message"]))
                found["reply"] = JsonContent.write(reply)
            }
            app.done()
        } catch (_: DiedException) {
            found["ended"] = "killed"
        } catch (_: InterruptedException) {
            found["ended"] = "interrupted"
        }
        found["was interrupted"] = Thread.interrupted()
        return Reply(found + mapOf("steps" to counted.steps, "writes" to disk.count))
    }

    private object OneDraw : Draws {
        override fun token() = ByteArray(TOKEN_BYTES) { 1 }

        override fun uploadId() = 7L
    }

    private object NoClock : Stopwatch {
        override fun decoded() = Unit

        override fun trained() = Unit

        override fun stop() = Seconds.NONE
    }
}
