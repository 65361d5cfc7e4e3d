package io.flwrcaesar.train

import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.store.Disk
import io.flwrcaesar.store.RealDisk
import java.io.IOException
import java.nio.file.Path
import java.security.MessageDigest

/**
 * Takes the steps of trainings, and keeps what they have reached.
 *
 * A training that was interrupted, or whose process was killed, goes on from there when the same
 * request comes again, from the same model and with the same settings, and ends with the same model
 * to the bit. Of any other request it begins anew.
 *
 * @param folder for what is kept alone; made when there is something.
 * @param every milliseconds between two times that a training is kept; it is when it is interrupted, too.
 * @param clock milliseconds that never go back.
 * @param log takes lines for the device's log.
 */
class Checkpoints(
    folder: Path,
    private val every: Long = 60_000,
    disk: Disk = RealDisk,
    private val clock: () -> Long = { System.nanoTime() / 1_000_000 },
    private val log: (String) -> Unit = {},
) {
    private val file = CheckpointFile(folder, disk, log)

    /**
     * Trains as [ResumableEngine.train] does.
     *
     * @param request names what is answered: the same name, the same request.
     * @throws InterruptedException if the thread is interrupted; what was reached is kept.
     */
    fun train(engine: ResumableEngine, request: String, model: Tensors, settings: TrainingSettings): Trained {
        val key = keyOf(request, model, settings)
        val training =
            file.read(key) { engine.begin(model, settings, it).also { log("a training goes on where it was interrupted") } }
                ?: engine.begin(model, settings)
        var kept = clock()
        while (!training.isDone) {
            if (Thread.interrupted()) {
                keep(key, training)
                throw InterruptedException()
            }
            training.step()
            if (clock() - kept >= every) {
                keep(key, training)
                kept = clock()
            }
        }
        return training.result()
    }

    /** Deletes what is kept: its request was answered, or nobody wants the answer. */
    fun forget() = file.forget()

    // A full disk costs no training that is not interrupted.
    private fun keep(key: ByteArray, training: Training) {
        try {
            file.write(key, training::save)
        } catch (err: IOException) {
            log("what a training has reached cannot be kept: $err")
        }
    }

    // Not the number of steps: an app may take fewer of them than it meant to, such as on a device that grew hot.
    private fun keyOf(request: String, model: Tensors, settings: TrainingSettings): ByteArray {
        val digest = MessageDigest.getInstance("SHA-256")
        digest.update("$request ${settings.round} ${settings.batchSize} ${settings.learningRate}\n".toByteArray())
        digest.update(model.layout.bytes)
        model.layout.tensors.forEach { digest.update(model[it.name]) }
        return digest.digest()
    }
}
