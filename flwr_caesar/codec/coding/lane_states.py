"""States of lanes as words of a stream, and back."""

from __future__ import annotations

import numpy as np

from ..contract.errors import CodecError
from .lanes import States, Words


def write_states(states: States) -> Words:
    """Return states as words: flags of four bytes, low halves, third, fourth bytes."""
    high = states >> np.uint32(16)
    large = high > 0xFF
    flags = np.zeros((len(states) + 15) // 16 * 2, np.uint8)
    packed = np.packbits(large)
    flags[: len(packed)] = packed
    top = (high[large] >> np.uint32(8)).astype(np.uint8)
    odd = np.zeros((len(states) + len(top)) % 2, np.uint8)
    upper = np.concatenate([high.astype(np.uint8), top, odd])
    words = [flags.view("<u2"), states.astype(np.uint16), upper.view("<u2")]
    return np.concatenate(words)


def read_states(stack: Words, lanes: int) -> tuple[States, Words]:
    """Return the states that `write_states` wrote, and the words after them.

    Raises
    ------
    CodecError
        If the words end before, or a state is below `LOWEST`.
    """
    data = stack.astype("<u2").view(np.uint8)
    start = (lanes + 15) // 16 * 2
    large = np.unpackbits(data[:start]).astype(bool)
    upper = start + 2 * lanes
    count = int(large.sum())
    end = upper + lanes + count
    end += end % 2
    if end > len(data) or large[lanes:].any():
        raise CodecError("symbols are truncated")
    high = data[upper : upper + lanes].astype(np.uint32)
    top = data[upper + lanes : upper + lanes + count]
    high[large[:lanes]] |= top.astype(np.uint32) << np.uint32(8)
    states = stack[start // 2 : upper // 2] | (high << np.uint32(16))
    if (high == 0).any():
        raise CodecError("symbols start in a wrong state")
    return states, stack[end // 2 :]
