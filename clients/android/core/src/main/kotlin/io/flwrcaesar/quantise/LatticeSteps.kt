package io.flwrcaesar.quantise

import io.flwrcaesar.codec.starts
import io.flwrcaesar.coding.Scales
import io.flwrcaesar.frame.TensorSpec
import java.util.BitSet

/**
 * Chooses the steps of an update's tensors, and quantises them.
 *
 * @param rate bits an element, in force where neither a step nor an error is given.
 * @param step the step, if not 0.
 * @param nmse else the squared error over the energy, if not 0.
 * @param fineBelow tensors of fewer elements get a step 64 times finer.
 * @param deadZone what is rounded to 0, as a fraction of the step; 0: what suits best.
 */
internal class LatticeSteps(
    private val rate: Double,
    private val step: Double,
    private val nmse: Double,
    private val fineBelow: Long,
    private val deadZone: Double,
) {
    /**
     * Integers of all tensors, and their steps.
     *
     * @property step of tensors that are neither fine nor have an offset.
     * @property offsets for each tensor the octaves by which its own step is coarser.
     */
    class Quantised(val step: Step, val offsets: IntArray, val indices: IntArray)

    /** Returns by how many octaves a tensor's step is finer as it is a small one. */
    fun extraBits(spec: TensorSpec): Int = if (spec.size < fineBelow) TensorScales.FINE_BITS else 0

    /** Quantises tensors that are one vector. */
    fun quantise(x: FloatArray, specs: List<TensorSpec>): Quantised {
        val starts = starts(specs)
        val scales =
            DoubleArray(specs.size) { TensorScales.rootMeanSquare(x, starts[it], starts[it + 1]) }
        val active = specs.indices.filter { scales[it] != 0.0 }
        val coarse = active.filter { extraBits(specs[it]) == 0 }
        val chosen = coarse.ifEmpty { active }
        if (chosen.isEmpty()) return Quantised(Step(4, 0), IntArray(specs.size), IntArray(x.size))
        val found = findSteps(x, specs, scales, chosen)
        var common = found.quantiser.step
        if (coarse.isEmpty() && step == 0.0) common = common.coarser(TensorScales.FINE_BITS)
        common = common.copy(exponent = common.exponent.coerceIn(MIN_EXPONENT, MAX_EXPONENT))
        val offsets = IntArray(specs.size)
        val indices = IntArray(x.size)
        for (i in active) {
            val extra = extraBits(specs[i])
            val own = Math.scalb(common.value, -extra)
            var offset = found.offsets[i] ?: 0
            if (i !in found.offsets && step == 0.0) offset = fineOffset(own / scales[i])
            val part = Part(found.values, starts[i], starts[i + 1])
            val peak = part.peak(scales[i], own)
            val least = Math.ceil(log2(peak / own)).toInt() - PEAK_BITS
            val lowest = MIN_EXPONENT - common.exponent + extra
            offsets[i] = maxOf(maxOf(offset, least), maxOf(lowest, MIN_OFFSET))
            part.quantise(common.coarser(offsets[i] - extra), found.quantiser.deadZone, peak, indices)
        }
        return Quantised(common, offsets, indices)
    }

    private class Found(val quantiser: Quantiser, val offsets: Map<Int, Int>, val values: FloatArray)

    // For a rate, tensors are brought to one scale by powers of two before the search. An error is
    // that of all of them as they are, and offsets only make it smaller.
    private fun findSteps(
        x: FloatArray,
        specs: List<TensorSpec>,
        scales: DoubleArray,
        chosen: List<Int>,
    ): Found {
        val sizes = IntArray(chosen.size) { specs[chosen[it]].count }
        val unlike = TensorScales.offsets(DoubleArray(chosen.size) { scales[chosen[it]] }, sizes)
        val isForRate = step == 0.0 && nmse == 0.0
        val most = unlike.octaves.maxOrNull()!!
        // The offset of the largest scale, too, has to fit into a byte.
        val lift = if (isForRate) maxOf(most - MAX_OFFSET / 2, 0) else most
        var shift = Math.rint(log2(unlike.reference)).toInt() + lift
        if (step != 0.0 || Math.abs(shift) < MODERATE) shift = 0
        val offsets = IntArray(chosen.size) { unlike.octaves[it] - lift }
        val brought = IntArray(chosen.size) { -shift - if (isForRate) offsets[it] else 0 }
        val starts = starts(specs)
        val vector = FloatArray(sizes.sum())
        var at = 0
        for (k in chosen.indices) {
            val start = starts[chosen[k]]
            for (i in start until start + sizes[k]) vector[at++] = Math.scalb(x[i], brought[k])
        }
        val scale =
            TensorScales.together(
                DoubleArray(chosen.size) { Math.scalb(scales[chosen[it]], brought[it]) },
                sizes,
                chosen.indices,
            )
        val few = BitSet()
        val quantiser = quantiser(vector, chosen.map { specs[it] }, scale, few)
        return Found(
            quantiser.copy(step = quantiser.step.coarser(shift)),
            chosen.indices.associate { chosen[it] to if (step != 0.0) 0 else offsets[it] },
            if (few.isEmpty) x else only(few, x, chosen.map { starts[it] until starts[it + 1] }),
        )
    }

    // Some elements of the tensors at the places, which are one vector, and all of the others.
    private fun only(few: BitSet, x: FloatArray, places: List<IntRange>): FloatArray {
        val found = x.copyOf()
        var at = 0
        for (i in places.asSequence().flatten()) if (!few[at++]) found[i] = 0f
        return found
    }

    // Where a dead zone that is given sends next to nothing, as the next finer step sends too much,
    // the best one is taken. Where none sends more, as the tensors are of equal magnitudes, only the
    // elements that it puts into `few` are sent, and the others become 0 in the vector.
    private fun quantiser(
        vector: FloatArray,
        specs: List<TensorSpec>,
        scale: Double,
        few: BitSet,
    ): Quantiser {
        val given = deadZone.takeIf { it != 0.0 }
        if (step != 0.0) return Quantiser(Step.near(step), given ?: StepSearch.DEFAULT)
        val generous = TensorScales.generousRate(rate, vector.size)
        if (nmse == 0.0 && generous > rate && generous >= 4) {
            return Quantiser(Step.near(scale * Math.pow(2.0, GAUSSIAN_BITS - generous)), given ?: 0.5)
        }
        val reference = Step.near(scale)
        val search = search(vector, specs, reference)
        if (nmse != 0.0) return search.forError(nmse, given)
        val side = (FRAME_BITS + BITS_PER_SCALE * specs.sumOf { Scales(it).count }) / vector.size.toDouble()
        val wanted = if (generous > rate) generous else maxOf(rate - side, rate / 4)
        for (zone in setOf(given, null)) {
            val found = search.forRate(wanted, zone)
            if (!isSilent(search.measure(found), wanted)) return found
        }
        var share = minOf(wanted, 1.0)
        var attempts = 0
        var found: Quantiser
        do {
            found = Quantiser(Step.near(keepLargest(vector, specs, share, few)), 0.5)
            val bits = search(vector, specs, reference).measure(found).rate
            share *= LESS
            attempts++
        } while (bits > wanted && attempts < ATTEMPTS)
        return found
    }

    private fun search(vector: FloatArray, specs: List<TensorSpec>, reference: Step): StepSearch {
        val classes = ByteArray(vector.size)
        for ((spec, start) in specs.zip(starts(specs))) {
            val scales = Scales(spec)
            scales.classes(scales.fit(vector, start, reference.value.toFloat()), 0, classes, start)
        }
        return StepSearch(vector, classes, reference)
    }

    // Whether a quantiser sends next to nothing, and a finer one far too much.
    private fun isSilent(found: StepSearch.Measure, rate: Double) =
        found.rate < LEAST_USED * rate && found.error > MOST_ERROR

    // Sets all but the largest elements of each tensor to 0 and tells the root mean square of the rest.
    private fun keepLargest(vector: FloatArray, specs: List<TensorSpec>, share: Double, few: BitSet): Double {
        few.clear()
        val starts = starts(specs)
        for (i in specs.indices) {
            val kept = Select.countKept(specs[i].count, share)
            Select.largest(vector, starts[i], starts[i + 1], kept, few)
        }
        var energy = 0.0
        for (i in vector.indices) {
            if (few[i]) energy += vector[i].toDouble() * vector[i] else vector[i] = 0f
        }
        return Math.sqrt(energy / few.cardinality())
    }

    // The offset of a small tensor, by its step over its root mean square.
    private fun fineOffset(relative: Double): Int {
        val log = log2(relative)
        return when {
            log > -LEAST_FINE -> -Math.ceil(log + LEAST_FINE).toInt()
            nmse == 0.0 && log < -MOST_FINE -> Math.ceil(-log - MOST_FINE).toInt()
            else -> 0
        }
    }

    /** One tensor's elements in the vector of all. */
    private class Part(private val x: FloatArray, private val from: Int, private val to: Int) {
        /** Returns the largest magnitude, or a bound of it that is as good. */
        fun peak(scale: Double, step: Double): Double {
            val bound = scale * Math.sqrt((to - from).toDouble())
            if (bound < Math.scalb(step, PEAK_BITS - 1) && bound + step < LARGEST) return bound
            var peak = 0f
            for (i in from until to) peak = maxOf(peak, Math.abs(x[i]))
            return peak.toDouble()
        }

        fun quantise(step: Step, deadZone: Double, peak: Double, indices: IntArray) {
            // float32 holds a far exponent badly, or not at all.
            val exponent = if (Math.abs(step.exponent) > 2 * MODERATE) 0 else step.exponent
            val zone = DeadZone(step.multiple * Math.scalb(1.0, exponent), deadZone)
            val most = if (peak + step.value > LARGEST) (LARGEST / step.value).toInt() else Int.MAX_VALUE
            for (i in from until to) {
                val index = zone.index(Math.scalb(x[i], exponent - step.exponent))
                indices[i] = index.coerceIn(-most, most)
            }
        }
    }

    companion object {
        const val MIN_EXPONENT = -149
        const val MAX_EXPONENT = 100
        const val MIN_OFFSET = -127
        private const val MAX_OFFSET = 127
        private const val FRAME_BITS = 1600
        private const val BITS_PER_SCALE = 5
        private const val LEAST_FINE = 1
        private const val MOST_FINE = 14
        private const val PEAK_BITS = 29
        private const val MODERATE = 60

        // What a quantiser is said to send next to nothing by, and how shares of elements are tried.
        private const val LEAST_USED = 0.5
        private const val MOST_ERROR = 0.95
        private const val ATTEMPTS = 24
        private const val LESS = 0.85

        // The entropy of a normal variable in steps of its deviation.
        private const val GAUSSIAN_BITS = 2.05
        private val LARGEST = Float.MAX_VALUE.toDouble() * (1 - Math.scalb(1.0, -22))
    }
}
