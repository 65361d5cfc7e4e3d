package io.flwrcaesar.sample

import android.content.Context
import io.flwrcaesar.android.Conditions
import io.flwrcaesar.android.Membership
import io.flwrcaesar.android.NodeJob
import io.flwrcaesar.node.Node
import io.flwrcaesar.train.Examples
import io.flwrcaesar.train.MlpEngine
import io.flwrcaesar.train.ResumableEngine
import io.flwrcaesar.train.Trained
import io.flwrcaesar.train.Training
import io.flwrcaesar.train.TrainingSettings
import io.flwrcaesar.frame.Tensors
import java.io.DataInputStream
import java.util.Random

/** Trains on examples that stand for a user's own. */
class SampleJob : NodeJob() {
    override fun node(): Node = Membership(this).node(Counting(this, MlpEngine(examples())), conditions())

    override fun conditions() = Conditions(this)

    // Two clouds of points: an app puts its own data here.
    private fun examples(): Examples {
        val random = Random(1)
        val labels = IntArray(SIZE) { it % 2 }
        val features = FloatArray(SIZE * WIDTH) { (labels[it / WIDTH] + random.nextGaussian()).toFloat() }
        return Examples(features, labels, WIDTH, 2)
    }

    private class Counting(private val context: Context, private val engine: ResumableEngine) : ResumableEngine by engine {
        override fun begin(model: Tensors, settings: TrainingSettings, saved: DataInputStream?): Training =
            Counted(context, engine.begin(model, settings, saved))
    }

    private class Counted(private val context: Context, private val training: Training) : Training by training {
        override fun result(): Trained = training.result().also { Progress.count(context) }
    }

    private companion object {
        const val SIZE = 256
        const val WIDTH = 8
    }
}
