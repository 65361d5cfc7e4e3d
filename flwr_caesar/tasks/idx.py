"""The IDX format of MNIST and its successors, compressed by gzip."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from .examples import Array

_UINT8 = 8


def read_idx(path: Path, shape: tuple[int, ...]) -> Array:
    """Return the bytes of a ``.gz`` file that must hold an array of this shape.

    Reads no more than such an array takes, whatever the file would unpack to.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no IDX file of bytes, or of another shape.
    """
    header = bytes((0, 0, _UINT8, len(shape)))
    header += b"".join(size.to_bytes(4, "big") for size in shape)
    length = len(header) + math.prod(shape)
    try:
        with gzip.open(path) as file:
            content = file.read(length + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as err:
        raise ValueError(f"{path} is damaged: {err}") from err
    if len(content) != length or not content.startswith(header):
        raise ValueError(f"{path} does not hold {' x '.join(map(str, shape))} bytes")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)
