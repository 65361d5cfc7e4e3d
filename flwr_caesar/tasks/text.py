"""Characters to numbers, as LEAF's Shakespeare task does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .examples import Array

VOCABULARY = (
    "\n !\"&'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz}"
)
_CODES = {character: code for code, character in enumerate(VOCABULARY)}
_UNKNOWN = _CODES[" "]


def encode_text(lines: Sequence[str], length: int) -> Array:
    """Return character codes in ``[0, 80)``, int64, shape ``(len(lines), length)``.

    A character outside `VOCABULARY` counts as a space. Shorter lines are padded with
    spaces in front, longer ones keep their end: the next character is predicted.
    """
    codes = [
        [_CODES.get(c, _UNKNOWN) for c in line[-length:].rjust(length)]
        for line in lines
    ]
    return np.array(codes, np.int64).reshape(len(lines), length)
