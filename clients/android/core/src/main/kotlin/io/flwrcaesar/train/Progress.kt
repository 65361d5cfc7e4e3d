package io.flwrcaesar.train

import io.flwrcaesar.frame.refuse
import java.io.DataInputStream
import java.io.DataOutputStream
import java.util.Random

/**
 * How far a training has come that goes through the shuffled examples of each epoch in batches.
 *
 * @param count how many examples there are.
 * @param batch examples in a step.
 * @param full whether the last step of an epoch goes on with the epoch's first examples, or is shorter.
 * @param seed names, with the round, the order of the examples.
 */
internal class Progress(
    private val count: Int,
    private val batch: Int,
    private val full: Boolean,
    settings: TrainingSettings,
    seed: Long,
    private val rate: Float,
    private val momentum: Double,
) {
    private val perEpoch = (count + batch - 1) / batch
    private val steps =
        if (count == 0) 0L else settings.steps?.toLong() ?: ((settings.epochs ?: 1).toLong() * perEpoch)
    private val first = seed + settings.round
    private val random = Random(first)
    private var order = IntArray(0)
    private var taken = 0
    private var loss = 0.0
    private var seen = 0L

    val isDone get() = taken >= steps

    /** The mean loss of the examples so far. */
    val meanLoss get() = loss / maxOf(seen, 1)

    /** Takes a step: [learn] is given the batch's examples and returns the sum of their losses. */
    fun step(learn: (IntArray) -> Double) {
        if (taken % perEpoch == 0) order = shuffled()
        val start = taken % perEpoch * batch
        val end = if (full) start + batch else minOf(start + batch, count)
        val rows = IntArray(end - start) { order[(start + it) % count] }
        loss += learn(rows)
        seen += rows.size
        taken++
    }

    // What decides the steps; the numbers that were drawn are those of the same seed again.
    private val choices get() =
        listOf(first, batch.toLong(), count.toLong(), rate.toRawBits().toLong(), momentum.toRawBits())

    fun save(out: DataOutputStream) {
        choices.forEach(out::writeLong)
        out.writeInt(taken)
        out.writeDouble(loss)
        out.writeLong(seen)
    }

    /** Reads what [save] wrote. */
    fun load(saved: DataInputStream) {
        if (choices.any { it != saved.readLong() }) refuse("the engine or its examples are others now")
        taken = saved.readInt()
        loss = saved.readDouble()
        seen = saved.readLong()
        val shuffles = (taken + perEpoch - 1) / perEpoch
        repeat(shuffles) { order = shuffled() }
    }

    private fun shuffled(): IntArray {
        val order = IntArray(count) { it }
        for (i in order.size - 1 downTo 1) {
            val k = random.nextInt(i + 1)
            order[i] = order[k].also { order[k] = order[i] }
        }
        return order
    }
}
