package io.flwrcaesar.device

import io.flwrcaesar.codec.Codecs
import io.flwrcaesar.codec.Dense
import io.flwrcaesar.codec.LatticeModel
import io.flwrcaesar.frame.CodecError
import io.flwrcaesar.frame.Frame
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.message.Abilities
import io.flwrcaesar.message.ArrayRecord
import io.flwrcaesar.message.Content
import io.flwrcaesar.message.DownloadHeader
import io.flwrcaesar.message.Envelope
import io.flwrcaesar.message.Plan
import io.flwrcaesar.message.Record
import io.flwrcaesar.message.Report
import io.flwrcaesar.message.Status
import io.flwrcaesar.message.TensorRecord
import io.flwrcaesar.message.UploadHeader
import io.flwrcaesar.message.deviceId
import io.flwrcaesar.message.hex
import io.flwrcaesar.store.sha256

/**
 * One device: from a message to its reply, with what it keeps in between.
 *
 * Section 7 of `docs/device-protocol.md` has the order of the steps.
 *
 * @param store where its states are; one message at a time.
 * @param abilities what it knows, and says to its server; `null`: it does not say, as servers before
 * section 13 refuse that.
 * @param watch what watches around a message, or `null` for nothing.
 * @param log takes lines for the device's log.
 */
