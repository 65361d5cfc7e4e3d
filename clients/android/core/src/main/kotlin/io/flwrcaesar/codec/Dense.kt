package io.flwrcaesar.codec

import io.flwrcaesar.frame.Frame
import io.flwrcaesar.frame.Layout
import io.flwrcaesar.frame.Tensors

/** The codec `dense`: every tensor bit for bit. */
object Dense : Codec(mapOf("id" to "dense")) {
    override fun unpack(frame: Frame, layout: Layout): Map<String, ByteArray> = Exact.unpack(frame, layout.tensors)

    override fun pack(tensors: Tensors): Packed {
        val sections = Exact.pack(tensors, tensors.layout.tensors)
        return Packed(sections, tensors.layout.tensors.associate { it.name to tensors[it.name] })
    }
}
