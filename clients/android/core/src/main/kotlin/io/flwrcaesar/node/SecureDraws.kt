package io.flwrcaesar.node

import io.flwrcaesar.device.Draws
import io.flwrcaesar.message.TOKEN_BYTES
import java.security.SecureRandom

/** Random numbers that nobody can guess. */
class SecureDraws : Draws {
    private val random = SecureRandom()

    override fun token(): ByteArray = ByteArray(TOKEN_BYTES).also(random::nextBytes)

    override fun uploadId(): Long = generateSequence { random.nextLong() }.first { it != 0L }
}
