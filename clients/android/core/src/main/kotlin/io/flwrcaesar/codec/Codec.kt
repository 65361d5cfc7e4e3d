package io.flwrcaesar.codec

import io.flwrcaesar.frame.Frame
import io.flwrcaesar.frame.FrameWriter
import io.flwrcaesar.frame.Json
import io.flwrcaesar.frame.Layout
import io.flwrcaesar.frame.Section
import io.flwrcaesar.frame.StateMismatch
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.refuse

/**
 * A map between named tensors and a frame, without a memory from frame to frame.
 *
 * Codecs that predict from earlier frames are left out on a phone; a device says so to its
 * server.
 *
 * @property config the codec's id and parameters: its identity.
 */
abstract class Codec(val config: Map<String, Any?>) {
    /** Returns the elements of all tensors of a frame by name. */
    protected abstract fun unpack(frame: Frame, layout: Layout): Map<String, ByteArray>

    /** Returns the sections of tensors, and what these sections decode to. */
    protected abstract fun pack(tensors: Tensors): Packed

    /** Sections, and the elements by name that they decode to. */
    protected class Packed(val sections: List<Section>, val decoded: Map<String, ByteArray>)

    /** A frame, and what a reader makes of it. */
    class Encoded(val frame: ByteArray, val decoded: Tensors)

    /**
     * Encodes an update or a model, and tells what its reader makes of the frame.
     *
     * @param known whether the reader knows the tensors, so that the frame needs no table.
     * @param isFinite whether to refuse NaN and infinity; a model may hold them.
     * @throws CodecError if they cannot be encoded.
     */
    fun encode(tensors: Tensors, known: Boolean, isFinite: Boolean = true): Encoded {
        if (isFinite) requireFinite(tensors)
        val odd = tensors.layout.tensors.filter { !isFinite(it, tensors[it.name]) || isBeyond(it, tensors[it.name]) }
        val coded = if (odd.isEmpty()) tensors else AsTheyAre.withoutThem(tensors, odd)
        val packed = pack(coded)
        val table = if (known) emptyList() else listOf(Section(TABLE, tensors.layout.bytes))
        val sections = table + packed.sections + AsTheyAre.pack(tensors, tensors.layout.tensors, odd)
        val flags = if (odd.isEmpty()) 0 else Frame.AS_THEY_ARE
        val frame = FrameWriter.write(config, tensors.layout, sections, flags)
        val decoded = Tensors(tensors.layout, packed.decoded + odd.associate { it.name to tensors[it.name] })
        if (isFinite) requireFinite(decoded)
        return Encoded(frame, decoded)
    }

    /**
     * Decodes a frame.
     *
     * @param expected the tensors that the frame must hold, by name and shape; with `null` its own
     * table is believed, up to [maxBytes] of tensors.
     * @param base the model of which the frame holds an update.
     * @param isFinite whether to refuse NaN and infinity.
     * @param isRaised whether to raise what [base] needs raised; a sender that asks what of its
     * update a frame holds does not.
     * @throws StateMismatch if the frame needs a state or a table that this side does not have.
     * @throws CodecError if the frame is malformed or of another codec.
     */
    fun decode(
        bytes: ByteArray,
        expected: Layout? = null,
        maxBytes: Long = MAX_BYTES,
        base: Tensors? = null,
        isFinite: Boolean = true,
        isRaised: Boolean = true,
    ): Tensors {
        val frame = Frame.parse(bytes)
        if (!Json.same(frame.config, config)) {
            refuse("a frame of codec ${Json.write(frame.config).take(200)}, expected ${Json.write(config)}")
        }
        val layout = layoutOf(frame, expected, maxBytes)
        requireNoState(frame)
        var found = unpack(frame, layout)
        if (frame.flags and Frame.AS_THEY_ARE != 0) found = found + AsTheyAre.unpack(frame, layout.tensors)
        val tensors = Tensors(layout, found)
        if (isFinite) requireFinite(tensors)
        if (!isRaised || frame.flags and Frame.RAISED == 0) return tensors
        return Raised.unpack(frame, tensors, base ?: refuse("the frame updates a model that is not at hand"))
    }

    companion object {
        /** The tag of the tensor table's section. */
        internal const val TABLE = "TABL"

        /** The most bytes of tensors to believe a frame's own table: a quarter of the memory there is. */
        val MAX_BYTES: Long = minOf(Runtime.getRuntime().maxMemory() / 4, Int.MAX_VALUE.toLong())

        internal fun layoutOf(frame: Frame, expected: Layout?, maxBytes: Long): Layout {
            if (TABLE !in frame) {
                if (expected == null || !expected.digest.contentEquals(frame.layoutDigest)) {
                    throw StateMismatch("the frame names a tensor table that this side has not seen")
                }
                return expected
            }
            val table =
                if (expected == null) {
                    frame.sectionUpTo(TABLE, Layout.MAX_BYTES)
                } else {
                    frame.section(TABLE, expected.bytes.size.toLong())
                }
            val layout = Layout.parse(table)
            if (!layout.digest.contentEquals(frame.layoutDigest)) {
                refuse("the frame's tensor table differs from its digest")
            }
            if (expected != null && !layout.hasShapesOf(expected)) {
                refuse("the frame's tensors differ from the expected ones in names or shapes")
            }
            requireRoom(layout, maxBytes)
            return layout
        }

        private fun requireRoom(layout: Layout, maxBytes: Long) {
            var total = 0L
            for (spec in layout.tensors) {
                total += spec.byteSize
                if (total > maxBytes) refuse("the frame claims more than $maxBytes bytes of tensors")
            }
        }

        internal fun requireNoState(frame: Frame) {
            if (frame.stateVersion != 0L || frame.stateDigest.any { it != 0.toByte() }) {
                throw StateMismatch("the frame continues from a codec's state ${frame.stateVersion}, and there is none")
            }
        }
    }
}
