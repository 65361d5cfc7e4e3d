package io.flwrcaesar.device

import io.flwrcaesar.codec.Codecs
import io.flwrcaesar.codec.Updates
import io.flwrcaesar.frame.CodecError
import io.flwrcaesar.frame.Frame
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.message.DownloadHeader
import io.flwrcaesar.message.MAX_SETTLED
import io.flwrcaesar.message.deviceId

/** A state after its uploads were judged, which of them returned, and lines for the log. */
internal class Settled(
    val state: DeviceState,
    val returned: Set<Long> = emptySet(),
    val forfeits: Boolean = false,
    val notes: List<String> = emptyList(),
)

/** What becomes of uploads whose fate a request tells: section 8 of `docs/device-protocol.md`. */
internal object Settle {
    /** Judges the uploads that wait, by what the server says that it applied. */
    fun settle(state: DeviceState, header: DownloadHeader, draws: Draws): Settled {
        if (header.device != deviceId(state.token)) return Settled(state)
        val made = state.settled + state.pending.map { it.uploadId }
        if (header.applied.isNotEmpty() && header.applied.last() !in made) {
            return Settled(forfeited(state, draws), forfeits = true, notes = listOf(FORFEITED))
        }
        val (standing, returning) = state.pending.partition { it.uploadId in header.applied }
        var residual = state.residual
        // The newest upload was encoded of all that was left at the time.
        var longest = if (state.pending.lastOrNull() in standing) 0.0 else state.longest
        val notes = ArrayList<String>()
        for (pending in returning) {
            if (pending.isModel) continue
            try {
                val values = decode(state, pending)
                residual = Updates.addFloats(residual, values)
                if (pending.share > 0) longest = maxOf(longest, pending.share * Believed.length(values))
            } catch (err: CodecError) {
                notes += "an upload kept here cannot be read any more: ${err.message}"
            }
        }
        if (returning.isNotEmpty()) notes += "${returning.size} uploads were not applied"
        if (header.longest > 0 && longest > header.longest) {
            notes += "one training made an update of the length $longest, and the server believes ${header.longest} " +
                "at the most: what was not sent yet is given up with it"
            residual = null
            longest = 0.0
        }
        val judged =
            state.copy(
                residual = residual,
                pending = emptyList(),
                settled = (state.settled + standing.map { it.uploadId }).takeLast(MAX_SETTLED),
                reported = reported(state, standing, returning),
                longest = longest,
            )
        return Settled(judged, returning.map { it.uploadId }.toSet(), notes = notes)
    }

    /** Gives up a residual that waited for more than [maxAge] phases; 0: never. */
    fun forgetOld(state: DeviceState, header: DownloadHeader, maxAge: Long, draws: Draws): DeviceState {
        val age = header.order.phase - state.order.phase
        return if (maxAge <= 0 || age <= maxAge) state else forget(state, header, draws)
    }

    /** Gives up the residual, and the uploads that would return to it. */
    fun forget(state: DeviceState, header: DownloadHeader, draws: Draws): DeviceState {
        if (header.order <= state.order) return state
        val onTrial = settle(state, header, OnTrial(state.token, draws))
        if (onTrial.forfeits || onTrial.state.residual == null) return state
        val kept = state.pending.filter { it.uploadId !in onTrial.returned }
        return state.copy(residual = null, pending = kept, longest = 0.0)
    }

    private class OnTrial(private val token: ByteArray, draws: Draws) : Draws by draws {
        override fun token(): ByteArray = token
    }

    private fun decode(state: DeviceState, pending: Pending): Tensors {
        val layout = state.model!!.layout.ofUpdate()
        val codec = Codecs.of(Frame.parse(pending.frame).config)
        return codec.decode(pending.frame, layout, isRaised = false)
    }

    private fun forfeited(state: DeviceState, draws: Draws): DeviceState =
        DeviceState(draws.token(), state.lineage, state.order, state.held, state.model)

    private fun reported(state: DeviceState, standing: List<Pending>, returning: List<Pending>): Reported? {
        val reported = state.reported ?: return null
        return when (reported.uploadId) {
            in standing.map { it.uploadId } -> Reported(reported.abilities, 0)
            in returning.map { it.uploadId } -> null
            else -> reported
        }
    }

    private const val FORFEITED =
        "another copy of this device's state, or a later one of it, has sent updates: what was not sent " +
            "from here is given up, and this is a new device from now on"
}
