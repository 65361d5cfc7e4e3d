"""`predicted`: what a compressor makes of the difference to a shared prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from flwr_caesar.frozen import frozen

from ..contract.errors import CodecError
from ..contract.frame import FrameReader
from ..contract.layout import Array, Arrays, Layout, TensorSpec
from ..contract.lossy import Decoded, Encoded, LossyCodec
from ..contract.state import CodecState
from ..contract.vector import Vector, gather, slices
from ..quantisers.select import require_density
from ..quantisers.uniform import require_mean_bits
from .quantized import QuantizedCodec
from .topk import TopKCodec

COMPRESSORS = ("topk", "quantized")


@frozen
class PredictedCodec(LossyCodec):
    """Compress ``x - p`` for a prediction ``p`` that both sides hold: ``p + C(x - p)``.

    The prediction is the codec's memory (`prediction`). A frame leaves none behind:
    whoever has one for both sides puts it there, as `flwr_caesar.strategies.CAFe` does
    with the mean of all devices' last updates. Without one, ``p`` is 0. Biased, as its
    compressors are.

    Parameters
    ----------
    compressor : {"topk", "quantized"}
        ``C``: the largest elements in float16, or these at a few bits each, as
        `TopKCodec` and `QuantizedCodec` send them.
    density : float
        Fraction of elements that are sent, in ``(0, 1]``.
    bits : float
        Mean bits of a sent value where it is ``"quantized"``, from 2 to 8.
    exact_below : int
        Tensors with fewer elements are sent exactly.

    References
    ----------
    Ortega et al. (2024), arXiv:2412.04538.
    """

    compressor: str = "topk"
    density: float = 0.1
    bits: float = 8.0
    exact_below: int = 1024

    id: ClassVar[str] = "predicted"

    def __post_init__(self) -> None:
        if self.compressor not in COMPRESSORS:
            raise CodecError(
                f"predicted: compressor must be one of {', '.join(COMPRESSORS)}, "
                f"not {self.compressor!r}"
            )
        require_density(self.id, self.density)
        require_mean_bits(self.id, self.bits)
        super().__post_init__()

    @property
    def _compressor(self) -> LossyCodec:
        if self.compressor == "quantized":
            return QuantizedCodec(density=self.density, bits=self.bits)
        return TopKCodec(density=self.density, values="float16")

    def prediction(self, update: Arrays) -> dict[str, Array]:
        """Return the memory with which an update is predicted from another one.

        Parameters
        ----------
        update : mapping of str to ndarray
            The other one, of the same names, shapes and dtypes.

        Returns
        -------
        dict of str to ndarray of float32, shape (size,)
            The tensors that are not sent exactly, flattened.
        """
        _, lossy = self._split(Layout.of(update))
        vector = gather(update, lossy)
        parts = zip(lossy, slices(lossy), strict=True)
        return {spec.name: vector[part].copy() for spec, part in parts}

    def _encode_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Encoded:
        with np.errstate(over="ignore"):  # infinite: decoding it is refused
            left = vector - _expected(state, lossy)
        return self._compressor._encode_vector(left, lossy, None)

    def _decode_vector(
        self, reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Decoded:
        sent, memory = self._compressor._decode_vector(reader, lossy, None)
        with np.errstate(over="ignore", invalid="ignore"):  # the base class refuses it
            return sent + _expected(state, lossy), memory


def _expected(
    state: CodecState | None, lossy: Sequence[TensorSpec]
) -> Vector | np.float32:
    """Return the prediction of a vector; 0 without one."""
    if state is None:
        return np.float32(0)
    held: Mapping[str, Array] = state.arrays
    fits = held.keys() == {spec.name for spec in lossy} and all(
        held[spec.name].dtype == np.float32
        and held[spec.name].shape == (spec.size,)
        and np.isfinite(held[spec.name]).all()
        for spec in lossy
    )
    if not fits:
        raise CodecError("the prediction has other tensors than the update")
    return np.concatenate([held[spec.name] for spec in lossy])
