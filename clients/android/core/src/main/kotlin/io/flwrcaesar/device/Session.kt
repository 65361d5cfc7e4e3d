package io.flwrcaesar.device

import io.flwrcaesar.codec.Codecs
import io.flwrcaesar.codec.LatticeModel
import io.flwrcaesar.codec.Raised
import io.flwrcaesar.codec.Updates
import io.flwrcaesar.frame.CodecError
import io.flwrcaesar.frame.Frame
import io.flwrcaesar.frame.FrameWriter
import io.flwrcaesar.frame.Layout
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.message.DownloadHeader
import io.flwrcaesar.message.MAX_PENDING
import io.flwrcaesar.message.Plan
import io.flwrcaesar.message.Status
import io.flwrcaesar.message.UploadHeader
import io.flwrcaesar.message.deviceId
import io.flwrcaesar.message.hex

/**
 * What a request asks of a device.
 *
 * @property state to go on with; to be saved before [reply] is sent.
 * @property reply what to answer at once; `null` if there is a model to work on.
 * @property again the upload that is said again, if that is the answer.
 * @property notes lines for the log.
 */
internal class Received(
    val state: DeviceState,
    val reply: UploadHeader? = null,
    val again: Pending? = null,
    val notes: List<String> = emptyList(),
)

/** A state to save durably, and then the reply to send with its newest pending upload. */
internal class Committed(val state: DeviceState, val reply: UploadHeader)

/**
 * The device's side of a request, as pure functions of states.
 *
 * Sections 7 to 11 of `docs/device-protocol.md` say what each does, and in which order.
 */
internal object Session {
    /** Tells whether a request needs no work, as it came before or is older than another. */
    fun isAnswered(state: DeviceState?, header: DownloadHeader): Boolean =
        state != null && (header.order < state.order || answer(state, header) != null)

    private fun answer(state: DeviceState, header: DownloadHeader): Pending? =
        state.pending.firstOrNull { it.order == header.order && header.order == state.order }

    /** Takes a request in: steps 9 to 14 of section 7. */
    fun receive(
        state: DeviceState,
        header: DownloadHeader,
        frame: ByteArray?,
        plan: Plan,
        draws: Draws,
    ): Received {
        if (header.order < state.order) {
            return Received(state, reply(state, header, Status.STALE), notes = listOf("the request is an old one"))
        }
        answer(state, header)?.let { return again(state, header, it) }
        val settled = Settle.settle(state, header, draws)
        val known = settled.state.copy(order = header.order)
        val model =
            try {
                open(known, header, frame, plan.isExact)
            } catch (err: CodecError) {
                val notes = settled.notes + "a whole model is needed: ${err.message}"
                return Received(known, reply(known, header, Status.NEED_WHOLE), notes = notes)
            }
        val holding = known.copy(held = header.target, model = model)
        if (plan.upload.isNotEmpty() && holding.pending.size >= MAX_PENDING) {
            val notes = settled.notes + "too many uploads wait for the server to know this device again"
            return Received(holding, reply(holding, header, Status.UNSETTLED), notes = notes)
        }
        return Received(holding, notes = settled.notes)
    }

    private fun again(state: DeviceState, header: DownloadHeader, pending: Pending): Received {
        if (header.target != state.held) {
            val note = "the same request came with another model"
            return Received(state, reply(state, header, Status.STALE), notes = listOf(note))
        }
        return Received(state, reply(state, header, Status.UPDATE, pending.uploadId), again = pending)
    }

    private fun open(state: DeviceState, header: DownloadHeader, frame: ByteArray?, isExact: Boolean): Tensors {
        val fits = header.base == null || header.base == state.held
        if (!fits && (state.held == null || frame == null || !isExact)) {
            refuse("the download builds on ${header.base}, not held here")
        }
        if (frame == null) {
            if (header.base != header.target) refuse("the download has no model")
            return state.model!!
        }
        val model = decode(frame, if (header.base == null) null else state.model)
        if (isExact && model.digest.hex() != header.target.digest) {
            refuse("the model received is not the one that was meant")
        }
        return model
    }

