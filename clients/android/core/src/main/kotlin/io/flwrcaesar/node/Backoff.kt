package io.flwrcaesar.node

import io.flwrcaesar.fleet.FleetException
import java.io.IOException
import java.io.InterruptedIOException
import java.net.SocketTimeoutException
import java.util.Random
import javax.net.ssl.SSLException

/**
 * Repeats calls that find no server, with exponential backoff and full jitter.
 *
 * A server that says when to come back is asked then, within limits.
 *
 * @param sleep waits for milliseconds.
 */
internal class Backoff(private val sleep: (Long) -> Unit, private val random: Random = Random()) {
    /**
     * Returns what a call returns, once there is an answer that waiting does not change.
     *
     * @param isOver whether nobody needs the answer any more: then the last error is thrown.
     */
    fun <T> patiently(isOver: () -> Boolean = { false }, call: () -> T): T {
        var attempt = 0
        while (true) {
            val failure =
                try {
                    return call()
                } catch (err: FleetException) {
                    if (!err.isTransient) throw err
                    err
                } catch (err: SSLException) {
                    throw err // another server, or a certificate that is over: waiting mends neither
                } catch (err: IOException) {
                    if (err is InterruptedIOException && err !is SocketTimeoutException) throw InterruptedException()
                    err // no network, or a connection that the server closed
                }
            if (isOver()) throw failure
            sleep(delay(attempt++) + asked(failure))
        }
    }

    private fun delay(attempt: Int): Long {
        val most = minOf(MOST_MS, LEAST_MS shl minOf(attempt, 10))
        return (random.nextDouble() * most).toLong()
    }

    private fun asked(failure: IOException): Long =
        (failure as? FleetException)?.retryAfter?.coerceIn(0, MOST_ASKED_MS) ?: 0

    private companion object {
        const val LEAST_MS = 1_000L
        const val MOST_MS = 20_000L
        const val MOST_ASKED_MS = 600_000L
    }
}
