"""The products of `outer_products` as sections of a frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..coding.compact_block import decode_compact_block, encode_compact_block
from ..coding.contexts import as_channels
from ..coding.lattice_block import max_block_bytes
from ..contract.errors import CodecError
from ..contract.frame import FrameReader, Section
from ..contract.layout import TensorSpec
from .outer_products import MOST_DOUBLINGS, Products, has_products

_TABLE, _INTEGERS = "OTAB", "OINT"
_FACTORS = "factors"


def pack_products(found: Sequence[Products | None]) -> list[Section]:
    """Return the sections that tell the products of all tensors; none without any.

    Parameters
    ----------
    found : sequence of Products or None
        Of each lossy tensor, in order.
    """
    there = [each for each in found if each is not None]
    if not there:
        return []
    ranks = bytes(0 if each is None else len(each.doublings) for each in found)
    units = np.array([each.unit for each in there], "<f4").tobytes()
    doublings = b"".join(each.doublings.tobytes() for each in there)
    sides = [side for each in there for side in (each.left, each.right)]
    specs = [TensorSpec(_FACTORS, "int32", side.shape) for side in sides]
    integers = np.concatenate([side.reshape(-1) for side in sides])
    block, _ = encode_compact_block(integers, specs)
    return [
        Section(_TABLE, ranks + units + doublings, itemsize=1),
        Section(_INTEGERS, block),
    ]


def has_sections(reader: FrameReader) -> bool:
    """Return whether a frame tells products."""
    return _TABLE in reader


def read_products(
    reader: FrameReader, lossy: Sequence[TensorSpec], rank: int
) -> list[Products | None]:
    """Read what `pack_products` wrote.

    Parameters
    ----------
    reader : FrameReader
        Of the frame.
    lossy : sequence of TensorSpec
        The tensors.
    rank : int
        The most products that a tensor may have.

    Raises
    ------
    CodecError
        If the sections are malformed.
    """
    if not has_sections(reader):
        return [None] * len(lossy)
    table = reader.section(_TABLE, max_size=(5 + rank) * len(lossy))
    ranks = list(table[: len(lossy)])
    shapes = [as_channels(spec.shape) for spec in lossy]
    there = [shape for shape, own in zip(shapes, ranks, strict=False) if own]
    middle = len(lossy) + 4 * len(there)
    if len(table) != middle + sum(ranks) or not there:
        raise CodecError("table of products has the wrong size")
    for (rows, inputs, positions), own in zip(shapes, ranks, strict=True):
        most = min(rank, rows, inputs * positions)
        if own > most or (own and not has_products((rows, inputs, positions), own)):
            raise CodecError("a tensor has products that it cannot have")
    units = np.frombuffer(table, "<f4", len(there), len(lossy)).astype(np.float32)
    doublings = np.frombuffer(table, np.uint8, -1, middle)
    if not (np.isfinite(units).all() and (units > 0).all()):
        raise CodecError("products have a malformed unit")
    if int(doublings.max()) > MOST_DOUBLINGS:
        raise CodecError("products have malformed doublings")
    own_ranks = [own for own in ranks if own]
    specs = [
        TensorSpec(_FACTORS, "int32", (own, size))
        for own, shape in zip(own_ranks, there, strict=True)
        for size in (shape[0], shape[1] * shape[2])
    ]
    data = reader.section(_INTEGERS, max_size=max_block_bytes(specs))
    integers, _ = decode_compact_block(data, specs)
    ends = np.cumsum([spec.size for spec in specs])[:-1]
    parts = np.split(integers, ends)
    sides = [p.reshape(s.shape) for p, s in zip(parts, specs, strict=True)]
    starts = np.cumsum([0, *own_ranks])
    made = iter(
        Products(unit, doublings[start : start + own], left, right)
        for unit, start, own, left, right in zip(
            units, starts, own_ranks, sides[::2], sides[1::2], strict=False
        )
    )
    found = [next(made) if own else None for own in ranks]
    if not all(each.is_exact for each in found if each is not None):
        raise CodecError("products are too large")
    return found