    private fun decode(frame: ByteArray, base: Tensors?): Tensors {
        val config = Frame.parse(frame).config
        if (config["id"] == LatticeModel.ID) return LatticeModel.decode(frame, base)
        val found = Codecs.of(config).decode(frame, isFinite = false)
        return if (base == null) found else completed(found, base)
    }

    /** Returns a model of the tensors of a part, and the others of another model. */
    private fun completed(part: Tensors, base: Tensors): Tensors {
        val known = base.layout.tensors.toSet()
        part.layout.tensors.firstOrNull { it !in known }?.let { refuse("a tensor '${it.name}' is not of the model") }
        val names = part.layout.tensors.map { it.name }.toSet()
        return Tensors(
            base.layout,
            base.layout.tensors.associate { it.name to if (it.name in names) part[it.name] else base[it.name] },
        )
    }

    /** Makes the upload of a trained model, which has the layout of the model held: section 10. */
    fun commit(
        state: DeviceState,
        header: DownloadHeader,
        trained: Tensors,
        plan: Plan,
        draws: Draws,
    ): Committed {
        val made = if (plan.sendsModel) model(state, trained, plan) else update(state, header, trained, plan)
        val frame = FrameWriter.stamp(made.frame, state.lineage, header.target.number)
        val id = draws.uploadId()
        val pending = Pending(id, header.order, frame, plan.sendsModel, told = "", share = made.share)
        val after = state.copy(residual = made.residual, pending = state.pending + pending)
        return Committed(after, reply(state, header, Status.UPDATE, id))
    }

    private class Made(val frame: ByteArray, val residual: Tensors?, val share: Double = 0.0)

    private fun update(state: DeviceState, header: DownloadHeader, trained: Tensors, plan: Plan): Made {
        val model = state.model!!
        val update = Updates.difference(trained, model)
        val total = Updates.total(update, state.residual)
        val share = if (state.residual == null) 1.0 else Believed.share(update, total)
        val codec = Codecs.of(plan.upload)
        val whole = codec.encode(total, known = true)
        val part = Believed.partToSend(total, whole.decoded, share, header.longest)
        val encoded = if (part == null) whole else codec.encode(part, known = true)
        val frame = Raised.mark(encoded.frame, encoded.decoded, model, Updates.nonnegative(trained))
        val kept = if (plan.errorFeedback) encoded.decoded else part
        val residual = kept?.let { Updates.leftOver(total, it) }
        return Made(frame, residual?.takeIf { it.layout.tensors.isNotEmpty() }, share)
    }

    private fun model(state: DeviceState, trained: Tensors, plan: Plan): Made {
        val held = state.model!!
        val finite = Updates.withoutNonFinite(trained, held)
        val changed = finite.layout.tensors.filter { !finite[it.name].contentEquals(held[it.name]) }
        val part = Layout(changed)
        val leftOut = finite.layout.byteSize - part.byteSize
        val isPart = leftOut > LEAST_GAIN * part.bytes.size
        val sent = if (isPart) Tensors(part, changed.associate { it.name to finite[it.name] }) else finite
        return Made(Codecs.of(plan.upload).encode(sent, known = !isPart).frame, state.residual)
    }

    /** Returns the header of a reply; [uploadId] is that of an update. */
    fun reply(state: DeviceState, header: DownloadHeader, status: Status, uploadId: Long = 0): UploadHeader {
        val isStranger = status == Status.UPDATE && header.device != deviceId(state.token)
        val made = state.settled + state.pending.map { it.uploadId } - uploadId
        return UploadHeader(
            header.nonce,
            state.token,
            status,
            held = state.held.takeIf { status.tellsHeld },
            uploadId = uploadId,
            known = made.takeIf { isStranger },
        )
    }

    // How many times the table of a part its absent tensors have to have, to be left out.
    private const val LEAST_GAIN = 4L
}
