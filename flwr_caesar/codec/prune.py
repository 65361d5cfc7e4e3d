"""`prune`: the smallest weights of a whole model to zero, the rest as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Codec
from .errors import CodecError
from .exact import pack_exact, require_exact_below, split_exact, unpack_exact
from .frame import FrameReader, Section
from .layout import Array, Arrays, Layout
from .positions import decode_positions, encode_positions, max_positions_bytes
from .select import prune_mask
from .state import CodecState
from .vector import gather, in_layout_order, scatter


@dataclass(frozen=True)
class Prune(Codec):
    """Unstructured one-shot magnitude pruning of a whole message.

    Over all prunable tensors together, the ``floor(prune_rate * n)`` smallest
    magnitudes become zero and the survivors stay as they are (float64 is rounded to
    float32). On the wire: a mask, then the survivors, byte-shuffled and compressed
    with zstd. About 14 bits a parameter at a rate of 0.5.

    Parameters
    ----------
    prune_rate : float
        Fraction of elements pruned, in ``[0, 1]``.
    exclude_1d : bool
        Send tensors of fewer than two axes (biases, norms) exactly. The paper's code
        prunes them too.
    exact_below : int
        Tensors with fewer elements are sent exactly.

    References
    ----------
    Grativol Ribeiro et al. (2023), arXiv:2310.14693. Its code prunes below a
    threshold, which on ties prunes fewer than the rate says; this prunes the rate.
    """

    prune_rate: float = 0.5
    exclude_1d: bool = True
    exact_below: int = 0

    id: ClassVar[str] = "prune"

    def __post_init__(self) -> None:
        if not 0 <= self.prune_rate <= 1:
            raise CodecError(
                f"prune: prune_rate must be in [0, 1], not {self.prune_rate}"
            )
        if not isinstance(self.exclude_1d, bool):
            raise CodecError(
                f"prune: exclude_1d must be true or false, not {self.exclude_1d!r}"
            )
        require_exact_below(self.id, self.exact_below)

    def _encode(
        self, arrays: Arrays, layout: Layout, state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array]]:
        exact, lossy = split_exact(layout, self.exact_below, exclude_1d=self.exclude_1d)
        sections = pack_exact(arrays, exact)
        if lossy:
            vector = gather(arrays, lossy)
            mask = prune_mask(vector, self.prune_rate)
            positions = encode_positions(np.flatnonzero(mask), len(vector))
            sections += [
                Section("POS", positions),
                Section("VAL", vector[mask].tobytes(), itemsize=4),
            ]
        return sections, {}

    def _decode(
        self, reader: FrameReader, layout: Layout, state: CodecState | None
    ) -> tuple[dict[str, Array], Mapping[str, Array]]:
        exact, lossy = split_exact(layout, self.exact_below, exclude_1d=self.exclude_1d)
        arrays = unpack_exact(reader, exact)
        if lossy:
            vector = np.zeros(sum(spec.size for spec in lossy), np.float32)
            packed = reader.section("POS", max_size=max_positions_bytes(len(vector)))
            positions = decode_positions(packed, len(vector))
            data = reader.section("VAL", size=4 * len(positions))
            vector[positions] = np.frombuffer(data, "<f4")
            arrays |= scatter(vector, lossy)
        return in_layout_order(layout, arrays), {}
