package io.flwrcaesar.quantise

import io.flwrcaesar.coding.Integers
import io.flwrcaesar.coding.Scales
import io.flwrcaesar.coding.SymbolCounts

/**
 * Finds the step and the dead zone that reach a rate or an error, on a sample.
 *
 * @param x what will be quantised.
 * @param classes the scale class of each element at the step [reference].
 */
internal class StepSearch(
    private val x: FloatArray,
    classes: ByteArray,
    private val reference: Step,
) {
    private val chosen: IntArray = sample(x.size)
    private val sampled = FloatArray(chosen.size) { x[chosen[it]] }
    private val sampledClasses = ByteArray(chosen.size) { classes[chosen[it]] }
    private val energy = sampled.sumOf { it.toDouble() * it }
    private val measured = HashMap<Quantiser, Measure>()

    /** Bits an element, and the squared error over the energy. */
    class Measure(val rate: Double, val error: Double)

    /**
     * Returns the quantiser of the least error with at most about [rate] bits an element.
     *
     * A [deadZone] of null is the best one.
     */
    fun forRate(rate: Double, deadZone: Double?): Quantiser =
        search(isCoarserBetter = true, deadZone, { it.rate <= rate }, { it.error })

    /**
     * Returns the quantiser of the fewest bits with at most about the error [nmse].
     *
     * A [deadZone] of null is the best one.
     * Few elements may hold most of the energy, and the sample too many of them or too few: its
     * error is compared once with that of the whole.
     */
    fun forError(nmse: Double, deadZone: Double?): Quantiser {
        val found = searchError(nmse, deadZone)
        if (sampled.size == x.size) return found
        val whole = wholeError(found)
        return if (whole == 0.0) found else searchError(nmse * measure(found).error / whole, deadZone)
    }

    private fun searchError(nmse: Double, deadZone: Double?) =
        search(isCoarserBetter = false, deadZone, { it.error > nmse }, { it.rate })

    private fun wholeError(quantiser: Quantiser): Double {
        val zone = DeadZone(quantiser.step.value, quantiser.deadZone)
        var lost = 0.0
        var whole = 0.0
        for (value in x) {
            val error = (value - zone.value(zone.index(value))).toDouble()
            lost += error * error
            whole += value.toDouble() * value
        }
        return if (whole == 0.0) 0.0 else lost / whole
    }

    /** Returns what a quantiser costs, and what it loses. */
    fun measure(quantiser: Quantiser): Measure = measured.getOrPut(quantiser) { measureAnew(quantiser) }

    private fun measureAnew(quantiser: Quantiser): Measure {
        val octaves = log2(quantiser.step.value / reference.value)
        val shift = Math.rint(4 * octaves).toInt()
        val zone = DeadZone(quantiser.step.value, quantiser.deadZone)
        val counts = SymbolCounts(Scales.CLASSES / 2)
        var lost = 0.0
        for (i in sampled.indices) {
            val index = zone.index(sampled[i])
            val error = sampled[i].toDouble() - zone.value(index)
            lost += error * error
            val scaleClass = (sampledClasses[i] - shift).coerceIn(0, Scales.CLASSES - 1)
            counts.add(scaleClass / 2, Integers.symbol(index))
        }
        val bits = counts.entropyBits() + BITS_PER_CODE * counts.distinct()
        return Measure(CODER_OVERHEAD * bits / sampled.size, if (energy == 0.0) 0.0 else lost / energy)
    }

    // Tunes the dead zone, if none is given, at the steps around the border of `isCoarse`.
    private fun search(
        isCoarserBetter: Boolean,
        deadZone: Double?,
        isCoarse: (Measure) -> Boolean,
        cost: (Measure) -> Double,
    ): Quantiser {
        var low = -STEPS
        var high = STEPS
        val first = deadZone ?: DEFAULT
        while (high - low > 1) {
            val middle = Math.floorDiv(low + high, 2)
            val step = Step.of(reference.quarter + middle)
            if (isCoarse(measure(Quantiser(step, first)))) high = middle else low = middle
        }
        val border = reference.quarter + if (isCoarserBetter) high else low
        var best = Quantiser(Step.of(border), first)
        if (deadZone != null) return best
        var least = cost(measure(best))
        for (quarter in border - 2..border + 2) {
            val tuned = tune(Step.of(quarter), isCoarse, isCoarserBetter)
            val found = measure(tuned)
            if (isCoarse(found) == isCoarserBetter && cost(found) < least) {
                best = tuned
                least = cost(found)
            }
        }
        return best
    }

    private fun tune(step: Step, isCoarse: (Measure) -> Boolean, isCoarserBetter: Boolean): Quantiser {
        var low = LEAST
        var high = MOST
        repeat(HALVINGS) {
            val middle = (low + high) / 2
            if (isCoarse(measure(Quantiser(step, middle)))) high = middle else low = middle
        }
        return Quantiser(step, if (isCoarserBetter) high else low)
    }

    companion object {
        /** The dead zone where nothing asks for another. */
        const val DEFAULT = 0.66
        private const val LEAST = 0.5
        private const val MOST = 0.95
        private const val HALVINGS = 7
        private const val STEPS = 80
        private const val SAMPLE = 1 shl 15
        private const val BITS_PER_CODE = 4
        private const val CODER_OVERHEAD = 1.01

        // One element of each of equal runs, at a place that repeats with no period.
        private fun sample(n: Int): IntArray {
            if (n <= SAMPLE) return IntArray(n) { it }
            return IntArray(SAMPLE) { i ->
                val start = i.toLong() * n / SAMPLE
                val length = (i + 1L) * n / SAMPLE - start
                (start + Math.floorMod(mix(i.toLong()), length)).toInt()
            }
        }

        // SplitMix64, as published by Steele, Lea and Flood (2014).
        private fun mix(seed: Long): Long {
            var z = (seed + 1) * -0x61c8864680b583ebL
            z = (z xor (z ushr 30)) * -0x40a7b892e31b1a47L
            z = (z xor (z ushr 27)) * -0x6b2fb644ecceee15L
            return z xor (z ushr 31)
        }
    }
}
