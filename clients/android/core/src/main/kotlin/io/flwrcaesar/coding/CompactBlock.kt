package io.flwrcaesar.coding

import io.flwrcaesar.frame.ByteSink
import io.flwrcaesar.frame.TensorSpec
import io.flwrcaesar.frame.refuse
import io.flwrcaesar.frame.u8

/**
 * Integers of several tensors with little beside them, without what was before.
 *
 * Section 9 of `docs/wire-format.md`, "Compact blocks", has the bytes. A phone keeps no memory of
 * uploads, so that what needs one is refused, and never written.
 */
internal object CompactBlock {
    /** The tag of the section that holds such a block. */
    const val TAG = "CMPT"
    private const val KINDS = 4
    private const val HEAD_BYTES = 3
    private const val SHIFT = 0x07
    private const val ALIKE = 0x10
    private const val OF_MEMORY = 0x28
    private const val BRIEF = 0x40
    private const val IN_GROUPS = 1
    private const val PARAMETRIC = 2
    private const val BITS_PER_TABLE = 10
    private const val WORTH_TABLES = 96

    /** Decodes the block that `data` has from [from] on. */
    fun decode(data: ByteArray, from: Int, tensors: List<TensorSpec>): IntArray {
        val total = tensors.sumOf { it.count }
        if (total == 0) {
            if (from != data.size) refuse("a block without elements has bytes")
            return IntArray(0)
        }
        if (data.size - from < HEAD_BYTES) refuse("a block is truncated")
        val flags = data.u8(from)
        if (flags and (SHIFT or ALIKE or OF_MEMORY or BRIEF).inv() != 0) refuse("a block has unknown flags")
        val map = ContextMap(flags and SHIFT, data.u8(from + 1), data.u8(from + 2))
        map.check()
        val signsStart = from + HEAD_BYTES + if (flags and ALIKE != 0) 1 else tensors.size
        if (signsStart > data.size) refuse("a block is truncated")
        val forms = IntArray(tensors.size) { data.u8(from + HEAD_BYTES + if (flags and ALIKE != 0) 0 else it) }
        if (flags and OF_MEMORY != 0 || forms.any { it and 3 == Signs.HISTORY }) {
            refuse("a block uses a history that it does not have")
        }
        val counts = tensors.indices.map { Signs.count(forms[it] and 3, tensors[it]) }
        val scalesStart = signsStart + (counts.sumOf { it.toLong() } + 7) / 8
        if (scalesStart > data.size) refuse("a block is truncated")
        val bits = BitReader(data, signsStart, scalesStart.toInt())
        val signs = tensors.indices.map { i -> Signs(forms[i] and 3, BooleanArray(counts[i]) { bits.read(1) == 1L }) }

        var start = scalesStart.toInt()
        var how = 0
        if (flags and BRIEF != 0) {
            if (start == data.size) refuse("a block is truncated")
            how = data.u8(start++)
            if (how !in 1..(IN_GROUPS or PARAMETRIC)) refuse("a block has unknown flags")
        }
        val levels = readLevels(data, start, Block.kinds(tensors), how and IN_GROUPS != 0)
        val units = concatenated(tensors.indices.map { Scales(tensors[it]).units(forms[it] ushr 2) })
        val scales =
            IntArray(units.size) {
                val scale = levels.values[it].toLong() * units[it]
                if (scale !in -Scales.LARGEST..Scales.LARGEST) refuse("a scale is out of range")
                scale.toInt()
            }
        val contexts = Block.classes(tensors, scales)
        map.apply(contexts)
        val tables =
            if (how and PARAMETRIC != 0) {
                ParametricTables.read(data, levels.end, map.width, map.width)
            } else {
                SymbolTables.readCompact(data, levels.end, map.width)
            }
        val read = CompactRun.decode(data, contexts, tables)
        if (read.end != data.size) refuse("a block has trailing bytes")
        flip(read.values, tensors, signs)
        return read.values
    }

    private fun readLevels(data: ByteArray, start: Int, kinds: ByteArray, inGroups: Boolean): CompactRun.Read {
        if (!inGroups) return CompactRun.decode(data, start, kinds, KINDS)
        val sizes = IntArray(KINDS) { kind -> kinds.count { it.toInt() == kind } }
        val read = SmallBlock.decodeGroups(data, start, sizes.filter { it > 0 }.toIntArray())
        val next = IntArray(KINDS) { kind -> sizes.take(kind).sum() }
        return CompactRun.Read(IntArray(kinds.size) { read.values[next[kinds[it].toInt()]++] }, read.end)
    }

    /** Encodes integers of tensors, concatenated in order. */
    fun encode(integers: IntArray, tensors: List<TensorSpec>): ByteArray {
        if (integers.isEmpty()) return ByteArray(0)
        val values = integers.copyOf()
        val signs = ArrayList<Signs>()
        val coarse = ArrayList<Scales.Coarse>()
        var at = 0
        for (spec in tensors) {
            val end = at + spec.count
            signs += Signs.best(integers, at, spec)
            val start = at
            coarse += Scales(spec).fitCoarse(FloatArray(spec.count) { integers[start + it].toFloat() })
            at = end
        }
        flip(values, tensors, signs)
        val scales = concatenated(coarse.map { it.scales })
        val units = concatenated(tensors.indices.map { Scales(tensors[it]).units(coarse[it].form) })
        val levels = IntArray(scales.size) { scales[it] / units[it] }
        val contexts = Block.classes(tensors, scales)
        val map = ContextMap.plan(contexts, BITS_PER_TABLE) { CompactRun.symbol(values[it]) }
        map.apply(contexts)
        val forms = ByteArray(tensors.size) { (signs[it].mode or (coarse[it].form shl 2)).toByte() }
        val isAlike = forms.all { it == forms[0] }
        val sink = ByteSink().u8(map.shift or if (isAlike) ALIKE else 0).u8(map.first).u8(map.width)
        sink.bytes(if (isAlike) forms.copyOf(1) else forms)
        val bits = BitWriter()
        for (own in signs) for (isNegative in own.negative) bits.write(if (isNegative) 1 else 0, 1)
        sink.bytes(bits.toByteArray())
        sink.bytes(CompactRun.encode(levels, Block.kinds(tensors), KINDS))
        return sink.bytes(CompactRun.encode(values, contexts, map.width)).toByteArray()
    }

    /** Returns a small block or a compact one of the integers, whichever is shorter. */
    fun encodeShorter(integers: IntArray, tensors: List<TensorSpec>): SmallBlock.Shorter {
        if (integers.size >= SmallBlock.FEW) return SmallBlock.Shorter(false, encode(integers, tensors))
        val small = SmallBlock.encode(integers, tensors)
        if (small.size <= WORTH_TABLES) return SmallBlock.Shorter(true, small)
        val block = encode(integers, tensors)
        return if (small.size <= block.size) SmallBlock.Shorter(true, small) else SmallBlock.Shorter(false, block)
    }

    private fun flip(values: IntArray, tensors: List<TensorSpec>, signs: List<Signs>) {
        var at = 0
        for ((spec, own) in tensors.zip(signs)) {
            own.flip(values, at, spec)
            at += spec.count
        }
    }
}
