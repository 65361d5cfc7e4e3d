package io.flwrcaesar.android

import io.flwrcaesar.train.Examples
import io.flwrcaesar.train.Program
import io.flwrcaesar.train.ProgramEngine
import io.flwrcaesar.train.ProgramManifest
import io.flwrcaesar.train.ResumableEngine
import io.flwrcaesar.train.Value
import org.pytorch.executorch.DType
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import java.io.Closeable
import java.io.File

/**
 * Trains with a program of `flwr-caesar export-android`, by ExecuTorch's library for Android.
 *
 * @param folder what the command wrote, copied from the app's assets into its files.
 */
class ExecuTorchEngine private constructor(private val engine: ProgramEngine) :
    ResumableEngine by engine,
    Closeable by engine {
        constructor(folder: File, examples: Examples, threads: Int = 1) :
            this(engine(ProgramManifest.read(folder), examples, threads))

        private companion object {
            fun engine(manifest: ProgramManifest, examples: Examples, threads: Int): ProgramEngine =
                ProgramEngine(manifest, ExecuTorchProgram(manifest.program, threads), examples)
        }
    }

/** A program in a file, run by ExecuTorch. */
class ExecuTorchProgram(file: File, threads: Int = 1) : Program {
    private val module = Module.load(file.path, Module.LOAD_MODE_MMAP, threads)

    override fun run(method: String, inputs: List<Value>): List<Value> {
        val given = inputs.map { EValue.from(tensor(it)) }
        return module.execute(method, *given.toTypedArray()).map { value(it.toTensor()) }
    }

    override fun close() = module.close()

    private fun tensor(value: Value): Tensor =
        when (value) {
            is Value.Floats -> Tensor.fromBlob(value.data, value.shape)
            is Value.Longs -> Tensor.fromBlob(value.data, value.shape)
        }

    private fun value(tensor: Tensor): Value =
        when (tensor.dtype()) {
            DType.INT64 -> Value.Longs(tensor.dataAsLongArray, tensor.shape())
            else -> Value.Floats(tensor.dataAsFloatArray, tensor.shape())
        }
}
