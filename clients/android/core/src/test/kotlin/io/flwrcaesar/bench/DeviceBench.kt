package io.flwrcaesar.bench

import io.flwrcaesar.codec.Codec
import io.flwrcaesar.codec.Codecs
import io.flwrcaesar.device.App
import io.flwrcaesar.device.Device
import io.flwrcaesar.device.DeviceState
import io.flwrcaesar.device.Draws
import io.flwrcaesar.device.Pending
import io.flwrcaesar.device.StateError
import io.flwrcaesar.device.StateStore
import io.flwrcaesar.device.Stopwatch
import io.flwrcaesar.device.Watch
import io.flwrcaesar.frame.CodecError
import io.flwrcaesar.frame.Frame
import io.flwrcaesar.frame.Json
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.message.Abilities
import io.flwrcaesar.message.Content
import io.flwrcaesar.message.Seconds
import io.flwrcaesar.message.TensorRecord
import io.flwrcaesar.store.FolderStore
import java.math.BigInteger
import java.nio.file.Path
import java.nio.file.Paths

/** A device whose random numbers, clock, disk and app are those of a recorded conversation. */
class DeviceBench {
    fun answer(question: Question): Reply =
        when (val command = question.text("do")) {
            "ask" -> ask(question)
            "state" -> state(question)
            else -> throw IllegalArgumentException("no command $command")
        }

    private fun ask(question: Question): Reply {
        val step = question.objectOf("step")
        val draws = GivenDraws(step["draws"] as Map<*, *>)
        val app = GivenApp(step, question.arguments["initial"] as String?)
        val disk = CountingDisk((question.arguments["dies"] as Long?)?.toInt() ?: Int.MAX_VALUE)
        val found = LinkedHashMap<String, Any?>()
        try {
            FolderStore(folder(question), disk).use { store ->
                val device =
                    Device(
                        FullStore(store, step["full"] as String?),
                        app,
                        draws,
                        abilities(question.arguments["can"] as Map<*, *>?),
                        watch = { GivenWatch.of(step["board"] as Map<*, *>?) },
                        stopwatch = { GivenClock(step["seconds"] as List<*>) },
                    )
                val reply = device.handle(step["kind"] as String, JsonContent.read(step["message"]))
                found["reply"] = JsonContent.write(reply)
            }
        } catch (err: CodecError) {
            found["error"] = err.message
        } catch (err: StateError) {
            found["error"] = err.message
        } catch (err: AppFailedException) {
            found["error"] = err.message
        } catch (_: DiedException) {
            found["died"] = true
        }
        found["app"] = app.seen
        found["writes"] = disk.count
        found["draws"] = draws.left
        val state = FolderStore(folder(question)).use { it.load(lineage(question)) }
        found["state"] = state?.let(::describe)
        val model = state?.model?.let(JsonContent::dense) ?: ByteArray(0)
        return Reply(found, listOf(model) + state?.pending.orEmpty().map { it.frame })
    }

    private fun abilities(can: Map<*, *>?): Abilities? {
        fun texts(key: String) = (can?.get(key) as List<*>?).orEmpty().map { it as String }
        return can?.let { Abilities(texts("codecs"), texts("parts")) }
    }

    // Blobs: the model and the residual as dense frames, empty for none; the frames that wait.
    private fun state(question: Question): Reply {
        val state = FolderStore(folder(question)).use { it.load(lineage(question)) }
        val tensors = listOf(state?.model, state?.residual).map { it?.let(JsonContent::dense) ?: ByteArray(0) }
        return Reply(mapOf("state" to state?.let(::describe)), tensors + state?.pending.orEmpty().map { it.frame })
    }

    private fun folder(question: Question): Path = Paths.get(question.text("folder"))

    private fun lineage(question: Question): Long = BigInteger(question.text("lineage"), 16).toLong()

