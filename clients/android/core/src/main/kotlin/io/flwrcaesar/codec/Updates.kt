package io.flwrcaesar.codec

import io.flwrcaesar.frame.DType
import io.flwrcaesar.frame.Layout
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.little
import io.flwrcaesar.frame.refuse

/** Updates between models of the same tensors, and sums of updates. */
internal object Updates {
    /**
     * Returns the update from a model to the trained one: section 11 of `docs/wire-format.md`.
     *
     * @param trained has the layout of [model].
     */
    fun difference(trained: Tensors, model: Tensors): Tensors {
        val layout = model.layout.ofUpdate()
        val data =
            model.layout.tensors.associate { spec ->
                spec.name to
                    if (spec.dtype.isFloat) {
                        difference(spec, trained[spec.name], model[spec.name])
                    } else {
                        trained[spec.name]
                    }
            }
        return Tensors(layout, data)
    }

    private fun difference(spec: TensorSpec, new: ByteArray, old: ByteArray): ByteArray {
        if (spec.dtype == DType.FLOAT64) {
            val a = Elements.toDoubles(spec, new)
            val b = Elements.toDoubles(spec, old)
            for (i in a.indices) a[i] = difference(spec.name, a[i], b[i])
            return Elements.fromDoubles(spec, a)
        }
        val a = Elements.toFloats(spec, new)
        val b = Elements.toFloats(spec, old)
        for (i in a.indices) a[i] = difference(spec.name, a[i], b[i])
        return Tensors.bytesOf(a)
    }

    // What is no number in both is the same; what only the old model had becomes the new element.
    private fun difference(name: String, new: Float, old: Float): Float {
        val difference = new - old
        return when {
            difference.isFinite() -> difference
            !new.isFinite() -> if (isSame(new.toDouble(), old.toDouble())) 0f else refuseNew(name)
            old.isFinite() -> difference.coerceIn(-Float.MAX_VALUE, Float.MAX_VALUE)
            new == 0f -> java.lang.Float.MIN_NORMAL
            else -> new
        }
    }

    private fun difference(name: String, new: Double, old: Double): Double {
        val difference = new - old
        return when {
            difference.isFinite() -> difference
            !new.isFinite() -> if (isSame(new, old)) 0.0 else refuseNew(name)
            old.isFinite() -> difference.coerceIn(-Double.MAX_VALUE, Double.MAX_VALUE)
            new == 0.0 -> java.lang.Double.MIN_NORMAL
            else -> new
        }
    }

    private fun isSame(a: Double, b: Double): Boolean = a == b || (a.isNaN() && b.isNaN())

    private fun refuseNew(name: String): Nothing =
        refuse("tensor '$name' holds NaN or infinity that the model before has not")

    /**
     * Returns a model with 0 for the elements that are no numbers, and are none in [before] either.
     *
     * Any other NaN or infinity is refused.
     */
    fun withoutNonFinite(model: Tensors, before: Tensors): Tensors {
        val odd = model.layout.tensors.filter { !isFinite(it, model[it.name]) }
        if (odd.isEmpty()) return model
        val replaced =
            odd.associate { spec ->
                val values = Elements.toDoubles(spec, model[spec.name])
                val old = Elements.toDoubles(spec, before[spec.name])
                val size = spec.dtype.itemSize
                val bytes = model[spec.name].copyOf()
                for (i in values.indices) {
                    if (values[i].isFinite()) continue
                    if (!isSame(values[i], old[i])) refuseNew(spec.name)
                    bytes.fill(0, i * size, (i + 1) * size)
                }
                spec.name to bytes
            }
        return Tensors(model.layout, model.layout.tensors.associate { it.name to (replaced[it.name] ?: model[it.name]) })
    }

    /** Returns the names of floating-point tensors that have elements, and no negative one and no NaN. */
    fun nonnegative(model: Tensors): Set<String> =
        model.layout.tensors
            .filter { spec ->
                spec.dtype.isFloat && spec.size > 0 && Elements.toDoubles(spec, model[spec.name]).all { it >= 0 }
            }.map { it.name }
            .toSet()

    /** Returns the floating-point tensors of an update, the sums by name with those of [left]. */
    fun addFloats(left: Tensors?, update: Tensors): Tensors = floats(update) { combined(it, update, left) }

    /**
     * Returns an update together with what is left of earlier ones.
     *
     * Two finite numbers whose sum is infinite become the largest finite number.
     */
    fun total(update: Tensors, residual: Tensors?): Tensors {
        val sums = update.layout.tensors.associate { spec ->
            val sum = if (spec.dtype.isFloat) combined(spec, update, residual, isBounded = true) else update[spec.name]
            spec.name to sum
        }
        return Tensors(update.layout, sums)
    }

    /** Returns what of the floating-point tensors was to be sent and was not. */
    fun leftOver(total: Tensors, sent: Tensors): Tensors = floats(total) { combined(it, total, sent, sign = -1) }

    private fun floats(tensors: Tensors, value: (TensorSpec) -> ByteArray): Tensors {
        val layout = Layout(tensors.layout.tensors.filter { it.dtype.isFloat })
        return Tensors(layout, layout.tensors.associate { it.name to value(it) })
    }

    // float32 sums are those of float64, rounded: it has more than twice the bits.
    private fun combined(
        spec: TensorSpec,
        own: Tensors,
        other: Tensors?,
        sign: Int = 1,
        isBounded: Boolean = false,
    ): ByteArray {
        val found = other?.layout?.tensors?.firstOrNull { it.name == spec.name } ?: return own[spec.name]
        if (found.shape != spec.shape || found.dtype != spec.dtype) {
            refuse("tensor '${spec.name}' has another shape than what is left of it from earlier rounds")
        }
        val a = own[spec.name].little()
        val b = other[spec.name].little()
        val bytes = ByteArray(own[spec.name].size)
        val out = bytes.little()
        for (i in 0 until spec.count) {
            if (spec.dtype == DType.FLOAT64) {
                val sum = a.getDouble(8 * i) + sign * b.getDouble(8 * i)
                out.putDouble(8 * i, if (isBounded) sum.coerceIn(-Double.MAX_VALUE, Double.MAX_VALUE) else sum)
            } else {
                val sum = (a.getFloat(4 * i).toDouble() + sign * b.getFloat(4 * i).toDouble()).toFloat()
                out.putFloat(4 * i, if (isBounded) sum.coerceIn(-Float.MAX_VALUE, Float.MAX_VALUE) else sum)
            }
        }
        return bytes
    }
}
