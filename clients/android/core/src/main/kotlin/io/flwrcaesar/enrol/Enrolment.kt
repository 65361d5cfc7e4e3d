package io.flwrcaesar.enrol

import io.flwrcaesar.fleet.Signer
import io.flwrcaesar.fleet.Trust
import io.flwrcaesar.frame.CodecError
import io.flwrcaesar.frame.Json
import java.io.IOException
import java.net.URL
import java.util.Base64
import javax.net.ssl.HttpsURLConnection

/** A place in a fleet: where its server is, and which part of the data the device has. */
class Place(val server: String, val authority: ByteArray, val name: String, val part: Int, val parts: Int)

/** Hands a ticket to its server, and the device's public key with it. */
class Enrolment(private val signer: Signer, private val version: String = "0") {
    /**
     * Joins a ticket's fleet.
     *
     * @throws EnrolmentException if the server refuses, with its reason.
     * @throws IOException if it cannot be reached, or is not the ticket's.
     */
    fun join(ticket: Ticket): Place {
        val connection = URL("https://${ticket.address}/enrol").openConnection() as HttpsURLConnection
        connection.sslSocketFactory = Trust.ofPem(ticket.authority)
        connection.requestMethod = "POST"
        connection.connectTimeout = TIMEOUT_MS
        connection.readTimeout = TIMEOUT_MS
        connection.instanceFollowRedirects = false
        connection.doOutput = true
        connection.setRequestProperty("Content-Type", "application/json")
        connection.outputStream.use { it.write(request(ticket).toByteArray()) }
        val status = connection.responseCode
        val stream = if (status >= 400) connection.errorStream else connection.inputStream
        val told = told(stream?.use { it.readBytes() } ?: ByteArray(0))
        if (status != HttpsURLConnection.HTTP_OK) {
            throw EnrolmentException(told["error"] as? String ?: "${ticket.address} answers with HTTP $status")
        }
        val part = told["partition-id"] as? Long
        val parts = told["num-partitions"] as? Long
        if (part == null || parts == null) throw EnrolmentException("${ticket.address} is no gate of flwr-caesar")
        return Place("https://${ticket.address}", ticket.authority, ticket.name, part.toInt(), parts.toInt())
    }

    /** Returns the signed request as JSON, as it can also be handed over on paper or by mail. */
    fun request(ticket: Ticket): String {
        val body =
            mapOf(
                "kind" to "flwr-caesar enrolment request 1",
                "name" to ticket.name,
                "public-key" to signer.publicKey.decodeToString(),
                "machine" to null,
                "token" to Base64.getEncoder().encodeToString(ticket.token),
                "version" to version,
            )
        val signature = signer.sign(Json.write(body).toByteArray())
        return Json.write(body + ("signature" to Base64.getEncoder().encodeToString(signature)))
    }

    private fun told(body: ByteArray): Map<String, Any?> =
        try {
            Json.parseObject(body.decodeToString())
        } catch (_: CodecError) {
            emptyMap()
        }

    private companion object {
        const val TIMEOUT_MS = 60_000
    }
}
