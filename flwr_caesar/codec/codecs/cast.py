"""`cast`: every floating-point tensor as float16 or bfloat16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.values import from_bfloat16, to_bfloat16, to_float16
from ..contract.errors import CodecError
from ..contract.frame import FrameReader, Section
from ..contract.layout import Array, Arrays, Layout, TensorSpec
from ..contract.lossy import Decoded, Encoded, LossyCodec
from ..contract.state import CodecState
from ..contract.vector import Vector

_RELATIVE = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
_SUBNORMAL = {"float16": 2.0**-25, "bfloat16": 2.0**-134}


@frozen
class CastCodec(LossyCodec):
    """Narrow floating point: 16 bits an element before compression.

    Values are rounded to nearest, ties to even, then byte-shuffled and compressed with
    zstd where that is shorter. The error is at most ``2^-11 |x|`` in float16
    (``2^-25`` for subnormal results) and ``2^-8 |x|`` in bfloat16.

    Parameters
    ----------
    dtype : {"float16", "bfloat16"}
        Type on the wire. Magnitudes above 65,504 are refused in float16.
    exact_below : int
        Tensors with fewer elements are sent exactly.
    """

    dtype: str = "float16"
    exact_below: int = 1024

    id: ClassVar[str] = "cast"

    def __post_init__(self) -> None:
        if self.dtype not in _RELATIVE:
            raise CodecError(
                f"cast: dtype must be one of {', '.join(_RELATIVE)}, not {self.dtype!r}"
            )
        super().__post_init__()

    def error_bound(self, arrays: Arrays) -> Mapping[str, Array]:
        """Return the half spacing of the narrow type at each element."""
        _, lossy = self._split(Layout.of(arrays))
        rounded = {s.name for s in lossy}
        bounds = {}
        for name, array in arrays.items():
            if name in rounded:
                magnitude = np.abs(array.astype(np.float64))
                bound = np.maximum(
                    magnitude * _RELATIVE[self.dtype], _SUBNORMAL[self.dtype]
                )
            else:
                bound = np.zeros(array.shape)
            bounds[name] = bound
        return bounds

    def _encode_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Encoded:
        narrow: Array = (
            to_float16(vector) if self.dtype == "float16" else to_bfloat16(vector)
        )
        return [Section("VAL", narrow.tobytes(), itemsize=2)], {}

    def _decode_vector(
        self, reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Decoded:
        data = reader.section("VAL", size=2 * sum(spec.size for spec in lossy))
        if self.dtype == "float16":
            vector = np.frombuffer(data, "<f2").astype(np.float32)
        else:
            vector = from_bfloat16(np.frombuffer(data, "<u2"))
        return vector, {}
