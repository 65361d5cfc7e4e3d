package io.flwrcaesar.frame

import java.math.BigDecimal
import java.math.BigInteger

/**
 * JSON values: maps, lists, texts, booleans, `null` and numbers.
 *
 * A number without a fraction or exponent is a [Long], or a [BigInteger] where that is too
 * small; any other is a [Double]. A repeated key, `NaN` and infinities are refused.
 */
object Json {
    /**
     * Parses a text that is one JSON value.
     *
     * @throws CodecError if it is not.
     */
    fun parse(text: String): Any? = JsonParser(text).document()

    /** Parses a text that is one JSON object. */
    fun parseObject(text: String): Map<String, Any?> {
        @Suppress("UNCHECKED_CAST") // all keys of a parsed object are texts
        return parse(text) as? Map<String, Any?> ?: refuse("a JSON text is not an object")
    }

    /** Returns a value as JSON in ASCII without white space, keys in order. */
    fun write(value: Any?): String = StringBuilder().also { append(it, value) }.toString()

    /** Tells whether two values are equal: numbers by value, and no number a boolean. */
    fun same(a: Any?, b: Any?): Boolean =
        when {
            a is Map<*, *> && b is Map<*, *> ->
                a.keys == b.keys && a.keys.all { same(a[it], b[it]) }
            a is List<*> && b is List<*> ->
                a.size == b.size && a.indices.all { same(a[it], b[it]) }
            a is Number && b is Number -> sameNumber(a, b)
            else -> a == b
        }

    private fun sameNumber(a: Number, b: Number): Boolean {
        if (a is Double && b is Double) return a == b
        return exact(a).compareTo(exact(b)) == 0
    }

    private fun exact(number: Number): BigDecimal =
        when (number) {
            is Double -> BigDecimal(number)
            is BigInteger -> BigDecimal(number)
            else -> BigDecimal(number.toLong())
        }

    private fun append(out: StringBuilder, value: Any?) {
        when (value) {
            is Map<*, *> -> {
                val keys = value.keys.map { it as String }.sorted()
                join(out, '{', '}', keys) { key ->
                    quote(out, key)
                    out.append(':')
                    append(out, value[key])
                }
            }
            is List<*> -> join(out, '[', ']', value) { append(out, it) }
            is String -> quote(out, value)
            is Double -> {
                require(value.isFinite()) { "JSON has no $value" }
                out.append(value)
            }
            null, is Boolean, is Int, is Long, is BigInteger -> out.append(value)
            else -> throw IllegalArgumentException("JSON has no ${value.javaClass}")
        }
    }

    private fun <T> join(
        out: StringBuilder,
        open: Char,
        close: Char,
        items: Collection<T>,
        each: (T) -> Unit,
    ) {
        out.append(open)
        items.forEachIndexed { i, item ->
            if (i > 0) out.append(',')
            each(item)
        }
        out.append(close)
    }

    // As Python's writer has them, since what is signed has to be the same text on both sides.
    private val SHORT = mapOf('"' to '"', '\\' to '\\', '\n' to 'n', '\r' to 'r', '\t' to 't', '\b' to 'b', '\u000C' to 'f')

    private fun quote(out: StringBuilder, text: String) {
        out.append('"')
        for (c in text) {
            val short = SHORT[c]
            when {
                short != null -> out.append('\\').append(short)
                c < ' ' || c > '~' -> out.append("\\u%04x".format(c.code))
                else -> out.append(c)
            }
        }
        out.append('"')
    }
}
