package io.flwrcaesar.fleet

import io.flwrcaesar.frame.CodecError
import io.flwrcaesar.frame.Json
import java.io.IOException
import java.io.InputStream
import java.net.HttpURLConnection
import java.net.URL
import java.time.Instant
import java.util.Base64
import java.util.concurrent.atomic.AtomicLong
import javax.net.ssl.HttpsURLConnection
import javax.net.ssl.SSLSocketFactory

/**
 * A server's answer that is no success.
 *
 * @property status of HTTP.
 * @property code Flower's own, 0 if there is none.
 * @property retryAfter milliseconds after which the server wants to be asked again; 0 if it does not say.
 */
class FleetException(val status: Int, val code: Int, detail: String, val retryAfter: Long = 0) :
    IOException("HTTP $status, code $code: $detail") {
    /** Whether the same call may succeed later: the server is not there, or has too much to do. */
    val isTransient: Boolean get() = status in TRANSIENT

    /** Whether the server will never take the body that was sent: malformed in its eyes, or too large. */
    val isRefused: Boolean get() = status in REFUSED

    /** Whether the call is not allowed: of a message, as its run is over. */
    val isForbidden: Boolean get() = status == HttpURLConnection.HTTP_FORBIDDEN

    companion object {
        const val KEY_REGISTERED = 23
        const val REGISTRATION_DISABLED = 2001
        const val NOT_ACTIVATED = 2004
        private val TRANSIENT = setOf(408, 429, 500, 502, 503, 504)
        private val REFUSED = setOf(400, 413, 422)
    }
}

/** Posts one serialised call to a server and returns the serialised answer. */
fun interface FleetTransport {
    /**
     * @param call the call's name, as in the path.
     * @throws FleetException if the server answers with an error.
     * @throws IOException if there is no answer.
     */
    @Throws(IOException::class)
    fun post(call: String, body: ByteArray): ByteArray
}

/**
 * Signed calls over HTTP/1.1.
 *
 * The server takes a signed time from some seconds ahead of its clock to minutes behind it. A
 * device whose clock is off learns by how much from the `Date` of the answer that refuses it.
 *
 * @param server the address, `https://host:port`; `http` only with [allowsClearText].
 * @param tls trusts the server's authority; `null` for those that the system trusts.
 * @param now the device's clock, in milliseconds since 1970.
 * @param elapsed milliseconds that never go back.
 * @param timeout milliseconds to wait for the next byte of an answer, and for a connection.
 */
class HttpTransport(
    private val server: String,
    private val signer: Signer,
    private val tls: SSLSocketFactory? = null,
    allowsClearText: Boolean = false,
    private val now: () -> Long = System::currentTimeMillis,
    private val elapsed: () -> Long = { System.nanoTime() / 1_000_000 },
    private val timeout: Int = 30_000,
) : FleetTransport {
    private val skew = AtomicLong()
    private val key = Base64.getEncoder().encodeToString(signer.publicKey)

    init {
        require(server.startsWith("https://") || (allowsClearText && server.startsWith("http://"))) {
            "a server is asked over https only, not at $server"
        }
    }

    /** The server's clock as far as it is known, in milliseconds since 1970. */
    fun serverTime(): Long = now() + skew.get()

    override fun post(call: String, body: ByteArray): ByteArray {
        val first = exchange(call, body)
        if (first.status != HttpURLConnection.HTTP_UNAUTHORIZED) return first.content()
        val known = skew.get()
        val difference = first.date - now()
        if (first.date == 0L || Math.abs(difference - known) < TOLERANCE_MS) return first.content()
        skew.set(difference)
        val second = exchange(call, body)
        if (second.status == HttpURLConnection.HTTP_UNAUTHORIZED) skew.set(known) // it was not the clock
        return second.content()
    }

    private class Answer(val status: Int, val date: Long, val retryAfter: Long, val body: ByteArray) {
        fun content(): ByteArray {
            if (status == HttpURLConnection.HTTP_OK) return body
            val json =
                try {
                    Json.parseObject(body.decodeToString())
                } catch (_: CodecError) {
                    emptyMap()
                }
            val code = (json["code"] as? Long ?: 0).toInt()
            throw FleetException(status, code, json["detail"].toString().take(MAX_DETAIL), retryAfter)
        }
    }

    private fun exchange(call: String, body: ByteArray): Answer {
        val connection = URL("$server/v1/fleet/$call").openConnection() as HttpURLConnection
        if (tls != null && connection is HttpsURLConnection) connection.sslSocketFactory = tls
        connection.requestMethod = "POST"
        connection.connectTimeout = timeout
        connection.readTimeout = timeout
        connection.instanceFollowRedirects = false
        connection.doOutput = true
        connection.setFixedLengthStreamingMode(body.size)
        sign(connection)
        connection.outputStream.use { it.write(body) }
        val status = connection.responseCode
        val stream = if (status >= 400) connection.errorStream else connection.inputStream
        val found = stream?.use(::read) ?: ByteArray(0)
        val length = connection.contentLengthLong
        if (stream != null && length >= 0 && length != found.size.toLong()) {
            throw IOException("the server's answer has ${found.size} bytes, and was to have $length")
        }
        return Answer(status, connection.date, retryAfter(connection), found)
    }

    // Seconds, or a date by the clock of the server.
    private fun retryAfter(connection: HttpURLConnection): Long {
        val told = connection.getHeaderField("Retry-After")?.trim() ?: return 0
        told.toLongOrNull()?.let { return it.coerceIn(0, Int.MAX_VALUE.toLong()) * 1000 }
        val date = connection.getHeaderFieldDate("Retry-After", 0)
        return if (date == 0L || connection.date == 0L) 0 else maxOf(date - connection.date, 0)
    }

    private fun sign(connection: HttpURLConnection) {
        val time = Instant.ofEpochMilli(serverTime()).toString()
        connection.setRequestProperty("Content-Type", "application/protobuf")
        connection.setRequestProperty("flwr-public-key", key)
        connection.setRequestProperty("flwr-timestamp", time)
        val signature = signer.sign(time.toByteArray())
        connection.setRequestProperty("flwr-signature", Base64.getEncoder().encodeToString(signature))
    }

    private fun read(stream: InputStream): ByteArray {
        val out = java.io.ByteArrayOutputStream()
        val buffer = ByteArray(BUFFER)
        val started = elapsed()
        while (true) {
            val count = stream.read(buffer)
            if (count < 0) return out.toByteArray()
            if (out.size() + count > MAX_ANSWER) throw IOException("the server's answer is too long")
            out.write(buffer, 0, count)
            val taken = elapsed() - started
            if (taken > GRACE_MS + out.size() / SLOWEST) throw IOException("the server's answer comes too slowly")
        }
    }

    private companion object {
        const val TOLERANCE_MS = 4_000L
        const val BUFFER = 1 shl 16

        /** The largest is an object, of 5 MiB and a bit for a chunk, or the names of very many arrays. */
        const val MAX_ANSWER = 16 shl 20
        const val GRACE_MS = 60_000L

        /** Bytes in a millisecond of an answer that is still waited for. */
        const val SLOWEST = 1L
        const val MAX_DETAIL = 500
    }
}
