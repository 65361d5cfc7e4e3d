package io.flwrcaesar.codec

import io.flwrcaesar.frame.refuse

/** The codecs that a device encodes its updates with, by configuration. */
object Codecs {
    private val makers: Map<String, (Parameters) -> Codec> =
        mapOf(
            "dense" to { it.config().let { Dense } },
            "lattice" to Lattice::of,
            "prune" to Prune::of,
            "topk" to TopK::of,
        )

    /** The ids of all codecs for updates, sorted. */
    val ids: List<String> = makers.keys.sorted()

    /**
     * Returns the codec of a configuration; a parameter that is not given has its default.
     *
     * @throws io.flwrcaesar.frame.CodecError if the id or a parameter is unknown or out of range.
     */
    fun of(config: Map<String, Any?>): Codec {
        val make = makers[config["id"]] ?: refuse("no codec '${config["id"]}'; there are $ids")
        return make(Parameters(config))
    }
}
