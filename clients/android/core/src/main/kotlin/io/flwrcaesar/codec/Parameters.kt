package io.flwrcaesar.codec

import io.flwrcaesar.frame.refuse

/**
 * The parameters of a codec's configuration, read one by one and checked.
 *
 * What was read makes up [config]: a parameter that is not given has its default there.
 */
internal class Parameters(private val given: Map<String, Any?>) {
    private val id = given["id"] as? String ?: refuse("a codec's configuration needs a text 'id'")
    private val read = LinkedHashMap<String, Any?>(mapOf("id" to id))

    /** Returns the configuration, once all parameters were read. */
    fun config(): Map<String, Any?> {
        val unknown = given.keys - read.keys - omitted
        if (unknown.isNotEmpty()) refuse("$id: no parameter '${unknown.first()}'")
        return read
    }

    private val omitted = HashSet<String>()

    fun number(name: String, default: Double, isLater: Boolean = false): Double =
        keep(name, default, isLater) { (it as? Number)?.toDouble() }

    fun count(name: String, default: Long, isLater: Boolean = false): Long =
        keep(name, default, isLater, ::whole).also { require(it >= 0, name, it) }

    fun flag(name: String, default: Boolean, isLater: Boolean = false): Boolean =
        keep(name, default, isLater) { it as? Boolean }

    fun choice(name: String, choices: List<String>, isLater: Boolean = false): String =
        keep(name, choices.first(), isLater) { it as? String }.also { require(it in choices, name, it) }

    // JSON may write a whole number with a point.
    private fun whole(value: Any?): Long? =
        if (value is Double && value == Math.rint(value)) value.toLong() else value as? Long

    /** Refuses a value unless [isGood]. */
    fun require(isGood: Boolean, name: String, value: Any?) {
        if (!isGood) refuse("$id: $name cannot be $value")
    }

    // A parameter that came later than the codec's first frames is left out at its default.
    private fun <T : Any> keep(
        name: String,
        default: T,
        isLater: Boolean,
        convert: (Any?) -> T?,
    ): T {
        val value = given[name]
        val found = if (name in given) convert(value) ?: refuse("$id: $name cannot be $value") else default
        require(found !is Double || found.isFinite(), name, value)
        if (isLater && found == default) omitted += name else read[name] = if (name in given) value else default
        return found
    }
}