class Device(
    private val store: StateStore,
    private val app: App,
    private val draws: Draws,
    private val abilities: Abilities? = ABILITIES,
    private val watch: () -> Watch? = { null },
    private val stopwatch: () -> Stopwatch = ::WallClock,
    private val log: (String) -> Unit = {},
) {
    /**
     * Handles one message.
     *
     * @param kind of the message, `train` or `evaluate`.
     * @throws CodecError if the message is damaged, or the app returns another model than it got.
     * @throws StateError if the state cannot be read or kept; nothing is to be sent then.
     */
    fun handle(kind: String, content: Content): Content {
        val note = Envelope.note(content) ?: refuse("the message has no plan for this device")
        val (plan, header) = Plan.read(note)
        return Handling(kind, content, sha256(note), plan, header).run()
    }

    /** One message, and what watches over it. */
    private inner class Handling(
        private val kind: String,
        private val content: Content,
        private val request: String,
        private val plan: Plan,
        private val header: DownloadHeader,
    ) {
        private val clock = stopwatch()
        private val watching = watch()
        private val frame =
            when (val record = content[plan.record]) {
                is ArrayRecord -> Envelope.frame(record)
                is TensorRecord -> refuse("the message holds plain arrays, not a frame")
                else -> null
            }

        fun run(): Content {
            val isClipped = isClipped()
            val found = store.load(header.lineage)
            val isAnswered = Session.isAnswered(found, header)
            if (!isAnswered) whyNot(found)?.let { return it }
            var state = found ?: DeviceState(draws.token(), header.lineage)
            if (found != null) {
                state = Settle.forgetOld(state, header, plan.maxResidualAge, draws)
                if (isClipped) state = Settle.forget(state, header, draws)
            }
            state = withStart(state)
            val received = Session.receive(state, header, frame, plan, draws)
            received.notes.forEach(log)
            val reply = received.reply ?: return work(received.state)
            store.save(received.state)
            return received.again?.let { sayAgain(reply, it) } ?: answer(reply, report(received.state))
        }

        private fun work(state: DeviceState): Content {
            store.prepare(state)
            val seen = asPlain(state.model!!)
            clock.decoded()
            if (!plan.callsApp) {
                store.save(state)
                return answer(Session.reply(state, header, Status.EVALUATED), report(state, isTimed = true))
            }
            val returned = app.handle(kind, seen, request)
            clock.trained()
            if (plan.upload.isNotEmpty()) return upload(state, returned)
            val labels = labels()
            store.save(state)
            val report = report(state, labels, isTimed = true)
            return Envelope.withNote(returned, report.note(Session.reply(state, header, Status.EVALUATED)))
        }

        private fun upload(state: DeviceState, returned: Content): Content {
            val labels = labels()
            val (name, trained) = TrainedModel.of(returned, state.model!!, plan.record)
            val committed = Session.commit(state, header, trained, plan, draws)
            val upload = committed.state.pending.last()
            val records = LinkedHashMap<String, Record>()
            for ((other, record) in returned.records) records[other] = if (other == name) record else exact(record)
            val can = unheard(committed.state)
            val told = Told(records - name, Report(labels = labels, abilities = can)).toText()
            val kept = upload.copy(told = told)
            val reported = if (can == null) state.reported else Reported(can, upload.uploadId)
            store.save(committed.state.copy(pending = state.pending + kept, reported = reported))
            val report = report(committed.state, labels, isTimed = true)
            return Envelope.withNote(Content(records), report.note(committed.reply), name, upload.frame)
        }

        private fun sayAgain(reply: UploadHeader, upload: Pending): Content {
            val told = Told.of(upload.told)
            return Envelope.withNote(Content(told.records), told.report.note(reply), plan.record, upload.frame)
        }

        private fun answer(reply: UploadHeader, report: Report): Content =
            Envelope.withNote(Content(emptyMap()), report.note(reply))

        // Section 7.5: the device lacks what is asked for, or does not want to train.
        private fun whyNot(state: DeviceState?): Content? {
            val lacks = lacking()
            val declines = if (plan.trains) watching?.declines.orEmpty() else ""
            if (lacks.isEmpty() && declines.isEmpty()) return null
            val known = state ?: DeviceState(draws.token(), header.lineage).also(store::save)
            val why = lacks.ifEmpty { declines }
            log("declines: $why")
            val policy = mapOf("policy" to "declined: $why".take(MAX_REASON), "seconds" to 0.0)
            val telemetry = watching?.telemetry().orEmpty() + policy
            val told = if (lacks.isEmpty()) unheard(known) else abilities
            return answer(Session.reply(known, header, Status.DECLINED), Report(telemetry = telemetry, abilities = told))
        }

        private fun lacking(): String {
            val known = abilities ?: ABILITIES
            val codecs = listOfNotNull(plan.upload["id"], frame?.let(::codecOf))
            val codec = codecs.firstOrNull { it !in known.codecs }
            return when {
                plan.part.isNotEmpty() && plan.part !in known.parts -> "no part '${plan.part}'"
                codec != null -> "no codec '$codec'"
                else -> ""
            }
        }

        // A damaged frame names no codec; it is refused where it is opened.
        private fun codecOf(frame: ByteArray): String? =
            try {
                Frame.parse(frame).config["id"] as String
            } catch (_: CodecError) {
                null
            }

        private fun isClipped(): Boolean {
            if (content.configs.values.none { CLIPPING in it.values }) return false
            if (plan.errorFeedback || plan.sendsModel) refuse("an update is to be clipped, and sent with more or as a model")
            if (!app.clips) refuse("this device cannot clip its update")
            return plan.upload.isNotEmpty()
        }

        private fun withStart(state: DeviceState): DeviceState {
            val base = header.base
            if (state.held != null || base == null || plan.start.isEmpty()) return state
            val start = SharedStart.of(plan.start) ?: return state
            val model = app.initial?.let(start::model) ?: return state
            val isThatOne = model.digest.hex() == base.digest
            return if (isThatOne) state.copy(held = base, model = model) else state
        }

        private fun asPlain(model: Tensors): Content {
            val plain = LinkedHashMap<String, Record>()
            if (plan.record !in content.records) plain[plan.record] = TensorRecord(model)
            for ((name, record) in Envelope.withoutNote(content).records) {
                plain[name] =
                    when {
                        name == plan.record -> TensorRecord(model)
                        record is ArrayRecord && Envelope.isFrame(record) -> {
                            val frame = Envelope.frame(record)
                            TensorRecord(Codecs.of(Frame.parse(frame).config).decode(frame, isFinite = false))
                        }
                        else -> record
                    }
            }
            return Content(plain)
        }

        private fun exact(record: Record): Record =
            if (record is TensorRecord) {
                Envelope.record(Dense.encode(record.tensors, known = false, isFinite = false).frame)
            } else {
                record
            }

        private fun labels(): List<Long> = if (plan.asksLabels) app.labels() else emptyList()

        private fun report(state: DeviceState, labels: List<Long> = emptyList(), isTimed: Boolean = false): Report {
            if (!isTimed) return Report(abilities = unheard(state))
            val telemetry = Report.fitting(watching?.telemetry().orEmpty())
            return Report(clock.stop(), labels, telemetry, unheard(state))
        }

        // Section 13: said until an upload that said it is known to have arrived.
        private fun unheard(state: DeviceState): Abilities? {
            val reported = state.reported
            val hasArrived = reported != null && reported.uploadId == 0L && reported.abilities == abilities
            return abilities.takeIf { !(hasArrived && header.device == deviceId(state.token)) }
        }
    }

    companion object {
        /** What this implementation knows. */
        val ABILITIES = Abilities((Codecs.ids + LatticeModel.ID).sorted())
        private const val CLIPPING = "clipping_norm"
        private const val MAX_REASON = 120
    }
}
