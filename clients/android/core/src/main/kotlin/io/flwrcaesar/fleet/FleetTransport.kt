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
 */
class FleetException(val status: Int, val code: Int, detail: String) : IOException("HTTP $status, code $code: $detail") {
    /** Whether the same call may succeed later. */
    val isTransient: Boolean get() = status in 502..504

    /** Whether the call is not allowed: of a message, as its run is over. */
    val isForbidden: Boolean get() = status == HttpURLConnection.HTTP_FORBIDDEN

    companion object {
        const val KEY_REGISTERED = 23
        const val REGISTRATION_DISABLED = 2001
        const val NOT_ACTIVATED = 2004
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
 */
class HttpTransport(
    private val server: String,
    private val signer: Signer,
    private val tls: SSLSocketFactory? = null,
    allowsClearText: Boolean = false,
    private val now: () -> Long = System::currentTimeMillis,
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
        val difference = first.date - now()
        if (first.date == 0L || Math.abs(difference - skew.get()) < TOLERANCE_MS) return first.content()
        skew.set(difference)
        return exchange(call, body).content()
    }

    private class Answer(val status: Int, val date: Long, val body: ByteArray) {
        fun content(): ByteArray {
            if (status == HttpURLConnection.HTTP_OK) return body
            val json =
                try {
                    Json.parseObject(body.decodeToString())
                } catch (_: CodecError) {
                    emptyMap()
                }
            throw FleetException(status, (json["code"] as? Long ?: 0).toInt(), json["detail"].toString().take(MAX_DETAIL))
        }
    }

    private fun exchange(call: String, body: ByteArray): Answer {
        val connection = URL("$server/v1/fleet/$call").openConnection() as HttpURLConnection
        if (tls != null && connection is HttpsURLConnection) connection.sslSocketFactory = tls
        connection.requestMethod = "POST"
        connection.connectTimeout = TIMEOUT_MS
        connection.readTimeout = TIMEOUT_MS
        connection.instanceFollowRedirects = false
        connection.doOutput = true
        connection.setFixedLengthStreamingMode(body.size)
        sign(connection)
        connection.outputStream.use { it.write(body) }
        val status = connection.responseCode
        val stream = if (status >= 400) connection.errorStream else connection.inputStream
        return Answer(status, connection.date, stream?.use(::read) ?: ByteArray(0))
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
        while (true) {
            val count = stream.read(buffer)
            if (count < 0) return out.toByteArray()
            if (out.size() + count > MAX_ANSWER) throw IOException("the server's answer is too long")
            out.write(buffer, 0, count)
        }
    }

    private companion object {
        const val TIMEOUT_MS = 30_000
        const val TOLERANCE_MS = 4_000L
        const val BUFFER = 1 shl 16
        const val MAX_ANSWER = 64 shl 20
        const val MAX_DETAIL = 500
    }
}