    private fun describe(state: DeviceState): Map<String, Any?> {
        val held = state.held?.let { mapOf("number" to it.number, "digest" to it.digest) }
        val model = state.model?.let(::digest)
        val found =
            linkedMapOf<String, Any?>(
                "token" to hex(state.token),
                "order" to listOf(state.order.incarnation, state.order.phase),
                "held" to held,
                "residual" to state.residual?.let(::digest),
                "pending" to state.pending.map { describe(state, it) },
                "settled" to state.settled.map(java.lang.Long::toUnsignedString),
            )
        state.reported?.let {
            val parts = if (it.abilities.parts.isEmpty()) emptyMap() else mapOf("parts" to it.abilities.parts)
            val can = Json.write(mapOf("codecs" to it.abilities.codecs) + parts)
            found["reported"] = listOf(can, java.lang.Long.toUnsignedString(it.uploadId))
        }
        val digest = state.held?.digest
        if (digest != null && model != digest) found["model"] = model
        return found
    }

    private fun describe(state: DeviceState, pending: Pending): Map<String, Any?> {
        val model = state.model!!.layout
        val frame = Frame.parse(pending.frame)
        val codec: Codec = Codecs.of(frame.config)
        val layout = if ("TABL" in frame) null else if (pending.isModel) model else model.ofUpdate()
        return mapOf(
            "id" to java.lang.Long.toUnsignedString(pending.uploadId),
            "order" to listOf(pending.order.incarnation, pending.order.phase),
            "payload" to if (pending.isModel) "model" else "update",
            "values" to digest(codec.decode(pending.frame, layout, isRaised = false)),
        )
    }

    private fun digest(tensors: Tensors): String = hex(tensors.digest)

    private fun hex(bytes: ByteArray): String = bytes.joinToString("") { "%02x".format(it) }

    companion object {
        val COMMANDS = setOf("ask", "state")
    }

    private class AppFailedException(reason: String) : Exception(reason)

    private class GivenDraws(given: Map<*, *>) : Draws {
        private val tokens = ArrayDeque((given["tokens"] as List<*>).map { it as String })
        private val ids = ArrayDeque((given["ids"] as List<*>).map { it as String })
        val left: Int get() = tokens.size + ids.size

        override fun token(): ByteArray = BigInteger(tokens.removeFirst(), 16).toByteArray().let { bytes ->
            ByteArray(16) { i -> bytes.getOrElse(bytes.size - 16 + i) { 0 } }
        }

        override fun uploadId(): Long = java.lang.Long.parseUnsignedLong(ids.removeFirst())
    }

    private class GivenApp(private val step: Map<String, Any?>, private val start: String?) : App {
        var seen: Map<String, Any?>? = null
            private set

        override val clips get() = true
        override val initial get() = start?.let(JsonContent::tensors)

        override fun labels(): List<Long> = (step["labels"] as List<*>?).orEmpty().map { it as Long }

        override fun handle(kind: String, content: Content): Content {
            val others = Content(content.records.filterValues { it !is TensorRecord })
            seen =
                mapOf(
                    "records" to content.records.keys.toList(),
                    "tensors" to
                        content.tensors.mapValues { (_, record) ->
                            record.tensors.digest.joinToString("") { "%02x".format(it) }
                        },
                    "others" to JsonContent.write(others),
                )
            val app = step["app"] as Map<*, *>
            app["fails"]?.let { throw AppFailedException(it as String) }
            return JsonContent.read(app["returns"])
        }
    }

    private class GivenWatch(private val given: Map<*, *>) : Watch {
        override val declines get() = given["declines"] as String? ?: ""

        @Suppress("UNCHECKED_CAST") // an object of JSON
        override fun telemetry() = given["telemetry"] as Map<String, Any?>? ?: emptyMap()

        companion object {
            fun of(given: Map<*, *>?): Watch? = given?.let(::GivenWatch)
        }
    }

    private class GivenClock(private val given: List<*>) : Stopwatch {
        override fun decoded() = Unit

        override fun trained() = Unit

        override fun stop(): Seconds {
            val (train, encode, decode, start) = given.map { (it as Number).toDouble() }
            return Seconds(train, encode, decode, start)
        }
    }

    /** A store on a disk that is full at one of the two writes. */
    private class FullStore(private val store: StateStore, private val full: String?) : StateStore by store {
        override fun prepare(state: DeviceState) {
            if (full == "prepare") throw StateError("the disk is full")
            store.prepare(state)
        }

        override fun save(state: DeviceState) {
            if (full == "save") throw StateError("the disk is full")
            store.save(state)
        }
    }
}
