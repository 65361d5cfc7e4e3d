package io.flwrcaesar.node

/**
 * Keeps a node online from a thread of its own, while it is open.
 *
 * @param beat tells the server that the node lives.
 * @param interval seconds between two times.
 */
class Heart(private val beat: () -> Unit, interval: Double, private val log: (String) -> Unit = {}) : AutoCloseable {
    private val pause = (interval * SHARE * 1000).toLong()
    private val thread = Thread(::run, "heartbeat").apply { isDaemon = true }.also { it.start() }

    override fun close() = thread.interrupt()

    private fun run() {
        try {
            while (true) {
                Thread.sleep(pause)
                try {
                    beat()
                } catch (err: InterruptedException) {
                    throw err
                } catch (@Suppress("TooGenericExceptionCaught") err: Exception) {
                    log("no heartbeat: $err") // the node is online for twice the interval
                }
            }
        } catch (_: InterruptedException) {
            return
        }
    }

    private companion object {
        const val SHARE = 0.8
    }
}
