"""Elements whose bytes of equal weight stand together, and zstd that is read in pieces.

What is long is read into its place, a piece at a time: nothing of its size is held
beside it, and its elements are written once.
"""

from __future__ import annotations

import numpy as np
import zstandard

from .errors import CodecError
from .layout import Array

PIECE = 1 << 20
_MOST_WINDOW = 8 << 20
_HEAD_BYTES, _RLE, _CHECKSUM_BYTES = 3, 1, 4


def shuffle(data: bytes | memoryview, itemsize: int) -> bytes:
    """Transpose `data` so that the k-th bytes of all elements stand together."""
    return np.frombuffer(data, np.uint8).reshape(-1, itemsize).T.tobytes()


def unshuffle(data: bytes, itemsize: int) -> bytes:
    """Undo `shuffle`."""
    return np.frombuffer(data, np.uint8).reshape(itemsize, -1).T.tobytes()


def decompress(stored: bytes | memoryview, raw: int) -> bytes:
    """Return what zstd compressed.

    Parameters
    ----------
    stored : bytes-like
        One frame of zstd, of which the head says how long its content is.
    raw : int
        Bytes of the content.

    Raises
    ------
    CodecError
        If it is no such frame.
    """
    try:
        _require_size(stored, raw)
        data = zstandard.ZstdDecompressor().decompress(
            stored, max_output_size=raw, allow_extra_data=False
        )
    except zstandard.ZstdError as err:
        raise CodecError(f"does not decompress: {err}") from err
    if len(data) != raw:
        raise CodecError("decompresses to another size")
    return data


def decompress_elements(stored: bytes | memoryview, raw: int, itemsize: int) -> Array:
    """Return elements that were shuffled and then compressed.

    Parameters
    ----------
    stored, raw
        See `decompress`.
    itemsize : int
        Bytes of an element; `raw` is a multiple of it.

    Returns
    -------
    ndarray of uint8, shape (raw,)

    Raises
    ------
    CodecError
        As `decompress`.
    """
    try:
        _require_size(stored, raw)
        window = zstandard.get_frame_parameters(stored).window_size
        if raw <= PIECE or window > _MOST_WINDOW:
            # Not worth it, or zstd would need as much beside it.
            whole = unshuffle(decompress(stored, raw), itemsize)
            return np.frombuffer(bytearray(whole), np.uint8)
        if _frame_bytes(stored) != len(stored):
            raise CodecError("does not decompress: it ends elsewhere")
        return _read_planes(stored, raw, itemsize)
    except zstandard.ZstdError as err:
        raise CodecError(f"does not decompress: {err}") from err


def _read_planes(stored: bytes | memoryview, raw: int, itemsize: int) -> Array:
    count = raw // itemsize
    elements = np.empty((count, itemsize), np.uint8)
    piece = np.empty(PIECE, np.uint8)
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW)
    with decompressor.stream_reader(stored) as reader:
        for plane in range(itemsize):
            start = 0
            while start < count:
                found = reader.readinto(piece[: count - start].data)
                if not found:
                    raise CodecError("decompresses to another size")
                elements[start : start + found, plane] = piece[:found]
                start += found
        if reader.read(1):  # and what is checked at the end is
            raise CodecError("decompresses to another size")
    return elements.reshape(-1)


def _require_size(stored: bytes | memoryview, raw: int) -> None:
    # python-zstandard trusts the size in the zstd header over max_output_size, so that
    # header must agree before it may allocate.
    if zstandard.frame_content_size(stored) != raw:
        raise CodecError("decompresses to another size")


def _frame_bytes(stored: bytes | memoryview) -> int:
    """Return where a frame of zstd ends, by the heads of its blocks (RFC 8878, 3.1.1).

    A stream that is read in pieces says nothing of what comes after it.
    """
    view, at = memoryview(stored), zstandard.frame_header_size(stored)
    is_last = False
    while not is_last:
        head = int.from_bytes(view[at : at + _HEAD_BYTES], "little")
        if at + _HEAD_BYTES > len(view):
            raise CodecError("does not decompress: it is cut off")
        is_last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
        at += _HEAD_BYTES + (1 if kind == _RLE else size)
    has_sum = zstandard.get_frame_parameters(stored).has_checksum
    return at + _CHECKSUM_BYTES * has_sum
