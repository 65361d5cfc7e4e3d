"""Characters to numbers: LEAF's alphabet for Shakespeare, ASCII for the manual."""

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


def encode_ascii(text: str) -> Array:
    """Return codes in ``[0, 96)``, int64: printable ASCII in its order, then newline.

    Any other character counts as a space.
    """
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(
        np.int64
    )
    codes = np.where((points >= 32) & (points < 127), points - 32, 0)
    return np.where(points == 10, 95, codes)
