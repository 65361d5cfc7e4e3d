package io.flwrcaesar.codec

import io.flwrcaesar.coding.Block
import io.flwrcaesar.coding.Halves
import io.flwrcaesar.coding.SmallBlock
import io.flwrcaesar.frame.DType
import io.flwrcaesar.frame.Frame
import io.flwrcaesar.frame.Json
import io.flwrcaesar.frame.Layout
import io.flwrcaesar.frame.StateMismatch
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.little
import io.flwrcaesar.frame.refuse

/**
 * Reads published models: whole, or as the exact change of another one.
 *
 * A server writes them; a device only reads.
 */
object LatticeModel {
    /** The codec's id. */
    const val ID = "lattice_model"
    private const val HALVES = "halves"
    private const val SAME = -32768
    private val UNITS = -149..90

    /**
     * Decodes a published model.
     *
     * @param base the model that this side holds; a frame of a whole model does not use it.
     * @param expected the tensors that a whole model must have; with `null` the frame's own table
     * is believed, up to [maxBytes] of tensors.
     * @throws StateMismatch if the frame changes another model than [base].
     * @throws CodecError if the frame is malformed, or leads to another model than it names.
     */
    fun decode(
        bytes: ByteArray,
        base: Tensors? = null,
        expected: Layout? = null,
        maxBytes: Long = Codec.MAX_BYTES,
    ): Tensors {
        val frame = Frame.parse(bytes)
        val exactBelow = exactBelow(frame.config)
        val halvesToo = HALVES in frame.config
        Codec.requireNoState(frame)
        if (frame.flags != 0) refuse("a published model has no flags, and this one ${frame.flags}")
        val head = frame.section("HEAD", 16)
        val isWhole = (0 until 8).all { head[it] == 0.toByte() }
        val old = if (isWhole) null else requireBase(base, head.copyOf(8))
        val layout = old?.layout ?: Codec.layoutOf(frame, expected, maxBytes)
        if (!layout.digest.contentEquals(frame.layoutDigest)) {
            refuse("the frame is of another layout than the model it changes")
        }
        val (lossy, exact) = layout.tensors.partition { isOnLattice(it, exactBelow, halvesToo) }
        val (halves, others) = exact.partition { "HALF" in frame && it.dtype.isHalf }
        var found = Exact.unpack(frame, others)
        if (old != null) found = found.mapValues { (name, change) -> exclusiveOr(change, old[name]) }
        if (halves.isNotEmpty()) {
            if (old == null) refuse("a whole model changes no 16-bit tensors")
            found = found + Halves.decode(frame.sectionUpTo("HALF", Halves.maxBytes(halves)), old, halves)
        }
        if (lossy.isNotEmpty()) found = found + unpackChanges(frame, old, lossy)
        val model = Tensors(layout, found)
        if (!model.digest.contentEquals(head.copyOfRange(8, 16))) refuse("the model differs from its digest")
        return model
    }

    private fun exactBelow(config: Map<String, Any?>): Long {
        val value = (config["exact_below"] as? Number)?.toDouble()
        val later = if (HALVES in config) mapOf(HALVES to 1L) else emptyMap()
        val known = mapOf("id" to ID, "exact_below" to config["exact_below"]) + later
        if (value == null || value < 0 || value != Math.rint(value) || !Json.same(config, known)) {
            refuse("a frame of codec ${Json.write(config).take(200)}, expected $ID")
        }
        return value.toLong()
    }

    private fun requireBase(base: Tensors?, digest: ByteArray): Tensors {
        if (base == null || !base.digest.contentEquals(digest)) {
            throw StateMismatch("the frame changes a model that this side does not hold")
        }
        return base
    }

    /** Whether a tensor is on the lattice, by a frame's parameters or a plan's `start`. */
    internal fun isOnLattice(spec: TensorSpec, exactBelow: Long, halvesToo: Boolean): Boolean =
        spec.dtype.isFloat && (halvesToo || !spec.dtype.isHalf) && spec.size >= maxOf(exactBelow, 1)

    private fun unpackChanges(frame: Frame, old: Tensors?, lossy: List<TensorSpec>): Map<String, ByteArray> {
        val view = frame.section("UNIT", 2L * lossy.size).little()
        val units = IntArray(lossy.size) { view.getShort(2 * it).toInt() }
        if (units.any { it != SAME && it !in UNITS }) refuse("a lattice model has a malformed unit")
        val kept = lossy.filterIndexed { i, _ -> units[i] != SAME }
        val changes =
            if ("RICE" in frame) {
                SmallBlock.decode(frame.sectionUpTo("RICE", SmallBlock.maxBytes(kept)), 0, kept)
            } else {
                Block.decode(frame.sectionUpTo("LATT", Block.maxBytes(kept)), 0, kept)
            }
        val asTheyAre = AsTheyAre.unpack(frame, lossy)
        val found = HashMap<String, ByteArray>()
        var at = 0
        for ((i, spec) in lossy.withIndex()) {
            val before = old?.get(spec.name)
            found[spec.name] = asTheyAre[spec.name]
                ?: if (units[i] == SAME) before ?: ByteArray(spec.count * spec.dtype.itemSize)
                else moved(spec, before, changes, at, Math.scalb(1.0, units[i]))
            if (units[i] != SAME) at += spec.count
        }
        return found
    }

    // Computed in float64 and then rounded: a writer sees to it that nothing of this rounds.
    private fun moved(
        spec: TensorSpec,
        before: ByteArray?,
        changes: IntArray,
        start: Int,
        unit: Double,
    ): ByteArray {
        if (spec.dtype.isHalf) {
            val values = if (before == null) DoubleArray(spec.count) else Elements.toDoubles(spec, before)
            for (i in values.indices) values[i] += changes[start + i] * unit
            return Elements.fromDoubles(spec, values)
        }
        val bytes = ByteArray(spec.count * spec.dtype.itemSize)
        val old = before?.little()
        val new = bytes.little()
        if (spec.dtype == DType.FLOAT32) {
            for (i in 0 until spec.count) {
                val change = changes[start + i] * unit
                new.putFloat(4 * i, (if (old == null) change else old.getFloat(4 * i) + change).toFloat())
            }
        } else {
            for (i in 0 until spec.count) {
                val change = changes[start + i] * unit
                new.putDouble(8 * i, if (old == null) change else old.getDouble(8 * i) + change)
            }
        }
        return bytes
    }

    private fun exclusiveOr(a: ByteArray, b: ByteArray): ByteArray =
        ByteArray(a.size) { (a[it].toInt() xor b[it].toInt()).toByte() }
}
