package io.flwrcaesar.frame

import java.math.BigInteger

/** Parses one JSON text; see [Json]. */
internal class JsonParser(private val text: String) {
    private var at = 0
    private var depth = 0

    fun document(): Any? {
        val value = value()
        space()
        if (at != text.length) fail()
        return value
    }

    private fun fail(): Nothing = refuse("malformed JSON at character $at")

    private fun space() {
        while (at < text.length && text[at] in " \t\n\r") at++
    }

    private fun peek(): Char = if (at < text.length) text[at] else fail()

    private fun expect(c: Char) {
        if (peek() != c) fail()
        at++
    }

    private fun value(): Any? {
        space()
        return when (peek()) {
            '{' -> nested(::objectValue)
            '[' -> nested(::listValue)
            '"' -> string()
            't' -> word("true", true)
            'f' -> word("false", false)
            'n' -> word("null", null)
            else -> number()
        }
    }

    private fun <T> nested(read: () -> T): T {
        if (++depth > MAX_DEPTH) refuse("JSON is nested too deeply")
        return read().also { depth-- }
    }

    private fun word(name: String, value: Boolean?): Boolean? {
        if (!text.startsWith(name, at)) fail()
        at += name.length
        return value
    }

    private fun objectValue(): Map<String, Any?> {
        val found = LinkedHashMap<String, Any?>()
        items('{', '}') {
            space()
            val key = string()
            space()
            expect(':')
            val value = value()
            if (key in found) refuse("the JSON key '$key' is repeated")
            found[key] = value
        }
        return found
    }

    private fun listValue(): List<Any?> {
        val found = ArrayList<Any?>()
        items('[', ']') { found += value() }
        return found
    }

    private inline fun items(open: Char, close: Char, each: () -> Unit) {
        expect(open)
        space()
        if (peek() == close) {
            at++
            return
        }
        while (true) {
            each()
            space()
            if (peek() == close) break
            expect(',')
        }
        at++
    }

    private fun string(): String {
        expect('"')
        val out = StringBuilder()
        while (true) {
            val c = peek()
            at++
            when {
                c == '"' -> return out.toString()
                c == '\\' -> out.append(escape())
                c < ' ' -> fail()
                else -> out.append(c)
            }
        }
    }

    private fun escape(): Char {
        val c = peek()
        at++
        return when (c) {
            '"', '\\', '/' -> c
            'b' -> '\b'
            'f' -> '\u000C'
            'n' -> '\n'
            'r' -> '\r'
            't' -> '\t'
            'u' -> hex()
            else -> fail()
        }
    }

    private fun hex(): Char {
        if (text.length - at < 4) fail()
        val digits = text.substring(at, at + 4)
        if (!digits.all { it in '0'..'9' || it in 'a'..'f' || it in 'A'..'F' }) fail()
        at += 4
        return digits.toInt(16).toChar()
    }

    private fun number(): Number {
        val start = at
        if (peek() == '-') at++
        if (peek() == '0') at++ else digits()
        var isWhole = true
        if (at < text.length && text[at] == '.') {
            isWhole = false
            at++
            digits()
        }
        if (at < text.length && text[at] in "eE") {
            isWhole = false
            at++
            if (peek() in "+-") at++
            digits()
        }
        val literal = text.substring(start, at)
        if (!isWhole) {
            val value = literal.toDouble()
            return if (value.isInfinite()) refuse("a JSON number is beyond float64") else value
        }
        if (literal.length > MAX_DIGITS) refuse("a JSON number is too long")
        return literal.toLongOrNull() ?: BigInteger(literal)
    }

    private fun digits() {
        if (peek() !in '0'..'9') fail()
        while (at < text.length && text[at] in '0'..'9') at++
    }

    private companion object {
        const val MAX_DEPTH = 100
        const val MAX_DIGITS = 4300
    }
}
