"""`caesar_model`: Caesar's download, precise where it is large, one bit elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.positions import encode_positions, read_positions
from ..coding.values import (
    magnitude_bounds,
    pack_signs,
    read_magnitudes,
    signed,
    unpack_signs,
)
from ..contract.errors import CodecError, StateMismatchError
from ..contract.frame import FrameReader, Section
from ..contract.layout import Array, Arrays, Layout, TensorSpec
from ..contract.lossy import Decoded, Encoded, LossyCodec
from ..contract.state import CodecState
from ..contract.vector import Vector, gather, slices
from ..quantisers.select import count_pruned, top_k_mask

STALE_PREFIX = "stale/"


def recover(
    negative: Array, mean: np.float32, largest: np.float32, stale: Vector | None
) -> Vector:
    """Recover elements that were sent as one sign bit, with a stale copy of them.

    The stale value where it is possible, given what was sent: its sign is the one
    sent and its magnitude is at most `largest`. Else, and without a stale copy, the
    mean magnitude with the sign sent. So no error exceeds `largest`.

    Parameters
    ----------
    negative : ndarray of bool, shape (q,)
        Signs sent. Zero, of either sign, counts as positive here and in `stale`.
    mean, largest : float32
        Mean and largest magnitude of the elements.
    stale : ndarray of float32, shape (q,), optional
        The same elements of the model that the receiver still has.

    References
    ----------
    Yan et al. (2024), arXiv:2412.19989.
    """
    guess = signed(negative, mean)
    if stale is None:
        return guess
    possible = (np.abs(stale) <= largest) & ((stale < 0) == negative)
    recovered: Vector = np.where(possible, stale, guess)
    return recovered


def with_stale(layout: Layout, model: Arrays) -> CodecState:
    """Return a decoder state that holds a stale model to recover from.

    The model lies in `CodecState.private` under ``"stale/" + name``. It is used for
    one frame; the state that `CaesarModelCodec.decode` returns holds none.

    Parameters
    ----------
    layout : Layout
        Tensors that the frame is expected to hold.
    model : mapping of str to ndarray
        The device's own last model: same names and shapes.
    """
    return CodecState(
        layout,
        private={STALE_PREFIX + name: np.asarray(a) for name, a in model.items()},
    )


@frozen
class CaesarModelCodec(LossyCodec):
    """Caesar's hybrid model compression with recovery on the device, per tensor.

    Of each lossy tensor of `n` elements the ``floor(drop_fraction * n)`` smallest in
    magnitude are sent as one sign bit each, with their mean and largest magnitude; the
    others as float32. A decoder that holds a stale model (`with_stale`) recovers the
    former with `recover`. Ideally ``32 (1 - f) + f + H2(f)`` bits a parameter: 14.4 at
    a drop fraction of 0.6.

    Parameters
    ----------
    drop_fraction : float
        Fraction of elements reduced to their sign, in ``[0, 1]``; the paper's
        "compression ratio" theta, which it keeps in ``[0, 0.6]``.
    exact_below : int
        Tensors with fewer elements are sent exactly.

    References
    ----------
    Yan et al. (2024), arXiv:2412.19989. Splitting per tensor, and the sign of zero,
    are our reading.
    """

    drop_fraction: float = 0.6
    exact_below: int = 1024

    id: ClassVar[str] = "caesar_model"
    reads_private: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.drop_fraction <= 1:
            raise CodecError(
                "caesar_model: drop_fraction must be in [0, 1], "
                f"not {self.drop_fraction}"
            )
        super().__post_init__()

    def _encode_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Encoded:
        full = np.empty(len(vector), bool)
        bounds = []
        for part in slices(lossy):
            x = vector[part]
            k = len(x) - count_pruned(len(x), self.drop_fraction)
            full[part] = top_k_mask(x, k)
            bounds.append(magnitude_bounds(x[~full[part]]))
        return [
            Section("POS", encode_positions(np.flatnonzero(full), len(vector))),
            Section("BND", np.array(bounds, "<f4").tobytes()),
            Section("SIGN", pack_signs(vector[~full]), itemsize=1),
            Section("VAL", vector[full].tobytes(), itemsize=4),
        ], {}

    def _decode_vector(
        self, reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Decoded:
        n = sum(spec.size for spec in lossy)
        full = np.zeros(n, bool)
        full[read_positions(reader, "POS", n)] = True
        k = int(np.count_nonzero(full))
        bounds = read_magnitudes(reader.section("BND", size=8 * len(lossy)))
        signs = reader.section("SIGN", size=(n - k + 7) // 8)
        negative = unpack_signs(signs, n - k)
        stale = _stale_vector(state, lossy)
        vector = np.empty(n, np.float32)
        vector[full] = np.frombuffer(reader.section("VAL", size=4 * k), "<f4")
        offset = 0
        for part, (mean, largest) in zip(
            slices(lossy), bounds.reshape(-1, 2), strict=True
        ):
            low = ~full[part]
            end = offset + int(np.count_nonzero(low))
            vector[part][low] = recover(
                negative[offset:end],
                mean,
                largest,
                None if stale is None else stale[part][low],
            )
            offset = end
        return vector, {}


def _stale_vector(
    state: CodecState | None, specs: Sequence[TensorSpec]
) -> Vector | None:
    private = state.private if state else {}
    if not any(name.startswith(STALE_PREFIX) for name in private):
        return None
    stale = {}
    for spec in specs:
        array = private.get(STALE_PREFIX + spec.name)
        if array is None or array.shape != spec.shape:
            raise StateMismatchError(
                f"the stale model has no tensor {spec.name!r} of shape {spec.shape}"
            )
        stale[spec.name] = array
    return gather(stale, specs)
