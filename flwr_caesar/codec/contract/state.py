"""What a codec remembers between two frames."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import field
from functools import cached_property

import numpy as np

from flwr_caesar.frozen import frozen

from .layout import Array, Layout

NO_DIGEST = bytes(8)


@frozen
class CodecState:
    """State of an encoder or a decoder after some number of frames.

    Plain data, so that a store can keep it without knowing the codec.

    Parameters
    ----------
    layout : Layout
        Tensors that the frames describe. A decoder that is given a state refuses
        frames of any other names or shapes before it allocates.
    version : int
        Number of frames absorbed so far; 0 also for a codec without memory.
    arrays : mapping of str to ndarray
        The memory that encoder and decoder share (empty for a stateless codec).
    private : mapping of str to ndarray
        Memory that only this side has, such as an error-feedback residual; not part
        of the digest.
    """

    layout: Layout
    version: int = 0
    arrays: Mapping[str, Array] = field(default_factory=dict)
    private: Mapping[str, Array] = field(default_factory=dict)

    @cached_property
    def digest(self) -> bytes:
        """Eight bytes, CRC-32 then Adler-32 of version, layout and shared memory.

        It detects divergence, not forgery: both checksums are in every language's
        zlib and run at memory speed.
        """
        if not self.arrays:
            return NO_DIGEST
        head = struct.pack("<I", self.version) + self.layout.digest
        crc, adler = zlib.crc32(head), zlib.adler32(head)
        for name in sorted(self.arrays):
            array = np.ascontiguousarray(self.arrays[name])
            for chunk in (name.encode(), array.reshape(-1).view(np.uint8).data):
                crc, adler = zlib.crc32(chunk, crc), zlib.adler32(chunk, adler)
        return struct.pack("<II", crc, adler)
