package io.flwrcaesar.bench

import io.flwrcaesar.codec.Codec
import io.flwrcaesar.codec.Codecs
import io.flwrcaesar.codec.Dense
import io.flwrcaesar.codec.LatticeModel
import io.flwrcaesar.coding.Block
import io.flwrcaesar.coding.Positions
import io.flwrcaesar.coding.SmallBlock
import io.flwrcaesar.frame.CodecError
import io.flwrcaesar.frame.Frame
import io.flwrcaesar.frame.Layout
import io.flwrcaesar.frame.StateMismatch
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.zstd.Zstd
import java.util.zip.CRC32

/** Codecs, as the tests ask for them. */
class CodecBench {
    fun answer(question: Question): Reply =
        try {
            when (val command = question.text("do")) {
                "decode" -> decode(question)
                "encode" -> encode(question)
                "sections" -> sections(question)
                "block" -> block(question)
                "positions" -> positions(question)
                "zstd" -> zstd(question)
                "throughput" -> Throughput.answer(question)
                else -> throw IllegalArgumentException("no command $command")
            }
        } catch (err: StateMismatch) {
            Reply(mapOf("lacks" to err.message))
        } catch (err: CodecError) {
            Reply(mapOf("refused" to err.message))
        }

    // Blobs: the frame; the base as a dense frame; the table of the expected tensors. Empty: none.
    private fun decode(question: Question): Reply {
        val (frame, base, table) = question.blobs
        val held = if (base.isEmpty()) null else Dense.decode(base, isFinite = false)
        val layout = if (table.isEmpty()) null else Layout.parse(table)
        val config = question.objectOf("codec")
        val limit = question.arguments["limit"] as? Long ?: Codec.MAX_BYTES
        val isFinite = question.arguments["finite"] as? Boolean ?: true
        val tensors =
            if (config["id"] == LatticeModel.ID) {
                LatticeModel.decode(frame, held, layout, limit)
            } else {
                Codecs.of(config).decode(frame, layout, limit, base = held, isFinite = isFinite)
            }
        return if (question.arguments["brief"] == true) Reply(digest(tensors)) else Reply(digest(tensors), dump(tensors))
    }

    // Blobs: what to encode, as a dense frame.
    private fun encode(question: Question): Reply {
        val tensors = Dense.decode(question.blobs[0], isFinite = false)
        val known = question.arguments["known"] as Boolean
        val isFinite = question.arguments["finite"] as? Boolean ?: true
        val codec: Codec = Codecs.of(question.objectOf("codec"))
        val made = codec.encode(tensors, known, isFinite)
        return Reply(digest(made.decoded), listOf(made.frame) + dump(made.decoded))
    }

    // The contents of a frame's sections, in order.
    private fun sections(question: Question): Reply {
        val frame = Frame.parse(question.blobs[0])
        val tags = frame.tags.toList()
        return Reply(
            mapOf("tags" to tags, "config" to frame.config, "flags" to frame.flags),
            tags.map { frame.section(it, frame.contentSize(it)) },
        )
    }

    // Decodes a block of tensors of these shapes, and encodes its integers again.
    private fun block(question: Question): Reply {
        val isSmall = question.arguments["small"] as Boolean
        @Suppress("UNCHECKED_CAST") // lists of lengths
        val shapes = question.arguments["shapes"] as List<List<Long>>
        val specs = shapes.mapIndexed { i, shape -> TensorSpec("$i", io.flwrcaesar.frame.DType.FLOAT32, shape) }
        val data = question.blobs[0]
        val integers = if (isSmall) SmallBlock.decode(data, 0, specs) else Block.decode(data, 0, specs)
        val again = if (isSmall) SmallBlock.encode(integers, specs) else Block.encode(integers, specs)
        return Reply(emptyMap(), listOf(again))
    }

    private fun positions(question: Question): Reply {
        val n = (question.arguments["n"] as Long).toInt()
        val found = Positions.decode(question.blobs[0], n)
        return Reply(mapOf("positions" to found.toList()), listOf(Positions.encode(found, n)))
    }

    private fun zstd(question: Question): Reply {
        val data = question.blobs[0]
        val size = (question.arguments["size"] as Long).toInt()
        val content = Zstd.decompress(data, 0, data.size, size)
        val crc = CRC32().also { it.update(content) }.value
        return Reply(mapOf("crc" to crc))
    }

    private fun digest(tensors: Tensors) =
        mapOf("digest" to tensors.digest.joinToString("") { "%02x".format(it) })

    private fun dump(tensors: Tensors): List<ByteArray> =
        listOf(tensors.layout.bytes) + tensors.layout.tensors.map { tensors[it.name] }
}
