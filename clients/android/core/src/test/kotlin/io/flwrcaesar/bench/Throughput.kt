package io.flwrcaesar.bench

import io.flwrcaesar.codec.Codecs
import io.flwrcaesar.codec.Dense
import io.flwrcaesar.codec.LatticeModel
import java.lang.management.ManagementFactory

/** Measures what codecs take of one thread, once the virtual machine has compiled them. */
internal object Throughput {
    private const val WARM_UP = 5

    /** Blobs: a dense model, the model whole and as a change of it, an update as dense and as an upload. */
    fun answer(question: Question): Reply {
        val (dense, whole, change, update, upload) = question.blobs
        val codec = Codecs.of(question.objectOf("codec"))
        val base = Dense.decode(dense)
        base.digest // known of a model that is held
        val tensors = Dense.decode(update)
        val layout = tensors.layout
        val tasks =
            linkedMapOf<String, () -> Any>(
                "decode dense" to { Dense.decode(dense) },
                "decode whole model" to { LatticeModel.decode(whole) },
                "decode change" to { LatticeModel.decode(change, base) },
                "decode upload" to { codec.decode(upload, layout) },
                "encode upload" to { codec.encode(tensors, known = true) },
            )
        return Reply(mapOf("milliseconds" to tasks.mapValues { measure(it.value) }))
    }

    private fun measure(task: () -> Any): List<Double> {
        val threads = ManagementFactory.getThreadMXBean()

        fun once(): Double {
            val start = threads.currentThreadCpuTime
            task()
            return (threads.currentThreadCpuTime - start) / 1e6
        }
        val first = once()
        repeat(WARM_UP) { once() }
        return listOf(first, List(WARM_UP) { once() }.minOrNull()!!)
    }
}
