package io.flwrcaesar.train

import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.little
import java.io.DataInputStream
import java.io.DataOutputStream

/**
 * A linear layer of `outputs` rows of `inputs` weights, with its gradients and momentum.
 *
 * @property weight by output, then input, as torch keeps it.
 */
internal class Layer(val weight: FloatArray, val bias: FloatArray) {
    val outputs = bias.size
    val inputs = weight.size / outputs
    private val weightGradient = FloatArray(weight.size)
    private val biasGradient = FloatArray(bias.size)
    private val weightMomentum = FloatArray(weight.size)
    private val biasMomentum = FloatArray(bias.size)

    /** Returns the outputs for one example, whose inputs begin at [start]. */
    fun forward(input: FloatArray, start: Int): FloatArray {
        val out = FloatArray(outputs)
        for (o in 0 until outputs) {
            var sum = bias[o]
            val row = o * inputs
            for (i in 0 until inputs) sum += weight[row + i] * input[start + i]
            out[o] = sum
        }
        return out
    }

    /** Adds an example's gradients; returns that of its inputs, if somebody needs it. */
    fun backward(input: FloatArray, start: Int, gradient: FloatArray, needsInputs: Boolean): FloatArray {
        val back = FloatArray(if (needsInputs) inputs else 0)
        for (o in 0 until outputs) {
            val g = gradient[o]
            if (g == 0f) continue
            val row = o * inputs
            biasGradient[o] += g
            for (i in 0 until inputs) weightGradient[row + i] += g * input[start + i]
            if (needsInputs) for (i in 0 until inputs) back[i] += g * weight[row + i]
        }
        return back
    }

    /** Takes a step of SGD with momentum and forgets the gradients. */
    fun step(rate: Float, momentum: Float) {
        step(weight, weightGradient, weightMomentum, rate, momentum)
        step(bias, biasGradient, biasMomentum, rate, momentum)
    }

    /** Writes what a training has made of the layer, between two steps. */
    fun save(out: DataOutputStream) = learnt.forEach { values -> out.write(Tensors.bytesOf(values)) }

    /** Reads what [save] wrote. */
    fun load(saved: DataInputStream) {
        for (values in learnt) {
            val bytes = ByteArray(4 * values.size).also(saved::readFully)
            bytes.little().asFloatBuffer().get(values)
        }
    }

    private val learnt get() = listOf(weight, bias, weightMomentum, biasMomentum)

    private fun step(
        values: FloatArray,
        gradient: FloatArray,
        velocity: FloatArray,
        rate: Float,
        momentum: Float,
    ) {
        for (i in values.indices) {
            velocity[i] = momentum * velocity[i] + gradient[i]
            values[i] -= rate * velocity[i]
            gradient[i] = 0f
        }
    }
}
