package io.flwrcaesar.train

import io.flwrcaesar.frame.CodecError
import io.flwrcaesar.frame.DType
import io.flwrcaesar.frame.Json
import io.flwrcaesar.frame.Layout
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.message.hex
import java.io.File
import java.io.IOException
import java.security.MessageDigest

/** What a step of training does with a tensor. */
enum class Role { TRAINED, UPDATED, CONSTANT }

/**
 * What there is to know of a training program; `docs/android.md` says what each key means.
 *
 * @property layout the model's tensors, in the order in which the program takes them.
 * @property roles one for each tensor.
 * @property batch the examples of one call.
 * @property fullBatches whether each place of a batch needs an example, for statistics of batches.
 * @property shape that of one example.
 * @property takesIntegers whether inputs are whole numbers instead of real ones.
 * @property program the file with the program.
 * @property digest its SHA-256, in hexadecimal digits.
 */
class ProgramManifest private constructor(
    val layout: Layout,
    val roles: List<Role>,
    val batch: Int,
    val classes: Int,
    val fullBatches: Boolean,
    val shape: List<Long>,
    val takesIntegers: Boolean,
    val program: File,
    val digest: String,
) {
    companion object {
        /** The manifest's name in its folder. */
        const val NAME = "manifest.json"
        private const val FORMAT = 1L

        /**
         * Reads a folder that `flwr-caesar export-android` wrote.
         *
         * @throws CodecError if the manifest is of a newer format or damaged, or the program another one.
         * @throws IOException if a file cannot be read.
         */
        fun read(folder: File): ProgramManifest {
            val found = Keys("manifest", Json.parseObject(File(folder, NAME).readText()))
            val format = found.whole("format")
            if (format != FORMAT) refuse("the program's manifest has format $format; this release reads $FORMAT")
            val tensors = found.objects("tensors")
            val input = found.inside("input")
            val program = found.inside("program")
            val file = File(folder, File(program.text("file")).name)
            val digest = sha256(file)
            if (digest != program.text("sha256")) {
                refuse("${file.name} is not the program of its manifest; copy both again")
            }
            return ProgramManifest(
                layout = Layout(tensors.map { TensorSpec(it.text("name"), it.type(), it.sides("shape")) }),
                roles = tensors.map { it.role() },
                batch = found.count("batch"),
                classes = found.count("classes"),
                fullBatches = found.flag("full_batches"),
                shape = input.sides("shape"),
                takesIntegers = input.type() == DType.INT64,
                program = file,
                digest = digest,
            )
        }

        private fun sha256(file: File): String {
            val digest = MessageDigest.getInstance("SHA-256")
            file.inputStream().use { stream ->
                val part = ByteArray(1 shl 16)
                while (true) {
                    val size = stream.read(part)
                    if (size < 0) break
                    digest.update(part, 0, size)
                }
            }
            return digest.digest().hex()
        }
    }
}

/** The keys of a JSON object, each of the kind that is asked for. */
private class Keys(private val name: String, private val values: Map<String, Any?>) {
    fun whole(key: String): Long = values[key] as? Long ?: fail(key)

    fun count(key: String): Int = whole(key).takeIf { it in 1..Int.MAX_VALUE }?.toInt() ?: fail(key)

    fun text(key: String): String = values[key] as? String ?: fail(key)

    fun flag(key: String): Boolean = values[key] as? Boolean ?: fail(key)

    fun sides(key: String): List<Long> =
        list(key).map { side -> (side as? Long)?.takeIf { it in 0..Int.MAX_VALUE } ?: fail(key) }

    fun inside(key: String): Keys = keys(key, values[key])

    fun objects(key: String): List<Keys> = list(key).map { keys(key, it) }

    fun role(): Role = Role.values().firstOrNull { it.name.lowercase() == text("role") } ?: fail("role")

    fun type(): DType =
        DType.ofName(text("dtype"))?.takeIf { it == DType.FLOAT32 || it == DType.INT64 } ?: fail("dtype")

    private fun list(key: String): List<*> = values[key] as? List<*> ?: fail(key)

    private fun keys(key: String, value: Any?): Keys {
        @Suppress("UNCHECKED_CAST") // all keys of a parsed object are texts
        return Keys("$name.$key", value as? Map<String, Any?> ?: fail(key))
    }

    private fun fail(key: String): Nothing = refuse("the program's manifest is damaged: $name.$key")
}
