package io.flwrcaesar.device

import io.flwrcaesar.codec.Elements
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.Tensors
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.message.Content

/** The model in what an app returns. */
internal object TrainedModel {
    /**
     * Returns the name of the app's model, and the model in the layout of the one it was given.
     *
     * A tensor that is floating point on both sides takes the type that it had.
     *
     * @param sentAs under which name the app was given its model.
     */
    fun of(content: Content, model: Tensors, sentAs: String): Pair<String, Tensors> {
        val names = content.tensors.keys
        if (names.isEmpty()) refuse("the app returned no arrays, and its model is to be sent")
        if (names.size > 1 && sentAs !in names) refuse("the app returned several records, and none is '$sentAs'")
        val name = names.singleOrNull() ?: sentAs
        val returned = content.tensors.getValue(name).tensors
        val specs = returned.layout.tensors.associateBy { it.name }
        if (specs.keys != model.layout.tensors.map { it.name }.toSet()) refuse("the app returned other tensors")
        val data = model.layout.tensors.associate { it.name to cast(specs.getValue(it.name), it, returned[it.name]) }
        return name to Tensors(model.layout, data)
    }

    private fun cast(own: TensorSpec, model: TensorSpec, bytes: ByteArray): ByteArray =
        when {
            own.shape != model.shape -> refuse("the app returned '${own.name}' in the shape ${own.shape}")
            own.dtype == model.dtype -> bytes
            own.dtype.isFloat && model.dtype.isFloat -> Elements.fromDoubles(model, Elements.toDoubles(own, bytes))
            else -> refuse("the app returned '${own.name}' as ${own.dtype.wireName}")
        }
}
