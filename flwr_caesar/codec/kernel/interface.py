"""What the compiled kernel has: loops that numpy has, too, with the same outcome."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


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
            The words come to stand at its end.
        """

    def pull(
        self,
        states: Array,
        words: Array,
        symbols: Array,
        contexts: Array,
        frequencies: Array,
        alphabet: int,
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

        Returns
        -------
        int
            -1 if there are too few words.
        """
