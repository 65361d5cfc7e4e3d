"""What the compiled kernel has: loops that numpy has, too, with the same outcome."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

INTERFACE = 5
"""Of loops.h: a kernel that was built of other sources is not used."""


class Kernel(Protocol):
    """The functions of `_native`, all of which release the interpreter's lock.

    Arrays are contiguous, of exactly the dtype that is named, and as long as the others
    require; of lengths that do not match, and of content that would lead outside an
    array, each makes a `ValueError`, which is a mistake in this library: what came from
    outside has been checked before, and what only the loop can see is in its result.
    """

    def push(
        self,
        states: Array,
        symbols: Array,
        contexts: Array,
        table: Array,
        words: Array,
        in_groups: int,
        /,
    ) -> int:
        """Encode symbols, the last first, and return how many words they gave away.

        Parameters
        ----------
        states : ndarray of uint32, shape (lanes,)
            Changed in place.
        symbols : ndarray of uint16, shape (n,)
            Each of a frequency that is not 0.
        contexts : ndarray of uint8, shape (n,)
            Of the symbols.
        table : ndarray of uint32, shape (contexts * MAX_ALPHABET,)
            From `lanes.encoder_table`.
        words : ndarray of uint16, shape (n + 1,)
            The words come to stand at its end; what is before them is overwritten.
        in_groups : int
            0 to encode lane by lane even where the processor has vectors.
        """

    def pull(
        self,
        states: Array,
        words: Array,
        symbols: Array,
        contexts: Array,
        frequencies: Array,
        alphabet: int,
        in_groups: int,
        /,
    ) -> int:
        """Decode symbols, the first first, and return how many words were read.

        Parameters
        ----------
        states : ndarray of uint32, shape (lanes,)
            Changed in place.
        words : ndarray of uint16
            What there is to read.
        symbols : ndarray of uint16, shape (n,)
            Filled.
        contexts : ndarray of uint8, shape (n,)
            Of the symbols, each with a table.
        frequencies : ndarray of uint16, shape (contexts * alphabet,)
            From `tables.normalise`; all 0 in a context without a table.
        alphabet : int
            At most `MAX_ALPHABET`.
        in_groups : int
            0 to decode lane by lane even where the processor has vectors.

        Returns
        -------
        int
            -1 if there are too few words.
        """

    def symbols(self, values: Array, symbols: Array, mantissa: int, /) -> int:
        """Do what `integers.to_symbols` does, and return the largest symbol.

        Parameters
        ----------
        values : ndarray of int16 or int32, shape (n,)
            The integers.
        symbols : ndarray of uint16, shape (n,)
            Filled.
        mantissa : int
            How many bits of a large integer a symbol tells, 4 or 2: symbols below
            ``4 << mantissa`` are integers, and an octave has ``1 << mantissa``.
        """

    def octaves(self, symbols: Array, counts: Array, mantissa: int, /) -> int:
        """Count the symbols of each octave that has raw bits.

        Parameters
        ----------
        symbols : ndarray of uint16
            Of 28 octaves at the most.
        counts : ndarray of int64, shape (28,)
            Filled.
        mantissa : int
            See `symbols`.
        """

    def raw_bits(
        self,
        values: Array,
        symbols: Array,
        starts: Array,
        bits: Array,
        mantissa: int,
        /,
    ) -> int:
        """Write the raw bits of integers that are far from 0.

        Parameters
        ----------
        values : ndarray of int16 or int32, shape (n,)
            The integers.
        symbols : ndarray of uint16, shape (n,)
            Theirs.
        starts : ndarray of int64, shape (29,)
            Of each octave the first byte, and where the last one ends.
        bits : ndarray of uint8
            Filled.
        mantissa : int
            See `symbols`.
        """

    def near(
        self, symbols: Array, counts: Array, values: Array, mantissa: int, /
    ) -> int:
        """Make integers of symbols that have no raw bits, and count the others.

        Parameters
        ----------
        symbols : ndarray of uint16, shape (n,)
            Of 28 octaves at the most.
        counts : ndarray of int64, shape (28,)
            Filled, as `octaves` does.
        values : ndarray of int32, shape (n,)
            Filled; what the symbols with raw bits get means nothing.
        mantissa : int
            See `symbols`.

        Returns
        -------
        int
            How many symbols have raw bits.
        """

    def far(
        self,
        symbols: Array,
        starts: Array,
        bits: Array | memoryview,
        values: Array,
        mantissa: int,
        /,
    ) -> int:
        """Make integers of symbols and raw bits, where `near` made the others.

        Parameters
        ----------
        symbols : ndarray of uint16, shape (n,)
            Of 28 octaves at the most.
        starts, bits
            See `raw_bits`.
        values : ndarray of int32, shape (n,)
            Changed where a symbol has raw bits.
        mantissa : int
            See `symbols`.
        """

    def count(
        self, symbols: Array, contexts: Array, counts: Array, alphabet: int, /
    ) -> int:
        """Add to `counts` how often each symbol occurs in each context.

        Parameters
        ----------
        symbols : ndarray of uint16, shape (n,)
            Below `alphabet`.
        contexts : ndarray of uint8 or uint16, shape (n,)
            Of the symbols.
        counts : ndarray of int64, shape (contexts * alphabet,)
            Changed in place.
        alphabet : int
            Columns of `counts`.
        """

    def mark(self, contexts: Array, used: Array, /) -> int:
        """Set the entry of each context that occurs to 1.

        Parameters
        ----------
        contexts : ndarray of uint8
            The contexts.
        used : ndarray of uint8, shape (256,)
            Changed in place.
        """

    def sums(self, x: Array, outputs: Array, inputs: Array, positions: Array, /) -> int:
        """Sum magnitudes over the slices of each axis, in numpy's order.

        Parameters
        ----------
        x : ndarray of float32 or int32, shape (o, i, k)
            Not empty. Integers become float32 first.
        outputs, inputs, positions : ndarray of float64, shape (o,), (i,), (k,)
            Filled.
        """

    def energy(self, x: Array, /) -> float:
        """Return the sum of squares of float32 or float64, in numpy's order."""

    def classes(
        self,
        base: int,
        outputs: Array,
        inputs: Array,
        positions: Array,
        o: int,
        i: int,
        k: int,
        classes: Array,
        /,
    ) -> int:
        """Do what `contexts.scale_classes` does.

        Parameters
        ----------
        base : int
            The tensor's scale less that of class 0.
        outputs, inputs, positions : ndarray of int16, shape (o,), (i,), (k,)
            Scales of the slices of each axis, or none.
        o, i, k : int
            Shape of the tensor.
        classes : ndarray of uint8, shape (o, i, k)
            Filled; not empty.
        """

    def merge(
        self, classes: Array, shift: int, first: int, last: int, merged: Array, /
    ) -> int:
        """Do what `contexts.ContextMap` does with scale classes.

        Parameters
        ----------
        classes : ndarray of uint8, shape (n,)
            The classes.
        shift, first, last : int
            How many go together, and the first and the last context.
        merged : ndarray of uint8, shape (n,)
            Filled.
        """

    def sample(
        self,
        x: Array,
        classes: Array,
        shift: int,
        step: float,
        up: float,
        symbols: Array,
        contexts: Array,
        /,
    ) -> float:
        """Measure a quantiser, and return the squared error, summed in numpy's order.

        Parameters
        ----------
        x : ndarray of float32, shape (n,)
            Values.
        classes : ndarray of int16, shape (n,)
            Theirs.
        shift : int
            What is taken from the classes, which are then clipped and halved.
        step, up : float
            See `quantise`.
        symbols : ndarray of uint16, shape (n,)
            Filled.
        contexts : ndarray of uint8, shape (n,)
            Filled with the halved classes.

        Returns
        -------
        float
            Negative if an index exceeds 2^30.
        """

    def lost(self, x: Array, step: float, up: float, /) -> float:
        """Return the squared error of `quantise`, summed in numpy's order.

        Parameters
        ----------
        x : ndarray of float32, shape (n,)
            Values.
        step, up : float
            See `quantise`.

        Returns
        -------
        float
            Negative if an index exceeds 2^30.
        """

    def quantise(self, x: Array, step: float, up: float, indices: Array, /) -> bool:
        """Do what `quantise.quantise_dead_zone` does, unless an index exceeds 2^30.

        Parameters
        ----------
        x : ndarray of float32, shape (n,)
            Values.
        step, up : float
            The step, and one less the dead zone, both rounded to float32.
        indices : ndarray of int32, shape (n,)
            Filled.

        Returns
        -------
        bool
            Whether all indices are in range, and no value was not a number.
        """

    def values(self, indices: Array, unit: float, multiple: float, /) -> int:
        """Multiply indices by a power of two and then by a number.

        Parameters
        ----------
        indices : ndarray of int32, shape (n,)
            The indices, in the place of which the values come, float32.
        unit : float
            From 2^-126 to 2^127.
        multiple : float
            The number.
        """

    def write_groups(self, values: Array, sizes: Array, out: Array, /) -> int:
        """Do what `small_block.encode_groups` does, and return the bytes written.

        Parameters
        ----------
        values : ndarray of int32, shape (n,)
            One group after another.
        sizes : ndarray of int64, shape (groups,)
            Their lengths.
        out : ndarray of uint8
            Filled from its beginning; as long as `max_small_block_bytes` says.
        """

    def read_groups(
        self, data: bytes, offset: int, sizes: Array, values: Array, /
    ) -> int:
        """Do what `small_block.decode_groups` does; return the offset behind.

        Parameters
        ----------
        data : bytes
            What has the groups.
        offset : int
            Where they begin.
        sizes : ndarray of int64, shape (groups,)
            Their lengths.
        values : ndarray of int32, shape (n,)
            Filled.

        Returns
        -------
        int
            -1 if there are no such groups.
        """

    def block_sums(
        self, values: Array, rows: Array, sums: Array, signs: Array, active: Array, /
    ) -> int:
        """Sum magnitudes and signs over the slices of each tensor.

        Parameters
        ----------
        values : ndarray of int32, shape (n,)
            The tensors, one after another.
        rows : ndarray of int64, shape (tensors, 4)
            From `block_shape.BlockShape`.
        sums : ndarray of float64, shape (scales,)
            Filled: of each tensor the sum of all magnitudes, and those of the slices of
            each axis with scales, as `contexts.SliceSums` has them.
        signs : ndarray of int64
            Filled: of each tensor the sums of signs over the slices of its first two
            axes.
        active : ndarray of int64, shape (tensors,)
            Filled: how many integers are not 0.
        """

    def block_flip(
        self, values: Array, rows: Array, modes: Array, negative: Array, /
    ) -> int:
        """Change the signs of the integers of some channels, in place.

        Parameters
        ----------
        values, rows
            See `block_sums`.
        modes : ndarray of uint8, shape (tensors,)
            `signs.SignMode`, but for `HISTORY`.
        negative : ndarray of uint8
            Whether the integers of each channel that has a sign change theirs.
        """

    def block_contexts(
        self,
        scales: Array,
        rows: Array,
        shift: int,
        first: int,
        last: int,
        contexts: Array,
        /,
    ) -> int:
        """Make contexts of scales: `classes`, and then `merge`, of all tensors.

        Parameters
        ----------
        scales : ndarray of int16, shape (scales,)
            Of all tensors, as `contexts.fit_scales` returns those of one.
        rows
            See `block_sums`.
        shift, first, last
            See `merge`.
        contexts : ndarray of uint8, shape (n,)
            Filled.
        """
