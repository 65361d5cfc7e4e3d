package io.flwrcaesar.node

import io.flwrcaesar.fleet.FleetException
import java.io.IOException
import java.util.Random
import javax.net.ssl.SSLException

/**
 * Repeats calls that find no server, with exponential backoff and full jitter, without end.
 *
 * @param sleep waits for milliseconds.
 */
internal class Backoff(private val sleep: (Long) -> Unit, private val random: Random = Random()) {
    /** Returns what a call returns, once there is an answer that waiting does not change. */
    fun <T> patiently(call: () -> T): T {
        var attempt = 0
        while (true) {
            try {
                return call()
            } catch (err: FleetException) {
                if (!err.isTransient) throw err
            } catch (err: SSLException) {
                throw err // another server, or a certificate that is over: waiting mends neither
            } catch (_: IOException) {
                // no network, or a connection that the server closed
            }
            sleep(delay(attempt++))
        }
    }

    private fun delay(attempt: Int): Long {
        val most = minOf(MOST_MS, LEAST_MS shl minOf(attempt, 10))
        return (random.nextDouble() * most).toLong()
    }

    private companion object {
        const val LEAST_MS = 1_000L
        const val MOST_MS = 20_000L
    }
}
