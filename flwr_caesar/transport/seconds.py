"""The four durations that a device reports, in six bytes."""

from __future__ import annotations

import math

from flwr_caesar.codec import CodecError

COUNT = 4
SECONDS_BYTES = 6
MAX_SECONDS = 1e7
_BITS = 12
# Code c stands for 2^((c - 1) / 112 - 13) seconds: steps of 0.6 % from 0.12 ms on.
_STEPS, _SHIFT = 112, 13


def pack_seconds(*seconds: float) -> bytes:
    """Return four durations, each to 0.3 %; what is shorter than 0.1 ms is 0."""
    packed = 0
    for value in seconds:
        packed = packed << _BITS | _code(value)
    return packed.to_bytes(SECONDS_BYTES, "big")


def unpack_seconds(data: bytes) -> list[float]:
    """Return what `pack_seconds` packed.

    Raises
    ------
    CodecError
        If a duration is longer than any that a device may claim.
    """
    packed = int.from_bytes(data, "big")
    shifts = range(_BITS * (COUNT - 1), -1, -_BITS)
    codes = [packed >> shift & (1 << _BITS) - 1 for shift in shifts]
    found = [2 ** ((code - 1) / _STEPS - _SHIFT) if code else 0.0 for code in codes]
    for value in found:
        if value > MAX_SECONDS:
            raise CodecError(f"the device reports {value:.3g} seconds")
    return found


def _code(seconds: float) -> int:
    if not seconds > 0:
        return 0
    code = round((math.log2(seconds) + _SHIFT) * _STEPS) + 1
    return min(max(code, 0), (1 << _BITS) - 1)
