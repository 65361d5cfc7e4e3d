"""Runs a program for the Kotlin engine: calls on standard input, outputs back.

Integers and numbers are big-endian, as Java's streams have them.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from flwr_caesar.android.lowering import Program


def read_values(source: BinaryIO) -> list[Tensor]:
    values = []
    (count,) = struct.unpack(">i", source.read(4))
    for _ in range(count):
        is_whole, axes = struct.unpack(">?i", source.read(5))
        shape = struct.unpack(f">{axes}q", source.read(8 * axes))
        kind, size = (">i8", 8) if is_whole else (">f4", 4)
        data = source.read(size * int(np.prod(shape, dtype=int)))
        array = np.frombuffer(data, kind).reshape(shape)
        values.append(torch.from_numpy(array.astype(kind[1:])))
    return values


def write_values(sink: BinaryIO, values: Sequence[Tensor]) -> None:
    sink.write(struct.pack(">i", len(values)))
    for value in values:
        is_whole = value.dtype == torch.int64
        shape = tuple(value.shape)
        sink.write(struct.pack(f">?i{len(shape)}q", is_whole, len(shape), *shape))
        sink.write(value.numpy().astype(">i8" if is_whole else ">f4").tobytes())


def main() -> None:
    program = Program(Path(sys.argv[1]).read_bytes())
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while length := source.read(2):
        method = source.read(struct.unpack(">H", length)[0]).decode()
        write_values(sink, program.run(method, read_values(source)))
        sink.flush()


if __name__ == "__main__":
    main()
