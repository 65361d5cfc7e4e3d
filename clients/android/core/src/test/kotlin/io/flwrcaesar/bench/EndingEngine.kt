package io.flwrcaesar.bench

import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.train.ResumableEngine
import io.flwrcaesar.train.Training
import io.flwrcaesar.train.TrainingSettings
import java.io.DataInputStream

/**
 * An engine that counts its steps, and whose process or thread ends before one of them.
 *
 * @param ends `killed`, or `interrupted`, which the step that is under way does not heed.
 */
internal class EndingEngine(private val engine: ResumableEngine, private val ends: String, private val at: Int) :
    ResumableEngine by engine {
    /** How many steps were taken. */
    var steps = 0
        private set

    override fun begin(model: Tensors, settings: TrainingSettings, saved: DataInputStream?): Training {
        val training = engine.begin(model, settings, saved)
        return object : Training by training {
            override fun step() {
                if (steps == at && ends == "killed") throw DiedException()
                if (steps == at) Thread.currentThread().interrupt()
                training.step()
                steps++
            }
        }
    }
}
