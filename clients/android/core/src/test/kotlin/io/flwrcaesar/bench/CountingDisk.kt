package io.flwrcaesar.bench

import io.flwrcaesar.store.Disk
import io.flwrcaesar.store.RealDisk
import java.io.OutputStream
import java.nio.file.Path

/** The process was killed. */
internal class DiedException : Error("the process was killed")

/** A disk whose process is killed before its step number [dies], or never. */
internal class CountingDisk(private val dies: Int) : Disk {
    /** How many steps were taken. */
    var count = 0
        private set

    private fun step(block: () -> Unit) {
        if (count >= dies) throw DiedException()
        count++
        block()
    }

    override fun write(file: Path, content: (OutputStream) -> Unit) = step { RealDisk.write(file, content) }

    override fun rename(from: Path, to: Path) = step { RealDisk.rename(from, to) }

    override fun delete(file: Path) = step { RealDisk.delete(file) }
}
