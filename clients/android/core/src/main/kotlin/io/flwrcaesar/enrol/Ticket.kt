package io.flwrcaesar.enrol

import io.flwrcaesar.fleet.SoftwareSigner
import io.flwrcaesar.frame.CodecError
import io.flwrcaesar.frame.Json
import java.security.MessageDigest
import java.util.Base64

/** A ticket cannot be used, or a server refuses it; the message says why. */
class EnrolmentException(message: String) : Exception(message)

/**
 * One line of text, or the same as a QR code, that lets one device into a fleet, once.
 *
 * `flwr-caesar enrol ticket NAME` on the server makes it, and with `--qr` the code of a URI
 * `flwr-caesar:TICKET`, which opens an app that says it takes these. It holds the fleet's own authority, so
 * that the device trusts that server from the first byte on.
 *
 * @property address `host:port` of the server's gate.
 * @property name what the device will be called.
 * @property token the secret that the server takes once.
 * @property expires until when, in seconds since 1970.
 * @property authority the certificate of the fleet's authority as PEM.
 */
class Ticket private constructor(
    val address: String,
    val name: String,
    val token: ByteArray,
    val expires: Long,
    val authority: ByteArray,
) {
    companion object {
        private const val PREFIX = "fct1."
        private const val SCHEME = "flwr-caesar:"
        private const val BYTE_ORDER_MARK = '\uFEFF'
        private const val CHECK_BYTES = 4
        private const val MAX_LENGTH = 8192

        /** Reads a ticket, as it is typed, pasted or scanned: the line or its URI, with white space anywhere. */
        fun of(text: String): Ticket {
            val found = text.filterNot { it.isWhitespace() || it == BYTE_ORDER_MARK }
            val isUri = found.startsWith(SCHEME, ignoreCase = true)
            val line = if (isUri) found.substring(SCHEME.length).removePrefix("//") else found
            if (!line.startsWith(PREFIX) || line.length > MAX_LENGTH) {
                throw EnrolmentException("this is no ticket: one begins with $PREFIX")
            }
            return try {
                parse(Base64.getUrlDecoder().decode(line.removePrefix(PREFIX)))
            } catch (_: IllegalArgumentException) {
                throw EnrolmentException("the ticket is damaged: copy the whole line")
            } catch (err: CodecError) {
                throw EnrolmentException("the ticket cannot be read: ${err.message}")
            } catch (_: ClassCastException) {
                throw EnrolmentException("the ticket cannot be read")
            } catch (_: NullPointerException) {
                throw EnrolmentException("the ticket cannot be read")
            }
        }

        private fun parse(payload: ByteArray): Ticket {
            val end = payload.size - CHECK_BYTES
            val check = MessageDigest.getInstance("SHA-256").digest(payload.copyOf(maxOf(end, 0))).copyOf(CHECK_BYTES)
            if (end < 2 || !payload.copyOfRange(end, payload.size).contentEquals(check)) {
                throw EnrolmentException("the ticket is damaged: copy the whole line")
            }
            val size = (payload[0].toInt() and 0xFF shl 8) or (payload[1].toInt() and 0xFF)
            require(2 + size <= end)
            val head = Json.parseObject(payload.copyOfRange(2, 2 + size).decodeToString())
            return Ticket(
                head["address"] as String,
                head["name"] as String,
                Base64.getDecoder().decode(head["token"] as String),
                head["expires"] as Long,
                SoftwareSigner.pem("CERTIFICATE", payload.copyOfRange(2 + size, end)),
            )
        }
    }
}
