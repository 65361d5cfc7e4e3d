package io.flwrcaesar.device

import io.flwrcaesar.message.Seconds

/** Takes the time of a message by the system's clock. */
class WallClock : Stopwatch {
    private var last = System.nanoTime()
    private var decode = 0.0
    private var train = 0.0

    override fun decoded() {
        decode = lap()
    }

    override fun trained() {
        train = lap()
    }

    override fun stop(): Seconds = Seconds(train, lap(), decode, 0.0)

    private fun lap(): Double {
        val now = System.nanoTime()
        return ((now - last) / 1e9).also { last = now }
    }
}
